//! `penholder completions` and `penholder man`: made from the same definitions that parse.

use clap_mangen::Man;

use super::args::{self, CompletionsArgs, ManArgs};
use super::exit::{Exit, Failure};
use super::output::Output;

/// Prints the completion script of a shell.
pub(super) fn completions(args: &CompletionsArgs, output: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "penholder", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Ok)
}

/// Prints the manual page, or writes one per command.
pub(super) fn man(args: &ManArgs, output: &mut Output) -> Result<Exit, Failure> {
    let command = with_examples_behind(args::command());
    let Some(directory) = &args.out else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        output.bytes(&page)?;
        return Ok(Exit::Ok);
    };
    let failed = |doing: &str| Failure::on(format!("cannot {doing} {}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed("create"))?;
    clap_mangen::generate_to(command, directory).map_err(failed("write the pages into"))?;
    output.remark(&format!("wrote the pages into {}", directory.display()));
    Ok(Exit::Ok)
}

/// A manual page has its examples near the end, where clap's text before the help would be left out.
fn with_examples_behind(command: clap::Command) -> clap::Command {
    let examples = command.get_before_help().map(ToString::to_string);
    let rest = command.get_after_help().map(ToString::to_string);
    let text = [examples, rest].into_iter().flatten().collect::<Vec<_>>().join("\n\n");
    let command = if text.is_empty() { command } else { command.after_help(text) };
    command.mut_subcommands(with_examples_behind)
}

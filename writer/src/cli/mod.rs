//! The command line, as flow: arguments in, one function per command, an exit code out.

mod args;
mod aside_args;
mod migration_args;
mod logging;
mod serve;
mod submit;
mod exec;
mod stdin;
mod query;
mod spool;
mod status;
mod rejected;
mod retry;
mod grants;
mod quarantine;
mod quarantined;
mod check;
mod findings;
mod orphans;
mod backup;
mod split;
mod split_report;
mod watch;
mod diff;
mod pages;
mod json;
mod line;
mod outcome;
mod render;
mod output;
mod exit;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;

use self::args::{Cli, Task};
use self::exit::{Exit, Failure};
use self::output::Output;

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads to its end is no failure, and there is nobody left to tell about another one.
            error.print().ok();
            if let Some(variable) = args::variable_of(&error, &arguments) {
                Output::stdout(args::Color::Auto)
                    .remark(&format!("the value is that of the variable {variable}"));
            }
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    logging::start(&cli.common, matches!(cli.task, Task::Serve(_)));
    let mut output = Output::stdout(cli.common.color);
    let ended = run(&cli, &mut output).and_then(|exit| output.finish().map(|()| exit));
    match ended {
        Ok(exit) => exit.into(),
        Err(Failure::Pipe) => Exit::Ok.into(),
        Err(Failure::Said { exit, message }) => {
            // What was printed before the failure stays printed, if anybody still reads it.
            output.finish().ok();
            output.complain(&message);
            exit.into()
        }
    }
}

/// Reads the arguments; the colour of help and usage errors follows them too, so that is looked up first.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let color = args::color_of(arguments, std::env::var_os(args::COLOR).as_deref());
    let matches = args::command().color(color.for_clap()).try_get_matches_from(arguments)?;
    args::check_window(&matches)?;
    Cli::from_arg_matches(&matches)
}

fn run(cli: &Cli, output: &mut Output) -> Result<Exit, Failure> {
    match &cli.task {
        Task::Serve(args) => serve::run(args, output),
        Task::Exec(args) => exec::run(args, output),
        Task::Query(args) => query::run(args, output),
        Task::Status(args) => status::run(args, output),
        Task::Rejected(args) => rejected::run(args, output),
        Task::Grants(args) => grants::run(args, output),
        Task::Quarantine(args) => quarantine::run(args, output),
        Task::Check(args) => check::run(args, output),
        Task::Backup(args) => backup::run(args, output),
        Task::Split(args) => split::run(args, cli.common.quiet > 0, output),
        Task::Diff(args) => diff::run(args, output),
        Task::Completions(args) => pages::completions(args, output),
        Task::Man(args) => pages::man(args, output),
    }
}

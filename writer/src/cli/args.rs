//! What can be typed: flags, texts and examples of every command.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use penholder_protocol::Key;

use super::aside_args::{QuarantineArgs, RejectedArgs};
use super::migration_args::{DiffArgs, SplitArgs};

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failure, 2 usage, 3 a verification found something, 4 another writer holds the store, \
    5 timed out (the command stays queued), 6 at least one command was rejected.";

/// The variable of `--color`.
pub(super) const COLOR: &str = "PENHOLDER_COLOR";

/// The variable of every `--timeout`.
pub(super) const TIMEOUT: &str = "PENHOLDER_TIMEOUT";

/// A single-writer sidecar for SQLite: one process holds the pen, everybody else slips it notes.
#[derive(Debug, Parser)]
#[command(name = "penholder", version, after_help = EXIT_CODES, before_help = "\
Examples:
  penholder serve ./store
  penholder exec ./store --db config \"INSERT INTO projects(name) VALUES (?1)\" Penholder
  penholder query ./store --db config \"SELECT count(*) FROM projects\"
  penholder status ./store")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) task: Task,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Colours in help, tables and messages
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", env = COLOR)]
    pub(super) color: Color,
    /// Logs more, to stderr; twice for everything. `RUST_LOG` overrules it
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Logs errors only; twice for nothing
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    pub(super) quiet: u8,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Even when piped
    Always,
    /// Not at all
    Never,
}

impl Color {
    pub(super) fn for_clap(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }
}

/// One variant per command.
#[derive(Debug, Subcommand)]
pub(super) enum Task {
    Serve(ServeArgs),
    Exec(ExecArgs),
    Query(QueryArgs),
    Status(StatusArgs),
    Rejected(RejectedArgs),
    Grants(GrantsArgs),
    Quarantine(QuarantineArgs),
    Check(CheckArgs),
    Backup(BackupArgs),
    Split(SplitArgs),
    Diff(DiffArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Runs the writer: applies what clients submit, until SIGTERM or SIGINT
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder serve ./store
  penholder serve ./store --schema ./migrations
  penholder serve ./store --once")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct ServeArgs {
    /// Directory of the store; created if there is none
    pub(super) store: PathBuf,
    #[arg(
        long,
        value_name = "DIR",
        help = "Migrations, DIR/<database>/NNN_name.sql; without it the built-in activity-tracker schema"
    )]
    pub(super) schema: Option<PathBuf>,
    /// Applies what is in the spool, then ends
    #[arg(long)]
    pub(super) once: bool,
    /// Runs on a file system that is not known to keep SQLite's locks
    #[arg(long)]
    pub(super) allow_filesystem: bool,
    /// Starts with databases from a backup, older than what was applied or without their control file
    #[arg(long)]
    pub(super) accept_rollback: bool,
    /// Does not watch the spool: safety poll only
    #[arg(long)]
    pub(super) no_notify: bool,
}

/// Submits commands, and waits until they are applied
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder exec ./store --db config \"INSERT INTO projects(name) VALUES (?1) RETURNING id\" Penholder
  penholder exec ./store --db config \"DELETE FROM projects WHERE id = ?1\" 7 --expect 1
  penholder exec ./store --stdin < commands.jsonl
with lines such as
  {\"db\":\"config\",\"sql\":\"DELETE FROM settings WHERE key = ?1\",\"params\":[\"theme\"]}
  {\"tx\":[{\"db\":\"config\",\"sql\":\"...\"},{\"db\":\"activity\",\"sql\":\"...\",\"params\":[1]}]}")]
pub(super) struct ExecArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    /// One SQL statement
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin", requires = "db")]
    pub(super) sql: Option<String>,
    /// Values of ?1, ?2 ...: JSON scalars where they parse as such, else text; {"blob":"<base64>"} for bytes
    #[arg(value_name = "PARAM", allow_negative_numbers = true)]
    pub(super) params: Vec<String>,
    /// Database that the statement is for
    #[arg(long, value_name = "NAME", conflicts_with = "stdin")]
    pub(super) db: Option<String>,
    /// Reads commands from stdin, one JSON object per line, and prints one JSON line per command, in order
    #[arg(long)]
    pub(super) stdin: bool,
    /// What a command has to survive before the next step
    #[arg(long, value_enum, default_value_t = Level::Applied, env = "PENHOLDER_LEVEL")]
    pub(super) level: Level,
    /// How long to wait for an outcome; the command stays queued
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME", env = TIMEOUT)]
    pub(super) timeout: Duration,
    /// Idempotency key: the same key gets the first outcome again
    #[arg(long, value_parser = key, value_name = "UUID", conflicts_with = "stdin")]
    pub(super) key: Option<Key>,
    /// Rejects the command unless it changes exactly N rows
    #[arg(long, value_name = "N", conflicts_with = "stdin")]
    pub(super) expect: Option<u64>,
    /// With --stdin, how many commands may be in flight
    #[arg(long, value_name = "N", default_value_t = 256, env = "PENHOLDER_WINDOW")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub(super) window: u32,
    /// Prints JSON; --stdin always does
    #[arg(long)]
    pub(super) json: bool,
}

/// What a command survives once it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// The death of any process
    Queued,
    /// Power loss
    Durable,
    /// Power loss; the effect is committed and the outcome known
    Applied,
}

/// Runs a read-only query on a consistent snapshot
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder query ./store --db activity \"SELECT kind, count(*) FROM activity_events GROUP BY kind\"
  penholder query ./store --db config \"SELECT * FROM projects WHERE id = ?1\" 1 --json")]
pub(super) struct QueryArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    /// One SQL statement that returns rows
    pub(super) sql: String,
    /// Values of ?1, ?2 ..., as for exec
    #[arg(value_name = "PARAM", allow_negative_numbers = true)]
    pub(super) params: Vec<String>,
    /// Database to ask
    #[arg(long, value_name = "NAME")]
    pub(super) db: String,
    /// Prints one JSON object per row
    #[arg(long)]
    pub(super) json: bool,
}

/// Shows the writer, the databases and the spool, without disturbing them
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder status ./store
  penholder status ./store --json | jq .spool.pending_bytes")]
pub(super) struct StatusArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Shows who may do what: users, groups and their roles on every table
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder grants ./store
  penholder grants ./store --json | jq '.roles[] | select(.table == \"projects\")'")]
pub(super) struct GrantsArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Verifies databases, spool and receipts against each other; exits with 3 on a finding
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder check ./store
  penholder check ./store --json | jq '.findings[]'")]
pub(super) struct CheckArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Copies all databases as of one moment, while the writer runs
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder backup ./store --to ./backup-2026-11-20")]
pub(super) struct BackupArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    /// Where the copy goes: a directory that is empty or does not exist
    #[arg(long, value_name = "DIR")]
    pub(super) to: PathBuf,
    /// Prints the manifest as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Prints a completion script for a shell
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder completions bash > /etc/bash_completion.d/penholder
  penholder completions zsh > ~/.zfunc/_penholder")]
pub(super) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

/// Prints the manual page
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder man | man -l -
  penholder man --out /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Writes one page per command into DIR instead
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

/// The whole command line.
pub(super) fn command() -> clap::Command {
    Cli::command()
}

/// Refuses `--window` beside a single statement. As a conflict, clap would refuse it in the environment too.
pub(super) fn check_window(matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some(("exec", exec)) = matches.subcommand() else { return Ok(()) };
    if exec.contains_id("sql") && exec.value_source("window") == Some(ValueSource::CommandLine) {
        let what = "the argument '--window <N>' cannot be used without '--stdin'";
        return Err(command().error(ErrorKind::ArgumentConflict, what));
    }
    Ok(())
}

/// The variable that a refused value is from, if its flag was not typed: clap names the flag alone.
pub(super) fn variable_of(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = flag.split(' ').next()?;
    let variable = format!("PENHOLDER_{}", flag.strip_prefix("--")?.to_ascii_uppercase());
    let is_typed = arguments.iter().any(|word| word.to_str().is_some_and(|word| word.starts_with(flag)));
    (!is_typed && std::env::var_os(&variable).is_some()).then_some(variable)
}

/// What `--color` or else its variable says, before anything else is looked at; a wrong word is for clap to report.
pub(super) fn color_of(arguments: &[OsString], variable: Option<&OsStr>) -> Color {
    let mut words =
        arguments.iter().skip(1).filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let mut color = variable.and_then(OsStr::to_str);
    while let Some(word) = words.next() {
        color = if word == "--color" { words.next() } else { word.strip_prefix("--color=") }.or(color);
    }
    color.and_then(|word| Color::from_str(word, false).ok()).unwrap_or(Color::Auto)
}

/// Reads a time with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.ok_or_else(|| "expected a time with a unit, such as 10s, 500ms or 2m".to_owned())
}

/// Reads an idempotency key in any usual spelling of a UUID.
pub(super) fn key(text: &str) -> Result<Key, String> {
    text.parse::<uuid::Uuid>().map(|id| Key(id.into_bytes())).map_err(|error| format!("not a UUID: {error}"))
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

//! What can be typed behind `penholder rejected` and `penholder quarantine`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::{TIMEOUT, duration};

/// Lists, shows, retries or drops rejected commands
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder rejected ./store
  penholder rejected ./store show 0123456789abcdef0123456789abcdef-7
  penholder rejected ./store retry 0123456789abcdef0123456789abcdef-7
  penholder rejected ./store drop 0123456789abcdef0123456789abcdef-7")]
pub(super) struct RejectedArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    #[command(subcommand)]
    pub(super) action: Option<RejectedAction>,
    /// Prints one JSON object per command
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// What to do with rejected commands; to list them is the default.
#[derive(Debug, Subcommand)]
pub(super) enum RejectedAction {
    /// Lists them, oldest first
    #[command(before_help = "\
Examples:
  penholder rejected ./store list
  penholder rejected ./store list --json | jq .message")]
    List,
    /// Shows one in full; the last line is in the form that `exec --stdin` takes
    #[command(before_help = "\
Examples:
  penholder rejected ./store show 0123456789abcdef0123456789abcdef-7
  penholder rejected ./store show 0123456789abcdef0123456789abcdef-7 | tail -n 1 > command.jsonl")]
    Show {
        /// As listed: <stream>-<sequence>
        id: String,
    },
    /// Submits them again as they were; what is applied is no longer listed
    #[command(before_help = "\
Examples:
  penholder rejected ./store retry 0123456789abcdef0123456789abcdef-7
  penholder rejected ./store retry 0123456789abcdef0123456789abcdef-7 --timeout 1m")]
    Retry {
        /// As listed
        #[arg(required = true)]
        ids: Vec<String>,
        /// How long to wait for each outcome
        #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME", env = TIMEOUT)]
        timeout: Duration,
    },
    /// Forgets them
    #[command(before_help = "\
Examples:
  penholder rejected ./store drop 0123456789abcdef0123456789abcdef-7")]
    Drop {
        /// As listed
        #[arg(required = true)]
        ids: Vec<String>,
        /// How long to wait for each outcome
        #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME", env = TIMEOUT)]
        timeout: Duration,
    },
}

/// Lists, shows, puts back or drops the files that the writer did not trust
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder quarantine ./store
  penholder quarantine ./store show 0123456789abcdef0123456789abcdef-00000001.live
  penholder quarantine ./store release 0123456789abcdef0123456789abcdef-00000001.live
  penholder quarantine ./store show ID --commands | penholder exec ./store --stdin
  penholder quarantine ./store drop 0123456789abcdef0123456789abcdef-00000001.live")]
pub(super) struct QuarantineArgs {
    /// Directory of the store
    pub(super) store: PathBuf,
    #[command(subcommand)]
    pub(super) action: Option<QuarantineAction>,
    /// Prints one JSON object per file
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// What to do with files in quarantine; to list them is the default.
#[derive(Debug, Subcommand)]
pub(super) enum QuarantineAction {
    /// Lists them with their reasons
    #[command(before_help = "\
Examples:
  penholder quarantine ./store list
  penholder quarantine ./store list --json")]
    List,
    /// Shows what can be read of one, where that ends and why, and what has an outcome already
    #[command(before_help = "\
Examples:
  penholder quarantine ./store show 0123456789abcdef0123456789abcdef-00000001.live
  penholder quarantine ./store show ID --commands | penholder exec ./store --stdin")]
    Show {
        /// As listed
        id: String,
        /// Prints only the commands without an outcome, in the form that `exec --stdin` takes
        #[arg(long)]
        commands: bool,
    },
    /// Puts them back into the spool as they are, unless the writer would not take them
    #[command(before_help = "\
Examples:
  penholder quarantine ./store release 0123456789abcdef0123456789abcdef-00000001.live")]
    Release {
        /// As listed
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Deletes them
    #[command(before_help = "\
Examples:
  penholder quarantine ./store drop 0123456789abcdef0123456789abcdef-00000001.live")]
    Drop {
        /// As listed
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

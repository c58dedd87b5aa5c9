//! What can be typed behind `penholder split` and `penholder diff`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use penholder::split::OrphanPolicy;

/// Splits a legacy database into a store, once, and proves that nothing was lost
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder split legacy.db --into ./store --check
  penholder split legacy.db --into ./store
  penholder split legacy.db --into ./store --activity visits --config users --orphans keep
  penholder split legacy.db --into ./store --map tables.toml --retire
where tables.toml holds
  activity = [\"visits\"]
  config = [\"users\", \"preferences\"]
  drop = [\"cache\"]")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct SplitArgs {
    /// The legacy database; it is only read
    #[arg(value_name = "LEGACY.db")]
    pub(super) source: PathBuf,
    /// Directory of the new store
    #[arg(long, value_name = "STORE")]
    pub(super) into: PathBuf,
    /// Plans only: shows what would be done, and exits with 3 if the real run would refuse
    #[arg(long)]
    pub(super) check: bool,
    /// Which table goes where: a TOML file with the lists activity, config and drop
    #[arg(long, value_name = "FILE")]
    pub(super) map: Option<PathBuf>,
    /// Puts a table into activity.db; may be repeated, goes over the map
    #[arg(long, value_name = "TABLE")]
    pub(super) activity: Vec<String>,
    /// Puts a table into config.db; may be repeated, goes over the map
    #[arg(long, value_name = "TABLE")]
    pub(super) config: Vec<String>,
    /// Leaves a table behind; may be repeated, goes over the map
    #[arg(long, value_name = "TABLE")]
    pub(super) drop: Vec<String>,
    /// What becomes of rows that refer to a row that is not there
    #[arg(long, value_enum, default_value_t = Orphans::Fail, value_name = "WHAT")]
    pub(super) orphans: Orphans,
    /// Writes the report, or with --check the plan, to a file as JSON
    #[arg(long, value_name = "FILE.json")]
    pub(super) report: Option<PathBuf>,
    /// Replaces a store that is there
    #[arg(long)]
    pub(super) force: bool,
    /// Afterwards renames the legacy file to LEGACY.db.retired and takes its write permission away
    #[arg(long)]
    pub(super) retire: bool,
    /// First takes a consistent copy of LEGACY.db to FILE through SQLite's backup, and splits the copy
    #[arg(long, value_name = "FILE", conflicts_with_all = ["retire", "check"])]
    pub(super) copy_to: Option<PathBuf>,
    /// Prints the report, or with --check the plan, as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// What becomes of orphans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Orphans {
    /// Carried over as they are; the reference is enforced for what is written from then on
    Keep,
    /// The column that refers is set to NULL
    Null,
    /// Carried over as they are; a reference between the databases that has orphans is not enforced
    ReportOnly,
    /// Nothing is split while there are any
    Fail,
}

impl From<Orphans> for OrphanPolicy {
    fn from(orphans: Orphans) -> Self {
        match orphans {
            Orphans::Keep => Self::Keep,
            Orphans::Null => Self::Null,
            Orphans::ReportOnly => Self::ReportOnly,
            Orphans::Fail => Self::Fail,
        }
    }
}

/// Compares tables of two databases by content, and lists the keys that differ; exits with 3 if any do
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  penholder diff legacy.db ./store/activity.db
  penholder diff old.db new.db projects settings --json")]
pub(super) struct DiffArgs {
    /// A database
    #[arg(value_name = "A")]
    pub(super) a: PathBuf,
    /// Another one
    #[arg(value_name = "B")]
    pub(super) b: PathBuf,
    /// Tables to compare; without any, all that both have
    #[arg(value_name = "TABLE")]
    pub(super) tables: Vec<String>,
    /// How many differing rows of each table to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
    /// Prints one JSON object per table
    #[arg(long)]
    pub(super) json: bool,
}

//! The benchmark: Penholder beside what else one would use, interleaved in one run, with exact delivery verified in
//! every round.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a benchmark stops at the first thing that goes wrong, and prints rounded numbers"
)]

mod effort;
mod peer;
mod workload;
mod process;
mod writer;
mod client;
mod direct;
mod postgres;
mod postgres_client;
mod files;
mod socket;
mod bed;
mod spool;
mod scaling;
mod bulk;
mod load;
mod join;
mod fence;
mod split;
mod machine;
mod results;
mod goals;
mod report;
mod plots;
mod chart;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::effort::{Choices, Effort, Experiment};
use crate::peer::Peer;
use crate::postgres::Cluster;
use crate::process::Role;
use crate::report::Terminal;
use crate::results::Results;

/// Measures Penholder beside what else one would use: same rows, same durability, same disk, one run.
///
/// Examples:
///
///   bench --json docs/benchmarks/run.json
///
///   bench --quick --only processes --peers penholder,sqlite --processes 8
///
///   bench --from docs/benchmarks/run.json --plots docs/benchmarks --fill README.md docs/benchmarks/README.md
#[derive(Parser)]
#[command(name = "bench", verbatim_doc_comment)]
struct Arguments {
    #[command(flatten)]
    choices: Choices,
    /// Where the databases are put; it decides what disk is measured [default: beside this program].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Measures nothing, and shows what an earlier run wrote with --json.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Writes every number of the run to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the run into this directory, as SVG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Puts the tables into these documents, between the lines that name them.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    fill: Vec<PathBuf>,
    #[command(subcommand)]
    child: Option<Child>,
}

#[derive(Subcommand)]
enum Child {
    /// What this program runs as when it starts itself; not for people.
    #[command(name = "__child", hide = true)]
    Child(Role),
    /// As above, for the migration.
    #[command(name = "__migrate", hide = true)]
    Migrate(split::Migration),
}

fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let arguments = Arguments::parse();
    match &arguments.child {
        Some(Child::Child(role)) => return process::run(role),
        Some(Child::Migrate(migration)) => return split::run(migration),
        None => {}
    }
    let results = match &arguments.from {
        Some(path) => Results::read(path),
        None => measure(&arguments),
    };
    print!("{}", Terminal(&results));
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec(&results).unwrap()).unwrap();
    }
    if let Some(directory) = &arguments.plots {
        plots::draw(&results, directory);
    }
    for document in &arguments.fill {
        let text = std::fs::read_to_string(document).unwrap();
        std::fs::write(document, report::fill(&text, &results)).unwrap();
    }
}

fn measure(arguments: &Arguments) -> Results {
    let effort = Effort::of(&arguments.choices);
    let directory = arguments.dir.clone().unwrap_or_else(|| {
        std::env::current_exe().unwrap().parent().expect("a program lies in a directory").to_owned()
    });
    let scratch = scratch_in(&directory);
    let scratch = scratch.path();
    let cluster = cluster(&effort, scratch);
    let postgres = cluster.as_ref().map_or_else(Clone::clone, Cluster::describe);
    let mut results = Results::new(machine::describe(scratch, postgres), effort.rounds, effort.seconds);
    if effort.wants(Experiment::Processes) {
        scaling::measure(&effort, scratch, cluster.as_ref().ok(), &mut results);
    }
    let mut measure = |experiment: Experiment, by: fn(&Effort, &Path, &mut Results)| {
        if effort.wants(experiment) {
            by(&effort, scratch, &mut results);
        }
    };
    measure(Experiment::Bulk, bulk::measure);
    measure(Experiment::Idle, load::idle);
    measure(Experiment::Rows, load::rows);
    measure(Experiment::Start, load::start);
    measure(Experiment::Join, join::measure);
    measure(Experiment::Wakeups, load::wakeups);
    measure(Experiment::Fence, fence::measure);
    measure(Experiment::Split, split::measure);
    results.machine.push(machine::describe_end(scratch));
    results
}

/// A directory that goes when it is dropped; PostgreSQL's server, which is another user's if we are root, may pass.
fn scratch_in(directory: &Path) -> tempfile::TempDir {
    let everybody = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("penholder-bench-").permissions(everybody).tempdir_in(directory).unwrap()
}

/// A cluster of PostgreSQL, or why there is none.
fn cluster(effort: &Effort, scratch: &Path) -> Result<Cluster, String> {
    if !effort.peers.contains(&Peer::Postgres) || !effort.wants(Experiment::Processes) {
        return Err("not asked for".into());
    }
    Cluster::create(scratch).map_err(|why| {
        eprintln!("SKIPPED: PostgreSQL: {why}");
        format!("skipped: {why}")
    })
}

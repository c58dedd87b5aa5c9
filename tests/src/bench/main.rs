//! The benchmark: Penholder beside plain SQLite, interleaved in one run, with exact delivery verified in every round.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark stops at the first thing that goes wrong, and prints rounded numbers"
)]

mod workload;
mod process;
mod direct;
mod client;
mod writer;
mod resources;
mod fence;
mod split;
mod machine;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::process::{Fleet, Role};
use crate::report::{Comparison, Goal, Measure, Report};
use crate::workload::{Progress, Side};
use crate::writer::Writer;

/// Measures Penholder beside plain SQLite: same rows, same SQLite build, same durability, same disk.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// A short run, for a first look: few rounds, little data, noisy numbers.
    #[arg(long)]
    quick: bool,
    /// Writes every number of the run to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the databases are put; it decides what disk is measured [default: beside this program].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Rounds; the table shows medians over them.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Length of one timed measurement, in seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Measures only what has one of these words in its name: eight, one, bulk, fence, memory, idle, split.
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    only: Vec<String>,
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

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    seconds: f64,
    bulk_commands_per_client: u64,
    backlog_commands: u64,
    idle: Duration,
    legacy_megabytes: u64,
}

impl Effort {
    fn of(arguments: &Arguments) -> Self {
        let mut effort = if arguments.quick {
            Self {
                rounds: 2,
                seconds: 1.0,
                bulk_commands_per_client: 20_000,
                backlog_commands: 100_000,
                idle: Duration::from_secs(3),
                legacy_megabytes: 100,
            }
        } else {
            Self {
                rounds: 5,
                seconds: 4.0,
                bulk_commands_per_client: 100_000,
                backlog_commands: 1_000_000,
                idle: Duration::from_secs(5),
                legacy_megabytes: 1000,
            }
        };
        effort.rounds = arguments.rounds.unwrap_or(effort.rounds);
        effort.seconds = arguments.seconds.unwrap_or(effort.seconds);
        effort
    }
}

fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let arguments = Arguments::parse();
    match &arguments.child {
        Some(Child::Child(role)) => return process::run(role),
        Some(Child::Migrate(migration)) => return split::run(migration),
        None => {}
    }
    let directory = arguments.dir.clone().unwrap_or_else(|| {
        std::env::current_exe().unwrap().parent().expect("a program lies in a directory").to_owned()
    });
    let scratch = tempfile::Builder::new().prefix("penholder-bench-").tempdir_in(&directory).unwrap();
    let report = measure(&arguments, scratch.path());
    println!("{report}");
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report.to_json()).unwrap()).unwrap();
    }
}

fn measure(arguments: &Arguments, scratch: &Path) -> Report {
    let effort = Effort::of(arguments);
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|word| name.contains(word.as_str()))
    };
    let mut report = Report::new(machine::describe(scratch), effort.rounds, effort.seconds);
    let timed: Vec<(&str, usize)> =
        [("eight", 8), ("one", 1)].into_iter().filter(|(name, _)| wanted(name)).collect();
    let mut pairs: Vec<Pair> = timed.iter().map(|(_, processes)| Pair::timed(*processes)).collect();
    if wanted("bulk") {
        pairs.push(Pair::bulk());
    }
    for round in 0..effort.rounds {
        for pair in &mut pairs {
            // The side that goes first changes with every round, so that neither profits from what the other left.
            let sides = if round % 2 == 0 {
                [Side::Direct, Side::Penholder]
            } else {
                [Side::Penholder, Side::Direct]
            };
            for side in sides {
                let name = pair.name.lines().next().unwrap_or_default();
                eprintln!("round {}/{}: {name}: {side:?}", round + 1, effort.rounds);
                pair.run(side, effort, scratch);
            }
        }
    }
    report.comparisons = pairs.iter().flat_map(Pair::comparisons).collect();
    if wanted("fence") {
        report.measures.extend(fence::measure(scratch, effort.rounds, effort.seconds));
    }
    if wanted("memory") {
        eprintln!("memory and drain, {} commands", effort.backlog_commands);
        report.measures.extend(resources::backlog(scratch, effort.backlog_commands));
    }
    if wanted("idle") {
        eprintln!("idle, {} s", effort.idle.as_secs());
        report.measures.push(resources::idle(scratch, effort.idle));
    }
    if wanted("split") {
        let (comparison, measures) = split::measure(scratch, effort.legacy_megabytes, effort.rounds);
        report.comparisons.push(comparison);
        report.measures.extend(measures);
    }
    report
}

/// The same work done by both sides, round by round.
struct Pair {
    name: String,
    /// Client processes on Penholder's side.
    clients: usize,
    bulk: bool,
    rounds: Vec<(Side, Progress)>,
}

impl Pair {
    fn timed(processes: usize) -> Self {
        let plural = if processes == 1 { "process" } else { "processes" };
        let name = format!("{processes} {plural}, one command at a time, applied");
        Self { name, clients: processes, bulk: false, rounds: Vec::new() }
    }

    fn bulk() -> Self {
        let name =
            "bulk: 4 processes, 1,000 commands per write,\nbeside 1 connection, 1,000 rows per transaction";
        Self { name: name.into(), clients: 4, bulk: true, rounds: Vec::new() }
    }

    fn run(&mut self, side: Side, effort: Effort, scratch: &Path) {
        let place = tempfile::Builder::new().prefix("round-").tempdir_in(scratch).unwrap();
        let (processes, rows) = match (self.bulk, side) {
            (false, _) => (self.clients, None),
            (true, Side::Penholder) => (self.clients, Some(effort.bulk_commands_per_client)),
            (true, Side::Direct) => (1, Some(effort.bulk_commands_per_client * self.clients as u64)),
        };
        let writer = (side == Side::Penholder).then(|| Writer::start(place.path()));
        if writer.is_none() {
            direct::create(place.path());
        }
        let roles = (1..=processes).map(|client| match (side, rows) {
            (Side::Penholder, None) => Role::applied(place.path(), client, effort.seconds),
            (Side::Penholder, Some(rows)) => Role::bulk(place.path(), client, rows),
            (Side::Direct, None) => Role::direct(place.path(), client, effort.seconds),
            (Side::Direct, Some(rows)) => Role::direct_bulk(place.path(), client, rows),
        });
        let progress = Fleet::start(roles).run();
        if let Some(writer) = writer {
            writer.stop();
        }
        workload::verify(place.path(), &progress.counts);
        self.rounds.push((side, progress));
    }

    fn comparisons(&self) -> Vec<Comparison> {
        let of = |side: Side, value: fn(&Progress) -> f64| -> Vec<f64> {
            self.rounds.iter().filter(|(s, _)| *s == side).map(|(_, progress)| value(progress)).collect()
        };
        let compare = |name: &str, unit, goal, value: fn(&Progress) -> f64| Comparison {
            name: name.to_owned(),
            unit,
            penholder: of(Side::Penholder, value),
            direct: of(Side::Direct, value),
            goal,
        };
        let throughput_goal = match (self.bulk, self.clients) {
            (true, _) => Goal::AtLeast(0.6),
            (false, 1) => Goal::AtLeast(1.0),
            (false, _) => Goal::AtLeast(4.0),
        };
        let mut rows = vec![compare(&self.name, "per second", throughput_goal, Progress::rate)];
        if !self.bulk {
            let tail = if self.clients > 1 { Goal::AtMost(1.0 / 20.0) } else { Goal::None };
            rows.push(compare("    latency, median", "ms", Goal::None, |p| p.latency_ms(0.5)));
            // Directly, one process holds the lock for long while seven wait, each with a single command.
            rows.push(compare("    latency, 1 in 1,000 commands", "ms", Goal::None, |p| p.latency_ms(0.999)));
            let in_full: fn(&Progress) -> f64 = |p| p.latency_in_full_ms(0.999);
            rows.push(compare("    latency, 1 in 1,000, stalls in full", "ms", tail, in_full));
            rows.push(compare("    latency, worst", "ms", Goal::None, |p| p.latency_ms(1.0)));
        }
        rows
    }
}

/// A single number with a goal.
fn measure_of(name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) -> Measure {
    Measure { name: name.into(), value, unit, goal }
}

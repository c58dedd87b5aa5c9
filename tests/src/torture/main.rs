//! The torture harness: real processes, real faults, one oracle.
//!
//! Each scenario plays one kind of fault until its bound is reached, counts what really happened, and has the ledger
//! verified. The first violation ends its scenario, and the program fails in the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness stops at the first thing that goes wrong"
)]

mod scenario;
mod arena;
mod machine;
mod crew;
mod kill;
mod stopped;
mod strace;
mod script;
mod sweep;
mod mount;
mod power;
mod simulated;
mod full;
mod neighbours;
mod readers;
mod crowd;
mod waking;
mod soak;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::arena::Bound;
use crate::scenario::{End, SCENARIOS, Scenario};

/// Plays faults on real writers, clients and readers, and verifies that every promise was kept.
#[derive(Parser)]
#[command(
    name = "penholder-torture",
    after_help = "Run as root on a machine of its own: mounts, power cuts and \
    other users need it, and what cannot run says so. Everything is mounted in a namespace that ends with the program."
)]
struct Arguments {
    /// What to play, by name; everything if nothing is named.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Repeats the random choices of an earlier run [default: drawn].
    #[arg(long)]
    seed: Option<u64>,
    /// How long each scenario plays [default: what it needs for a first answer].
    #[arg(long, value_name = "SECONDS", conflicts_with = "rounds")]
    duration: Option<u64>,
    /// How many rounds each scenario plays, of whatever it counts.
    #[arg(long)]
    rounds: Option<u64>,
    /// Where the stores are put; they decide which file system is tried [default: the directory for temporary files].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Names the scenarios and ends.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:12} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    let chosen = match choose(&arguments.scenarios) {
        Ok(chosen) => chosen,
        Err(unknown) => {
            eprintln!("no such scenario: {unknown}; --list names them");
            return ExitCode::from(2);
        }
    };
    // What plays the roles is a program of its own, and nothing works without it.
    drop(penholder_tests::roles_program());
    if let Some(status) = machine::go_private() {
        return status;
    }
    play(&arguments, &chosen)
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>, String> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |name: &String| SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or(name.clone());
    names.iter().map(find).collect()
}

fn play(arguments: &Arguments, chosen: &[&'static Scenario]) -> ExitCode {
    let seed = arguments.seed.unwrap_or_else(machine::drawn_seed);
    let bound = match (arguments.rounds, arguments.duration) {
        (Some(rounds), _) => Bound::Rounds(rounds),
        (None, Some(seconds)) => Bound::Time(Duration::from_secs(seconds)),
        (None, None) => Bound::Usual,
    };
    let directory = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    println!("seed {seed}");
    let (mut passed, mut skipped, mut failed) = (0, 0, 0);
    for scenario in chosen {
        let report = scenario::play(scenario, seed, bound, &directory);
        println!("{report}");
        match report.end {
            End::Passed => passed += 1,
            End::Skipped(_) => skipped += 1,
            End::Failed(_) => {
                failed += 1;
                println!("{:12} repeat: {}", "", repeat(arguments, scenario, seed));
            }
        }
    }
    println!("{passed} passed, {skipped} skipped, {failed} failed; seed {seed}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The command that plays a failure once more: same choices, though not the same timing.
fn repeat(arguments: &Arguments, scenario: &Scenario, seed: u64) -> String {
    let bound = match (arguments.rounds, arguments.duration) {
        (Some(rounds), _) => format!(" --rounds {rounds}"),
        (None, Some(seconds)) => format!(" --duration {seconds}"),
        (None, None) => String::new(),
    };
    let name = scenario.name;
    let program = std::env::current_exe().unwrap();
    format!("{} {name} --seed {seed}{bound}", program.display())
}

//! An activity tracker on one machine: an app server and a daemon write to one store, at full speed and at once.
//!
//! `cargo run --release -p penholder-examples --bin tracker` plays it in under half a minute: it starts the writer, the app
//! server and the daemon as processes of their own, kills the writer twice while the others work, prints a report
//! that joins both databases, and proves that every write that was acknowledged to anybody is there, once.

mod rehearsal;
mod roles;
mod app_server;
mod daemon;
mod processes;
mod promises;
mod traffic;
mod report;
mod proof;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use penholder::{Config, Observer, Ready, Stop};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::roles::Stage;

/// Whatever went wrong: this program tells a person, and has no other use for it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Plays an activity tracker over one store, kills its writer, and proves that nothing was lost.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    /// How long the app server and the daemon write
    #[arg(long, value_name = "SECONDS", default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Make the store here, and keep it; the directory must not exist yet [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Plays one role; this is how the program starts itself
    #[command(hide = true)]
    Role { name: Name, store: PathBuf, promises: PathBuf },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    Writer,
    AppServer,
    Daemon,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let args = Args::parse();
    let done = match &args.part {
        Some(Part::Role { name, store, promises }) => play(*name, store, promises).map(|()| true),
        None => rehearse(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tracker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rehearse(args: &Args) -> Result<bool> {
    let aside = tempfile::tempdir()?;
    let store = args.store.clone().unwrap_or_else(|| aside.path().join("store"));
    if store.exists() {
        return Err(format!("{} exists already; give a new directory", store.display()).into());
    }
    let held = rehearsal::run(
        &Stage { store: store.clone(), promises: aside.path().to_owned() },
        Duration::from_secs(args.seconds),
    )?;
    if args.store.is_some() {
        println!(
            "the store is kept: penholder query {} --db config 'SELECT * FROM projects'",
            store.display()
        );
    }
    Ok(held)
}

fn play(name: Name, store: &Path, promises: &Path) -> Result<()> {
    // A role does not outlive the rehearsal, however that ends.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    if let Name::Writer = name {
        return serve(store);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    match name {
        Name::AppServer => app_server::run(store, promises, &stop),
        Name::Daemon | Name::Writer => daemon::run(store, promises, &stop),
    }
}

/// The writer as a library: what `penholder serve` does, inside a process of your own.
fn serve(store: &Path) -> Result<()> {
    let config = Config::load(store)?.validate()?;
    let stop = Stop::new();
    stop.on_signals()?;
    Ok(penholder::run(&config, &stop, &mut Announce)?)
}

/// Says on stdout when the writer is ready, and no more.
struct Announce;

impl Observer for Announce {
    fn ready(&mut self, ready: &Ready) {
        println!("ready, run {}", ready.epoch);
    }

    fn beat(&mut self) {}
}

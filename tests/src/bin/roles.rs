//! The processes of a test: a writer, a client of the ledger, a reader. The tests start and kill them.
#![allow(clippy::unwrap_used, reason = "a test process stops at the first thing that goes wrong")]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use penholder::split::{Choices, Ended, OrphanPolicy, Request, Side, split};
use penholder_tests::watcher::{self, Watch};
use penholder_tests::worker::{self, Work};
use penholder_tests::{Mix, Serve, serve};

#[derive(Parser)]
enum Role {
    /// The writer.
    Serve(Serve),
    /// A client that submits its plan.
    Client { store: PathBuf, logs: PathBuf, client: u64, mix: Mix, commands: u64 },
    /// A migration; every table goes to activity but those named.
    Split {
        source: PathBuf,
        store: PathBuf,
        #[arg(long)]
        activity: Vec<String>,
        #[arg(long)]
        config: Vec<String>,
        #[arg(long)]
        force: bool,
        #[arg(long)]
        retire: bool,
    },
    /// A reader that looks at one cut after the other.
    Reader { store: PathBuf, logs: PathBuf },
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    match Role::parse() {
        Role::Serve(role) => match serve(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Standard error may be what is broken.
                writeln!(std::io::stderr(), "writer: {error}").ok();
                ExitCode::from(if matches!(error, penholder::Error::Locked { .. }) { 4 } else { 1 })
            }
        },
        Role::Client { store, logs, client, mix, commands } => {
            worker::run(&Work { store, logs, client, mix, commands, patience: Duration::from_mins(1) });
            ExitCode::SUCCESS
        }
        Role::Split { source, store, activity, config, force, retire } => {
            let of = |tables: Vec<String>, side| tables.into_iter().map(move |table| (table, side));
            let flags = of(activity, Side::Activity).chain(of(config, Side::Config)).collect();
            let choices = Choices { map: None, flags };
            let orphans = OrphanPolicy::Fail;
            match split(&Request { source, store, choices, orphans, force, retire }, &Arc::default()) {
                Ok(Ended::Split(report)) if !report.ok => ExitCode::from(3),
                Ok(_) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("split: {error}");
                    ExitCode::from(if matches!(error, penholder::Error::Locked { .. }) { 4 } else { 1 })
                }
            }
        }
        Role::Reader { store, logs } => match watcher::run(&Watch { store, logs }) {
            Ok(_) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("reader: {fault}");
                ExitCode::FAILURE
            }
        },
    }
}

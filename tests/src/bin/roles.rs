//! The processes of a test: a writer, a client of the ledger, a reader. The tests start and kill them.
#![allow(clippy::unwrap_used, reason = "a test process stops at the first thing that goes wrong")]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use penholder_tests::watcher::{self, Watch};
use penholder_tests::worker::{self, Work};
use penholder_tests::{Mix, Serve, serve};

#[derive(Parser)]
enum Role {
    /// The writer.
    Serve(Serve),
    /// A client that submits its plan.
    Client { store: PathBuf, logs: PathBuf, client: u64, mix: Mix, commands: u64 },
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
        Role::Reader { store, logs } => match watcher::run(&Watch { store, logs }) {
            Ok(_) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("reader: {fault}");
                ExitCode::FAILURE
            }
        },
    }
}

//! The writer, as the tests and the benchmark run it: the library itself, not the command line.

use std::path::PathBuf;

use clap::Args;
use penholder::{Config, Stop};

/// How to run a writer; everything else is in the store's `penholder.toml` and in the environment.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// The store, which is created if there is none.
    pub store: PathBuf,
    /// Its migrations.
    pub schema: PathBuf,
    /// Apply what is in the spool, then end.
    #[arg(long)]
    pub once: bool,
    /// Start with a database that is older than what was reclaimed.
    #[arg(long)]
    pub accept_rollback: bool,
}

/// Runs the writer until a signal or an error ends it.
pub fn serve(serve: &Serve) -> Result<(), penholder::Error> {
    let mut config = Config::load(serve.store.clone())?;
    config.schema = Some(serve.schema.clone());
    config.once |= serve.once;
    config.accept_rollback |= serve.accept_rollback;
    let stop = Stop::new();
    stop.on_signals()?;
    penholder::run(&config.validate()?, &stop, &mut ())
}

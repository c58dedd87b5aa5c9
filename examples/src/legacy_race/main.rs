//! The bug that Penholder was written against, and the end of it: two Node processes, one SQLite file, lost rows.
//!
//! `cargo run --release -p penholder-examples --bin legacy-race` first lets a daemon and a server share a file through
//! sql.js, as they once did: each loads all of it, changes its copy, and writes the copy over the file. Then it moves
//! that same file into a store with `penholder split`, and lets the same two go on with the same work through the writer.
//! Both times it looks up every write that was acknowledged. The Node programs lie in `examples/legacy-race`.

mod tools;
mod race;
mod survivors;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;

use crate::race::Log;
use crate::survivors::Survivors;
use crate::tools::{Found, Tools};

/// Whatever went wrong: this program tells a person, and has no other use for it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Loses rows in a file that two processes share, then moves it into a store, where none is lost.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// How long the two write, each time
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Work in this directory, and keep it; it must not exist yet [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    match play(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("legacy-race: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays both halves; whether each ended as it should. Without Node there is nothing to play, and that is no failure.
fn play(args: &Args) -> Result<bool> {
    let tools = match Tools::find()? {
        Found::All(tools) => tools,
        Found::Missing(why) => {
            println!("SKIPPED: this example plays two Node programs that use sql.js; {why}");
            return Ok(true);
        }
    };
    let aside = tempfile::tempdir()?;
    let place = args.keep.clone().unwrap_or_else(|| aside.path().join("race"));
    std::fs::create_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let stage =
        Stage { tools, legacy: place.join("legacy.db"), store: place.join("store"), seconds: args.seconds };

    tools::must(stage.tools.node("years.js").arg(&stage.legacy))?;
    let (file_logs, file) = stage.share_the_file()?;
    let carried = stage.split(&file_logs)?;
    let store = stage.share_the_store()?;

    println!(
        "\nAcknowledged writes that survived: {} in the file, {} in the store.",
        file.in_words(),
        store.in_words()
    );
    if file.lost() == 0 {
        println!("The old way was lucky: no save hit another. Let the two write longer: --seconds 30");
    }
    if args.keep.is_some() {
        println!("The files are kept in {}", place.display());
    }
    let same_work = file.acknowledged() == store.acknowledged();
    Ok(file.lost() > 0 && carried.survived() == file.survived() && same_work && store.lost() == 0)
}

/// What both halves are played with.
struct Stage {
    tools: Tools,
    legacy: PathBuf,
    store: PathBuf,
    seconds: u64,
}

impl Stage {
    /// The old way: both processes load, change and overwrite one file.
    fn share_the_file(&self) -> Result<(Vec<Log>, Survivors)> {
        println!("1. Two processes share a file through sql.js, for {} s\n", self.seconds);
        let logs = race::run(&self.tools, "legacy.js", &self.legacy, self.seconds)?;
        let survivors = Survivors::in_file(&logs, &self.legacy)?;
        println!("{}", survivors.to_text());
        println!("\n{} rows in the file refer to rows that are gone.", survivors::orphans(&self.legacy)?);
        Ok((logs, survivors))
    }

    /// The way out: what is left in the file goes into a store.
    fn split(&self, logs: &[Log]) -> Result<Survivors> {
        println!("\n2. penholder split legacy.db --into store --orphans keep\n");
        let mut split = Command::new(&self.tools.penholder);
        split.arg("split").arg(&self.legacy).arg("--into").arg(&self.store);
        tools::must(split.args(["--orphans", "keep"]))?;
        let survivors = Survivors::in_store(logs, &self.store)?;
        println!("\nRows of the race found in the store: {}.", survivors.survived());
        Ok(survivors)
    }

    /// The same two processes, and everything goes through the writer.
    fn share_the_store(&self) -> Result<Survivors> {
        println!(
            "\n3. The same two processes go on with the same work through the writer, for {} s\n",
            self.seconds
        );
        let writer = self.tools.serve(&self.store)?;
        let logs = race::run(&self.tools, "sidecar.js", &self.store, self.seconds)?;
        writer.stop()?;
        let survivors = Survivors::in_store(&logs, &self.store)?;
        println!("{}", survivors.to_text());
        Ok(survivors)
    }
}

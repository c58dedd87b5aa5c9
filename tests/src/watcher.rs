//! A reader of the ledger: looks at one cut after the other and accepts only what the writer really committed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use penholder_client::read::{Reader, Snapshot};

use crate::worker::STOP_FILE;

/// What a reader process is told.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The store.
    pub store: PathBuf,
    /// The directory of the stop file.
    pub logs: PathBuf,
}

/// What one cut shows; both databases in one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Commands that config counted.
    pub config: i64,
    /// Commands that activity counted.
    pub activity: i64,
    /// Commands over both databases.
    pub both: i64,
}

/// Reads until the stop file is there; returns how many cuts were seen, or what was wrong with one.
///
/// While no writer runs a cut may be refused, which is counted as patience, not as a fault.
pub fn run(watch: &Watch) -> Result<u64, String> {
    let mut reader = Reader::open(&watch.store).map_err(|error| format!("open: {error}"))?;
    let (mut seen, mut last) = (0, Sight::default());
    while !watch.logs.join(STOP_FILE).exists() {
        match reader.snapshot() {
            Ok(snapshot) => {
                let sight = look(&snapshot)?;
                if sight.config < last.config || sight.activity < last.activity {
                    return Err(format!("a later cut shows less: {last:?}, then {sight:?}"));
                }
                last = sight;
                seen += 1;
            }
            Err(error) => {
                log::info!("no cut: {error}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    Ok(seen)
}

/// Looks at a cut.
pub fn look(snapshot: &Snapshot<'_>) -> Result<Sight, String> {
    let mut counts = [[0_i64; 3]; 2];
    for (counts, database) in counts.iter_mut().zip(["config", "activity"]) {
        let connection = snapshot.database(database).map_err(|error| error.to_string())?;
        *counts = connection
            .query_row(
                "SELECT (SELECT count FROM counter WHERE id = 0), (SELECT count FROM counter WHERE id = 1),
                        (SELECT count(*) FROM ledger)",
                [],
                |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]),
            )
            .map_err(|error| format!("{database}: {error}"))?;
    }
    let [config, activity] = counts;
    if config[0] != config[2] || activity[0] != activity[2] {
        return Err(format!("half a batch: counters {config:?} and {activity:?} (all, both, rows)"));
    }
    if config[1] != activity[1] {
        return Err(format!("a command over both databases in one of them: {config:?}, {activity:?}"));
    }
    Ok(Sight { config: config[0], activity: activity[0], both: config[1] })
}

/// Opens a reader and looks once.
pub fn look_once(store: &Path) -> Result<Sight, String> {
    let mut reader = Reader::open(store).map_err(|error| error.to_string())?;
    let snapshot = reader.snapshot().map_err(|error| error.to_string())?;
    look(&snapshot)
}

//! The rows that both sides write, and the proof that each is there exactly once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use penholder_protocol::{Command, Statement, Text};
use rusqlite::{Connection, OpenFlags};

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Clients of a Penholder writer.
    Penholder,
    /// Processes that open the database themselves.
    Direct,
}

/// The database that is written to, on both sides.
pub(crate) const DATABASE: &str = "activity";
/// No unique key on purpose: a row that is delivered twice must show.
pub(crate) const TABLE: &str = "CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    client INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;
";
/// The one statement that both sides run.
pub(crate) const INSERT: &str = "INSERT INTO event (client, sequence, at, data) VALUES (?1, ?2, ?3, ?4)";
const DATA: &str = r#"{"kind":"focus","app":"editor","title":"main.rs - penholder"}"#;

/// The values of a row.
pub(crate) fn row(client: u64, sequence: u64) -> (i64, i64, i64, &'static str) {
    let (client, sequence) = (client.cast_signed(), sequence.cast_signed());
    (client, sequence, 1_700_000_000_000 + sequence, DATA)
}

/// The same row as a command.
pub(crate) fn command(text: &Arc<Text>, client: u64, sequence: u64) -> Command {
    let (client, sequence, at, data) = row(client, sequence);
    Statement::of(Arc::clone(text)).bind(client).bind(sequence).bind(at).bind(data).into()
}

/// What the processes of one round did together.
pub(crate) struct Progress {
    /// Rows that each client was told are committed, in the order in which they were started.
    pub(crate) counts: Vec<u64>,
    /// From the start signal until the last process was done.
    pub(crate) elapsed: Duration,
    /// Time per command, in microseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Progress {
    /// Rows per second.
    pub(crate) fn rate(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64 / self.elapsed.as_secs_f64()
    }

    /// The time that this share of the commands stayed within, in milliseconds.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1000.0
    }

    /// The same with stalls counted in full: a process that waits for seconds makes one slow command of all those that
    /// it would have made at its usual pace, the median ("coordinated omission").
    pub(crate) fn latency_in_full_ms(&self, share: f64) -> f64 {
        let pace = self.latency.value_at_quantile(0.5).max(1);
        self.latency.clone_correct(pace).value_at_quantile(share) as f64 / 1000.0
    }
}

/// A histogram of microseconds, up to ten minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).unwrap()
}

/// Stops the run unless every client's rows are there exactly once: 1 to its count, without hole, double or stranger.
pub(crate) fn verify(place: &Path, counts: &[u64]) {
    let database = Connection::open_with_flags(
        place.join(format!("{DATABASE}.db")),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .unwrap();
    let mut statement = database
        .prepare(
            "SELECT client, count(*), count(DISTINCT sequence), min(sequence), max(sequence)
             FROM event GROUP BY client ORDER BY client",
        )
        .unwrap();
    let found: Vec<[i64; 5]> = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let promised: Vec<[i64; 5]> = (1_i64..)
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(client, count)| [client, count.cast_signed(), count.cast_signed(), 1, count.cast_signed()])
        .collect();
    assert!(
        found == promised,
        "delivery is not exact (client, rows, distinct, first, last)\nfound:    {found:?}\npromised: {promised:?}"
    );
}

//! The rows that everybody writes, and the proof that each is there exactly once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use penholder_protocol::{Command, Statement, Text};
use rusqlite::{Connection, OpenFlags};

/// The database that is written to, by SQLite on every side.
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
/// The one statement that everybody runs.
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

/// The same with a value of a mebibyte.
pub(crate) fn large_command(text: &Arc<Text>, client: u64, sequence: u64) -> Command {
    let (client, sequence, at, _) = row(client, sequence);
    Statement::of(Arc::clone(text)).bind(client).bind(sequence).bind(at).bind("x".repeat(1 << 20)).into()
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

    /// The same commands with stalls counted in full: a process that waits for seconds makes one slow command of all
    /// those that it would have made at its usual pace, the median ("coordinated omission").
    pub(crate) fn in_full(&self) -> Histogram<u64> {
        self.latency.clone_correct(self.latency.value_at_quantile(0.5).max(1))
    }
}

/// A histogram of microseconds, up to ten minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).unwrap()
}

/// Stops the run unless every client's rows are there exactly once and in order.
pub(crate) fn verify(place: &Path, counts: &[u64]) {
    let database = Connection::open_with_flags(
        place.join(format!("{DATABASE}.db")),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .unwrap();
    let mut proof = Proof::new(counts);
    let mut statement = database.prepare(STORED).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        proof.row(row.get(0).unwrap(), row.get(1).unwrap());
    }
    proof.finish();
}

/// What a proof reads: client and sequence of every row, in the order in which they were stored.
pub(crate) const STORED: &str = "SELECT client, sequence FROM event ORDER BY id";

/// Each client's rows must be 1 to its count, in that order: no hole, no double, no stranger.
pub(crate) struct Proof<'a> {
    promised: &'a [u64],
    stored: Vec<u64>,
}

impl<'a> Proof<'a> {
    pub(crate) fn new(promised: &'a [u64]) -> Self {
        Self { promised, stored: vec![0; promised.len()] }
    }

    /// Takes the next row.
    pub(crate) fn row(&mut self, client: u64, sequence: u64) {
        let number = usize::try_from(client).unwrap();
        assert!((1..=self.stored.len()).contains(&number), "delivery is not exact: a row of client {client}");
        let last = &mut self.stored[number - 1];
        assert!(
            sequence == *last + 1,
            "delivery is not exact: client {client} has row {sequence} behind row {last}"
        );
        *last = sequence;
    }

    pub(crate) fn finish(self) {
        assert!(
            self.stored == self.promised,
            "delivery is not exact: stored {:?}, promised {:?}",
            self.stored,
            self.promised
        );
    }
}

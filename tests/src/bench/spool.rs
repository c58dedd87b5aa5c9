//! A store whose commands piled up while no writer ran, and the writer that then starts.

use std::path::Path;
use std::time::{Duration, Instant};

use penholder_client::Client;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::workload::{DATABASE, verify};
use crate::writer::Writer;

/// How often the database is looked at: little beside what is measured, and no work for two cores.
const LOOK: Duration = Duration::from_millis(1);
/// Longer than any backlog takes.
const PATIENCE: Duration = Duration::from_mins(10);

/// Streams that wait for a writer.
pub(crate) struct Spool {
    store: TempDir,
    counts: Vec<u64>,
}

/// What the writer made of them.
pub(crate) struct Drained {
    /// From its start until the first row could be seen.
    pub(crate) first: Duration,
    /// From its start until the last one could.
    pub(crate) last: Duration,
    pub(crate) peak_mib: f64,
}

impl Spool {
    /// Fills one: `submit` queues so many commands of each client.
    pub(crate) fn fill(scratch: &Path, counts: &[u64], submit: impl Fn(&mut Client, u64, u64)) -> Self {
        let store = tempfile::Builder::new().prefix("spool-").tempdir_in(scratch).unwrap();
        Writer::start(store.path()).stop();
        for (number, count) in (1..).zip(counts) {
            submit(&mut Client::connect(store.path()).unwrap(), number, *count);
        }
        Self { store, counts: counts.to_vec() }
    }

    /// Starts a writer and watches it; then proves the delivery.
    pub(crate) fn drain(self) -> Drained {
        let all: u64 = self.counts.iter().sum();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let path = self.store.path().join(format!("{DATABASE}.db"));
        let reader = Connection::open_with_flags(path, flags).unwrap();
        reader.busy_timeout(PATIENCE).unwrap();
        let mut count = reader.prepare("SELECT coalesce(max(id), 0) FROM event").unwrap();
        let begun = Instant::now();
        let writer = Writer::spawn(self.store.path());
        let mut wait_for = |rows: u64| {
            while count.query_row([], |row| row.get::<_, u64>(0)).unwrap() < rows {
                assert!(begun.elapsed() < PATIENCE, "the backlog is not applied after {PATIENCE:?}");
                std::thread::sleep(LOOK);
            }
            begun.elapsed()
        };
        let (first, last) = (wait_for(1), wait_for(all));
        drop(count);
        drop(reader);
        let peak_mib = writer.stop();
        verify(self.store.path(), &self.counts);
        Drained { first, last, peak_mib }
    }
}

//! A store with its writer, on which one measurement follows the other; what all of them promised is proven at the end.

use std::path::Path;

use tempfile::TempDir;

use crate::client;
use crate::peer::WARM_ROWS;
use crate::process::{Fleet, Job, Role};
use crate::workload::{Progress, verify};
use crate::writer::Writer;

/// Clients that write in bulk at once.
pub(crate) const BULK_CLIENTS: usize = 4;
/// Clients that write one command at a time.
pub(crate) const CLIENTS: usize = 8;

/// A store that stays.
pub(crate) struct Bed {
    store: TempDir,
    writer: Writer,
    /// What each client was promised, in the order of their numbers from 1.
    counts: Vec<u64>,
}

impl Bed {
    pub(crate) fn new(scratch: &Path) -> Self {
        let store = tempfile::Builder::new().prefix("bed-").tempdir_in(scratch).unwrap();
        let writer = Writer::start(store.path());
        Self { store, writer, counts: Vec::new() }
    }

    /// The same with the rows that are there before anything is timed.
    pub(crate) fn warm(scratch: &Path) -> Self {
        let mut bed = Self::new(scratch);
        client::warm(bed.place());
        bed.counts.push(WARM_ROWS);
        bed
    }

    pub(crate) fn place(&self) -> &Path {
        self.store.path()
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The number of the next client.
    pub(crate) fn next(&self) -> usize {
        self.counts.len() + 1
    }

    /// Starts client processes, and remembers what they were promised once they are done.
    pub(crate) fn run(&mut self, roles: impl Iterator<Item = Role>) -> Progress {
        let progress = Fleet::start(roles).run();
        self.counts.extend(&progress.counts);
        progress
    }

    /// Eight clients, one command at a time.
    pub(crate) fn applied(&mut self, seconds: f64) -> Progress {
        let (next, store) = (self.next(), self.store.path().to_owned());
        self.run((next..next + CLIENTS).map(|client| Role::timed(Job::Applied, &store, client, seconds)))
    }

    /// Four clients that write `rows` in all, a thousand per write.
    pub(crate) fn bulk(&mut self, rows: u64) -> Progress {
        let (next, store) = (self.next(), self.store.path().to_owned());
        let share = rows / BULK_CLIENTS as u64;
        self.run((next..next + BULK_CLIENTS).map(|client| Role::counted(Job::Bulk, &store, client, share)))
    }

    /// Clients that apply one row each and stay until their fleet is told to go.
    pub(crate) fn crowd(&mut self, streams: u64) -> Fleet {
        let fleet =
            Fleet::start(std::iter::once(Role::counted(Job::Idle, self.place(), self.next(), streams)));
        self.counts.push(streams);
        fleet
    }

    /// Stops the writer, proves the delivery, and gives the writer's peak memory in MiB.
    pub(crate) fn finish(self) -> f64 {
        let peak = self.writer.stop();
        verify(self.store.path(), &self.counts);
        peak
    }
}

//! How far a split is, for whoever watches it from another thread, and how it is told to end early.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rusqlite::Connection;

use crate::Error;

/// Steps of SQLite's virtual machine between two looks at whether to go on.
const STEPS: i32 = 100_000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reads the legacy file, and writes nothing.
    Planning,
    /// Copies into new databases, and digests the legacy rows beside it.
    Copying,
    /// Reads the new databases back.
    Verifying,
    /// Makes them durable and gives them their names.
    Publishing,
}

/// Shared between the split and its watcher.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    rows: AtomicU64,
    rows_total: AtomicU64,
    bytes_total: AtomicU64,
    growing: Mutex<Vec<PathBuf>>,
    stop: AtomicBool,
}

/// One look at a [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What is being done.
    pub stage: Stage,
    /// Rows read, in both directions.
    pub rows: u64,
    /// Rows to be read: those of the source, and those of the result.
    pub rows_total: u64,
    /// Bytes of the new databases.
    pub bytes: u64,
    /// Bytes that they will have, about.
    pub bytes_total: u64,
}

impl Progress {
    /// Where the split is now.
    pub fn look(&self) -> Look {
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        // By path, never through a descriptor: SQLite has them open.
        let bytes =
            growing.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
        let stage = match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Planning,
            1 => Stage::Copying,
            2 => Stage::Verifying,
            _ => Stage::Publishing,
        };
        Look {
            stage,
            rows: self.rows.load(Ordering::Relaxed),
            rows_total: self.rows_total.load(Ordering::Relaxed),
            bytes,
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
        }
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn expect(&self, rows: u64, bytes: u64, growing: Vec<PathBuf>) {
        self.rows_total.store(rows, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
        *self.growing.lock().unwrap_or_else(PoisonError::into_inner) = growing;
    }

    pub(super) fn add_rows(&self, count: u64) {
        self.rows.fetch_add(count, Ordering::Relaxed);
    }

    /// Makes every thread of the split end at its next look; returns whether one had to already.
    pub(super) fn stop(&self) -> bool {
        self.stop.swap(true, Ordering::Relaxed)
    }

    /// An error once some thread has failed: what it failed of is told by that thread.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::refused("another part of the work failed", "see the other message"));
        }
        Ok(())
    }
}

/// Interrupts what runs on the connection once the split is told to stop.
pub(super) fn interrupt_with(
    connection: &mut Connection,
    progress: &std::sync::Arc<Progress>,
) -> rusqlite::Result<()> {
    let progress = std::sync::Arc::clone(progress);
    connection.progress_handler(STEPS, Some(move || progress.stop.load(Ordering::Relaxed)))
}

/// Does two things at once; when one fails the other ends early, and only the failure is told.
pub(super) fn together<A, B: Send>(
    progress: &Progress,
    here: impl FnOnce() -> Result<A, Error>,
    there: impl FnOnce() -> Result<B, Error> + Send,
) -> Result<(A, B), Error> {
    let or_stop = |error| {
        let is_first = !progress.stop();
        (is_first, error)
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| there().map_err(or_stop));
        let ours = here().map_err(or_stop);
        match (ours, join(other)) {
            (Ok(ours), Ok(theirs)) => Ok((ours, theirs)),
            (Err((true, error)), _) | (_, Err((_, error))) | (Err((false, error)), Ok(_)) => Err(error),
        }
    })
}

pub(super) fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

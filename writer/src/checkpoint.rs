//! Keeps the WAL bounded. The writer is the only one that checkpoints: best when there is nothing else to do, beside large
//! batches otherwise, and between small ones, whose syncs would only wait for those of the checkpoint.

use std::panic::resume_unwind;
use std::path::Path;
use std::thread::JoinHandle;

use penholder_protocol::Layout;
use rusqlite::{Connection, ErrorCode};

use crate::batch::Pace;
use crate::database::Database;
use crate::keeper::Keeper;
use crate::{Config, Error, pin};

/// Size of a page of our databases, in bytes: SQLite's default, which nothing here changes.
const PAGE_BYTES: u64 = 4096;

/// How many times the hard bound a WAL may grow beside a checkpoint before the commits wait for it.
const OVERDUE: u64 = 4;

/// The checkpoints of all databases.
pub(crate) struct Checkpoints<'a> {
    layout: &'a Layout,
    keepers: &'a [Keeper],
    /// One per database, in the same order.
    logs: Vec<Log>,
}

/// The WAL of one database.
#[derive(Debug, Default)]
struct Log {
    /// Its size in pages below which another try is not worth it.
    not_below: u64,
    /// The checkpoint that runs beside the commits.
    beside: Option<Beside>,
}

impl<'a> Checkpoints<'a> {
    pub(crate) fn new(layout: &'a Layout, keepers: &'a [Keeper]) -> Self {
        Self { layout, keepers, logs: keepers.iter().map(|_| Log::default()).collect() }
    }

    /// Checkpoints what is due: above the soft bound when idle, above the hard one in any case.
    pub(crate) fn run(
        &mut self,
        databases: &[Database<'_>],
        config: &Config,
        pace: Pace,
    ) -> Result<(), Error> {
        let bound =
            if pace == Pace::Idle { config.wal_bytes_soft } else { config.wal_bytes_hard } / PAGE_BYTES;
        for ((database, keeper), log) in databases.iter().zip(self.keepers).zip(&mut self.logs) {
            let pages = database.guard.wal_pages();
            let is_overdue = pace == Pace::Idle || pages > bound.saturating_mul(OVERDUE);
            if let Some(beside) = log.beside.take_if(|beside| is_overdue || beside.is_finished()) {
                beside.join().map_err(Error::sqlite("checkpoint", &database.name))?;
                // What was committed meanwhile: only a WAL that is copied as a whole begins anew.
                log.not_below = checkpoint(database, config, pages)?;
            }
            if pages < log.not_below {
                // The WAL was reset since: whoever pinned it is gone.
                log.not_below = if pages * PAGE_BYTES < config.wal_bytes_soft { 0 } else { log.not_below };
            }
            if log.beside.is_some() || pages < bound.max(log.not_below).max(1) {
                continue;
            }
            if pace == Pace::Large {
                log.beside = Beside::start(keeper, &self.layout.database(keeper.name()))?;
            }
            if log.beside.is_none() {
                log.not_below = checkpoint(database, config, pages)?;
            }
        }
        Ok(())
    }
}

/// Copies the WAL into the database as far as readers allow, and says at which size to try again.
fn checkpoint(database: &Database<'_>, config: &Config, pages: u64) -> Result<u64, Error> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let result = database.read("checkpoint", "PRAGMA wal_checkpoint(PASSIVE)", [], row)?;
    let step = config.wal_bytes_soft / PAGE_BYTES;
    if let Some((log, copied)) = result
        && copied < log
    {
        let path = database.connection.path().unwrap_or_default();
        let readers = pin::readers_of(path.as_ref());
        log::warn!(
            "the WAL of {}.db has {log} pages and only {copied} could be checkpointed: a reader pins the rest \
             (process {readers:?}); end its read transaction",
            database.name
        );
    }
    Ok(pages + step)
}

/// Copies all of the WAL at a clean stop; what a reader pins stays in it.
pub(crate) fn at_stop(databases: &[Database<'_>]) -> Result<(), Error> {
    for database in databases {
        database.read("checkpoint", "PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    }
    Ok(())
}

/// A checkpoint on a thread and a connection of its own; waits for it when it is dropped.
#[derive(Debug)]
struct Beside(Option<JoinHandle<rusqlite::Result<()>>>);

impl Beside {
    /// Starts one under the locks of the keeper; `None` if there is no thread to be had.
    fn start(keeper: &Keeper, path: &Path) -> Result<Option<Self>, Error> {
        let connection = keeper.connect(path)?;
        let thread = std::thread::Builder::new().name("checkpoint".into());
        Ok(thread.spawn(move || copy(&connection)).ok().map(|running| Self(Some(running))))
    }

    fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(mut self) -> rusqlite::Result<()> {
        self.0.take().map_or(Ok(()), |running| running.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Its failure adds nothing to the one that ended the writer's work.
        self.0.take().map(JoinHandle::join);
    }
}

/// Copies what is committed by now, as far as readers allow.
fn copy(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "full")?;
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        // A command uses up the memory that SQLite may have, just now.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OutOfMemory) => Ok(()),
        copied => copied,
    }
}

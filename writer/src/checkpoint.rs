//! Keeps the WAL bounded. The writer is the only one that checkpoints, when it has nothing better to do.

use crate::database::Database;
use crate::{Config, Error, pin};

/// Size of a page of our databases, in bytes: SQLite's default, which nothing here changes.
const PAGE_BYTES: u64 = 4096;

/// Per database, the WAL size in pages below which another try is not worth it.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    not_below: Vec<u64>,
}

impl Checkpoints {
    pub(crate) fn new(databases: &[Database<'_>]) -> Self {
        Self { not_below: vec![0; databases.len()] }
    }

    /// Checkpoints what is due: above the soft bound when idle, above the hard one in any case.
    pub(crate) fn run(
        &mut self,
        databases: &[Database<'_>],
        config: &Config,
        idle: bool,
    ) -> Result<(), Error> {
        let bound = if idle { config.wal_bytes_soft } else { config.wal_bytes_hard } / PAGE_BYTES;
        for (database, not_below) in databases.iter().zip(&mut self.not_below) {
            let pages = database.guard.wal_pages();
            if pages < *not_below {
                // The WAL was reset since: whoever pinned it is gone.
                *not_below = if pages * PAGE_BYTES < config.wal_bytes_soft { 0 } else { *not_below };
            }
            if pages >= bound.max(*not_below).max(1) {
                *not_below = checkpoint(database, config, pages)?;
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

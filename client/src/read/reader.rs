//! Opens every database of a store for reading, and takes snapshots of them.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use penholder_protocol::{Control, DatabaseSlot, Layout, StoreId, Tick};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::snapshot::{Clocks, Snapshot, pause_after};
use super::{ReadError, snapshot};

/// Prepared statements kept per connection: the reader's own three and an application's usual queries.
const STATEMENTS_COUNT_MAX: usize = 64;

/// How a reader waits. `ReaderConfig { catch_up: .., ..ReaderConfig::new(path) }` changes one setting.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// The store's directory.
    pub store: PathBuf,
    /// How long SQLite waits for a lock: only while the writer starts, recovers or stops.
    pub busy_timeout: Duration,
    /// How often a snapshot looks for a consistent cut before it gives up; 200 tries take about one second.
    pub tries_count_max: u32,
    /// How long [`Reader::snapshot_after`] waits for its tick.
    pub catch_up: Duration,
}

impl ReaderConfig {
    /// The defaults for the store in the directory `store`.
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            busy_timeout: Duration::from_secs(5),
            tries_count_max: 200,
            catch_up: Duration::from_secs(10),
        }
    }
}

/// Read-only connections to every database of one store.
///
/// One reader serves one thread, one snapshot at a time: that is why taking one needs `&mut`. Open one per thread.
#[derive(Debug)]
pub struct Reader {
    config: ReaderConfig,
    store: StoreId,
    /// In commit order.
    databases: Vec<Database>,
}

/// One database, open for reading.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) connection: Connection,
    /// Its tick was there already, as the control file has it.
    reclaimed: Tick,
    /// What it is, if that is not what belongs there.
    misplaced: Option<String>,
}

impl Reader {
    /// Opens the store in the directory `store` with the default waits.
    pub fn open(store: impl AsRef<Path>) -> Result<Self, ReadError> {
        Self::with_config(ReaderConfig::new(store.as_ref()))
    }

    /// Opens the store that `config` names.
    pub fn with_config(config: ReaderConfig) -> Result<Self, ReadError> {
        let layout = Layout::new(&config.store);
        let path = layout.control();
        let control = Control::read(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                ReadError::NoStore { path: config.store.clone() }
            } else {
                ReadError::Control { path: path.clone(), source }
            }
        })?;
        if control.databases.is_empty() {
            return Err(ReadError::Unfinished { path, what: "names no database" });
        }
        let open = |slot: DatabaseSlot| {
            let connection = open_database(&layout, &slot, config.busy_timeout)?;
            let misplaced = misplaced(&connection, control.store, &slot.name)
                .map_err(|source| ReadError::Sql { database: slot.name.clone(), source })?;
            Ok(Database { name: slot.name, connection, reclaimed: slot.reclaimed, misplaced })
        };
        let databases = control.databases.into_iter().map(open).collect::<Result<_, ReadError>>()?;
        Ok(Self { config, store: control.store, databases })
    }

    /// The names of the store's databases, in commit order.
    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.databases.iter().map(|database| database.name.as_str())
    }

    /// Takes one consistent cut over every database; it lasts until the snapshot is dropped.
    ///
    /// Usually takes some 20 µs. While the writer is between its two commits of one batch there is no consistent
    /// cut, and this tries again for about a second, see [`ReadError::Uneven`].
    ///
    /// Drop a snapshot soon: the writer cannot shorten its write-ahead log beyond the oldest one.
    pub fn snapshot(&mut self) -> Result<Snapshot<'_>, ReadError> {
        self.refuse_misplaced()?;
        let mut tried = 1;
        loop {
            let snapshot = Snapshot::begin(self.store, &self.databases)?;
            let Some(uneven) = snapshot.clocks().uneven() else { return Ok(snapshot) };
            drop(snapshot);
            if tried >= self.config.tries_count_max {
                return Err(self.uneven(uneven));
            }
            thread::sleep(pause_after(tried));
            tried += 1;
        }
    }

    /// Takes a cut that contains the batch `tick`, for one: the one in which an own command was applied.
    ///
    /// Waits for it as long as [`ReaderConfig::catch_up`] says; [`ReadError::Behind`] means that it did not come.
    pub fn snapshot_after(&mut self, tick: Tick) -> Result<Snapshot<'_>, ReadError> {
        self.refuse_misplaced()?;
        let began = Instant::now();
        let mut tried = 1;
        loop {
            let snapshot = Snapshot::begin(self.store, &self.databases)?;
            let (uneven, reached) = (snapshot.clocks().uneven(), snapshot.newest());
            if uneven.is_none() && reached >= tick {
                return Ok(snapshot);
            }
            drop(snapshot);
            let left = self.config.catch_up.saturating_sub(began.elapsed());
            if left.is_zero() {
                let behind =
                    ReadError::Behind { wanted: tick, reached, writer_running: self.writer_running() };
                return Err(uneven.map_or(behind, |uneven| self.uneven(uneven)));
            }
            thread::sleep(pause_after(tried).min(left));
            tried += 1;
        }
    }

    /// Takes a snapshot of one database alone. It needs no other database, so it works where a cut over all does
    /// not, such as after the writer died between two commits; it may hold half of a command over two databases.
    pub fn single(&mut self, name: &str) -> Result<Snapshot<'_>, ReadError> {
        let known = || self.databases().map(str::to_owned).collect();
        let alone = self.databases.iter().find(|database| database.name == name).map(std::slice::from_ref);
        let alone =
            alone.ok_or_else(|| ReadError::UnknownDatabase { name: name.to_owned(), known: known() })?;
        Snapshot::begin(self.store, alone)
    }

    /// Whether a writer serves the store now; no, if that cannot be told.
    #[must_use]
    pub fn writer_running(&self) -> bool {
        crate::writer_running(&self.config.store).unwrap_or(false)
    }

    fn refuse_misplaced(&self) -> Result<(), ReadError> {
        let found = self.databases.iter().find_map(|database| Some((database, database.misplaced.clone()?)));
        found.map_or(Ok(()), |(database, what)| {
            Err(ReadError::Misplaced { path: Layout::new(&self.config.store).database(&database.name), what })
        })
    }

    fn uneven(&self, uneven: snapshot::Uneven) -> ReadError {
        let name =
            |at: usize| self.databases.get(at).map(|database| database.name.clone()).unwrap_or_default();
        let was_there = self.databases.get(uneven.behind).map_or(Tick(0), |database| database.reclaimed);
        ReadError::Uneven {
            recoverable: uneven.is_half_a_batch && uneven.own >= was_there,
            ahead: name(uneven.ahead),
            behind: name(uneven.behind),
            tick: uneven.tick,
            writer_running: self.writer_running(),
        }
    }
}

/// Opens one database so that nothing this process does can change it, whatever SQL it runs.
fn open_database(
    layout: &Layout,
    slot: &DatabaseSlot,
    busy_timeout: Duration,
) -> Result<Connection, ReadError> {
    let path = &layout.database(&slot.name);
    // By `stat` only: opening the file by ourselves and closing it would cancel SQLite's locks on it.
    if let Err(error) = std::fs::metadata(path)
        && error.kind() == io::ErrorKind::NotFound
    {
        if !slot.is_to_be_made() {
            return Err(ReadError::Missing { path: path.to_owned() });
        }
        return Err(ReadError::Unfinished { path: path.to_owned(), what: "is missing" });
    }
    let unfinished = |what| ReadError::Unfinished { path: path.to_owned(), what };
    let opened = || -> rusqlite::Result<(Connection, bool)> {
        // Without SQLITE_OPEN_URI: a path is a path, and nobody can ask for `immutable=1`.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy_timeout)?;
        connection.pragma_update(None, "query_only", true)?;
        // Only the writer checkpoints, even if this connection is the last one to close.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_COUNT_MAX);
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)";
        let clock = connection.query_row(sql, [Clocks::NAME], |row| row.get(0))?;
        Ok((connection, clock))
    };
    match opened() {
        Ok((connection, true)) => Ok(connection),
        Ok((_, false)) => Err(unfinished("has no clock")),
        Err(source) => Err(ReadError::Open { path: path.to_owned(), source }),
    }
}

/// What a database says that it is, if it is not `name` of `store`.
fn misplaced(connection: &Connection, store: StoreId, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_penholder_meta')";
    if !connection.query_row(sql, [], |row| row.get(0))? {
        return Ok(None);
    }
    let sql = "SELECT value FROM _penholder_meta WHERE key = ?1";
    let mut statement = connection.prepare(sql)?;
    let mut value = |key| statement.query_row([key], |row| row.get::<_, String>(0)).optional();
    if let Some(other) = value("store_id")?.filter(|id| *id != store.to_string()) {
        return Ok(Some(format!("belongs to the store {other}")));
    }
    let other = value("database")?.filter(|own| own != name);
    Ok(other.map(|own| format!("is the database {own} of this store")))
}

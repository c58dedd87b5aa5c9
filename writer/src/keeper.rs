//! Keeps every other program from writing to a database, from start to end.
//!
//! It holds SQLite's own locks, over all reopenings, and notices when the files are exchanged behind them.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penholder_protocol::{DatabaseSlot, Layout};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, FileControl, OpenFlags};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::{Config, Error, fence, pin};

/// How long a start waits for a program that holds a database.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits before it says so.
const SILENCE: Duration = Duration::from_secs(1);

/// Time between two tries: much shorter than a commit, so that a program that commits all the time is beaten to it.
const PAUSE: Duration = Duration::from_millis(1);

/// Device and inode of a file.
type Identity = (u64, u64);

/// A connection that does nothing but keep the write lock and the checkpoint lock of one database.
///
/// The connections that work come and go with every failure of the machine; this one stays, so that nobody writes in
/// between. They are opened by it and must be closed before it.
pub(crate) struct Keeper {
    name: String,
    connection: Connection,
    /// The database, its WAL and the WAL's index, as they were when the locks were taken.
    files: [(PathBuf, Identity); 3],
    /// Bytes that the WAL has at least, as of the last look.
    log_bytes_min: Cell<u64>,
}

impl Keeper {
    /// Opens the databases that have no keeper yet, and takes their locks; creates those that are missing, but for those that
    /// the control file knows as made.
    pub(crate) fn complete(
        keepers: &mut Vec<Self>,
        layout: &Layout,
        config: &Config,
        known: &[DatabaseSlot],
    ) -> Result<(), Error> {
        for name in config.databases.iter().skip(keepers.len()) {
            let is_made = known.iter().any(|slot| slot.name == *name && !slot.is_to_be_made());
            let create = if is_made { OpenFlags::empty() } else { OpenFlags::SQLITE_OPEN_CREATE };
            keepers.push(Self::open(layout, name, config, create)?);
        }
        Ok(())
    }

    fn open(layout: &Layout, name: &str, config: &Config, create: OpenFlags) -> Result<Self, Error> {
        if !fence::register() {
            return Err(Error::refused(
                "SQLite does not accept the writer's file layer",
                "build Penholder with its bundled SQLite",
            ));
        }
        let path = layout.database(name);
        let connection = connect(&path, name, create)?;
        let mut patience = Patience { since: Instant::now(), has_warned: false, name, path: &path };
        let exclusive = |connection: &Connection| connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK");
        patience.wait(|| settle(&connection, &path, config))?;
        if !fence::keep(&connection) {
            return Err(no_locks(name));
        }
        patience.wait(|| exclusive(&connection))?;
        if !fence::is_kept(&connection) {
            return Err(no_locks(name));
        }
        let (name, log_bytes_min) = (name.to_owned(), Cell::default());
        let keeper = Self { name, connection, files: identify(&path)?, log_bytes_min };
        // What was identified by path is what the connection holds.
        let mut moved = 0;
        let asked = keeper.connection.file_control(None::<&str>, FileControl::HasMoved(&mut moved));
        asked.map_err(Error::sqlite("look for", &keeper.name))?;
        if moved == 0 { Ok(keeper) } else { Err(keeper.intruder(&path, "exchanged")) }
    }

    /// The name of the database: its file is `<name>.db`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Opens a connection that writes under the locks that are kept here.
    pub(crate) fn connect(&self, path: &Path) -> Result<Connection, Error> {
        let connection = connect(path, &self.name, OpenFlags::empty())?;
        if fence::lean(&connection) { Ok(connection) } else { Err(no_locks(&self.name)) }
    }

    /// Stops if one of the files is another one than the locks were taken on: they would keep nobody out, and what
    /// is committed could be lost.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (path, expected) in &self.files {
            match look_at(path) {
                Ok((found, _)) if found == *expected => {}
                Ok(_) => return Err(self.intruder(path, "replaced")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(self.intruder(path, "moved or removed"));
                }
                Err(error) => return Err(Error::io("stat", path)(error)),
            }
        }
        Ok(())
    }

    /// Stops if the WAL is shorter than what was committed to it, which needs `bytes_min`: SQLite would write on behind the
    /// hole, and in the end copy the hole into the database.
    pub(crate) fn check_log(&self, bytes_min: u64) -> Result<(), Error> {
        self.log_bytes_min.set(bytes_min);
        let [_, (path, _), _] = &self.files;
        if self.is_log_cut() { Err(self.intruder(path, "cut short")) } else { Ok(()) }
    }

    /// Another file in its place is what [`check`](Self::check) looks for.
    fn is_log_cut(&self) -> bool {
        let [_, (path, expected), _] = &self.files;
        look_at(path).is_ok_and(|(found, bytes)| found == *expected && bytes < self.log_bytes_min.get())
    }

    fn intruder(&self, path: &Path, how: &str) -> Error {
        Error::Intruder {
            what: format!("{} was {how} while the writer held {}.db", path.display(), self.name),
        }
    }
}

impl Drop for Keeper {
    /// As the last to close the database, SQLite copies the WAL into it: not one that was cut.
    fn drop(&mut self) {
        let leave_it = || self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        if self.is_log_cut()
            && let Err(error) = leave_it()
        {
            log::error!("cannot keep SQLite from {}.db: {error}", self.name);
        }
    }
}

fn connect(path: &Path, name: &str, create: OpenFlags) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags_and_vfs(path, flags | create, fence::VFS).map_err(Error::sqlite("open", name))
}

/// Makes the database what the writer needs: there, with its mode, with a WAL.
fn settle(connection: &Connection, path: &Path, config: &Config) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_query_value(None, "schema_version", |_| Ok(()))?;
    // Before the WAL exists: it and its index inherit the database's mode. By path, never through a descriptor.
    if let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(0o640)) {
        log::warn!("cannot set the mode of {}: {error}", path.display());
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    // As the last to close it empties the WAL, and leaves it and its index in place for readers that may not write.
    connection.pragma_update(None, "journal_size_limit", config.wal_bytes_hard * 8)?;
    let mut keep = 1;
    connection.file_control(None::<&str>, FileControl::PersistWal(&mut keep))
}

fn no_locks(name: &str) -> Error {
    Error::refused(
        format!("SQLite does not share the locks of {name}.db's write-ahead log on this file system"),
        "put the store on a local file system",
    )
}

/// The files of a database and who they are; all of them exist once it was read in WAL mode.
fn identify(path: &Path) -> Result<[(PathBuf, Identity); 3], Error> {
    let file = |suffix| {
        let path = beside(path, suffix);
        match look_at(&path) {
            Ok((identity, _)) => Ok((path, identity)),
            Err(error) => Err(Error::io("stat", &path)(error)),
        }
    };
    Ok([file("")?, file("-wal")?, file("-shm")?])
}

/// The file that SQLite keeps beside a database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Who a file is, and its size in bytes. By path, never through a descriptor: closing one would cancel SQLite's own locks.
///
/// Asks for nothing more: once the times of a file were asked for, the kernel gives its next write a time of its own, and
/// the sync behind it has one more block to write, at half the price of a commit.
fn look_at(path: &Path) -> io::Result<(Identity, u64)> {
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE)?;
    let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
    Ok(((device, found.stx_ino), found.stx_size))
}

/// Waits for other programs that use a database, for a bounded time over all steps.
struct Patience<'a> {
    since: Instant,
    has_warned: bool,
    name: &'a str,
    path: &'a Path,
}

impl Patience<'_> {
    fn wait<T>(&mut self, mut step: impl FnMut() -> rusqlite::Result<T>) -> Result<T, Error> {
        loop {
            let error = match step() {
                Ok(done) => return Ok(done),
                Err(error) if is_busy(&error) => error,
                Err(error) => return Err(Error::sqlite("take the locks of", self.name)(error)),
            };
            if self.since.elapsed() >= PATIENCE {
                return Err(Error::Held {
                    database: self.name.to_owned(),
                    holder: pin::holder_of(self.path),
                });
            }
            if self.since.elapsed() >= SILENCE && !std::mem::replace(&mut self.has_warned, true) {
                let holder = pin::holder_of(self.path);
                log::warn!("waiting for {}.db, which {holder} holds: {error}", self.name);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let busy = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::FileLockingProtocolFailed];
    error.sqlite_error_code().is_some_and(|code| busy.contains(&code))
}

//! The legacy file: opened read-only, held still while it is read, and shown to be the same at the end.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::process::{Flock, FlockOffsetType, FlockType};

use super::progress::Progress;
use crate::Error;
use crate::keeper::beside;

/// How every database begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Bytes of a database's header.
const HEADER_BYTES: usize = 100;

/// The bytes that SQLite locks: PENDING, RESERVED, and 510 that readers share. A write lock on any is a writer at work.
const LOCKS_START: u64 = 0x4000_0000;
const LOCKS_BYTES: u64 = 512;

/// How long a copy waits for a writer.
const COPY_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes hashed at a time: they stay in the processor's cache between being read and being hashed.
const CHUNK_BYTES: usize = 128 << 10;

/// The name under which the legacy file is attached.
pub(super) const SCHEMA: &str = "legacy";

/// The legacy file, with everything that keeps it as it is.
pub(super) struct Source {
    /// In a read transaction: nobody can commit to a file in rollback mode while it lasts.
    pub(super) pin: Connection,
    /// Dropped last, see [`Held`].
    pub(super) held: Held,
}

/// The legacy file as the system sees it; shared by the threads that read it.
///
/// To be dropped after all connections to the file: closing any descriptor of it cancels the locks that SQLite holds.
pub(super) struct Held {
    /// Without links.
    pub(super) path: PathBuf,
    header: Header,
    identity: Identity,
    file: File,
}

/// What stands in the first bytes.
#[derive(Clone, Copy, Debug)]
struct Header {
    is_wal: bool,
}

/// What `stat` tells of a file; differs after every write that does not hide itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) bytes: u64,
    /// Nanoseconds since 1970.
    pub(super) modified_ns: i64,
    /// The same of the last change of any kind: no program can set it back.
    changed_ns: i64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Source {
    /// Opens the file unless somebody is about to change it, or has left a change half done.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let path = std::fs::canonicalize(path).map_err(Error::io("find", path))?;
        // Looked at before it is opened: a pipe would wait for somebody to write into it.
        if !std::fs::metadata(&path).map_err(Error::io("stat", &path))?.is_file() {
            return Err(Error::refused(format!("{} is not a file", path.display()), "name the old database"));
        }
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let metadata = file.metadata().map_err(Error::io("stat", &path))?;
        let header = Header::read(&file, &path)?;
        check_quiet(&file, &path)?;
        let pin = connect(&path, header, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let begin = || {
            pin.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cache_size = -2048; BEGIN")?;
            pin.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        };
        begin().map_err(|error| explain(&path, &error))?;
        let identity = Identity::of(&metadata);
        Ok(Self { pin, held: Held { path, header, identity, file } })
    }
}

impl Held {
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Another connection, for another thread; it also can only read.
    pub(super) fn connect(&self) -> Result<Connection, Error> {
        let connection = connect(&self.path, self.header, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let settle = || connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cache_size = -2048");
        settle().map_err(|error| explain(&self.path, &error))?;
        Ok(connection)
    }

    /// Makes the file readable as [`SCHEMA`] on a connection that was opened with `SQLITE_OPEN_URI`.
    pub(super) fn attach_to(&self, connection: &Connection) -> Result<(), Error> {
        let attach = || {
            connection.execute(&format!("ATTACH ?1 AS {SCHEMA}"), [uri(&self.path, self.header)])?;
            connection.execute_batch(&format!("PRAGMA {SCHEMA}.cache_size = -2048"))
        };
        attach().map_err(|error| explain(&self.path, &error))
    }

    /// What a failure to read the file means: never that the new store is damaged.
    pub(super) fn explain(&self, error: Error) -> Error {
        if let Error::Sqlite { source, .. } = &error { explain(&self.path, source) } else { error }
    }

    /// BLAKE3 of the file's bytes, as `b3sum` prints it.
    pub(super) fn hash(&self, progress: &Progress) -> Result<String, Error> {
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        loop {
            progress.check()?;
            let count = self.file.read_at(&mut chunk, at).map_err(Error::io("read", &self.path))?;
            let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else { break };
            hasher.update(read);
            at += count as u64;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Refuses if the file is not the one that was opened, byte for byte, or is about to become another.
    pub(super) fn check_unchanged(&self, hash_before: &str, progress: &Progress) -> Result<(), Error> {
        let changed = |what: &str| {
            let hint = "stop every program that writes to it, and split it again; the store was not made";
            Error::refused(format!("{} {what} while it was read", self.path.display()), hint)
        };
        check_quiet(&self.file, &self.path)?;
        if self.hash(progress)? != hash_before {
            return Err(changed("changed"));
        }
        let ours = self.file.metadata().map_err(Error::io("stat", &self.path))?;
        let there = std::fs::metadata(&self.path).map_err(Error::io("stat", &self.path))?;
        if Identity::of(&ours) != self.identity || Identity::of(&there) != self.identity {
            return Err(changed("was written to or replaced"));
        }
        Ok(())
    }
}

impl Header {
    fn read(file: &File, path: &Path) -> Result<Self, Error> {
        let mut header = [0; HEADER_BYTES];
        let refuse = |what: &str| {
            Error::refused(
                format!("{} {what}", path.display()),
                "name the SQLite database of the old program",
            )
        };
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(refuse("is too short to be a database"));
            }
            read => read.map_err(Error::io("read", path))?,
        }
        if !header.starts_with(MAGIC) {
            return Err(refuse("is not an SQLite database, or is encrypted"));
        }
        // Offsets 18 and 19: format of writing and of reading; 1 is a rollback journal, 2 a write-ahead log.
        match header.get(18..20) {
            Some([1, 1]) => Ok(Self { is_wal: false }),
            Some([2, 2]) => Ok(Self { is_wal: true }),
            _ => Err(refuse("was written by a newer SQLite than this program has")),
        }
    }
}

/// Refuses while a writer is at work on the file, and when what a writer left has to be rolled back or taken over first.
fn check_quiet(file: &File, path: &Path) -> Result<(), Error> {
    let copy = format!(
        "end the program that uses it, or pass --copy-to FILE: it first takes a consistent copy of {} through SQLite, \
         and splits that",
        path.display()
    );
    if let Some(pid) = writer_of(file) {
        return Err(Error::refused(format!("process {pid} is writing to {}", path.display()), copy));
    }
    let wal = beside(path, "-wal");
    if std::fs::metadata(&wal).is_ok_and(|metadata| metadata.len() > 0) {
        let what = format!("{} holds changes that are not in the database yet", wal.display());
        return Err(Error::refused(what, copy));
    }
    let journal = beside(path, "-journal");
    if is_hot(&journal)? {
        let what = format!("{} is what a crash in the middle of a write left", journal.display());
        let hint = "open the database once with the program that wrote it, or with sqlite3, so that it is rolled back";
        return Err(Error::refused(what, hint));
    }
    Ok(())
}

/// The process that holds a write lock on the bytes that SQLite locks.
fn writer_of(file: &File) -> Option<i32> {
    let wanted = Flock {
        start: LOCKS_START,
        length: LOCKS_BYTES,
        pid: None,
        typ: FlockType::ReadLock,
        offset_type: FlockOffsetType::Set,
    };
    let held = rustix::process::fcntl_getlk(file, &wanted).ok()??;
    Some(held.pid.map_or(0, rustix::process::Pid::as_raw_pid))
}

/// Whether a rollback journal would be rolled back: one that was emptied or zeroed is over.
fn is_hot(journal: &Path) -> Result<bool, Error> {
    let mut first = [0];
    match File::open(journal).and_then(|mut file| file.read(&mut first)) {
        Ok(count) => Ok(count == 1 && first != [0]),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", journal)(error)),
    }
}

/// Copies a database as of one moment to a file that does not exist yet, through SQLite's backup.
pub(super) fn copy(source: &Path, target: &Path) -> Result<(), Error> {
    if target.symlink_metadata().is_ok() {
        let what = format!("{} is there already", target.display());
        let hint = format!("name a new file, or split it: `penholder split {}`", target.display());
        return Err(Error::refused(what, hint));
    }
    let path = std::fs::canonicalize(source).map_err(Error::io("find", source))?;
    // Not as immutable: the log is read too.
    let from = connect(&path, Header { is_wal: false }, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut to = Connection::open(target).map_err(Error::sqlite("create", &target.display().to_string()))?;
    let work = |to: &mut Connection| {
        from.busy_timeout(COPY_PATIENCE)?;
        from.execute_batch("BEGIN")?;
        from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let done = Backup::new(&from, to)?.step(-1)?;
        // One file, without a log of its own.
        to.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
        Ok(done)
    };
    if work(&mut to).map_err(|error| explain(&path, &error))? == StepResult::Done {
        return Ok(());
    }
    Err(Error::refused(format!("{} is busy", path.display()), "try again"))
}

/// Opens with `flags` and URIs, so that another file can be attached read-only.
fn connect(path: &Path, header: Header, flags: OpenFlags) -> Result<Connection, Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri(path, header), flags).map_err(|error| explain(path, &error))
}

/// A URI that can only be read from.
///
/// A file in WAL mode whose log is gone is opened as immutable: otherwise SQLite would create files beside it. That it
/// really did not change, the hash shows.
fn uri(path: &Path, header: Header) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.extend(["%".to_owned(), format!("{byte:02X}")]);
        }
    }
    uri.push_str(if header.is_wal { "?mode=ro&immutable=1" } else { "?mode=ro" });
    uri
}

/// What SQLite's refusal to read the file means.
fn explain(path: &Path, error: &rusqlite::Error) -> Error {
    let place = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::refused(
            format!("another program has {place} locked"),
            "end it and try again, or pass --copy-to FILE",
        ),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::refused(
            format!("{place} is damaged: {error}"),
            "repair a copy of it with `sqlite3 FILE .recover`, and split the copy",
        ),
        _ => Error::refused(
            format!("{place} cannot be read: {error}"),
            "look at it with `sqlite3 FILE .schema` and `PRAGMA integrity_check`, and split a copy that was mended",
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use std::io::Write;

    use super::*;

    fn legacy() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("le gacy%?#ä.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES ('some text')").unwrap();
        (directory, path)
    }

    /// What is said at the end about a file that was worked on before its hash was taken, and after it.
    fn said_after(before: impl FnOnce(&Path), after: impl FnOnce(&Path)) -> Result<(), String> {
        let (_directory, path) = legacy();
        let source = Source::open(&path).unwrap();
        // The clock of the file system has moved on.
        std::thread::sleep(Duration::from_millis(20));
        before(&path);
        let progress = Progress::default();
        let hash = source.held.hash(&progress).unwrap();
        after(&path);
        source.held.check_unchanged(&hash, &progress).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_that_nobody_touched_is_unchanged_whatever_its_name() {
        assert_eq!(said_after(|_| {}, |_| {}), Ok(()));
        let (_directory, path) = legacy();
        let source = Source::open(&path).unwrap();
        let rows = |connection: &Connection, schema: &str| {
            connection
                .query_row(&format!("SELECT count(*) FROM {schema}.t"), [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(rows(&source.held.connect().unwrap(), "main"), 1);
        let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI;
        let other = Connection::open_in_memory_with_flags(flags).unwrap();
        source.held.attach_to(&other).unwrap();
        assert_eq!(rows(&other, SCHEMA), 1);
        assert!(other.execute(&format!("DELETE FROM {SCHEMA}.t"), []).is_err(), "it can only be read");
    }

    #[test]
    fn a_file_that_was_overwritten_without_a_lock_is_noticed_even_if_its_time_was_set_back() {
        let overwrite = |path: &Path| {
            let times = std::fs::metadata(path).unwrap().modified().unwrap();
            let mut bytes = std::fs::read(path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            let mut file = File::options().write(true).open(path).unwrap();
            file.write_all(&bytes).unwrap();
            file.set_modified(times).unwrap();
        };
        assert!(said_after(|_| {}, overwrite).unwrap_err().contains("changed while it was read"));
        assert!(said_after(overwrite, |_| {}).unwrap_err().contains("was written to or replaced"));
    }

    #[test]
    fn a_file_that_was_replaced_touched_or_got_a_log_is_noticed() {
        let replace = |path: &Path| {
            let copy = beside(path, ".copy");
            std::fs::copy(path, &copy).unwrap();
            std::fs::rename(copy, path).unwrap();
        };
        assert!(said_after(|_| {}, replace).unwrap_err().contains("was written to or replaced"));
        let touch = |path: &Path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        assert!(said_after(|_| {}, touch).unwrap_err().contains("was written to or replaced"));
        let log = |path: &Path| std::fs::write(beside(path, "-wal"), "x").unwrap();
        assert!(said_after(|_| {}, log).unwrap_err().contains("not in the database yet"));
    }
}

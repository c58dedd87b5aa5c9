//! The files of a database, as a connection holds them open.
//!
//! Nobody else in the process may open them: closing any descriptor on a database gives up SQLite's locks on it.

use std::ffi::{c_int, c_void};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, ffi};

/// A database or its WAL; every method fails with SQLite's code.
pub(crate) struct OpenFile<'c> {
    file: *mut ffi::sqlite3_file,
    methods: &'c ffi::sqlite3_io_methods,
    connection: PhantomData<&'c Connection>,
}

/// Size of a part of the WAL's index, in bytes, as SQLite maps it.
const INDEX_PART_BYTES: c_int = 32768;

/// The format of the WAL's index, its first word; the only one since there are WALs.
const INDEX_FORMAT: u32 = 3_007_000;

/// Where the index says how many frames of the WAL are in the database: behind two copies of its header.
const BACKFILL_OFFSET: usize = 96;

impl<'c> OpenFile<'c> {
    /// The database file of a connection.
    pub(crate) fn database(connection: &'c Connection) -> Option<Self> {
        Self::ask(connection, ffi::SQLITE_FCNTL_FILE_POINTER)
    }

    /// Its WAL, if a transaction in WAL mode has used it.
    pub(crate) fn wal(connection: &'c Connection) -> Option<Self> {
        Self::ask(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)
    }

    fn ask(connection: &'c Connection, which: c_int) -> Option<Self> {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: the handle is valid while `connection` is borrowed, and both questions write one pointer.
        let result = unsafe {
            let to = (&raw mut file).cast();
            ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), which, to)
        };
        if result != ffi::SQLITE_OK || file.is_null() {
            return None;
        }
        // SAFETY: the file object belongs to the connection, which is open while it is borrowed; its methods are
        // constants of the VFS, or null if the file is not open.
        let methods = unsafe { (*file).pMethods.as_ref() }?;
        Some(Self { file, methods, connection: PhantomData })
    }

    /// Fills `bytes`, less than 128 KiB, from an offset.
    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> rusqlite::Result<()> {
        let (Some(read), Ok(length), Ok(offset)) =
            (self.methods.xRead, c_int::try_from(bytes.len()), i64::try_from(offset))
        else {
            return failed(ffi::SQLITE_IOERR_READ);
        };
        // SAFETY: the file is open, used by this thread only, and `bytes` holds `length` bytes.
        failed(unsafe { read(self.file, bytes.as_mut_ptr().cast(), length, offset) })
    }

    /// Writes `bytes`, less than 128 KiB, at an offset.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> rusqlite::Result<()> {
        let (Some(write), Ok(length), Ok(offset)) =
            (self.methods.xWrite, c_int::try_from(bytes.len()), i64::try_from(offset))
        else {
            return failed(ffi::SQLITE_IOERR_WRITE);
        };
        // SAFETY: as in `read`; the bytes are only read.
        failed(unsafe { write(self.file, bytes.as_ptr().cast::<c_void>(), length, offset) })
    }

    /// Returns once what was written survives power loss.
    pub(crate) fn sync(&self) -> rusqlite::Result<()> {
        let Some(sync) = self.methods.xSync else { return failed(ffi::SQLITE_IOERR_FSYNC) };
        // SAFETY: the file is open and used by this thread only.
        failed(unsafe { sync(self.file, ffi::SQLITE_SYNC_NORMAL | ffi::SQLITE_SYNC_DATAONLY) })
    }

    /// Lets the next checkpoint copy the whole WAL, whatever was copied before.
    ///
    /// `self` is a database in WAL mode whose checkpoint lock this process holds: nobody else changes the figure, and
    /// who reads it takes pages from the WAL again that are in the database too.
    pub(crate) fn forget_backfill(&self) -> rusqlite::Result<()> {
        let Some(map) = self.methods.xShmMap else { return failed(ffi::SQLITE_IOERR_SHMMAP) };
        let mut part: *mut c_void = ptr::null_mut();
        // SAFETY: the file is open and used by this thread only; the call writes one pointer.
        failed(unsafe { map(self.file, 0, INDEX_PART_BYTES, 0, &raw mut part) })?;
        if part.is_null() {
            // No index yet: nothing was copied.
            return Ok(());
        }
        let words = part.cast::<u32>();
        // SAFETY: the part is mapped as long as the file is open, begins at a page, and is `INDEX_PART_BYTES` long;
        // other processes use both words only as a whole, as atomics.
        let (format, backfill) =
            unsafe { (AtomicU32::from_ptr(words), AtomicU32::from_ptr(words.byte_add(BACKFILL_OFFSET))) };
        if format.load(Ordering::Acquire) != INDEX_FORMAT {
            return failed(ffi::SQLITE_IOERR_SHMMAP);
        }
        backfill.store(0, Ordering::Release);
        Ok(())
    }
}

/// Lets the system forget what it keeps in memory of a file that this process has open, once that is synced: what is
/// read next comes from the medium.
///
/// On a descriptor that is open already: closing another one on a database would give up SQLite's locks.
pub(crate) fn forget_pages(path: &Path) -> io::Result<()> {
    let wanted = std::fs::metadata(path)?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let name = entry.file_name();
        let descriptor: Option<c_int> = name.to_str().and_then(|name| name.parse().ok());
        // One that another thread has closed meanwhile is none of ours.
        let (Some(descriptor), Ok(found)) = (descriptor, std::fs::metadata(entry.path())) else { continue };
        if (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()) {
            // SAFETY: the call uses no memory of ours, and takes a number that is no descriptor for an error.
            let result = unsafe { libc::posix_fadvise(descriptor, 0, 0, libc::POSIX_FADV_DONTNEED) };
            return if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) };
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn failed(code: c_int) -> rusqlite::Result<()> {
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}

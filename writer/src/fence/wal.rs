//! A WAL whose frames reach the file in large pieces: SQLite writes the header and the page of each one by one.
//!
//! What is written waits in memory for the sync that ends every commit (`synchronous=FULL`), or for whatever else is asked
//! of the file. Nobody misses it until then: a commit stands in the WAL's index only when it is synced, and a writer that
//! dies before leaves what one leaves that dies before it wrote.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use rusqlite::ffi;

use super::vfs::behind;

/// Most bytes that wait: SQLite's unix VFS takes less than 128 KiB at once. The largest frame has 64 KiB and 24 bytes.
const WAITING_BYTES_MAX: usize = 120 << 10;

/// What was written and is not in the file yet; stands behind SQLite's own file object.
pub(super) struct Waiting {
    /// The methods of SQLite's own file object.
    origin: &'static ffi::sqlite3_io_methods,
    /// Where in the file `bytes` belong.
    offset: i64,
    bytes: Vec<u8>,
}

/// Lets the frames of a WAL wait, once it is open.
///
/// # Safety
///
/// SQLite's default VFS has just opened `file`, there is room for a [`Waiting`] [`behind`] it, and one thread at a time
/// uses it.
pub(super) unsafe fn gather(file: *mut ffi::sqlite3_file) {
    /// SQLite's methods, with ours for all that see or move the content.
    static GATHERING: OnceLock<ffi::sqlite3_io_methods> = OnceLock::new();
    // SAFETY: an open file has methods, and those of the default VFS are constants of SQLite: the same for every WAL,
    // as it locks none of them.
    unsafe {
        let Some(origin) = (*file).pMethods.as_ref::<'static>() else { return };
        let gathering = GATHERING.get_or_init(|| ffi::sqlite3_io_methods {
            xClose: Some(close),
            xRead: Some(read),
            xWrite: Some(write),
            xTruncate: Some(truncate),
            xSync: Some(sync),
            xFileSize: Some(file_size),
            ..*origin
        });
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(WAITING_BYTES_MAX).is_err() {
            return;
        }
        behind::<Waiting>(file).write(Waiting { origin, offset: 0, bytes });
        (*file).pMethods = gathering;
    }
}

impl Waiting {
    /// Brings the file up to date. What cannot be written goes on waiting: SQLite was told that it is in the file, and its
    /// transaction may outlive the statement that fails now.
    ///
    /// # Safety
    ///
    /// `file` is the one that this stands behind.
    unsafe fn write_out(&mut self, file: *mut ffi::sqlite3_file) -> c_int {
        let (Some(write), Ok(length)) = (self.origin.xWrite, c_int::try_from(self.bytes.len())) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        if length == 0 {
            return ffi::SQLITE_OK;
        }
        #[cfg(test)]
        if let Some(failure) = tests::FAILURE.get() {
            return failure;
        }
        // SAFETY: the file is open, its object begins with the one that the default VFS made, and `bytes` are as many.
        let result = unsafe { write(file, self.bytes.as_ptr().cast(), length, self.offset) };
        if result == ffi::SQLITE_OK {
            self.bytes.clear();
        }
        result
    }
}

/// `xWrite`: adds to what waits, if it goes on where that ends.
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite calls this for files with our methods only, so `gather` has written what stands behind; and with
    // `length` bytes.
    let (waiting, bytes) = unsafe {
        let length = usize::try_from(length).unwrap_or_default();
        (&mut *behind::<Waiting>(file), std::slice::from_raw_parts(bytes.cast::<u8>(), length))
    };
    let end = waiting.offset.saturating_add_unsigned(waiting.bytes.len() as u64);
    if offset != end || waiting.bytes.len() + bytes.len() > WAITING_BYTES_MAX {
        // SAFETY: it stands behind `file`.
        let result = unsafe { waiting.write_out(file) };
        if result != ffi::SQLITE_OK {
            return result;
        }
        waiting.offset = offset;
    }
    waiting.bytes.extend_from_slice(bytes);
    ffi::SQLITE_OK
}

/// Brings the file up to date, then asks SQLite's own method.
///
/// # Safety
///
/// `file` has our methods.
unsafe fn up_to_date(
    file: *mut ffi::sqlite3_file,
    ask: impl FnOnce(&ffi::sqlite3_io_methods) -> Option<c_int>,
) -> c_int {
    // SAFETY: `gather` has written what stands behind.
    let waiting = unsafe { &mut *behind::<Waiting>(file) };
    // SAFETY: it stands behind `file`.
    match unsafe { waiting.write_out(file) } {
        ffi::SQLITE_OK => ask(waiting.origin).unwrap_or(ffi::SQLITE_IOERR),
        failed => failed,
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    bytes: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: the arguments are SQLite's, meant for exactly this method; so below.
    unsafe { up_to_date(file, |origin| Some(origin.xRead?(file, bytes, length, offset))) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: as in `read`.
    unsafe { up_to_date(file, |origin| Some(origin.xTruncate?(file, size))) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as in `read`.
    unsafe { up_to_date(file, |origin| Some(origin.xSync?(file, flags))) }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: as in `read`.
    unsafe { up_to_date(file, |origin| Some(origin.xFileSize?(file, size))) }
}

/// `xClose`: what waits belongs to a transaction that was given up.
unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `read`; SQLite does not use the file any more.
    unsafe {
        let Waiting { origin, .. } = behind::<Waiting>(file).read();
        origin.xClose.map_or(ffi::SQLITE_IOERR_CLOSE, |close| close(file))
    }
}

#[cfg(test)]
mod tests;

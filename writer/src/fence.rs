//! All direct use of SQLite's C interface, for the few things that rusqlite does not offer.
//!
//! `unsafe` stands here and in the modules below, and nowhere else in the writer.
#![allow(
    unsafe_code,
    reason = "the calls below have no safe equivalent in rusqlite; each is justified where it stands"
)]

mod file;
mod vfs;
mod wal;

use std::ffi::c_int;

use rusqlite::{Connection, ffi};

pub(crate) use file::{OpenFile, forget_pages};
pub(crate) use vfs::{VFS, is_kept, keep, lean, register};

/// Violations of deferred foreign keys that the open transaction has collected and that would fail its COMMIT.
///
/// The figure is 0 exactly when COMMIT will not fail for them (`SQLITE_DBSTATUS_DEFERRED_FKS`).
pub(crate) fn has_deferred_violations(connection: &Connection) -> bool {
    let (mut current, mut highest): (c_int, c_int) = (0, 0);
    // SAFETY: the handle is valid while `connection` is borrowed, SQLite is used by this thread only, and both
    // pointers are to live integers that the call only writes.
    let result = unsafe {
        ffi::sqlite3_db_status(
            connection.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &raw mut current,
            &raw mut highest,
            0,
        )
    };
    result != ffi::SQLITE_OK || current != 0
}

/// Bounds the memory of all of SQLite in this process; 0 = no bound.
pub(crate) fn limit_heap(bytes: u64) {
    // SAFETY: the call only sets a number, under a mutex of SQLite's own.
    unsafe { ffi::sqlite3_hard_heap_limit64(i64::try_from(bytes).unwrap_or(i64::MAX)) };
}

/// Watches the memory of SQLite from now on, for [`is_heap_exhausted`].
pub(crate) fn watch_heap() {
    for figure in [ffi::SQLITE_STATUS_MEMORY_USED, ffi::SQLITE_STATUS_MALLOC_SIZE] {
        highest(figure, true);
    }
}

/// Whether an allocation failed for the bound since memory was watched, and not for want of memory in the machine.
///
/// SQLite refuses what would lift its use to the bound, and remembers the most that it used and the most that was
/// asked for at once: below the bound, their sum says that no allocation was refused for it.
pub(crate) fn is_heap_exhausted() -> bool {
    // SAFETY: a negative value changes nothing; the call gives the bound.
    let bound = unsafe { ffi::sqlite3_hard_heap_limit64(-1) };
    let asked = highest(ffi::SQLITE_STATUS_MALLOC_SIZE, false).saturating_add(ROUNDING);
    bound > 0 && highest(ffi::SQLITE_STATUS_MEMORY_USED, false).saturating_add(asked) >= bound
}

/// What SQLite may add to an allocation to round its size up, in bytes.
const ROUNDING: i64 = 64;

/// The highest value of a figure of SQLite's memory since it was last reset.
fn highest(figure: c_int, reset: bool) -> i64 {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: both pointers are to live integers that the call only writes; it takes a mutex of SQLite's own.
    let result =
        unsafe { ffi::sqlite3_status64(figure, &raw mut current, &raw mut highest, c_int::from(reset)) };
    if result == ffi::SQLITE_OK { highest } else { 0 }
}

/// Forgets the row id of the last insert, so that no command sees that of another.
pub(crate) fn forget_last_insert_rowid(connection: &Connection) {
    // SAFETY: the handle is valid while `connection` is borrowed, and the call only sets a number in it.
    unsafe { ffi::sqlite3_set_last_insert_rowid(connection.handle(), 0) }
}

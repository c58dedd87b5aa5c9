//! All direct use of SQLite's C interface, for the few things that rusqlite does not offer.
//!
//! `unsafe` stands here and in the module below, and nowhere else in the writer.
#![allow(
    unsafe_code,
    reason = "the calls below have no safe equivalent in rusqlite; each is justified where it stands"
)]

mod vfs;

use std::ffi::c_int;

use rusqlite::{Connection, ffi};

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

/// Forgets the row id of the last insert, so that no command sees that of another.
pub(crate) fn forget_last_insert_rowid(connection: &Connection) {
    // SAFETY: the handle is valid while `connection` is borrowed, and the call only sets a number in it.
    unsafe { ffi::sqlite3_set_last_insert_rowid(connection.handle(), 0) }
}

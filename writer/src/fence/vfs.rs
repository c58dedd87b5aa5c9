//! A VFS around SQLite's default one that does not give back the WAL's write lock, nor its checkpoint lock.
//!
//! SQLite takes the write lock for each transaction and the checkpoint lock for each checkpoint, and leaves gaps in
//! between through which another program can write. Here, a connection that is told to [`keep`] takes both locks with
//! the first write transaction and gives them back when it closes. Connections of the same process that [`lean`] on it
//! are answered "locked" for these two without asking. All other locks, and all other methods of the file, are SQLite's;
//! but a WAL's are those of the module beside this one.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use rusqlite::{Connection, ffi};

use super::wal;

/// The name of the VFS for [`Connection::open_with_flags_and_vfs`], once it is [registered](register).
pub(crate) const VFS: &CStr = c"penholder-fence";

/// Lock slots of a WAL's index that are kept: `WAL_WRITE_LOCK` and `WAL_CKPT_LOCK`, the first two.
const KEPT_COUNT: c_int = 2;

const TAKE: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE;
const GIVE_BACK: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE;

/// What the locks of one open database file are to this connection; stands behind SQLite's own file object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Role {
    /// As without this VFS.
    Plain,
    /// Will keep the locks once it has them.
    Keeping,
    /// Keeps the locks.
    Kept,
    /// Another connection of this process keeps the locks.
    Leaning,
}

/// Room behind SQLite's own file object, in bytes: for a [`Role`] behind a database, for what waits behind a WAL.
const BEHIND_BYTES: u8 = 64;

/// SQLite's default VFS, set once before ours is registered.
static ORIGIN: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

/// The methods of a database file: SQLite's, and ours, which differ in two places.
struct Methods {
    origin: &'static ffi::sqlite3_io_methods,
    fenced: ffi::sqlite3_io_methods,
}

static METHODS: OnceLock<Methods> = OnceLock::new();

/// Makes the VFS known to SQLite, once per process; whether it is.
pub(crate) fn register() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        // SAFETY: null asks for the default VFS; SQLite initializes itself first if need be.
        let origin = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        // SAFETY: a VFS that SQLite hands out stays valid, and is not written to, until it is unregistered, which
        // nothing in this process does with the default one.
        let Some(found) = (unsafe { origin.as_ref() }) else { return false };
        ORIGIN.store(origin, Ordering::Release);
        let ours = ffi::sqlite3_vfs {
            szOsFile: found.szOsFile + c_int::from(BEHIND_BYTES),
            pNext: ptr::null_mut(),
            zName: VFS.as_ptr(),
            xOpen: Some(open),
            ..*found
        };
        // SAFETY: the VFS and its name live for ever. Its other methods are the default VFS's; those of SQLite's unix
        // VFS make no use of the `sqlite3_vfs` that they are called with, and `open` passes the original one on.
        unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 0) == ffi::SQLITE_OK }
    })
}

/// Lets a connection keep both locks from its next write transaction on, until it closes; whether it can.
pub(crate) fn keep(connection: &Connection) -> bool {
    assume(connection, Role::Keeping)
}

/// Lets a connection rely on the locks that another one of this process keeps on the same database; whether it can.
///
/// Call it before the first statement, and close the connection before the one that keeps the locks. Of those that rely on
/// the same locks, one at a time may be used: to SQLite, each of them is the only one that can be writing the WAL's index.
pub(crate) fn lean(connection: &Connection) -> bool {
    assume(connection, Role::Leaning)
}

/// Whether a connection keeps both locks now.
pub(crate) fn is_kept(connection: &Connection) -> bool {
    // SAFETY: `role_of` gives a pointer into the file object of `connection`, which is open while it is borrowed.
    role_in(connection).is_some_and(|role| unsafe { *role } == Role::Kept)
}

fn assume(connection: &Connection, wanted: Role) -> bool {
    let Some(role) = role_in(connection) else { return false };
    // SAFETY: as in `is_kept`; a connection and its files are used by one thread at a time, and by this one now.
    unsafe {
        if *role != Role::Plain {
            return false;
        }
        *role = wanted;
    }
    true
}

/// The role of the main database of a connection; `None` if the file was not opened through this VFS.
fn role_in(connection: &Connection) -> Option<*mut Role> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is valid while `connection` is borrowed, and SQLITE_FCNTL_FILE_POINTER writes one pointer.
    let result = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast(),
        )
    };
    let fenced = &raw const METHODS.get()?.fenced;
    // SAFETY: the file object of an open connection is valid; that of a closed or temporary database has no methods.
    let ours = result == ffi::SQLITE_OK && !file.is_null() && ptr::eq(unsafe { (*file).pMethods }, fenced);
    // SAFETY: a file with our methods was opened by `open`, so the byte is there and holds a role.
    ours.then(|| unsafe { role_of(file) })
}

/// The role of a database file.
///
/// # Safety
///
/// `file` is a main database that was opened through this VFS.
unsafe fn role_of(file: *mut ffi::sqlite3_file) -> *mut Role {
    // SAFETY: it was opened through this VFS.
    unsafe { behind(file) }
}

/// What stands behind SQLite's own file object.
///
/// # Safety
///
/// `file` was opened through this VFS.
pub(super) unsafe fn behind<T>(file: *mut ffi::sqlite3_file) -> *mut T {
    const { assert!(size_of::<T>() + align_of::<T>() <= BEHIND_BYTES as usize) };
    // SAFETY: `register` set the original VFS before any file could be opened, and asked SQLite for so much more than the
    // original file object takes. SQLite aligns the object for all that it may hold itself.
    unsafe {
        let size = usize::try_from((*ORIGIN.load(Ordering::Acquire)).szOsFile).unwrap_or_default();
        file.cast::<u8>().add(size.next_multiple_of(align_of::<T>())).cast()
    }
}

/// `xOpen`: opens with the default VFS, and puts our methods into a main database or a WAL.
unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let origin = ORIGIN.load(Ordering::Acquire);
    // SAFETY: `register` set the original VFS before SQLite could call this, and it stays valid; the arguments are
    // SQLite's, meant for exactly this method, and the file object is at least as large as the original asks for.
    unsafe {
        let Some(open) = (*origin).xOpen else { return ffi::SQLITE_CANTOPEN };
        let result = open(origin, name, file, flags, flags_out);
        if result == ffi::SQLITE_OK && flags & ffi::SQLITE_OPEN_WAL != 0 {
            wal::gather(file);
        }
        if result != ffi::SQLITE_OK || flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
            return result;
        }
        // SAFETY (of the 'static borrow): the methods of the default VFS's files are constants of SQLite.
        let Some(found) = (*file).pMethods.as_ref::<'static>() else { return result };
        let methods = METHODS.get_or_init(|| Methods {
            origin: found,
            fenced: ffi::sqlite3_io_methods {
                xShmLock: Some(shm_lock),
                xShmUnmap: Some(shm_unmap),
                ..*found
            },
        });
        // Files of another kind, which the default VFS may choose by file system, stay as they are: `role_in` says so.
        if ptr::eq(found, methods.origin) {
            role_of(file).write(Role::Plain);
            (*file).pMethods = &raw const methods.fenced;
        }
        result
    }
}

/// `xShmLock`: as the default, but for the locks that are kept.
unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls this for files with our methods only, so `open` has written the role, and the original
    // methods are known; one connection's file is used by one thread at a time.
    unsafe {
        let role = role_of(file);
        match *role {
            Role::Keeping if first == 0 && flags == TAKE => {
                let result = origin_lock(file, 0, KEPT_COUNT, TAKE);
                if result == ffi::SQLITE_OK {
                    *role = Role::Kept;
                }
                result
            }
            Role::Plain | Role::Keeping => origin_lock(file, first, count, flags),
            Role::Kept | Role::Leaning => match without_kept(first, count) {
                Some((first, count)) => origin_lock(file, first, count, flags),
                None => ffi::SQLITE_OK,
            },
        }
    }
}

/// `xShmUnmap`: gives back what was kept, because the default expects that nothing is locked any more. Other
/// connections of this process may go on with the same index, and would never see the locks free again.
unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: as in `shm_lock`.
    unsafe {
        let role = role_of(file);
        if *role == Role::Kept {
            origin_lock(file, 0, KEPT_COUNT, GIVE_BACK);
            *role = Role::Keeping;
        }
        match METHODS.get().and_then(|methods| methods.origin.xShmUnmap) {
            Some(unmap) => unmap(file, delete),
            None => ffi::SQLITE_OK,
        }
    }
}

/// The part of a range of slots that is not kept.
fn without_kept(first: c_int, count: c_int) -> Option<(c_int, c_int)> {
    let (first, end) = (first.max(KEPT_COUNT), first + count);
    (first < end).then_some((first, end - first))
}

/// The default VFS's lock.
///
/// # Safety
///
/// `file` was opened through this VFS and is used by this thread only.
unsafe fn origin_lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    match METHODS.get().and_then(|methods| methods.origin.xShmLock) {
        // SAFETY: the file object begins with the one that the default VFS made.
        Some(lock) => unsafe { lock(file, first, count, flags) },
        None => ffi::SQLITE_IOERR_SHMLOCK,
    }
}

//! Whether a writer serves a store.

use std::fs::File;
use std::io;
use std::path::Path;

use penholder_protocol::Layout;

/// Whether a writer serves the store now: it holds a lock on the control file for its life.
///
/// No is the answer too where there is no store. It may be outdated when it arrives.
pub fn writer_running(store: &Path) -> io::Result<bool> {
    let control = match File::open(Layout::new(store).control()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match fs2::FileExt::try_lock_shared(&control) {
        // Closing the file would do, but a child process forked meanwhile would keep the lock.
        Ok(()) => fs2::FileExt::unlock(&control).map(|()| false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

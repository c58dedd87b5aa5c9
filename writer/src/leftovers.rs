//! Removes the segments that clients died of making, before anything of them was in the spool.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use penholder_protocol::{Layout, SegmentKind, SegmentName};
use rustix::fs::OFlags;

/// Removes what is under construction and has no owner any more. A client that is between making its file and locking
/// it makes another one.
///
/// What cannot be removed is in nobody's way.
pub(crate) fn remove(layout: &Layout) {
    let directory = layout.spool_tmp();
    let Ok(items) = std::fs::read_dir(&directory) else { return };
    for item in items.flatten() {
        let name = item.file_name().to_str().and_then(SegmentName::parse);
        if name.is_some_and(|name| name.kind == SegmentKind::Live) {
            remove_if_abandoned(&item.path());
        }
    }
}

fn remove_if_abandoned(path: &Path) {
    // Held until the file is gone, so that a client that comes for the lock now does not get it.
    let Some(file) = open(path) else { return };
    if fs2::FileExt::try_lock_exclusive(&file).is_err() {
        return;
    }
    match std::fs::remove_file(path) {
        Ok(()) => log::info!("removed {}, which a client died of making", path.display()),
        Err(error) => log::warn!("cannot remove {}: {error}", path.display()),
    }
}

fn open(path: &Path) -> Option<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

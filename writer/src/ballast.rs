//! Space held back on the disk, given up when it is full: enough to commit, checkpoint and delete a way out.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use penholder_protocol::Layout;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use crate::filesystem::free_bytes;

/// The ballast is only taken while so many times its size is free: it must not be what fills the disk.
const FREE_TIMES_MIN: u64 = 4;

/// The file that holds the space.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    root: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// The ballast of a store, `bytes` long; 0 is none.
    pub(crate) fn new(layout: &Layout, bytes: u64) -> Self {
        Self { path: layout.ballast(), root: layout.root().to_owned(), bytes }
    }

    /// Allocates the file if it is missing, or of another size, and there is room; whether it did.
    ///
    /// Too little space and a file system that cannot allocate are no errors: the store works without.
    pub(crate) fn ensure(&self) -> io::Result<bool> {
        if self.bytes == 0 {
            return self.release().map(|_| false);
        }
        match fs::symlink_metadata(&self.path) {
            Ok(there) if there.len() == self.bytes => return Ok(false),
            Ok(_) => fs::remove_file(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if free_bytes(&self.root)? / FREE_TIMES_MIN < self.bytes {
            return Ok(false);
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.path)?;
        match allocate(&file, self.bytes) {
            Ok(()) => Ok(true),
            Err(error) => {
                fs::remove_file(&self.path)?;
                let quiet = [Errno::NOSPC, Errno::DQUOT, Errno::OPNOTSUPP, Errno::NOSYS, Errno::FBIG];
                if quiet.contains(&error) { Ok(false) } else { Err(error.into()) }
            }
        }
    }

    /// Gives the space back; whether there was any.
    pub(crate) fn release(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Mode 0 also sets the length, so that the length tells that the allocation is complete.
fn allocate(file: &File, bytes: u64) -> Result<(), Errno> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn ballast(bytes: u64) -> (tempfile::TempDir, Ballast) {
        let directory = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(&Layout::new(directory.path()), bytes);
        (directory, ballast)
    }

    #[test]
    fn the_space_is_taken_once_and_given_back_once() {
        let (_directory, ballast) = ballast(1 << 20);
        assert!(ballast.ensure().unwrap());
        let metadata = fs::metadata(&ballast.path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (1 << 20, 0o600));
        assert!(metadata.blocks() * 512 >= 1 << 20, "the space must be allocated, not only promised");
        assert!(!ballast.ensure().unwrap());
        assert!(ballast.release().unwrap());
        assert!(!ballast.release().unwrap());
        assert!(!ballast.path.exists());
    }

    #[test]
    fn a_ballast_of_another_size_is_replaced() {
        let (_directory, ballast) = ballast(1 << 20);
        fs::write(&ballast.path, "short").unwrap();
        assert!(ballast.ensure().unwrap());
        assert_eq!(fs::metadata(&ballast.path).unwrap().len(), 1 << 20);
        let none = Ballast { bytes: 0, ..ballast };
        assert!(!none.ensure().unwrap());
        assert!(!none.path.exists());
    }

    #[test]
    fn no_ballast_is_taken_when_the_disk_has_no_room_for_four() {
        let (directory, _) = ballast(1);
        let bytes = free_bytes(directory.path()).unwrap() / FREE_TIMES_MIN * 2;
        let large = Ballast::new(&Layout::new(directory.path()), bytes);
        assert!(!large.ensure().unwrap());
        assert!(!large.path.exists());
    }

    #[test]
    fn a_store_that_is_gone_is_an_error() {
        let (directory, ballast) = ballast(1 << 20);
        drop(directory);
        assert!(ballast.ensure().is_err());
    }
}

//! Opens what lies in the spool, where anybody may have put anything: nothing is followed, blocked on or trusted.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::limits::SPOOL_FILE_BYTES_MAX;

/// A regular file with one name, open for reading.
#[derive(Debug)]
pub struct SpoolFile {
    /// Open for reading.
    pub file: File,
    /// Who owns it: the identity of whoever submitted what is in it.
    pub uid: u32,
    /// Its length in bytes when it was opened; never above [`SPOOL_FILE_BYTES_MAX`].
    pub length: u64,
}

/// Why a file of the spool was not opened.
#[derive(Debug)]
pub enum NotOpened {
    /// It is not there any more.
    Gone,
    /// It must not be read; the reason is for people.
    Refused(String),
    /// The machine failed, not the file.
    Failed(io::Error),
}

impl SpoolFile {
    /// Opens `path` if it is what a segment may be: a regular file with one name, on the file system of the spool
    /// (`device`), of bounded length.
    ///
    /// It is looked at through a descriptor that opens nothing, and only then opened for reading. So no device is ever
    /// opened, and neither is another name of a database: closing that would cancel the locks of SQLite in this process.
    pub fn open(path: &Path, device: u64) -> Result<Self, NotOpened> {
        let handle = match open(path, look_only()) {
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => return Err(NotOpened::Gone),
                // A link where the system cannot look at the link itself.
                Some(Errno::LOOP) => return Err(NotOpened::Refused("not a regular file".to_owned())),
                _ => return Err(NotOpened::Failed(error)),
            },
            Ok(handle) => handle,
        };
        let metadata = handle.metadata().map_err(NotOpened::Failed)?;
        check(&metadata, device)?;
        let file = match reopen(&handle, path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotOpened::Gone),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let reason = format!(
                    "cannot be read: it belongs to uid {} with mode {:04o}, and the writer is another user",
                    metadata.uid(),
                    metadata.mode() & 0o7777
                );
                return Err(NotOpened::Refused(reason));
            }
            Err(error) => return Err(NotOpened::Failed(error)),
        };
        // Without /proc the path was opened again, and may lead elsewhere by now.
        let opened = file.metadata().map_err(NotOpened::Failed)?;
        if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(NotOpened::Gone);
        }
        Ok(Self { file, uid: opened.uid(), length: opened.len().min(SPOOL_FILE_BYTES_MAX) })
    }
}

fn check(metadata: &Metadata, device: u64) -> Result<(), NotOpened> {
    let refuse = |reason: String| Err(NotOpened::Refused(reason));
    if !metadata.is_file() {
        return refuse("not a regular file".to_owned());
    }
    match metadata.nlink() {
        0 => return Err(NotOpened::Gone),
        1 => {}
        several => return refuse(format!("a file with {several} names")),
    }
    if metadata.dev() != device {
        return refuse("mounted from another file system".to_owned());
    }
    if metadata.len() > SPOOL_FILE_BYTES_MAX {
        let length = metadata.len();
        return refuse(format!("{length} bytes long, and a segment has at most {SPOOL_FILE_BYTES_MAX}"));
    }
    Ok(())
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Opens nothing: no driver is called, nothing is locked or unlocked.
#[cfg(target_os = "linux")]
fn look_only() -> OFlags {
    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn look_only() -> OFlags {
    OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC
}

/// Opens what `handle` looks at, whatever lies at `path` by now; by the path where there is no /proc.
fn reopen(handle: &File, path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    match open(format!("/proc/self/fd/{}", handle.as_raw_fd()).as_ref(), flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(path, flags | OFlags::NOFOLLOW),
        opened => opened,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    fn refusal(path: &Path, device: u64) -> String {
        match SpoolFile::open(path, device) {
            Err(NotOpened::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_regular_file_with_one_name_on_the_right_device_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let device = std::fs::metadata(directory.path()).unwrap().dev();
        std::fs::write(at("good"), "12345").unwrap();
        let good = SpoolFile::open(&at("good"), device).unwrap();
        assert_eq!((good.length, good.uid), (5, good.file.metadata().unwrap().uid()));
        assert!(refusal(&at("good"), device + 1).contains("another file system"));
        assert!(matches!(SpoolFile::open(&at("nothing"), device), Err(NotOpened::Gone)));

        std::os::unix::fs::symlink("good", at("link")).unwrap();
        assert!(refusal(&at("link"), device).contains("not a regular file"));
        std::fs::create_dir(at("directory")).unwrap();
        assert!(refusal(&at("directory"), device).contains("not a regular file"));
        drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
        assert!(refusal(&at("socket"), device).contains("not a regular file"));
        std::fs::hard_link(at("good"), at("twin")).unwrap();
        assert!(refusal(&at("twin"), device).contains("2 names"));
        File::create(at("long")).unwrap().set_len(SPOOL_FILE_BYTES_MAX + 1).unwrap();
        assert!(refusal(&at("long"), device).contains("at most"));
    }

    #[test]
    fn a_file_that_is_looked_at_and_refused_keeps_the_locks_of_this_process() {
        use rustix::fs::{FlockOperation, fcntl_lock};
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let device = std::fs::metadata(directory.path()).unwrap().dev();
        std::fs::write(at("database"), "as SQLite would hold it").unwrap();
        let database = File::options().read(true).write(true).open(at("database")).unwrap();
        fcntl_lock(&database, FlockOperation::NonBlockingLockExclusive).unwrap();
        std::fs::hard_link(at("database"), at("segment")).unwrap();
        assert!(refusal(&at("segment"), device).contains("2 names"));
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let inode = format!(":{} ", database.metadata().unwrap().ino());
        assert!(locks.lines().any(|line| line.contains("POSIX") && line.contains(&inode)), "{locks}");
    }
}

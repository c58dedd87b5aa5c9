//! The lock that keeps a second writer out of a store.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use penholder_protocol::Layout;
use rustix::fs::OFlags;

use crate::Error;

/// Most bytes that are quoted from the lock file of another writer.
const HOLDER_BYTES_MAX: u64 = 200;

/// The store's lock, held until this is dropped, or the process dies.
///
/// The file is not unlinked: a writer that then created a new one would hold a lock that keeps nobody out. Only a split
/// that made the file itself, and leaves no store, takes it away while it holds the lock.
#[derive(Debug)]
pub(crate) struct StoreLock {
    file: File,
    /// Device and inode of the file: they last as long as it is open.
    identity: (u64, u64),
    path: PathBuf,
}

impl StoreLock {
    /// Takes the lock; [`Error::Locked`] if another writer has it.
    pub(crate) fn acquire(layout: &Layout) -> Result<Self, Error> {
        let path = layout.writer_lock();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(Error::io("open", &path))?;
        if let Err(error) = fs2::FileExt::try_lock_exclusive(&file) {
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(Error::Locked { holder: holder(&file), path });
            }
            return Err(Error::io("lock", &path)(error));
        }
        let metadata = file.metadata().map_err(Error::io("stat", &path))?;
        let lock = Self { file, identity: (metadata.dev(), metadata.ino()), path };
        lock.check()?;
        lock.introduce().map_err(Error::io("write", &lock.path))?;
        Ok(lock)
    }

    /// Whether the lock still keeps others out: the file at its path is the one that is locked.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let intruder =
            |how| Error::Intruder { what: format!("the lock file {} was {how}", self.path.display()) };
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) != self.identity => Err(intruder("replaced")),
            Ok(there) if there.nlink() != 1 => Err(intruder("linked to another name")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(intruder("deleted")),
            Err(error) => Err(Error::io("stat", &self.path)(error)),
        }
    }

    /// Writes who holds the lock, for people; nothing reads it but the message of a writer that is kept out.
    fn introduce(&self) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(0o600))?;
        let text = format!("pid {} on {} since {}\n", std::process::id(), host(), utc(SystemTime::now()));
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}

/// What the holder wrote into the file, fit for one line of a message.
fn holder(file: &File) -> String {
    let mut text = Vec::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    match text.trim() {
        text if read.is_err() || text.is_empty() => "it has not said which process it is".into(),
        text => text.escape_debug().to_string(),
    }
}

fn host() -> String {
    let names = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let name = names.iter().find_map(|path| std::fs::read_to_string(Path::new(path)).ok());
    name.map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "this host".into())
}

/// The time as `2001-02-03T04:05:06Z`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted from 1 March of the year 0, leap days fall on the end of a year; 400 years are 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) =
        if month < 10 { (era * 400 + year, month + 3) } else { (era * 400 + year + 1, month - 9) };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        (directory, layout)
    }

    #[test]
    fn a_second_writer_is_told_who_holds_the_store() {
        let (_directory, layout) = store();
        let _lock = StoreLock::acquire(&layout).unwrap();
        let error = StoreLock::acquire(&layout).unwrap_err();
        let Error::Locked { path, holder } = &error else { unreachable!("{error}") };
        assert_eq!(path, &layout.writer_lock());
        assert!(holder.starts_with(&format!("pid {} on ", std::process::id())), "{holder}");
    }

    #[test]
    fn the_lock_of_another_process_keeps_us_out_until_it_ends() {
        let (_directory, layout) = store();
        std::fs::write(layout.writer_lock(), "").unwrap();
        let mut other = std::process::Command::new("flock")
            .args(["--exclusive", "--no-fork"])
            .arg(layout.writer_lock())
            .args(["sh", "-c", "echo locked; exec sleep 60"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [0; 6];
        other.stdout.take().unwrap().read_exact(&mut word).unwrap();
        assert!(matches!(StoreLock::acquire(&layout), Err(Error::Locked { .. })));
        other.kill().unwrap();
        other.wait().unwrap();
        StoreLock::acquire(&layout).unwrap();
    }

    #[test]
    fn the_lock_is_free_again_once_it_is_dropped_and_the_file_stays() {
        let (_directory, layout) = store();
        drop(StoreLock::acquire(&layout).unwrap());
        assert!(layout.writer_lock().exists());
        StoreLock::acquire(&layout).unwrap();
    }

    #[test]
    fn the_file_is_private_and_holds_one_line_whatever_was_in_it() {
        let (_directory, layout) = store();
        std::fs::write(layout.writer_lock(), "x".repeat(500)).unwrap();
        let lock = StoreLock::acquire(&layout).unwrap();
        assert_eq!(lock.file.metadata().unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(layout.writer_lock()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.len() < 500 && text.ends_with("Z\n"), "{text}");
    }

    #[test]
    fn a_lock_file_that_was_deleted_replaced_or_linked_is_noticed() {
        let (_directory, layout) = store();
        let path = layout.writer_lock();
        let lock = StoreLock::acquire(&layout).unwrap();
        lock.check().unwrap();
        let twin = layout.root().join("twin");
        std::fs::hard_link(&path, &twin).unwrap();
        assert!(matches!(lock.check(), Err(Error::Intruder { .. })));
        std::fs::remove_file(&twin).unwrap();
        lock.check().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(lock.check().unwrap_err().to_string().contains("deleted"));
        let _second = StoreLock::acquire(&layout).unwrap();
        assert!(lock.check().unwrap_err().to_string().contains("replaced"));
    }

    #[test]
    fn a_lock_file_with_a_second_name_is_not_taken() {
        let (_directory, layout) = store();
        std::fs::write(layout.root().join("twin"), "").unwrap();
        std::fs::hard_link(layout.root().join("twin"), layout.writer_lock()).unwrap();
        assert!(matches!(StoreLock::acquire(&layout), Err(Error::Intruder { .. })));
    }

    #[test]
    fn a_link_in_place_of_the_lock_file_is_refused() {
        let (_directory, layout) = store();
        std::os::unix::fs::symlink(layout.root().join("elsewhere"), layout.writer_lock()).unwrap();
        assert!(matches!(StoreLock::acquire(&layout), Err(Error::Io { .. })));
    }

    #[test]
    fn a_start_time_is_written_as_people_write_it() {
        let at = |seconds| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}

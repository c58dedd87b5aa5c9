//! Notices before every commit that a file of the store was exchanged, or its log cut, under the writer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use penholder_protocol::Layout;
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::Error;
use crate::batch::Touches;
use crate::database::Database;
use crate::keeper::Keeper;
use crate::lock::StoreLock;

/// Age from which the last change of a directory differs from one that is still to come, where the clock of the file system
/// goes by seconds (ext3, ext4 with inodes of 128 bytes) or by two (FAT).
const SETTLED_BY_SECONDS: Duration = Duration::from_secs(3);

/// The same where it goes by less: all changes within a tick of 10 ms may have the same time (exFAT, kernels before 6.13).
const SETTLED_BY_TICKS: Duration = Duration::from_millis(100);

/// The files that must stay what they are.
pub(crate) struct Place<'a> {
    root: PathBuf,
    lock: &'a StoreLock,
    keepers: &'a [Keeper],
    /// The directory as it was before every file was last found in its place.
    seen: Option<Stamp>,
}

/// A directory and its last change. None of its names leads to another file as long as it stays the same, and nobody can
/// set it back.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: (u32, u32),
    inode: u64,
    changed: Duration,
}

impl<'a> Place<'a> {
    pub(crate) fn new(layout: &Layout, lock: &'a StoreLock, keepers: &'a [Keeper]) -> Self {
        Self { root: layout.root().to_owned(), lock, keepers, seen: None }
    }

    /// Stops if the lock or a file of a database was moved, removed or replaced since the last time: one question where
    /// [`check_all`](Self::check_all) needs one per file, which is a fiftieth of a commit.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        let stamp = Stamp::of(&self.root)?;
        if self.seen == Some(stamp) {
            return Ok(());
        }
        self.check_names()?;
        self.seen = stamp.is_settled().then_some(stamp);
        Ok(())
    }

    /// Stops if the log of a database is shorter than what was committed to it: no directory shows that.
    pub(crate) fn check_logs(&self, databases: &[Database<'_>], touches: Touches) -> Result<(), Error> {
        let pairs = self.keepers.iter().zip(databases).enumerate();
        let mut touched = pairs.filter(|(index, _)| touches.contains(*index));
        touched.try_for_each(|(_, (keeper, database))| keeper.check_log(database.guard.wal_bytes()))
    }

    /// Looks at every file: what changes no directory, such as a mount, shows here only.
    pub(crate) fn check_all(&self, databases: &[Database<'_>]) -> Result<(), Error> {
        self.check_names()?;
        let all = (0..databases.len()).fold(Touches::default(), Touches::with);
        self.check_logs(databases, all)
    }

    fn check_names(&self) -> Result<(), Error> {
        self.lock.check()?;
        self.keepers.iter().try_for_each(Keeper::check)
    }
}

impl Stamp {
    fn of(directory: &Path) -> Result<Self, Error> {
        let found = rustix::fs::statx(CWD, directory, AtFlags::empty(), StatxFlags::INO | StatxFlags::CTIME)
            .map_err(|error| Error::io("look at", directory)(error.into()))?;
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            changed: since_epoch(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        })
    }

    fn is_settled(self) -> bool {
        let by_seconds = self.changed.subsec_nanos() == 0;
        let settled = if by_seconds { SETTLED_BY_SECONDS } else { SETTLED_BY_TICKS };
        now().checked_sub(self.changed).is_some_and(|age| age > settled)
    }
}

/// By the clock that stamps files: where the machine stood still, it does too.
fn now() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::RealtimeCoarse);
    since_epoch(tv_sec, u32::try_from(tv_nsec).unwrap_or_default())
}

fn since_epoch(seconds: i64, nanoseconds: u32) -> Duration {
    Duration::new(u64::try_from(seconds).unwrap_or_default(), nanoseconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_after_a_quiet_time_is_noticed_by_the_next_check() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        let lock = StoreLock::acquire(&layout).unwrap();
        let mut place = Place::new(&layout, &lock, &[]);
        place.check().unwrap();
        assert!(place.seen.is_none(), "a change that is still to come may have the same time");
        while place.seen.is_none() {
            std::thread::sleep(SETTLED_BY_TICKS / 5);
            place.check().unwrap();
        }
        let (path, aside) = (layout.writer_lock(), directory.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        assert!(matches!(place.check(), Err(Error::Intruder { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(place.check(), Err(Error::Intruder { .. })));
        std::fs::rename(&aside, &path).unwrap();
        place.check().unwrap();
    }

    #[test]
    fn a_clock_that_goes_by_seconds_takes_longer_to_settle() {
        let stamp = |changed| Stamp { device: (0, 0), inode: 0, changed };
        let before = |milliseconds| now().checked_sub(Duration::from_millis(milliseconds)).unwrap();
        let by_seconds = |age| stamp(Duration::from_secs(before(age).as_secs())).is_settled();
        let by_ticks = |age| {
            let changed = before(age);
            stamp(Duration::new(changed.as_secs(), changed.subsec_nanos().max(1))).is_settled()
        };
        assert!(!by_seconds(1000) && by_seconds(4000));
        assert!(!by_ticks(20) && by_ticks(200));
    }

    #[test]
    fn a_store_whose_directory_is_another_one_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        std::fs::create_dir(&root).unwrap();
        let layout = Layout::new(&root);
        let lock = StoreLock::acquire(&layout).unwrap();
        let mut place = Place::new(&layout, &lock, &[]);
        while place.seen.is_none() {
            std::thread::sleep(SETTLED_BY_TICKS / 5);
            place.check().unwrap();
        }
        std::fs::rename(&root, directory.path().join("moved")).unwrap();
        std::fs::create_dir(&root).unwrap();
        assert!(matches!(place.check(), Err(Error::Intruder { .. })));
    }
}

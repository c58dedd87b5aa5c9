//! Sets aside what cannot be trusted: the original bytes, and the reason beside them; a few files per turn, so that
//! nobody waits for it.

use std::collections::{HashSet, VecDeque};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use penholder_protocol::{Layout, SegmentName, StreamId, sync_directory};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::Error;

/// Files that are set aside between two batches: they share the two syncs of that turn.
const FILES_PER_TURN: usize = 16;

/// A file that is to leave the spool.
#[derive(Clone, Debug)]
pub(crate) struct Condemned {
    pub(crate) name: SegmentName,
    /// For people.
    pub(crate) reason: String,
}

/// The files on their way out of the spool.
#[derive(Debug)]
pub(crate) struct Quarantine {
    layout: Layout,
    waiting: VecDeque<Condemned>,
    /// Those that wait, and those that cannot be moved: none is looked at again.
    held: HashSet<SegmentName>,
}

impl Quarantine {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, waiting: VecDeque::new(), held: HashSet::new() }
    }

    /// Takes note of a file; it is not read any more from now on, and moved when its turn comes.
    pub(crate) fn condemn(&mut self, condemned: Condemned) {
        if self.held.insert(condemned.name) {
            self.waiting.push_back(condemned);
        }
    }

    /// Whether a file is settled: on its way out, or not to be moved.
    pub(crate) fn holds(&self, name: SegmentName) -> bool {
        self.held.contains(&name)
    }

    /// Whether files wait to be moved.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Moves the next few files, and says how many there were.
    pub(crate) fn work(&mut self) -> Result<u64, Error> {
        let mut moved = 0;
        let some: Vec<_> = self.waiting.drain(..FILES_PER_TURN.min(self.waiting.len())).collect();
        let Some(first) = some.first() else { return Ok(0) };
        let more =
            if some.len() > 1 { format!(" (and {} more files)", some.len() - 1) } else { String::new() };
        log::error!(
            "quarantining {}: {}; nothing behind it in its stream is applied{more}",
            first.name,
            first.reason
        );
        for condemned in &some {
            match set_aside(&self.layout, condemned)? {
                SetAside::Moved => moved += 1,
                SetAside::Gone => {}
                SetAside::Stuck => continue,
            }
            self.held.remove(&condemned.name);
        }
        for directory in [self.layout.quarantine(), self.layout.spool()] {
            sync_directory(&directory).map_err(Error::io("sync", &directory))?;
        }
        Ok(moved)
    }
}

/// What became of a file that was to leave the spool.
enum SetAside {
    Moved,
    /// Its owner was faster.
    Gone,
    /// It stays where it is, and is not looked at again.
    Stuck,
}

/// Moves one file out of the spool, its bytes as they are. Durable with the directories.
fn set_aside(layout: &Layout, condemned: &Condemned) -> Result<SetAside, Error> {
    let from = layout.segment(condemned.name);
    match move_with_reason(&from, &layout.quarantine(), condemned) {
        Ok(()) => Ok(SetAside::Moved),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(SetAside::Gone),
        // A directory of another user stays where it is, and so does what something is mounted on.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ResourceBusy) => {
            log::warn!("{} cannot be moved and is left alone: {error}", from.display());
            Ok(SetAside::Stuck)
        }
        Err(error) => Err(Error::io("move to quarantine", &from)(error)),
    }
}

/// Moves a file under its name, or one that begins with it: what was set aside before is never replaced. The reason
/// is there first, so that nobody finds a file without one; after a power cut it may be empty, and the bytes tell it again.
fn move_with_reason(from: &Path, directory: &Path, condemned: &Condemned) -> io::Result<()> {
    let mut name = condemned.name.to_string();
    loop {
        let reason = directory.join(format!("{name}.reason"));
        let moved = write_new(&reason, &condemned.reason).and_then(|()| {
            let place = directory.join(&name);
            renameat_with(CWD, from, CWD, &place, RenameFlags::NOREPLACE).map_err(|error| {
                // Another file's reason is not touched: this one was new.
                std::fs::remove_file(&reason).err().unwrap_or_else(|| error.into())
            })
        });
        match moved {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let [one, two, three, four, ..] = StreamId::random()?.0;
                name = format!("{}.{one:02x}{two:02x}{three:02x}{four:02x}", condemned.name);
            }
            moved => return moved,
        }
    }
}

/// The segment that a file in quarantine was; `None` for a reason, and for what is not ours.
pub(crate) fn segment_of(file_name: &str) -> Option<SegmentName> {
    let (name, suffix) = file_name.rsplit_once('.')?;
    SegmentName::parse(file_name).or_else(|| SegmentName::parse(name).filter(|_| suffix != "reason"))
}

fn write_new(path: &Path, reason: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{reason}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    use penholder_protocol::SegmentKind;

    fn bench() -> (tempfile::TempDir, Layout, Quarantine) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        std::fs::create_dir(layout.spool()).unwrap();
        std::fs::create_dir(layout.quarantine()).unwrap();
        let quarantine = Quarantine::new(layout.clone());
        (directory, layout, quarantine)
    }

    fn name(number: u32) -> SegmentName {
        SegmentName { stream: StreamId([5; 16]), number, kind: SegmentKind::Sealed }
    }

    fn count(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_thousand_files_are_set_aside_a_few_per_turn_each_with_its_reason() {
        let (_directory, layout, mut quarantine) = bench();
        for number in 1..=1000 {
            std::fs::write(layout.segment(name(number)), [7]).unwrap();
            let reason = format!("reason {number}");
            quarantine.condemn(Condemned { name: name(number), reason: reason.clone() });
            quarantine.condemn(Condemned { name: name(number), reason });
        }
        let mut turns = 0;
        while quarantine.has_work() {
            let before = count(&layout.spool());
            let moved = quarantine.work().unwrap();
            let gone = before - count(&layout.spool());
            assert!(moved == gone as u64 && gone <= FILES_PER_TURN, "{moved} moved, {gone} gone");
            turns += 1;
        }
        assert!(turns > 20, "{turns} turns: one of them was long");
        assert_eq!(count(&layout.spool()), 0);
        assert_eq!(count(&layout.quarantine()), 2000);
        let reason = layout.quarantine().join(format!("{}.reason", name(77)));
        assert_eq!(std::fs::read_to_string(reason).unwrap(), "reason 77\n");
    }

    #[test]
    fn what_comes_back_under_a_name_does_not_replace_what_was_set_aside() {
        let (_directory, layout, mut quarantine) = bench();
        for content in ["first", "second", "third"] {
            std::fs::write(layout.segment(name(1)), content).unwrap();
            quarantine.condemn(Condemned { name: name(1), reason: content.to_owned() });
            assert!(quarantine.holds(name(1)));
            assert_eq!(quarantine.work().unwrap(), 1);
            assert!(!quarantine.holds(name(1)), "what comes back is looked at again");
        }
        // And neither does a directory, nor in its place a file.
        std::fs::create_dir(layout.segment(name(2))).unwrap();
        quarantine.condemn(Condemned { name: name(2), reason: "directory".to_owned() });
        assert_eq!(quarantine.work().unwrap(), 1);
        std::fs::write(layout.segment(name(2)), "file").unwrap();
        quarantine.condemn(Condemned { name: name(2), reason: "file".to_owned() });
        assert_eq!(quarantine.work().unwrap(), 1);
        let kept = std::fs::read_dir(layout.quarantine()).unwrap().map(|item| item.unwrap().path());
        let mut kept: Vec<_> = kept.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
        kept.sort();
        let expected =
            ["directory\n", "file", "file\n", "first", "first\n", "second", "second\n", "third", "third\n"];
        assert_eq!(kept, expected);
    }

    #[test]
    fn a_file_that_went_by_itself_is_no_trouble() {
        let (_directory, _layout, mut quarantine) = bench();
        quarantine.condemn(Condemned { name: name(1), reason: "gone".to_owned() });
        assert_eq!(quarantine.work().unwrap(), 0);
        assert!(!quarantine.has_work() && !quarantine.holds(name(1)));
    }
}

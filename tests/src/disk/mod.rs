//! A simulated disk: what real processes did to their files, and what of it a power cut may leave.
//!
//! A [`Recording`] is made with the shim `record`; a [`Disk`] is fed its steps, and knows at each of them what was
//! synced and what was not. Whatever was not may be there or not, each change by itself: no file system promises more.

mod recording;
mod image;
mod cuts;
mod states;

use std::collections::{BTreeMap, BTreeSet};

pub use cuts::{Cut, Script};
pub use image::Image;
pub use recording::{Recording, Step};
pub use states::States;

use crate::Random;

/// A file, whatever it is called at the moment.
pub type FileId = usize;

/// Something that was done and not synced.
#[derive(Clone, Debug)]
enum Pending {
    /// To the content of a file.
    Content(FileId, Change),
    /// To the names in directories.
    Name(NameChange),
}

/// A change of a file's content.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

/// A change of names.
#[derive(Clone, Debug)]
enum NameChange {
    Create { path: String, file: FileId },
    Rename { from: String, to: String, file: FileId },
    Unlink { path: String },
    MakeDirectory { path: String },
}

impl NameChange {
    fn is_in(&self, directory: &str) -> bool {
        let parent = |path: &str| path.rsplit_once('/').is_some_and(|(parent, _)| parent == directory);
        match self {
            Self::Create { path, .. } | Self::Unlink { path } | Self::MakeDirectory { path } => parent(path),
            // One step for every file system that survives a power cut: neither both names nor none.
            Self::Rename { from, to, .. } => parent(from) || parent(to),
        }
    }
}

/// What the system keeps in memory, and forgets, as a whole.
const BLOCK_BYTES: usize = 4096;

fn blocks_of(offset: usize, length: usize) -> std::ops::Range<usize> {
    offset / BLOCK_BYTES..(offset + length).div_ceil(BLOCK_BYTES)
}

/// What is on the medium, and what is on its way.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    synced: Image,
    /// The names as every process sees them, without any content.
    seen: Image,
    pending: Vec<Pending>,
    files: BTreeMap<u64, FileId>,
    files_count: usize,
    /// Blocks whose last write failed: until they are forgotten, nothing that is written to them arrives. ext4 does so
    /// to blocks that were never written before.
    trapped: BTreeMap<FileId, BTreeSet<usize>>,
    /// Files of those who watch from outside: what they wrote down stays.
    watchers: BTreeSet<FileId>,
}

impl Disk {
    /// Does what a process did.
    pub fn feed(&mut self, step: &Step) {
        match step {
            Step::Create { path, inode } => {
                let file = self.files_count;
                self.files_count += 1;
                self.files.insert(*inode, file);
                if path.contains("/logs/") {
                    self.watchers.insert(file);
                }
                self.change_names(NameChange::Create { path: path.clone(), file });
            }
            Step::Write { inode, offset, bytes } => self.write(*inode, *offset, bytes),
            Step::Truncate { inode, length } => self.change(*inode, Change::Truncate { length: *length }),
            Step::Rename { from, to } => {
                let Some(file) = self.seen.file(from) else { return };
                self.change_names(NameChange::Rename { from: from.clone(), to: to.clone(), file });
            }
            Step::Unlink { path } => self.change_names(NameChange::Unlink { path: path.clone() }),
            Step::MakeDirectory { path } => {
                self.change_names(NameChange::MakeDirectory { path: path.clone() });
            }
            Step::Sync { inode } => {
                let file = self.files.get(inode).copied();
                self.settle(|pending| matches!(pending, Pending::Content(of, _) if Some(*of) == file));
            }
            Step::SyncFailed { inode } => self.lose(*inode),
            Step::Forget { inode } => {
                let file = self.files.get(inode);
                file.and_then(|file| self.trapped.remove(file));
            }
            Step::SyncDirectory { path } => {
                self.settle(|pending| matches!(pending, Pending::Name(change) if change.is_in(path)));
            }
        }
    }

    fn write(&mut self, inode: u64, offset: usize, bytes: &[u8]) {
        let Some(trapped) = self.files.get(&inode).and_then(|file| self.trapped.get(file)) else {
            return self.change(inode, Change::Write { offset, bytes: bytes.to_vec() });
        };
        let mut arriving = Vec::new();
        for block in blocks_of(offset, bytes.len()).filter(|block| !trapped.contains(block)) {
            let from = (block * BLOCK_BYTES).max(offset);
            let to = ((block + 1) * BLOCK_BYTES).min(offset + bytes.len());
            arriving.push(Change::Write { offset: from, bytes: bytes[from - offset..to - offset].to_vec() });
        }
        for change in arriving {
            self.change(inode, change);
        }
    }

    /// What was written to a file since its last sync is not on the medium, and never will be.
    fn lose(&mut self, inode: u64) {
        let Some(file) = self.files.get(&inode) else { return };
        let trapped = self.trapped.entry(*file).or_default();
        self.pending.retain(|pending| match pending {
            Pending::Content(of, Change::Write { offset, bytes }) if of == file => {
                trapped.extend(blocks_of(*offset, bytes.len()));
                false
            }
            Pending::Content(..) | Pending::Name(_) => true,
        });
    }

    fn change(&mut self, inode: u64, change: Change) {
        // A file from before the recording, or one that has no name any more.
        let Some(file) = self.files.get(&inode) else { return };
        let pending = Pending::Content(*file, change);
        if self.watchers.contains(file) {
            self.synced.apply(&pending);
        } else {
            self.pending.push(pending);
        }
    }

    fn change_names(&mut self, change: NameChange) {
        let pending = Pending::Name(change);
        self.seen.apply(&pending);
        match &pending {
            Pending::Name(NameChange::Create { file, .. }) if self.watchers.contains(file) => {
                self.synced.apply(&pending);
            }
            Pending::Name(_) | Pending::Content(..) => self.pending.push(pending),
        }
    }

    /// Everything reaches the medium, as it does in time.
    pub fn settle_all(&mut self) {
        self.settle(|_| true);
    }

    fn settle(&mut self, reached: impl Fn(&Pending) -> bool) {
        for pending in self.pending.extract_if(.., |pending| reached(pending)) {
            self.synced.apply(&pending);
        }
    }

    /// How many changes are not synced, of those whose path or present name passes `counts`.
    #[must_use]
    pub fn open_changes(&self, counts: impl Fn(&str) -> bool) -> Vec<usize> {
        let names = self.seen.names_of_files();
        let is_counted = |pending: &Pending| match pending {
            Pending::Content(file, _) => names.get(file).is_none_or(|name| counts(name)),
            Pending::Name(
                NameChange::Create { path, .. }
                | NameChange::Unlink { path }
                | NameChange::MakeDirectory { path }
                | NameChange::Rename { to: path, .. },
            ) => counts(path),
        };
        (0..self.pending.len()).filter(|at| is_counted(&self.pending[*at])).collect()
    }

    /// What a file is called at the moment, as every process sees it.
    #[must_use]
    pub fn name_of(&self, inode: u64) -> Option<String> {
        let file = self.files.get(&inode)?;
        self.seen.names_of_files().get(file).map(|name| (*name).to_owned())
    }

    /// What every process sees: everything.
    #[must_use]
    pub fn now(&self) -> Image {
        self.after_cut(|_| true, None)
    }

    /// What a power cut leaves if just the changes that `survives` names had reached the medium; the last of them
    /// that is a write may be `torn`: only so many of its bytes did.
    #[must_use]
    pub fn after_cut(&self, survives: impl Fn(usize) -> bool, torn: Option<usize>) -> Image {
        let mut image = self.synced.clone();
        let chosen: Vec<usize> = (0..self.pending.len()).filter(|at| survives(*at)).collect();
        for at in &chosen {
            match (&self.pending[*at], torn) {
                (Pending::Content(file, Change::Write { offset, bytes }), Some(torn))
                    if Some(at) == chosen.last() =>
                {
                    let bytes = bytes[..torn.min(bytes.len())].to_vec();
                    image.apply(&Pending::Content(*file, Change::Write { offset: *offset, bytes }));
                }
                (pending, _) => image.apply(pending),
            }
        }
        image
    }

    /// A state that a power cut may leave, drawn at random: nothing, everything, and what is between.
    #[must_use]
    pub fn random_cut(&self, random: &mut Random) -> Image {
        let count = self.pending.len() as u64;
        let torn = (random.below(3) == 0).then(|| usize::try_from(random.below(5000)).unwrap());
        match random.below(4) {
            0 => {
                let until = random.below(count + 1);
                self.after_cut(|at| (at as u64) < until, torn)
            }
            1 => {
                let missing = random.below(count + 1);
                self.after_cut(|at| at as u64 != missing, torn)
            }
            _ => {
                let (odds, mut draw) = (1 + random.below(9), Random::new(random.bits()));
                let draws: Vec<bool> = (0..count).map(|_| draw.below(10) < odds).collect();
                self.after_cut(|at| draws[at], torn)
            }
        }
    }
}

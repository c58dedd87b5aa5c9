//! One segment in the spool: made, appended to, repaired after a failed append, synced.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use penholder_protocol::limits::SEGMENT_BYTES_SOFT;
use penholder_protocol::{Command, EncodeError, Layout, SegmentDecoder, SegmentEncoder};
use penholder_protocol::{SegmentHeader, SegmentKind, SegmentName, Sequence, Step};

/// The owner writes, the store's group (the writer) reads.
const SEGMENT_MODE: u32 = 0o640;

/// How often a segment is made that a starting writer takes for abandoned.
const TRIES_MAX: u32 = 3;

/// The segment that is being appended to. Its lock tells the writer that more may come, until this is dropped.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    encoder: SegmentEncoder,
    /// Set before what may leave the encoder and the file different, cleared when it did not: a poisoned segment takes
    /// nothing more.
    poisoned: bool,
}

/// What a failed append left behind, after the repair.
#[derive(Debug)]
pub(crate) struct Torn {
    /// What the system said.
    pub(crate) source: io::Error,
    /// The sequence behind the last frame that is whole, or why that is not known.
    pub(crate) next: io::Result<Sequence>,
}

impl SegmentFile {
    /// Makes the file aside, locks it, and moves it into the spool.
    pub(crate) fn create(layout: &Layout, mut header: SegmentHeader) -> Result<Self, (PathBuf, io::Error)> {
        let name = SegmentName { stream: header.stream, number: header.number, kind: SegmentKind::Live };
        let path = layout.segment(name);
        let aside = layout.spool_tmp().join(name.to_string());
        let mut tries = 0;
        loop {
            tries += 1;
            let moved = |file| std::fs::rename(&aside, &path).map(|()| file);
            match write_aside(&aside, &mut header).and_then(moved) {
                Ok(file) => {
                    let encoder = SegmentEncoder::new(&header);
                    return Ok(Self { file, path, header, encoder, poisoned: false });
                }
                // A writer that starts removes what it finds unlocked, as it was between making and locking it.
                Err(error) if tries < TRIES_MAX && is_removal(&error) => {}
                Err(error) => {
                    // If this fails too, `write_aside` finds the file the next time and removes it.
                    std::fs::remove_file(&aside).ok();
                    return Err((aside, error));
                }
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn next_sequence(&self) -> Sequence {
        self.encoder.next_sequence()
    }

    /// Whether nothing was appended yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.encoder.end() == SegmentHeader::BYTES as u64
    }

    /// Whether the next segment has to be begun before anything is appended.
    pub(crate) fn is_finished(&self) -> bool {
        self.poisoned || self.encoder.end() >= SEGMENT_BYTES_SOFT
    }

    /// Encodes commands into `bytes`, which must be handed to [`append`](Self::append) next.
    pub(crate) fn encode(
        &mut self,
        commands: &[Command],
        results: bool,
        submitted_ns: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        bytes.clear();
        self.encoder.encode(commands, results, submitted_ns, bytes)
    }

    /// Appends what was just encoded: one `write(2)`, unless the system takes only a part of it.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Torn> {
        self.poisoned = true;
        if let Err(source) = (&self.file).write_all(bytes) {
            return Err(Torn { source, next: self.cut_torn_tail() });
        }
        self.poisoned = false;
        Ok(())
    }

    /// Makes everything in the segment survive power loss, but for its name.
    ///
    /// After an error the segment takes nothing more, and must not be synced again: the system may have dropped the
    /// pages that it could not write, and would report success.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.poisoned = true;
        self.file.sync_data()?;
        self.poisoned = false;
        Ok(())
    }

    /// Cuts the file behind its last whole frame, and says which sequence comes next.
    ///
    /// The file is asked, not the return value of `write`: the writer may have applied every frame that is whole, so
    /// its numbers must not be given out again.
    fn cut_torn_tail(&self) -> io::Result<Sequence> {
        let length = self.file.metadata()?.len().saturating_sub(SegmentHeader::BYTES as u64);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, SegmentHeader::BYTES as u64)?;
        let mut decoder = SegmentDecoder::new(&self.header);
        loop {
            let start = usize::try_from(decoder.offset()).map_err(io::Error::other)? - SegmentHeader::BYTES;
            match decoder.next(bytes.get(start..).unwrap_or_default()).map_err(io::Error::other)? {
                Step::Submitted(_) => {}
                Step::Incomplete | Step::End => break,
            }
        }
        self.file.set_len(decoder.offset())?;
        Ok(decoder.next_sequence())
    }
}

/// Whether somebody has the file locked that nobody but us should know, or it is gone.
fn is_removal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock)
}

fn write_aside(path: &Path, header: &mut SegmentHeader) -> io::Result<File> {
    let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(SEGMENT_MODE).open(path);
    let file = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            create()?
        }
        created => created?,
    };
    let metadata = file.metadata()?;
    if metadata.mode() & 0o777 != SEGMENT_MODE {
        // A strict umask must not keep the writer out, which may run as another user of the group.
        file.set_permissions(Permissions::from_mode(SEGMENT_MODE))?;
    }
    fs2::FileExt::try_lock_exclusive(&file)?;
    header.inode = metadata.ino();
    (&file).write_all(&header.encode())?;
    Ok(file)
}

#[cfg(test)]
impl SegmentFile {
    /// Makes every later write and repair fail.
    pub(crate) fn forbid_writing(&mut self) {
        if let Ok(file) = File::open(&self.path) {
            self.file = file;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

    use penholder_protocol::{Epoch, Statement, StreamId};

    use super::*;
    use crate::fake_store::FakeStore;

    #[test]
    fn a_torn_tail_is_cut_at_every_length_and_what_is_whole_keeps_its_numbers() {
        let store = FakeStore::new();
        let large = "x".repeat(150 << 10);
        let commands = [1, 2, 3]
            .map(|n| Command::from(Statement::new("activity", large.as_str()).bind(n).bind(&*large)));
        for kept in (0..).step_by(40_001) {
            let header = SegmentHeader {
                store: store.control.store,
                stream: StreamId::random().unwrap(),
                number: 1,
                epoch: Epoch(2),
                first_sequence: Sequence(1),
                salt: 5,
                boot: [0; 16],
                inode: 0,
            };
            let mut segment = SegmentFile::create(&store.layout, header).unwrap();
            let mut bytes = Vec::new();
            segment.encode(&commands, false, 0, &mut bytes).unwrap();
            if kept >= bytes.len() {
                break;
            }
            (&segment.file).write_all(&bytes[..kept]).unwrap();
            let next = segment.cut_torn_tail().unwrap();
            let name = SegmentName { stream: segment.header.stream, number: 1, kind: SegmentKind::Live };
            let frames = store.read_segment(name).1;
            let whole: usize = frames.iter().map(|frame| frame.commands.len()).sum();
            assert_eq!(next.0, whole as u64 + 1);
            let whole_bytes: usize = frames.iter().map(|frame| frame.bytes).sum();
            assert!(whole_bytes <= kept);
        }
    }
}

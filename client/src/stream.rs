//! One stream: a chain of segments, begun anew only where nothing else is safe.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use penholder_protocol::limits::DEFINITIONS_COUNT_MAX;
use penholder_protocol::{Command, Control, EncodeError, Layout, SegmentHeader, SegmentKind, SegmentName};
use penholder_protocol::{Sequence, StreamId, boot_id, sync_directory};

use crate::ClientError;
use crate::segment_file::SegmentFile;

/// What the buffer of an unusually large submit is cut back to, in bytes.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// How often a first segment is made anew because writers started meanwhile.
const FLOOR_TRIES_MAX: u32 = 16;

/// Where this client's commands go.
#[derive(Debug)]
pub(crate) struct Stream {
    layout: Layout,
    /// As last read.
    control: Control,
    id: StreamId,
    boot: [u8; 16],
    /// Number of the newest segment; 0 before the first.
    number: u32,
    /// Sequence of the next command.
    next: Sequence,
    segment: Option<SegmentFile>,
    /// Number of the oldest segment that holds bytes which were not synced.
    unsynced_from: Option<u32>,
    /// Whether the newest segment's name was synced, and with it those of all older ones.
    name_synced: bool,
    buffer: Vec<u8>,
}

/// What one submit appended.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) first: Sequence,
    pub(crate) bytes: u64,
}

impl Stream {
    /// A stream without a segment: the first submit makes it.
    pub(crate) fn new(layout: Layout) -> Result<Self, ClientError> {
        let control = match Control::read(&layout.control()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClientError::NoStore { path: layout.root().to_owned() });
            }
            read => read.map_err(ClientError::io("read", &layout.control()))?,
        };
        Ok(Self {
            control,
            id: random_stream(layout.root())?,
            boot: boot_id(),
            number: 0,
            next: Sequence(1),
            segment: None,
            unsynced_from: None,
            name_synced: false,
            buffer: Vec::new(),
            layout,
        })
    }

    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The control file as last read: when a segment was begun, or by [`read_control`](Self::read_control).
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Whether the next submit begins a segment.
    pub(crate) fn is_segment_due(&self) -> bool {
        self.segment.as_ref().is_none_or(SegmentFile::is_finished)
    }

    /// Reads the control file again; limits and epoch change while a client lives, the store must not.
    pub(crate) fn read_control(&mut self) -> Result<(), ClientError> {
        let path = self.layout.control();
        let control = Control::read(&path).map_err(ClientError::io("read", &path))?;
        if control.store != self.control.store {
            let replaced =
                io::Error::new(io::ErrorKind::InvalidData, "another store is there now; connect again");
            return Err(ClientError::io("go on with", self.layout.root())(replaced));
        }
        self.control = control;
        Ok(())
    }

    /// Appends the frames of `commands`, at least one, in one `write`.
    pub(crate) fn append(&mut self, commands: &[Command], results: bool) -> Result<Appended, ClientError> {
        if self.is_segment_due() {
            self.begin_segment()?;
        }
        self.encode(commands, results)?;
        let Some(segment) = &mut self.segment else { return Err(self.no_segment()) };
        let (first, submitted) = (self.next, commands.len() as u64);
        self.unsynced_from.get_or_insert(self.number);
        let written = segment.append(&self.buffer);
        let appended = Appended { first, bytes: self.buffer.len() as u64 };
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        let Err(torn) = written else {
            self.next = segment.next_sequence();
            return Ok(appended);
        };
        let path = segment.path().to_owned();
        match torn.next {
            Ok(next) => {
                self.next = next;
                Err(ClientError::Append { path, queued: next.0 - first.0, submitted, source: torn.source })
            }
            Err(repair) => {
                log::error!("cannot repair {} after {}: {repair}", path.display(), torn.source);
                self.abandon()?;
                Err(ClientError::Unknown { operation: "append to", path, source: torn.source })
            }
        }
    }

    /// Makes every command so far survive power loss. After an error nothing is known, and a new stream has begun.
    pub(crate) fn sync(&mut self) -> Result<(), ClientError> {
        let Err((operation, path, source)) = self.sync_segments() else { return Ok(()) };
        self.abandon()?;
        Err(ClientError::Unknown { operation, path, source })
    }

    fn sync_segments(&mut self) -> Result<(), (&'static str, PathBuf, io::Error)> {
        let from = self.unsynced_from.unwrap_or(self.number);
        // Earlier segments too: if power loss took a command out of them, the writer could not trust what follows.
        for number in from..self.number {
            let name = SegmentName { stream: self.id, number, kind: SegmentKind::Live };
            let path = self.layout.segment(name);
            sync_if_there(&path).map_err(|error| ("sync", path, error))?;
        }
        if let Some(segment) = &mut self.segment {
            segment.sync().map_err(|error| ("sync", segment.path().to_owned(), error))?;
        }
        if !self.name_synced {
            let spool = self.layout.spool();
            sync_directory(&spool).map_err(|error| ("sync", spool, error))?;
            self.name_synced = true;
        }
        self.unsynced_from = None;
        Ok(())
    }

    fn encode(&mut self, commands: &[Command], results: bool) -> Result<(), ClientError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let submitted_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let Some(segment) = &mut self.segment else { return Err(self.no_segment()) };
        let mut encoded = segment.encode(commands, results, submitted_ns, &mut self.buffer);
        if encoded == Err(EncodeError::DictionaryFull) && !segment.is_empty() {
            self.begin_segment()?;
            let Some(segment) = &mut self.segment else { return Err(self.no_segment()) };
            encoded = segment.encode(commands, results, submitted_ns, &mut self.buffer);
        }
        encoded.map_err(|error| match error {
            EncodeError::DictionaryFull => too_many_texts(commands),
            error @ (EncodeError::TooLarge { .. } | EncodeError::Empty) => error.into(),
        })
    }

    /// Begins the next segment, and only then closes the one before, so that the stream is never without one.
    fn begin_segment(&mut self) -> Result<(), ClientError> {
        for _ in 0..FLOOR_TRIES_MAX {
            self.read_control()?;
            let header = self.next_header()?;
            let (number, epoch) = (header.number, header.epoch);
            let segment = SegmentFile::create(&self.layout, header)
                .map_err(|(path, error)| ClientError::io("create", &path)(error))?;
            // A later segment continues a stream that every writer knows by the one before; the first one does not,
            // and a writer that started since takes it for a restored old file.
            if number == 1 {
                let fresh = self.read_control().map(|()| self.control.floor < epoch);
                if !matches!(fresh, Ok(true)) {
                    self.abandon()?;
                    discard(segment)?;
                    fresh?;
                    continue;
                }
            }
            self.number = number;
            self.name_synced = false;
            self.segment = Some(segment);
            return Ok(());
        }
        let busy =
            io::Error::new(io::ErrorKind::WouldBlock, "writers start one after another; look at their log");
        Err(ClientError::io("begin a stream in", &self.layout.spool())(busy))
    }

    fn next_header(&self) -> Result<SegmentHeader, ClientError> {
        let random = random_stream(self.layout.root())?.0;
        Ok(SegmentHeader {
            store: self.control.store,
            stream: self.id,
            number: self.number + 1,
            epoch: self.control.epoch,
            first_sequence: self.next,
            salt: u64::from_le_bytes(random.first_chunk().copied().unwrap_or_default()),
            boot: self.boot,
            inode: 0,
        })
    }

    /// Leaves the stream as it is to the writer, and goes on with a new one.
    fn abandon(&mut self) -> Result<(), ClientError> {
        self.id = random_stream(self.layout.root())?;
        self.segment = None;
        self.number = 0;
        self.next = Sequence(1);
        self.unsynced_from = None;
        self.name_synced = false;
        Ok(())
    }

    fn no_segment(&self) -> ClientError {
        ClientError::io("append to", &self.layout.spool())(io::ErrorKind::NotFound.into())
    }
}

/// Removes a first segment that holds no command.
fn discard(segment: SegmentFile) -> Result<(), ClientError> {
    let path = segment.path().to_owned();
    drop(segment);
    match std::fs::remove_file(&path) {
        // The writer has already put it aside.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(ClientError::io("remove", &path)),
    }
}

/// Syncs a closed segment, unless it was reclaimed: then its commands are durable in the databases.
fn sync_if_there(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened?.sync_data(),
    }
}

fn random_stream(store: &Path) -> Result<StreamId, ClientError> {
    StreamId::random().map_err(ClientError::io("draw a random id for", store))
}

fn too_many_texts(commands: &[Command]) -> ClientError {
    let texts: HashSet<_> = commands.iter().flat_map(|c| &c.statements).map(|s| &s.text).collect();
    let what = "the number of distinct SQL texts in one submit";
    EncodeError::TooLarge { what, size: texts.len(), limit: DEFINITIONS_COUNT_MAX }.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

    use super::*;
    use crate::fake_store::{FakeStore, insert};

    #[test]
    fn a_stream_that_cannot_be_repaired_is_left_behind_and_its_numbers_are_not_used_again() {
        let store = FakeStore::new();
        let mut stream = Stream::new(store.layout.clone()).unwrap();
        stream.append(&[insert(1)], false).unwrap();
        let old = stream.id();
        stream.segment.as_mut().unwrap().forbid_writing();
        let failed = stream.append(&[insert(2)], false);
        assert!(matches!(failed, Err(ClientError::Unknown { .. })), "{failed:?}");
        assert_ne!(stream.id(), old);
        assert_eq!(stream.append(&[insert(3)], false).unwrap().first, Sequence(1));
        stream.sync().unwrap();
        assert_eq!(store.segments().len(), 2);
    }

    #[test]
    fn a_failed_sync_begins_a_new_stream() {
        let store = FakeStore::new();
        let mut stream = Stream::new(store.layout.clone()).unwrap();
        stream.append(&[insert(1)], false).unwrap();
        let old = stream.id();
        std::fs::remove_file(store.layout.segment(store.segments().pop().unwrap())).unwrap();
        std::fs::rename(store.layout.spool(), store.path().join("elsewhere")).unwrap();
        let failed = stream.sync();
        assert!(matches!(failed, Err(ClientError::Unknown { operation: "sync", .. })), "{failed:?}");
        assert_ne!(stream.id(), old);
        assert!(stream.segment.is_none());
    }
}

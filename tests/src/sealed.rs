//! A client without a lock: builds a sealed segment in memory and drops it into the spool, whole or damaged.

use std::path::{Path, PathBuf};

use penholder_protocol::{
    Command, Control, Epoch, Layout, SegmentEncoder, SegmentHeader, SegmentKind, SegmentName, Sequence,
    StreamId, boot_id,
};

/// A segment under construction; its parts can be changed before they are laid out.
#[derive(Clone, Debug)]
pub struct SealedSegment {
    /// Its header.
    pub header: SegmentHeader,
    /// Its commands, in frames as they are to be written.
    pub frames: Vec<Vec<Command>>,
    /// Whether the outcomes are to carry results.
    pub results: bool,
}

impl SealedSegment {
    /// The first segment of a new stream, made for the store as it is now.
    #[must_use]
    pub fn new(store: &Path) -> Self {
        let control = Control::read(&Layout::new(store).control()).unwrap();
        let header = SegmentHeader {
            store: control.store,
            stream: StreamId::random().unwrap(),
            number: 1,
            epoch: control.epoch,
            first_sequence: Sequence(1),
            salt: u64::from_le_bytes(StreamId::random().unwrap().0[..8].try_into().unwrap()),
            boot: boot_id(),
            inode: 0,
        };
        Self { header, frames: Vec::new(), results: false }
    }

    /// Adds one frame.
    #[must_use]
    pub fn frame(mut self, commands: impl IntoIterator<Item = Command>) -> Self {
        self.frames.push(commands.into_iter().collect());
        self
    }

    /// The segment that follows this one in its stream.
    #[must_use]
    pub fn next(&self) -> Self {
        let commands: usize = self.frames.iter().map(Vec::len).sum();
        let mut header = self.header.clone();
        header.number += 1;
        header.first_sequence = Sequence(header.first_sequence.0 + commands as u64);
        Self { header, frames: Vec::new(), results: self.results }
    }

    /// Pretends that it was made in another run of the writer.
    #[must_use]
    pub fn of_epoch(mut self, epoch: Epoch) -> Self {
        self.header.epoch = epoch;
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.encode().to_vec();
        let mut encoder = SegmentEncoder::new(&self.header);
        for commands in &self.frames {
            encoder.encode(commands, self.results, 0, &mut bytes).unwrap();
        }
        bytes
    }

    /// Its name in the spool.
    #[must_use]
    pub fn name(&self) -> SegmentName {
        SegmentName { stream: self.header.stream, number: self.header.number, kind: SegmentKind::Sealed }
    }

    /// Puts it into the spool.
    pub fn drop_into(&self, store: &Path) -> PathBuf {
        self.drop_bytes(store, &self.bytes())
    }

    /// Puts other bytes into the spool under its name, all at once as a sealed segment appears.
    pub fn drop_bytes(&self, store: &Path, bytes: &[u8]) -> PathBuf {
        let layout = Layout::new(store);
        let aside = layout.spool_tmp().join(format!("{}.tmp", StreamId::random().unwrap()));
        std::fs::write(&aside, bytes).unwrap();
        let path = layout.segment(self.name());
        std::fs::rename(&aside, &path).unwrap();
        path
    }
}

//! A store made by hand, and the parts of a writer that a client can see.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use penholder_protocol::receipt::{HEADER_BYTES, ReceiptHeader, STATE_OPEN, encode_record};
use penholder_protocol::{
    Command, Control, DatabaseSlot, Epoch, Layout, Outcome, Progress, ProgressCell, SegmentDecoder,
    SegmentHeader, SegmentName, Sequence, Statement, Step, StoreId, StreamId, Submitted, Tick, WriterState,
};

/// A store without a writer.
pub(crate) struct FakeStore {
    directory: tempfile::TempDir,
    pub(crate) layout: Layout,
    pub(crate) control: Control,
}

impl FakeStore {
    pub(crate) fn new() -> Self {
        Self::with_limits(0, 0)
    }

    pub(crate) fn with_limits(quota_stream_bytes: u64, free_bytes_min: u64) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), quota_stream_bytes, free_bytes_min)
    }

    pub(crate) fn in_directory(
        directory: tempfile::TempDir,
        quota_stream_bytes: u64,
        free_bytes_min: u64,
    ) -> Self {
        let layout = Layout::new(directory.path());
        std::fs::create_dir_all(layout.spool_tmp()).unwrap();
        std::fs::create_dir(layout.receipts()).unwrap();
        let slot = |name: &str| DatabaseSlot { name: name.to_owned(), reclaimed: Tick(0) };
        let control = Control {
            store: StoreId::random().unwrap(),
            generation: 0,
            epoch: Epoch(2),
            floor: Epoch(1),
            state: WriterState::Stopped,
            pid: 0,
            torn: 0,
            quarantined: 0,
            foreign_writes: 0,
            quota_stream_bytes,
            free_bytes_min,
            suspect: None,
            fruitless_starts: 0,
            databases: vec![slot("config"), slot("activity")],
        };
        let mut store = Self { directory, layout, control };
        store.write_control();
        store
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write_control(&mut self) {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(self.layout.control()).unwrap();
        self.control.write_to(&file, false).unwrap();
    }

    /// Holds the lock by which a writer is known.
    pub(crate) fn lock_as_writer(&self) -> File {
        let control = File::open(self.layout.control()).unwrap();
        fs2::FileExt::try_lock_exclusive(&control).unwrap();
        control
    }

    /// Names of the segments in the spool, in order.
    pub(crate) fn segments(&self) -> Vec<SegmentName> {
        let entries = std::fs::read_dir(self.layout.spool()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter_map(|name| SegmentName::parse(&name)).collect();
        names.sort();
        names
    }

    pub(crate) fn read_segment(&self, name: SegmentName) -> (SegmentHeader, Vec<Submitted>) {
        let bytes = std::fs::read(self.layout.segment(name)).unwrap();
        let header = SegmentHeader::decode(&bytes).unwrap();
        assert_eq!(
            (header.store, header.stream, header.number),
            (self.control.store, name.stream, name.number)
        );
        let mut decoder = SegmentDecoder::new(&header);
        let mut frames = Vec::new();
        let rest = |offset: u64| &bytes[usize::try_from(offset).unwrap()..];
        while let Step::Submitted(frame) = decoder.next(rest(decoder.offset())).unwrap() {
            frames.push(frame);
        }
        assert_eq!(decoder.offset(), bytes.len() as u64, "no byte is left over");
        (header, frames)
    }

    /// Every command of the spool in order; sequences are checked to have no gap.
    pub(crate) fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for name in self.segments() {
            for frame in self.read_segment(name).1 {
                assert_eq!(frame.first_sequence.0, commands.len() as u64 + 1);
                commands.extend(frame.commands.unpack());
            }
        }
        commands
    }
}

/// The writer's end of a receipt file.
pub(crate) struct FakeReceipts {
    pub(crate) path: PathBuf,
    file: File,
    progress: Progress,
    pub(crate) cell: ProgressCell,
}

const SALT: u64 = 7;

impl FakeReceipts {
    pub(crate) fn create(store: &FakeStore, stream: StreamId) -> Self {
        let path = store.layout.receipt(stream);
        let mut options = OpenOptions::new();
        let file = options.create_new(true).read(true).write(true).open(&path).unwrap();
        let header = ReceiptHeader { store: store.control.store, stream, salt: SALT };
        write_at(&file, &header.encode(), 0);
        let progress = Progress::map_writer(&file).unwrap();
        let start = HEADER_BYTES as u64;
        let cell = ProgressCell {
            applied: Sequence(0),
            tick: Tick(0),
            records_start: start,
            records_end: start,
            state: STATE_OPEN,
        };
        Self { path, file, progress, cell }
    }

    /// Adds a record, to be published by [`publish`](Self::publish).
    pub(crate) fn record(&mut self, sequence: u64, outcome: &Outcome) {
        let mut bytes = Vec::new();
        encode_record(SALT, self.cell.records_end, Sequence(sequence), outcome, &mut bytes);
        write_at(&self.file, &bytes, self.cell.records_end);
        self.cell.records_end += bytes.len() as u64;
    }

    pub(crate) fn publish(&mut self, applied: u64, tick: u64) {
        (self.cell.applied, self.cell.tick) = (Sequence(applied), Tick(tick));
        self.progress.publish(self.cell);
    }
}

fn write_at(file: &File, bytes: &[u8], offset: u64) {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset).unwrap();
}

/// A small command.
pub(crate) fn insert(value: i64) -> Command {
    Statement::new("activity", "INSERT INTO t(a) VALUES (?1)").bind(value).into()
}

//! Tests of how the end of a segment is judged.

use std::os::unix::fs::MetadataExt;

use penholder_protocol::{Command, Epoch, SegmentEncoder, Statement, StreamId, boot_id};

use super::*;

const OTHER_BOOT: [u8; 16] = [0xb0; 16];

/// A sealed segment in a spool of its own, that can be bent before it is read.
struct Bench {
    _directory: tempfile::TempDir,
    layout: Layout,
    name: SegmentName,
    header: SegmentHeader,
    bytes: Vec<u8>,
    /// Where each frame of commands begins.
    starts: Vec<usize>,
}

impl Bench {
    /// As many frames as `sizes`, each with one command that carries so many bytes.
    fn new(boot: [u8; 16], sizes: &[usize]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        std::fs::create_dir(layout.spool()).unwrap();
        let header = SegmentHeader {
            store: StoreId([1; 16]),
            stream: StreamId([2; 16]),
            number: 1,
            epoch: Epoch(1),
            first_sequence: Sequence(1),
            salt: 7,
            boot,
            inode: 0,
        };
        let name = SegmentName { stream: header.stream, number: 1, kind: SegmentKind::Sealed };
        let mut encoder = SegmentEncoder::new(&header);
        let (mut bytes, mut starts) = (header.encode().to_vec(), Vec::new());
        for size in sizes {
            let insert = Statement::new("activity", "INSERT INTO t VALUES (?1)").bind(vec![0x11; *size]);
            starts.push(bytes.len());
            encoder.encode(&[Command::from(insert)], false, 0, &mut bytes).unwrap();
        }
        Self { _directory: directory, layout, name, header, bytes, starts }
    }

    /// Reads it to its end: how many commands came, and what stood there.
    fn read(&self) -> (usize, Result<bool, String>) {
        std::fs::write(self.layout.segment(self.name), &self.bytes).unwrap();
        self.read_file()
    }

    fn open(&self) -> Segment {
        let device = std::fs::metadata(self.layout.spool()).unwrap().dev();
        Segment::open(&self.layout, self.name, self.header.store, device).unwrap()
    }

    fn read_file(&self) -> (usize, Result<bool, String>) {
        let mut segment = self.open();
        let (mut scratch, mut commands) = (vec![0; 64 << 10], 0);
        let end = segment.read(&mut scratch, |submitted| {
            commands += submitted.commands.len();
            true
        });
        match end {
            Ok(Read::Finished { torn }) => (commands, Ok(torn)),
            Err(Trouble::Corrupt(reason)) => (commands, Err(reason)),
            other => panic!("{other:?}"),
        }
    }
}

/// Frames enough to fill more than what is searched at once behind the second one; the last is small.
fn long(boot: [u8; 16]) -> Bench {
    const LARGE: usize = 3 << 20;
    const { assert!(3 * LARGE > 2 * LaterFrame::REACH_BYTES) };
    Bench::new(boot, &[100, 100, LARGE, LARGE, LARGE, 100])
}

#[test]
fn a_whole_segment_is_read_to_its_end() {
    assert_eq!(long(OTHER_BOOT).read(), (6, Ok(false)));
}

#[test]
fn damage_is_corrupt_when_a_frame_far_behind_it_validates_and_torn_when_none_does() {
    // What a power cut leaves of pages that were never written, and one frame behind them all that was.
    let mut bench = long(OTHER_BOOT);
    let (from, to) = (bench.starts[1] + 40, bench.starts[5]);
    bench.bytes[from..to].fill(0x55);
    let (commands, end) = bench.read();
    assert_eq!(commands, 1);
    assert!(end.as_ref().is_err_and(|reason| reason.contains("checksum")), "{end:?}");
    let last = bench.bytes.len() - 1;
    bench.bytes[last] ^= 1;
    assert_eq!(bench.read(), (1, Ok(true)));
}

#[test]
fn zeros_are_torn_unless_a_frame_far_behind_them_validates() {
    let mut bench = long(OTHER_BOOT);
    let (from, to) = (bench.starts[1], bench.starts[5]);
    bench.bytes[from..to].fill(0);
    let (commands, end) = bench.read();
    assert_eq!(commands, 1);
    assert!(end.as_ref().is_err_and(|reason| reason.contains("length zero")), "{end:?}");
    bench.bytes[to..].fill(0);
    assert_eq!(bench.read(), (1, Ok(true)));
}

#[test]
fn a_hole_in_the_file_reads_as_the_zeros_that_it_stands_for() {
    let bench = long(OTHER_BOOT);
    let path = bench.layout.segment(bench.name);
    let write = |last: bool| {
        let file = File::create(&path).unwrap();
        file.write_all_at(&bench.bytes[..bench.starts[1]], 0).unwrap();
        file.set_len(bench.bytes.len() as u64).unwrap();
        if last {
            file.write_all_at(&bench.bytes[bench.starts[5]..], bench.starts[5] as u64).unwrap();
        }
    };
    write(true);
    assert!(bench.read_file().1.is_err_and(|reason| reason.contains("length zero")));
    write(false);
    assert_eq!(bench.read_file(), (1, Ok(true)));
}

#[test]
fn a_length_that_is_too_large_is_torn_only_where_nothing_behind_it_validates() {
    for boot in [OTHER_BOOT, boot_id()] {
        let mut bench = Bench::new(boot, &[100, 100, 100]);
        let second = bench.starts[1];
        bench.bytes[second + 2] ^= 0x20;
        let (commands, end) = bench.read();
        assert_eq!(commands, 1);
        assert!(end.as_ref().is_err_and(|reason| reason.contains("more than there is")), "{end:?}");
        bench.bytes.truncate(bench.starts[2]);
        assert_eq!(bench.read(), (1, Ok(true)));
    }
}

#[test]
fn zeros_end_where_a_file_of_the_spool_must() {
    let mut bench = Bench::new(OTHER_BOOT, &[100]);
    bench.bytes.extend([0; 100]);
    std::fs::write(bench.layout.segment(bench.name), &bench.bytes).unwrap();
    let mut segment = bench.open();
    let file = File::options().write(true).open(bench.layout.segment(bench.name)).unwrap();
    file.write_all_at(&[0], limits::SPOOL_FILE_BYTES_MAX).unwrap();
    let read = segment.read(&mut Vec::new(), |_| true);
    assert!(matches!(&read, Err(Trouble::Corrupt(reason)) if reason.contains("longer")), "{read:?}");
}

#[test]
fn in_the_running_boot_a_wrong_checksum_is_corrupt_whatever_is_behind_it() {
    let mut bench = Bench::new(boot_id(), &[100, 100]);
    let last = bench.bytes.len() - 1;
    bench.bytes[last] ^= 1;
    let (commands, end) = bench.read();
    assert_eq!(commands, 1);
    assert!(end.is_err_and(|reason| reason.contains("checksum")));
}

#[test]
fn a_frame_that_is_not_all_there_is_read_once_and_not_with_every_look() {
    const LARGE: usize = 3 << 20;
    let mut bench = Bench::new(boot_id(), &[100, LARGE, 100]);
    bench.name.kind = SegmentKind::Live;
    let file = File::create(bench.layout.segment(bench.name)).unwrap();
    fs2::FileExt::try_lock_exclusive(&file).unwrap();
    let short = bench.starts[2] - 1;
    file.write_all_at(&bench.bytes[..short], 0).unwrap();
    let mut segment = bench.open();
    let read = |segment: &mut Segment| {
        let (mut scratch, mut commands) = (Vec::new(), 0);
        let read = segment.read(&mut scratch, |submitted| {
            commands += submitted.commands.len();
            true
        });
        assert!(matches!(read, Ok(Read::Nothing)), "{read:?}");
        (commands, std::mem::take(&mut segment.searched))
    };
    let (commands, again) = read(&mut segment);
    assert!(commands == 1 && again > LARGE as u64, "{commands}, {again}");
    assert_eq!(read(&mut segment), (0, 0));
    file.write_all_at(&bench.bytes[short..], short as u64).unwrap();
    assert_eq!(read(&mut segment), (2, 0));
    assert_eq!(segment.window, WINDOW_BYTES, "short frames are not read by the megabyte");
}

//! Tests of following one stream.

use std::os::unix::fs::MetadataExt;

use penholder_protocol::{Command, SegmentEncoder, SegmentHeader, Statement};

use super::*;

/// A spool with one live segment of one stream, and what is needed to read it.
struct Bench {
    _directory: tempfile::TempDir,
    rules: Rules,
    watermarks: Watermarks,
    scratch: Vec<u8>,
    findings: Findings,
    look: Look,
    stream: Stream,
    encoder: SegmentEncoder,
    file: std::fs::File,
}

impl Bench {
    fn new(turn_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        std::fs::create_dir(layout.spool()).unwrap();
        let spool = std::fs::metadata(layout.spool()).unwrap();
        let header = SegmentHeader {
            store: StoreId([1; 16]),
            stream: StreamId([2; 16]),
            number: 1,
            epoch: Epoch(1),
            first_sequence: Sequence(1),
            salt: 7,
            boot: penholder_protocol::boot_id(),
            inode: 0,
        };
        let name = SegmentName { stream: header.stream, number: 1, kind: SegmentKind::Live };
        std::fs::write(layout.segment(name), header.encode()).unwrap();
        let file = std::fs::File::options().append(true).open(layout.segment(name)).unwrap();
        fs2::FileExt::try_lock_exclusive(&file).unwrap();
        let rules = Rules {
            layout,
            store: header.store,
            epoch: Epoch(1),
            floor: Epoch(0),
            grants: Arc::new(Grants::look_up(&crate::Config::new("store"), spool.uid()).unwrap()),
            along: Along::default(),
            databases: vec!["activity".to_owned()],
            turn_bytes,
            device: spool.dev(),
            streams_max: 1,
            streams_user_max: 1,
        };
        let mut stream = Stream::new(header.stream, spool.uid(), None);
        assert!(stream.see(name));
        Self {
            _directory: directory,
            rules,
            watermarks: Watermarks::default(),
            scratch: Vec::new(),
            findings: Findings::default(),
            look: Look::default(),
            stream,
            encoder: SegmentEncoder::new(&header),
            file,
        }
    }

    /// Appends frames of one command each.
    fn append(&mut self, frames: usize) {
        use std::io::Write;
        for _ in 0..frames {
            let mut bytes = Vec::new();
            let insert = Statement::new("activity", "INSERT INTO t VALUES (1)");
            self.encoder.encode(&[Command::from(insert)], false, 0, &mut bytes).unwrap();
            self.file.write_all(&bytes).unwrap();
        }
    }

    /// How many commands wait after a poll, and how cold the stream is.
    fn poll(&mut self) -> (usize, u32) {
        let Self { rules, watermarks, scratch, findings, stream, look, .. } = self;
        stream.poll(rules, watermarks, scratch, findings, *look).unwrap();
        (stream.queue.len(), stream.idle_polls)
    }

    /// What cutting a batch does with a stream.
    fn take_all(&mut self) {
        self.stream.queue.clear();
        self.stream.queue_bytes = 0;
    }
}

#[test]
fn a_stream_grows_cold_by_polls_that_bring_nothing_and_is_hot_at_once_when_one_does() {
    let mut bench = Bench::new(1 << 20);
    for polls in 1..=300 {
        assert_eq!(bench.poll(), (0, polls));
    }
    bench.append(1);
    assert_eq!(bench.poll(), (1, 0));
    bench.take_all();
    assert_eq!(bench.poll(), (0, 1));
}

#[test]
fn a_stream_whose_turns_worth_waits_stays_hot_although_it_is_not_read_on() {
    let mut bench = Bench::new(1);
    bench.append(3);
    assert_eq!(bench.poll(), (1, 0), "a turn's worth is one frame");
    for _ in 0..1000 {
        assert_eq!(bench.poll(), (1, 0));
    }
    bench.take_all();
    assert_eq!(bench.poll(), (1, 0), "and what is behind it is there at once");
}

#[test]
fn nothing_is_appended_to_a_segment_once_the_next_one_is_there_whoever_holds_its_lock() {
    let mut bench = Bench::new(1 << 20);
    bench.append(2);
    assert_eq!(bench.poll(), (2, 0));
    assert!(bench.findings.finished.is_empty());
    let next = SegmentName { stream: bench.stream.id, number: 2, kind: SegmentKind::Live };
    assert!(bench.stream.see(next));
    bench.poll();
    let finished: Vec<_> = bench.findings.finished.iter().map(|f| (f.name.number, f.last)).collect();
    assert_eq!(finished, [(1, Sequence(2))]);
}

#[test]
fn a_segment_that_belongs_to_another_user_stops_the_stream_before_a_byte_of_it_counts() {
    let mut bench = Bench::new(1 << 20);
    bench.append(2);
    bench.stream.uid += 1;
    assert_eq!(bench.poll().0, 0);
    assert!(bench.stream.stopped);
    assert!(bench.findings.condemned[0].reason.contains("uid"), "{:?}", bench.findings.condemned);
}

#[test]
fn a_second_file_in_the_place_of_a_segment_does_not_stop_the_stream() {
    let mut bench = Bench::new(1 << 20);
    bench.append(1);
    assert_eq!(bench.poll(), (1, 0));
    let name = |number| SegmentName { stream: bench.stream.id, number, kind: SegmentKind::Sealed };
    let (twin, next) = (name(1), name(2));
    assert!(!bench.stream.see(twin), "its place is taken while the first one is read");
    assert!(bench.stream.see(next));
    bench.poll();
    assert!(!bench.stream.see(twin) && !bench.stream.stopped);
    assert_eq!(bench.findings.finished.len(), 1);
}

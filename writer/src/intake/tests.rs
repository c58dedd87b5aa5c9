//! Tests of following many streams through a directory that is walked in pieces.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use penholder_protocol::{
    Command, Epoch, Layout, SegmentEncoder, SegmentHeader, SegmentKind, Statement, StoreId,
};

use super::*;
use crate::grants::Grants;
use crate::references::Along;

fn stream(number: u16) -> StreamId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    StreamId(id)
}

/// A spool, and an intake that reads it.
struct Bench {
    _directory: tempfile::TempDir,
    layout: Layout,
    watermarks: Watermarks,
    config: Config,
    intake: Intake,
    condemned: Vec<Condemned>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        std::fs::create_dir(layout.spool()).unwrap();
        let spool = std::fs::metadata(layout.spool()).unwrap();
        let config = Config::new(directory.path());
        let rules = Rules {
            layout: layout.clone(),
            store: StoreId([1; 16]),
            epoch: Epoch(1),
            floor: Epoch(0),
            grants: Arc::new(Grants::look_up(&config, spool.uid()).unwrap()),
            along: Along::default(),
            databases: vec!["activity".to_owned()],
            turn_bytes: 1 << 20,
            device: spool.dev(),
            streams_max: 4096,
            streams_user_max: 4096,
        };
        let intake = Intake::new(rules);
        Self {
            _directory: directory,
            layout,
            watermarks: Watermarks::default(),
            config,
            intake,
            condemned: Vec::new(),
        }
    }

    /// Puts a segment with commands of the given sequences into the spool.
    fn put_kind(&self, stream: u16, number: u32, sequences: std::ops::Range<u64>, kind: SegmentKind) {
        let header = SegmentHeader {
            store: StoreId([1; 16]),
            stream: self::stream(stream),
            number,
            epoch: Epoch(1),
            first_sequence: Sequence(sequences.start),
            salt: 7,
            boot: penholder_protocol::boot_id(),
            inode: 0,
        };
        let (mut encoder, mut bytes) = (SegmentEncoder::new(&header), header.encode().to_vec());
        for _ in sequences {
            let insert = Statement::new("activity", "INSERT INTO t VALUES (1)");
            encoder.encode(&[Command::from(insert)], false, 0, &mut bytes).unwrap();
        }
        let name = SegmentName { stream: header.stream, number, kind };
        std::fs::write(self.layout.segment(name), bytes).unwrap();
    }

    fn put(&self, stream: u16, number: u32, sequences: std::ops::Range<u64>) {
        self.put_kind(stream, number, sequences, SegmentKind::Sealed);
    }

    fn turn(&mut self) -> Vec<Entry> {
        let batch = self.intake.next(&self.watermarks, &self.config).unwrap();
        for condemned in self.intake.findings.condemned.drain(..) {
            std::fs::remove_file(self.layout.segment(condemned.name)).unwrap();
            self.condemned.push(condemned);
        }
        batch
    }

    /// Takes turns until nothing is left to do, and says what came.
    fn settle(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            let batch = self.turn();
            if batch.is_empty() && self.intake.is_settled() {
                return entries;
            }
            entries.extend(batch);
        }
    }
}

#[test]
fn a_stream_is_followed_from_its_first_segment_however_the_walk_comes_upon_them() {
    const STREAMS: u16 = 700;
    let mut bench = Bench::new();
    // The first segment of every other stream has nothing that is not applied yet.
    (0..STREAMS).for_each(|stream| bench.put(stream, 2, 2 - u64::from(stream % 2)..3));
    (0..STREAMS).for_each(|stream| bench.put(stream, 1, 1..2 - u64::from(stream % 2)));
    let entries = bench.settle();
    assert_eq!(bench.condemned.len(), 0, "{:?}", bench.condemned.first());
    let mut sequences = BTreeMap::<_, Vec<_>>::new();
    for entry in &entries {
        sequences.entry(entry.stream.0).or_default().push(entry.sequence.0);
    }
    assert_eq!(sequences.len(), usize::from(STREAMS));
    assert!(sequences.values().all(|sequences| sequences == &[1, 2]));
}

#[test]
fn a_segment_that_came_behind_a_walk_is_looked_for_before_its_stream_is_given_up() {
    let mut bench = Bench::new();
    bench.put(1, 1, 1..2);
    bench.put(2, 1, 1..2);
    assert_eq!(bench.settle().len(), 2);
    bench.put(1, 3, 3..4);
    bench.put(2, 3, 3..4);
    bench.intake.want_rescan();
    assert!(bench.turn().is_empty() && bench.condemned.is_empty());
    bench.put(1, 2, 2..3);
    assert_eq!(bench.settle().len(), 2);
    let condemned: Vec<_> = bench.condemned.iter().map(|one| one.name.stream.0[1]).collect();
    assert_eq!(condemned, [2], "one is whole, and of the other a segment is missing");
    assert!(bench.condemned[0].reason.contains("a gap"));
}

#[test]
fn a_live_stream_is_not_over_before_a_walk_since_its_last_segment_found_no_next_one() {
    let mut bench = Bench::new();
    bench.put_kind(1, 1, 1..2, SegmentKind::Live);
    bench.put_kind(2, 1, 1..2, SegmentKind::Live);
    assert_eq!(bench.turn().len(), 2, "and nobody holds their locks");
    // One of them had been rotated by then, behind the walk.
    bench.put_kind(1, 2, 2..3, SegmentKind::Live);
    bench.intake.take_finished();
    assert!(bench.intake.take_over().is_empty());
    assert_eq!(bench.settle().len(), 1);
    bench.intake.take_finished();
    assert_eq!(bench.intake.take_over().len(), 2);
}

#[test]
fn what_is_read_ahead_follows_on_the_batch_and_opens_no_segment() {
    let mut bench = Bench::new();
    bench.intake.rules.turn_bytes = 400;
    bench.put(1, 1, 1..40);
    bench.put(1, 2, 40..80);
    let (mut sequences, mut ahead_count) = (Vec::new(), 0);
    while sequences.len() < 79 {
        sequences.extend(bench.turn().iter().map(|entry| entry.sequence.0));
        let opened = |intake: &Intake| intake.streams.values().find_map(Stream::opened);
        let before = opened(&bench.intake);
        bench.intake.read_ahead(&bench.watermarks, &bench.config).unwrap();
        let after = opened(&bench.intake);
        assert!(after.is_none() || after == before, "{before:?}, then {after:?}");
        ahead_count += bench.intake.streams.values().map(|stream| stream.queue.len()).sum::<usize>();
    }
    assert!(sequences.iter().copied().eq(1..80), "{sequences:?}");
    assert!(ahead_count > 40, "{ahead_count}");
    assert!(bench.condemned.is_empty());
}

#[test]
fn a_quiet_stream_that_wakes_is_heard_beside_one_that_fills_all_the_room_there_is() {
    let mut bench = Bench::new();
    (bench.intake.rules.turn_bytes, bench.config.turn_bytes) = (400, 400);
    bench.config.batch_bytes_max = 400;
    bench.put(1, 1, 1..8000);
    bench.put_kind(2, 1, 1..2, SegmentKind::Live);
    let name = bench.layout.segment(SegmentName { number: 1, stream: stream(2), kind: SegmentKind::Live });
    let alive = std::fs::File::open(name).unwrap();
    fs2::FileExt::try_lock_exclusive(&alive).unwrap();
    let mut came = 0;
    let is_quiet = |intake: &Intake| intake.streams[&stream(2)].is_quiet();
    while came == 0 || !is_quiet(&bench.intake) {
        came += bench.turn().iter().filter(|entry| entry.stream == stream(2)).count();
    }
    // The next command follows in the same file.
    bench.put_kind(2, 1, 1..3, SegmentKind::Live);
    while came < 2 {
        bench.intake.sweep = Paced::new();
        let batch = bench.turn();
        assert!(batch.iter().any(|entry| entry.stream == stream(1)), "heard once the other has nothing more");
        came += batch.iter().filter(|entry| entry.stream == stream(2)).count();
    }
}

//! `penholder quarantine`: what is shown, put back and dropped, beside a writer and without one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use std::time::{Duration, Instant};

use cli_common::{INSERT, Store};
use penholder_protocol::{
    Command, Control, Layout, SegmentEncoder, SegmentHeader, SegmentKind, SegmentName, Sequence, Statement,
    StreamId,
};

/// A stream of sealed segments, one frame per command, one setting per command.
struct Stream {
    layout: Layout,
    header: SegmentHeader,
}

impl Stream {
    fn new(store: &Store) -> Self {
        let layout = Layout::new(store.path());
        let control = Control::read(&layout.control()).unwrap();
        let header = SegmentHeader {
            store: control.store,
            stream: StreamId::random().unwrap(),
            number: 0,
            epoch: control.epoch,
            first_sequence: Sequence(1),
            salt: 9,
            boot: penholder_protocol::boot_id(),
            inode: 0,
        };
        Self { layout, header }
    }

    fn name(&self, number: u32) -> SegmentName {
        SegmentName { stream: self.header.stream, number, kind: SegmentKind::Sealed }
    }

    /// The segment with so many settings from `first` on.
    fn segment(&self, number: u32, first: u64, count: u64) -> Vec<u8> {
        let header = SegmentHeader { number, first_sequence: Sequence(first), ..self.header.clone() };
        let (mut bytes, mut encoder) = (header.encode().to_vec(), SegmentEncoder::new(&header));
        for sequence in first..first + count {
            let insert =
                Statement::new("config", INSERT).bind(format!("{}-{sequence}", header.stream)).bind("v");
            encoder.encode(&[Command::from(insert)], false, 0, &mut bytes).unwrap();
        }
        bytes
    }

    fn put(&self, number: u32, bytes: &[u8]) -> String {
        let name = self.name(number);
        let aside = self.layout.spool_tmp().join(name.to_string());
        std::fs::write(&aside, bytes).unwrap();
        std::fs::rename(aside, self.layout.segment(name)).unwrap();
        name.to_string()
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listed(store: &Store) -> Vec<String> {
    let all = store.run(&["quarantine", "STORE", "--json"]).expect(0).json();
    all.iter().map(|file| file["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_damaged_segment_is_shown_up_to_the_damage_and_cannot_be_put_back() {
    let store = Store::new();
    let stream = Stream::new(&store);
    let mut bytes = stream.segment(1, 1, 3);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let id = stream.put(1, &bytes);
    store.run(&["serve", "STORE", "--once"]).expect(0);
    assert_eq!((store.settings(), listed(&store)), (2, vec![id.clone()]));
    let list = store.run(&["quarantine", "STORE", "list"]).expect(0).stdout;
    assert!(list.contains(&id) && list.contains("checksum"), "{list}");

    let shown = store.run(&["quarantine", "STORE", "show", &id, "--json"]).expect(0).json().remove(0);
    assert_eq!((shown["commands"].as_array().unwrap().len(), &shown["decided"]), (2, &2.into()));
    assert!(shown["damage"].as_str().unwrap().contains("checksum mismatch in frame"), "{shown}");
    assert!(shown["reason"].as_str().unwrap().contains("checksum"), "{shown}");
    let text = store.run(&["quarantine", "STORE", "show", &id]).expect(0).stdout;
    assert!(text.contains("commands 1 to 2") && text.contains("cannot be put back"), "{text}");
    let waiting = store.run(&["quarantine", "STORE", "show", &id, "--commands"]).expect(0).stdout;
    assert_eq!(waiting, "", "what has an outcome is not to be submitted again");

    let refused = store.run(&["quarantine", "STORE", "release", &id]).expect(1).stderr;
    assert!(refused.contains("checksum") && refused.contains("exec STORE --stdin"), "{refused}");
    assert_eq!(listed(&store), [id.as_str()]);
    let counts = || {
        let status = store.run(&["status", "STORE", "--json"]).expect(0).json().remove(0);
        [&status["totals"]["quarantined"], &status["spool"]["in_quarantine"]]
            .map(|count| count.as_u64().unwrap())
    };
    assert_eq!(counts(), [1, 1]);
    store.run(&["quarantine", "STORE", "drop", &id]).expect(0);
    assert_eq!(counts(), [1, 0]);
    let text = store.run(&["status", "STORE"]).expect(0).stdout;
    assert!(text.contains("1 quarantined (0 there now)"), "{text}");
    assert!(listed(&store).is_empty());
    assert_eq!(std::fs::read_dir(stream.layout.quarantine()).unwrap().count(), 0, "its reason goes too");
    store.run(&["quarantine", "STORE", "drop", &id]).expect(1);
}

#[test]
fn a_segment_that_came_too_early_is_put_back_beside_the_writer_and_applied_once() {
    let store = Store::new();
    let writer = store.serve();
    let stream = Stream::new(&store);
    let id = stream.put(2, &stream.segment(2, 3, 2));
    wait_until("its quarantine", || listed(&store) == [id.as_str()]);
    let refused = store.run(&["quarantine", "STORE", "release", &id]).expect(1).stderr;
    assert!(refused.contains("starts with command 3"), "{refused}");
    stream.put(1, &stream.segment(1, 1, 2));
    wait_until("the first segment", || store.settings() == 2);
    let done = store.run(&["quarantine", "STORE", "release", &id, "--json"]).expect(0).json();
    assert_eq!(done, [serde_json::json!({"id": id, "status": "released", "message": null})]);
    wait_until("the second segment", || store.settings() == 4);
    assert!(listed(&store).is_empty());
    assert_eq!(writer.stop(), 0);
    store.run(&["check", "STORE"]).expect(0);
}

#[test]
fn what_was_mended_while_no_writer_ran_is_taken_after_any_number_of_starts() {
    let store = Store::new();
    let stream = Stream::new(&store);
    let good = stream.segment(1, 1, 3);
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let id = stream.put(1, &bad);
    // Two starts later its epoch is past the floor, and only the row of its stream tells that it may go on.
    for _ in 0..3 {
        store.run(&["serve", "STORE", "--once"]).expect(0);
    }
    assert_eq!((store.settings(), listed(&store)), (2, vec![id.clone()]));
    std::fs::write(stream.layout.quarantine().join(&id), &good).unwrap();
    let text = store.run(&["quarantine", "STORE", "show", &id]).expect(0).stdout;
    assert!(text.contains("commands 1 to 3") && text.contains("it can be put back"), "{text}");
    assert_eq!(
        store.run(&["quarantine", "STORE", "show", &id, "--commands"]).expect(0).stdout.lines().count(),
        1
    );
    store.run(&["quarantine", "STORE", "release", &id]).expect(0);
    store.run(&["serve", "STORE", "--once"]).expect(0);
    assert_eq!((store.settings(), listed(&store)), (3, Vec::<String>::new()));
    store.run(&["check", "STORE"]).expect(0);
}

#[test]
fn a_restored_old_file_is_not_put_back_and_can_be_submitted_anew() {
    let store = Store::new();
    let stream = Stream::new(&store);
    for _ in 0..3 {
        store.run(&["serve", "STORE", "--once"]).expect(0);
    }
    let id = stream.put(1, &stream.segment(1, 1, 2));
    store.run(&["serve", "STORE", "--once"]).expect(0);
    assert_eq!((store.settings(), listed(&store)), (0, vec![id.clone()]));
    let refused = store.run(&["quarantine", "STORE", "release", &id]).expect(1).stderr;
    assert!(refused.contains("no database knows its stream"), "{refused}");
    let lines = store.run(&["quarantine", "STORE", "show", &id, "--commands"]).expect(0).stdout;
    let writer = store.serve();
    store.feed(&["exec", "STORE", "--stdin"], &lines).expect(0);
    assert_eq!((store.settings(), writer.stop()), (2, 0));
}

#[test]
fn ids_that_are_none_are_a_usage_error_and_nothing_is_touched() {
    let store = Store::new();
    for id in ["", "README", "../control", "0123456789abcdef0123456789abcdef-00000001.live.reason"] {
        for action in ["show", "release", "drop"] {
            store.run(&["quarantine", "STORE", action, id]).expect(2);
        }
    }
    store.run(&["quarantine", "STORE", "show", "0123456789abcdef0123456789abcdef-00000001.live"]).expect(1);
    assert!(store.run(&["quarantine", "STORE"]).expect(0).stdout.is_empty());
    assert!(store.path().join("control").exists());
}

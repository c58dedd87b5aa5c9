//! Damage inside a segment: a prefix of it is applied, or its stream is quarantined; never another command.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::{Duration, Instant};

use penholder_protocol::{Command, Outcome, SegmentHeader, SegmentName, Statement};
use penholder_tests::{Mix, Plan, SealedSegment, Store};

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new("activity", sql).bind(sequence).into()
}

fn rows(store: &Store) -> i64 {
    store.number("activity", "SELECT count(*) FROM ledger")
}

fn small_segment(store: &Store, client: u64) -> SealedSegment {
    let plan = Plan::new(client, Mix::Activity);
    SealedSegment::new(&store.path()).frame([plan.command(1)]).frame([plan.command(2), plan.command(3)])
}

/// A new client is served at once, while whatever was put into the spool lies there.
fn bystander_is_served(store: &Store) {
    // Quarantine may come before what was good in front of the damage is applied: only the client's own rows count.
    let own = || store.number("activity", "SELECT count(*) FROM ledger WHERE client = 7");
    let (before, begun) = (own(), Instant::now());
    let outcome = store.client().execute(insert(1)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "served only after {:?}", begun.elapsed());
    assert_eq!(own(), before + 1);
}

/// How many of a small segment's three commands are in the ledger; anything but a prefix stops the test.
fn prefix_applied(store: &Store, client: u64) -> usize {
    let database = store.database("activity");
    let mut statement =
        database.prepare("SELECT sequence, nonce FROM ledger WHERE client = ?1 ORDER BY id").unwrap();
    let found: Vec<(u64, i64)> = statement
        .query_map([client], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let plan = Plan::new(client, Mix::Activity);
    let expected: Vec<(u64, i64)> = (1..=3).map(|sequence| (sequence, plan.nonce(sequence))).collect();
    assert_eq!(found, expected[..found.len()], "client {client}: not a prefix of what was submitted");
    found.len()
}

#[test]
fn a_segment_cut_at_any_length_gives_a_prefix() {
    let store = Store::started();
    let whole = small_segment(&store, 1).bytes().len();
    let first_frame =
        SealedSegment::new(&store.path()).frame([Plan::new(1, Mix::Activity).command(1)]).bytes().len();
    let mut clients = Vec::new();
    for length in 0..=whole {
        let client = 1000 + length as u64;
        let segment = small_segment(&store, client);
        let bytes = segment.bytes();
        segment.drop_bytes(&store.path(), &bytes[..length.min(bytes.len())]);
        clients.push((length, client));
    }
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    bystander_is_served(&store);
    for (length, client) in clients {
        // Plans differ a little in length: only the far ends are certain.
        let applied = prefix_applied(&store, client);
        assert!(length + 100 > first_frame || applied == 0, "cut to {length}: {applied} applied");
        assert!(length != whole || applied >= 1, "cut to {length}: {applied} applied");
    }
    assert_eq!(store.number("activity", "SELECT count(*) - 1 FROM ledger"), counted(&store) - 1);
}

fn counted(store: &Store) -> i64 {
    store.number("activity", "SELECT count FROM counter WHERE id = 0")
}

#[test]
fn a_flipped_bit_anywhere_gives_a_prefix_or_a_quarantine() {
    let store = Store::started();
    let length = small_segment(&store, 1).bytes().len();
    for at in 0..length {
        let client = 5000 + at as u64;
        let segment = small_segment(&store, client);
        let mut bytes = segment.bytes();
        let Some(byte) = bytes.get_mut(at) else { continue };
        *byte ^= 1 << (at % 8);
        segment.drop_bytes(&store.path(), &bytes);
    }
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    bystander_is_served(&store);
    let mut complete = 0;
    for at in 0..length {
        complete += usize::from(prefix_applied(&store, 5000 + at as u64) == 3);
    }
    // Bytes that nothing reads may be flipped unseen only where a checksum does not reach: nowhere.
    assert_eq!(complete, 0, "{complete} damaged segments passed for good ones");
    assert_eq!(rows(&store), counted(&store));
}

#[test]
fn doubled_swapped_and_spliced_frames_are_never_applied() {
    let store = Store::started();
    let frames = |client: u64| {
        let plan = Plan::new(client, Mix::Activity);
        let one = SealedSegment::new(&store.path()).frame([plan.command(1)]);
        let two = one.clone().frame([plan.command(2)]);
        let three = two.clone().frame([plan.command(3)]);
        let (a, b) = (one.bytes().len(), two.bytes().len());
        let bytes = three.bytes();
        (three, bytes[..a].to_vec(), bytes[a..b].to_vec(), bytes[b..].to_vec())
    };
    let (segment, one, two, three) = frames(11);
    segment.drop_bytes(&store.path(), &[one, two.clone(), two, three].concat());
    let (segment, one, two, three) = frames(12);
    segment.drop_bytes(&store.path(), &[one, three, two].concat());
    let (segment, one, _, three) = frames(13);
    segment.drop_bytes(&store.path(), &[one, three].concat());
    let (segment, one, _, three) = frames(14);
    let (_, _, foreign, _) = frames(15);
    segment.drop_bytes(&store.path(), &[one, foreign, three].concat());
    let (segment, one, two, three) = frames(16);
    let (whole, ..) = frames(17);
    segment.drop_bytes(&store.path(), &[one, two, whole.bytes(), three].concat());
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    bystander_is_served(&store);
    std::thread::sleep(Duration::from_millis(300));
    let applied: Vec<usize> = (11..=16).map(|client| prefix_applied(&store, client)).collect();
    assert_eq!(applied, [2, 1, 1, 1, 0, 2]);
    assert_eq!(prefix_applied(&store, 17), 0, "a log inside a log");
}

#[test]
fn a_segment_that_grows_slowly_is_waited_for() {
    use std::io::Write;
    let store = Store::started();
    let segment = small_segment(&store, 21);
    let bytes = segment.bytes();
    let aside = store.layout().spool_tmp().join("slow");
    let mut file = std::fs::File::create(&aside).unwrap();
    fs2::FileExt::try_lock_exclusive(&file).unwrap();
    file.write_all(&bytes[..SegmentHeader::BYTES]).unwrap();
    let live = SegmentName { kind: penholder_protocol::SegmentKind::Live, ..segment.name() };
    std::fs::rename(&aside, store.layout().segment(live)).unwrap();
    for (number, byte) in bytes[SegmentHeader::BYTES..].iter().enumerate() {
        file.write_all(&[*byte]).unwrap();
        if number % 16 == 0 {
            std::thread::sleep(Duration::from_millis(8));
        }
    }
    bystander_is_served(&store);
    store.wait_until("its three rows", |store| prefix_applied(store, 21) == 3);
    drop(file);
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    assert_eq!(store.quarantined(), Vec::<String>::new());
}

#[test]
fn a_segment_that_shrinks_under_the_writer_stops_only_its_stream() {
    let store = Store::started();
    let plan = Plan::new(31, Mix::Activity);
    let segment = SealedSegment::new(&store.path()).frame((1..=3).map(|sequence| plan.command(sequence)));
    let bytes = segment.bytes();
    let aside = store.layout().spool_tmp().join("shrinking");
    std::fs::write(&aside, &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&aside).unwrap();
    fs2::FileExt::try_lock_exclusive(&file).unwrap();
    let live = SegmentName { kind: penholder_protocol::SegmentKind::Live, ..segment.name() };
    std::fs::rename(&aside, store.layout().segment(live)).unwrap();
    store.wait_until("its three rows", |store| prefix_applied(store, 31) == 3);
    file.set_len(200).unwrap();
    bystander_is_served(&store);
    file.set_len(0).unwrap();
    bystander_is_served(&store);
    drop(file);
    std::thread::sleep(Duration::from_millis(1500));
    bystander_is_served(&store);
    assert_eq!(prefix_applied(&store, 31), 3);
}

//! What the torture harness found, each as a test of its own with the cause in its name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use penholder_protocol::{Statement, StreamId};
use penholder_tests::promises::Log;
use penholder_tests::{Mix, Plan, SealedSegment, Store, shim};

/// A start that cannot open one segment took its stream for unknown, raised the floor above it, and the next look set
/// the promised commands aside as a restored old file.
#[test]
fn a_segment_that_cannot_be_opened_at_start_is_not_taken_for_an_old_one() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let plan = Plan::new(1, Mix::All);
    let segment = SealedSegment::new(&store.path()).frame((1..=20).map(|number| plan.command(number)));
    let mut log = Log::create(&store.logs(), 1, Mix::All, segment.header.stream);
    log.submitting(&(1..=20));
    segment.drop_into(&store.path());
    log.promised(&(1..=20));
    store.set("LD_PRELOAD", &shim("fail").to_string_lossy());
    store.set("PENHOLDER_FAIL_OPEN", ".seg");
    assert!(store.once().success(), "it fails once, so the writer tries again");
    assert_eq!(store.quarantined(), Vec::<String>::new());
    store.unset("LD_PRELOAD");
    store.settle_and_verify().expect_clean();
}

/// A client that dies between making its segment and moving it into the spool left the file there for ever.
#[test]
fn what_a_killed_client_left_under_construction_goes_at_the_next_start() {
    let mut store = Store::started();
    let stream = StreamId::random().unwrap();
    let aside = |name: String| store.layout().spool_tmp().join(name);
    let (dead, living) = (aside(format!("{stream}-00000001.live")), aside(format!("{stream}-00000002.live")));
    let foreign = aside("being-written-slowly.tmp".into());
    for path in [&dead, &living, &foreign] {
        std::fs::write(path, "the beginning of a header").unwrap();
    }
    let owner = std::fs::File::open(&living).unwrap();
    fs2::FileExt::try_lock_exclusive(&owner).unwrap();
    assert!(store.stop().success());
    store.start();
    assert!(!dead.exists(), "nobody holds a lock on it");
    assert!(living.exists(), "its owner is about to move it");
    assert!(foreign.exists(), "a client without a lock may take its time");
}

/// A start that could not look at the control file took the store for a new one, and wrote another identity over it:
/// no writer accepted the databases any more.
#[test]
fn a_control_file_that_cannot_be_looked_at_is_not_taken_for_missing() {
    let mut store = Store::started();
    store.start_worker(Mix::All, 50).finish();
    assert!(store.stop().success());
    let before = store.control().unwrap().store;
    store.set("LD_PRELOAD", &shim("fail").to_string_lossy());
    store.set("PENHOLDER_FAIL_STAT", "/control");
    let refused = store.try_start();
    assert!(refused.is_err(), "it says what it cannot look at, and ends");
    store.unset("LD_PRELOAD");
    assert_eq!(store.control().unwrap().store, before);
    store.start();
    store.start_worker(Mix::All, 50).finish();
    store.settle_and_verify().expect_clean();
}

/// A stream id is random, but a client can use one again once its first stream is forgotten: the row about its rejected
/// command was still there, the next one could not be recorded, and the writer failed at it for ever.
#[test]
fn a_stream_id_that_is_used_again_can_be_rejected_again() {
    let mut store = Store::started();
    let bad = |sql| -> penholder_protocol::Command { Statement::new("activity", sql).into() };
    let first = SealedSegment::new(&store.path()).frame([bad("INSERT INTO nowhere VALUES (1)")]);
    first.drop_into(&store.path());
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    assert!(store.stop().success());
    store.start();
    let mut again = SealedSegment::new(&store.path()).frame([bad("INSERT INTO nowhere_else VALUES (1)")]);
    again.header.stream = first.header.stream;
    again.drop_into(&store.path());
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    assert_eq!(store.quarantined(), Vec::<String>::new());
    let latest = "SELECT count(*) FROM _penholder_rejected WHERE message LIKE '%nowhere_else%'";
    assert_eq!(store.number("activity", latest), 1);
    assert_eq!(store.number("activity", "SELECT count(*) FROM _penholder_rejected"), 1);
}

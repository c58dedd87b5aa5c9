//! A sync that fails, once: what the system shows from then on is not what the medium has, and no promise rests on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use penholder_tests::disk::Script;
use penholder_tests::{Mix, Process, Random, Store};

/// A WAL that is checkpointed as soon as there is nothing to do, and given up soon.
const SMALL_WAL: &str = "[wal]\nbytes_soft = 16384\nbytes_hard = 65536\n";

/// One that is not.
const LARGE_WAL: &str = "[wal]\nbytes_soft = 4194304\n";

/// States of each script beside the one in which everything is lost that was not synced.
const RANDOM_STATES: usize = 2;

/// Says which sync fails to the processes that are started from now on.
const FAIL: &str = "PENHOLDER_RECORD_FAIL";

/// Work before, while and after a writer meets a sync that fails; it dies of that if `fail` says so.
fn work_around(fail: &str, settings: &str) -> Script {
    Script::of(|store| {
        begin(store, settings);
        store.set(FAIL, fail);
        let started = store.try_start();
        store.unset(FAIL);
        if started.is_err() {
            store.start();
        }
        let workers = [store.start_worker(Mix::Both, 40), store.start_worker(Mix::All, 40)];
        if fail.ends_with(":die") && started.is_ok() {
            store.wait_until("the writer to die of its sync", Store::writer_is_dead);
            store.forget_writer();
            store.start();
        }
        workers.into_iter().for_each(Process::finish);
        store.start_worker(Mix::Both, 20).finish();
    })
}

/// A store with something in it, and no writer.
fn begin(store: &mut Store, settings: &str) {
    store.settings(settings);
    store.start();
    store.start_worker(Mix::All, 30).finish();
    assert!(store.stop().success());
}

/// The power is cut at the end of a script, and takes all that was not synced, or any part of it.
fn survives_a_power_cut(script: &Script, fail: &str) {
    assert_eq!(script.failed_syncs(), 1, "the sync {fail} did not fail");
    let verdict = script.recover_from_synced();
    assert!(verdict.problems.is_empty(), "{fail}: {verdict}");
    let mut random = Random::new(7);
    for _ in 0..RANDOM_STATES {
        let verdict = script.recover_from_end(&mut random);
        assert!(verdict.problems.is_empty(), "{fail}: {verdict}");
    }
}

/// The writer of a commit died of its failed sync; the next one found the commit in memory, went on behind it, and every
/// sync succeeded. A power cut took it all, applied outcomes too: the WAL had a hole.
#[test]
fn a_commit_that_is_in_memory_only_is_written_again_before_the_next_writer_relies_on_it() {
    for fail in ["config.db-wal:4:die", "activity.db-wal:4:die", "config.db-wal:6:die"] {
        survives_a_power_cut(&work_around(fail, LARGE_WAL), fail);
    }
}

/// ext4 does not let anything arrive at a block whose first write failed, and reports success, until it is forgotten.
#[test]
fn the_wal_is_forgotten_after_a_failed_sync_before_anything_is_written_to_it() {
    for fail in ["config.db-wal:1", "config.db-wal:2", "activity.db-wal:3", "activity.db-wal:5"] {
        survives_a_power_cut(&work_around(fail, LARGE_WAL), fail);
    }
}

#[test]
fn a_checkpoint_whose_sync_failed_is_done_again_from_what_the_medium_has() {
    for fail in ["activity.db:2", "config.db:2", "activity.db:2:die", "activity.db:1"] {
        survives_a_power_cut(&work_around(fail, SMALL_WAL), fail);
    }
}

/// A checkpoint that a reader stops half-way counts what it copied as done, and syncs nothing: when the sync of the next
/// one failed, what the first had copied was gone, and the WAL was given up all the same.
#[test]
fn what_was_copied_beside_a_reader_is_copied_again_after_a_failed_sync() {
    let fail = "activity.db:2";
    let script = Script::of(|store| {
        begin(store, SMALL_WAL);
        store.set("RUST_LOG", "warn");
        store.set(FAIL, fail);
        store.start();
        store.unset(FAIL);
        let earlier = reader_of(store);
        store.start_worker(Mix::Activity, 1000).finish();
        let reader = reader_of(store);
        let before = stopped_checkpoints(store);
        drop(earlier);
        store.start_worker(Mix::Activity, 1000).finish();
        let is_stopped = |store: &Store| stopped_checkpoints(store) > before;
        store.wait_until("a checkpoint that the later reader stops", is_stopped);
        drop(reader);
        store.start_worker(Mix::Activity, 1000).finish();
        store.wait_until("a sync that fails", |store| store.complaints().contains("stalled"));
        store.start_worker(Mix::All, 60).finish();
    });
    survives_a_power_cut(&script, fail);
}

/// A reader in the middle of a snapshot.
fn reader_of(store: &Store) -> rusqlite::Connection {
    let reader = store.database("activity");
    reader.execute_batch("BEGIN; SELECT count(*) FROM ledger").unwrap();
    reader
}

fn stopped_checkpoints(store: &Store) -> usize {
    store.complaints().matches("a reader pins the rest").count()
}

//! A power cut after every step, leaving whatever a file system may leave: what was promised is there all the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use penholder_tests::disk::Script;
use penholder_tests::{Mix, Random, Store};

/// States of one step up to which all are tried.
const STATES_PER_STEP_MAX: usize = 4000;

/// States that are tried of each kind; `PENHOLDER_TEST_STATES` makes it more.
fn states() -> usize {
    let given = std::env::var("PENHOLDER_TEST_STATES").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(80)
}

/// Printed, so that a failure can be looked at again; `PENHOLDER_TEST_SEED` sets it.
fn seed() -> u64 {
    let given = std::env::var("PENHOLDER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

/// Two at a time: they wait for their disk.
fn in_parallel(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        break;
                    }
                    work(at);
                }
            });
        }
    });
}

/// Lets a writer recover from every state that a power cut may leave of the small files, after every step.
fn survives_every_cut(name: &str, script: &Script) {
    let seed = seed();
    let states = script.states_of_small_files(&mut Random::new(seed), STATES_PER_STEP_MAX);
    let (count, sampled) = (states.cuts.len(), states.sampled);
    println!("{name}: {} steps, {count} states, {sampled} steps sampled, seed {seed}", states.steps);
    assert!(count > 20, "is the recording still there?");
    let begun = std::time::Instant::now();
    in_parallel(count, |at| {
        let cut = &states.cuts[at];
        let verdict = script.recover(cut);
        assert!(verdict.problems.is_empty(), "{name}, seed {seed}: {cut:?}: {verdict}");
    });
    println!("{:?}", begun.elapsed());
}

#[test]
fn every_state_that_a_power_cut_may_leave_of_a_store_that_is_being_made_loses_no_promise() {
    let script = Script::of(|store| {
        store.start();
        assert!(store.stop().success());
    });
    survives_every_cut("first start", &script);
}

#[test]
fn every_state_that_a_power_cut_may_leave_of_a_segment_and_its_receipts_loses_no_promise() {
    let before = |store: &mut Store| {
        store.start();
        assert!(store.stop().success());
    };
    let script = Script::after(before, |store| {
        let client = store.start_worker(Mix::All, 6);
        store.wait_until("a segment", |store| !store.segments().is_empty());
        store.start();
        client.finish();
        assert!(store.stop().success());
    });
    survives_every_cut("one client", &script);
}

#[test]
fn every_state_that_a_power_cut_may_leave_of_a_store_whose_writer_was_killed_loses_no_promise() {
    let before = |store: &mut Store| {
        store.start();
        store.start_worker(Mix::All, 3).finish();
    };
    let script = Script::after(before, |store| {
        let client = store.start_worker(Mix::Both, 2);
        store.kill();
        store.start();
        client.finish();
    });
    survives_every_cut("killed writer", &script);
}

#[test]
fn a_power_cut_at_any_moment_that_takes_any_part_of_any_file_loses_no_promise() {
    let seed = seed();
    println!("seed {seed}");
    let script = Script::record();
    in_parallel(states(), |at| {
        let verdict = script.recover_from_random(&mut Random::new(seed.wrapping_mul(1_000_003) + at as u64));
        assert!(verdict.problems.is_empty(), "state {at} of seed {seed}: {verdict}");
    });
}

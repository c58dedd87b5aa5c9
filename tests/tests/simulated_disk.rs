//! A power cut after every step, leaving whatever a file system may leave: what was promised is there all the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use penholder_tests::Random;
use penholder_tests::disk::Script;

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

#[test]
fn a_power_cut_after_any_step_of_the_spool_the_receipts_and_the_control_file_loses_no_promise() {
    let seed = seed();
    println!("seed {seed}");
    let (script, mut random) = (Script::record(), Random::new(seed));
    let cuts = script.cuts_of_small_files(&mut random);
    let tried = states().min(cuts.len());
    println!("{} steps, {} states, {tried} of them tried", script.steps(), cuts.len());
    assert!(cuts.len() > 1000, "is the recording still there?");
    // Evenly over the script, from a random first one.
    let first = usize::try_from(random.below(cuts.len() as u64)).unwrap();
    in_parallel(tried, |at| {
        let cut = &cuts[(first + at * cuts.len() / tried) % cuts.len()];
        let verdict = script.recover(cut);
        assert!(verdict.problems.is_empty(), "{cut:?}: {verdict}");
    });
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

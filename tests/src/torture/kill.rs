//! kill -9 of the writer: at random moments, while it starts, and of several writers at once.

use std::process::Stdio;
use std::time::{Duration, Instant};

use penholder_protocol::WriterState;
use penholder_tests::{Store, wait_for};

use crate::arena::Arena;
use crate::crew::Crew;

/// Kills in the life of one store: few enough that its ledger stays small.
const KILLS_PER_STORE: u64 = 100;

/// Longest time a restart may take.
const RESTART_TIME: Duration = Duration::from_secs(2);

pub(crate) fn at_random(arena: &mut Arena) {
    let store = |arena: &Arena| arena.store();
    kill_again_and_again(arena, store);
}

/// Kills writers and clients of stores made by `make`, until the scenario has had enough.
pub(crate) fn kill_again_and_again(arena: &mut Arena, make: impl Fn(&Arena) -> Store) {
    let mut slowest = Duration::ZERO;
    let mut going = arena.next_round();
    while going {
        let mut store = make(arena);
        store.start();
        let mut crew = Crew::start(&mut store);
        for _ in 0..KILLS_PER_STORE {
            arena.nap(Duration::from_millis(120));
            store.kill();
            arena.count("writers killed");
            if arena.chance(3) {
                crew.kill_one(&mut store, &mut arena.random);
                arena.count("clients killed");
            }
            let begun = Instant::now();
            store.start();
            slowest = slowest.max(begun.elapsed());
            going = arena.next_round();
            if !going {
                break;
            }
        }
        crew.finish(&store);
        arena.verify(&mut store);
    }
    arena.note(format!("slowest restart {} ms", slowest.as_millis()));
    assert!(slowest < RESTART_TIME, "a restart took {slowest:?}");
}

pub(crate) fn during_recovery(arena: &mut Arena) {
    let mut going = arena.next_round();
    while going {
        let mut store = arena.store();
        store.start();
        let mut crew = Crew::start(&mut store);
        for _ in 0..KILLS_PER_STORE {
            // Something to recover, half committed with luck.
            arena.nap(Duration::from_millis(60));
            store.kill();
            for _ in 0..=arena.random.below(6) {
                let killed_early = start_and_kill(arena, &store);
                arena.count(if killed_early {
                    "writers killed while starting"
                } else {
                    "writers killed just after"
                });
            }
            if arena.chance(4) {
                crew.kill_one(&mut store, &mut arena.random);
                arena.count("clients killed");
            }
            store.start();
            going = arena.next_round();
            if !going {
                break;
            }
        }
        crew.finish(&store);
        arena.verify(&mut store);
    }
}

/// Starts a writer and kills it within a few milliseconds; true if it was not ready yet.
fn start_and_kill(arena: &mut Arena, store: &Store) -> bool {
    let mut writer = store.writer_command(false).spawn().unwrap();
    arena.nap(Duration::from_millis(25));
    let control = store.control();
    let ready = control.is_some_and(|c| c.pid == writer.id() && c.state == WriterState::Running);
    // Already dead would be a writer that gave up, which the next start shows.
    writer.kill().ok();
    writer.wait().unwrap();
    !ready
}

/// Writers started together.
const TWINS: usize = 5;

pub(crate) fn twins(arena: &mut Arena) {
    let mut store = arena.store();
    store.start();
    let crew = Crew::start(&mut store);
    while arena.next_round() {
        store.kill();
        arena.count("writers killed");
        let mut writers: Vec<_> =
            (0..TWINS).map(|_| store.writer_command(false).stderr(Stdio::null()).spawn().unwrap()).collect();
        let begun = Instant::now();
        let mut ended = Vec::new();
        while ended.len() < TWINS - 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} writers stay", writers.len());
            let mut still = Vec::new();
            for mut writer in writers {
                match writer.try_wait().unwrap() {
                    Some(status) => ended.push(status.code()),
                    None => still.push(writer),
                }
            }
            writers = still;
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(ended.iter().all(|code| *code == Some(4)), "those kept out end with {ended:?}, not with 4");
        arena.count_many("writers kept out", ended.len() as u64);
        arena.nap(Duration::from_millis(30));
        for writer in &mut writers {
            assert!(writer.try_wait().unwrap().is_none(), "the one that stayed has ended too");
            writer.kill().unwrap();
            wait_for(writer, Duration::from_secs(5));
        }
        store.start();
    }
    crew.finish(&store);
    arena.verify(&mut store);
}

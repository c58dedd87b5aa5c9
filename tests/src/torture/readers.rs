//! Readers that never leave a gap between them, stand still in the middle of a snapshot, and die.

use std::time::Duration;

use penholder_tests::{Process, Store};
use rustix::process::Signal;

use crate::arena::Arena;
use crate::crew::Crew;

/// Readers at a time: with so many there is always one in the middle of a snapshot.
const READERS: usize = 6;

/// Rounds in the life of one store.
const ROUNDS_PER_STORE: u64 = 40;

/// What a WAL may grow to once no reader pins it any more: what the writer cuts it back to, and a batch.
const WAL_BYTES_MAX: u64 = 48 << 20;

pub(crate) fn run(arena: &mut Arena) {
    let mut largest = 0;
    let mut going = arena.next_round();
    while going {
        let mut store = arena.store();
        store.start();
        let crew = Crew::start(&mut store);
        let mut readers: Vec<Process> = (0..READERS).map(|_| store.start_watcher()).collect();
        for _ in 0..ROUNDS_PER_STORE {
            let reader = usize::try_from(arena.random.below(READERS as u64)).unwrap();
            readers[reader].signal(Signal::STOP);
            arena.count("readers stopped");
            arena.nap(Duration::from_millis(300));
            largest = largest.max(wal_bytes(&store));
            if arena.chance(3) {
                readers[reader].kill();
                readers[reader] = store.start_watcher();
                arena.count("readers killed");
            } else {
                readers[reader].signal(Signal::CONT);
            }
            if arena.chance(10) {
                store.kill();
                store.start();
                arena.count("writers killed beside readers");
            }
            going = arena.next_round();
            if !going {
                break;
            }
        }
        crew.finish(&store);
        readers.into_iter().for_each(Process::finish);
        store.let_workers_start();
        store.start_worker(penholder_tests::Mix::Both, 400).finish();
        let bounded = |store: &Store| wal_bytes(store) <= WAL_BYTES_MAX;
        store.wait_until("a WAL that is bounded again", bounded);
        arena.verify(&mut store);
    }
    arena.note(format!("largest WAL {} MiB", largest >> 20));
}

/// Size of the larger WAL; by name, never through a descriptor.
fn wal_bytes(store: &Store) -> u64 {
    let size = |name| {
        let path = store.layout().database(name).with_extension("db-wal");
        path.metadata().map_or(0, |metadata| metadata.len())
    };
    size("activity").max(size("config"))
}

//! Processes that stand still: nobody takes them for dead, and nobody waits for them who need not.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::arena::Arena;
use crate::crew::Crew;

/// Rounds in the life of one store.
const ROUNDS_PER_STORE: u64 = 40;

pub(crate) fn run(arena: &mut Arena) {
    let mut going = arena.next_round();
    while going {
        let mut store = arena.store();
        store.start();
        let mut crew = Crew::start(&mut store);
        for _ in 0..ROUNDS_PER_STORE {
            arena.nap(Duration::from_millis(50));
            match arena.random.below(3) {
                0 => {
                    store.signal(Signal::STOP);
                    arena.count("writers stopped");
                    let second = store.writer_command(false).stderr(Stdio::null()).status().unwrap();
                    assert_eq!(second.code(), Some(4), "a second writer got in while the first stood still");
                    arena.count("writers kept out");
                    arena.nap(Duration::from_millis(300));
                    if arena.chance(2) {
                        store.kill();
                        store.start();
                        arena.count("writers killed while stopped");
                    } else {
                        store.signal(Signal::CONT);
                    }
                }
                1 => {
                    let client = crew.someone(&mut arena.random);
                    client.signal(Signal::STOP);
                    arena.nap(Duration::from_millis(300));
                    // Still standing still: a new writer must not take its segment for finished.
                    if arena.chance(2) {
                        store.kill();
                        store.start();
                        arena.count("writers killed beside a stopped client");
                    }
                    client.signal(Signal::CONT);
                    arena.count("clients stopped");
                    if arena.chance(3) {
                        crew.kill_one(&mut store, &mut arena.random);
                        arena.count("clients killed");
                    }
                }
                _ => {
                    crew.watcher().signal(Signal::STOP);
                    arena.nap(Duration::from_millis(300));
                    crew.watcher().signal(Signal::CONT);
                    arena.count("readers stopped");
                }
            }
            going = arena.next_round();
            if !going {
                break;
            }
        }
        crew.finish(&store);
        arena.verify(&mut store);
    }
}

//! A day in the life of a store: work all the time, and something bad every few seconds.

use std::time::Duration;

use penholder_tests::Store;
use rustix::process::Signal;

use crate::arena::Arena;
use crate::crew::Crew;
use crate::mount::{Boot, Disk};
use crate::scenario::Skip;
use crate::{full, neighbours, power};

/// Longest time between two faults.
const PAUSE: Duration = Duration::from_secs(3);

/// Room on the disk, in MiB: what is not left any more once a store has grown ends its life.
const DISK_MEBIBYTES: u64 = 1024;
const FREE_BYTES_MIN: u64 = 700 << 20;

/// Where there is no disk of its own, so many faults end the life of a store.
const FAULTS_PER_STORE: u64 = 50;

/// A disk with a plug, where this machine allows one.
struct Ground {
    disk: Disk,
    boot: Boot,
}

pub(crate) fn run(arena: &mut Arena) -> Result<(), Skip> {
    let mut going = arena.next_round();
    while going {
        let ground = match Boot::begin(&arena.directory) {
            Ok(boot) => Some(Ground { boot, disk: Disk::ext4(&arena.directory, "soak", DISK_MEBIBYTES)? }),
            Err(_) => None,
        };
        let mut store = arena.store();
        if let Some(ground) = &ground {
            store = store.placed_at(ground.disk.path().join("store"));
        }
        store.settings("[space]\nfree_bytes_min = 0\n");
        store.start();
        let mut crew = Crew::start(&mut store);
        loop {
            arena.nap(PAUSE);
            crew = strike(arena, &mut store, crew, ground.as_ref());
            going = arena.next_round();
            if !going || is_large(arena, ground.as_ref()) {
                break;
            }
        }
        crew.finish(&store);
        arena.verify(&mut store);
    }
    if std::env::var_os("PENHOLDER_TORTURE_PRIVATE").is_none() {
        arena.note("without power cuts and full disks, which need root".into());
    }
    Ok(())
}

/// One random fault; gives back the crew, or a new one if it did not survive.
fn strike(arena: &mut Arena, store: &mut Store, mut crew: Crew, ground: Option<&Ground>) -> Crew {
    match arena.random.below(if ground.is_some() { 9 } else { 7 }) {
        0 | 1 => {
            store.kill();
            arena.count("writers killed");
            store.start();
        }
        2 => {
            crew.kill_one(store, &mut arena.random);
            arena.count("clients killed");
        }
        3 => {
            assert!(store.stop().success());
            arena.count("writers told to end");
            store.start();
        }
        4 => {
            store.signal(Signal::STOP);
            arena.nap(PAUSE);
            store.signal(Signal::CONT);
            arena.count("writers stopped");
        }
        5 => {
            crew.someone(&mut arena.random).signal(Signal::STOP);
            crew.watcher().signal(Signal::STOP);
            arena.nap(PAUSE);
            crew.resume();
            arena.count("clients and readers stopped");
        }
        6 => neighbours::visit(arena, store),
        7 => full::fill_and_free(arena, store, ground.expect("counted").disk.path()),
        _ => {
            let ground = ground.expect("counted");
            power::cut(arena, store, crew, &ground.disk, &ground.boot);
            store.start();
            crew = Crew::start(store);
        }
    }
    crew
}

/// Whether the store has grown as large as it may.
fn is_large(arena: &Arena, ground: Option<&Ground>) -> bool {
    match ground {
        Some(ground) => full::free_bytes(ground.disk.path()) < FREE_BYTES_MIN,
        None => arena.rounds().is_multiple_of(FAULTS_PER_STORE),
    }
}

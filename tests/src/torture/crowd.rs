//! Clients that come, say a word and go, by the thousand: nothing of them is left behind.

use std::path::Path;

use penholder_tests::{Mix, Process, Store};

use crate::arena::Arena;

/// Clients at a time.
const AT_ONCE: usize = 8;

/// Clients of one round.
const CLIENTS_PER_ROUND: u64 = 200;

/// Clients of one store.
const CLIENTS_PER_STORE: u64 = 10_000;

pub(crate) fn run(arena: &mut Arena) {
    let mut going = arena.next_round();
    while going {
        let mut store = arena.store();
        store.start();
        // A writer says that it runs a little before it has opened all that it holds.
        store.start_worker(Mix::All, 1).finish();
        store.wait_until("an empty spool", |store| store.segments().is_empty());
        let before = (store.descriptors(), files(&store.layout().receipts()));
        let mut clients = 0;
        while going && clients < CLIENTS_PER_STORE {
            come_and_go(arena, &mut store);
            clients += CLIENTS_PER_ROUND;
            store.wait_until("an empty spool", |store| store.segments().is_empty());
            store.wait_until("as many descriptors as before", |store| store.descriptors() <= before.0 + 2);
            store.wait_until("as many receipts as before", |store| {
                files(&store.layout().receipts()) <= before.1 + 1
            });

            going = arena.next_round();
        }
        // The rows of finished streams go at a start, and so does what a client died of making.
        for _ in 0..2 {
            assert!(store.stop().success());
            store.start();
        }
        assert_eq!(files(&store.layout().spool_tmp()), 0, "files under construction are left");
        let rows = store.number("activity", "SELECT count(*) FROM _penholder_stream");
        assert!(rows <= 1, "{rows} watermarks are left of {clients} clients that are gone");
        arena.verify(&mut store);
    }
}

fn come_and_go(arena: &mut Arena, store: &mut Store) {
    let mut running: Vec<Process> = Vec::new();
    for _ in 0..CLIENTS_PER_ROUND {
        if running.len() == AT_ONCE {
            running.remove(0).finish();
        }
        running.push(store.start_worker(Mix::All, 1 + arena.random.below(3)));
        if arena.chance(10) {
            running.pop().into_iter().for_each(|mut client| client.kill());
            arena.count("clients killed");
        }
        arena.count("clients");
    }
    running.into_iter().for_each(Process::finish);
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

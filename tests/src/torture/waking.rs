//! Waking: no notifications, too many of them, and a clock that is wrong. Nothing may depend on any of it.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::arena::Arena;
use crate::crew::Crew;
use crate::kill::kill_again_and_again;
use crate::machine;
use crate::scenario::Skip;

pub(crate) fn deaf(arena: &mut Arena) {
    kill_again_and_again(arena, |arena| {
        let store = arena.store();
        store.settings("[wake]\nnotify = false\nsafety_poll_ms = 20\n");
        store
    });
}

pub(crate) fn clock_set_back(arena: &mut Arena) -> Result<(), Skip> {
    machine::need("cc")?;
    let shim = penholder_tests::shim("clock");
    kill_again_and_again(arena, |arena| {
        let mut store = arena.store();
        store.set("LD_PRELOAD", &shim.to_string_lossy());
        store
    });
    arena.note("the wall clock jumped by ten years 14 times a second".into());
    Ok(())
}

/// Holds how many events an inotify instance keeps; an instance takes over what stands there when it is made.
const QUEUE_LENGTH: &str = "/proc/sys/fs/inotify/max_queued_events";

/// So few that any burst overflows it.
const SHORT_QUEUE: &str = "2";

pub(crate) fn overflow(arena: &mut Arena) -> Result<(), Skip> {
    let usual = std::fs::read_to_string(QUEUE_LENGTH).map_err(|error| format!("{QUEUE_LENGTH}: {error}"))?;
    while arena.next_round() {
        let mut store = arena.store();
        std::fs::write(QUEUE_LENGTH, SHORT_QUEUE).map_err(|error| format!("{QUEUE_LENGTH}: {error}"))?;
        let started = store.try_start();
        std::fs::write(Path::new(QUEUE_LENGTH), &usual).unwrap();
        started.unwrap();
        let mut crew = Crew::start(&mut store);
        for _ in 0..4 {
            // While it stands still, nobody takes events from the queue.
            store.signal(Signal::STOP);
            arena.nap(Duration::from_millis(100));
            for _ in 0..3 {
                crew.kill_one(&mut store, &mut arena.random);
            }
            store.signal(Signal::CONT);
            arena.count("queues overflowed");
            arena.nap(Duration::from_millis(200));
        }
        crew.finish(&store);
        store.wait_until("an empty spool", |store| store.segments().is_empty());
        arena.verify(&mut store);
    }
    Ok(())
}

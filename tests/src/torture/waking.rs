//! Waking: no notifications, too many of them, and a clock that is wrong. Nothing may depend on any of it.

use std::fs::File;
use std::time::{Duration, Instant};

use penholder_tests::Store;
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

/// Holds how many events an inotify instance keeps.
const QUEUE_LENGTH: &str = "/proc/sys/fs/inotify/max_queued_events";

/// A longer queue takes too long to fill.
const QUEUE_LENGTH_MAX: usize = 1 << 20;

/// What the writer says of an overflow.
const OVERFLOW: &str = "notifications were lost";

/// How long a writer that goes on may take to read its queue.
const NOTICE_TIME: Duration = Duration::from_secs(5);

/// Bursts in the life of one store.
const BURSTS_PER_STORE: usize = 8;

pub(crate) fn overflow(arena: &mut Arena) -> Result<(), Skip> {
    let read = std::fs::read_to_string(QUEUE_LENGTH).map_err(|error| format!("{QUEUE_LENGTH}: {error}"))?;
    let length: usize = read.trim().parse().map_err(|error| format!("{QUEUE_LENGTH}: {error}"))?;
    if length > QUEUE_LENGTH_MAX {
        return Err(format!("{QUEUE_LENGTH} is {length}: too many to fill"));
    }
    let mut going = arena.next_round();
    while going {
        let mut store = arena.store();
        store.set("RUST_LOG", "info");
        store.start();
        let mut crew = Crew::start(&mut store);
        for _ in 0..BURSTS_PER_STORE {
            burst(arena, &mut store, &mut crew, length);
            going = arena.next_round();
            if !going {
                break;
            }
        }
        crew.finish(&store);
        store.wait_until("an empty spool", |store| store.segments().is_empty());
        arena.verify(&mut store);
    }
    Ok(())
}

/// More events than the queue holds while the writer stands still, with clients that begin among them.
fn burst(arena: &mut Arena, store: &mut Store, crew: &mut Crew, length: usize) {
    // A writer that is busy looks for itself, and has no watch: let it fall asleep first.
    crew.pause();
    std::thread::sleep(Duration::from_millis(300));
    let before = overflows(store);
    store.signal(Signal::STOP);
    crew.resume();
    let noise = store.layout().spool().join("noise");
    // Each makes two events at least, no two of which in a row are the same.
    for _ in 0..=length / 2 {
        File::create(&noise).unwrap();
        std::fs::remove_file(&noise).unwrap();
    }
    crew.kill_one(store, &mut arena.random);
    store.signal(Signal::CONT);
    let until = Instant::now() + NOTICE_TIME;
    while overflows(store) == before && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Without one the writer was not asleep, and had no watch on the spool; of bursts that do nothing alone, the scenario fails.
    arena.count_many("queues that overflowed", u64::from(overflows(store) > before));
    arena.nap(Duration::from_millis(200));
}

fn overflows(store: &Store) -> usize {
    store.complaints().matches(OVERFLOW).count()
}

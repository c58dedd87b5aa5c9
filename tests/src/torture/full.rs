//! Disks that are full, or only say that they are not: the writer stalls, and goes on alone when there is space.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use penholder_protocol::WriterState;
use penholder_tests::Store;
use penholder_tests::promises::note_power_loss;

use crate::arena::Arena;
use crate::crew::Crew;
use crate::machine;
use crate::mount::{Boot, Disk, Memory};
use crate::power;
use crate::scenario::Skip;

/// Size of the small file systems, in MiB.
const SMALL_MEBIBYTES: u64 = 96;

/// Free bytes below which a store has grown too large for its disk, and another one begins.
const FREE_BYTES_MIN: u64 = 48 << 20;

/// Clients may fill the disk: that is what is tried.
const SETTINGS: &str = "[space]\nfree_bytes_min = 0\nballast_bytes = 1048576\n";

pub(crate) fn small_disk(arena: &mut Arena) -> Result<(), Skip> {
    let mut going = arena.next_round();
    let mut ext4 = true;
    while going {
        if ext4 {
            let disk = Disk::ext4(&arena.directory, "small", SMALL_MEBIBYTES)?;
            going = fill_again_and_again(arena, disk.path());
        } else {
            let memory = Memory::of(&arena.directory, "memory", SMALL_MEBIBYTES)?;
            going = fill_again_and_again(arena, memory.path());
        }
        ext4 = !ext4;
    }
    Ok(())
}

/// Plays on one file system until its store has grown too large; false if the scenario has had enough.
fn fill_again_and_again(arena: &mut Arena, disk: &Path) -> bool {
    let mut store = arena.store().placed_at(disk.join("store"));
    store.settings(SETTINGS);
    store.start();
    let crew = Crew::start(&mut store);
    let mut going = true;
    while going && free_bytes(disk) > FREE_BYTES_MIN {
        arena.nap(Duration::from_millis(100));
        fill_and_free(arena, &mut store, disk);
        going = arena.next_round();
    }
    crew.finish(&store);
    arena.verify(&mut store);
    going
}

/// Takes all space away for a while. The writer must still run, or run again, without anybody's help.
pub(crate) fn fill_and_free(arena: &mut Arena, store: &mut Store, disk: &Path) {
    let filler = disk.join("filler");
    fill(&filler);
    arena.count("disks filled");
    let until = Instant::now() + Duration::from_millis(100 + arena.random.below(500));
    let mut stalled = false;
    while Instant::now() < until {
        stalled |= store.control().is_some_and(|control| control.state == WriterState::Stalled);
        if arena.chance(200) {
            store.kill();
            arena.count("writers killed on a full disk");
            start_on_full(store, &filler);
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(&filler).unwrap();
    if stalled {
        arena.count("writers stalled");
        let running = |store: &Store| store.control().is_some_and(|c| c.state == WriterState::Running);
        store.wait_until("the writer to go on with space", running);
    }
    assert!(!store.writer_is_dead(), "the writer gave up on a full disk");
}

/// Starts a writer that finds the disk full, and gives it the space a little later: until then it stalls, or ends.
fn start_on_full(store: &mut Store, filler: &Path) {
    let started = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            std::fs::remove_file(filler).unwrap();
        });
        store.try_start()
    });
    if started.is_err() {
        store.start();
    }
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 64 << 10, 4 << 10, 512] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
    }
}

pub(crate) fn free_bytes(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).unwrap();
    space.f_bavail * space.f_frsize
}

/// What the thin device really has, in MiB; it says that it has four times as much.
const THIN_MEBIBYTES: u64 = 32;

/// Takes most of it, so that the clients come to its end soon.
const FILLER_BYTES: usize = 14 << 20;

/// Longest time in which the clients come to its end.
const FILLING_TIME: Duration = Duration::from_secs(40);

pub(crate) fn thin_device(arena: &mut Arena) -> Result<(), Skip> {
    let boot = Boot::begin(&arena.directory)?;
    while arena.next_round() {
        let memory = Memory::of(&arena.directory, "thin", THIN_MEBIBYTES)?;
        let disk = Disk::thin_ext4(memory.path(), "disk", 4 * THIN_MEBIBYTES)?;
        let mut store = arena.store().placed_at(disk.path().join("store"));
        store.settings("[space]\nfree_bytes_min = 0\nballast_bytes = 0\n");
        std::fs::write(disk.path().join("filler"), vec![1; FILLER_BYTES]).unwrap();
        machine::run("sync", &["-f", &disk.path().to_string_lossy()])?;
        store.start();
        let crew = Crew::start(&mut store);
        let begun = Instant::now();
        while !has_failed(&store) && begun.elapsed() < FILLING_TIME {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !has_failed(&store) {
            // Too slow a machine: nothing was tried, and nothing is counted.
            crew.kill_all();
            continue;
        }
        arena.count("devices that failed");
        arena.nap(Duration::from_millis(500));
        if arena.chance(2) {
            work_on(arena, &mut store, crew, &memory);
            let crew = Crew::start(&mut store);
            arena.nap(Duration::from_millis(500));
            power::cut(arena, &mut store, crew, &disk, &boot);
        } else {
            lose_what_failed(arena, &mut store, crew, &memory, &disk);
            boot.again(arena.rounds() + 1);
        }
        arena.verify(&mut store);
    }
    Ok(())
}

/// There is space again, and nothing was unmounted: every process reads what was written, though the device has not
/// got all of it. A writer goes on from there, the same one or another.
fn work_on(arena: &mut Arena, store: &mut Store, crew: Crew, memory: &Memory) {
    let dead = store.writer_is_dead();
    if dead || arena.chance(2) {
        arena.count(if dead { "writers that gave up" } else { "writers killed after a failed sync" });
        store.kill();
        crew.kill_all();
        memory.resize(8 * THIN_MEBIBYTES);
        store.start();
    } else {
        arena.count("writers that went on");
        memory.resize(8 * THIN_MEBIBYTES);
        let running = |store: &Store| store.control().is_some_and(|c| c.state == WriterState::Running);
        store.wait_until("the writer to go on with space", running);
        crew.kill_all();
    }
}

/// Unmounts while there is no space: what the device has not got is gone.
fn lose_what_failed(arena: &mut Arena, store: &mut Store, crew: Crew, memory: &Memory, disk: &Disk) {
    crew.kill_all();
    store.kill();
    // Of every log its whole length: all that was promised was heard.
    let logs = std::fs::read_dir(store.logs()).unwrap().map(Result::unwrap);
    let lengths = logs.map(|log| (log.path(), log.metadata().unwrap().len())).collect();
    note_power_loss(&store.logs(), &lengths);
    disk.unmount().unwrap();
    arena.count("unmounted without space");
    memory.resize(8 * THIN_MEBIBYTES);
    disk.mount().unwrap();
}

fn has_failed(store: &Store) -> bool {
    store.writer_is_dead() || store.control().is_none_or(|control| control.state == WriterState::Stalled)
}

//! Power cuts on a real file system: what was durable or applied is there afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use penholder_tests::Store;
use penholder_tests::promises::note_power_loss;

use crate::arena::Arena;
use crate::crew::Crew;
use crate::machine;
use crate::mount::{Boot, Disk};
use crate::scenario::Skip;

/// Cuts in the life of one store, and of its file system.
const CUTS_PER_STORE: u64 = 10;

/// Room for what the clients write between two file systems, in MiB.
const DISK_MEBIBYTES: u64 = 512;

pub(crate) fn run(arena: &mut Arena) -> Result<(), Skip> {
    let boot = Boot::begin(&arena.directory)?;
    let mut going = arena.next_round();
    while going {
        let disk = Disk::ext4(&arena.directory, "disk", DISK_MEBIBYTES)?;
        let mut store = arena.store().placed_at(disk.path().join("store"));
        for _ in 0..CUTS_PER_STORE {
            store.start();
            let crew = Crew::start(&mut store);
            arena.nap(Duration::from_millis(250));
            cut(arena, &mut store, crew, &disk, &boot);
            if arena.chance(4) {
                cut_during_start(arena, &store, &disk, &boot);
            }
            going = arena.next_round();
            if !going {
                break;
            }
        }
        arena.verify(&mut store);
    }
    Ok(())
}

/// A power cut, up to where the next start of the writer is due.
pub(crate) fn cut(arena: &mut Arena, store: &mut Store, crew: Crew, disk: &Disk, boot: &Boot) {
    let lengths = disk.cut_power(&store.logs());
    arena.count("power cuts");
    crew.kill_all();
    store.kill();
    start_again(arena, store, disk, boot, &lengths);
}

fn start_again(arena: &Arena, store: &Store, disk: &Disk, boot: &Boot, lengths: &BTreeMap<PathBuf, u64>) {
    note_power_loss(&store.logs(), lengths);
    disk.mount_again();
    keep_for_autopsy(arena, store);
    let cuts = arena.faults.get("power cuts").copied().unwrap_or(0);
    boot.again(cuts + 1);
}

/// Another cut before recovery from the one before is over.
fn cut_during_start(arena: &mut Arena, store: &Store, disk: &Disk, boot: &Boot) {
    let mut writer = store.writer_command(false).spawn().unwrap();
    arena.nap(Duration::from_millis(25));
    let lengths = disk.cut_power(&store.logs());
    arena.count("power cuts");
    arena.count("of them while the writer starts");
    // It may have ended by itself: its disk is gone.
    writer.kill().ok();
    writer.wait().unwrap();
    start_again(arena, store, disk, boot, &lengths);
}

/// Saves what the last power cut left, before a writer mends it.
fn keep_for_autopsy(arena: &Arena, store: &Store) {
    let kept = arena.directory.join("as-the-cut-left-it");
    if kept.exists() {
        std::fs::remove_dir_all(&kept).unwrap();
    }
    machine::run("cp", &["-a", &store.path().to_string_lossy(), &kept.to_string_lossy()]).unwrap();
}

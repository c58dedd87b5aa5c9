//! Power cuts on the simulated disk: which there are, and what a real writer makes of what they leave.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Disk, Image, Recording, Step};
use crate::promises::note_power_loss;
use crate::{Mix, Random, Store, Verdict};

/// A recorded piece of work: a store is made, written to by several clients, killed, restarted, and ended.
#[derive(Debug)]
pub struct Script {
    pub(super) recording: Recording,
    /// Steps after which everything had reached the medium.
    pub(super) settled: usize,
    /// What stood before every path.
    root: String,
}

/// A power cut after a step, and which of the changes that were not synced survive it.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Steps before it.
    pub step: usize,
    /// Changes that are lost.
    pub(super) lost: Vec<usize>,
}

impl Script {
    /// Plays the work once, with real processes.
    #[must_use]
    pub fn record() -> Self {
        Self::of(|store| {
            store.start();
            let workers = [store.start_worker(Mix::All, 14), store.start_worker(Mix::Both, 6)];
            workers.into_iter().for_each(crate::Process::finish);
            assert!(store.stop().success());
            let waiting = store.start_worker(Mix::All, 8);
            store.start();
            waiting.finish();
            store.kill();
            store.start();
            store.start_worker(Mix::Activity, 6).finish();
            assert!(store.stop().success());
        })
    }

    /// Records what the processes of a new store do; the writer is killed in the end if it still runs.
    #[must_use]
    pub fn of(work: impl FnOnce(&mut Store)) -> Self {
        Self::after(|_| (), work)
    }

    /// Records what they do once what `before` did has reached the medium.
    #[must_use]
    pub fn after(before: impl FnOnce(&mut Store), work: impl FnOnce(&mut Store)) -> Self {
        let mut store = Store::new().quiet();
        Recording::begin(&mut store);
        before(&mut store);
        let settled = Recording::so_far(&store).steps.len();
        work(&mut store);
        store.kill_if_running();
        let root = store.scratch().to_string_lossy().into_owned();
        Self { recording: Recording::end(&mut store), settled, root }
    }

    /// Syncs that failed.
    #[must_use]
    pub fn failed_syncs(&self) -> usize {
        self.recording.steps.iter().filter(|step| matches!(step, Step::SyncFailed { .. })).count()
    }

    /// A cut at the end that takes everything that was not synced.
    #[must_use]
    pub fn recover_from_synced(&self) -> Verdict {
        let disk = self.disk_after(self.steps());
        self.recover_image(&disk, &disk.after_cut(|_| false, None))
    }

    /// A cut at the end that takes any part of it.
    #[must_use]
    pub fn recover_from_end(&self, random: &mut Random) -> Verdict {
        let disk = self.disk_after(self.steps());
        self.recover_image(&disk, &disk.random_cut(random))
    }

    /// Steps of the script.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.recording.steps.len()
    }

    /// Lets a writer recover from a cut, and has the ledger verified.
    #[must_use]
    pub fn recover(&self, cut: &Cut) -> Verdict {
        let disk = self.disk_after(cut.step);
        self.recover_image(&disk, &disk.after_cut(|at| !cut.lost.contains(&at), None))
    }

    /// A cut at a random moment, which may take any part of anything, SQLite's files too.
    #[must_use]
    pub fn recover_from_random(&self, random: &mut Random) -> Verdict {
        let step = usize::try_from(random.below(self.steps() as u64 + 1)).unwrap();
        let disk = self.disk_after(step);
        let image = disk.random_cut(random);
        self.recover_image(&disk, &image)
    }

    pub(super) fn disk_after(&self, steps: usize) -> Disk {
        let mut disk = Disk::default();
        for (at, step) in self.recording.steps[..steps].iter().enumerate() {
            if at == self.settled {
                disk.settle_all();
            }
            disk.feed(step);
        }
        disk
    }

    fn recover_image(&self, disk: &Disk, image: &Image) -> Verdict {
        let store = Store::within(&in_memory()).quiet();
        image.lay_out(&format!("{}/store", self.root), &store.path());
        disk.now().lay_out(&format!("{}/logs", self.root), &store.logs());
        let heard = std::fs::read_dir(store.logs()).into_iter().flatten().map(Result::unwrap);
        let lengths: BTreeMap<_, _> = heard.map(|log| (log.path(), log.metadata().unwrap().len())).collect();
        note_power_loss(&store.logs(), &lengths);
        store.settle_here_and_verify()
    }
}

/// Where states are laid out: syncs have nothing to tell any more, and cost most of the time on a disk.
fn in_memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

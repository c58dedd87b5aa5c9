//! Power cuts on the simulated disk: which there are, and what a real writer makes of what they leave.

use std::collections::BTreeMap;

use super::{Disk, Image, Recording, Step};
use crate::promises::note_power_loss;
use crate::{Mix, Random, Store, Verdict};

/// Changes of which every subset is tried; of more, so many random ones.
const CHANGES_TRIED_ALL: usize = 4;

/// A recorded piece of work: a store is made, written to by several clients, killed, restarted, and ended.
#[derive(Debug)]
pub struct Script {
    recording: Recording,
    /// What stood before every path.
    root: String,
}

/// A power cut after a step, and which of the changes that were not synced survive it.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Steps before it.
    pub step: usize,
    /// Changes that are lost.
    lost: Vec<usize>,
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
        let mut store = Store::new().quiet();
        Recording::begin(&mut store);
        work(&mut store);
        store.kill_if_running();
        let root = store.scratch().to_string_lossy().into_owned();
        Self { recording: Recording::end(&mut store), root }
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

    /// Every cut that differs in the spool, the receipts and the control file, while SQLite's files are as their
    /// last writer left them.
    #[must_use]
    pub fn cuts_of_small_files(&self, random: &mut Random) -> Vec<Cut> {
        let mut disk = Disk::default();
        let mut cuts = Vec::new();
        for (at, step) in self.recording.steps.iter().enumerate() {
            disk.feed(step);
            let open = disk.open_changes(is_small);
            if is_of_database(step, &disk) {
                continue;
            }
            let subsets: Vec<Vec<usize>> = if open.len() <= CHANGES_TRIED_ALL {
                (0..1_u64 << open.len()).map(|mask| subset(&open, mask)).collect()
            } else {
                let all = (1..=2).map(|which| subset(&open, u64::MAX * (which % 2)));
                let drawn: Vec<u64> = (0..1 << CHANGES_TRIED_ALL).map(|_| random.bits()).collect();
                all.chain(drawn.into_iter().map(|mask| subset(&open, mask))).collect()
            };
            cuts.extend(subsets.into_iter().map(|lost| Cut { step: at + 1, lost }));
        }
        cuts
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

    fn disk_after(&self, steps: usize) -> Disk {
        let mut disk = Disk::default();
        self.recording.steps[..steps].iter().for_each(|step| disk.feed(step));
        disk
    }

    fn recover_image(&self, disk: &Disk, image: &Image) -> Verdict {
        let mut store = Store::new().quiet();
        image.lay_out(&format!("{}/store", self.root), &store.path());
        disk.now().lay_out(&format!("{}/logs", self.root), &store.logs());
        let heard = std::fs::read_dir(store.logs()).into_iter().flatten().map(Result::unwrap);
        let lengths: BTreeMap<_, _> = heard.map(|log| (log.path(), log.metadata().unwrap().len())).collect();
        note_power_loss(&store.logs(), &lengths);
        store.settle_and_verify()
    }
}

fn subset(open: &[usize], mask: u64) -> Vec<usize> {
    open.iter().enumerate().filter(|(at, _)| mask >> (at % 64) & 1 == 1).map(|(_, change)| *change).collect()
}

fn is_small(path: &str) -> bool {
    ["/spool", "/receipts", "/control", "/quarantine"].iter().any(|part| path.contains(part))
}

/// Whether a step changes nothing but a database, or nothing at all that a cut could take.
fn is_of_database(step: &Step, disk: &Disk) -> bool {
    match step {
        Step::Create { path, .. } | Step::Unlink { path } | Step::MakeDirectory { path } => !is_small(path),
        Step::SyncDirectory { path } => !is_small(path) && !path.ends_with("/store"),
        Step::Rename { to, .. } => !is_small(to),
        Step::Write { inode, .. }
        | Step::Truncate { inode, .. }
        | Step::Sync { inode }
        | Step::SyncFailed { inode }
        | Step::Forget { inode } => disk.name_of(*inode).is_none_or(|name| !is_small(&name)),
    }
}

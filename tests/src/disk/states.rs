//! Every state that a power cut may leave of the spool, the receipts and the control file, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use super::{Cut, Disk, Image, Script, Step};
use crate::Random;

/// The power cuts of a script that differ in what they leave.
#[derive(Debug)]
pub struct States {
    /// One cut per state: the last one that leaves it, after which most was promised.
    pub cuts: Vec<Cut>,
    /// Steps after which the power was cut.
    pub steps: usize,
    /// Those of them of whose states only a random part is among the cuts.
    pub sampled: usize,
}

impl Script {
    /// The states of the small files after every step, while SQLite's files are as their last writer left them.
    ///
    /// A step of a database changes no small file: there, all small changes arrived, or none. Of a step with more than
    /// `most` states, so many random ones are taken.
    #[must_use]
    pub fn states_of_small_files(&self, random: &mut Random, most: usize) -> States {
        let mut disk = self.disk_after(self.settled);
        disk.settle_all();
        let mut known: BTreeMap<(usize, u64), Cut> = BTreeMap::new();
        let (mut database_steps, mut sampled) = (0, 0);
        for (at, step) in self.recording.steps.iter().enumerate().skip(self.settled) {
            disk.feed(step);
            let open = disk.open_changes(is_small);
            let of_database = is_of_database(step, &disk);
            database_steps += usize::from(of_database);
            let (states, is_complete) = if of_database {
                (vec![Vec::new(), open], true)
            } else {
                distinct(&disk, &open, random, most)
            };
            sampled += usize::from(!is_complete);
            for lost in states {
                let state = fingerprint(&small_image(&disk, &lost));
                known.insert((database_steps, state), Cut { step: at + 1, lost });
            }
        }
        States { cuts: known.into_values().collect(), steps: self.steps() - self.settled, sampled }
    }
}

/// What may be lost of the open changes, one choice for each different state that is left; and whether these are all.
fn distinct(disk: &Disk, open: &[usize], random: &mut Random, most: usize) -> (Vec<Vec<usize>>, bool) {
    let mut states: Vec<(Image, Vec<usize>)> = vec![(disk.synced.only(is_small), Vec::new())];
    let mut is_complete = true;
    for change in open {
        let mut seen: BTreeSet<u64> = BTreeSet::new();
        let mut next = Vec::new();
        for (image, lost) in states {
            let mut with = image.clone();
            with.apply(&disk.pending[*change]);
            let mut without = lost.clone();
            without.push(*change);
            for (image, lost) in [(with, lost), (image, without)] {
                if seen.insert(fingerprint(&image)) {
                    next.push((image, lost));
                }
            }
        }
        while next.len() > most {
            is_complete = false;
            let victim = usize::try_from(random.below(next.len() as u64)).unwrap();
            next.swap_remove(victim);
        }
        states = next;
    }
    (states.into_iter().map(|(_, lost)| lost).collect(), is_complete)
}

fn small_image(disk: &Disk, lost: &[usize]) -> Image {
    disk.after_cut(|at| !lost.contains(&at), None).only(is_small)
}

fn fingerprint(image: &Image) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash_named(&mut hasher);
    hasher.finish()
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

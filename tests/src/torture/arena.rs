//! Where a scenario plays: its bound, its random choices, its stores, and what it counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penholder_tests::{Random, Store};

/// How long a scenario plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// As long as it is worth it.
    Usual,
    /// So many rounds.
    Rounds(u64),
    /// So long.
    Time(Duration),
}

/// The playing field of one scenario.
pub(crate) struct Arena {
    /// The stores of this scenario; kept if it fails.
    pub(crate) directory: PathBuf,
    pub(crate) random: Random,
    pub(crate) begun: Instant,
    /// Faults that really happened.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Commands that the oracle has looked at.
    pub(crate) commands: u64,
    pub(crate) notes: Vec<String>,
    bound: Bound,
    rounds: u64,
}

impl Arena {
    pub(crate) fn new(name: &str, seed: u64, bound: Bound, directory: &Path) -> Self {
        let directory = directory.join(format!("penholder-torture-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self {
            directory,
            random: Random::new(seed),
            begun: Instant::now(),
            faults: BTreeMap::new(),
            commands: 0,
            notes: Vec::new(),
            bound,
            rounds: 0,
        }
    }

    /// Begins another round, unless there were enough.
    pub(crate) fn next_round(&mut self) -> bool {
        let goes_on = match self.bound {
            Bound::Usual => false,
            Bound::Rounds(rounds) => self.rounds < rounds,
            Bound::Time(time) => self.begun.elapsed() < time,
        };
        self.rounds += u64::from(goes_on);
        goes_on
    }

    /// Rounds begun so far.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Counts a fault that really happened.
    pub(crate) fn count(&mut self, fault: &'static str) {
        self.count_many(fault, 1);
    }

    pub(crate) fn count_many(&mut self, fault: &'static str, times: u64) {
        *self.faults.entry(fault).or_default() += times;
    }

    /// Remembers something worth a word in the report.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// A new store whose processes complain into a file.
    pub(crate) fn store(&self) -> Store {
        Store::within(&self.directory).quiet()
    }

    /// Sleeps for a random time below `most`.
    pub(crate) fn nap(&mut self, most: Duration) {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(self.random.below(most.max(1))));
    }

    /// True once in `times`.
    pub(crate) fn chance(&mut self, times: u64) -> bool {
        self.random.below(times) == 0
    }

    /// Ends the writer, applies what is left, and has the ledger verified.
    pub(crate) fn verify(&mut self, store: &mut Store) {
        let verdict = store.settle_and_verify();
        verdict.expect_clean();
        self.commands += verdict.applied + verdict.rejected;
    }
}

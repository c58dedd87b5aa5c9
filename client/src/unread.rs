//! Outcomes that were read from a receipt file and not asked for yet.

use std::collections::BTreeMap;

use penholder_protocol::{Outcome, Sequence};

/// Most outcomes kept; the oldest are dropped first.
const OUTCOMES_COUNT_MAX: usize = 65_536;

/// Most bytes of their records.
const OUTCOMES_BYTES_MAX: usize = 16 << 20;

/// The outcomes that are kept, and for which commands one may have been lost.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    outcomes: BTreeMap<Sequence, (Outcome, usize)>,
    bytes: usize,
    /// Every command up to this one has no further record: records come in the order of the commands.
    settled: Sequence,
    /// Records are missing behind `settled`, up to where the next one tells.
    gap: bool,
    /// First and last command between which a rejection may have been lost.
    lost: Option<(Sequence, Sequence)>,
}

impl Unread {
    /// Keeps an outcome; what was applied loses its details when there is no room, what was rejected is remembered as
    /// lost.
    pub(crate) fn keep(&mut self, sequence: Sequence, outcome: Outcome, bytes: usize) {
        self.complete(Sequence(sequence.0.saturating_sub(1)));
        self.settled = self.settled.max(sequence);
        self.bytes += bytes;
        if let Some((_, replaced)) = self.outcomes.insert(sequence, (outcome, bytes)) {
            self.bytes -= replaced;
        }
        while self.outcomes.len() > OUTCOMES_COUNT_MAX || self.bytes > OUTCOMES_BYTES_MAX {
            let Some((oldest, (outcome, bytes))) = self.outcomes.pop_first() else { break };
            self.bytes -= bytes;
            if matches!(outcome, Outcome::Rejected(_)) {
                self.lose(oldest, oldest);
            }
        }
    }

    /// Takes note that some records could not be read.
    pub(crate) fn gap(&mut self) {
        self.gap = true;
    }

    /// Takes note that there is no further record for a command up to `through`.
    pub(crate) fn complete(&mut self, through: Sequence) {
        if self.gap && through > self.settled {
            self.lose(self.settled.next(), through);
        }
        self.gap = false;
        self.settled = self.settled.max(through);
    }

    /// Every command up to this one has an outcome, and no further record.
    pub(crate) fn settled(&self) -> Sequence {
        self.settled
    }

    /// The outcome of a command. Results are handed out once; a rejection stays, as nothing else tells it from success.
    pub(crate) fn take(&mut self, sequence: Sequence) -> Option<Outcome> {
        match self.outcomes.get(&sequence)? {
            (rejected @ Outcome::Rejected(_), _) => Some(rejected.clone()),
            (Outcome::Applied(_), _) => {
                let (outcome, bytes) = self.outcomes.remove(&sequence)?;
                self.bytes -= bytes;
                Some(outcome)
            }
        }
    }

    /// Whether a rejection of this command may have been lost.
    pub(crate) fn may_have_lost(&self, sequence: Sequence) -> bool {
        self.lost.is_some_and(|(first, last)| (first..=last).contains(&sequence))
    }

    fn lose(&mut self, first: Sequence, last: Sequence) {
        let (old_first, old_last) = self.lost.unwrap_or((first, last));
        self.lost = Some((old_first.min(first), old_last.max(last)));
    }
}

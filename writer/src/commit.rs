//! Applies a batch and makes it durable with its watermarks: one transaction per database, in one known order.
//!
//! The only module that begins and commits the transactions of commands.

use std::collections::HashMap;
use std::time::Instant;

use penholder_protocol::{Applied, Command, Outcome, Rejection, Sequence, StreamId, Tick, encode_commands};

use crate::apply::{self, COMMAND_BYTES_MAX, Verdict};
use crate::batch::{Entry, Touches, touches_of};
use crate::clock::{Clock, Counts};
use crate::control::ControlFile;
use crate::database::{Database, VALUE_BYTES_MAX};
use crate::references::{ADDED_BYTES_MAX, References};
use crate::suspect::Suspicion;
use crate::watermark::Watermarks;
use crate::{Config, Error, crash, fence, redo, rejected};

/// What became of a batch. Nothing of it may be told before this value exists.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The tick of the batch; of the last one if nothing had to be applied.
    pub(crate) tick: Tick,
    /// The databases in which something was committed.
    pub(crate) touches: Touches,
    /// The commands that have their outcome now.
    pub(crate) entries: Vec<Entry>,
    /// Their outcomes, in the same order.
    pub(crate) outcomes: Vec<Outcome>,
    /// The commands that were cut off, to be applied next.
    pub(crate) rest: Vec<Entry>,
    /// Commits by somebody else that were noticed.
    pub(crate) foreign_writes: u64,
}

/// The databases, and all that a commit moves of what is known about them.
pub(crate) struct Books<'c> {
    pub(crate) databases: Vec<Database<'c>>,
    pub(crate) clock: Clock,
    /// Per database, the data version last seen; our own commits do not change it.
    pub(crate) data_versions: Vec<i64>,
    /// Databases whose transaction was begun ahead and holds nothing yet.
    pub(crate) begun: Touches,
    pub(crate) references: References,
}

/// Who commits.
pub(crate) struct Committer<'a, 'c> {
    pub(crate) books: &'a mut Books<'c>,
    /// As they were before the batch.
    pub(crate) watermarks: &'a Watermarks,
    pub(crate) suspicion: &'a Suspicion,
    pub(crate) control: &'a mut ControlFile,
    pub(crate) config: &'a Config,
}

/// Short commands between two looks at the clock.
const CLOCK_STRIDE: usize = 16;

/// Most bytes of the commands in one redo row; the row takes a few more.
const REDO_BYTES_MAX: usize = VALUE_BYTES_MAX - 1024;

const _: () = assert!(COMMAND_BYTES_MAX + ADDED_BYTES_MAX <= REDO_BYTES_MAX);

/// How far one attempt at a batch came.
enum Attempt {
    /// Every entry has its outcome; so many entries were reached within the time.
    Complete(Vec<Outcome>),
    /// The entry at this index must be left out.
    Spoilt(usize, Rejection),
}

impl Committer<'_, '_> {
    /// Commits a batch. An `Err` says that the machine failed: what was committed is known only after reopening.
    pub(crate) fn commit(&mut self, mut entries: Vec<Entry>) -> Result<Committed, Error> {
        let mut condemned = HashMap::new();
        let mut rest = Vec::new();
        let mut foreign_writes = 0;
        loop {
            let touches = touches_of(&entries);
            let tick = if touches.is_empty() { self.last_tick() } else { self.books.clock.next() };
            self.end_ahead(touches)?;
            foreign_writes += self.begin(touches)?;
            self.books.begun = Touches::default();
            match self.attempt(&mut entries, &mut rest, &condemned, touches, tick) {
                Err(error) if error.is_contradiction() && !self.is_committed(touches, &error) => {
                    self.roll_back(touches)?;
                    // A virtual table writes what it collected when a savepoint or the transaction ends: it may be any one.
                    if entries.len() > 1 {
                        rest.splice(0..0, entries.drain(entries.len().div_ceil(2)..));
                    } else {
                        condemned.insert(0, apply::contradiction(None));
                    }
                }
                Err(error) => return Err(error),
                Ok(Attempt::Spoilt(index, rejection)) => {
                    self.roll_back(touches)?;
                    // What follows the offender goes into the next batch, so that many offenders cost linear time.
                    rest.splice(0..0, entries.drain(index + 1..));
                    condemned.insert(index, rejection);
                }
                Ok(Attempt::Complete(outcomes)) => {
                    assert!(
                        self.books.databases.iter().all(|database| database.connection.is_autocommit()),
                        "what is told is committed in every database"
                    );
                    self.books.clock.note(touches, tick);
                    return Ok(Committed { tick, touches, entries, outcomes, rest, foreign_writes });
                }
            }
        }
    }

    /// Applies and commits a batch once.
    fn attempt(
        &mut self,
        entries: &mut Vec<Entry>,
        rest: &mut Vec<Entry>,
        condemned: &HashMap<usize, Rejection>,
        touches: Touches,
        tick: Tick,
    ) -> Result<Attempt, Error> {
        let attempt = self.apply_all(entries, rest, condemned, tick)?;
        if let Attempt::Complete(outcomes) = &attempt {
            self.seal(entries, outcomes, touches, tick)?;
            self.suspicion.acquit(self.control)?;
            self.commit_all(touches)?;
        }
        Ok(attempt)
    }

    /// Begins the transactions of a batch that is expected soon, so that it need not wait for that; says how many commits
    /// by somebody else were noticed.
    pub(crate) fn begin_ahead(&mut self, touches: Touches) -> Result<u64, Error> {
        let foreign = self.begin(touches)?;
        self.books.begun = self.books.begun.and(touches);
        Ok(foreign)
    }

    /// Gives up what was begun ahead and is not among `wanted`.
    pub(crate) fn end_ahead(&mut self, wanted: Touches) -> Result<(), Error> {
        let idle = self.books.begun.without(wanted);
        self.books.begun = self.books.begun.without(idle);
        self.roll_back(idle)
    }

    fn begin(&mut self, touches: Touches) -> Result<u64, Error> {
        let mut foreign = 0;
        for index in touches.without(self.books.begun).iter() {
            let Some(database) = self.books.databases.get(index) else { continue };
            database.run("begin a batch in", "BEGIN IMMEDIATE", [])?;
            let version = database.data_version()?;
            if let Some(last) = self.books.data_versions.get_mut(index).filter(|last| **last != version) {
                log::error!(
                    "{}.db was written by another program: stop it, it can destroy data",
                    database.name
                );
                *last = version;
                foreign += 1;
            }
        }
        Ok(foreign)
    }

    /// Runs the entries in order, until the batch has had its time or its redo row might not hold the next one.
    fn apply_all(
        &mut self,
        entries: &mut Vec<Entry>,
        rest: &mut Vec<Entry>,
        condemned: &HashMap<usize, Rejection>,
        tick: Tick,
    ) -> Result<Attempt, Error> {
        fence::watch_heap();
        let started = Instant::now();
        self.books.references.begin_batch();
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut redo_bytes = ADDED_BYTES_MAX;
        for (index, entry) in entries.iter().enumerate() {
            let look = index % CLOCK_STRIDE == 0 || self.books.databases.iter().any(|d| d.guard.took_long());
            let late = look && started.elapsed() > self.config.batch_time_max;
            // A larger one is rejected, and only named there.
            redo_bytes += if entry.is_done { 0 } else { entry.bytes.min(COMMAND_BYTES_MAX) };
            let full = redo_bytes + self.books.references.added_bytes() > REDO_BYTES_MAX;
            if index > 0 && (late || full) {
                break;
            }
            outcomes.push(if entry.is_done {
                rejected::outcome_of(&self.books.databases, entry, tick)?
            } else if let Some(rejection) =
                condemned.get(&index).cloned().or_else(|| self.suspicion.verdict(entry))
            {
                Outcome::Rejected(rejection)
            } else {
                let deadline = self.config.command_deadline;
                match apply::apply(
                    &mut self.books.databases,
                    &mut self.books.references,
                    entry,
                    tick,
                    deadline,
                )? {
                    Verdict::Decided(outcome) => outcome,
                    Verdict::Spoilt(rejection) => return Ok(Attempt::Spoilt(index, rejection)),
                }
            });
        }
        rest.splice(0..0, entries.drain(outcomes.len()..));
        Ok(Attempt::Complete(outcomes))
    }

    /// Adds to the open transactions what makes the effects count once: watermarks, rejections, redo, clock.
    fn seal(
        &self,
        entries: &[Entry],
        outcomes: &[Outcome],
        touches: Touches,
        tick: Tick,
    ) -> Result<(), Error> {
        for index in touches.iter() {
            let Some(database) = self.books.databases.get(index) else { continue };
            let mut counts = Counts::default();
            for (entry, outcome) in entries.iter().zip(outcomes).filter(|(entry, _)| !entry.is_done) {
                let first = entry.touches.first() == index;
                match outcome {
                    Outcome::Applied(_) => counts.applied += u64::from(first),
                    Outcome::Rejected(rejection) => {
                        counts.rejected += u64::from(first);
                        if entry.touches.contains(index) {
                            rejected::record(database, entry, rejection, tick)?;
                        }
                    }
                }
            }
            self.watermarks.advance(index, database, entries)?;
            self.books.clock.write(index, database, &self.books.databases, touches, tick, counts)?;
        }
        if let Some(database) = self.books.databases.get(touches.first())
            && entries.iter().any(|entry| !entry.is_done && entry.touches.are_several())
        {
            let batch = self.redo(entries, outcomes);
            redo::store(database, tick, &encode_commands(batch.into_iter()))?;
        }
        Ok(())
    }

    /// What the databases that commit later need, to follow the first after a crash.
    fn redo(&self, entries: &[Entry], outcomes: &[Outcome]) -> Vec<(StreamId, Sequence, Command)> {
        let mut added = self.books.references.added().iter().peekable();
        let mut batch = Vec::with_capacity(entries.len());
        for (entry, outcome) in entries.iter().zip(outcomes).filter(|(entry, _)| !entry.is_done) {
            let command = match outcome {
                Outcome::Applied(_) => entry.command.read().unpack(),
                Outcome::Rejected(_) => redo::stub(&self.books.databases, entry.command.read()),
            };
            batch.push((entry.stream, entry.sequence, command));
            let is_its_own =
                |more: &&(StreamId, Sequence, _)| (more.0, more.1) == (entry.stream, entry.sequence);
            batch.extend(std::iter::from_fn(|| added.next_if(is_its_own)).cloned());
        }
        batch
    }

    fn commit_all(&self, touches: Touches) -> Result<(), Error> {
        for index in touches.iter() {
            let Some(database) = self.books.databases.get(index) else { continue };
            crash::point("before_commit");
            database.run("commit a batch to", "COMMIT", [])?;
            crash::point("after_commit");
        }
        Ok(())
    }

    /// Whether the first database of a batch had committed when another one failed.
    fn is_committed(&self, touches: Touches, error: &Error) -> bool {
        self.books.databases.get(touches.first()).is_some_and(|first| {
            let failed = matches!(error, Error::Sqlite { database, .. } if *database == first.name);
            first.connection.is_autocommit() && !failed
        })
    }

    fn roll_back(&self, touches: Touches) -> Result<(), Error> {
        let open = |index: &usize| self.books.databases.get(*index).filter(|d| !d.connection.is_autocommit());
        for database in touches.iter().filter_map(|index| open(&index)) {
            database.run("roll a batch back in", "ROLLBACK", [])?;
        }
        Ok(())
    }

    fn last_tick(&self) -> Tick {
        (0..self.books.databases.len()).map(|index| self.books.clock.of(index)).max().unwrap_or_default()
    }
}

/// The outcome of a command whose details are gone.
pub(crate) fn applied_without_details(tick: Tick) -> Outcome {
    Outcome::Applied(Applied { tick, results: None })
}

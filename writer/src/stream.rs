//! One stream as the writer follows it: its segments in order, and the commands read and not yet applied.

mod entries;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penholder_protocol::{
    Epoch, Layout, SegmentHeader, SegmentKind, SegmentName, Sequence, StoreId, StreamId,
};

use crate::Error;
use crate::arrivals::Walks;
use crate::batch::Entry;
use crate::grants::{Grants, Roles};
use crate::quarantine::Condemned;
use crate::references::Along;
use crate::segment::{Read, Segment, Trouble};
use crate::watermark::Watermarks;

/// Segments of a stream that are remembered ahead of the one that is read; those behind are found again later.
const WAITING_COUNT_MAX: usize = 1024;

/// Polls without data after which a stream is quiet.
const HOT_POLLS: u32 = 256;

/// How long a frame that does not validate may still be half visible, while its owner lives.
const SUSPICION_TIME: Duration = Duration::from_millis(10);

/// What every stream is read against.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) layout: Layout,
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    /// Streams of this epoch and below that no database knows are restored old files.
    pub(crate) floor: Epoch,
    /// Who may submit, and what.
    pub(crate) grants: Arc<Grants>,
    /// What a command touches along with the databases it names.
    pub(crate) along: Along,
    /// Names of the databases, in commit order.
    pub(crate) databases: Vec<String>,
    /// Bytes of decoded commands at which a stream waits for its next turn.
    pub(crate) turn_bytes: usize,
    /// The file system of the spool.
    pub(crate) device: u64,
    /// Streams that are followed at once.
    pub(crate) streams_max: usize,
    /// Streams of one user that are followed at once.
    pub(crate) streams_user_max: usize,
}

/// A segment that is read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) name: SegmentName,
    /// Its last command; it may go once that has its outcome.
    pub(crate) last: Sequence,
}

/// What reading a stream brought to light.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) finished: Vec<Finished>,
    pub(crate) torn: u64,
    /// Files that were set aside.
    pub(crate) quarantined: u64,
    /// Files that are to be set aside.
    pub(crate) condemned: Vec<Condemned>,
    /// Bytes that were read in this turn to tell torn tails from damage.
    pub(crate) searched: u64,
    /// A stream misses its next segment, which only a walk through the directory can find.
    pub(crate) wants_walk: bool,
}

/// What a poll can learn beside what the segments hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Look at streams that have been quiet, too.
    pub(crate) at_all: bool,
    /// Ask for the lock of the segment: it is complete if its owner is gone.
    pub(crate) for_owner: bool,
    /// What the directory can have told.
    pub(crate) walks: Walks,
    /// A batch is being committed meanwhile: only what follows in the open segment is read.
    pub(crate) ahead: bool,
}

/// A stream that is being followed.
#[derive(Debug)]
pub(crate) struct Stream {
    id: StreamId,
    /// Who owns its segments, all of them: a file of somebody else is not part of it.
    pub(crate) uid: u32,
    /// Segments seen in the spool and not yet opened, by number.
    waiting: BTreeMap<u32, SegmentName>,
    current: Option<Segment>,
    /// Number of the segment and sequence of the command that must come next; none before the first segment.
    expected: Option<(u32, Sequence)>,
    /// Read and not yet applied, in order.
    pub(crate) queue: VecDeque<Entry>,
    /// Bytes of the frames that `queue` came from.
    pub(crate) queue_bytes: usize,
    /// Polls in a row that brought nothing.
    pub(crate) idle_polls: u32,
    /// Nothing behind the queue will ever be applied.
    pub(crate) stopped: bool,
    sealed: bool,
    /// What the owner of the segment may do.
    roles: Roles,
    suspicious_since: Option<Instant>,
    /// Walks that were begun when the next segment was missed: it is not there if a later one does not find it.
    missed_at: Option<u64>,
}

impl Stream {
    /// Follows a stream; `expected` is where it stood if this run has followed it before.
    pub(crate) fn new(id: StreamId, uid: u32, expected: Option<(u32, Sequence)>) -> Self {
        Self {
            id,
            uid,
            waiting: BTreeMap::new(),
            current: None,
            expected,
            queue: VecDeque::new(),
            queue_bytes: 0,
            idle_polls: 0,
            stopped: false,
            sealed: false,
            roles: Roles::NONE,
            suspicious_since: None,
            missed_at: None,
        }
    }

    /// Whether its segments came whole: no lock tells whether somebody still reads its receipts.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Number of the segment and sequence of the command that must come next.
    pub(crate) fn expected(&self) -> Option<(u32, Sequence)> {
        self.expected
    }

    /// The segment that is being read.
    #[cfg(test)]
    pub(crate) fn opened(&self) -> Option<SegmentName> {
        self.current.as_ref().map(|current| current.name)
    }

    /// Whether a segment is known.
    pub(crate) fn has(&self, name: SegmentName) -> bool {
        self.current.as_ref().is_some_and(|current| current.name == name)
            || self.waiting.get(&name.number) == Some(&name)
    }

    /// Takes note of a segment in the spool; false if it cannot belong where its name says.
    pub(crate) fn see(&mut self, name: SegmentName) -> bool {
        if self.has(name) {
            return true;
        }
        let current = self.current.as_ref().map(|current| current.name.number.saturating_add(1));
        let next = current.or(self.expected.map(|(number, _)| number));
        if self.stopped || next.is_some_and(|next| name.number < next) {
            return false;
        }
        self.missed_at = None;
        let is_free = *self.waiting.entry(name.number).or_insert(name) == name;
        if self.waiting.len() > WAITING_COUNT_MAX {
            self.waiting.pop_last();
        }
        is_free
    }

    /// Whether nothing of the stream is left to be read or applied. The owner of a live one may have put its next
    /// segment there and then let go of the lock of the last: only a walk since then tells.
    pub(crate) fn is_over(&self, walks: Walks) -> bool {
        let is_searched = self.sealed || self.stopped || self.missed_at.is_some_and(|walk| walks.over > walk);
        self.current.is_none() && self.waiting.is_empty() && self.queue.is_empty() && is_searched
    }

    /// Whether it has brought nothing for so long that it is only looked at along with everything.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.idle_polls >= HOT_POLLS
    }

    /// Whether a frame that does not validate must be looked at again soon.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.suspicious_since.is_some() && !self.stopped
    }

    /// Reads what is there, up to a turn's worth.
    pub(crate) fn poll(
        &mut self,
        rules: &Rules,
        watermarks: &Watermarks,
        scratch: &mut Vec<u8>,
        findings: &mut Findings,
        look: Look,
    ) -> Result<(), Error> {
        let polled = self.read_on(rules, watermarks, scratch, findings, look);
        if self.current.is_some() {
            self.missed_at = None;
        } else if self.missed_at.is_none() && !look.ahead {
            self.missed_at = Some(look.walks.begun);
            findings.wants_walk = true;
        }
        // A stream whose turn's worth still waits is not read on, but it is anything but idle.
        self.idle_polls = if self.queue.is_empty() { self.idle_polls.saturating_add(1) } else { 0 };
        match polled {
            Ok(()) | Err(Trouble::NotYet | Trouble::Nothing) => Ok(()),
            Err(Trouble::Corrupt(reason)) => {
                self.stop(&reason, findings);
                Ok(())
            }
            Err(Trouble::Environment(error)) => Err(error),
        }
    }

    fn read_on(
        &mut self,
        rules: &Rules,
        watermarks: &Watermarks,
        scratch: &mut Vec<u8>,
        findings: &mut Findings,
        look: Look,
    ) -> Result<(), Trouble> {
        while self.queue_bytes < rules.turn_bytes && !self.stopped {
            if self.current.is_none() && (look.ahead || !self.open_next(rules, watermarks, look.walks)?) {
                return Ok(());
            }
            let Some(segment) = &mut self.current else { return Ok(()) };
            if self.waiting.contains_key(&segment.name.number.saturating_add(1)) {
                segment.is_followed();
            } else if look.for_owner {
                segment.look_for_owner();
            }
            let owner = (self.uid, self.roles);
            let (id, epoch) = (self.id, segment.header.epoch);
            let (queue, queue_bytes) = (&mut self.queue, &mut self.queue_bytes);
            let read = segment.read(scratch, |submitted| {
                *queue_bytes += submitted.bytes;
                queue.extend(entries::of(submitted, (id, owner, epoch), rules, watermarks));
                *queue_bytes < rules.turn_bytes
            });
            findings.searched += std::mem::take(&mut segment.searched);
            match read? {
                Read::Nothing => {
                    self.suspicious_since = None;
                    return Ok(());
                }
                Read::Suspicious(error) => {
                    let since = *self.suspicious_since.get_or_insert_with(Instant::now);
                    if since.elapsed() < SUSPICION_TIME {
                        return Ok(());
                    }
                    return Err(Trouble::Corrupt(error.to_string()));
                }
                Read::Finished { torn } => {
                    self.suspicious_since = None;
                    findings.torn += u64::from(torn);
                    let next = segment.next_sequence();
                    findings.finished.push(Finished { name: segment.name, last: Sequence(next.0 - 1) });
                    self.expected = Some((segment.name.number.saturating_add(1), next));
                    self.current = None;
                }
            }
        }
        Ok(())
    }

    /// Opens the stream's next segment if it is there.
    fn open_next(&mut self, rules: &Rules, watermarks: &Watermarks, walks: Walks) -> Result<bool, Trouble> {
        let Some((&number, &name)) = self.waiting.first_key_value() else { return Ok(false) };
        let segment = match Segment::open(&rules.layout, name, rules.store, rules.device) {
            Err(Trouble::Nothing) => {
                self.waiting.remove(&number);
                remove_empty(rules, name);
                return Err(Trouble::Nothing);
            }
            opened => opened?,
        };
        if segment.owner != self.uid {
            return Err(Trouble::Corrupt(format!("it was given to uid {}", segment.owner)));
        }
        let roles = rules.grants.roles_of(self.uid);
        if roles.is_none() {
            return Err(Trouble::Corrupt(format!(
                "it belongs to uid {}, which has no role in this store: add it or a group of it to [grants] in \
                 penholder.toml",
                self.uid
            )));
        }
        segment.check_epoch(rules.epoch, rules.floor, watermarks.knows(self.id))?;
        if let Err(gap) = self.check_place(&segment.header, watermarks) {
            // What lies between may have come behind a walk that was under way, or been too much for the last one.
            let is_searched = self.missed_at.is_some_and(|walk| walks.over > walk);
            return Err(if is_searched { Trouble::Corrupt(gap) } else { Trouble::NotYet });
        }
        self.waiting.remove(&number);
        self.sealed = name.kind == SegmentKind::Sealed;
        self.roles = roles;
        self.current = Some(segment);
        Ok(true)
    }

    /// Whether a segment follows on what came before it; if not, what is missing.
    fn check_place(&self, header: &SegmentHeader, watermarks: &Watermarks) -> Result<(), String> {
        match self.expected {
            Some((number, first)) if (number, first) != (header.number, header.first_sequence) => {
                Err(format!(
                    "a gap: segment {number} starting with command {first} was expected, this is segment {} starting \
                 with command {}",
                    header.number, header.first_sequence
                ))
            }
            None if header.first_sequence > watermarks.highest(self.id).next() => Err(format!(
                "a gap: it starts with command {}, and command {} is the last that any database has",
                header.first_sequence,
                watermarks.highest(self.id)
            )),
            _ => Ok(()),
        }
    }

    /// Stops this stream only: what was read is applied, nothing behind it ever.
    fn stop(&mut self, reason: &str, findings: &mut Findings) {
        self.stopped = true;
        let current = self.current.take().map(|segment| {
            // What was read of it counts by its watermarks: mended and put back, it is read from its start.
            self.expected = Some((segment.name.number, segment.header.first_sequence));
            segment.name
        });
        for name in current.into_iter().chain(std::mem::take(&mut self.waiting).into_values()) {
            findings.condemned.push(Condemned { name, reason: reason.to_owned() });
        }
    }
}

/// A segment whose creator died before it wrote a byte; nothing was promised.
fn remove_empty(rules: &Rules, name: SegmentName) {
    if let Err(error) = std::fs::remove_file(rules.layout.segment(name))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("cannot remove the empty segment {name}: {error}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]
mod tests;

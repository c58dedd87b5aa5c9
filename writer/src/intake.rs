//! Follows all streams of the spool and cuts batches from what they hold, fairly. Reads and decodes only.

mod cut;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use penholder_protocol::{SegmentName, Sequence, StreamId};

use crate::arrivals::{self, Arrival, Arrivals};
use crate::batch::Entry;
use crate::paced::Paced;
use crate::pause::Pause;
use crate::quarantine::{Condemned, Quarantine};
use crate::stream::{Findings, Finished, Look, Rules, Stream};
use crate::turns::Turns;
use crate::watermark::Watermarks;
use crate::{Config, Error};

/// Time since the last batch in which looks at everything are paced: the next commands are about to come.
const BUSY_TIME: Duration = Duration::from_millis(10);

/// Bytes that are read per turn to tell torn tails from damage, beyond which the others get theirs first.
const SEARCHED_BYTES_PER_TURN: u64 = 1 << 20;

/// Streams that are let go of per turn: each may need a last word in its receipts.
const OVER_PER_TURN: usize = 64;

/// The spool as the writer reads it.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) rules: Rules,
    streams: HashMap<StreamId, Stream>,
    /// Where streams that are over stood: one that comes back must go on from there.
    over: HashMap<StreamId, (u32, Sequence)>,
    turns: Turns,
    /// Bytes that wait to be applied, by user as they stand in `turns`; kept for its memory.
    queued: Vec<usize>,
    arrivals: Arrivals,
    quarantine: Quarantine,
    /// More streams are over than were let go of.
    over_left: bool,
    scratch: Vec<u8>,
    pub(crate) findings: Findings,
    /// Streams that were in the last batches: who may be about to submit again.
    regulars: usize,
    last_batch: Instant,
    pub(crate) pause: Pause,
    sweep: Paced,
    rescan: Paced,
    /// What the walk through the directory has taken, over its turns.
    walk_time: Duration,
}

/// A stream of which nothing is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) stream: StreamId,
    /// Whose it was.
    pub(crate) uid: u32,
    /// Its segments came whole: no lock tells whether somebody still reads its receipts.
    pub(crate) sealed: bool,
    /// It was quarantined: nothing behind its last outcome will ever be applied.
    pub(crate) stopped: bool,
}

impl Intake {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            quarantine: Quarantine::new(rules.layout.clone()),
            rules,
            streams: HashMap::new(),
            over: HashMap::new(),
            turns: Turns::default(),
            queued: Vec::new(),
            arrivals: Arrivals::default(),
            over_left: false,
            scratch: Vec::new(),
            findings: Findings::default(),
            regulars: 0,
            last_batch: Instant::now(),
            pause: Pause::default(),
            sweep: Paced::new(),
            rescan: Paced::new(),
            walk_time: Duration::ZERO,
        }
    }

    /// Asks for a look at streams that were quiet.
    pub(crate) fn want_sweep(&mut self) {
        self.sweep.wanted = true;
    }

    /// Asks for a look at the directory, and at who is still there.
    pub(crate) fn want_rescan(&mut self) {
        self.rescan.wanted = true;
    }

    /// Reads what is there and cuts the next batch; empty if there is nothing to do.
    pub(crate) fn next(&mut self, watermarks: &Watermarks, config: &Config) -> Result<Vec<Entry>, Error> {
        let busy =
            self.last_batch.elapsed() < BUSY_TIME || self.in_turn().any(|stream| !stream.queue.is_empty());
        let started = Instant::now();
        let walked = self.walk(busy)?;
        // Half a walk knows half a stream.
        if !self.arrivals.is_walking() {
            self.let_in(watermarks);
        }
        self.walk_time += started.elapsed();
        if walked {
            let cut_short = self.poll(
                watermarks,
                config,
                |_| true,
                Look { at_all: true, for_owner: true, ..Look::default() },
            )?;
            let wanted_since = self.rescan.wanted || self.arrivals.wants_walk();
            // Who comes with the walk is looked at along with all others, which takes longer than the walk.
            let took = started.elapsed();
            self.rescan.done(std::mem::take(&mut self.walk_time) + took);
            self.sweep.done(took);
            self.rescan.wanted = wanted_since;
            self.sweep.wanted = cut_short;
        } else if self.sweep.is_due(busy) {
            let cut_short =
                self.poll(watermarks, config, |_| true, Look { at_all: true, ..Look::default() })?;
            self.sweep.done(started.elapsed());
            self.sweep.wanted = cut_short;
        } else {
            self.poll(watermarks, config, |stream| !stream.is_quiet(), Look::default())?;
        }
        self.gather(watermarks, config)?;
        let batch = self.cut(config);
        if !batch.is_empty() {
            let mut streams: Vec<_> = batch.iter().map(|entry| entry.stream).collect();
            streams.dedup();
            self.last_batch = Instant::now();
            self.regulars = streams.len().max(self.regulars - self.regulars.div_ceil(4));
        }
        Ok(batch)
    }

    /// Reads the next commands of busy streams while the last batch is being committed; `watermarks` are those before it.
    ///
    /// What is read follows on that batch, and no database has any of it: only a segment that is opened anew can bring
    /// commands that one has, and none is opened here.
    pub(crate) fn read_ahead(&mut self, watermarks: &Watermarks, config: &Config) -> Result<(), Error> {
        let look = Look { ahead: true, ..Look::default() };
        self.poll(watermarks, config, |stream| !stream.is_quiet(), look).map(drop)
    }

    /// Whether the last look at everything brought nothing.
    pub(crate) fn is_settled(&self) -> bool {
        let wanted = self.rescan.wanted || self.sweep.wanted;
        !wanted && !self.has_more() && !self.streams.values().any(Stream::is_suspicious)
    }

    /// Whether work was left for the next turn, so that nobody has to wait for all of it.
    pub(crate) fn has_more(&self) -> bool {
        let may_enter = |uid| may_enter(&self.turns, &self.rules, self.streams.len(), uid);
        self.arrivals.is_walking()
            || self.arrivals.has_work(may_enter)
            || self.quarantine.has_work()
            || !self.findings.condemned.is_empty()
            || self.over_left
    }

    /// Whether more streams are over than were let go of.
    pub(crate) fn is_over_left(&self) -> bool {
        self.over_left
    }

    /// Moves a few of the files that cannot be trusted out of the spool.
    pub(crate) fn set_aside(&mut self) -> Result<(), Error> {
        for condemned in self.findings.condemned.drain(..) {
            self.quarantine.condemn(condemned);
        }
        if self.quarantine.has_work() {
            self.findings.quarantined += self.quarantine.work()?;
        }
        Ok(())
    }

    /// Takes back what a commit cut off, each command to the front of its stream.
    pub(crate) fn put_back(&mut self, rest: Vec<Entry>) {
        let is_any = !rest.is_empty();
        for entry in rest.into_iter().rev() {
            let (id, uid) = (entry.stream, entry.uid);
            let stream = self.streams.entry(id).or_insert_with(|| {
                self.turns.push(uid, id);
                Stream::new(id, uid, self.over.remove(&id))
            });
            stream.queue_bytes += entry.bytes;
            stream.queue.push_front(entry);
        }
        if is_any {
            self.settle_turns();
        }
    }

    /// Takes the segments of which no command waits any more; call it only when the last batch was told.
    pub(crate) fn take_finished(&mut self) -> Vec<Finished> {
        let streams = &self.streams;
        let is_decided = |finished: &mut Finished| {
            let queued = streams.get(&finished.name.stream).and_then(|stream| stream.queue.front());
            queued.is_none_or(|entry| entry.sequence > finished.last)
        };
        self.findings.finished.extract_if(.., is_decided).collect()
    }

    /// Whether any segment waits to be reclaimed.
    pub(crate) fn finished_count(&self) -> usize {
        self.findings.finished.len()
    }

    /// Forgets some of the streams of which nothing is left, and says which.
    pub(crate) fn take_over(&mut self) -> Vec<Over> {
        let pending: HashSet<_> =
            self.findings.finished.iter().map(|finished| finished.name.stream).collect();
        let walks = self.arrivals.walks();
        let is_over = |(id, stream): &(&StreamId, &Stream)| stream.is_over(walks) && !pending.contains(*id);
        let over: Vec<_> = self.streams.iter().filter(is_over).take(OVER_PER_TURN).collect();
        self.over_left = over.len() == OVER_PER_TURN;
        let stood = over.iter().filter_map(|(id, stream)| Some((**id, stream.expected()?)));
        self.over.extend(stood);
        let over: Vec<_> = over
            .into_iter()
            .map(|(id, stream)| Over {
                stream: *id,
                uid: stream.uid,
                sealed: stream.is_sealed(),
                stopped: stream.stopped,
            })
            .collect();
        for Over { stream, .. } in &over {
            self.streams.remove(stream);
        }
        if !over.is_empty() {
            self.turns.retain(|id| self.streams.contains_key(&id));
        }
        over
    }

    /// Walks on through the directory, if that is due; true when the walk is over.
    fn walk(&mut self, busy: bool) -> Result<bool, Error> {
        let spool = self.rules.layout.spool();
        let failed = || Error::io("list", &spool);
        if !self.arrivals.is_walking() {
            if !self.rescan.is_due(busy) {
                return Ok(false);
            }
            self.rescan.wanted = false;
            self.arrivals.begin_walk(&spool).map_err(failed())?;
        }
        for name in self.arrivals.walk().map_err(failed())? {
            self.see(name)?;
        }
        Ok(!self.arrivals.is_walking())
    }

    /// Takes note of a file in the spool.
    fn see(&mut self, name: SegmentName) -> Result<(), Error> {
        let layout = &self.rules.layout;
        let is_finished = || self.findings.finished.iter().any(|finished| finished.name == name);
        if self.quarantine.holds(name) || self.arrivals.holds(name) || is_finished() {
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&name.stream) else {
            return self.arrivals.note(layout, name).map_err(Error::io("look at", &layout.segment(name)));
        };
        if stream.has(name) {
            return Ok(());
        }
        // Between the directory and here it may have been reclaimed.
        let Some(uid) = arrivals::owner(layout, name).map_err(Error::io("look at", &layout.segment(name)))?
        else {
            return Ok(());
        };
        let reason = if uid != stream.uid {
            format!("it belongs to uid {uid}, and its stream to uid {}", stream.uid)
        } else if stream.see(name) {
            return Ok(());
        } else {
            "its place in its stream is taken or over".to_owned()
        };
        self.findings.condemned.push(Condemned { name, reason });
        Ok(())
    }

    /// Begins to follow a few of the streams that wait, every user in turn and within bounds.
    fn let_in(&mut self, watermarks: &Watermarks) {
        for _ in 0..arrivals::STREAMS_PER_TURN {
            let (turns, rules, all) = (&self.turns, &self.rules, self.streams.len());
            let may_enter = |uid| may_enter(turns, rules, all, uid);
            let Some(Arrival { stream: id, names }) = self.arrivals.next(may_enter) else { break };
            let first = || arrivals::first_owner(&rules.layout, &names);
            let Some(uid) = watermarks.owner(id).or_else(first) else { continue };
            let stream = self.streams.entry(id).or_insert_with(|| {
                self.turns.push(uid, id);
                Stream::new(id, uid, self.over.remove(&id))
            });
            for (owner, name) in names {
                let reason = if owner != uid {
                    format!("it belongs to uid {owner}, and its stream to uid {uid}")
                } else if stream.see(name) {
                    continue;
                } else {
                    "its place in its stream is taken or over".to_owned()
                };
                self.findings.condemned.push(Condemned { name, reason });
            }
        }
        self.rescan.wanted |= self.arrivals.wants_walk();
    }

    /// Reads what streams have; true if some were left out for want of room, or time.
    fn poll(
        &mut self,
        watermarks: &Watermarks,
        config: &Config,
        which: impl Fn(&Stream) -> bool,
        look: Look,
    ) -> Result<bool, Error> {
        let users = self.turns.users_count().max(1);
        let share = (config.batch_bytes_max / users).max(config.turn_bytes);
        self.queued.clear();
        self.queued.resize(users, 0);
        for ((_, user), id) in self.turns.iter() {
            if let (Some(queued), Some(stream)) = (self.queued.get_mut(user), self.streams.get(&id)) {
                *queued += stream.queue_bytes;
            }
        }
        let look = Look { walks: self.arrivals.walks(), ..look };
        let mut left_out = false;
        // First those out of turn: they have no other chance while the rest fill all the room there is.
        let resting = look.at_all.then(|| self.turns.resting()).into_iter().flatten();
        for (user, id) in resting.chain(self.turns.iter().map(|((_, user), id)| (user, id))) {
            let Some(queued) = self.queued.get_mut(user) else { continue };
            if *queued >= share || self.findings.searched >= SEARCHED_BYTES_PER_TURN {
                left_out = true;
                if users == 1 {
                    break;
                }
                continue;
            }
            let Some(stream) = self.streams.get_mut(&id).filter(|stream| which(stream)) else { continue };
            let before = stream.queue_bytes;
            stream.poll(&self.rules, watermarks, &mut self.scratch, &mut self.findings, look)?;
            *queued += stream.queue_bytes - before;
        }
        if look.at_all {
            self.settle_turns();
        }
        self.findings.searched = 0;
        self.rescan.wanted |= std::mem::take(&mut self.findings.wants_walk);
        Ok(left_out)
    }

    /// The streams that have commands, or had some of late.
    fn in_turn(&self) -> impl Iterator<Item = &Stream> {
        self.turns.iter().filter_map(|(_, id)| self.streams.get(&id))
    }

    fn settle_turns(&mut self) {
        let streams = &self.streams;
        self.turns.settle(|id| streams.get(&id).is_some_and(Stream::is_quiet));
    }

    /// Waits a moment for the streams of the last batches, so that one sync serves them all.
    fn gather(&mut self, watermarks: &Watermarks, config: &Config) -> Result<(), Error> {
        let ready = |intake: &Self| intake.in_turn().filter(|stream| !stream.queue.is_empty()).count();
        let started = Instant::now();
        let mut found = ready(self);
        while found > 0 && found < self.regulars && started.elapsed() < config.gather {
            self.pause.make();
            let which = |stream: &Stream| stream.queue.is_empty() && !stream.is_quiet();
            self.poll(watermarks, config, which, Look::default())?;
            found = ready(self);
        }
        Ok(())
    }

    /// How long nothing can happen that no event announces.
    pub(crate) fn patience(&self, idle: Duration) -> Duration {
        let suspicious = self.streams.values().any(Stream::is_suspicious);
        let late = self.rescan.wanted || self.sweep.wanted || suspicious;
        if late { Duration::from_millis(1) } else { idle }
    }
}

/// Whether one more stream of a user may be followed: each takes a descriptor or two, and a turn.
fn may_enter(turns: &Turns, rules: &Rules, all: usize, uid: u32) -> bool {
    all < rules.streams_max && turns.streams_count(uid) < rules.streams_user_max
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests;

//! Follows all streams of the spool and cuts batches from what they hold, fairly. Reads and decodes only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use penholder_protocol::{SegmentName, Sequence, StreamId};

use crate::batch::Entry;
use crate::stream::{Findings, Finished, Rules, Stream};
use crate::watermark::Watermarks;
use crate::{Config, Error, quarantine};

/// Polls without data after which a stream is only looked at when the doorbell rings.
const HOT_POLLS: u32 = 256;

/// A look at all streams or at the directory may take this share of the writer's time while there is other work.
const SWEEP_SHARE: u32 = 20;

/// The spool as the writer reads it.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) rules: Rules,
    streams: HashMap<StreamId, Stream>,
    /// Where streams that are over stood: one that comes back must go on from there.
    over: HashMap<StreamId, (u32, Sequence)>,
    /// Whose turn it is: every stream once, the next one first.
    order: Vec<StreamId>,
    /// Commands cut off from the last batch; they come first.
    rest: Vec<Entry>,
    scratch: Vec<u8>,
    pub(crate) findings: Findings,
    /// Streams that were in the last batches: who may be about to submit again.
    regulars: usize,
    sweep: Paced,
    rescan: Paced,
}

/// Work that is asked for by events and must not starve the rest.
#[derive(Debug)]
struct Paced {
    wanted: bool,
    not_before: Instant,
}

impl Paced {
    fn new() -> Self {
        Self { wanted: true, not_before: Instant::now() }
    }

    fn is_due(&self, busy: bool) -> bool {
        self.wanted && (!busy || Instant::now() >= self.not_before)
    }

    fn done(&mut self, started: Instant) {
        self.wanted = false;
        self.not_before = Instant::now() + started.elapsed() * SWEEP_SHARE;
    }
}

impl Intake {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            streams: HashMap::new(),
            over: HashMap::new(),
            order: Vec::new(),
            rest: Vec::new(),
            scratch: Vec::new(),
            findings: Findings::default(),
            regulars: 0,
            sweep: Paced::new(),
            rescan: Paced::new(),
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
        let busy = !self.rest.is_empty() || self.streams.values().any(|stream| !stream.queue.is_empty());
        if self.rescan.is_due(busy) {
            let started = Instant::now();
            self.scan()?;
            self.poll(watermarks, config, |_| true, true)?;
            self.rescan.done(started);
            self.sweep.done(started);
        } else if self.sweep.is_due(busy) {
            let started = Instant::now();
            self.poll(watermarks, config, |_| true, false)?;
            self.sweep.done(started);
        } else {
            self.poll(watermarks, config, |stream| stream.idle_polls < HOT_POLLS, false)?;
        }
        self.gather(watermarks, config)?;
        let batch = self.cut(config);
        if !batch.is_empty() {
            let mut streams: Vec<_> = batch.iter().map(|entry| entry.stream).collect();
            streams.dedup();
            self.regulars = streams.len().max(self.regulars - self.regulars.div_ceil(4));
        }
        Ok(batch)
    }

    /// Whether the last look at everything brought nothing.
    pub(crate) fn is_settled(&self) -> bool {
        !self.rescan.wanted && !self.sweep.wanted && !self.streams.values().any(Stream::is_suspicious)
    }

    /// Takes back what a commit cut off, to come first in the next batch.
    pub(crate) fn put_back(&mut self, rest: Vec<Entry>) {
        self.rest = rest;
    }

    /// Takes the segments of which no command waits any more; call it only when the last batch was told.
    pub(crate) fn take_finished(&mut self) -> Vec<Finished> {
        let (streams, rest) = (&self.streams, &self.rest);
        let is_decided = |finished: &mut Finished| {
            let id = finished.name.stream;
            let queued = streams.get(&id).and_then(|stream| stream.queue.front());
            let put_back = rest.iter().find(|entry| entry.stream == id);
            queued.into_iter().chain(put_back).all(|entry| entry.sequence > finished.last)
        };
        self.findings.finished.extract_if(.., is_decided).collect()
    }

    /// Whether any segment waits to be reclaimed.
    pub(crate) fn finished_count(&self) -> usize {
        self.findings.finished.len()
    }

    /// Forgets the streams of which nothing is left, and says which, and which of them were sealed.
    pub(crate) fn take_over(&mut self) -> Vec<(StreamId, bool)> {
        let pending: Vec<_> = self.findings.finished.iter().map(|finished| finished.name.stream).collect();
        let over: Vec<_> =
            self.streams.iter().filter(|(id, s)| s.is_over() && !pending.contains(id)).collect();
        let stood = over.iter().filter_map(|(id, stream)| Some((**id, stream.expected()?)));
        self.over.extend(stood);
        let over: Vec<_> = over.into_iter().map(|(id, stream)| (*id, stream.is_sealed())).collect();
        for (id, _) in &over {
            self.streams.remove(id);
        }
        self.order.retain(|id| self.streams.contains_key(id));
        over
    }

    /// Streams that are quarantined and whose last good command has its outcome.
    pub(crate) fn stopped(&self) -> impl Iterator<Item = StreamId> {
        self.streams.iter().filter(|(_, stream)| stream.stopped && stream.queue.is_empty()).map(|(id, _)| *id)
    }

    fn scan(&mut self) -> Result<(), Error> {
        let spool = self.rules.layout.spool();
        let failed = || Error::io("list", &spool);
        for item in std::fs::read_dir(&spool).map_err(failed())? {
            let item = item.map_err(failed())?;
            let file_name = item.file_name();
            let Some(name) = file_name.to_str().and_then(SegmentName::parse) else { continue };
            if self.findings.finished.iter().any(|finished| finished.name == name) {
                continue;
            }
            let stream = self.streams.entry(name.stream).or_insert_with(|| {
                self.order.push(name.stream);
                Stream::new(name.stream, self.over.remove(&name.stream))
            });
            if !stream.see(name) {
                quarantine::set_aside(&self.rules.layout, name, "its place in its stream is taken or over")?;
                self.findings.quarantined += 1;
            }
        }
        Ok(())
    }

    fn poll(
        &mut self,
        watermarks: &Watermarks,
        config: &Config,
        which: impl Fn(&Stream) -> bool,
        look_for_owner: bool,
    ) -> Result<(), Error> {
        let mut queued: usize = self.streams.values().map(|stream| stream.queue_bytes).sum();
        for id in &self.order {
            let Some(stream) = self.streams.get_mut(id).filter(|stream| which(stream)) else { continue };
            if queued >= config.batch_bytes_max {
                break;
            }
            let before = stream.queue_bytes;
            stream.poll(&self.rules, watermarks, &mut self.scratch, &mut self.findings, look_for_owner)?;
            queued += stream.queue_bytes - before;
        }
        Ok(())
    }

    /// Waits a moment for the streams of the last batches, so that one sync serves them all.
    fn gather(&mut self, watermarks: &Watermarks, config: &Config) -> Result<(), Error> {
        let ready = |intake: &Self| intake.streams.values().filter(|stream| !stream.queue.is_empty()).count();
        let started = Instant::now();
        let mut found = ready(self);
        while found > 0 && found < self.regulars && started.elapsed() < config.gather {
            std::thread::yield_now();
            self.poll(
                watermarks,
                config,
                |stream| stream.queue.is_empty() && stream.idle_polls < HOT_POLLS,
                false,
            )?;
            found = ready(self);
        }
        Ok(())
    }

    /// Cuts a batch: bounded, fair by bytes, commands of a stream in order, one kind of command.
    ///
    /// A batch holds commands over one database or commands over several, never both. In the former, a stream is cut
    /// where it goes back to a database that commits earlier: a crash between two commits must leave a prefix of it.
    fn cut(&mut self, config: &Config) -> Vec<Entry> {
        if !self.rest.is_empty() {
            return std::mem::take(&mut self.rest);
        }
        let mut batch: Vec<Entry> = Vec::new();
        let (mut bytes, mut passed_over) = (0, None);
        for (place, id) in self.order.iter().enumerate() {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let mut reached = 0;
            while let Some(entry) = stream.queue.front() {
                let several = entry.touches.are_several();
                let fits = batch.first().is_none_or(|first| first.touches.are_several() == several);
                let full = bytes >= config.batch_bytes_max || batch.len() >= config.batch_commands_count_max;
                if !fits || full || entry.touches.first() < reached {
                    passed_over = passed_over.or(Some(place));
                    break;
                }
                reached = if several { 0 } else { entry.touches.first() };
                bytes += entry.bytes;
                batch.extend(stream.queue.pop_front());
            }
            if stream.queue.is_empty() {
                stream.queue_bytes = 0;
            }
        }
        let next = passed_over.unwrap_or(1).min(self.order.len());
        self.order.rotate_left(next);
        batch
    }

    /// How long nothing can happen that no event announces.
    pub(crate) fn patience(&self, idle: Duration) -> Duration {
        let suspicious = self.streams.values().any(Stream::is_suspicious);
        let late = self.rescan.wanted || self.sweep.wanted || suspicious;
        if late { Duration::from_millis(1) } else { idle }
    }
}

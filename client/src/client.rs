//! The handle through which a process submits commands and learns what became of them.

use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use penholder_protocol::{Command, Control, Layout, Outcome, Sequence, StoreId, StreamId, WriterState};

use crate::quota::{Backlog, SpaceCheck};
use crate::receipts::Receipts;
use crate::stream::Stream;
use crate::{ClientConfig, ClientError, Durability, Ticket, Tickets, Transaction, WhenFull, writer_running};

/// How often a blocked submit looks for room when nothing wakes it.
const FULL_NAP: Duration = Duration::from_millis(20);

/// Streams given up earlier whose receipts are kept at hand.
const PAST_COUNT_MAX: usize = 4;

/// A process's own stream of commands into one store. Submitting works while no writer runs: commands wait.
///
/// One client serves one thread at a time: that is why submitting needs `&mut`, and what the order of commands means.
/// Dropping it tells the writer that the stream is complete; what was submitted is applied all the same. A child
/// process that was forked meanwhile must drop its copy too before the writer hears of it.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    /// The process that may write; a forked child has the same handle, and must not.
    owner: u32,
    store: StoreId,
    databases: Vec<String>,
    stream: Stream,
    receipts: Receipts,
    /// Receipts of streams before this one, newest last.
    past: Vec<Receipts>,
    backlog: Backlog,
    space: SpaceCheck,
}

impl Client {
    /// Connects to the store in the directory `store` with the default settings; no writer needs to run.
    pub fn connect(store: impl AsRef<Path>) -> Result<Self, ClientError> {
        Self::open(ClientConfig::new(store.as_ref()))
    }

    /// Connects to a store. Nothing is written before the first submit.
    pub fn open(config: ClientConfig) -> Result<Self, ClientError> {
        let stream = Stream::new(Layout::new(&config.store))?;
        let control = stream.control();
        Ok(Self {
            owner: process::id(),
            store: control.store,
            databases: control.databases.iter().map(|slot| slot.name.clone()).collect(),
            receipts: Receipts::new(stream.layout(), control.store, stream.id()),
            stream,
            past: Vec::new(),
            backlog: Backlog::default(),
            space: SpaceCheck::new(),
            config,
        })
    }

    /// Queues one command behind the others of this client.
    ///
    /// An error does not mean that the command was not queued, unless the variant says so; submit it again with the
    /// same key.
    pub fn submit(
        &mut self,
        command: impl Into<Command>,
        durability: Durability,
    ) -> Result<Ticket, ClientError> {
        let tickets = self.append(&[command.into()], false, durability)?;
        Ok(Ticket { stream: tickets.stream, sequence: tickets.first })
    }

    /// Queues many commands with one `write`. Each stands for itself: they are not one transaction.
    ///
    /// An error does not mean that none was queued; [`ClientError::Append`] counts them, otherwise submit all of them
    /// again with the same keys.
    pub fn submit_batch(
        &mut self,
        commands: &[Command],
        durability: Durability,
    ) -> Result<Tickets, ClientError> {
        self.append(commands, false, durability)
    }

    /// Queues many commands with one `write`, and asks for their results; errors as in
    /// [`submit_batch`](Self::submit_batch).
    pub fn submit_for_results(&mut self, commands: &[Command]) -> Result<Tickets, ClientError> {
        self.append(commands, true, Durability::Queued)
    }

    /// Queues one command and waits until it is applied, with its results, or rejected.
    ///
    /// [`ClientError::Timeout`] means that the command is queued and will be applied; it must not be submitted again
    /// without a key. To go on waiting later, use [`submit_for_results`](Self::submit_for_results) and
    /// [`wait`](Self::wait).
    pub fn execute(&mut self, command: impl Into<Command>) -> Result<Outcome, ClientError> {
        let tickets = self.append(&[command.into()], true, Durability::Queued)?;
        let ticket = Ticket { stream: tickets.stream, sequence: tickets.first };
        self.wait(ticket, self.config.timeout)
    }

    /// Waits for the final outcome of a command. After a timeout the command stays queued, and can be waited for again.
    ///
    /// Results are handed out once; asked for again, the outcome is applied without details.
    pub fn wait(&mut self, ticket: Ticket, timeout: Duration) -> Result<Outcome, ClientError> {
        match self.receipts_of(ticket.stream).wait(ticket.sequence, timeout)? {
            Some(outcome) => Ok(outcome),
            None => Err(ClientError::Timeout {
                stream: ticket.stream,
                sequence: ticket.sequence,
                waited: timeout,
                writer: self.writer_state(),
                store: self.config.store.clone(),
            }),
        }
    }

    /// The final outcome of a command if it is there already; does not wait.
    pub fn outcome(&mut self, ticket: Ticket) -> Result<Option<Outcome>, ClientError> {
        let receipts = self.receipts_of(ticket.stream);
        receipts.cell()?;
        receipts.outcome(ticket.sequence)
    }

    /// Begins a command of several statements, applied all or nothing.
    pub fn transaction(&mut self) -> Transaction<'_> {
        Transaction::new(self)
    }

    /// The stream that the next submit appends to. It changes only when the first submit meets a starting writer, and
    /// after [`ClientError::Unknown`].
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream.id()
    }

    /// Bytes of this stream that wait to be applied, at most 64 KiB too many.
    #[must_use]
    pub fn unapplied_bytes(&mut self) -> u64 {
        if let Ok(Some(cell)) = self.receipts.cell() {
            self.backlog.applied(cell.applied);
        }
        self.backlog.bytes()
    }

    /// What the store's writer is doing now; stopped also if this process cannot tell.
    #[must_use]
    pub fn writer_state(&self) -> WriterState {
        if !writer_running(&self.config.store).unwrap_or(false) {
            return WriterState::Stopped;
        }
        match Control::read(&self.stream.layout().control()) {
            Ok(Control { state: WriterState::Stalled, .. }) => WriterState::Stalled,
            // One that starts has not said so yet.
            Ok(_) | Err(_) => WriterState::Running,
        }
    }

    /// The store's databases in commit order, as of when this client connected.
    #[must_use]
    pub fn databases(&self) -> &[String] {
        &self.databases
    }

    fn append(
        &mut self,
        commands: &[Command],
        results: bool,
        durability: Durability,
    ) -> Result<Tickets, ClientError> {
        if process::id() != self.owner {
            return Err(ClientError::Forked { owner: self.owner });
        }
        if commands.is_empty() {
            return Ok(Tickets { stream: self.stream.id(), first: Sequence(1), count: 0 });
        }
        self.make_room()?;
        let appended = self.stream.append(commands, results);
        self.follow_stream();
        let appended = appended?;
        let count = commands.len() as u64;
        let tickets = Tickets { stream: self.stream.id(), first: appended.first, count };
        self.backlog.add(Sequence(appended.first.0 + count - 1), appended.bytes);
        self.space.add(appended.bytes);
        if durability == Durability::Durable {
            let synced = self.stream.sync();
            self.follow_stream();
            synced?;
        }
        Ok(tickets)
    }

    /// Returns once the quota and the disk leave room, or with what stands in the way.
    fn make_room(&mut self) -> Result<(), ClientError> {
        let mut begun = None;
        loop {
            let bell = self.receipts.bell();
            let error = match self.check_room() {
                Err(error @ (ClientError::Full { .. } | ClientError::NoSpace { .. })) => error,
                checked => return checked,
            };
            let waited = begun.get_or_insert_with(Instant::now).elapsed();
            let left = match self.config.when_full {
                WhenFull::Block(most) => most.saturating_sub(waited),
                WhenFull::Fail => Duration::ZERO,
            };
            if left.is_zero() {
                return Err(error);
            }
            self.receipts.sleep(bell, left.min(FULL_NAP))?;
        }
    }

    fn check_room(&mut self) -> Result<(), ClientError> {
        if self.receipts.is_quarantined()? {
            return Err(ClientError::Quarantined { stream: self.stream.id() });
        }
        let full = |client: &mut Self| {
            let quota_bytes = client.stream.control().quota_stream_bytes;
            (quota_bytes != 0 && client.unapplied_bytes() >= quota_bytes).then_some(quota_bytes)
        };
        if full(self).is_some() {
            // The limit may have been raised since it was read.
            self.stream.read_control()?;
            if let Some(quota_bytes) = full(self) {
                let unapplied_bytes = self.backlog.bytes();
                let writer = self.writer_state();
                return Err(ClientError::Full { unapplied_bytes, quota_bytes, writer });
            }
        }
        if self.space.is_due() || self.stream.is_segment_due() {
            let spool = self.stream.layout().spool();
            if self.space.check(&spool, self.stream.control().free_bytes_min).is_err() {
                self.stream.read_control()?;
                self.space.check(&spool, self.stream.control().free_bytes_min)?;
            }
        }
        Ok(())
    }

    /// Turns to the receipts of the new stream after one was begun; the old ones stay at hand for their tickets.
    fn follow_stream(&mut self) {
        if self.receipts.stream() == self.stream.id() {
            return;
        }
        let receipts = Receipts::new(self.stream.layout(), self.store, self.stream.id());
        let old = std::mem::replace(&mut self.receipts, receipts);
        self.remember(old);
        self.backlog = Backlog::default();
    }

    fn remember(&mut self, receipts: Receipts) {
        if self.past.len() >= PAST_COUNT_MAX {
            self.past.remove(0);
        }
        self.past.push(receipts);
    }

    fn receipts_of(&mut self, stream: StreamId) -> &mut Receipts {
        if stream == self.receipts.stream() {
            return &mut self.receipts;
        }
        if !self.past.iter().any(|past| past.stream() == stream) {
            self.remember(Receipts::new(self.stream.layout(), self.store, stream));
        }
        let found = self.past.iter_mut().find(|past| past.stream() == stream);
        found.unwrap_or(&mut self.receipts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

    use super::*;
    use crate::fake_store::{FakeStore, insert};

    #[test]
    fn a_forked_child_is_refused() {
        // No fork without unsafe code: a client that belongs to another process is the same thing.
        let store = FakeStore::new();
        let mut client = Client::connect(store.path()).unwrap();
        client.owner += 1;
        let refused = client.submit(insert(1), Durability::Queued);
        assert!(matches!(refused, Err(ClientError::Forked { owner }) if owner == process::id() + 1));
        assert!(store.segments().is_empty());
    }
}

//! A client process of the ledger: submits its plan in every way there is, and logs what it was promised.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use penholder_client::{Client, ClientError, Durability, Ticket};
use penholder_protocol::{Command, StreamId};

use crate::promises::Log;
use crate::{Mix, Plan, Random};

/// What a client process is told.
#[derive(Clone, Debug)]
pub struct Work {
    /// The store.
    pub store: PathBuf,
    /// Where the logs are.
    pub logs: PathBuf,
    /// Number of the client; never used twice in a store.
    pub client: u64,
    /// What it submits.
    pub mix: Mix,
    /// How many commands; it stops earlier once the stop file is there.
    pub commands: u64,
    /// Longest time without any progress before it gives up.
    pub patience: Duration,
}

/// Tells every client whose logs are in this directory to come to its end.
pub const STOP_FILE: &str = "stop";

/// Most commands in flight.
const WINDOW: usize = 256;

/// Submits, waits, logs; returns once every command has its outcome.
pub fn run(work: &Work) {
    let client = Client::connect(&work.store).unwrap();
    let stream = client.stream();
    let log = Log::create(&work.logs, work.client, work.mix, stream);
    let mut worker = Worker {
        plan: Plan::new(work.client, work.mix),
        random: Random::new(work.client),
        next: 1,
        waiting: VecDeque::new(),
        patience: work.patience,
        client,
        stream,
        log,
    };
    while worker.next <= work.commands && !work.logs.join(STOP_FILE).exists() {
        if worker.step(work.commands).is_err() {
            return;
        }
    }
    worker.settle(0);
    worker.log.done();
}

/// A sync failed, so that nobody knows what survives: the client has nothing more to say, and ends.
struct Unknown;

struct Worker {
    plan: Plan,
    random: Random,
    /// Number of the next command.
    next: u64,
    /// Submitted, and not yet waited for.
    waiting: VecDeque<(u64, Ticket)>,
    patience: Duration,
    client: Client,
    /// The stream that the log names.
    stream: StreamId,
    log: Log,
}

impl Worker {
    fn step(&mut self, commands: u64) -> Result<(), Unknown> {
        match self.random.below(10) {
            0..4 => self.submit(1, Durability::Queued)?,
            4 => self.submit(1, Durability::Durable)?,
            5 | 6 => {
                let count = (2 + self.random.below(40)).min((commands - self.next).saturating_add(1));
                self.submit(count, Durability::Queued)?;
            }
            7 => self.execute(),
            8 => self.settle(self.waiting.len() / 2),
            _ => {
                self.submit(1, Durability::Queued)?;
                self.settle(0);
            }
        }
        if self.waiting.len() > WINDOW {
            self.settle(WINDOW / 2);
        }
        Ok(())
    }

    /// Submits the next commands; does of its own what an error tells it to.
    fn submit(&mut self, count: u64, durability: Durability) -> Result<(), Unknown> {
        let (last, begun) = (self.next + count - 1, Instant::now());
        while self.next <= last {
            let sequences = self.next..=last;
            let commands: Vec<Command> = sequences.clone().map(|number| self.plan.command(number)).collect();
            self.log.submitting(&sequences);
            let result = match commands.as_slice() {
                [command] => self.client.submit(command.clone(), durability).map(|ticket| vec![ticket]),
                many => self.client.submit_batch(many, durability).map(|tickets| tickets.iter().collect()),
            };
            if !matches!(result, Err(ClientError::Unknown { .. })) {
                self.note_stream();
            }
            match result {
                Ok(tickets) => {
                    assert_eq!(tickets.len(), commands.len(), "one ticket per command");
                    match durability {
                        Durability::Queued => self.log.promised(&sequences),
                        Durability::Durable => self.log.durable(&sequences),
                    }
                    self.waiting.extend(sequences.zip(tickets));
                    self.next = last + 1;
                }
                // The disk was full in the middle: what is queued is promised, the rest is to be submitted again.
                Err(ClientError::Append { queued, .. }) => {
                    if queued > 0 {
                        self.log.promised(&(self.next..=self.next + queued - 1));
                    }
                    self.next += queued;
                    self.wait_for_room(begun);
                }
                // Nothing was written: the next try is not a second submit.
                Err(ClientError::Full { .. } | ClientError::NoSpace { .. } | ClientError::Io { .. }) => {
                    self.wait_for_room(begun);
                }
                Err(ClientError::Unknown { .. }) => return Err(Unknown),
                Err(error) => panic!("client {:?}: submit: {error}", self.plan),
            }
        }
        Ok(())
    }

    fn wait_for_room(&self, since: Instant) {
        assert!(since.elapsed() < self.patience, "client {:?}: there is no room for too long", self.plan);
        std::thread::sleep(Duration::from_millis(5));
    }

    /// One command, applied; everything before it must then have its outcome too.
    fn execute(&mut self) {
        let sequence = self.next;
        self.log.submitting(&(sequence..=sequence));
        match self.client.execute(self.plan.command(sequence)) {
            Ok(outcome) => {
                self.log.outcome(sequence, &outcome);
                self.log.promised(&(sequence..=sequence));
            }
            // It stays queued, so its number is taken; what became of it shows in the databases.
            Err(ClientError::Timeout { .. }) => self.log.promised(&(sequence..=sequence)),
            // Not queued: there was no room.
            Err(
                ClientError::Append { queued: 0, .. }
                | ClientError::Full { .. }
                | ClientError::NoSpace { .. }
                | ClientError::Io { operation: "create", .. },
            ) => return self.note_stream(),
            Err(error) => panic!("client {:?}: execute: {error}", self.plan),
        }
        self.note_stream();
        self.next += 1;
    }

    fn note_stream(&mut self) {
        if self.client.stream() != self.stream {
            self.stream = self.client.stream();
            self.log.stream(self.stream);
        }
    }

    /// Waits until at most `left` commands are without an outcome.
    fn settle(&mut self, left: usize) {
        while self.waiting.len() > left
            && let Some((sequence, ticket)) = self.waiting.pop_front()
        {
            let begun = Instant::now();
            let outcome = loop {
                match self.client.wait(ticket, Duration::from_secs(1)) {
                    Ok(outcome) => break outcome,
                    Err(ClientError::Timeout { .. }) if begun.elapsed() < self.patience => {}
                    Err(error) => panic!("client {:?}: wait for {sequence}: {error}", self.plan),
                }
            };
            self.log.outcome(sequence, &outcome);
        }
    }
}

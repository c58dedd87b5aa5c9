//! Random lives of a store, against a model: whatever is done to it in whatever order, the ledger is what it must be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use penholder_client::{Client, Durability, Ticket};
use penholder_protocol::Command;
use penholder_tests::promises::{Log, note_power_loss};
use penholder_tests::watcher::{self, Sight};
use penholder_tests::{Mix, Plan, Store};
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Clients at a time.
const CLIENTS: usize = 3;

/// What is done to a store.
#[derive(Clone, Debug)]
enum Act {
    /// A client appends commands; it begins if it is not there.
    Append { client: usize, count: u64, durable: bool },
    /// A client waits for everything it submitted.
    Wait { client: usize },
    /// A client ends.
    Leave { client: usize },
    /// kill -9 of the writer, or its start if none runs.
    Kill,
    /// The writer ends and another one starts; the WAL is checkpointed on the way.
    Restart,
    /// Power is lost: everybody dies, and of what was not synced any part of the tail is gone.
    Cut { left: u16 },
    /// A reader looks at one cut over both databases.
    Read,
    /// Everything is applied, and deleted where its client is gone.
    Reclaim,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let client = 0..CLIENTS;
    let act = prop_oneof![
        8 => (client.clone(), 1..30_u64, any::<bool>())
            .prop_map(|(client, count, durable)| Act::Append { client, count, durable }),
        3 => client.clone().prop_map(|client| Act::Wait { client }),
        1 => client.prop_map(|client| Act::Leave { client }),
        3 => Just(Act::Kill),
        1 => Just(Act::Restart),
        1 => any::<u16>().prop_map(|left| Act::Cut { left }),
        3 => Just(Act::Read),
        1 => Just(Act::Reclaim),
    ];
    prop::collection::vec(act, 4..40)
}

/// A client, and what it was told.
struct Pen {
    client: Client,
    plan: Plan,
    log: Log,
    next: u64,
    waiting: Vec<(u64, Ticket)>,
    segment: Option<PathBuf>,
    /// Length of its segment when it was last synced.
    synced_bytes: u64,
}

/// The store, and the model of it.
struct Life {
    store: Store,
    running: bool,
    pens: [Option<Pen>; CLIENTS],
    begun: u64,
    last_sight: Sight,
    /// Commands over activity alone or both that clients were told to be applied.
    told: i64,
}

impl Life {
    fn begin() -> Self {
        let mut store = Store::new();
        store.settings("[reclaim]\ninterval_ms = 10\n");
        store.start();
        Self {
            store,
            running: true,
            pens: Default::default(),
            begun: 0,
            last_sight: Sight::default(),
            told: 0,
        }
    }

    fn play(&mut self, act: &Act) {
        match act {
            Act::Append { client, count, durable } => self.append(*client, *count, *durable),
            Act::Wait { client } => self.wait(*client),
            Act::Leave { client } => self.pens[*client] = None,
            Act::Kill if self.running => {
                self.store.kill();
                self.running = false;
            }
            Act::Kill => self.run(),
            Act::Restart => {
                self.run();
                assert!(self.store.stop().success());
                self.store.start();
            }
            Act::Cut { left } => self.cut(*left),
            Act::Read => self.read(),
            Act::Reclaim => self.reclaim(),
        }
    }

    fn run(&mut self) {
        if !self.running {
            self.store.start();
            self.running = true;
        }
    }

    fn append(&mut self, client: usize, count: u64, durable: bool) {
        if self.pens[client].is_none() {
            self.begun += 1;
            let client_of_store = self.store.client();
            let log = Log::create(&self.store.logs(), self.begun, Mix::All, client_of_store.stream());
            self.pens[client] = Some(Pen {
                client: client_of_store,
                plan: Plan::new(self.begun, Mix::All),
                log,
                next: 1,
                waiting: Vec::new(),
                segment: None,
                synced_bytes: 0,
            });
        }
        let pen = self.pens[client].as_mut().unwrap();
        let sequences = pen.next..=pen.next + count - 1;
        let commands: Vec<Command> = sequences.clone().map(|number| pen.plan.command(number)).collect();
        pen.log.submitting(&sequences);
        let durability = if durable { Durability::Durable } else { Durability::Queued };
        let before = pen.client.stream();
        let tickets = pen.client.submit_batch(&commands, durability).unwrap();
        if pen.client.stream() != before {
            pen.log.stream(pen.client.stream());
        }
        pen.waiting.extend(sequences.clone().zip(tickets.iter()));
        pen.next += count;
        let name = format!("{}-00000001.live", pen.client.stream());
        let path = self.store.layout().spool().join(name);
        if durable {
            pen.log.durable(&sequences);
            pen.synced_bytes = path.metadata().map_or(0, |metadata| metadata.len());
        } else {
            pen.log.promised(&sequences);
        }
        pen.segment = Some(path);
    }

    fn wait(&mut self, client: usize) {
        if self.pens[client].is_none() {
            return;
        }
        self.run();
        let pen = self.pens[client].as_mut().unwrap();
        for (sequence, ticket) in std::mem::take(&mut pen.waiting) {
            let outcome = pen.client.wait(ticket, PATIENCE).unwrap();
            pen.log.outcome(sequence, &outcome);
            self.told += i64::from(pen.plan.kind(sequence).writes("activity"));
        }
    }

    fn cut(&mut self, left: u16) {
        if self.running {
            self.store.kill();
            self.running = false;
        }
        let pens = self.pens.iter_mut().filter_map(Option::take);
        let tails: Vec<(PathBuf, u64)> =
            pens.filter_map(|pen| Some((pen.segment?, pen.synced_bytes))).collect();
        let logs = std::fs::read_dir(self.store.logs()).into_iter().flatten().map(Result::unwrap);
        let lengths: BTreeMap<_, _> = logs.map(|log| (log.path(), log.metadata().unwrap().len())).collect();
        note_power_loss(&self.store.logs(), &lengths);
        for (path, synced_bytes) in tails {
            // It may have been applied and deleted; a power cut takes nothing from a database.
            let Ok(file) = OpenOptions::new().write(true).open(path) else { continue };
            let length = file.metadata().unwrap().len();
            let unsynced = length.saturating_sub(synced_bytes);
            file.set_len(synced_bytes + unsynced * u64::from(left) / u64::from(u16::MAX)).unwrap();
        }
    }

    fn read(&mut self) {
        // While no writer runs, a cut over both databases may have to be refused.
        self.run();
        let sight = watcher::look_once(&self.store.path()).unwrap();
        assert!(sight.config >= self.last_sight.config && sight.activity >= self.last_sight.activity);
        assert!(sight.activity >= self.told, "{} were told to be applied: {sight:?}", self.told);
        self.last_sight = sight;
    }

    fn reclaim(&mut self) {
        self.run();
        for client in 0..CLIENTS {
            self.wait(client);
            self.pens[client] = None;
        }
        self.store.wait_until("an empty spool", |store| store.segments().is_empty());
    }

    fn end(mut self) {
        for client in 0..CLIENTS {
            self.pens[client] = None;
        }
        self.store.settle_and_verify().expect_clean();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_life_of_a_store_leaves_the_ledger_of_the_model(acts in acts()) {
        let mut life = Life::begin();
        for act in &acts {
            life.play(act);
        }
        life.end();
    }
}

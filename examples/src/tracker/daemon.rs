//! The daemon: turns the processes of this machine into sessions and events, as fast as it can.
//!
//! It submits with the promise `queued`, many commands in one write, and does not wait for their outcomes: it looks them
//! up later, some looks behind. So it goes on at its own pace whatever the writer does, dead or alive.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penholder_client::{
    Client, ClientConfig, Command, Durability, Outcome, Statement, Text, Tickets, WhenFull,
};

use serde_json::json;

use crate::Result;
use crate::processes::{Observer, Process, now_ms};
use crate::promises::{Promise, PromiseLog};

/// Looks whose outcomes are not known yet; then the daemon waits for the oldest of them.
const LOOKS_IN_FLIGHT_MAX: usize = 64;
/// How long it waits for an outcome, or for room: longer than any restart of the writer takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ids of this role's events start here, those of the app server far behind: no two roles ever choose the same one.
const EVENT_IDS: i64 = 1 << 40;

/// Records until it is asked to stop; says on stdout how far it is.
pub(crate) fn run(store: &Path, promises: &Path, stop: &AtomicBool) -> Result<()> {
    let config = ClientConfig { when_full: WhenFull::Block(PATIENCE), ..ClientConfig::new(store) };
    let mut client = Client::open(config)?;
    let mut promises = PromiseLog::create(promises)?;
    let mut recorder = Recorder::new();
    let observer = Observer::new()?;
    let mut in_flight = VecDeque::new();

    while !stop.load(Ordering::Relaxed) {
        let (commands, kept) = recorder.record(&observer.look()?);
        submit(&mut client, &commands, &kept, &mut promises, &mut in_flight)?;
        while in_flight.len() > LOOKS_IN_FLIGHT_MAX {
            settle(&mut client, &mut in_flight)?;
        }
        println!("{}", recorder.next_event - EVENT_IDS);
    }
    let (commands, kept) = recorder.close();
    submit(&mut client, &commands, &kept, &mut promises, &mut in_flight)?;
    while !in_flight.is_empty() {
        settle(&mut client, &mut in_flight)?;
    }
    Ok(())
}

/// Submits one look. Once the call returns, the commands survive the death of any process: that is the promise.
fn submit(
    client: &mut Client,
    commands: &[Command],
    kept: &[Promise],
    promises: &mut PromiseLog,
    in_flight: &mut VecDeque<Tickets>,
) -> Result<()> {
    let tickets = client.submit_batch(commands, Durability::Queued)?;
    promises.keep(kept)?;
    in_flight.push_back(tickets);
    Ok(())
}

/// Waits for the outcomes of the oldest look: a session or an event is never rejected.
fn settle(client: &mut Client, in_flight: &mut VecDeque<Tickets>) -> Result<()> {
    let Some(tickets) = in_flight.pop_front() else { return Ok(()) };
    for ticket in tickets.iter() {
        if let Outcome::Rejected(rejection) = client.wait(ticket, PATIENCE)? {
            return Err(format!("an event was rejected: {}", rejection.message).into());
        }
    }
    Ok(())
}

/// Turns looks at the processes into commands.
struct Recorder {
    begin: Arc<Text>,
    end: Arc<Text>,
    event: Arc<Text>,
    /// Sessions of the processes that were there at the last look, with the processor time they had used.
    running: BTreeMap<i64, u64>,
    next_event: i64,
}

impl Recorder {
    fn new() -> Self {
        let activity = |sql: &str| Text::new("activity", sql);
        Self {
            begin: activity(
                "INSERT INTO activity_sessions (id, started_at, app, title, domain) VALUES (?1, ?2, ?3, ?4, ?5)",
            ),
            // Boot time is known to a second only, so a process may seem to have started a moment from now.
            end: activity("UPDATE activity_sessions SET ended_at = max(started_at, ?2) WHERE id = ?1"),
            event: activity(
                "INSERT INTO activity_events (id, session_id, at, kind, data) VALUES (?1, ?2, ?3, ?4, ?5)",
            ),
            running: BTreeMap::new(),
            next_event: EVENT_IDS,
        }
    }

    /// The commands for one look: sessions begin and end, and every process gets an event.
    fn record(&mut self, processes: &[Process]) -> (Vec<Command>, Vec<Promise>) {
        let (mut commands, mut promises) = (Vec::new(), Vec::new());
        let at = now_ms();
        let before = std::mem::take(&mut self.running);
        for process in processes {
            let cpu_before = before.get(&process.session).copied();
            if cpu_before.is_none() {
                commands.push(self.begin(process));
                promises.push(Promise::Session(process.session));
            }
            self.running.insert(process.session, process.cpu_ms);
            promises.push(Promise::Event(self.next_event));
            commands.push(self.event(process, at, cpu_before));
        }
        let gone = before.keys().filter(|session| !self.running.contains_key(session));
        commands.extend(gone.map(|session| self.end(*session, at)));
        (commands, promises)
    }

    /// Ends the sessions of everything that still runs: nobody looks any more.
    fn close(&mut self) -> (Vec<Command>, Vec<Promise>) {
        let at = now_ms();
        let running = std::mem::take(&mut self.running);
        (running.keys().map(|session| self.end(*session, at)).collect(), Vec::new())
    }

    fn begin(&self, process: &Process) -> Command {
        Statement::of(Arc::clone(&self.begin))
            .bind(process.session)
            .bind(process.started_at)
            .bind(process.name.as_str())
            .bind(None::<&str>)
            .bind(process.domain())
            .expect(1)
            .into()
    }

    fn end(&self, session: i64, at: i64) -> Command {
        Statement::of(Arc::clone(&self.end)).bind(session).bind(at).expect(1).into()
    }

    fn event(&mut self, process: &Process, at: i64, cpu_before: Option<u64>) -> Command {
        let id = self.next_event;
        self.next_event += 1;
        let used = process.cpu_ms.saturating_sub(cpu_before.unwrap_or(process.cpu_ms));
        let kind = match (cpu_before, used, process.state) {
            (None, ..) => "begin",
            (Some(_), 1.., _) => "work",
            (Some(_), 0, 'D') => "disk",
            (Some(_), 0, _) => "idle",
        };
        Statement::of(Arc::clone(&self.event))
            .bind(id)
            .bind(process.session)
            .bind(at)
            .bind(kind)
            .bind(json!({ "cpu_ms": process.cpu_ms, "used_ms": used }).to_string())
            .into()
    }
}

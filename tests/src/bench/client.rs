//! Our side: processes that submit through the client library.

use std::time::{Duration, Instant};

use penholder_client::{Client, ClientConfig, Durability, Ticket, WhenFull};
use penholder_protocol::{Command, Outcome, Text};

use crate::process::{Role, report, wait_for_start};
use crate::workload::{DATABASE, INSERT, command, histogram};

/// Commands per write of the bulk comparison.
const BULK_COMMANDS: u64 = 1000;
/// Longer than any wait of a healthy run.
const PATIENCE: Duration = Duration::from_mins(2);

fn connect(role: &Role) -> Client {
    Client::open(ClientConfig { when_full: WhenFull::Block(PATIENCE), ..ClientConfig::new(&role.place) })
        .unwrap()
}

/// One command at a time, waiting until it is applied, until the time is over.
pub(crate) fn applied(role: &Role) {
    let mut client = connect(role);
    let text = Text::new(DATABASE, INSERT);
    let mut latency = histogram();
    let start = wait_for_start();
    let mut count = 0;
    while start.elapsed().as_secs_f64() < role.seconds {
        let begun = Instant::now();
        let ticket = client.submit(command(&text, role.client, count + 1), Durability::Queued).unwrap();
        wait(&mut client, ticket);
        latency.saturating_record(begun.elapsed().as_micros() as u64);
        count += 1;
    }
    report(role.client, count, &latency);
}

/// A thousand commands per write, and at the end the wait until the last is applied.
pub(crate) fn bulk(role: &Role) {
    let mut client = connect(role);
    wait_for_start();
    if let Some(last) = submit_rows(&mut client, role.client, 1, role.rows) {
        wait(&mut client, last);
    }
    report(role.client, role.rows, &histogram());
}

/// Applies one row, then keeps the connection open and does nothing until the parent says so.
pub(crate) fn idle(role: &Role) {
    let mut client = connect(role);
    if let Some(last) = submit_rows(&mut client, role.client, 1, role.rows) {
        wait(&mut client, last);
    }
    wait_for_start();
    report(role.client, role.rows, &histogram());
}

/// Submits `count` rows from sequence `first` on, and gives the ticket of the last.
pub(crate) fn submit_rows(client: &mut Client, number: u64, first: u64, count: u64) -> Option<Ticket> {
    let text = Text::new(DATABASE, INSERT);
    let mut last = None;
    for start in (first..first + count).step_by(BULK_COMMANDS as usize) {
        let end = (start + BULK_COMMANDS).min(first + count);
        let commands: Vec<Command> = (start..end).map(|sequence| command(&text, number, sequence)).collect();
        let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
        last = tickets.last();
    }
    last
}

fn wait(client: &mut Client, ticket: Ticket) {
    let outcome = client.wait(ticket, PATIENCE).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
}

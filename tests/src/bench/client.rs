//! Our side: processes that submit through the client library.

use std::path::Path;
use std::time::Duration;

use penholder_client::{Client, ClientConfig, Durability, Ticket, WhenFull};
use penholder_protocol::{Command, Outcome, Text};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::peer::WARM_ROWS;
use crate::process::{self, Role, report, wait_for_start};
use crate::workload::{DATABASE, INSERT, command, histogram};

/// Commands per write of the bulk comparison.
const BULK_COMMANDS: u64 = 1000;
/// Longer than any wait of a healthy run.
const PATIENCE: Duration = Duration::from_mins(2);

fn connect(role: &Role) -> Client {
    Client::open(ClientConfig { when_full: WhenFull::Block(PATIENCE), ..ClientConfig::new(&role.place) })
        .unwrap()
}

/// In the parent: writes the rows that are there before anything is timed, as client 1.
pub(crate) fn warm(place: &Path) {
    let mut client = Client::connect(place).unwrap();
    let last = submit_rows(&mut client, 1, WARM_ROWS).unwrap();
    wait(&mut client, last);
}

/// One command at a time, waiting until it is applied, until the time is over.
pub(crate) fn applied(role: &Role) {
    let mut client = connect(role);
    let text = Text::new(DATABASE, INSERT);
    process::one_by_one(role, |sequence| {
        let ticket = client.submit(command(&text, role.client, sequence), Durability::Queued).unwrap();
        wait(&mut client, ticket);
    });
}

/// A thousand commands per write, and at the end the wait until the last is applied.
pub(crate) fn bulk(role: &Role) {
    let mut client = connect(role);
    wait_for_start();
    if let Some(last) = submit_rows(&mut client, role.client, role.rows) {
        wait(&mut client, last);
    }
    report(role.client, role.rows, &histogram());
}

/// As many clients as rows: each applies one, then stays connected and does nothing until the parent says so.
pub(crate) fn idle(role: &Role) {
    raise_descriptor_limit();
    let text = Text::new(DATABASE, INSERT);
    let clients: Vec<Client> = (1..=role.rows)
        .map(|sequence| {
            let mut client = connect(role);
            let ticket = client.submit(command(&text, role.client, sequence), Durability::Queued).unwrap();
            wait(&mut client, ticket);
            client
        })
        .collect();
    wait_for_start();
    drop(clients);
    report(role.client, role.rows, &histogram());
}

/// Each client holds a segment and a receipt file open.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Submits the rows 1 to `count` of a client, and gives the ticket of the last.
pub(crate) fn submit_rows(client: &mut Client, number: u64, count: u64) -> Option<Ticket> {
    let text = Text::new(DATABASE, INSERT);
    let mut last = None;
    for start in (1..=count).step_by(BULK_COMMANDS as usize) {
        let end = (start + BULK_COMMANDS).min(count + 1);
        let commands: Vec<Command> = (start..end).map(|sequence| command(&text, number, sequence)).collect();
        last = client.submit_batch(&commands, Durability::Queued).unwrap().last();
    }
    last
}

pub(crate) fn wait(client: &mut Client, ticket: Ticket) {
    let outcome = client.wait(ticket, PATIENCE).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
}

//! A client as the commands use it: what was submitted is reported as queued when no outcome comes in time.

use std::path::Path;
use std::time::Duration;

use penholder_client::{Client, ClientConfig, ClientError, Durability, Ticket, Tickets, WhenFull};
use penholder_protocol::Command;

use super::args::Level;
use super::exit::{Exit, Failure};
use super::outcome::Report;
use super::output::Output;

/// Connects with `timeout` for waits of every kind.
pub(super) fn connect(store: &Path, timeout: Duration) -> Result<Client, Failure> {
    let config = ClientConfig { when_full: WhenFull::Block(timeout), timeout, ..ClientConfig::new(store) };
    Ok(Client::open(config)?)
}

/// Submits commands at a level; for `applied` they come with a request for their results.
pub(super) fn submit(
    client: &mut Client,
    commands: &[Command],
    level: Level,
) -> Result<Tickets, ClientError> {
    match level {
        Level::Queued => client.submit_batch(commands, Durability::Queued),
        Level::Durable => client.submit_batch(commands, Durability::Durable),
        Level::Applied => client.submit_for_results(commands),
    }
}

/// Waits for an outcome. A timeout is said on stderr, and the command is reported as what it is: queued.
pub(super) fn wait(
    client: &mut Client,
    ticket: Ticket,
    timeout: Duration,
    output: &Output,
) -> Result<(Report, Exit), Failure> {
    match client.wait(ticket, timeout) {
        Ok(outcome) => {
            let report = Report::Final(outcome);
            let exit = report.exit();
            Ok((report, exit))
        }
        Err(error @ ClientError::Timeout { .. }) => {
            output.complain(&error.to_string());
            Ok((Report::Queued, Exit::TimedOut))
        }
        Err(error) => Err(error.into()),
    }
}

/// Submits one command and waits for its outcome.
pub(super) fn execute(
    client: &mut Client,
    command: Command,
    timeout: Duration,
    output: &Output,
) -> Result<(Ticket, Report, Exit), Failure> {
    let tickets = submit(client, &[command], Level::Applied)?;
    let ticket = tickets.last().ok_or_else(|| Failure::new("the command was not submitted"))?;
    let (report, exit) = wait(client, ticket, timeout, output)?;
    Ok((ticket, report, exit))
}

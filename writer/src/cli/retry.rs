//! `penholder rejected retry` and `drop`: ordinary commands that also delete the rows about rejected ones.

use std::time::Duration;

use penholder_client::Client;
use penholder_client::read::Reader;
use penholder_protocol::{Command, Outcome, Statement};

use super::aside_args::RejectedArgs;
use super::exit::{Exit, Failure};
use super::outcome::{self, Report};
use super::output::Output;
use super::rejected::{self, Id};
use super::submit;

const DELETE: &str = "DELETE FROM _penholder_rejected WHERE stream = ?1 AND sequence = ?2";

/// Submits each command again as it was, but for its idempotency key, which remembers the rejection.
///
/// Its row goes in the same command: whoever retries it at the same time applies it once.
pub(super) fn retry(
    args: &RejectedArgs,
    ids: &[Id],
    timeout: Duration,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let mut work = Work::begin(args, timeout, output)?;
    for id in ids {
        let rejected = rejected::find(&mut work.reader, *id)?;
        let command = Command { key: None, statements: rejected.command()?.statements };
        let command = without_row(command, *id, &rejected.databases);
        if let Some(again) = work.execute(command, *id, "applied, and no longer listed")? {
            // One row per command is enough, and that of the first try is the one people know.
            let (client, databases) = (&mut work.client, &rejected.databases);
            submit::execute(client, without_row(Command::new(), again, databases), timeout, work.output)?;
            // Unless somebody else retried or dropped it meanwhile.
            if rejected::find(&mut work.reader, *id).is_ok() {
                work.output.remark(&format!("{id} stays listed"));
            }
        }
    }
    Ok(work.exit)
}

/// Deletes the rows about each command.
pub(super) fn drop(
    args: &RejectedArgs,
    ids: &[Id],
    timeout: Duration,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let mut work = Work::begin(args, timeout, output)?;
    for id in ids {
        let rejected = rejected::find(&mut work.reader, *id)?;
        work.execute(without_row(Command::new(), *id, &rejected.databases), *id, "dropped")?;
    }
    Ok(work.exit)
}

/// Adds to a command that the row about `id` goes, and that it has to be there.
fn without_row(command: Command, id: Id, databases: &[String]) -> Command {
    databases.iter().fold(command, |command, database| {
        let delete = Statement::new(database, DELETE).bind(id.stream.0.as_slice());
        command.and(delete.bind(i64::try_from(id.sequence.0).unwrap_or(i64::MAX)).expect(1))
    })
}

struct Work<'o> {
    args_json: bool,
    reader: Reader,
    client: Client,
    timeout: Duration,
    output: &'o mut Output,
    done: u64,
    exit: Exit,
}

impl<'o> Work<'o> {
    fn begin(args: &RejectedArgs, timeout: Duration, output: &'o mut Output) -> Result<Self, Failure> {
        let reader = Reader::open(&args.store)?;
        let client = submit::connect(&args.store, timeout)?;
        Ok(Self { args_json: args.json, reader, client, timeout, output, done: 0, exit: Exit::Ok })
    }

    /// Executes and reports; returns the id under which it is kept, if it was rejected.
    fn execute(&mut self, command: Command, id: Id, success: &str) -> Result<Option<Id>, Failure> {
        let (ticket, report, exit) = submit::execute(&mut self.client, command, self.timeout, self.output)?;
        self.exit = self.exit.or_worse(exit);
        self.done += 1;
        if self.args_json {
            outcome::print_json(self.output, self.done, &report)?;
        } else if matches!(report, Report::Final(Outcome::Applied(_))) {
            self.output.line(format!("{id} {success}"))?;
        } else {
            outcome::print_words(self.output, &report)?;
        }
        let is_rejected = matches!(report, Report::Final(Outcome::Rejected(_)));
        Ok(is_rejected.then(|| Id { stream: ticket.stream(), sequence: ticket.sequence() }))
    }
}

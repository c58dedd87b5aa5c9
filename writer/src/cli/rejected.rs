//! `penholder rejected`: the commands that had no effect, as the databases keep them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use penholder_client::read::{Reader, Snapshot};
use penholder_protocol::{Code, Command, Rejection, Sequence, StreamId, decode_commands};
use rusqlite::Row;
use serde::Serialize;

use super::aside_args::{RejectedAction, RejectedArgs};
use super::exit::{Exit, Failure};
use super::line::CommandAsJson;
use super::output::{BAD, Output, STRONG};
use super::{outcome, render, retry};

/// The name of a rejected command: `<stream>-<sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) stream: StreamId,
    pub(super) sequence: Sequence,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.sequence)
    }
}

impl FromStr for Id {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let parts = text.split_once('-').and_then(|(stream, sequence)| {
            Some(Self { stream: stream.parse().ok()?, sequence: Sequence(sequence.parse().ok()?) })
        });
        let wrong = || {
            format!(
                "{text:?} is not the id of a command; they look like <32 digits>-<number>, see `rejected list`"
            )
        };
        parts.ok_or_else(|| Failure::usage(wrong()))
    }
}

/// A row of `_penholder_rejected`.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) id: Id,
    /// The databases that keep it, in commit order.
    pub(super) databases: Vec<String>,
    tick: u64,
    pub(super) rejection: Rejection,
    submitted_ns: i64,
    /// As it was submitted; `None` if its bytes could not be trusted.
    command: Option<Vec<u8>>,
}

impl Rejected {
    /// The command as it was submitted.
    pub(super) fn command(&self) -> Result<Command, Failure> {
        let decoded = self.command.as_deref().map(decode_commands).transpose();
        let mut commands =
            decoded.map_err(Failure::on(format!("cannot read {}", self.id)))?.unwrap_or_default();
        match commands.pop() {
            Some((_, _, command)) => Ok(command),
            None => Err(Failure::new(format!("{} was kept without its statements", self.id))),
        }
    }

    fn submitted(&self) -> String {
        let time = Timestamp::from_nanosecond(self.submitted_ns.into()).unwrap_or_default();
        format!("{time:.3}")
    }
}

/// What is printed of a rejected command.
#[derive(Serialize)]
struct RejectedAsJson<'r> {
    id: String,
    stream: String,
    seq: u64,
    tick: u64,
    submitted: String,
    databases: &'r [String],
    code: &'static str,
    message: &'r str,
    statement: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<CommandAsJson<'r>>,
}

fn as_json<'r>(rejected: &'r Rejected, command: Option<&'r Command>) -> RejectedAsJson<'r> {
    RejectedAsJson {
        id: rejected.id.to_string(),
        stream: rejected.id.stream.to_string(),
        seq: rejected.id.sequence.0,
        tick: rejected.tick,
        submitted: rejected.submitted(),
        databases: &rejected.databases,
        code: rejected.rejection.code.as_str(),
        message: &rejected.rejection.message,
        statement: rejected.rejection.statement,
        command: command.map(CommandAsJson),
    }
}

/// Does what was asked for; without a word, lists.
pub(super) fn run(args: &RejectedArgs, output: &mut Output) -> Result<Exit, Failure> {
    match &args.action {
        None | Some(RejectedAction::List) => list(args, output),
        Some(RejectedAction::Show { id }) => show(args, id.parse()?, output),
        Some(RejectedAction::Retry { ids, timeout }) => retry::retry(args, &parse(ids)?, *timeout, output),
        Some(RejectedAction::Drop { ids, timeout }) => retry::drop(args, &parse(ids)?, *timeout, output),
    }
}

fn parse(ids: &[String]) -> Result<Vec<Id>, Failure> {
    ids.iter().map(|id| id.parse()).collect()
}

fn list(args: &RejectedArgs, output: &mut Output) -> Result<Exit, Failure> {
    let mut reader = Reader::open(&args.store)?;
    let all = load(&mut reader, None)?;
    if args.json {
        all.iter().try_for_each(|rejected| output.json(&as_json(rejected, None)))?;
        return Ok(Exit::Ok);
    }
    if all.is_empty() {
        output.remark("no rejected commands");
        return Ok(Exit::Ok);
    }
    let row = |rejected: &Rejected| {
        let Rejection { code, message, .. } = &rejected.rejection;
        vec![
            rejected.id.to_string(),
            rejected.submitted(),
            rejected.databases.join("+"),
            code.to_string(),
            message.clone(),
        ]
    };
    let rows = all.iter().map(row).collect();
    let table = render::words(output, &["id", "submitted", "databases", "code", "message"], rows);
    output.line(table)?;
    Ok(Exit::Ok)
}

fn show(args: &RejectedArgs, id: Id, output: &mut Output) -> Result<Exit, Failure> {
    let rejected = find(&mut Reader::open(&args.store)?, id)?;
    let command = rejected.command()?;
    if args.json {
        output.json(&as_json(&rejected, Some(&command)))?;
        return Ok(Exit::Ok);
    }
    let label = |word: &str| output.paint(STRONG, format!("{word:<10}"));
    let word = output.paint(BAD, "rejected");
    let reason = outcome::reason(&rejected.rejection);
    let lines = [
        format!("{} {}", label("command"), rejected.id),
        format!("{} {}", label("submitted"), rejected.submitted()),
        format!(
            "{} {word} at tick {} ({reason}): {}",
            label("outcome"),
            rejected.tick,
            render::printable(&rejected.rejection.message)
        ),
    ];
    lines.into_iter().try_for_each(|line| output.line(line))?;
    output.json(&CommandAsJson(&command))?;
    Ok(Exit::Ok)
}

/// The rejected command with this id.
pub(super) fn find(reader: &mut Reader, id: Id) -> Result<Rejected, Failure> {
    let found = load(reader, Some(id))?.pop();
    found.ok_or_else(|| {
        Failure::new(format!("no rejected command {id}; it was retried or dropped, or never was"))
    })
}

/// The rejected commands, oldest first, each once however many databases keep it.
fn load(reader: &mut Reader, only: Option<Id>) -> Result<Vec<Rejected>, Failure> {
    let names: Vec<String> = reader.databases().map(str::to_owned).collect();
    let snapshot = reader.snapshot()?;
    let mut all: Vec<Rejected> = Vec::new();
    for name in &names {
        for row in load_one(&snapshot, name, only)? {
            match all.iter_mut().find(|known| known.id == row.id) {
                Some(known) => known.databases.extend(row.databases),
                None => all.push(row),
            }
        }
    }
    all.sort_by_key(|rejected| (rejected.tick, rejected.id.stream, rejected.id.sequence));
    Ok(all)
}

fn load_one(snapshot: &Snapshot<'_>, name: &str, only: Option<Id>) -> Result<Vec<Rejected>, Failure> {
    let sql = "SELECT stream, sequence, tick, code, message, statement, submitted_ns, command \
               FROM _penholder_rejected WHERE (?1 IS NULL OR stream = ?1) AND (?2 IS NULL OR sequence = ?2)";
    let mut rows = Vec::new();
    let params = (only.map(|id| id.stream.0), only.map(|id| id.sequence.0));
    snapshot.stream(name, sql, params, |row| {
        rows.push(rejected(row, name)?);
        Ok(())
    })?;
    Ok(rows)
}

fn rejected(row: &Row<'_>, database: &str) -> rusqlite::Result<Rejected> {
    Ok(Rejected {
        id: Id { stream: StreamId(row.get(0)?), sequence: Sequence(row.get(1)?) },
        databases: vec![database.to_owned()],
        tick: row.get(2)?,
        rejection: Rejection {
            code: Code::from_word(&row.get::<_, String>(3)?).unwrap_or(Code::Sql),
            message: row.get(4)?,
            statement: row.get(5)?,
        },
        submitted_ns: row.get(6)?,
        command: row.get(7)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_is_printed() {
        let id = Id { stream: StreamId([0xab; 16]), sequence: Sequence(7) };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in
            ["", "7", "ab-7", "abababababababababababababababab-", "abababababababababababababababab--1"]
        {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}

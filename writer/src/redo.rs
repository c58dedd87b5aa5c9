//! Completes a batch over several databases whose first commit is durable and whose later ones are not.
//!
//! Two WAL files never commit atomically together, so the first commit carries all that the others need: the batch
//! itself, in order. Its rejections and keys are recorded beside it, and what is recorded decides.

use std::collections::HashSet;

use penholder_protocol::{
    Command, CommandRef, Epoch, Outcome, PackedCommand, Sequence, Statement, StreamId, Tick, decode_commands,
};
use rusqlite::OptionalExtension;

use crate::apply::{self, Verdict};
use crate::batch::{Entry, Touches};
use crate::clock::{Clock, Counts};
use crate::database::Database;
use crate::grants::Roles;
use crate::references::{Along, References};
use crate::watermark::Watermarks;
use crate::{Config, Error, keys, rejected};

/// Stores the batch in the first commit; void once the others have the tick.
pub(crate) fn store(database: &Database<'_>, tick: Tick, batch: &[u8]) -> Result<(), Error> {
    let sql = "INSERT INTO _penholder_redo(id, tick, batch) VALUES (0, ?1, ?2) \
               ON CONFLICT (id) DO UPDATE SET tick = excluded.tick, batch = excluded.batch";
    database.run("store the redo of a batch in", sql, (tick.0, batch))
}

/// A rejected command as the redo row holds it, with no more than the key and the databases that it names: nobody runs it
/// again, and it may be larger than a row.
pub(crate) fn stub(databases: &[Database<'_>], command: CommandRef<'_>) -> Command {
    let is_named =
        |d: &&Database<'_>| command.statements().any(|statement| statement.text.database == d.name);
    let named = databases.iter().filter(is_named).map(|database| Statement::new(&database.name, ""));
    let mut statements: Vec<_> = named.collect();
    if statements.is_empty() {
        statements.push(Statement::new("", ""));
    }
    Command { key: command.key(), statements }
}

/// Brings every database to the tick of the last batch over several databases.
pub(crate) fn complete(databases: &mut [Database<'_>], config: &Config) -> Result<(), Error> {
    let along = Along::new(config)?;
    for first in 0..databases.len() {
        let Some(source) = databases.get(first) else { continue };
        let sql = "SELECT tick, batch FROM _penholder_redo WHERE id = 0";
        let row = |row: &rusqlite::Row<'_>| Ok((Tick(row.get(0)?), row.get::<_, Vec<u8>>(1)?));
        let Some((tick, batch)) = source.read("read the redo of", sql, [], row)? else { continue };
        let batch = decode_commands(&batch).map_err(Error::io("decode the redo of", source.name.as_ref()))?;
        for second in first + 1..databases.len() {
            complete_one(databases, (first, second), tick, &batch, &along, config)?;
        }
    }
    Ok(())
}

fn complete_one(
    databases: &mut [Database<'_>],
    (first, second): (usize, usize),
    tick: Tick,
    batch: &[(StreamId, Sequence, Command)],
    along: &Along,
    config: &Config,
) -> Result<(), Error> {
    let clock = Clock::load(databases)?;
    let mut entries = Vec::new();
    for (stream, sequence, command) in batch {
        let command = PackedCommand::pack(command);
        let named = Touches::of(command.read(), &databases.iter().map(|database| database.name.as_str()));
        let touches = along.of(named);
        if touches.contains(second) {
            entries.push(entry(databases, first, *stream, *sequence, command, touches)?);
        }
    }
    if entries.is_empty() || clock.of(second) >= tick {
        return Ok(());
    }
    let Some(target) = databases.get(second) else { return Ok(()) };
    let sql = "SELECT previous FROM _penholder_clock WHERE database = ?1";
    let source = databases.get(first).unwrap_or(target);
    let previous = source.read("read the clock of", sql, [&target.name], |row| row.get(0).map(Tick))?;
    if previous.is_some_and(|previous| clock.of(second) < previous) {
        log::warn!("{}.db is older than batch {tick} needs; its half of the batch is left out", target.name);
        return Ok(());
    }
    log::warn!("completing batch {tick} in {}.db: the writer died between its two commits", target.name);
    target.run("begin the redo of", "BEGIN IMMEDIATE", [])?;
    repeat(databases, first, second, tick, &entries, config)?;
    let watermarks = Watermarks::load(databases)?;
    let touches = Touches::default().with(first).with(second);
    let Some(target) = databases.get(second) else { return Ok(()) };
    watermarks.advance(second, target, &entries)?;
    clock.write(second, target, databases, touches, tick, Counts::default())?;
    target.run("commit the redo of", "COMMIT", [])
}

/// Applies to `second` what the batch did to it, as `first` remembers it.
fn repeat(
    databases: &mut [Database<'_>],
    first: usize,
    second: usize,
    tick: Tick,
    entries: &[Entry],
    config: &Config,
) -> Result<(), Error> {
    let mut keys_seen = HashSet::new();
    for entry in entries {
        let (Some(source), Some(target)) = (databases.get(first), databases.get(second)) else { continue };
        let mut has_effect = !rejected::copy(source, target, entry, tick)?;
        if let Some(key) = entry.command.read().key() {
            // What another command has used first, in this batch or before, had its outcome already.
            let is_of_batch = keys::copy(source, target, key, tick)?;
            has_effect = has_effect && is_of_batch && keys_seen.insert(key);
        }
        if !has_effect {
            continue;
        }
        // A command may touch a database that it does not name: nothing of it is left, or what was added, which follows.
        let Some(half) = half(entry, databases, second) else { continue };
        // What the references added stands in the batch by itself.
        let references = &mut References::default();
        let verdict = apply::apply(databases, references, &half, tick, config.command_deadline * 10)?;
        if !matches!(verdict, Verdict::Decided(Outcome::Applied(_))) {
            return Err(Error::refused(
                format!(
                    "command {} of stream {} cannot be completed: {verdict:?}",
                    entry.sequence, entry.stream
                ),
                "restore both databases from one backup",
            ));
        }
    }
    Ok(())
}

/// The statements of a command for one database, if it has any, without its key: that is settled already.
fn half(entry: &Entry, databases: &[Database<'_>], index: usize) -> Option<Entry> {
    let name = databases.get(index).map(|database| database.name.as_str());
    let mut mine = Command { key: None, ..entry.command.read().unpack() };
    mine.statements.retain(|statement| Some(statement.text.database.as_str()) == name);
    (!mine.statements.is_empty()).then(|| Entry {
        command: PackedCommand::pack(&mine),
        touches: Touches::default().with(index),
        wants_results: false,
        ..*entry
    })
}

fn entry(
    databases: &[Database<'_>],
    first: usize,
    stream: StreamId,
    sequence: Sequence,
    command: PackedCommand,
    touches: Touches,
) -> Result<Entry, Error> {
    let source = databases.get(first);
    let known = source.map(|database| {
        let sql = "SELECT epoch, uid FROM _penholder_stream WHERE stream = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let read = || database.connection.query_row(sql, [stream.0], row).optional();
        read().map_err(Error::sqlite("read a stream of", &database.name))
    });
    // The commit that stored the redo row stored the stream's too.
    let (epoch, uid) = known.transpose()?.flatten().unwrap_or_default();
    Ok(Entry {
        stream,
        uid,
        epoch: Epoch(epoch),
        sequence,
        command,
        touches,
        // Whether it was allowed is decided.
        roles: Roles::OWNER,
        is_done: false,
        wants_results: false,
        submitted_ns: 0,
        bytes: 0,
    })
}

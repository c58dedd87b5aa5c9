//! Rejected commands, kept in every database they touch until somebody retries or drops them.

use penholder_protocol::{Code, Outcome, Rejection, Tick, encode_commands};
use rusqlite::types::Value;

use crate::Error;
use crate::apply::COMMAND_BYTES_MAX;
use crate::batch::Entry;
use crate::commit::applied_without_details;
use crate::database::Database;

/// A client may use the id of a stream again that is forgotten here, while the row about its command is not.
const INSERT: &str = "INSERT OR REPLACE INTO _penholder_rejected \
    (stream, sequence, tick, code, message, statement, submitted_ns, command) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// Stores a rejection in the transaction that moves the watermark past it.
pub(crate) fn record(
    database: &Database<'_>,
    entry: &Entry,
    rejection: &Rejection,
    tick: Tick,
) -> Result<(), Error> {
    // A command that does not fit into a row is known by its outcome only.
    let fits = entry.bytes <= COMMAND_BYTES_MAX;
    let command = || std::iter::once((entry.stream, entry.sequence, entry.command.read().unpack()));
    let command = fits.then(|| encode_commands(command()));
    let row = (
        entry.stream.0,
        entry.sequence.0,
        tick.0,
        rejection.code.as_str(),
        &rejection.message,
        rejection.statement,
        i64::try_from(entry.submitted_ns).unwrap_or(i64::MAX),
        command,
    );
    database.run("record a rejection in", INSERT, row)
}

/// Copies what a database recorded at `tick` to another; whether the command was rejected.
pub(crate) fn copy(
    source: &Database<'_>,
    target: &Database<'_>,
    entry: &Entry,
    tick: Tick,
) -> Result<bool, Error> {
    let sql = "SELECT stream, sequence, tick, code, message, statement, submitted_ns, command FROM _penholder_rejected \
               WHERE stream = ?1 AND sequence = ?2 AND tick = ?3";
    let row = |row: &rusqlite::Row<'_>| (0..8).map(|column| row.get(column)).collect();
    let of_entry = (entry.stream.0, entry.sequence.0, tick.0);
    let found: Option<Vec<Value>> = source.read("look up a rejection in", sql, of_entry, row)?;
    let Some(row) = found else { return Ok(false) };
    target.run("copy a rejection to", INSERT, rusqlite::params_from_iter(row))?;
    Ok(true)
}

/// The outcome of a command that was decided before a crash.
pub(crate) fn outcome_of(databases: &[Database<'_>], entry: &Entry, tick: Tick) -> Result<Outcome, Error> {
    let sql = "SELECT code, message, statement FROM _penholder_rejected WHERE stream = ?1 AND sequence = ?2";
    let Some(database) = databases.get(entry.touches.first()) else {
        return Ok(applied_without_details(tick));
    };
    let row = |row: &rusqlite::Row<'_>| {
        let code = Code::from_word(&row.get::<_, String>(0)?).unwrap_or(Code::Sql);
        Ok(Rejection { code, message: row.get(1)?, statement: row.get(2)? })
    };
    let rejection = database.read("look up a rejection in", sql, (entry.stream.0, entry.sequence.0), row)?;
    Ok(rejection.map_or_else(|| applied_without_details(tick), Outcome::Rejected))
}

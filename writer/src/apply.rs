//! Runs one command inside the open transactions, so that whatever it does, it does alone.

use std::time::Duration;

use penholder_protocol::{
    Applied, Code, CommandRef, Outcome, Rejection, StatementRef, StatementResult, Tick, limits,
};
use rusqlite::{Connection, ErrorCode};

use crate::batch::Entry;
use crate::database::{Bound, Database, VALUE_BYTES_MAX, value_of};
use crate::error::is_contradiction;
use crate::guard::Mode;
use crate::references::References;
use crate::{Error, fence, filesystem, keys};

/// Largest command with its SQL written out, in bytes: it must fit into a row as redo or as rejected.
pub(crate) const COMMAND_BYTES_MAX: usize = 8 << 20;

/// Bytes of values that a prepared statement may keep until it runs again; there are many prepared statements.
const BOUND_BYTES_KEPT: usize = 4 << 10;

/// Bytes free on a disk that is not full: a command writes to it by the page, when it changed more than the page cache
/// holds.
const FREE_BYTES_MIN: u64 = 1 << 20;

const _: () = assert!(COMMAND_BYTES_MAX * 2 <= VALUE_BYTES_MAX);

/// What a command has done to the open transactions.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It has its outcome, and the transactions hold exactly its effect, or nothing of it.
    Decided(Outcome),
    /// It has ended or spoilt a transaction: roll the batch back and apply it again without this command.
    Spoilt(Rejection),
}

/// What the statements of a command did, as far as a receipt holds it.
pub(crate) struct Results {
    statements: Vec<StatementResult>,
    /// Bytes that more rows may take.
    bytes_left: usize,
}

/// Why a statement did not succeed.
pub(crate) enum Failure {
    /// The command's own fault.
    Rejected(Rejection),
    /// The command's own fault, of which a virtual table may keep something in memory until the transaction ends.
    Spoilt(Rejection),
    /// The machine's fault: says nothing about the command.
    Environment(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Environment(error)
    }
}

/// Applies one command. Never begins, commits or rolls back a transaction.
pub(crate) fn apply(
    databases: &mut [Database<'_>],
    references: &mut References,
    entry: &Entry,
    tick: Tick,
    deadline: Duration,
) -> Result<Verdict, Error> {
    let command = entry.command.read();
    if entry.bytes > COMMAND_BYTES_MAX {
        let message =
            format!("the command takes {} bytes with its SQL, {COMMAND_BYTES_MAX} are allowed", entry.bytes);
        return Ok(Verdict::Decided(Outcome::Rejected(rejection(Code::Limit, &message, None))));
    }
    if let Some(first) = keys::lookup(databases, command)? {
        return Ok(Verdict::Decided(first));
    }
    let mode = if entry.touches.are_several() && names_several(command) {
        Mode::ClientReplayable(entry.roles)
    } else {
        Mode::Client(entry.roles)
    };
    let needs = needs_savepoint(databases, command, mode);
    let saved = matches!(needs, Ok(true));
    references.begin(databases, entry)?;
    for index in entry.touches.iter() {
        let Some(database) = databases.get(index) else { continue };
        fence::forget_last_insert_rowid(database.connection);
        if saved {
            database.run("open a savepoint in", "SAVEPOINT command", [])?;
        }
        database.guard.start_clock(deadline);
    }
    let mut results = (entry.wants_results || command.key().is_some()).then(Results::default);
    // What does not prepare is not tried again: that may have ended the transaction in which it was to run.
    let ran = needs
        .and_then(|_| run_all(databases, command, mode, results.as_mut()))
        .and_then(|()| references.settle(databases, entry));
    for database in entry.touches.iter().filter_map(|index| databases.get(index)) {
        database.guard.stop_clock();
        database.guard.set_mode(Mode::Engine);
    }
    let mut outcome = match ran {
        Ok(()) => Outcome::Applied(Applied { tick, results: results.map(|results| results.statements) }),
        Err(Failure::Rejected(rejection)) => Outcome::Rejected(rejection),
        Err(Failure::Spoilt(rejection)) => {
            references.undo(entry);
            return Ok(Verdict::Spoilt(rejection));
        }
        Err(Failure::Environment(error)) => return Err(error),
    };
    let is_clean = close(databases, entry, &mut outcome, tick, saved)?;
    if let Outcome::Rejected(_) = outcome {
        references.undo(entry);
    }
    Ok(match outcome {
        Outcome::Rejected(rejection) if !is_clean => Verdict::Spoilt(rejection),
        Outcome::Applied(_) | Outcome::Rejected(_) => Verdict::Decided(outcome),
    })
}

/// Whether a command has statements for several databases; it may touch more than it names.
fn names_several(command: CommandRef<'_>) -> bool {
    let mut names = command.statements().map(|statement| &statement.text.database);
    let first = names.next();
    names.any(|name| Some(name) != first)
}

/// Leaves the transactions clean: the whole command or nothing of it, no violation that would fail the commit. Whether it
/// could; if not, `outcome` is a rejection.
fn close(
    databases: &[Database<'_>],
    entry: &Entry,
    outcome: &mut Outcome,
    tick: Tick,
    saved: bool,
) -> Result<bool, Error> {
    let touched = || entry.touches.iter().filter_map(|index| databases.get(index));
    let ended = touched().any(|database| database.connection.is_autocommit());
    let deferred = !ended && touched().any(|database| fence::has_deferred_violations(database.connection));
    if let Outcome::Applied(_) = outcome
        && (ended || deferred)
    {
        let message =
            if deferred { "FOREIGN KEY constraint failed" } else { "the command ended its transaction" };
        *outcome = Outcome::Rejected(rejection(Code::Constraint, message, None));
    }
    if ended || (deferred && !saved) {
        return Ok(false);
    }
    let key = entry.command.read().key();
    if !saved && key.is_none() {
        // Nothing has run since the transactions were looked at.
        return Ok(true);
    }
    for database in touched() {
        if saved && matches!(outcome, Outcome::Rejected(_)) {
            database.run("undo a command in", "ROLLBACK TO command", [])?;
        }
        if let Some(key) = key {
            keys::remember(database, key, entry.command.read(), tick, outcome)?;
        }
        if saved {
            database.run("close a savepoint in", "RELEASE command", [])?;
        }
        assert!(
            !database.connection.is_autocommit() && !fence::has_deferred_violations(database.connection),
            "a decided command leaves the batch's transaction open and able to commit"
        );
    }
    Ok(true)
}

/// One statement that SQLite itself undoes on failure needs none; it would cost a quarter more.
fn needs_savepoint(
    databases: &mut [Database<'_>],
    command: CommandRef<'_>,
    mode: Mode,
) -> Result<bool, Failure> {
    let mut statements = command.statements();
    let (Some(statement), 0) = (statements.next(), statements.len()) else { return Ok(true) };
    if statement.expect_rows.is_some() || command.key().is_some() {
        return Ok(true);
    }
    let Some(database) = databases.iter_mut().find(|d| d.name == statement.text.database) else {
        return Ok(false);
    };
    database.guard.set_mode(mode);
    let needs = database.prepare(statement.text, mode).map(|prepared| prepared.needs_savepoint);
    needs.map_err(|error| classify(error, database, Some(0)))
}

fn run_all(
    databases: &mut [Database<'_>],
    command: CommandRef<'_>,
    mode: Mode,
    mut results: Option<&mut Results>,
) -> Result<(), Failure> {
    for (index, statement) in (0..).zip(command.statements()) {
        let Some(database) = databases.iter_mut().find(|d| d.name == statement.text.database) else {
            let known: Vec<_> = databases.iter().map(|d| d.name.as_str()).collect();
            let message = format!(
                "no database {:?} in this store; it has {}",
                statement.text.database,
                known.join(" and ")
            );
            return Err(Failure::Rejected(rejection(Code::Sql, &message, Some(index))));
        };
        let changes = run_one(database, &statement, mode, results.as_deref_mut())
            .map_err(|error| classify(error, database, Some(index)))?;
        if let Some(expected) = statement.expect_rows
            && changes != expected
        {
            let rows = if expected == 1 { "row" } else { "rows" };
            let message = format!("expected {expected} {rows} to change, {changes} would have");
            return Err(Failure::Rejected(rejection(Code::Expectation, &message, Some(index))));
        }
    }
    Ok(())
}

/// Runs one statement; how many rows it changed.
pub(crate) fn run_one(
    database: &mut Database<'_>,
    statement: &StatementRef<'_>,
    mode: Mode,
    results: Option<&mut Results>,
) -> rusqlite::Result<u64> {
    database.guard.set_mode(mode);
    let connection = database.connection;
    let prepared = &mut database.prepare(statement.text, mode)?.statement;
    let wanted = prepared.parameter_count();
    if wanted != statement.params.len() {
        return Err(rusqlite::Error::InvalidParameterCount(statement.params.len(), wanted));
    }
    let mut bound_bytes = 0;
    for (place, value) in (1..).zip(statement.params.clone()) {
        let value = Bound(value);
        bound_bytes += value.bytes_count();
        prepared.raw_bind_parameter(place, value)?;
    }
    let ran = step(connection, prepared, results);
    if bound_bytes > BOUND_BYTES_KEPT {
        prepared.clear_bindings();
    }
    ran
}

/// Runs a statement to its end.
fn step(
    connection: &Connection,
    prepared: &mut rusqlite::Statement<'_>,
    mut results: Option<&mut Results>,
) -> rusqlite::Result<u64> {
    let mut result = StatementResult::default();
    let columns = prepared.column_count();
    let changes = if columns == 0 {
        prepared.raw_execute()? as u64
    } else {
        let before = connection.total_changes();
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next()? {
            if let Some(results) = &mut results {
                results.keep(row, columns, &mut result)?;
            }
        }
        drop(rows);
        if connection.total_changes() == before { 0 } else { connection.changes() }
    };
    if let Some(results) = results {
        (result.changes, result.last_insert_rowid) = (changes, connection.last_insert_rowid());
        results.statements.push(result);
    }
    Ok(changes)
}

impl Default for Results {
    fn default() -> Self {
        Self { statements: Vec::new(), bytes_left: limits::RESULT_BYTES_MAX }
    }
}

impl Results {
    /// Takes over a row, unless it is too large for what is left.
    fn keep(
        &mut self,
        row: &rusqlite::Row<'_>,
        columns: usize,
        result: &mut StatementResult,
    ) -> rusqlite::Result<()> {
        let size = 8 + (0..columns).map(|column| row.get_ref(column).map_or(0, size_of_value)).sum::<usize>();
        if size > self.bytes_left {
            self.bytes_left = 0;
            result.rows_truncated = true;
            return Ok(());
        }
        self.bytes_left -= size;
        let values = (0..columns).map(|column| row.get_ref(column).map(value_of));
        result.rows.push(values.collect::<rusqlite::Result<_>>()?);
        Ok(())
    }
}

/// Bytes that a value takes in a receipt: its tag, a length, its content.
fn size_of_value(value: rusqlite::types::ValueRef<'_>) -> usize {
    12 + value.as_bytes_or_null().ok().flatten().map_or(0, <[u8]>::len)
}

/// Tells a bad command from a bad machine.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rusqlite's enums may grow; what is new is the command's fault"
)]
pub(crate) fn classify(error: rusqlite::Error, database: &Database<'_>, statement: Option<u32>) -> Failure {
    let (failure, text) = match &error {
        rusqlite::Error::SqliteFailure(failure, text) => (Some(*failure), text.clone()),
        rusqlite::Error::SqlInputError { error, msg, .. } => (Some(*error), Some(msg.clone())),
        rusqlite::Error::ToSqlConversionFailure(reason) => (None, Some(reason.to_string())),
        rusqlite::Error::InvalidParameterCount(given, wanted) => {
            (None, Some(format!("the statement takes {wanted} parameters, {given} were given")))
        }
        _ => (None, None),
    };
    let text = text.unwrap_or_else(|| error.to_string());
    if is_contradiction(&error) {
        return Failure::Spoilt(contradiction(statement));
    }
    // What is said of the text itself goes before what a part of it may not do.
    let denied = database.guard.take_denied().filter(|_| failure.is_some());
    let (code, message) = match failure.map(|failure| failure.code) {
        Some(ErrorCode::OutOfMemory) if fence::is_heap_exhausted() => {
            (Code::Limit, "the command needs more memory than `sqlite.heap_bytes_max` allows".into())
        }
        Some(ErrorCode::DiskFull) if !is_disk_full(database) => {
            let message =
                format!("{text}, and the disk is not: an AUTOINCREMENT has no number left, or the like");
            (Code::Limit, message)
        }
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::PermissionDenied
            | ErrorCode::ApiMisuse,
        ) => return Failure::Environment(Error::sqlite("apply a command to", &database.name)(error)),
        Some(ErrorCode::ConstraintViolation) => (Code::Constraint, text),
        Some(ErrorCode::TooBig) => (Code::Limit, text),
        Some(ErrorCode::OperationInterrupted) => {
            (Code::Limit, "the command took longer than its deadline".into())
        }
        Some(ErrorCode::AuthorizationForStatementDenied) => (Code::Grant, denied.unwrap_or(text)),
        _ => match denied {
            // A denied read inside an expression surfaces as a plain error.
            Some(denied) => (Code::Grant, denied),
            None => (Code::Sql, text),
        },
    };
    Failure::Rejected(rejection(code, &message, statement))
}

/// SQLite calls it damage; a restored backup would not mend it.
pub(crate) fn contradiction(statement: Option<u32>) -> Rejection {
    let message = "a virtual table contradicts itself or what it is about: rebuild it, in a migration or with its own command";
    rejection(Code::Sql, message, statement)
}

/// Whether it is the disk that SQLite means: it says the same of a table that has no number left for a row.
///
/// A page that was not written for want of space leaves less than a page free, and nothing of ours gives any back before
/// this looks: a rollback does not shorten the WAL. If another program does, the rejection is wrong, but it was told.
fn is_disk_full(database: &Database<'_>) -> bool {
    let path = database.connection.path().unwrap_or_default();
    filesystem::free_bytes(path.as_ref()).map_or(true, |bytes| bytes < FREE_BYTES_MIN)
}

/// A rejection whose message fits into a receipt.
pub(crate) fn rejection(code: Code, message: &str, statement: Option<u32>) -> Rejection {
    let end = message.floor_char_boundary(limits::MESSAGE_BYTES_MAX);
    Rejection { code, message: message.get(..end).unwrap_or_default().to_owned(), statement }
}

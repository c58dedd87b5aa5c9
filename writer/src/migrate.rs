//! The schema of the user's tables: numbered SQL texts, each applied once, in one transaction with its record.

use std::path::PathBuf;

use penholder_protocol::Tick;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::Error;

mod source;
mod words;

pub(crate) use source::check_directory;

/// Longest text of a migration, in bytes: SQLite copies what is left of it for every statement.
const MIGRATION_BYTES_MAX: usize = 1 << 20;

/// Where the migrations of a store come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The activity tracker's, built in.
    Builtin,
    /// `<directory>/<database>/NNN_name.sql`.
    Directory(PathBuf),
    /// Nothing new: the store was made from a directory that was not named this time.
    None,
}

/// One text of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Migration {
    /// Its place in the order, from 1 without gaps.
    pub(crate) number: u32,
    /// Its file's name, without the number and the extension.
    pub(crate) name: String,
    /// The statements.
    pub(crate) sql: String,
    /// Where it stands, for messages.
    pub(crate) place: String,
}

impl Migration {
    /// Tells an applied text from one that was changed since.
    fn checksum(&self) -> i64 {
        crc32fast::hash(self.sql.as_bytes()).into()
    }
}

/// The migrations that a database still lacks, in order; refuses a schema that is not the one it was made with.
pub(crate) fn pending(
    connection: &Connection,
    database: &str,
    schema: &Schema,
) -> Result<Vec<Migration>, Error> {
    let mut migrations = match schema {
        Schema::Builtin => source::builtin(database),
        Schema::Directory(directory) => source::of_directory(directory, database)?,
        Schema::None => return Ok(Vec::new()),
    };
    let applied = applied(connection).map_err(Error::sqlite("read the migrations of", database))?;
    for (number, name, checksum) in &applied {
        let Some(migration) = migrations.iter().find(|migration| migration.number == *number) else {
            let hint = match schema {
                Schema::Directory(_) => {
                    "put its file back, or name the directory that the store was made with"
                }
                Schema::Builtin | Schema::None => {
                    "start the version of Penholder that applied it or a newer one, or pass --schema with its directory"
                }
            };
            let what = format!("{database}.db has migration {number:03}_{name}, which is not in the schema");
            return Err(Error::refused(what, hint));
        };
        if migration.checksum() != *checksum {
            return Err(Error::refused(
                format!("{} was changed after it was applied to {database}.db", migration.place),
                "put the old text back and write what is new as the next migration",
            ));
        }
    }
    migrations.retain(|migration| applied.iter().all(|(number, ..)| *number != migration.number));
    if let (Some(first), Some((last, ..))) = (migrations.first(), applied.last())
        && first.number < *last
    {
        return Err(Error::refused(
            format!("{database}.db has migration {last:03} and lacks {}", first.place),
            "restore the database from a backup: its record of migrations was tampered with",
        ));
    }
    Ok(migrations)
}

/// Applies what a database lacks, each migration in a transaction of its own; returns how many there were.
///
/// Foreign keys are not enforced while a migration runs, so that it may rebuild a table that others refer to; all of
/// them are checked before its COMMIT.
pub(crate) fn apply(
    connection: &Connection,
    database: &str,
    schema: &Schema,
    tick: Tick,
) -> Result<usize, Error> {
    let pending = pending(connection, database, schema)?;
    if pending.is_empty() {
        return Ok(0);
    }
    let failed = || Error::sqlite("prepare to migrate", database);
    let enforced: bool =
        connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).map_err(failed())?;
    connection.pragma_update(None, "foreign_keys", false).map_err(failed())?;
    // A text holds many statements: their bound is not meant for it.
    let bound = i32::try_from(MIGRATION_BYTES_MAX + 1).unwrap_or(i32::MAX);
    let length = connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, bound).map_err(failed())?;
    let done = pending.iter().try_for_each(|migration| apply_one(connection, database, migration, tick));
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, length).map_err(failed())?;
    connection.pragma_update(None, "foreign_keys", enforced).map_err(failed())?;
    done.map(|()| pending.len())
}

fn apply_one(
    connection: &Connection,
    database: &str,
    migration: &Migration,
    tick: Tick,
) -> Result<(), Error> {
    let failed = || Error::sqlite("migrate", database);
    let transaction =
        Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(failed())?;
    run(&transaction, database, migration)?;
    check_foreign_keys(&transaction, database, migration)?;
    let tick = i64::try_from(tick.0).unwrap_or(i64::MAX);
    transaction
        .execute(
            "INSERT INTO _penholder_migration(number, name, checksum, tick) VALUES (?1, ?2, ?3, ?4)",
            (migration.number, &migration.name, migration.checksum(), tick),
        )
        .map_err(failed())?;
    transaction.commit().map_err(failed())?;
    log::info!("{database}.db: applied migration {:03}_{}", migration.number, migration.name);
    Ok(())
}

/// Runs the statements one by one, each looked at before it runs: none may end the transaction.
fn run(transaction: &Transaction<'_>, database: &str, migration: &Migration) -> Result<(), Error> {
    let explain = |error, text: Option<&str>| explain(error, database, migration, text);
    let mut statements = Batch::new(transaction, &migration.sql);
    while let Some(mut statement) = statements.next().map_err(|error| explain(error, None))? {
        let text = statement.expanded_sql().unwrap_or_default();
        if let Some(reason) = words::objection(&text) {
            return Err(refuse(migration, &reason));
        }
        let mut step = || {
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        step().map_err(|error| explain(error, Some(&text)))?;
        if transaction.is_autocommit() {
            return Err(refuse(migration, "it ended its transaction"));
        }
    }
    Ok(())
}

fn check_foreign_keys(
    transaction: &Transaction<'_>,
    database: &str,
    migration: &Migration,
) -> Result<(), Error> {
    let mut broken = None;
    transaction
        .pragma_query(None, "foreign_key_check", |row| {
            let name = |column| Ok::<_, rusqlite::Error>(text_of(row.get_ref(column)?));
            broken.get_or_insert((name(0)?, name(2)?));
            Ok(())
        })
        .map_err(|error| explain(error, database, migration, None))?;
    let Some((table, parent)) = broken else { return Ok(()) };
    Err(refuse(
        migration,
        &format!("it leaves rows in {table} that refer to rows that {parent} does not have"),
    ))
}

fn text_of(value: ValueRef<'_>) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn applied(connection: &Connection) -> rusqlite::Result<Vec<(u32, String, i64)>> {
    let sql = "SELECT number, name, checksum FROM _penholder_migration ORDER BY number";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn refuse(migration: &Migration, reason: &str) -> Error {
    let what = format!("migration {}: {reason}", migration.place);
    Error::refused(what, "correct it and start again; nothing of it was applied")
}

/// A fault of the text is the author's to mend; a fault of the disk says nothing about the text.
fn explain(error: rusqlite::Error, database: &str, migration: &Migration, statement: Option<&str>) -> Error {
    if let rusqlite::Error::SqlInputError { msg, sql, offset, .. } = &error {
        let start = migration.sql.len().saturating_sub(sql.len()) + usize::try_from(*offset).unwrap_or(0);
        let line = migration.sql.get(..start).map_or(0, |before| before.matches('\n').count()) + 1;
        return refuse(migration, &format!("line {line}: {msg}"));
    }
    let of_environment = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
        )
    );
    if of_environment {
        return Error::sqlite("migrate", database)(error);
    }
    match statement {
        Some(text) => refuse(migration, &format!("{error} in `{}`", words::first_line(text))),
        None => refuse(migration, &error.to_string()),
    }
}

#[cfg(test)]
mod tests;

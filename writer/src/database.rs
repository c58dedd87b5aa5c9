//! One database of the store: its connection's settings and its prepared statements.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use penholder_protocol::{Layout, Text, Value, WriterState, limits};
use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Batch, Connection, FileControl, Statement, ToSql};

use crate::grants::Roles;
use crate::guard::{Guard, Mode};
use crate::judge::{self, Judge};
use crate::keeper::Keeper;
use crate::rewrite::rewrite;
use crate::{Config, Error, costly};

/// SQLite before 3.51.3 can lose commits when a checkpoint races with a reset of the WAL.
pub(crate) const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Longest value or row, in bytes: the redo row of a batch is the largest that is ever written.
pub(crate) const VALUE_BYTES_MAX: usize = 16 << 20;

/// Longest pattern of LIKE and GLOB, in bytes: compared with the longest value it takes seconds.
const LIKE_PATTERN_BYTES_MAX: usize = 128;

/// Most arguments of a function: some go through a whole value for each.
const FUNCTION_ARGUMENTS_MAX: usize = 127;

/// Bytes of SQL of all prepared statements of a database: a statement takes many times the memory of its text.
const STATEMENTS_BYTES_MAX: usize = 1 << 20;

/// Prepared statements kept per database before the cache starts over.
const STATEMENTS_COUNT_MAX: usize = 1024;

/// How `PRAGMA synchronous` says FULL.
const SYNCHRONOUS_FULL: i64 = 2;

/// What SQLite must not be built with: each takes away a part of what the writer relies on, without an error.
const OPTIONS_REFUSED: [&str; 10] = [
    "DISABLE_DIRSYNC",
    "NO_SYNC",
    "OMIT_AUTHORIZATION",
    "OMIT_FOREIGN_KEY",
    "OMIT_PROGRESS_CALLBACK",
    "OMIT_TRIGGER",
    "OMIT_WAL",
    "THREADSAFE=0",
    "OMIT_AUTORESET",
    // SQLite would write on behind the sync of a commit.
    "POWERSAFE_OVERWRITE=0",
];

/// Refuses a SQLite that is known to lose data, or is not built as it was tested.
pub(crate) fn check_build() -> Result<(), Error> {
    let read = || {
        let connection = Connection::open_in_memory()?;
        let mut statement = connection.prepare("PRAGMA compile_options")?;
        let options = statement.query_map([], |row| row.get::<_, String>(0))?;
        options.collect::<rusqlite::Result<Vec<_>>>()
    };
    let options = read().map_err(Error::sqlite("ask how SQLite is built with", ":memory:"))?;
    match objection(rusqlite::version_number(), &options) {
        Some(what) => Err(Error::refused(what, "build Penholder with its bundled SQLite")),
        None => Ok(()),
    }
}

/// Why a SQLite of this version and with these options will not do.
fn objection(version: i32, options: &[String]) -> Option<String> {
    if version < SQLITE_VERSION_MIN {
        let (major, minor, patch) = (version / 1_000_000, version / 1000 % 1000, version % 1000);
        return Some(format!("SQLite {major}.{minor}.{patch} has the WAL-reset bug and can lose commits"));
    }
    let refused = options.iter().find(|option| OPTIONS_REFUSED.contains(&option.as_str()));
    refused.map(|option| format!("SQLite is built with {option}"))
}

/// A database as the writer uses it; the connection outlives it, so that statements can stay prepared.
pub(crate) struct Database<'c> {
    /// Its name: the file is `<name>.db`.
    pub(crate) name: String,
    pub(crate) connection: &'c Connection,
    pub(crate) guard: Arc<Guard>,
    /// Whom clients that are not owners have to pass; without one, none does.
    pub(crate) judge: Option<Judge>,
    prepared: Vec<Prepared<'c>>,
    /// Bytes of their texts.
    prepared_bytes: usize,
    places: HashMap<(Mode, Arc<Text>), usize>,
    /// The text prepared last and its place: streams repeat a text, and comparing pointers is cheapest.
    recent: Option<(Mode, Arc<Text>, usize)>,
}

/// A statement of a client, and what is known about it.
pub(crate) struct Prepared<'c> {
    pub(crate) statement: Statement<'c>,
    /// It, or a trigger or constraint of the schema, may stop half-way and keep what it did (`OR FAIL`); or it may do all of
    /// it, and then be found to violate a reference to another database.
    pub(crate) needs_savepoint: bool,
}

/// Opens a database for writing, under the locks of its keeper; `last` is how the writer before ended.
pub(crate) fn open(
    layout: &Layout,
    keeper: &Keeper,
    config: &Config,
    last: WriterState,
) -> Result<(Connection, Arc<Guard>), Error> {
    let name = keeper.name();
    let mut connection = keeper.connect(&layout.database(name))?;
    settle(&connection, config).map_err(Error::sqlite("configure", name))?;
    check_durability(&connection, name)?;
    rewrite(&connection, &layout.database(name), last)?;
    let guard = Guard::install(&mut connection, name)?;
    Ok((connection, guard))
}

/// Reads back what every promise rests on: SQLite answers a setting that it does not take with the old one.
fn check_durability(connection: &Connection, name: &str) -> Result<(), Error> {
    let read = || {
        let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let level: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        Ok((journal, level))
    };
    let (journal, level) = read().map_err(Error::sqlite("configure", name))?;
    if (journal.as_str(), level) == ("wal", SYNCHRONOUS_FULL) {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "{name}.db runs with journal_mode {journal} and synchronous {level}, not with wal and {SYNCHRONOUS_FULL}"
        ),
        "put the store on a local file system, and use the bundled SQLite",
    ))
}

fn settle(connection: &Connection, config: &Config) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // Kept well above the size at which it is checkpointed: a WAL that is overwritten syncs several times as fast as one
    // that grows. Only what a long reader made of it is given back.
    connection.pragma_update(None, "journal_size_limit", config.wal_bytes_hard * 8)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", format!("-{}", config.cache_bytes / 1024))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    let mut keep = 1;
    connection.file_control(None::<&str>, FileControl::PersistWal(&mut keep))?;
    let bounds = [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, limits::SQL_BYTES_MAX + 1),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, limits::STATEMENT_PARAMS_MAX),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 100),
        // What follows bounds single steps of SQLite's machine, which no deadline ends. There is no bound on the steps
        // of a program: SQLite reports one that is too long as if the machine were out of memory.
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_PATTERN_BYTES_MAX),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, FUNCTION_ARGUMENTS_MAX),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ];
    for (limit, bound) in bounds {
        connection.set_limit(limit, i32::try_from(bound).unwrap_or(i32::MAX))?;
    }
    costly::bound(connection)
}

impl<'c> Database<'c> {
    pub(crate) fn new(keeper: &Keeper, opened: &'c (Connection, Arc<Guard>)) -> Self {
        let (connection, guard) = opened;
        Self {
            name: keeper.name().to_owned(),
            connection,
            guard: guard.clone(),
            judge: None,
            prepared: Vec::new(),
            prepared_bytes: 0,
            places: HashMap::new(),
            recent: None,
        }
    }

    /// Runs one of the writer's own statements.
    pub(crate) fn run(
        &self,
        operation: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<(), Error> {
        self.guard.set_mode(Mode::Engine);
        let run = || self.connection.prepare_cached(sql)?.execute(params).map(drop);
        run().map_err(Error::sqlite(operation, &self.name))
    }

    /// Reads one row with one of the writer's own statements.
    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
        take: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        use rusqlite::OptionalExtension;
        self.guard.set_mode(Mode::Engine);
        let read = || self.connection.prepare_cached(sql)?.query_row(params, take).optional();
        read().map_err(Error::sqlite(operation, &self.name))
    }

    /// The number that changes whenever another connection commits.
    pub(crate) fn data_version(&self) -> Result<i64, Error> {
        let version = self.read("look for foreign writes in", "PRAGMA data_version", [], |row| row.get(0))?;
        Ok(version.unwrap_or_default())
    }

    /// The prepared form of a client's text, for commands of `mode`.
    pub(crate) fn prepare(&mut self, text: &Arc<Text>, mode: Mode) -> rusqlite::Result<&mut Prepared<'c>> {
        let place = match &self.recent {
            Some((for_mode, known, place)) if *for_mode == mode && Arc::ptr_eq(known, text) => *place,
            _ => self.place_of(text, mode)?,
        };
        self.prepared.get_mut(place).ok_or_else(|| refuse("the prepared statement is gone"))
    }

    fn place_of(&mut self, text: &Arc<Text>, mode: Mode) -> rusqlite::Result<usize> {
        let key = (mode, Arc::clone(text));
        let place = if let Some(place) = self.places.get(&key) {
            *place
        } else {
            if let Some(roles) = mode.limited() {
                self.check_grants(&text.sql, roles)?;
            }
            self.guard.forget_watched();
            let statement = prepare_one(self.connection, &text.sql)?;
            let needs_savepoint = says(&text.sql, b"fail")
                || self.guard.saw_watched()
                || schema_says_fail(self.connection, &self.guard, mode)?;
            if self.prepared.len() >= STATEMENTS_COUNT_MAX || self.prepared_bytes > STATEMENTS_BYTES_MAX {
                self.prepared.clear();
                self.prepared_bytes = 0;
                self.places.clear();
            }
            self.prepared_bytes += text.sql.len();
            self.prepared.push(Prepared { statement, needs_savepoint });
            self.places.insert(key, self.prepared.len() - 1);
            self.prepared.len() - 1
        };
        self.recent = Some((mode, Arc::clone(text), place));
        Ok(place)
    }

    /// Fails with the reason in the guard if the roles do not allow the statement.
    fn check_grants(&self, sql: &str, roles: Roles) -> rusqlite::Result<()> {
        let (judged, denied) = match &self.judge {
            Some(judge) => judge.judge(sql, roles),
            None => (Err(judge::refused()), Some("nobody but the store's owner has grants here".into())),
        };
        if let Some(reason) = denied {
            self.guard.deny(reason);
        }
        judged
    }
}

/// Prepares a text that must be exactly one statement.
pub(crate) fn prepare_one<'c>(connection: &'c Connection, sql: &str) -> rusqlite::Result<Statement<'c>> {
    if sql.contains('\0') {
        return Err(refuse("the text holds a NUL character, at which SQLite would stop reading"));
    }
    let mut texts = Batch::new(connection, sql);
    let statement = texts.next()?.ok_or_else(|| refuse("the text holds no statement"))?;
    match texts.next() {
        Ok(None) => Ok(statement),
        Ok(Some(_)) | Err(_) => {
            Err(refuse("the text holds more than one statement; send them as one command"))
        }
    }
}

fn refuse(reason: &str) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(reason.into())
}

/// Whether a word occurs anywhere in a text, in any case: it may be a part of another one.
pub(crate) fn says(sql: &str, word: &[u8]) -> bool {
    sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// A name as SQL takes it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn schema_says_fail(connection: &Connection, guard: &Guard, mode: Mode) -> rusqlite::Result<bool> {
    guard.set_mode(Mode::Engine);
    let found = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE sql LIKE '%fail%')")?
        .query_row([], |row| row.get(0));
    guard.set_mode(mode);
    found
}

/// Binds a value without copying it first.
pub(crate) struct Bound<'v>(pub(crate) penholder_protocol::ValueRef<'v>);

impl Bound<'_> {
    /// Bytes that SQLite copies beside the value itself.
    pub(crate) fn bytes_count(&self) -> usize {
        use penholder_protocol::ValueRef as Packed;
        match self.0 {
            Packed::Null | Packed::Integer(_) | Packed::Real(_) => 0,
            Packed::Text(bytes) | Packed::Blob(bytes) => bytes.len(),
        }
    }
}

impl<'v> From<&'v Value> for Bound<'v> {
    fn from(value: &'v Value) -> Self {
        use penholder_protocol::ValueRef as Packed;
        Self(match value {
            Value::Null => Packed::Null,
            Value::Integer(integer) => Packed::Integer(*integer),
            Value::Real(real) => Packed::Real(*real),
            Value::Text(text) => Packed::Text(text.as_bytes()),
            Value::Blob(blob) => Packed::Blob(blob),
        })
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        use penholder_protocol::ValueRef as Packed;
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Packed::Null => ValueRef::Null,
            Packed::Integer(integer) => ValueRef::Integer(integer),
            Packed::Real(real) => ValueRef::Real(real),
            Packed::Text(text) => ValueRef::Text(text),
            Packed::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

/// Copies a value out of a row.
pub(crate) fn value_of(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_that_is_too_old_or_built_without_what_is_relied_on_is_refused_by_name() {
        let built = |options: &[&str]| options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
        let usual = built(&["COMPILER=gcc", "THREADSAFE=1"]);
        assert_eq!(objection(SQLITE_VERSION_MIN, &usual), None);
        let message = objection(SQLITE_VERSION_MIN - 1, &usual).unwrap();
        assert!(message.contains("3.51.2"), "{message}");
        for option in OPTIONS_REFUSED {
            let message = objection(SQLITE_VERSION_MIN, &built(&["COMPILER=gcc", option])).unwrap();
            assert!(message.contains(option), "{message}");
        }
        assert!(check_build().is_ok());
    }

    #[test]
    fn a_connection_that_does_not_sync_every_commit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("activity.db")).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
        connection.pragma_update(None, "synchronous", "full").unwrap();
        check_durability(&connection, "activity").unwrap();
        connection.pragma_update(None, "synchronous", "normal").unwrap();
        let message = check_durability(&connection, "activity").unwrap_err().to_string();
        assert!(message.contains("synchronous 1"), "{message}");
    }
}

//! A legacy database, its split, and an oracle that compares both without the code under test.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use penholder::Error;
use penholder::split::{Choices, Ended, OrphanPolicy, Progress, Report, Request, Side, check, split};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// A directory with `legacy.db` in it, and room for a store.
pub(crate) struct Legacy {
    pub(crate) directory: tempfile::TempDir,
}

/// What makes a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// The SQLite that Penholder is built with.
    Bundled,
    /// The system's `sqlite3` program.
    Shell,
}

impl Maker {
    /// Those that are there; says so when one is not.
    pub(crate) fn all() -> Vec<Self> {
        if has_shell() { vec![Self::Bundled, Self::Shell] } else { vec![Self::Bundled] }
    }
}

/// Whether there is a `sqlite3` program; says so if not, because then a test does less.
pub(crate) fn has_shell() -> bool {
    let found = Command::new("sqlite3").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no sqlite3 program; install it to test files that it made");
    }
    found
}

impl Legacy {
    /// Makes it with foreign keys off, as sql.js has them.
    pub(crate) fn new(sql: &str) -> Self {
        Self::made_by(Maker::Bundled, sql)
    }

    pub(crate) fn made_by(maker: Maker, sql: &str) -> Self {
        let legacy = Self { directory: tempfile::tempdir().unwrap() };
        let sql = format!("PRAGMA foreign_keys = OFF;\n{sql}");
        match maker {
            Maker::Bundled => {
                let connection = Connection::open(legacy.path()).unwrap();
                connection.execute_batch(&sql).unwrap();
            }
            Maker::Shell => {
                let output =
                    Command::new("sqlite3").arg("-bail").arg(legacy.path()).arg(&sql).output().unwrap();
                assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
        legacy
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("legacy.db")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Everything but `config` goes to activity.
    pub(crate) fn request(&self, config: &[&str]) -> Request {
        let tables = tables(&self.open()).into_iter().filter(|(_, kind)| kind != "shadow");
        let flags = tables.map(|(name, _)| {
            let side = if config.contains(&name.as_str()) { Side::Config } else { Side::Activity };
            (name, side)
        });
        Request {
            source: self.path(),
            store: self.store(),
            choices: Choices { map: None, flags: flags.collect() },
            orphans: OrphanPolicy::Fail,
            force: false,
            retire: false,
        }
    }

    pub(crate) fn open(&self) -> Connection {
        open(&self.path())
    }

    /// Splits, and compares everything that can be seen of every table.
    pub(crate) fn split(&self, request: &Request) -> Report {
        let before = std::fs::read(self.path()).unwrap();
        let report = split_ok(request);
        assert!(before == std::fs::read(self.path()).unwrap(), "the legacy file was written to");
        self.compare(request);
        report
    }

    /// Compares the store with the legacy file.
    pub(crate) fn compare(&self, request: &Request) {
        let old = self.open();
        let mut compared = 0;
        for side in ["activity", "config"] {
            let new = open(&self.store().join(format!("{side}.db")));
            for pragma in ["encoding", "page_size", "auto_vacuum", "user_version", "application_id"] {
                assert_eq!(pragma_of(&old, pragma), pragma_of(&new, pragma), "{pragma} of {side}");
            }
            for (table, _) in tables(&new).into_iter().filter(|(_, kind)| kind != "virtual") {
                assert_eq!(rows(&old, &table), rows(&new, &table), "table {table} in {side}");
                compared += 1;
            }
        }
        let dropped = |name: &String| {
            request.choices.flags.iter().any(|(table, side)| *side == Side::Drop && table == name)
        };
        let here =
            tables(&old).into_iter().filter(|(name, kind)| kind != "virtual" && !dropped(name)).count();
        assert_eq!(here, compared, "tables with rows");
    }

    /// Text of an object of the schema of one of the new databases.
    pub(crate) fn text(&self, side: &str, name: &str) -> Option<String> {
        let new = open(&self.store().join(format!("{side}.db")));
        new.query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0)).ok()
    }
}

/// Splits, and expects a store and a report without differences.
pub(crate) fn split_ok(request: &Request) -> Report {
    match split(request, &Arc::new(Progress::default())) {
        Ok(Ended::Split(report)) => {
            assert!(report.ok && report.differences.is_empty(), "{:?}", report.differences);
            *report
        }
        other => panic!("no split: {other:?}"),
    }
}

/// Why the split refuses; the plan has to say the same, and nothing may have been written.
pub(crate) fn refusal(request: &Request) -> String {
    let error = split(request, &Arc::new(Progress::default())).unwrap_err();
    assert!(!request.store.join("control").exists() && !request.store.join(".split").exists(), "{error}");
    let message = error.to_string();
    assert!(matches!(error, Error::Refused { .. }), "{message}");
    match check(request, &Arc::new(Progress::default())) {
        Ok(plan) => {
            assert!(!plan.refusals.is_empty(), "the plan knows nothing of: {message}");
            for refusal in plan.refusals {
                assert!(message.contains(&refusal), "{message} lacks {refusal}");
            }
        }
        Err(error) => assert_eq!(error.to_string(), message),
    }
    message
}

pub(crate) fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// Name and kind of every table; those of SQLite and of Penholder left out.
pub(crate) fn tables(connection: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow', 'virtual')
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_penholder\\_%' ESCAPE '\\'
               ORDER BY name";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn pragma_of(connection: &Connection, name: &str) -> String {
    connection.pragma_query_value(None, name, |row| Ok(format!("{:?}", row.get_ref(0)?))).unwrap()
}

/// Every row with its rowid, as text that shows storage classes and every bit, sorted.
pub(crate) fn rows(connection: &Connection, table: &str) -> Vec<String> {
    let name = table.replace('"', "\"\"");
    let with_rowid = format!("SELECT rowid, * FROM \"{name}\" NOT INDEXED");
    let mut statement = connection
        .prepare(&with_rowid)
        .or_else(|_| connection.prepare(&format!("SELECT * FROM \"{name}\" NOT INDEXED")))
        .unwrap();
    let columns = statement.column_count();
    let mut found = Vec::new();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let value = |column| match row.get_ref(column).unwrap() {
            ValueRef::Real(real) => format!("real {:016x}", real.to_bits()),
            other @ (ValueRef::Null | ValueRef::Integer(_) | ValueRef::Text(_) | ValueRef::Blob(_)) => {
                format!("{other:?}")
            }
        };
        found.push((0..columns).map(value).collect::<Vec<_>>().join(" | "));
    }
    found.sort();
    found
}

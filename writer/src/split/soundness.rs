//! Whether the old data keeps the rules of its own schema: what does not would arrive as it is, and fail the proof.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};

use super::assign::Side;
use super::catalog::quote;
use super::plan::Blueprint;
use super::progress::{self, Progress};
use super::source::Held;
use super::sql;
use crate::Error;

/// Most findings of one table that are told; SQLite stops looking at a hundred.
const FINDINGS_TOLD_MAX: usize = 3;

/// How much of a table is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Pages and rows: damage, CHECK, NOT NULL, types.
    Rows,
    /// Also whether each index has exactly the entries of its table, and UNIQUE ones have no doubles. It takes three
    /// times as long.
    Indexes,
}

/// A table that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsound {
    table: String,
    findings: Vec<String>,
}

/// Finds what in the old data breaks its own rules.
pub(super) fn of(source: &Held, depth: Depth, progress: &Arc<Progress>) -> Result<Vec<Unsound>, Error> {
    let mut connection = source.connect()?;
    let found =
        progress::interrupt_with(&mut connection, progress).and_then(|()| look(&connection, depth, progress));
    found.map_err(Error::sqlite("check", "the old database")).map_err(|error| source.explain(error))
}

/// Looks at every table by itself, so that each finding has a name.
fn look(connection: &Connection, depth: Depth, progress: &Progress) -> rusqlite::Result<Vec<Unsound>> {
    let tables = "SELECT name, ifnull(sql, '') FROM sqlite_schema WHERE type = 'table' ORDER BY rowid";
    let mut tables = connection.prepare(tables)?;
    let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let tables = tables.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    let pragma = match depth {
        Depth::Rows => "quick_check",
        Depth::Indexes => "integrity_check",
    };
    let mut found = Vec::new();
    for (table, sql) in tables {
        if progress.check().is_err() {
            break;
        }
        let findings = match of_table(connection, pragma, &table, &sql) {
            Ok(findings) => findings,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                return Err(error);
            }
            Err(error) => vec![error.to_string()],
        };
        if !findings.is_empty() {
            found.push(Unsound { table, findings });
        }
    }
    Ok(found)
}

fn of_table(connection: &Connection, pragma: &str, table: &str, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA {pragma}({})", quote(table)))?;
    let lines = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let mut findings: Vec<String> = lines.into_iter().filter(|line| line != "ok").collect();
    if findings.is_empty() {
        findings = broken_checks(connection, table, &sql::checks(sql))?;
    }
    Ok(findings)
}

/// Counts the rows that break each CHECK constraint: SQLite forgets those of a file that it can only read.
fn broken_checks(connection: &Connection, table: &str, checks: &[&str]) -> rusqlite::Result<Vec<String>> {
    if checks.is_empty() {
        return Ok(Vec::new());
    }
    let counts: Vec<String> = checks.iter().map(|check| format!("total(NOT ({check}\n))")).collect();
    let sql = format!("SELECT {} FROM {}", counts.join(", "), quote(table));
    connection.query_row(&sql, [], |row| {
        let count = |(at, check): (usize, &&str)| match row.get::<_, f64>(at) {
            Ok(broken) if broken > 0.0 => {
                let rows = if broken > 1.0 { "rows break" } else { "row breaks" };
                Some(Ok(format!("{broken} {rows} CHECK ({check})")))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        checks.iter().enumerate().filter_map(count).collect()
    })
}

impl Blueprint {
    /// Why what is not sound cannot be carried over; what is left behind may be as it is.
    pub(super) fn refusals_of(&self, found: &[Unsound]) -> Vec<String> {
        let is_carried = |unsound: &&Unsound| {
            let table = self.catalog.table(&unsound.table);
            table.is_none_or(|table| self.side(table) != Some(Side::Drop))
        };
        found.iter().filter(is_carried).map(Unsound::refusal).collect()
    }
}

/// The refusal of a file that is too damaged to plan with.
pub(super) fn refuse_all(path: &Path, found: &[Unsound]) -> Error {
    let refusals: Vec<String> = found.iter().map(Unsound::refusal).collect();
    let what =
        format!("{} is damaged:\n  - {}\nnothing was written", path.display(), refusals.join("\n  - "));
    Error::refused(what, "repair a copy of it with `sqlite3 FILE .recover`, and split the copy")
}

impl Unsound {
    /// The table, what is wrong with it, and what can be done.
    fn refusal(&self) -> String {
        let told: Vec<String> =
            self.findings.iter().take(FINDINGS_TOLD_MAX).map(|line| line.replace('\n', " ")).collect();
        let more = match self.findings.len().saturating_sub(FINDINGS_TOLD_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let (table, told) = (&self.table, told.join("; "));
        format!(
            "table {table} is not sound in the old database ({told}{more}): {}, or leave it behind with --drop {table}",
            self.way_out()
        )
    }

    /// What mends it, by the words that SQLite finds for it.
    fn way_out(&self) -> String {
        let says =
            |words: &[&str]| self.findings.iter().any(|line| words.iter().any(|word| line.contains(word)));
        if says(&["CHECK (", "NULL value in", " value in "]) {
            return "correct these rows in a copy, and split the copy".into();
        }
        if says(&["non-unique entry in index"]) {
            return "remove the doubles, or the index, from a copy, and split the copy".into();
        }
        if says(&[" missing from index", "wrong # of entries in index", "rowid not at end-of-record"]) {
            return format!("run `REINDEX {}` on a copy, and split the copy", quote(&self.table));
        }
        "repair a copy with `sqlite3 FILE .recover`, and split the copy".into()
    }
}

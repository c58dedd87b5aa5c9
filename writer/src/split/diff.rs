//! Compares a table between two databases: by digest first, then row by row along the primary key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};
use serde::Serialize;

use super::catalog::{self, Column, quote};
use super::digest::{self, Digest};
use super::progress::Progress;
use crate::Error;

/// One table, in both databases.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Its name.
    pub table: String,
    /// Of the first database.
    pub rows_a: u64,
    /// Of the second.
    pub rows_b: u64,
    /// Of the first database.
    pub digest_a: Digest,
    /// Of the second.
    pub digest_b: Digest,
    /// Nothing differs.
    pub same: bool,
    /// What the rows are told apart by.
    pub key: Vec<String>,
    /// The columns that only one of them has; then rows are not compared.
    pub columns_differ: bool,
    /// The first rows that differ.
    pub differences: Vec<RowDifference>,
    /// All of them.
    pub differences_count: u64,
}

/// A row that is not the same in both.
#[derive(Clone, Debug, Serialize)]
pub struct RowDifference {
    /// How it differs.
    pub kind: Difference,
    /// Its key, as SQL values.
    pub key: Vec<String>,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The second database does not have it.
    OnlyInA,
    /// The first database does not have it.
    OnlyInB,
    /// Both have it, with other values.
    Changed,
}

/// Compares `tables`, or with none named all that both have; at most `named_max` differing rows of each are listed.
/// Also returns the tables that only one of them has.
pub fn diff(
    a: &Path,
    b: &Path,
    tables: &[String],
    named_max: usize,
) -> Result<(Vec<Compared>, Vec<String>), Error> {
    let (a, b) = (Side::open(a)?, Side::open(b)?);
    let (names_a, names_b) = (a.tables()?, b.tables()?);
    let has = |names: &[String], name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    for table in tables {
        for (side, names) in [(&a, &names_a), (&b, &names_b)] {
            if !has(names, table) {
                let what = format!("{} has no table {table}", side.path.display());
                return Err(Error::refused(what, format!("name one of: {}", names.join(", "))));
            }
        }
    }
    let alone = |names: &[String], others: &[String], side: &Side| {
        let only = names.iter().filter(|name| !has(others, name));
        only.map(|name| format!("{name} (only in {})", side.path.display())).collect::<Vec<_>>()
    };
    let (common, alone): (Vec<String>, Vec<String>) = if tables.is_empty() {
        let common = names_a.iter().filter(|name| has(&names_b, name)).cloned().collect();
        (common, [alone(&names_a, &names_b, &a), alone(&names_b, &names_a, &b)].concat())
    } else {
        (tables.to_vec(), Vec::new())
    };
    let compared = common.iter().map(|table| compare(&a, &b, table, named_max)).collect::<Result<_, _>>()?;
    Ok((compared, alone))
}

/// One of the two databases, in one read transaction.
struct Side {
    path: PathBuf,
    connection: Connection,
}

impl Side {
    fn open(path: &Path) -> Result<Self, Error> {
        if !path.is_file() {
            return Err(Error::refused(
                format!("{} is no file", path.display()),
                "name a database, such as STORE/activity.db",
            ));
        }
        let side = |connection| Self { path: path.to_owned(), connection };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).map_err(failed(path))?;
        let begin = "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -8192; BEGIN";
        opened.execute_batch(begin).map_err(failed(path))?;
        Ok(side(opened))
    }

    /// Tables with rows of their own; Penholder's and SQLite's left out.
    fn tables(&self) -> Result<Vec<String>, Error> {
        let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') \
                   AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_penholder\\_%' ESCAPE '\\' \
                   ORDER BY name";
        let read = || {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        read().map_err(failed(&self.path))
    }

    fn columns(&self, table: &str) -> Result<Vec<Column>, Error> {
        catalog::columns(&self.connection, table).map_err(failed(&self.path))
    }
}

fn failed(path: &Path) -> impl FnOnce(rusqlite::Error) -> Error {
    move |error| {
        let hint = if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
            "name a database, such as STORE/activity.db"
        } else {
            "look at it with `sqlite3 FILE \"PRAGMA integrity_check\"`"
        };
        Error::refused(format!("cannot compare {}: {error}", path.display()), hint)
    }
}

fn compare(a: &Side, b: &Side, table: &str, named_max: usize) -> Result<Compared, Error> {
    let (columns_a, columns_b) = (a.columns(table)?, b.columns(table)?);
    let names = |columns: &[Column]| -> Vec<String> {
        let mut names: Vec<_> = columns.iter().map(|column| column.name.to_ascii_lowercase()).collect();
        names.sort();
        names
    };
    let key = key(&columns_a);
    // In the order of the first: the second may have them in another.
    let listed: Vec<String> = columns_a.iter().map(|column| quote(&column.name)).collect();
    let from = format!("{} NOT INDEXED", quote(table));
    let mut compared = Compared {
        table: table.to_owned(),
        rows_a: 0,
        rows_b: 0,
        digest_a: Digest::default(),
        digest_b: Digest::default(),
        same: false,
        key: key.clone(),
        columns_differ: names(&columns_a) != names(&columns_b),
        differences: Vec::new(),
        differences_count: 0,
    };
    if compared.columns_differ {
        return Ok(compared);
    }
    let progress = Arc::<Progress>::default();
    compared.digest_a = digest::of_rows(&a.connection, &listed, &from, &progress)?;
    compared.digest_b = digest::of_rows(&b.connection, &listed, &from, &progress)?;
    (compared.rows_a, compared.rows_b) = (compared.digest_a.rows, compared.digest_b.rows);
    compared.same = compared.digest_a == compared.digest_b;
    if !compared.same {
        let mut note = |kind, key| {
            compared.differences_count += 1;
            if compared.differences.len() < named_max {
                compared.differences.push(RowDifference { kind, key });
            }
        };
        walk(a, b, table, &key, &listed, true, &mut note)?;
        walk(b, a, table, &key, &listed, false, &mut note)?;
    }
    Ok(compared)
}

/// The primary key, or the rowid of a table that has none.
fn key(columns: &[Column]) -> Vec<String> {
    let mut of_key: Vec<&Column> = columns.iter().filter(|column| column.key > 0).collect();
    of_key.sort_by_key(|column| column.key);
    if of_key.is_empty() {
        vec!["rowid".into()]
    } else {
        of_key.iter().map(|column| column.name.clone()).collect()
    }
}

/// Looks up every row of one side in the other; the second walk only tells what is missing.
fn walk(
    from: &Side,
    to: &Side,
    table: &str,
    key: &[String],
    columns: &[String],
    is_first: bool,
    note: &mut dyn FnMut(Difference, Vec<String>),
) -> Result<(), Error> {
    let name = |column: &String| if column == "rowid" { column.clone() } else { quote(column) };
    let keys: Vec<String> = key.iter().map(name).collect();
    let (count, selected) = (keys.len(), [keys.clone(), columns.to_vec()].concat().join(", "));
    let condition: Vec<String> =
        keys.iter().enumerate().map(|(at, key)| format!("{key} IS ?{}", at + 1)).collect();
    let all = format!("SELECT {selected} FROM {}", quote(table));
    let one = format!("{all} WHERE {}", condition.join(" AND "));
    let mut look = from.connection.prepare(&all).map_err(failed(&from.path))?;
    let mut find = to.connection.prepare(&one).map_err(failed(&to.path))?;
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    let mut rows = look.query([]).map_err(failed(&from.path))?;
    let end = count + columns.len();
    while let Some(row) = rows.next().map_err(failed(&from.path))? {
        let values = (0..count).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<Value>>>();
        let values = values.map_err(failed(&from.path))?;
        let hash = digest::of_row(row, count..end, &mut mine).map_err(failed(&from.path))?;
        let mut found = find.query(params_from_iter(&values)).map_err(failed(&to.path))?;
        let other = match found.next().map_err(failed(&to.path))? {
            Some(row) => Some(digest::of_row(row, count..end, &mut theirs).map_err(failed(&to.path))?),
            None => None,
        };
        let text = || values.iter().map(sql_text).collect();
        match (other, is_first) {
            (None, true) => note(Difference::OnlyInA, text()),
            (None, false) => note(Difference::OnlyInB, text()),
            (Some(other), true) if other != hash => note(Difference::Changed, text()),
            (Some(_), _) => {}
        }
    }
    Ok(())
}

/// A value as it is written in SQL.
fn sql_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => format!("{real:?}"),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(blob) => {
            let hex: Vec<String> = blob.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{}'", hex.concat())
        }
    }
}

//! Rows that refer to rows that are not there: found, counted, and set to NULL where that is asked for.

use rusqlite::Connection;
use serde::Serialize;

use super::catalog::{Catalog, ForeignKey, Table, quote};
use super::progress::Progress;
use crate::Error;

/// Most orphans of one reference that are named; all are counted.
pub(super) const ORPHANS_NAMED_MAX: usize = 20;

/// What becomes of rows that refer to a row that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrphanPolicy {
    /// They are carried over as they are; their reference is enforced for what is written from then on.
    Keep,
    /// The column that refers is set to NULL.
    Null,
    /// They are carried over as they are, and a reference over the cut that has any is not declared.
    ReportOnly,
    /// Nothing is split while there are any.
    #[default]
    Fail,
}

/// The orphans of one reference.
#[derive(Clone, Debug, Default)]
pub(super) struct Orphans {
    pub(super) count: u64,
    /// Primary keys of the first ones, as SQL values.
    pub(super) keys: Vec<String>,
}

/// The columns of the parent that a foreign key means.
pub(super) fn parent_columns(key: &ForeignKey, parent: &Table) -> Vec<String> {
    let named: Option<Vec<String>> = key.columns.iter().map(|(_, to)| to.clone()).collect();
    named.unwrap_or_else(|| {
        let mut of_key: Vec<_> = parent.columns.iter().filter(|column| column.key > 0).collect();
        of_key.sort_by_key(|column| column.key);
        of_key.into_iter().map(|column| column.name.clone()).collect()
    })
}

/// Finds the rows of the child that SQLite's own foreign key check would report.
pub(super) fn find(
    connection: &Connection,
    catalog: &Catalog,
    key: &ForeignKey,
    progress: &Progress,
) -> Result<Orphans, Error> {
    let (Some(child), Some(parent)) = (catalog.table(&key.child), catalog.table(&key.parent)) else {
        return Ok(Orphans::default());
    };
    // Without affinity and collation of its own, the child's value is compared as the parent's column says.
    let pairs: Vec<(String, String)> = key
        .columns
        .iter()
        .zip(parent_columns(key, parent))
        .map(|((from, _), to)| (format!("c.{}", quote(from)), format!("p.{}", quote(&to))))
        .collect();
    let joined: Vec<String> = pairs.iter().map(|(from, to)| format!("{to} = +{from}")).collect();
    let given: Vec<String> = pairs.iter().map(|(from, _)| format!("{from} IS NOT NULL")).collect();
    let missing = pairs.first().map(|(_, to)| format!("{to} IS NULL")).unwrap_or_default();
    let sql = format!(
        "SELECT {} FROM {} c LEFT JOIN {} p ON {} WHERE {} AND {missing}",
        key_text(child, "c"),
        quote(&child.name),
        quote(&parent.name),
        joined.join(" AND "),
        given.join(" AND "),
    );
    let mut orphans = Orphans::default();
    let mut read = || {
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            orphans.count += 1;
            if orphans.keys.len() < ORPHANS_NAMED_MAX {
                orphans.keys.push(row.get(0)?);
            }
        }
        Ok(())
    };
    progress.check()?;
    read()
        .map_err(Error::sqlite("look for orphans in", &format!("the old database, table {}", child.name)))?;
    Ok(orphans)
}

/// An expression that names a row: its primary key, or its rowid.
fn key_text(table: &Table, alias: &str) -> String {
    let mut of_key: Vec<_> = table.columns.iter().filter(|column| column.key > 0).collect();
    of_key.sort_by_key(|column| column.key);
    let quoted = |name: &str| format!("quote({alias}.{name})");
    if of_key.is_empty() {
        return rowid_name(table).map_or_else(|| "'?'".into(), quoted);
    }
    let parts: Vec<String> = of_key.iter().map(|column| quoted(&quote(&column.name))).collect();
    parts.join(" || ', ' || ")
}

/// The name under which the rowid of a table can be read; `None` if it has none, or columns hide all names.
pub(super) fn rowid_name(table: &Table) -> Option<&'static str> {
    let is_hidden = |name: &&str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    if table.without_rowid {
        None
    } else {
        ["rowid", "_rowid_", "oid"].into_iter().find(|name| !is_hidden(name))
    }
}

/// A column to be set to NULL wherever the parent has no such row.
#[derive(Clone, Debug)]
pub(super) struct Nulled {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) parent: String,
    pub(super) parent_column: String,
}

impl Nulled {
    /// Whether the value of the column in the row `child` has no parent in `schema`.
    pub(super) fn condition(&self, child: &str, schema: &str) -> String {
        let column = format!("{child}.{}", quote(&self.column));
        format!(
            "{column} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {schema}.{} p WHERE p.{} = +{column})",
            quote(&self.parent),
            quote(&self.parent_column),
        )
    }
}

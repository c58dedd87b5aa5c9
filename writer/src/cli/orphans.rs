//! What a check looks for between the databases: rows that refer to rows of another database that are not there.

use penholder::{Column, Config, OnDelete};
use penholder_client::read::Snapshot;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};

use super::exit::Failure;
use super::findings::Finding;
use super::render;

/// Most orphaned keys of one reference that are reported.
const FINDINGS_COUNT_MAX: usize = 100;

/// Checks every reference that the writer keeps, in one cut over all databases.
pub(super) fn find(snapshot: &Snapshot<'_>, config: &Config) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for reference in config.references.iter().filter(|reference| reference.on_delete != OnDelete::Keep) {
        let (from, to) = reference.ends(&config.databases)?;
        let ends = (snapshot.database(&from.database)?, snapshot.database(&to.database)?);
        let found = of_reference((&from, ends.0), (&to, ends.1));
        findings
            .extend(found.map_err(Failure::on(format!("cannot check the reference from {from} to {to}")))?);
    }
    Ok(findings)
}

fn of_reference(
    (from, child): (&Column, &Connection),
    (to, parent): (&Column, &Connection),
) -> rusqlite::Result<Vec<Finding>> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (column, key) = (quoted(&from.column), quoted(&to.column));
    let table = quoted(&from.table);
    let all = format!("SELECT {column}, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY {column}");
    let one = format!("SELECT 1 FROM {} WHERE {key} = ?1", quoted(&to.table));
    let (mut all, mut one) = (child.prepare(&all)?, parent.prepare(&one)?);
    let mut rows = all.query([])?;
    let mut findings = Vec::new();
    while let Some(row) = rows.next()? {
        let value: Value = row.get(0)?;
        let found = one.query_row([&value], |_| Ok(())).optional()?;
        if found.is_some() {
            continue;
        }
        if findings.len() == FINDINGS_COUNT_MAX {
            break;
        }
        let (rows, shown) = (render::count(row.get(1)?, "row"), shown(&value));
        let message = format!("{rows} with {from} = {shown}, and no row with {to} = {shown}");
        findings.push(Finding::new("references", from.database.clone(), message));
    }
    Ok(findings)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

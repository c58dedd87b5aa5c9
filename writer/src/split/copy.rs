//! Fills one new database with its tables, indexes, views and triggers, as VACUUM would: rows as they are stored, then
//! what hangs on them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use super::assign::Side;
use super::catalog::{Column, Kind, Table, quote};
use super::orphans::rowid_name;
use super::plan::Blueprint;
use super::progress::{self, Progress};
use super::source::{Held, SCHEMA};
use crate::{Error, crash};

/// Page cache of the new database, KiB; what does not fit is written out on the way.
const CACHE_KIB: u32 = 16 << 10;

/// Makes one database in a file that does not exist; returns the time that each table took, by name.
pub(super) fn build(
    source: &Held,
    blueprint: &Blueprint,
    side: Side,
    path: &Path,
    progress: &Arc<Progress>,
) -> Result<BTreeMap<String, f64>, Error> {
    let failed = || Error::sqlite("build", side.name());
    let mut connection = create(path, blueprint).map_err(failed())?;
    progress::interrupt_with(&mut connection, progress).map_err(failed())?;
    source.attach_to(&connection)?;
    let mut seconds = BTreeMap::new();
    let mut fill = || {
        connection.execute_batch("BEGIN")?;
        if blueprint.tables(side).next().is_none() {
            // Only a table settles the encoding of a database.
            connection.execute_batch("CREATE TABLE _penholder_probe(a); DROP TABLE _penholder_probe")?;
        }
        for table in blueprint.tables(side) {
            let text = blueprint.texts.get(&table.name).unwrap_or(&table.sql);
            run(&connection, text)?;
        }
        for index in blueprint.kept.iter().filter(|kept| kept.side == side && kept.kind == "index") {
            run(&connection, &index.sql)?;
        }
        for table in blueprint.tables(side) {
            let begun = Instant::now();
            copy_rows(&connection, table)?;
            null_orphans(&connection, blueprint, table)?;
            seconds.insert(table.name.clone(), begun.elapsed().as_secs_f64());
            crash::point("split_copy");
        }
        copy_internal(&connection, blueprint, side)?;
        write_schema(&connection, blueprint, side)?;
        connection.pragma_update(None, "user_version", blueprint.catalog.facts.user_version)?;
        connection.pragma_update(None, "application_id", blueprint.catalog.facts.application_id)?;
        connection.execute_batch(&format!("COMMIT; DETACH {SCHEMA}"))
    };
    fill().map_err(failed())?;
    connection.close().map_err(|(_, error)| failed()(error))?;
    crash::point("split_built");
    Ok(seconds)
}

/// A database with the page size and encoding of the old one. A crash leaves nothing of it worth rolling back, so there
/// is no journal; it is synced once, as a whole, before it gets its name.
fn create(path: &Path, blueprint: &Blueprint) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let facts = &blueprint.catalog.facts;
    connection.pragma_update(None, "page_size", facts.page_bytes)?;
    connection.pragma_update(None, "auto_vacuum", facts.auto_vacuum)?;
    connection.pragma_update(None, "encoding", &facts.encoding)?;
    connection.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "off")?;
    connection.pragma_update(None, "cache_size", format!("-{CACHE_KIB}"))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    // Names that begin with sqlite_, and rows of the schema itself.
    connection.pragma_update(None, "writable_schema", true)?;
    Ok(connection)
}

/// Runs one statement of the old schema.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Copies the rows of one table with their rowids.
///
/// SQLite has a way to move records and index entries without looking into them. Where it does not apply, every
/// value is read and written: the digests would show if one came out different.
fn copy_rows(connection: &Connection, table: &Table) -> rusqlite::Result<()> {
    let name = quote(&table.name);
    let whole = format!("INSERT INTO main.{name} SELECT * FROM {SCHEMA}.{name}");
    let sql = if is_transfer(connection, &whole) && keeps_rowids(connection, table)? {
        whole
    } else {
        let rowid = rowid_name(table).map(str::to_owned);
        let written =
            table.columns.iter().filter(|column| !column.generated).map(|column| quote(&column.name));
        let columns = rowid.into_iter().chain(written).collect::<Vec<_>>().join(", ");
        format!("INSERT INTO main.{name}({columns}) SELECT {columns} FROM {SCHEMA}.{name}")
    };
    run(connection, &sql)
}

/// Whether SQLite moves records as they are, as its plan for the statement shows.
fn is_transfer(connection: &Connection, sql: &str) -> bool {
    let look = || -> rusqlite::Result<bool> {
        let mut statement = connection.prepare(&format!("EXPLAIN {sql}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if row.get_ref(1)?.as_str().is_ok_and(|opcode| opcode == "RowCell") {
                return Ok(true);
            }
        }
        Ok(false)
    };
    // A table with generated columns cannot always be copied by `SELECT *`: then it is not prepared at all.
    look().unwrap_or(false)
}

/// Whether moving records keeps their rowids: a table without any index gets new ones, which are the same only if the
/// old ones are 1, 2, 3...
fn keeps_rowids(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let Some(rowid) = rowid_name(table) else { return Ok(true) };
    let has_index = "SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main'))";
    if is_rowid_alias(&table.columns) || connection.query_row(has_index, [&table.name], |row| row.get(0))? {
        return Ok(true);
    }
    let sql = format!("SELECT min({rowid}), max({rowid}) FROM {SCHEMA}.{}", quote(&table.name));
    let (first, last): (Option<i64>, Option<i64>) =
        connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = i64::try_from(table.rows).unwrap_or(i64::MAX);
    Ok(rows == 0 || (first, last) == (Some(1), Some(rows)))
}

fn is_rowid_alias(columns: &[Column]) -> bool {
    let mut of_key = columns.iter().filter(|column| column.key > 0);
    of_key.next().is_some_and(|column| column.declared.eq_ignore_ascii_case("integer"))
        && of_key.next().is_none()
}

fn null_orphans(connection: &Connection, blueprint: &Blueprint, table: &Table) -> rusqlite::Result<()> {
    let name = quote(&table.name);
    for nulled in blueprint.nulled.iter().filter(|nulled| nulled.table == table.name) {
        let (column, orphaned) = (quote(&nulled.column), nulled.condition(&name, SCHEMA));
        run(connection, &format!("UPDATE main.{name} SET {column} = NULL WHERE {orphaned}"))?;
    }
    Ok(())
}

/// Copies what SQLite itself keeps about the tables of this database: next ids, statistics.
fn copy_internal(connection: &Connection, blueprint: &Blueprint, side: Side) -> rusqlite::Result<()> {
    let text = |table: &Table| format!("'{}'", table.name.replace('\'', "''"));
    let names = blueprint.tables(side).map(text).collect::<Vec<_>>().join(", ");
    for table in blueprint.catalog.tables.iter().filter(|table| table.kind == Kind::Internal) {
        let name = quote(&table.name);
        let exists = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?1)";
        let exists: bool = connection.query_row(exists, [&table.name], |row| row.get(0))?;
        let column = match table.name.as_str() {
            // It is there if a table of this side counts its ids; copying rows has set it already.
            "sqlite_sequence" if exists => "name",
            "sqlite_stat1" | "sqlite_stat4" => {
                run(connection, &table.sql)?;
                "tbl"
            }
            _ => continue,
        };
        let insert = format!(
            "INSERT INTO main.{name} SELECT * FROM {SCHEMA}.{name} WHERE {column} COLLATE NOCASE IN ({names})"
        );
        run(connection, &format!("DELETE FROM main.{name}"))?;
        run(connection, &insert)?;
    }
    Ok(())
}

/// Writes what has no rows straight into the schema, as VACUUM does: its text is not run again, and stays as it was.
fn write_schema(connection: &Connection, blueprint: &Blueprint, side: Side) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES (?1, ?2, ?3, 0, ?4)";
    let mut insert = connection.prepare(sql)?;
    for kept in blueprint.kept.iter().filter(|kept| kept.side == side && kept.kind != "index") {
        insert.execute((kept.kind, &kept.name, &kept.table, &kept.sql))?;
    }
    Ok(())
}

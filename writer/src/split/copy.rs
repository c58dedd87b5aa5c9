//! Fills one new database: SQLite's own VACUUM INTO copies the old one, and is told to leave the rows of the other side.
//!
//! It moves records and index entries as they are stored, in their order, with their rowids. No INSERT is as fast: that
//! one looks for the place of every entry, and asks whether the row is there already.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};

use super::assign::Side;
use super::catalog::{Kind, Table, quote};
use super::plan::Blueprint;
use super::progress::{self, Progress};
use super::source::{Held, SCHEMA};
use crate::{Error, crash};

/// Page caches of the old and of the new database while one is copied to the other, KiB each: both in order, as by
/// VACUUM, which has this by default.
const COPY_CACHE_KIB: u32 = 2 << 10;

/// Page cache of the new database while its orphans are set to NULL, KiB.
const CACHE_KIB: u32 = 16 << 10;

/// Makes one database in a file that does not exist; returns the time that each table took, by name.
pub(super) fn build(
    source: &Held,
    blueprint: &Blueprint,
    side: Side,
    path: &Path,
    progress: &Arc<Progress>,
) -> Result<BTreeMap<String, f64>, Error> {
    let seconds = copy(source, blueprint, side, path, progress)?;
    let failed = || Error::sqlite("build", side.name());
    let mut connection = open(path).map_err(failed())?;
    progress::interrupt_with(&mut connection, progress).map_err(failed())?;
    write_schema(&connection, blueprint, side).map_err(failed())?;
    remove_the_rest(&connection, blueprint, side).map_err(failed())?;
    source.attach_to(&connection)?;
    null_orphans(&connection, blueprint, side).map_err(failed())?;
    connection.close().map_err(|(_, error)| failed()(error))?;
    crash::point("split_built");
    Ok(seconds)
}

/// Copies the schema as it is, and the rows of one side.
fn copy(
    source: &Held,
    blueprint: &Blueprint,
    side: Side,
    path: &Path,
    progress: &Arc<Progress>,
) -> Result<BTreeMap<String, f64>, Error> {
    let failed = |error| {
        let error = Error::sqlite("build", side.name())(error);
        // What is damaged is what was read.
        if error.is_damage() { source.explain(error) } else { error }
    };
    // That it is UTF-8 is known: see the settings of a split.
    let target = path.to_string_lossy();
    let mut connection = source.connect()?;
    let begun = Arc::new(Mutex::new(Vec::new()));
    let mut work = || {
        progress::interrupt_with(&mut connection, progress)?;
        // Passed on to the new database, which is synced as a whole before it gets its name.
        connection.pragma_update(None, "synchronous", "off")?;
        connection.pragma_update(None, "cache_size", format!("-{COPY_CACHE_KIB}"))?;
        choose_rows(&mut connection, blueprint, side, &begun)?;
        connection.execute("VACUUM INTO ?1", [&target])
    };
    work().map_err(failed)?;
    let ended = Instant::now();
    let begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = begun.iter().skip(1).map(|(_, next)| *next).chain([ended]);
    let seconds = begun.iter().zip(ends).map(|((table, at), end)| (table.clone(), (end - *at).as_secs_f64()));
    Ok(seconds.collect())
}

/// Lets the copy pass over the rows of all tables but those of one side, and notes when it comes to one.
///
/// An authorizer that says IGNORE to an INSERT makes a statement of it that does nothing.
fn choose_rows(
    connection: &mut Connection,
    blueprint: &Blueprint,
    side: Side,
    begun: &Arc<Mutex<Vec<(String, Instant)>>>,
) -> rusqlite::Result<()> {
    let is_internal = |table: &&Table| table.kind == Kind::Internal;
    let internal = blueprint.catalog.tables.iter().filter(is_internal);
    let known: HashMap<String, bool> = internal
        .map(|table| (table.name.clone(), false))
        .chain(blueprint.tables(side).map(|table| (table.name.clone(), true)))
        .collect();
    let begun = Arc::clone(begun);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        let AuthAction::Insert { table_name } = context.action else { return Authorization::Allow };
        match known.get(table_name) {
            Some(true) => {
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                begun.push((table_name.to_owned(), Instant::now()));
                crash::point("split_copy");
                Authorization::Allow
            }
            Some(false) => Authorization::Allow,
            None if SCHEMA_TABLES.contains(&table_name) => Authorization::Allow,
            None => Authorization::Ignore,
        }
    }))
}

/// The schema's own table, by both of its names.
const SCHEMA_TABLES: [&str; 2] = ["sqlite_master", "sqlite_schema"];

/// Opens a new database to be worked on. A crash leaves nothing of it worth rolling back, so there is no journal.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "off")?;
    connection.pragma_update(None, "cache_size", format!("-{CACHE_KIB}"))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    Ok(connection)
}

/// Writes what has no rows straight into the schema, as VACUUM does: its text is not run again, and stays as it was.
fn write_schema(connection: &Connection, blueprint: &Blueprint, side: Side) -> rusqlite::Result<()> {
    connection.pragma_update(None, "writable_schema", true)?;
    connection.execute_batch(
        "BEGIN; DELETE FROM sqlite_schema WHERE type IN ('view', 'trigger') OR (type = 'table' AND rootpage = 0)",
    )?;
    let insert =
        "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES (?1, ?2, ?3, 0, ?4)";
    let mut insert = connection.prepare(insert)?;
    for kept in blueprint.kept.iter().filter(|kept| kept.side == side && kept.kind != "index") {
        insert.execute((kept.kind, &kept.name, &kept.table, &kept.sql))?;
    }
    let mut update =
        connection.prepare("UPDATE sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1")?;
    for (table, text) in &blueprint.texts {
        update.execute((table, text))?;
    }
    // Read anew from here on.
    connection.execute_batch("COMMIT")?;
    connection.pragma_update(None, "writable_schema", "reset")
}

/// Drops the empty tables of the other side, and what SQLite keeps about tables that are not here.
fn remove_the_rest(connection: &Connection, blueprint: &Blueprint, side: Side) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    let holds_rows = |table: &&Table| matches!(table.kind, Kind::Ordinary | Kind::Shadow(_));
    let tables = blueprint.catalog.tables.iter().filter(holds_rows);
    for table in tables.filter(|table| blueprint.side(table) != Some(side)) {
        run(connection, &format!("DROP TABLE main.{}", quote(&table.name)))?;
    }
    let text = |table: &Table| format!("'{}'", table.name.replace('\'', "''"));
    let names = blueprint.tables(side).map(text).collect::<Vec<_>>().join(", ");
    for table in blueprint.catalog.tables.iter().filter(|table| table.kind == Kind::Internal) {
        let column = match table.name.as_str() {
            "sqlite_sequence" => "name",
            "sqlite_stat1" | "sqlite_stat4" => "tbl",
            _ => continue,
        };
        let table = quote(&table.name);
        run(connection, &format!("DELETE FROM main.{table} WHERE {column} COLLATE NOCASE NOT IN ({names})"))?;
    }
    connection.execute_batch("COMMIT")
}

fn null_orphans(connection: &Connection, blueprint: &Blueprint, side: Side) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    let is_here = |name: &str| blueprint.tables(side).any(|table| table.name == name);
    for nulled in blueprint.nulled.iter().filter(|nulled| is_here(&nulled.table)) {
        let name = quote(&nulled.table);
        let (column, orphaned) = (quote(&nulled.column), nulled.condition(&name, SCHEMA));
        run(connection, &format!("UPDATE main.{name} SET {column} = NULL WHERE {orphaned}"))?;
    }
    connection.execute_batch(&format!("COMMIT; DETACH {SCHEMA}"))
}

/// Runs one statement to its end.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

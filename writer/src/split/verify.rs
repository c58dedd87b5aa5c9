//! The proof: the same rows on both sides, and two sound databases.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::assign::Side;
use super::catalog::{Table, quote};
use super::digest::{self, Digest};
use super::orphans::{Nulled, rowid_name};
use super::plan::Blueprint;
use super::progress::{self, Progress};
use crate::Error;

/// Most findings of one database that are kept.
const FINDINGS_COUNT_MAX: u32 = 20;

/// Page cache of the connection that looks up every index entry, KiB.
const CACHE_KIB: u32 = 16 << 10;

/// Digests by table, with the time that each took.
pub(super) type Digests = BTreeMap<String, (Digest, f64)>;

/// What SQLite's own checks say about a new database.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Its name.
    pub database: &'static str,
    /// Size of its file.
    pub bytes: u64,
    /// What `PRAGMA integrity_check` found.
    pub integrity: Vec<String>,
    /// What `PRAGMA foreign_key_check` counts.
    pub foreign_key_violations: u64,
    /// Violations that came from the old data, and were to be kept.
    pub foreign_key_violations_expected: u64,
}

impl Checked {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.integrity.is_empty() && self.foreign_key_violations == self.foreign_key_violations_expected
    }
}

/// Digests the rows of every table that is carried over, as they should arrive.
pub(super) fn digest_source(
    connection: &Connection,
    blueprint: &Blueprint,
    progress: &Progress,
) -> Result<Digests, Error> {
    let mut digests = Digests::new();
    // In the order in which the other thread copies them: each page is read from disk once.
    for table in [Side::Config, Side::Activity].into_iter().flat_map(|side| blueprint.tables(side)) {
        let nulled: Vec<&Nulled> =
            blueprint.nulled.iter().filter(|nulled| nulled.table == table.name).collect();
        digests.insert(
            table.name.clone(),
            timed(|| digest::of_query(connection, &query(table, &nulled), progress))?,
        );
    }
    Ok(digests)
}

/// Digests the rows of a new database.
pub(super) fn digest_result(
    connection: &Connection,
    blueprint: &Blueprint,
    side: Side,
    progress: &Progress,
) -> Result<Digests, Error> {
    let mut digests = Digests::new();
    for table in blueprint.tables(side) {
        digests.insert(
            table.name.clone(),
            timed(|| digest::of_query(connection, &query(table, &[]), progress))?,
        );
    }
    Ok(digests)
}

fn timed(work: impl FnOnce() -> Result<Digest, Error>) -> Result<(Digest, f64), Error> {
    let begun = Instant::now();
    work().map(|digest| (digest, begun.elapsed().as_secs_f64()))
}

/// All values of all rows, with their rowids; a column whose orphans are set to NULL shows what is to arrive.
fn query(table: &Table, nulled: &[&Nulled]) -> String {
    let column = |name: &str| {
        let plain = format!("t.{}", quote(name));
        let of_column = nulled.iter().filter(|nulled| nulled.column.eq_ignore_ascii_case(name));
        let orphaned: Vec<String> = of_column.map(|nulled| nulled.condition("t", "main")).collect();
        if orphaned.is_empty() {
            return plain;
        }
        format!("CASE WHEN ({}) THEN NULL ELSE {plain} END", orphaned.join(") OR ("))
    };
    let rowid = rowid_name(table).map(|name| format!("t.{name}"));
    let columns: Vec<String> =
        rowid.into_iter().chain(table.columns.iter().map(|c| column(&c.name))).collect();
    format!("SELECT {} FROM main.{} t NOT INDEXED", columns.join(", "), quote(&table.name))
}

/// Opens a new database to read it back; not read-only, so that closing it takes its write-ahead log away.
pub(super) fn open(path: &Path, side: Side, progress: &Arc<Progress>) -> Result<Connection, Error> {
    let failed = || Error::sqlite("read back", side.name());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed())?;
    progress::interrupt_with(&mut connection, progress).map_err(failed())?;
    connection.pragma_update(None, "query_only", true).map_err(failed())?;
    connection.pragma_update(None, "cache_size", format!("-{CACHE_KIB}")).map_err(failed())?;
    Ok(connection)
}

/// Runs SQLite's own checks.
pub(super) fn check(
    connection: &Connection,
    path: &Path,
    side: Side,
    blueprint: &Blueprint,
) -> Result<Checked, Error> {
    let failed = || Error::sqlite("check", side.name());
    let look = || {
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FINDINGS_COUNT_MAX})"))?;
        let found = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        let sql = "SELECT count(*) FROM pragma_foreign_key_check";
        let violations: u64 = connection.query_row(sql, [], |row| row.get(0))?;
        Ok((found.into_iter().filter(|line| line != "ok").collect(), violations))
    };
    let (integrity, foreign_key_violations) = look().map_err(failed())?;
    let begins = format!("{}.", side.name());
    let inside = blueprint.plan.references.iter().filter(|reference| {
        !reference.crosses && reference.from.starts_with(&begins) && blueprint.nulled.is_empty()
    });
    Ok(Checked {
        database: side.name(),
        bytes: std::fs::metadata(path).map_err(Error::io("stat", path))?.len(),
        integrity,
        foreign_key_violations,
        foreign_key_violations_expected: inside.map(|reference| reference.orphans).sum(),
    })
}

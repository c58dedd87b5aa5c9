//! The proof: the same rows on both sides, and two sound databases.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::SIDES;
use super::assign::Side;
use super::catalog::{Table, quote};
use super::digest::{self, Digest};
use super::orphans::{Nulled, rowid_name};
use super::plan::Blueprint;
use super::progress::{self, Progress, join, together};
use super::source::Held;
use crate::Error;

/// Most findings of one database that are kept.
const FINDINGS_COUNT_MAX: u32 = 20;

/// Page cache of a connection that reads a new database, KiB: a larger one leaves the processor's cache, and is slower.
const CACHE_KIB: u32 = 2 << 10;

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
    progress: &Arc<Progress>,
) -> Result<Digests, Error> {
    let mut digests = Digests::new();
    // In the order in which the other thread copies them: each page is read from disk once.
    for table in [Side::Config, Side::Activity].into_iter().flat_map(|side| blueprint.tables(side)) {
        let nulled: Vec<&Nulled> =
            blueprint.nulled.iter().filter(|nulled| nulled.table == table.name).collect();
        digests.insert(table.name.clone(), timed(|| digest_table(connection, table, &nulled, progress))?);
    }
    Ok(digests)
}

/// What one thread reads of a new database while the other checks its pages.
struct ReadBack {
    digests: Digests,
    foreign_key_violations: u64,
}

fn read_back(
    connection: &Connection,
    blueprint: &Blueprint,
    side: Side,
    progress: &Arc<Progress>,
) -> Result<ReadBack, Error> {
    let mut digests = Digests::new();
    for table in blueprint.tables(side) {
        digests.insert(table.name.clone(), timed(|| digest_table(connection, table, &[], progress))?);
    }
    let sql = "SELECT count(*) FROM pragma_foreign_key_check";
    let violations = connection.query_row(sql, [], |row| row.get(0));
    let foreign_key_violations = violations.map_err(Error::sqlite("check", side.name()))?;
    Ok(ReadBack { digests, foreign_key_violations })
}

fn timed(work: impl FnOnce() -> Result<Digest, Error>) -> Result<(Digest, f64), Error> {
    let begun = Instant::now();
    work().map(|digest| (digest, begun.elapsed().as_secs_f64()))
}

/// Digests all values of all rows, with their rowids; a column whose orphans are set to NULL shows what is to arrive.
fn digest_table(
    connection: &Connection,
    table: &Table,
    nulled: &[&Nulled],
    progress: &Arc<Progress>,
) -> Result<Digest, Error> {
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
    digest::of_rows(connection, &columns, &format!("main.{} t NOT INDEXED", quote(&table.name)), progress)
}

/// Opens a new database to read it back; not read-only, so that closing it takes its write-ahead log away.
fn open(path: &Path, side: Side, progress: &Arc<Progress>) -> Result<Connection, Error> {
    let failed = || Error::sqlite("read back", side.name());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed())?;
    progress::interrupt_with(&mut connection, progress).map_err(failed())?;
    connection.pragma_update(None, "query_only", true).map_err(failed())?;
    connection.pragma_update(None, "cache_size", format!("-{CACHE_KIB}")).map_err(failed())?;
    Ok(connection)
}

fn check_integrity(connection: &Connection, side: Side) -> Result<Vec<String>, Error> {
    let look = || {
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FINDINGS_COUNT_MAX})"))?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
    };
    let mut found = look().map_err(Error::sqlite("check", side.name()))?;
    found.retain(|line| line != "ok");
    Ok(found)
}

/// Reads everything back: one thread runs the integrity check, one reads all rows and the old file once more, and one
/// waits for the disk.
pub(super) fn prove(
    source: &Held,
    blueprint: &Blueprint,
    paths: &[PathBuf; 2],
    hash: &str,
    progress: &Arc<Progress>,
) -> Result<(Vec<Checked>, Digests), Error> {
    let each = || SIDES.into_iter().zip(paths);
    // Held until SQLite has closed these files: closing a descriptor would cancel its locks.
    let files: Vec<File> = paths
        .iter()
        .map(|path| File::open(path).map_err(Error::io("open", path)))
        .collect::<Result<_, _>>()?;
    let sync = || {
        let pairs = files.iter().zip(paths);
        pairs.into_iter().try_for_each(|(file, path)| file.sync_all().map_err(Error::io("sync", path)))
    };
    let check = || {
        let one = |(side, path): (Side, &PathBuf)| check_integrity(&open(path, side, progress)?, side);
        each().map(one).collect::<Result<Vec<_>, Error>>()
    };
    let read = || {
        let one = |(side, path): (Side, &PathBuf)| {
            read_back(&open(path, side, progress)?, blueprint, side, progress)
        };
        let read = each().map(one).collect::<Result<Vec<_>, Error>>()?;
        source.check_unchanged(hash, progress).map(|()| read)
    };
    let (integrity, read) = thread::scope(|scope| {
        let synced = scope.spawn(sync);
        let proven = together(progress, check, read);
        join(synced).and(proven)
    })?;
    sync()?;
    let (mut checked, mut digests) = (Vec::new(), Digests::new());
    for (((side, path), integrity), read) in each().zip(integrity).zip(read) {
        checked.push(Checked {
            database: side.name(),
            bytes: std::fs::metadata(path).map_err(Error::io("stat", path))?.len(),
            integrity,
            foreign_key_violations: read.foreign_key_violations,
            foreign_key_violations_expected: expected_violations(blueprint, side),
        });
        digests.extend(read.digests);
    }
    Ok((checked, digests))
}

/// Violations inside a database that the old data has, unless they were set to NULL.
fn expected_violations(blueprint: &Blueprint, side: Side) -> u64 {
    let begins = format!("{}.", side.name());
    let inside = blueprint.plan.references.iter().filter(|reference| {
        !reference.crosses && reference.from.starts_with(&begins) && blueprint.nulled.is_empty()
    });
    inside.map(|reference| reference.orphans).sum()
}

//! What a split did, for people who have to be convinced, and for programs.

use std::path::PathBuf;

use serde::Serialize;

use super::digest::Digest;
use super::orphans::OrphanPolicy;
use super::plan::{LeftBehind, Plan, Reference, SourceFacts};
use super::verify::{Checked, Digests};

/// What was done, and the proof of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of this structure.
    pub schema: u32,
    /// Nothing differs, and both databases are sound.
    pub ok: bool,
    /// What differs, one sentence each.
    pub differences: Vec<String>,
    /// The new store's id.
    pub store_id: String,
    /// Where the store is.
    pub store: PathBuf,
    /// The old database.
    pub source: SourceFacts,
    /// BLAKE3 of the old file, before and after: what `b3sum` prints.
    pub source_blake3: String,
    /// Every table that was carried over.
    pub tables: Vec<TableResult>,
    /// The two databases.
    pub databases: Vec<Checked>,
    /// What was asked to be done with orphans.
    pub orphans: OrphanPolicy,
    /// Foreign keys over the cut, and violated ones.
    pub references: Vec<Reference>,
    /// What was not carried over.
    pub left_behind: Vec<LeftBehind>,
    /// What is worth knowing.
    pub warnings: Vec<String>,
    /// How long all of it took.
    pub seconds: f64,
    /// Where the old file is now, if it was retired.
    pub retired: Option<PathBuf>,
}

/// One table, on both sides.
#[derive(Clone, Debug, Serialize)]
pub struct TableResult {
    /// Its name.
    pub table: String,
    /// Where it is now.
    pub database: &'static str,
    /// Rows in the old database.
    pub source_rows: u64,
    /// Rows in the new one.
    pub rows: u64,
    /// Bytes in the old database, with its indexes.
    pub bytes: u64,
    /// Of the rows as they should arrive.
    pub source_digest: Digest,
    /// Of the rows that did.
    pub digest: Digest,
    /// Both are the same.
    pub ok: bool,
    /// Time of copying it, and of reading it on both sides.
    pub seconds: f64,
}

/// Compares both sides.
pub(super) fn compare(
    plan: &Plan,
    bytes: impl Fn(&str) -> (u64, &'static str),
    copied: &std::collections::BTreeMap<String, f64>,
    expected: &Digests,
    found: &Digests,
    checked: &[Checked],
) -> (Vec<TableResult>, Vec<String>) {
    let (mut tables, mut differences) = (Vec::new(), Vec::new());
    for (table, (source_digest, source_seconds)) in expected {
        let (digest, seconds) = found.get(table).copied().unwrap_or_default();
        let (bytes, database) = bytes(table);
        let ok = digest == *source_digest && found.contains_key(table);
        if !ok {
            differences.push(format!(
                "table {table}: {} rows with digest {source_digest} in {}, {} rows with digest {digest} in {database}.db",
                source_digest.rows,
                plan.source.path.display(),
                digest.rows
            ));
        }
        tables.push(TableResult {
            table: table.clone(),
            database,
            source_rows: source_digest.rows,
            rows: digest.rows,
            bytes,
            source_digest: *source_digest,
            digest,
            ok,
            seconds: copied.get(table).copied().unwrap_or_default() + source_seconds + seconds,
        });
    }
    for database in checked.iter().filter(|checked| !checked.is_ok()) {
        let name = database.database;
        differences
            .extend(database.integrity.iter().map(|line| format!("{name}.db: integrity_check: {line}")));
        if database.foreign_key_violations != database.foreign_key_violations_expected {
            differences.push(format!(
                "{name}.db: foreign_key_check finds {} violations, the old data has {}",
                database.foreign_key_violations, database.foreign_key_violations_expected
            ));
        }
    }
    (tables, differences)
}

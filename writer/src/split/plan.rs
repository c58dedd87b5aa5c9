//! What a split would do, and why it would refuse: found by reading alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::assign::{self, Said, Side};
use super::catalog::{Catalog, Kind, Table};
use super::objects::{self, Kept};
use super::orphans::{Nulled, OrphanPolicy};
use super::progress::Progress;
use super::references;
use super::rehearse::Rehearsal;
use super::source::Source;
use super::{Request, SCHEMA_VERSION};
use crate::Error;
use crate::database::VALUE_BYTES_MAX;

/// How much space the new databases may take, in parts of the old one: they are built beside what is there.
const SPACE_FACTOR: u64 = 2;

/// What the whole takes, in parts of the time that reading for the plan took.
const TIME_FACTOR: f64 = 6.0;

/// What a split would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Of this structure.
    pub schema: u32,
    /// The old database.
    pub source: SourceFacts,
    /// Where the store goes.
    pub store: PathBuf,
    /// Every table that can be assigned, in the order of the old schema.
    pub tables: Vec<PlannedTable>,
    /// Foreign keys: those over the cut, and those inside that are violated.
    pub references: Vec<Reference>,
    /// Triggers, views and tables that are left behind.
    pub left_behind: Vec<LeftBehind>,
    /// Disk space that the split needs, bytes.
    pub needed_bytes: u64,
    /// Disk space that is free where the store goes, bytes.
    pub free_bytes: u64,
    /// Time that it takes, about.
    pub estimated_seconds: f64,
    /// What is worth knowing and does not stop the split.
    pub warnings: Vec<String>,
    /// Why the split would refuse; empty: it would not.
    pub refusals: Vec<String>,
}

/// What the old database is.
#[derive(Clone, Debug, Serialize)]
pub struct SourceFacts {
    /// Without links.
    pub path: PathBuf,
    /// Size.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
    /// `UTF-8`, `UTF-16le` or `UTF-16be`.
    pub encoding: String,
    /// Size of a page.
    pub page_bytes: u32,
    /// `PRAGMA user_version`.
    pub user_version: i32,
    /// `PRAGMA application_id`.
    pub application_id: i32,
}

/// A table and where it goes.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTable {
    /// Its name.
    pub table: String,
    /// Where it goes.
    pub side: Side,
    /// Who said so.
    pub said: Said,
    /// Its module has the rows (FTS5, R-tree).
    #[serde(rename = "virtual")]
    pub is_virtual: bool,
    /// Rows; of a virtual table, those of its shadow tables.
    pub rows: u64,
    /// Bytes, with its indexes.
    pub bytes: u64,
    /// Indexes that were made by CREATE INDEX.
    pub indexes: usize,
    /// Triggers that go with it.
    pub triggers: usize,
}

/// A foreign key over the cut, or a violated one inside a database.
#[derive(Clone, Debug, Serialize)]
pub struct Reference {
    /// `database.table.column`, columns of a composite key separated by commas.
    pub from: String,
    /// `database.table.column`.
    pub to: String,
    /// `restrict`, `set null`, `cascade` or `keep`.
    pub on_delete: &'static str,
    /// It leads from one database into the other.
    pub crosses: bool,
    /// It is written into `penholder.toml`.
    pub declared: bool,
    /// Rows that refer to a row that is not there.
    pub orphans: u64,
    /// Primary keys of the first ones.
    pub orphan_keys: Vec<String>,
}

/// What is not carried over.
#[derive(Clone, Debug, Serialize)]
pub struct LeftBehind {
    /// `table`, `view`, `trigger` or `foreign key`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its text.
    pub sql: String,
    /// Why.
    pub reason: String,
}

/// The plan as the work needs it.
pub(super) struct Blueprint {
    pub(super) plan: Plan,
    pub(super) catalog: Catalog,
    pub(super) sides: BTreeMap<String, (Side, Said)>,
    /// Texts of tables that lose a foreign key.
    pub(super) texts: BTreeMap<String, String>,
    pub(super) nulled: Vec<Nulled>,
    pub(super) kept: Vec<Kept>,
    pub(super) orphans: OrphanPolicy,
}

impl Blueprint {
    /// Where a table goes, SQLite's own left out: each side gets its part of those.
    pub(super) fn side(&self, table: &Table) -> Option<Side> {
        side_of(&self.catalog, &self.sides, &table.name)
    }

    /// The tables of one database that hold rows.
    pub(super) fn tables(&self, side: Side) -> impl Iterator<Item = &Table> {
        let holds_rows = |table: &&Table| matches!(table.kind, Kind::Ordinary | Kind::Shadow(_));
        self.catalog.tables.iter().filter(holds_rows).filter(move |table| self.side(table) == Some(side))
    }

    /// Refuses with everything that stands in the way.
    pub(super) fn refuse_if_needed(&self) -> Result<(), Error> {
        self.refuse(&self.plan.refusals, "nothing was written")
    }

    /// Refuses with all reasons in one message, which ends with what was done until then.
    pub(super) fn refuse(&self, reasons: &[String], done: &str) -> Result<(), Error> {
        if reasons.is_empty() {
            return Ok(());
        }
        let (path, reasons) = (self.plan.source.path.display(), reasons.join("\n  - "));
        let what = format!("{path} cannot be split yet:\n  - {reasons}\n{done}");
        Err(Error::refused(what, "`--check` shows the whole plan"))
    }
}

/// Where a table goes, by its name; shadow tables follow their virtual table.
pub(super) fn side_of(catalog: &Catalog, sides: &BTreeMap<String, (Side, Said)>, name: &str) -> Option<Side> {
    let table = catalog.table(name).filter(|table| table.kind != Kind::Internal)?;
    sides.get(&table.unit().to_ascii_lowercase()).map(|(side, _)| *side)
}

/// Reads everything that the split depends on; nothing is written.
pub(super) fn make(source: &Source, request: &Request, progress: &Progress) -> Result<Blueprint, Error> {
    let begun = Instant::now();
    let name = source.held.path.display().to_string();
    if let Some(odd) = Catalog::unreadable(&source.pin).map_err(Error::sqlite("read", &name))? {
        let what = format!("the name or the text of {odd} in {name} is not UTF-8");
        return Err(Error::refused(what, "rename it in a copy, and split the copy"));
    }
    let catalog = Catalog::read(&source.pin).map_err(Error::sqlite("read", &name))?;
    let sides = assign::assign(&catalog, &request.choices)?;
    let mut rehearsal = Rehearsal::of(&catalog).map_err(Error::sqlite("rehearse", &name))?;
    let mut refusals = std::mem::take(&mut rehearsal.refusals);
    refuse_tables(&catalog, &sides, &mut refusals);
    refuse_open(&sides, &catalog, &mut refusals);
    let mut settled = references::settle(source, &catalog, &sides, &rehearsal, request.orphans, progress)?;
    let mut sorted = objects::sort(&catalog, &sides, &rehearsal);
    let (identity, facts) = (source.held.identity(), &catalog.facts);
    let (needed_bytes, free_bytes) = (identity.bytes * SPACE_FACTOR, free_bytes(&request.store)?);
    if free_bytes < needed_bytes {
        refusals.push(format!(
            "{needed_bytes} bytes are needed where {} goes, and {free_bytes} are free: make room, or choose another disk",
            request.store.display()
        ));
    }
    refusals.append(&mut settled.refusals);
    refusals.append(&mut sorted.refusals);
    let mut left_behind = settled.left_behind;
    left_behind.append(&mut sorted.left_behind);
    let plan = Plan {
        schema: SCHEMA_VERSION,
        source: SourceFacts {
            path: source.held.path.clone(),
            bytes: identity.bytes,
            modified_ns: identity.modified_ns,
            encoding: facts.encoding.clone(),
            page_bytes: facts.page_bytes,
            user_version: facts.user_version,
            application_id: facts.application_id,
        },
        store: request.store.clone(),
        tables: planned_tables(&catalog, &sides, &sorted.kept),
        references: settled.references,
        left_behind,
        needed_bytes,
        free_bytes,
        estimated_seconds: begun.elapsed().as_secs_f64() * TIME_FACTOR,
        warnings: settled.warnings,
        refusals,
    };
    Ok(Blueprint {
        plan,
        catalog,
        sides,
        texts: settled.texts,
        nulled: settled.nulled,
        kept: sorted.kept,
        orphans: request.orphans,
    })
}

fn planned_tables(
    catalog: &Catalog,
    sides: &BTreeMap<String, (Side, Said)>,
    kept: &[Kept],
) -> Vec<PlannedTable> {
    let planned = |table: &Table| {
        let (side, said) = sides.get(&table.name.to_ascii_lowercase()).copied()?;
        let same = |other: &str| other.eq_ignore_ascii_case(&table.name);
        let rows = catalog.tables.iter().filter(|other| same(other.unit())).map(|other| other.rows);
        Some(PlannedTable {
            table: table.name.clone(),
            side,
            said,
            is_virtual: table.kind == Kind::Virtual,
            rows: rows.sum(),
            bytes: assign::bytes_of(catalog, table),
            indexes: catalog.indexes.iter().filter(|index| same(&index.table)).count(),
            triggers: kept.iter().filter(|kept| kept.kind == "trigger" && same(&kept.table)).count(),
        })
    };
    catalog.assignable().filter_map(planned).collect()
}

/// Tables that the writer could not work with, or that are its own.
fn refuse_tables(catalog: &Catalog, sides: &BTreeMap<String, (Side, Said)>, refusals: &mut Vec<String>) {
    if catalog.assignable().next().is_none() {
        refusals.push("the old database has no tables".into());
    }
    for table in &catalog.tables {
        let name = &table.name;
        if name.to_ascii_lowercase().starts_with("_penholder_") {
            refusals.push(format!("table {name} is Penholder's own: this is a database of a store already"));
        }
        let is_carried = side_of(catalog, sides, name).is_some_and(|side| side != Side::Drop);
        if is_carried && table.row_bytes_max > VALUE_BYTES_MAX as u64 {
            refusals.push(format!(
                "table {name} has a row of {} bytes, and the writer works with rows of up to {VALUE_BYTES_MAX}: move \
                 what is so large into files first, or leave the table behind with --drop {name}",
                table.row_bytes_max
            ));
        }
    }
}

/// Tables that nobody assigned, with the flags that would confirm what is proposed.
fn refuse_open(sides: &BTreeMap<String, (Side, Said)>, catalog: &Catalog, refusals: &mut Vec<String>) {
    let is_open = |table: &&Table| {
        sides.get(&table.name.to_ascii_lowercase()).is_some_and(|(_, said)| *said == Said::Proposal)
    };
    let open: Vec<&Table> = catalog.assignable().filter(is_open).collect();
    if open.is_empty() {
        return;
    }
    let names: Vec<&str> = open.iter().map(|table| table.name.as_str()).collect();
    let flag = |table: &&Table| {
        let (side, _) = sides.get(&table.name.to_ascii_lowercase())?;
        Some(format!("--{} {}", side.name(), shell_word(&table.name)))
    };
    let flags: Vec<String> = open.iter().filter_map(flag).collect();
    refusals.push(format!(
        "nobody has assigned: {}; to accept what is proposed, add {}",
        names.join(", "),
        flags.join(" ")
    ));
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Free bytes of the file system that `store` is on, or will be.
fn free_bytes(store: &Path) -> Result<u64, Error> {
    let absolute = std::path::absolute(store).map_err(Error::io("find", store))?;
    let there = absolute.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    let space =
        rustix::fs::statvfs(there).map_err(|error| Error::io("look for space on", there)(error.into()))?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

impl OrphanPolicy {
    /// Whether orphans stop the split.
    pub(super) fn is_fatal(self) -> bool {
        self == Self::Fail
    }
}

//! `penholder check`: the databases by themselves and against each other, then the spool and the receipts.

use penholder::Config;
use penholder_client::read::{ReadError, Reader, Snapshot};
use penholder_protocol::{Control, Layout};
use rusqlite::Connection;
use serde::Serialize;

use super::args::CheckArgs;
use super::exit::{Exit, Failure};
use super::findings::{self, Finding};
use super::orphans;
use super::output::{BAD, GOOD, Output};
use super::render;
use super::spool::{self, Watermarks};
use super::status;

/// Most findings of one PRAGMA that are reported.
const FINDINGS_COUNT_MAX: usize = 100;

/// The check that finds a database damaged.
const DAMAGE: &str = "integrity";

/// The check that finds a database of another store, or in the place of another one of its own.
const IDENTITY: &str = "identity";

/// The check that finds a database older than it was.
const CLOCK: &str = "clock";

#[derive(Serialize)]
struct Report {
    schema: u32,
    ok: bool,
    store_id: String,
    databases: usize,
    segments: usize,
    receipts: usize,
    findings: Vec<Finding>,
}

/// Checks the store; exits with 3 on a finding.
pub(super) fn run(args: &CheckArgs, output: &mut Output) -> Result<Exit, Failure> {
    let layout = Layout::new(&args.store);
    let control = status::control(&layout)?;
    let config = Config::load(&args.store)?.validate()?;
    // Receipts promise, so they are read first; the databases last.
    let receipts = spool::receipts(&layout, &control)?;
    let segments = spool::segments(&layout, &control)?;
    let mut watermarks = Watermarks::default();
    let mut findings = match Reader::open(&args.store) {
        Ok(mut reader) => in_databases(&mut reader, &control, &config, &mut watermarks)?,
        Err(error) => vec![damage(error)?],
    };
    // What was reclaimed, and forgotten at a start, between the two looks is none.
    let is_there = |segment: &spool::Segment| layout.segment(segment.name).exists();
    let segments: Vec<_> = segments.into_iter().filter(is_there).collect();
    let told: Vec<_> = receipts.into_iter().filter(|(stream, _)| layout.receipt(*stream).exists()).collect();
    // What a damaged database knew is not known.
    if watermarks.sequences.len() == control.databases.len() {
        findings.extend(findings::in_spool(&segments, &watermarks));
        findings.extend(findings::in_receipts(&told, &watermarks));
    }
    let report = Report {
        schema: 1,
        ok: findings.is_empty(),
        store_id: control.store.to_string(),
        databases: control.databases.len(),
        segments: segments.len(),
        receipts: told.len(),
        findings,
    };
    if args.json {
        output.json(&report)?;
    } else {
        print(&report, output)?;
    }
    Ok(if report.ok { Exit::Ok } else { Exit::Finding })
}

/// Checks the databases in one cut if there is one, else each for itself.
fn in_databases(
    reader: &mut Reader,
    control: &Control,
    config: &Config,
    watermarks: &mut Watermarks,
) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let mut uneven = None;
    match reader.snapshot() {
        Ok(snapshot) => {
            for slot in &control.databases {
                findings.extend(in_database(&snapshot, &slot.name, control, watermarks)?);
            }
            // It would run into the same damage, or look for tables where they are not.
            if !findings.iter().any(|finding| [DAMAGE, IDENTITY].contains(&finding.check)) {
                findings.extend(orphans::find(&snapshot, config)?);
            }
            return Ok(findings);
        }
        Err(error @ ReadError::Uneven { writer_running: false, .. }) => {
            uneven = Some(Finding::new(CLOCK, "store", error.to_string()));
        }
        // Said below, and what the other databases have to say.
        Err(ReadError::Misplaced { .. }) => {}
        Err(error) if error.damaged().is_some() => {}
        Err(error) => return Err(error.into()),
    }
    for slot in &control.databases {
        match reader.single(&slot.name) {
            Ok(snapshot) => findings.extend(in_database(&snapshot, &slot.name, control, watermarks)?),
            Err(error) => findings.push(damage(error)?),
        }
    }
    // Where the cause is known, what follows from it is none.
    if !findings.iter().any(|finding| [IDENTITY, CLOCK].contains(&finding.check)) {
        findings.extend(uneven);
    }
    Ok(findings)
}

/// A database that is missing, or that SQLite finds damaged, is what a check is for; with every other error there was none.
fn damage(error: ReadError) -> Result<Finding, Failure> {
    if let ReadError::Missing { path } = &error {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        return Ok(Finding::new("missing", name, error.to_string()));
    }
    match error.damaged() {
        Some(name) => Ok(Finding::new(DAMAGE, name, error.to_string())),
        None => Err(error.into()),
    }
}

fn in_database(
    snapshot: &Snapshot<'_>,
    name: &str,
    control: &Control,
    watermarks: &mut Watermarks,
) -> Result<Vec<Finding>, Failure> {
    let connection = snapshot.database(name)?;
    let mut findings = Vec::new();
    let mut look = || {
        findings.extend(in_pages(connection, name)?);
        findings.extend(in_references(connection, name)?);
        findings.extend(in_identity(connection, name, control)?);
        watermarks.load(connection)
    };
    if let Err(source) = look() {
        findings.push(damage(ReadError::Sql { database: name.to_owned(), source })?);
    }
    let reclaimed = control.databases.iter().find(|slot| slot.name == name).map(|slot| slot.reclaimed);
    let own = snapshot.tick(name)?;
    if let Some(reclaimed) = reclaimed.filter(|reclaimed| *reclaimed > own) {
        let message = format!(
            "it is at tick {own}, and segments were deleted when it was at {reclaimed}: it was replaced by an older copy"
        );
        findings.push(Finding::new(CLOCK, name, message));
    }
    Ok(findings)
}

fn in_pages(connection: &Connection, name: &str) -> rusqlite::Result<Vec<Finding>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FINDINGS_COUNT_MAX})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let wrong = lines.filter(|line| line.as_ref().map_or(true, |line| line != "ok"));
    wrong.map(|line| Ok(Finding::new(DAMAGE, name, line?))).collect()
}

fn in_references(connection: &Connection, name: &str) -> rusqlite::Result<Vec<Finding>> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let rows = statement.query_map([], |row| {
        let (table, id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let id = id.map_or_else(|| "without a row id".to_owned(), |id| id.to_string());
        Ok(Finding::new(
            "foreign_keys",
            name,
            format!("row {id} of {table} refers to a row of {parent} that is not there"),
        ))
    })?;
    rows.take(FINDINGS_COUNT_MAX).collect()
}

fn in_identity(connection: &Connection, name: &str, control: &Control) -> rusqlite::Result<Option<Finding>> {
    let sql = "SELECT value FROM _penholder_meta WHERE key = ?1";
    let id: String = connection.query_row(sql, ["store_id"], |row| row.get(0))?;
    let own: String = connection.query_row(sql, ["database"], |row| row.get(0))?;
    let message = if id != control.store.to_string() {
        format!("it belongs to the store {id}: put the database of this store back")
    } else if own != name {
        format!("it is the database {own} of this store: put the file back that is {name}")
    } else {
        return Ok(None);
    };
    Ok(Some(Finding::new(IDENTITY, name, message)))
}

fn print(report: &Report, output: &mut Output) -> Result<(), Failure> {
    for finding in &report.findings {
        let word = output.paint(BAD, finding.check);
        output.line(format!("{word} {}: {}", finding.subject, render::printable(&finding.message)))?;
    }
    let word = if report.ok { output.paint(GOOD, "ok") } else { output.paint(BAD, "not ok") };
    let looked = [
        render::count(report.databases as u64, "database"),
        render::count(report.segments as u64, "segment"),
        render::count(report.receipts as u64, "receipt file"),
    ];
    let found = render::count(report.findings.len() as u64, "finding");
    output.line(format!("{word}: {} checked, {found}", looked.join(", ")))
}

//! The one-time migration: splits a legacy database into the two of a store, and proves that nothing was lost.
//!
//! [`check`] only plans. [`split`] plans, copies into databases built aside, reads both sides back, and lets the store
//! appear as a whole; the old file is only ever read.

mod progress;
mod source;
mod catalog;
mod assign;
mod rehearse;
mod sql;
mod orphans;
mod references;
mod objects;
mod plan;
mod soundness;
mod copy;
mod digest;
mod verify;
mod settings;
mod report;
mod publish;
mod diff;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use penholder_protocol::{Layout, StoreId, WriterState};

pub use assign::{Choices, Said, Side};
pub use diff::{Compared, Difference, RowDifference, diff};
pub use digest::Digest;
pub use orphans::OrphanPolicy;
pub use plan::{LeftBehind, Plan, PlannedTable, Reference, SourceFacts};
pub use progress::{Look, Progress, Stage};
pub use publish::Record;
pub(crate) use publish::settle_unfinished;
pub use report::{Report, TableResult};
pub use verify::Checked;

use self::plan::Blueprint;
use self::progress::{join, together};
use self::publish::{Found, Place};
use self::soundness::Depth;
use self::source::{Held, Source};
use crate::database::{self, Database};
use crate::keeper::Keeper;
use crate::{Config, Error, crash, recover};

/// Version of the structure of plans and reports.
const SCHEMA_VERSION: u32 = 1;

/// The databases of a split store, in the order in which they are copied.
const SIDES: [Side; 2] = [Side::Config, Side::Activity];

/// What is to be split, where to, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The legacy database.
    pub source: PathBuf,
    /// The store's directory.
    pub store: PathBuf,
    /// Which table goes where.
    pub choices: Choices,
    /// What becomes of rows that refer to nothing.
    pub orphans: OrphanPolicy,
    /// Replace a store that is there.
    pub force: bool,
    /// Take the legacy file out of the way afterwards.
    pub retire: bool,
}

/// How a split ended.
#[derive(Debug)]
pub enum Ended {
    /// The store is there, proven; or, if the report is not `ok`, it is not.
    Split(Box<Report>),
    /// It was there already; nothing was done but, if asked for, retiring the old file.
    Already {
        /// What made it.
        record: Box<Record>,
        /// The old file has changed since, or could not be compared: what is in it now is not in the store.
        changed: bool,
        /// Where the old file is now, if it was retired this time.
        retired: Option<PathBuf>,
    },
}

/// Plans only: reads the source, and changes nothing.
pub fn check(request: &Request, progress: &Arc<Progress>) -> Result<Plan, Error> {
    let config = config(request)?;
    let source = Source::open(&request.source)?;
    let mut plan = survey(&source, request, Depth::Indexes, progress)?.plan;
    let mut refuse = |error: Error| plan.refusals.push(error.to_string());
    for looked in [refuse_retired(request), publish::check_place(&config, request.force)] {
        if let Err(error) = looked {
            refuse(error);
        }
    }
    match publish::look(&request.store)? {
        Found::Foreign(error) => refuse(error),
        Found::Taken(error) if !request.force => refuse(error),
        Found::Split(record) if !request.force && !is_of(&record, &source.held.path) => {
            refuse(of_another(request, &record));
        }
        Found::Split(_) if !request.force => {
            let done =
                format!("{} is there already: a split would say so and do nothing", request.store.display());
            plan.warnings.push(done);
        }
        Found::Room | Found::Taken(_) | Found::Split(_) => {}
    }
    Ok(plan)
}

/// Splits, or leaves no store behind.
pub fn split(request: &Request, progress: &Arc<Progress>) -> Result<Ended, Error> {
    let begun = Instant::now();
    database::check_build()?;
    match publish::look(&request.store)? {
        Found::Split(record) if !request.force => return already(request, record, progress),
        Found::Foreign(error) => return Err(error),
        Found::Taken(error) if !request.force => return Err(error),
        Found::Room | Found::Taken(_) | Found::Split(_) => {}
    }
    refuse_retired(request)?;
    let config = config(request)?;
    let source = Source::open(&request.source)?;
    let held = &source.held;
    let blueprint = survey(&source, request, Depth::Rows, progress)?;
    blueprint.refuse_if_needed()?;
    let place = Place::take(&config, request.force)?;
    let made = make(held, &blueprint, &place, &config, progress);
    let (mut report, store) = match made {
        Ok(made) => made,
        Err(error) => {
            give_up(place);
            return Err(error);
        }
    };
    report.seconds = begun.elapsed().as_secs_f64();
    if !report.ok {
        give_up(place);
        return Ok(Ended::Split(Box::new(report)));
    }
    progress.enter(Stage::Publishing);
    let record = serde_json::to_vec_pretty(&report)
        .map_err(|error| Error::io("write", &request.store)(error.into()))?;
    place.publish(&config, store, settings::text(&blueprint.plan).as_bytes(), &record)?;
    let path = source.held.path.clone();
    drop(source);
    if request.retire {
        crash::point("split_before_retire");
        report.retired = Some(publish::retire(&path)?);
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(Ended::Split(Box::new(report)))
}

/// Plans while another thread looks whether the old data is sound.
fn survey(
    source: &Source,
    request: &Request,
    depth: Depth,
    progress: &Arc<Progress>,
) -> Result<Blueprint, Error> {
    let held = &source.held;
    let (planned, unsound) = thread::scope(|scope| {
        let looking = scope.spawn(|| soundness::of(held, depth, progress));
        let planned = plan::make(source, request, progress);
        if planned.as_ref().is_err_and(|error| !error.is_damage()) {
            progress.stop();
        }
        (planned, join(looking))
    });
    match (planned, unsound) {
        (Ok(mut blueprint), Ok(unsound)) => {
            let refusals = blueprint.refusals_of(&unsound);
            blueprint.plan.refusals.extend(refusals);
            Ok(blueprint)
        }
        // Then it is known which tables are.
        (Err(error), Ok(unsound)) if error.is_damage() && !unsound.is_empty() => {
            Err(soundness::refuse_all(&held.path, &unsound))
        }
        (Err(error), _) | (_, Err(error)) => Err(held.explain(error)),
    }
}

/// Builds the databases aside, and proves them.
fn make(
    source: &Held,
    blueprint: &Blueprint,
    place: &Place,
    config: &Config,
    progress: &Arc<Progress>,
) -> Result<(Report, StoreId), Error> {
    let store = StoreId::random().map_err(Error::io("draw an id for", &config.store))?;
    let paths = SIDES.map(|side| place.aside.database(side.name()));
    let rows: u64 = SIDES.iter().flat_map(|side| blueprint.tables(*side)).map(|table| table.rows).sum();
    progress.expect(rows * 2, blueprint.plan.source.bytes, paths.to_vec());
    progress.enter(Stage::Copying);
    let mut reader = source.connect()?;
    progress::interrupt_with(&mut reader, progress).map_err(Error::sqlite("read", "the old database"))?;
    let (seconds, (expected, hash)) = together(
        progress,
        || build(source, blueprint, &paths, progress),
        // Moved there: it is closed when all is read.
        move || {
            let reader = reader;
            let digests = verify::digest_source(&reader, blueprint, progress);
            Ok((digests.map_err(|error| source.explain(error))?, source.hash(progress)?))
        },
    )?;
    found(&place.aside, config, store)?;
    crash::point("split_copied");
    progress.enter(Stage::Verifying);
    let (checked, found) = verify::prove(source, blueprint, &paths, &hash, progress)?;
    if checked.iter().any(|checked| !checked.integrity.is_empty()) {
        refuse_inherited(source, blueprint, progress)?;
    }
    let side = |name: &str| {
        blueprint
            .catalog
            .table(name)
            .map_or((0, ""), |table| (table.bytes, blueprint.side(table).map_or("", Side::name)))
    };
    let (tables, differences) = report::compare(&blueprint.plan, side, &seconds, &expected, &found, &checked);
    let plan = blueprint.plan.clone();
    let report = Report {
        schema: SCHEMA_VERSION,
        ok: differences.is_empty(),
        differences,
        store_id: store.to_string(),
        store: config.store.clone(),
        source: plan.source,
        source_blake3: hash,
        tables,
        databases: checked,
        orphans: blueprint.orphans,
        references: plan.references,
        left_behind: plan.left_behind,
        warnings: plan.warnings,
        seconds: 0.0,
        retired: None,
    };
    Ok((report, store))
}

/// Refuses if what is wrong with the new databases is wrong in the old one: a copy repeats what an index says.
fn refuse_inherited(source: &Held, blueprint: &Blueprint, progress: &Arc<Progress>) -> Result<(), Error> {
    let unsound = soundness::of(source, Depth::Indexes, progress)?;
    blueprint.refuse(&blueprint.refusals_of(&unsound), "no store was made")
}

fn build(
    source: &Held,
    blueprint: &Blueprint,
    paths: &[PathBuf; 2],
    progress: &Arc<Progress>,
) -> Result<BTreeMap<String, f64>, Error> {
    let mut seconds = BTreeMap::new();
    for (side, path) in SIDES.into_iter().zip(paths) {
        seconds.extend(copy::build(source, blueprint, side, path, progress)?);
    }
    Ok(seconds)
}

/// Adds what the writer keeps in each database, as its own first start would.
fn found(aside: &Layout, config: &Config, store: StoreId) -> Result<(), Error> {
    let mut keepers = Vec::new();
    Keeper::complete(&mut keepers, aside, config, &[])?;
    let open = |keeper: &Keeper| database::open(aside, keeper, config, WriterState::Stopped);
    let connections = keepers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let kept = keepers.iter().zip(&connections);
    let databases: Vec<_> = kept.map(|(keeper, opened)| Database::new(keeper, opened)).collect();
    recover::found(&databases, store)
}

/// What cannot be removed now, the next split removes.
fn give_up(place: Place) {
    if let Err(error) = place.abandon() {
        log::warn!("{error}; the next split removes it");
    }
}

fn already(request: &Request, record: Box<Record>, progress: &Progress) -> Result<Ended, Error> {
    publish::clear_finished(&request.store)?;
    let retired_before = publish::retired(&record.source.path).exists();
    let source = match std::fs::canonicalize(&request.source) {
        Ok(path) => path,
        Err(_) if retired_before && publish::retired(&request.source).exists() => {
            return Ok(Ended::Already { record, changed: false, retired: None });
        }
        Err(error) => return Err(Error::io("find", &request.source)(error)),
    };
    let file = Source::open(&source)?;
    let same_bytes = file.held.identity().bytes == record.source.bytes
        && file.held.hash(progress)? == record.source_blake3;
    drop(file);
    if !is_of(&record, &source) && !same_bytes {
        return Err(of_another(request, &record));
    }
    if !request.retire {
        return Ok(Ended::Already { record, changed: !same_bytes, retired: None });
    }
    if !same_bytes {
        let what = format!("{} has changed since it was split, and is not retired", source.display());
        return Err(Error::refused(what, "look with `penholder diff` at what is missing in the store"));
    }
    refuse_retired(request)?;
    let retired = Some(publish::retire(&source)?);
    Ok(Ended::Already { record, changed: false, retired })
}

fn is_of(record: &Record, source: &Path) -> bool {
    record.source.path == source
}

fn of_another(request: &Request, record: &Record) -> Error {
    Error::refused(
        format!(
            "{} is the store that {} was split into",
            request.store.display(),
            record.source.path.display()
        ),
        "choose another directory, or pass --force to replace it",
    )
}

/// Said before the work, not after it.
fn refuse_retired(request: &Request) -> Result<(), Error> {
    let target = publish::retired(&request.source);
    if request.retire && target.symlink_metadata().is_ok() {
        return Err(Error::refused(format!("{} is there already", target.display()), "move it away"));
    }
    Ok(())
}

/// How the writer will run on the store: as the environment says, since there are no settings yet. What stands in the
/// directory is of a store that is replaced, or of a split that was interrupted.
fn config(request: &Request) -> Result<Config, Error> {
    if request.store.to_str().is_none() {
        let what = format!("the path {} is not UTF-8", request.store.display());
        return Err(Error::refused(what, "choose another directory for the store"));
    }
    let environment = Config::load(request.store.join(publish::ASIDE))?;
    Config { store: request.store.clone(), databases: database_names(), ..environment }.validate()
}

fn database_names() -> Vec<String> {
    SIDES.map(|side| side.name().to_owned()).to_vec()
}

/// Takes a consistent copy of a database that is in use or was left with a log, through SQLite's backup.
pub fn copy_first(source: &Path, target: &Path) -> Result<(), Error> {
    source::copy(source, target)
}

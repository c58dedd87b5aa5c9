//! Brings the databases of a store to a state from which the spool can be read on, whatever happened before.

use std::collections::HashMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use penholder_protocol::{
    Control, DatabaseSlot, Epoch, Layout, SegmentHeader, SegmentName, Sequence, SpoolFile, StoreId, StreamId,
    Tick, sync_directory,
};

use crate::batch::Touches;
use crate::clock::{Clock, Counts};
use crate::control::ControlFile;
use crate::database::Database;
use crate::migrate::{self, Schema};
use crate::segment::{Segment, Trouble};
use crate::{Config, Error, arrivals, crash, fence, quarantine, redo, restored, watermark};

/// Version of the tables below, in `_penholder_meta`.
const FORMAT: i64 = 1;

/// Files in quarantine that are looked at when the writer starts: what more there is was not left there for a while.
const QUARANTINED_COUNT_MAX: usize = 20_000;

/// Watermarks (the owner is a stream's id) and clock rows (the owner is a database's name) share a table: the watermarks in
/// the order in which the streams came, then the clock. A commit moves one of each, and those of the newest streams are on
/// the last page with the clock, however many idle streams there are. Every text sorts before every blob.
const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS _penholder_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _penholder_progress(owner PRIMARY KEY NOT NULL, position INTEGER NOT NULL, epoch INTEGER,
    uid INTEGER, previous INTEGER, applied INTEGER, rejected INTEGER);
CREATE VIEW IF NOT EXISTS _penholder_clock AS
    SELECT owner AS database, position AS tick, previous, applied, rejected FROM _penholder_progress
    WHERE owner < x'';
CREATE VIEW IF NOT EXISTS _penholder_stream AS
    SELECT owner AS stream, epoch, uid, position AS sequence FROM _penholder_progress WHERE owner >= x'';
CREATE TABLE IF NOT EXISTS _penholder_rejected(stream BLOB NOT NULL, sequence INTEGER NOT NULL,
    tick INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, statement INTEGER,
    submitted_ns INTEGER NOT NULL, command BLOB, PRIMARY KEY (stream, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _penholder_key(key BLOB PRIMARY KEY, hash INTEGER NOT NULL, tick INTEGER NOT NULL,
    outcome BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _penholder_redo(id INTEGER PRIMARY KEY CHECK (id = 0), tick INTEGER NOT NULL,
    batch BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS _penholder_migration(number INTEGER PRIMARY KEY, name TEXT NOT NULL,
    checksum INTEGER NOT NULL, tick INTEGER NOT NULL);
";

/// The tick of a database that was [`found`]ed.
pub(crate) const FIRST_TICK: Tick = Tick(1);

/// What recovery found and settled.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) clock: Clock,
    /// Streams of this epoch and below that no database knows are restored old files.
    pub(crate) floor: Epoch,
    /// Streams that have a segment in the spool.
    pub(crate) in_spool: HashMap<StreamId, InSpool>,
}

/// A stream as its first segment in the spool states it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InSpool {
    number: u32,
    epoch: Epoch,
    uid: u32,
    /// When the file was made: among several owners the first one has the stream.
    born: Duration,
}

/// Recovers the store and raises its epoch.
pub(crate) fn recover(
    layout: &Layout,
    config: &Config,
    control: &mut ControlFile,
    databases: &mut [Database<'_>],
) -> Result<Recovered, Error> {
    for database in databases.iter() {
        make_own_tables(database, control.content.store)?;
    }
    refuse_older(databases, &control.content, config)?;
    redo::complete(databases, config)?;
    let mut clock = Clock::load(databases)?;
    // An index over a large table is sorted in memory: what the operator asks for may take what it needs.
    fence::limit_heap(0);
    migrate_all(databases, config, clock.next())?;
    fence::limit_heap(config.heap_bytes_max);
    let old_floor = floor(databases)?;
    // Clients that took the old epoch either are seen by the scan below, or see the raised floor and start over.
    let content = &mut control.content;
    if !std::mem::take(&mut control.is_new) {
        content.epoch = content.epoch.next();
    }
    content.floor = Epoch(content.epoch.0 - 1);
    content.pid = std::process::id();
    control.write(true)?;
    crash::point("after_floor");
    let floor = control.content.floor;
    sync_directory(&layout.spool()).map_err(Error::io("sync", &layout.spool()))?;
    let in_spool = scan(layout, control.content.store, floor)?;
    let tick = clock.next();
    let all = (0..databases.len()).fold(Touches::default(), Touches::with);
    for (index, database) in databases.iter().enumerate() {
        database.run("begin recovery of", "BEGIN IMMEDIATE", [])?;
        settle_streams(database, &in_spool, old_floor, floor)?;
        drop_old_keys(database, config)?;
        database.run("drop the redo of", "DELETE FROM _penholder_redo", [])?;
        clock.write(index, database, databases, all, tick, Counts::default())?;
        database.run("commit recovery of", "COMMIT", [])?;
        crash::point("during_recovery");
    }
    clock.note(all, tick);
    let slots = &control.content.databases;
    if config.accept_rollback || slots.iter().any(DatabaseSlot::is_to_be_made) {
        for (index, slot) in control.content.databases.iter_mut().enumerate() {
            slot.reclaimed = clock.of(index);
        }
        control.write(true)?;
    }
    Ok(Recovered { clock, floor, in_spool })
}

/// Makes the engine's tables in databases that were filled without it, as a first start leaves them; their schema is
/// their own, and only a directory of migrations will change it.
pub(crate) fn found(databases: &[Database<'_>], store: StoreId) -> Result<(), Error> {
    for database in databases {
        make_own_tables(database, store)?;
        note_schema(database, "custom")?;
    }
    let clock = Clock::load(databases)?;
    let all = (0..databases.len()).fold(Touches::default(), Touches::with);
    for (index, database) in databases.iter().enumerate() {
        database.run("begin to found", "BEGIN IMMEDIATE", [])?;
        clock.write(index, database, databases, all, FIRST_TICK, Counts::default())?;
        database.run("found", "COMMIT", [])?;
    }
    Ok(())
}

fn make_own_tables(database: &Database<'_>, store: StoreId) -> Result<(), Error> {
    let failed = || Error::sqlite("prepare", &database.name);
    let sql = format!("BEGIN IMMEDIATE; {OWN_TABLES} COMMIT");
    database.connection.execute_batch(&sql).map_err(failed())?;
    let meta = "SELECT value FROM _penholder_meta WHERE key = ?1";
    let insert = "INSERT INTO _penholder_meta(key, value) VALUES (?1, ?2)";
    let found: Option<String> = database.read("identify", meta, ["store_id"], |row| row.get(0))?;
    match found {
        None => {
            database.run("identify", "BEGIN IMMEDIATE", [])?;
            database.run("identify", insert, ("format", FORMAT))?;
            database.run("identify", insert, ("database", &database.name))?;
            database.run("identify", insert, ("floor", 0))?;
            database.run("identify", insert, ("store_id", store.to_string()))?;
            database.run("identify", "COMMIT", [])
        }
        Some(id) if id == store.to_string() => {
            let named = database.read("identify", meta, ["database"], |row| row.get(0))?;
            restored::refuse_misplaced(&database.name, named)?;
            let format: Option<i64> = database.read("identify", meta, ["format"], |row| row.get(0))?;
            if format == Some(FORMAT) {
                return Ok(());
            }
            Err(Error::refused(
                format!("{}.db has format {format:?}, this program knows {FORMAT}", database.name),
                "use the Penholder that wrote it, or a newer one",
            ))
        }
        Some(id) => Err(Error::refused(
            format!("{}.db belongs to the store {id}, not to {store}", database.name),
            "put the database of this store back; if all are of that one, move the control file away and start with \
             --accept-rollback",
        )),
    }
}

/// Refuses a database that is older than the others, or the reclaimed segments, remember.
fn refuse_older(databases: &[Database<'_>], control: &Control, config: &Config) -> Result<(), Error> {
    let clock = Clock::load(databases)?;
    let sql = "SELECT tick, previous FROM _penholder_clock WHERE database = ?1";
    for (index, database) in databases.iter().enumerate() {
        let own = clock.of(index);
        let mut known = control.databases.get(index).map_or(Tick(0), |slot| slot.reclaimed);
        for (other, witness) in databases.iter().enumerate() {
            let row = |row: &rusqlite::Row<'_>| Ok((Tick(row.get(0)?), Tick(row.get(1)?)));
            let Some((tick, previous)) = witness.read("read the clock of", sql, [&database.name], row)?
            else {
                continue;
            };
            // A crash between the commits of the witness's last batch leaves us one behind, and no more.
            let may_be_behind = other != index && tick == clock.of(other);
            known = known.max(if may_be_behind { previous } else { tick });
        }
        if own >= known {
            continue;
        }
        let what = format!(
            "{}.db is at tick {own} and was at {known}: it was replaced by an older copy, and commands since then \
             are gone",
            database.name
        );
        if !config.accept_rollback {
            let hint = "put the newer file back, or start with --accept-rollback to go on without them";
            return Err(Error::refused(what, hint));
        }
        log::warn!("{what}; accepted, as asked");
    }
    Ok(())
}

fn migrate_all(databases: &[Database<'_>], config: &Config, tick: Tick) -> Result<(), Error> {
    config.check_schema()?;
    let meta = "SELECT value FROM _penholder_meta WHERE key = 'schema'";
    let mut plans = Vec::new();
    for database in databases {
        let made_with: Option<String> = database.read("identify", meta, [], |row| row.get(0))?;
        let schema = match (&config.schema, made_with.as_deref()) {
            (Some(directory), _) => Schema::Directory(directory.clone()),
            (None, None | Some("builtin")) => Schema::Builtin,
            (None, Some(_)) => Schema::None,
        };
        // A mistake in one database's migrations is found before another database is changed.
        migrate::pending(database.connection, &database.name, &schema)?;
        plans.push((database, schema, made_with));
    }
    for (database, schema, made_with) in plans {
        migrate::apply(database.connection, &database.name, &schema, tick)?;
        let word = match schema {
            Schema::Builtin => "builtin",
            Schema::Directory(_) | Schema::None => "custom",
        };
        if made_with.as_deref() != Some(word) {
            note_schema(database, word)?;
        }
    }
    Ok(())
}

/// Remembers where the schema of a database comes from.
fn note_schema(database: &Database<'_>, word: &str) -> Result<(), Error> {
    let insert = "INSERT INTO _penholder_meta(key, value) VALUES ('schema', ?1) \
                  ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    database.run("identify", insert, [word])
}

/// The floor that every database has settled: below it, an unknown stream is not to be trusted.
fn floor(databases: &[Database<'_>]) -> Result<Epoch, Error> {
    let meta = "SELECT value FROM _penholder_meta WHERE key = 'floor'";
    let mut lowest = u64::MAX;
    for database in databases {
        let floor: Option<u64> = database.read("read the floor of", meta, [], |row| row.get(0))?;
        lowest = lowest.min(floor.unwrap_or_default());
    }
    Ok(Epoch(lowest))
}

/// The streams in the spool, as their segments state them; what cannot be read is the intake's business.
///
/// One that cannot be read yet counts as of the last epoch (`floor`): it may be a good one under a lease, and only its
/// owner can hold one.
fn scan(layout: &Layout, store: StoreId, floor: Epoch) -> Result<HashMap<StreamId, InSpool>, Error> {
    let spool = layout.spool();
    let failed = || Error::io("list", &spool);
    let device = std::fs::metadata(&spool).map_err(failed())?.dev();
    let mut found: HashMap<StreamId, InSpool> = HashMap::new();
    for item in std::fs::read_dir(&spool).map_err(failed())? {
        let file_name = item.map_err(failed())?.file_name();
        let Some(name) = file_name.to_str().and_then(SegmentName::parse) else { continue };
        let Some(uid) = arrivals::owner(layout, name).map_err(failed())? else { continue };
        let is_known = found.get(&name.stream).is_some_and(|known| {
            if known.uid == uid {
                known.number < name.number
            } else {
                // Files of one tick of the kernel's clock are equally old.
                (known.born, known.number) <= (arrivals::birth(layout, name), name.number)
            }
        });
        if is_known {
            continue;
        }
        let in_spool =
            |epoch| InSpool { number: name.number, epoch, uid, born: arrivals::birth(layout, name) };
        match Segment::open(layout, name, store, device) {
            Ok(segment) => drop(found.insert(name.stream, in_spool(segment.header.epoch))),
            // It may be a good one, and would be taken for a restored old file if it were not registered.
            Err(Trouble::Environment(error)) => return Err(error),
            Err(Trouble::NotYet) => drop(found.insert(name.stream, in_spool(floor))),
            Err(Trouble::Nothing | Trouble::Corrupt(_)) => {}
        }
    }
    add_quarantined(layout, store, &mut found)?;
    Ok(found)
}

/// Adds the streams that have a file in quarantine: an operator may put it back, and the watermark has to be there then.
fn add_quarantined(
    layout: &Layout,
    store: StoreId,
    found: &mut HashMap<StreamId, InSpool>,
) -> Result<(), Error> {
    let directory = layout.quarantine();
    let failed = || Error::io("list", &directory);
    let device = std::fs::metadata(&directory).map_err(failed())?.dev();
    for item in std::fs::read_dir(&directory).map_err(failed())?.take(QUARANTINED_COUNT_MAX) {
        let item = item.map_err(failed())?;
        let Some(name) = item.file_name().to_str().and_then(quarantine::segment_of) else { continue };
        let Ok(SpoolFile { file, uid, .. }) = SpoolFile::open(&item.path(), device) else { continue };
        let mut bytes = [0; SegmentHeader::BYTES];
        let read = file.read_exact_at(&mut bytes, 0).ok();
        let header = read.and_then(|()| SegmentHeader::decode(&bytes).ok());
        if let Some(header) = header.filter(|header| (header.store, header.stream) == (store, name.stream)) {
            let (number, epoch) = (header.number, header.epoch);
            found.entry(name.stream).or_insert(InSpool { number, epoch, uid, born: Duration::MAX });
        }
    }
    Ok(())
}

/// Registers the streams of the last run, drops the rows of streams that are over, and settles the floor: one
/// transaction, so that no crash leaves a stream both unknown and below the floor.
fn settle_streams(
    database: &Database<'_>,
    in_spool: &HashMap<StreamId, InSpool>,
    old_floor: Epoch,
    floor: Epoch,
) -> Result<(), Error> {
    let of_last_run = |epoch| old_floor < epoch && epoch <= floor;
    for (stream, InSpool { epoch, uid, .. }) in in_spool.iter().filter(|(_, s)| of_last_run(s.epoch)) {
        watermark::begin(database, *stream, *epoch, Sequence(0), *uid)?;
    }
    let read = || {
        let mut statement =
            database.connection.prepare("SELECT stream FROM _penholder_stream WHERE epoch <= ?1")?;
        let rows = statement.query_map([floor.0], |row| row.get(0).map(StreamId))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = read().map_err(Error::sqlite("read the streams of", &database.name))?;
    for stream in rows.iter().filter(|stream| !in_spool.contains_key(stream)) {
        database.run("drop a stream from", "DELETE FROM _penholder_progress WHERE owner = ?1", [stream.0])?;
    }
    database.run(
        "settle the floor of",
        "UPDATE _penholder_meta SET value = ?1 WHERE key = 'floor'",
        [floor.0],
    )
}

/// Keeps the newest idempotency keys.
fn drop_old_keys(database: &Database<'_>, config: &Config) -> Result<(), Error> {
    let sql = "DELETE FROM _penholder_key WHERE tick < \
               (SELECT tick FROM _penholder_key ORDER BY tick DESC LIMIT 1 OFFSET ?1)";
    database.run("drop old keys from", sql, [config.keys_count_max])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests;

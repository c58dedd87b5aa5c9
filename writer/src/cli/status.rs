//! `penholder status`: what the control file, the databases and the spool say, with and without a writer.
//!
//! Nothing is locked but for the probe of the writer's sign of life. The spool is read before the databases, so that
//! what was applied meanwhile does not count as pending: a command is pending until every database that it touches
//! has a watermark at or behind it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penholder_client::read::{ReadError, Reader};
use penholder_protocol::{Control, Layout, StreamId, WriterState};
use serde::Serialize;

use super::args::StatusArgs;
use super::exit::{Exit, Failure};
use super::output::{BAD, GOOD, ODD, Output, STRONG};
use super::spool::{self, Segment, Watermarks};
use super::{quarantined, render};

/// Users that people are shown: those with most in the spool.
const USERS_SHOWN: usize = 5;

/// What is printed; `schema` grows when a field changes its meaning.
#[derive(Serialize)]
struct Status {
    schema: u32,
    store_id: String,
    writer: Writer,
    databases: Vec<Database>,
    spool: Spool,
    totals: Totals,
}

#[derive(Serialize)]
struct Writer {
    running: bool,
    /// `None` while none runs.
    pid: Option<u32>,
    /// Of this run, or of the last one.
    epoch: u64,
    state: &'static str,
}

#[derive(Serialize)]
struct Database {
    name: String,
    tick: u64,
    wal_bytes: u64,
    page_count: u64,
}

#[derive(Default, Serialize)]
struct Spool {
    streams: u64,
    segments: u64,
    pending_bytes: u64,
    oldest_pending_seconds: f64,
    /// Files of the spool that are in quarantine now; `None`: this user may not look there.
    in_quarantine: Option<u64>,
    /// Who has most there first.
    users: Vec<User>,
}

/// What one user has in the spool.
#[derive(Default, Serialize)]
struct User {
    uid: u32,
    streams: u64,
    segments: u64,
    pending_bytes: u64,
}

#[derive(Serialize)]
struct Totals {
    applied: u64,
    rejected: u64,
    torn: u64,
    quarantined: u64,
    foreign_writes: u64,
}

/// Prints the state of a store.
pub(super) fn run(args: &StatusArgs, output: &mut Output) -> Result<Exit, Failure> {
    let status = survey(&args.store)?;
    if args.json {
        output.json(&status)?;
    } else {
        print(&status, output)?;
    }
    Ok(Exit::Ok)
}

/// Reads the control file of a store.
pub(super) fn control(layout: &Layout) -> Result<Control, Failure> {
    Control::read(&layout.control()).map_err(|source| unreadable(layout, source))
}

fn unreadable(layout: &Layout, source: io::Error) -> Failure {
    let (root, path) = (layout.root().to_owned(), layout.control());
    let no_store = source.kind() == io::ErrorKind::NotFound;
    if no_store { ReadError::NoStore { path: root } } else { ReadError::Control { path, source } }.into()
}

fn survey(store: &Path) -> Result<Status, Failure> {
    let layout = Layout::new(store);
    let running = penholder_client::writer_running(store).map_err(|error| unreadable(&layout, error))?;
    let control = control(&layout)?;
    let segments = spool::segments(&layout, &control)?;
    let mut reader = Reader::open(store)?;
    let (mut databases, mut watermarks, mut applied, mut rejected) =
        (Vec::new(), Watermarks::default(), 0, 0);
    for slot in &control.databases {
        let snapshot = reader.single(&slot.name)?;
        let connection = snapshot.database(&slot.name)?;
        let failed = || Failure::on(format!("cannot read {}.db", slot.name));
        let page_count =
            connection.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(failed())?;
        let sql = "SELECT applied, rejected FROM _penholder_clock WHERE database = ?1";
        let counts: Result<(u64, u64), _> =
            connection.query_row(sql, [&slot.name], |row| Ok((row.get(0)?, row.get(1)?)));
        let counts = counts.or_else(none_yet).map_err(failed())?;
        watermarks.load(connection).map_err(failed())?;
        (applied, rejected) = (applied + counts.0, rejected + counts.1);
        let tick = snapshot.tick(&slot.name)?.0;
        databases.push(Database {
            name: slot.name.clone(),
            tick,
            wal_bytes: wal_bytes(&layout, &slot.name),
            page_count,
        });
    }
    let state = if running { control.state } else { WriterState::Stopped };
    Ok(Status {
        schema: 1,
        store_id: control.store.to_string(),
        writer: Writer {
            running,
            pid: running.then_some(control.pid),
            epoch: control.epoch.0,
            state: state.as_str(),
        },
        databases,
        spool: pending(&layout, &segments, &watermarks),
        totals: Totals {
            applied,
            rejected,
            torn: control.torn,
            quarantined: control.quarantined,
            foreign_writes: control.foreign_writes,
        },
    })
}

fn none_yet(error: rusqlite::Error) -> rusqlite::Result<(u64, u64)> {
    if matches!(error, rusqlite::Error::QueryReturnedNoRows) { Ok((0, 0)) } else { Err(error) }
}

/// By `stat` alone: only SQLite may open that file.
fn wal_bytes(layout: &Layout, name: &str) -> u64 {
    std::fs::metadata(layout.root().join(format!("{name}.db-wal"))).map_or(0, |metadata| metadata.len())
}

fn pending(layout: &Layout, segments: &[Segment], watermarks: &Watermarks) -> Spool {
    let mut spool = Spool::default();
    let mut streams = BTreeSet::new();
    let mut users: BTreeMap<u32, (User, BTreeSet<StreamId>)> = BTreeMap::new();
    let mut oldest_ns = None;
    for segment in segments {
        let is_pending = |frame: &&spool::Frame| {
            frame
                .commands()
                .any(|(sequence, touches)| !watermarks.is_done(segment.name.stream, sequence, touches))
        };
        let frames: Vec<_> = segment.frames.iter().filter(is_pending).collect();
        // Reclaimed between the two looks, and its watermark forgotten with it.
        if !frames.is_empty() && !layout.segment(segment.name).exists() {
            continue;
        }
        streams.insert(segment.name.stream);
        spool.segments += 1;
        let pending_bytes = frames.iter().map(|frame| frame.bytes).sum::<u64>();
        spool.pending_bytes += pending_bytes;
        if let Some(uid) = segment.uid {
            let (user, streams) = users.entry(uid).or_default();
            streams.insert(segment.name.stream);
            user.segments += 1;
            user.pending_bytes += pending_bytes;
        }
        oldest_ns = frames.iter().map(|frame| frame.submitted_ns).chain(oldest_ns).min();
    }
    spool.streams = streams.len() as u64;
    spool.in_quarantine = quarantined::list(layout).ok().map(|files| files.len() as u64);
    let user = |(uid, (user, streams)): (u32, (User, BTreeSet<_>))| User {
        uid,
        streams: streams.len() as u64,
        ..user
    };
    spool.users = users.into_iter().map(user).collect();
    spool.users.sort_by_key(|user| Reverse((user.pending_bytes, user.segments)));
    if let Some(oldest) = oldest_ns {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        spool.oldest_pending_seconds = now.saturating_sub(Duration::from_nanos(oldest)).as_secs_f64();
    }
    spool
}

fn print(status: &Status, output: &mut Output) -> Result<(), Failure> {
    let Status { writer, spool, totals, .. } = status;
    let style = match writer.state {
        "running" => GOOD,
        "stalled" => BAD,
        _ => ODD,
    };
    let state = output.paint(style, if writer.running { writer.state } else { "not running" });
    let run = match writer.pid {
        Some(pid) => format!("pid {pid}, epoch {}", writer.epoch),
        None => format!("last epoch {}", writer.epoch),
    };
    let label = |word: &str| output.paint(STRONG, format!("{word:<8}"));
    let lines = [
        format!("{} {}", label("store"), status.store_id),
        format!("{} {state}, {run}", label("writer")),
        format!(
            "{} {} in {}, {} pending{}",
            label("spool"),
            render::count(spool.segments, "segment"),
            render::count(spool.streams, "stream"),
            render::bytes(spool.pending_bytes),
            if spool.pending_bytes > 0 {
                format!(", the oldest for {:.1} s", spool.oldest_pending_seconds)
            } else {
                String::new()
            },
        ),
        format!(
            "{} {} applied, {} rejected, {} torn, {} quarantined{}, {} by others",
            label("totals"),
            totals.applied,
            totals.rejected,
            totals.torn,
            totals.quarantined,
            spool.in_quarantine.map_or(String::new(), |now| format!(" ({now} there now)")),
            render::count(totals.foreign_writes, "write"),
        ),
    ];
    lines.into_iter().try_for_each(|line| output.line(line))?;
    print_users(&spool.users, output)?;
    let row = |database: &Database| {
        let numbers = [database.tick, database.page_count].map(|number| number.to_string());
        let [tick, pages] = numbers;
        vec![database.name.clone(), tick, pages, render::bytes(database.wal_bytes)]
    };
    let rows = status.databases.iter().map(row).collect();
    let table = render::words(output, &["database", "tick", "pages", "wal"], rows);
    output.line(table)
}

/// Who has what in the spool, if there is more than one.
fn print_users(users: &[User], output: &mut Output) -> Result<(), Failure> {
    for user in users.iter().take(USERS_SHOWN).filter(|_| users.len() > 1) {
        let label = output.paint(STRONG, format!("{:<8}", format!("uid {}", user.uid)));
        let (segments, streams) =
            (render::count(user.segments, "segment"), render::count(user.streams, "stream"));
        let pending = render::bytes(user.pending_bytes);
        output.line(format!("{label} {segments} in {streams}, {pending} pending"))?;
    }
    Ok(())
}

//! What the writer costs: memory with a long backlog, and wakeups while there is nothing to do.

use std::path::Path;
use std::time::{Duration, Instant};

use penholder_client::Client;
use rusqlite::{Connection, OpenFlags};

use crate::client::submit_rows;
use crate::measure_of;
use crate::process::{Fleet, Role};
use crate::report::{Goal, Measure};
use crate::workload::{DATABASE, verify};
use crate::writer::Writer;

/// Commands per stream of the backlog: below the quota of unapplied bytes.
const STREAM_COMMANDS: u64 = 50_000;

/// Lets a backlog pile up while no writer runs, then starts one, and looks at its memory once all is applied.
pub(crate) fn backlog(scratch: &Path, commands: u64) -> Vec<Measure> {
    let place = tempfile::Builder::new().prefix("backlog-").tempdir_in(scratch).unwrap();
    Writer::start(place.path()).stop();
    let mut counts = Vec::new();
    while counts.iter().sum::<u64>() < commands {
        let count = STREAM_COMMANDS.min(commands - counts.iter().sum::<u64>());
        let mut client = Client::connect(place.path()).unwrap();
        counts.push(count);
        submit_rows(&mut client, counts.len() as u64, 1, count);
    }
    let begun = Instant::now();
    let writer = Writer::start(place.path());
    let counter = Connection::open_with_flags(
        place.path().join(format!("{DATABASE}.db")),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .unwrap();
    let rows =
        || counter.query_row("SELECT max(id) FROM event", [], |row| row.get::<_, Option<u64>>(0)).unwrap();
    while rows().unwrap_or(0) < commands {
        assert!(begun.elapsed() < Duration::from_mins(10), "the backlog is not applied after ten minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let drained = begun.elapsed().as_secs_f64();
    let peak_mib = writer.peak_memory_kib() as f64 / 1024.0;
    drop(counter);
    writer.stop();
    verify(place.path(), &counts);
    vec![
        measure_of(
            format!("writer's peak memory, backlog of {commands} commands"),
            peak_mib,
            "MiB",
            Goal::AtMost(64.0),
        ),
        measure_of("    time until it is applied, from the writer's start", drained, "s", Goal::None),
        measure_of("    commands applied", commands as f64 / drained, "per second", Goal::None),
    ]
}

/// Counts how often the writer wakes up while eight clients are connected and silent.
pub(crate) fn idle(scratch: &Path, span: Duration) -> Measure {
    let place = tempfile::Builder::new().prefix("idle-").tempdir_in(scratch).unwrap();
    let writer = Writer::start(place.path());
    let fleet = Fleet::start((1..=8).map(|client| Role::idle(place.path(), client)));
    // What the last commits left to do (checkpoint, reclaim) is not idling.
    std::thread::sleep(Duration::from_secs(2));
    let (before, begun) = (writer.voluntary_switches(), Instant::now());
    std::thread::sleep(span);
    let woken = writer.voluntary_switches() - before;
    let rate = woken as f64 / begun.elapsed().as_secs_f64();
    let progress = fleet.run();
    writer.stop();
    verify(place.path(), &progress.counts);
    measure_of("idle writer with 8 connected clients, wakeups", rate, "per second", Goal::AtMost(2.0))
}

//! What should cost a command nothing: idle streams beside it, and rows that are there already.

use std::path::Path;
use std::time::Duration;

use crate::bed::Bed;
use crate::direct;
use crate::effort::Effort;
use crate::peer::Peer;
use crate::process::{Fleet, Job, Role};
use crate::results::{Results, Round, Subject};
use crate::spool::Spool;
use crate::workload::verify;

/// The amounts, as parts of the largest one; and none at all.
const PARTS: [u64; 3] = [100, 10, 1];
/// What the last commits left to do (checkpoint, reclaim) is over after this.
const SETTLE: Duration = Duration::from_secs(2);
/// Rows of one bulk measurement, as a part of those of the whole comparison.
const BULK_PART: u64 = 4;

/// The same work beside more and more clients that are connected and silent: a store for each number, in turns.
pub(crate) fn idle(effort: &Effort, scratch: &Path, results: &mut Results) {
    let amounts = with_none(effort.idle_streams);
    let mut beds: Vec<(u64, Bed, Option<Fleet>)> = amounts
        .iter()
        .map(|&streams| {
            let mut bed = Bed::warm(scratch);
            let crowd = (streams > 0).then(|| bed.crowd(streams));
            (streams, bed, crowd)
        })
        .collect();
    std::thread::sleep(SETTLE.min(Duration::from_secs_f64(effort.seconds)));
    for round in 1..=effort.rounds {
        eprintln!("round {round}/{}: beside up to {} idle streams", effort.rounds, effort.idle_streams);
        for (streams, bed, _) in &mut beds {
            work(effort, bed, results, (Subject::IdleApplied, Subject::IdleBulk), *streams);
        }
        // Another one goes first in every round.
        beds.rotate_left(1);
    }
    for (_, bed, crowd) in beds {
        if let Some(crowd) = crowd {
            crowd.run();
        }
        bed.finish();
    }
}

/// The same work in a larger and larger table, and what a larger one costs a plain connection.
pub(crate) fn rows(effort: &Effort, scratch: &Path, results: &mut Results) {
    eprintln!("filling tables of up to {} rows", effort.rows);
    let fresh = || (Bed::warm(scratch), Plain::new(scratch));
    let filled = |rows: u64| {
        let (mut bed, mut plain) = fresh();
        bed.bulk(rows);
        plain.bulk(rows);
        (bed, plain)
    };
    // A table of no rows is soon one of many: it is made anew in every round.
    let sizes = with_none(effort.rows).into_iter();
    let mut kept: Vec<_> = sizes.map(|rows| (rows, (rows > 0).then(|| filled(rows)))).collect();
    for round in 1..=effort.rounds {
        eprintln!("round {round}/{}: in up to {} rows", effort.rounds, effort.rows);
        for (rows, tables) in &mut kept {
            let (mut bed, mut plain) = tables.take().unwrap_or_else(fresh);
            work(effort, &mut bed, results, (Subject::RowsApplied, Subject::RowsBulk), *rows);
            let by_one = plain.bulk(effort.bulk_commands / BULK_PART);
            results.record(Subject::RowsBulk, Peer::Connection, *rows, by_one);
            if *rows > 0 {
                *tables = Some((bed, plain));
            } else {
                bed.finish();
                plain.finish();
            }
        }
        // Another one goes first in every round.
        kept.rotate_left(1);
    }
    for (bed, plain) in kept.into_iter().filter_map(|(_, tables)| tables) {
        bed.finish();
        plain.finish();
    }
}

/// Starts writers on a spool of many streams.
pub(crate) fn start(effort: &Effort, scratch: &Path, results: &mut Results) {
    let streams = effort.start_streams;
    for round in 1..=effort.rounds {
        eprintln!("round {round}/{}: start with {streams} streams in the spool", effort.rounds);
        let one_each = vec![1; streams as usize];
        let spool = Spool::fill(scratch, &one_each, |client, number, count| {
            crate::client::submit_rows(client, number, count);
        });
        let drained = spool.drain();
        results.number(Subject::StartFirst, Peer::Penholder, streams, drained.first.as_secs_f64());
        results.number(Subject::StartLast, Peer::Penholder, streams, drained.last.as_secs_f64());
        results.number(Subject::MemoryStreams, Peer::Penholder, streams, drained.peak_mib);
    }
}

/// Wakeups of a writer whose eight clients are connected and silent.
pub(crate) fn wakeups(effort: &Effort, scratch: &Path, results: &mut Results) {
    const CLIENTS: u64 = 8;
    eprintln!("idle, {} s", effort.wakeups.as_secs());
    let mut bed = Bed::new(scratch);
    let crowd = bed.crowd(CLIENTS);
    std::thread::sleep(SETTLE);
    let before = bed.writer().voluntary_switches();
    std::thread::sleep(effort.wakeups);
    let woken = bed.writer().voluntary_switches() - before;
    let rate = woken as f64 / effort.wakeups.as_secs_f64();
    crowd.run();
    bed.finish();
    results.number(Subject::Wakeups, Peer::Penholder, CLIENTS, rate);
}

fn with_none(most: u64) -> Vec<u64> {
    let mut amounts = vec![0];
    amounts.extend(PARTS.map(|part| most / part).into_iter().filter(|amount| *amount > 0));
    amounts
}

fn work(effort: &Effort, bed: &mut Bed, results: &mut Results, subjects: (Subject, Subject), at: u64) {
    let (applied, bulk) = subjects;
    results.record(applied, Peer::Penholder, at, Round::of(&bed.applied(effort.seconds)));
    let round = Round::of(&bed.bulk(effort.bulk_commands / BULK_PART));
    results.record(bulk, Peer::Penholder, at, round);
}

/// A table of plain SQLite, which one connection writes to.
struct Plain {
    place: tempfile::TempDir,
    counts: Vec<u64>,
}

impl Plain {
    fn new(scratch: &Path) -> Self {
        let place = tempfile::Builder::new().prefix("plain-").tempdir_in(scratch).unwrap();
        direct::create(place.path());
        Self { place, counts: Vec::new() }
    }

    fn bulk(&mut self, rows: u64) -> Round {
        let role = Role::counted(Job::Connection, self.place.path(), self.counts.len() + 1, rows);
        let progress = Fleet::start(std::iter::once(role)).run();
        self.counts.extend(&progress.counts);
        Round::of(&progress)
    }

    fn finish(self) {
        verify(self.place.path(), &self.counts);
    }
}

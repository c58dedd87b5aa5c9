//! What a program costs that spins for a database's write lock without a busy timeout.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use crate::direct;
use crate::measure_of;
use crate::process::{Fleet, Role, report, wait_for_start};
use crate::report::{Goal, Measure, median};
use crate::workload::{DATABASE, INSERT, histogram, row, verify};
use crate::writer::Writer;

/// Clients that write meanwhile, one command at a time.
const CLIENTS: usize = 8;

/// Where the program spins: on a processor of its own, which the others do without in every case, so that the lock is
/// all that it can cost them.
#[derive(Clone, Copy, Debug)]
enum Spinner {
    Nowhere,
    /// For the lock of another database, which this process holds.
    Elsewhere,
    /// For the lock that the writer holds.
    Here,
}

/// Compares the rate of the same clients without the program, beside it, and beside it on another database: round by
/// round, each time in another order, on one store.
pub(crate) fn measure(scratch: &Path, rounds: usize, seconds: f64) -> Vec<Measure> {
    let all = sched_getaffinity(None).unwrap();
    let (others, _) = split(&all);
    sched_setaffinity(None, &others).unwrap();
    let mut bed = Bed::new(scratch);
    // Once, so that the write-ahead log has the length that it keeps: while it grows, every commit is slower.
    bed.rate(Spinner::Here, seconds);
    let mut order = [Spinner::Nowhere, Spinner::Elsewhere, Spinner::Here];
    let (mut by_quiet, mut by_elsewhere) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // All six orders in turn: what one measurement leaves to be tidied up falls on each of the others.
        order.swap(0, 1 + round % 2);
        let mut rates = [0.0; 3];
        for spinner in order {
            eprintln!("round {}/{rounds}: {CLIENTS} clients, a spinning program: {spinner:?}", round + 1);
            rates[spinner as usize] = bed.rate(spinner, seconds);
        }
        by_quiet.push(rates[Spinner::Here as usize] / rates[Spinner::Nowhere as usize]);
        by_elsewhere.push(rates[Spinner::Here as usize] / rates[Spinner::Elsewhere as usize]);
    }
    bed.finish();
    sched_setaffinity(None, &all).unwrap();
    let row = |name: &str, ratios: &[f64], goal| measure_of(name, median(ratios), "of the rate", goal);
    vec![
        row(
            "8 clients beside a program that spins for the lock,\nby the same without it",
            &by_quiet,
            Goal::AtLeast(0.95),
        ),
        row("    by the same beside one that spins elsewhere", &by_elsewhere, Goal::None),
    ]
}

/// The processors of the clients and the writer, and the one of the program that spins.
fn split(all: &CpuSet) -> (CpuSet, CpuSet) {
    let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| all.is_set(cpu)).unwrap();
    let (mut others, mut own) = (*all, CpuSet::new());
    if all.count() > 1 {
        others.unset(last);
    }
    own.set(last);
    (others, own)
}

/// One store with its writer, and another database whose lock this process holds.
struct Bed {
    store: TempDir,
    elsewhere: TempDir,
    held: Connection,
    writer: Writer,
    /// What each client was promised, in the order of their numbers from 1.
    counts: Vec<u64>,
}

impl Bed {
    fn new(scratch: &Path) -> Self {
        let directory = |name| tempfile::Builder::new().prefix(name).tempdir_in(scratch).unwrap();
        let (store, elsewhere) = (directory("fence-"), directory("elsewhere-"));
        direct::create(elsewhere.path());
        let held = Connection::open(elsewhere.path().join(format!("{DATABASE}.db"))).unwrap();
        held.execute_batch("BEGIN IMMEDIATE").unwrap();
        let writer = Writer::start(store.path());
        Self { store, elsewhere, held, writer, counts: Vec::new() }
    }

    fn rate(&mut self, spinner: Spinner, seconds: f64) -> f64 {
        let first = self.counts.len() + 1;
        let clients =
            (first..first + CLIENTS).map(|client| Role::applied(self.store.path(), client, seconds));
        let spinning = match spinner {
            Spinner::Nowhere => None,
            Spinner::Elsewhere => Some(Role::spin(self.elsewhere.path(), first + CLIENTS, seconds)),
            Spinner::Here => Some(Role::spin(self.store.path(), first + CLIENTS, seconds)),
        };
        let progress = Fleet::start(clients.chain(spinning)).run();
        // The spinning program counts as a client that was promised nothing.
        self.counts.extend(&progress.counts);
        progress.rate()
    }

    fn finish(self) {
        self.writer.stop();
        verify(self.store.path(), &self.counts);
        drop(self.held);
    }
}

/// Runs as the program that spins.
pub(crate) fn spin(role: &Role) {
    // What was inherited is the processors of the others; those that do not exist are left out by the system.
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    sched_setaffinity(None, &all).unwrap();
    let (_, own) = split(&sched_getaffinity(None).unwrap());
    sched_setaffinity(None, &own).unwrap();
    let database = Connection::open(role.place.join(format!("{DATABASE}.db"))).unwrap();
    database.busy_timeout(Duration::ZERO).unwrap();
    let mut statement = database.prepare(INSERT).unwrap();
    let start = wait_for_start();
    let (mut tries, mut writes) = (0_u64, 0);
    while start.elapsed().as_secs_f64() < role.seconds {
        tries += 1;
        match statement.execute(row(role.client, writes + 1)) {
            Ok(_) => writes += 1,
            Err(error) => assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy), "{error}"),
        }
    }
    eprintln!("    {tries} tries, {writes} writes");
    assert!(tries > 0 && writes == 0, "{writes} of {tries} writes got in");
    report(role.client, writes, &histogram());
}

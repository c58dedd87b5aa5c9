//! What a program costs that spins for a database's write lock without a busy timeout.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use crate::bed::{Bed, CLIENTS};
use crate::direct;
use crate::effort::Effort;
use crate::peer::Peer;
use crate::process::{Job, Role, report, wait_for_start};
use crate::results::{Results, Subject};
use crate::workload::{DATABASE, INSERT, histogram, row};

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
pub(crate) fn measure(effort: &Effort, scratch: &Path, results: &mut Results) {
    let (rounds, seconds) = (effort.rounds, effort.seconds);
    let all = sched_getaffinity(None).unwrap();
    let (others, _) = split(&all);
    sched_setaffinity(None, &others).unwrap();
    let mut beside = Beside::new(scratch);
    let mut order = [Spinner::Nowhere, Spinner::Elsewhere, Spinner::Here];
    for round in 0..rounds {
        // All six orders in turn: what one measurement leaves to be tidied up falls on each of the others.
        order.swap(0, 1 + round % 2);
        let mut rates = [0.0; 3];
        for spinner in order {
            eprintln!("round {}/{rounds}: {CLIENTS} clients, a spinning program: {spinner:?}", round + 1);
            rates[spinner as usize] = beside.rate(spinner, seconds);
        }
        let by = |other: Spinner| rates[Spinner::Here as usize] / rates[other as usize];
        results.number(Subject::FenceQuiet, Peer::Penholder, 0, by(Spinner::Nowhere));
        results.number(Subject::FenceElsewhere, Peer::Penholder, 0, by(Spinner::Elsewhere));
    }
    beside.finish();
    sched_setaffinity(None, &all).unwrap();
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

/// A store with its writer, and another database whose lock this process holds.
struct Beside {
    bed: Bed,
    elsewhere: TempDir,
    held: Connection,
}

impl Beside {
    fn new(scratch: &Path) -> Self {
        let elsewhere = tempfile::Builder::new().prefix("elsewhere-").tempdir_in(scratch).unwrap();
        direct::create(elsewhere.path());
        let held = Connection::open(elsewhere.path().join(format!("{DATABASE}.db"))).unwrap();
        held.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self { bed: Bed::warm(scratch), elsewhere, held }
    }

    fn rate(&mut self, spinner: Spinner, seconds: f64) -> f64 {
        let (first, store) = (self.bed.next(), self.bed.place().to_owned());
        let clients =
            (first..first + CLIENTS).map(|client| Role::timed(Job::Applied, &store, client, seconds));
        let spin = |place| Some(Role::timed(Job::Spin, place, first + CLIENTS, seconds));
        // The spinning program counts as a client that was promised nothing.
        let spinning = match spinner {
            Spinner::Nowhere => None,
            Spinner::Elsewhere => spin(self.elsewhere.path()),
            Spinner::Here => spin(&store),
        };
        self.bed.run(clients.chain(spinning)).rate()
    }

    fn finish(self) {
        self.bed.finish();
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

//! What a program costs that spins for a database's write lock without a busy timeout.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::direct;
use crate::measure_of;
use crate::process::{Fleet, Role, report, wait_for_start};
use crate::report::{Goal, Measure};
use crate::workload::{DATABASE, INSERT, histogram, row, verify};
use crate::writer::Writer;

/// Clients that write meanwhile, one command at a time.
const CLIENTS: usize = 8;

/// Where the program spins. On a machine with few cores it costs the others processor time wherever it does.
#[derive(Clone, Copy, Debug)]
enum Spinner {
    Nowhere,
    /// For the lock of another database, which this process holds.
    Elsewhere,
    /// For the lock that the writer holds.
    Here,
}

/// Compares the rate of the same clients without the program, beside it, and beside it on another database: round by
/// round, each time in another order.
pub(crate) fn measure(scratch: &Path, rounds: usize, seconds: f64) -> Vec<Measure> {
    let mut order = [Spinner::Nowhere, Spinner::Elsewhere, Spinner::Here];
    let (mut by_quiet, mut by_elsewhere) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        order.rotate_left(1);
        let mut rates = [0.0; 3];
        for spinner in order {
            eprintln!("round {}/{rounds}: {CLIENTS} clients, a spinning program: {spinner:?}", round + 1);
            rates[spinner as usize] = rate(scratch, spinner, seconds);
        }
        by_quiet.push(rates[Spinner::Here as usize] / rates[Spinner::Nowhere as usize]);
        by_elsewhere.push(rates[Spinner::Here as usize] / rates[Spinner::Elsewhere as usize]);
    }
    let row = |name: &str, mut ratios: Vec<f64>, goal| {
        ratios.sort_by(f64::total_cmp);
        measure_of(name, ratios[ratios.len() / 2], "of the rate", goal)
    };
    vec![
        row(
            "8 clients beside a program that spins for the lock,\nby the same beside one that spins elsewhere",
            by_elsewhere,
            Goal::AtLeast(0.95),
        ),
        row("    by the same alone: a core less, where there are few", by_quiet, Goal::None),
    ]
}

fn rate(scratch: &Path, spinner: Spinner, seconds: f64) -> f64 {
    let store = tempfile::Builder::new().prefix("fence-").tempdir_in(scratch).unwrap();
    let elsewhere = tempfile::Builder::new().prefix("elsewhere-").tempdir_in(scratch).unwrap();
    direct::create(elsewhere.path());
    let held = Connection::open(elsewhere.path().join(format!("{DATABASE}.db"))).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writer = Writer::start(store.path());
    let clients = (1..=CLIENTS).map(|client| Role::applied(store.path(), client, seconds));
    let spinning = match spinner {
        Spinner::Nowhere => None,
        Spinner::Elsewhere => Some(Role::spin(elsewhere.path(), CLIENTS + 1, seconds)),
        Spinner::Here => Some(Role::spin(store.path(), CLIENTS + 1, seconds)),
    };
    let progress = Fleet::start(clients.chain(spinning)).run();
    writer.stop();
    // The spinning program counts as a client that was promised nothing.
    verify(store.path(), &progress.counts);
    progress.rate()
}

/// Runs as the program that spins.
pub(crate) fn spin(role: &Role) {
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

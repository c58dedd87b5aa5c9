//! The other side: processes that open the database themselves, as carefully as plain SQLite allows.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use crate::process::{Role, report, wait_for_start};
use crate::workload::{DATABASE, INSERT, TABLE, histogram, row};

/// Rows per transaction of the bulk comparison.
const BULK_ROWS: u64 = 1000;

/// Creates the database.
pub(crate) fn create(place: &Path) {
    open(place).execute_batch(TABLE).unwrap();
}

fn open(place: &Path) -> Connection {
    let database = Connection::open(place.join(format!("{DATABASE}.db"))).unwrap();
    // First of all: even switching to WAL can meet another process that does the same.
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database.pragma_update(None, "synchronous", "full").unwrap();
    database
}

/// One transaction per row until the time is over.
pub(crate) fn one_by_one(role: &Role) {
    let mut database = open(&role.place);
    database.prepare_cached(INSERT).unwrap();
    let mut latency = histogram();
    let start = wait_for_start();
    let mut count = 0;
    while start.elapsed().as_secs_f64() < role.seconds {
        let begun = Instant::now();
        insert(&mut database, role.client, count + 1..=count + 1);
        latency.saturating_record(begun.elapsed().as_micros() as u64);
        count += 1;
    }
    report(role.client, count, &latency);
}

/// Many rows per transaction, on one connection.
pub(crate) fn bulk(role: &Role) {
    let mut database = open(&role.place);
    database.prepare_cached(INSERT).unwrap();
    wait_for_start();
    for first in (1..=role.rows).step_by(BULK_ROWS as usize) {
        insert(&mut database, role.client, first..=(first + BULK_ROWS - 1).min(role.rows));
    }
    report(role.client, role.rows, &histogram());
}

fn insert(database: &mut Connection, client: u64, sequences: std::ops::RangeInclusive<u64>) {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let mut statement = transaction.prepare_cached(INSERT).unwrap();
    for sequence in sequences {
        statement.execute(row(client, sequence)).unwrap();
    }
    drop(statement);
    transaction.commit().unwrap();
}

//! Plain SQLite: processes that open the database themselves, as carefully as it allows.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use crate::peer::WARM_ROWS;
use crate::process::{self, Role, report, wait_for_start};
use crate::workload::{DATABASE, INSERT, TABLE, histogram, row};

/// Rows per transaction of the bulk comparison.
const BULK_ROWS: u64 = 1000;

/// Creates the database.
pub(crate) fn create(place: &Path) {
    open(place, "full").execute_batch(TABLE).unwrap();
}

/// The same with the rows that are there before anything is timed, and the connection that wrote them.
pub(crate) fn create_warm(place: &Path) -> Connection {
    create(place);
    let mut database = open(place, "full");
    insert_all(&mut database, 1, WARM_ROWS);
    database
}

/// Opens the database with `synchronous` as given.
pub(crate) fn open(place: &Path, synchronous: &str) -> Connection {
    let database = Connection::open(place.join(format!("{DATABASE}.db"))).unwrap();
    // First of all: even switching to WAL can meet another process that does the same.
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database.pragma_update(None, "synchronous", synchronous).unwrap();
    database
}

/// One transaction per row until the time is over.
pub(crate) fn one_by_one(role: &Role, synchronous: &str) {
    let mut database = open(&role.place, synchronous);
    database.prepare_cached(INSERT).unwrap();
    process::one_by_one(role, |sequence| insert(&mut database, role.client, sequence..=sequence));
}

/// Many rows per transaction, on one connection.
pub(crate) fn bulk(role: &Role) {
    let mut database = open(&role.place, "full");
    database.prepare_cached(INSERT).unwrap();
    wait_for_start();
    insert_all(&mut database, role.client, role.rows);
    report(role.client, role.rows, &histogram());
}

fn insert_all(database: &mut Connection, client: u64, rows: u64) {
    for first in (1..=rows).step_by(BULK_ROWS as usize) {
        insert(database, client, first..=(first + BULK_ROWS - 1).min(rows));
    }
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

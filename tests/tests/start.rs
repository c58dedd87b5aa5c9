//! A start while another program uses a database: the writer beats it to the locks, waits for them, or names it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use penholder_protocol::{Command, Outcome, Statement};
use penholder_tests::foreign::{self, Foreign};
use penholder_tests::{Store, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

const DATABASES: [&str; 2] = ["activity", "config"];

/// What a foreign program tries to write: a row that no client of the ledger ever submits, so that it is found.
const FOREIGN_ROW: &str = "INSERT INTO ledger (client, sequence, nonce) VALUES (99, 1, 0)";

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new("activity", sql).bind(sequence).into()
}

fn over_both(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    let statement = |database| Statement::new(database, sql).bind(sequence);
    Command::new().and(statement("config")).and(statement("activity"))
}

fn is_applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

fn foreign_rows(store: &Store) -> i64 {
    let sql = "SELECT count(*) FROM ledger WHERE client = 99";
    DATABASES.iter().map(|database| store.number(database, sql)).sum()
}

#[test]
fn a_start_beats_a_program_that_commits_all_the_time() {
    if !foreign::is_installed("python3") {
        return;
    }
    let mut store = Store::started();
    assert!(store.stop().success());
    let spinners = DATABASES.map(|name| Foreign::spin(&store.layout().database(name), FOREIGN_ROW));
    std::thread::sleep(Duration::from_millis(200));
    store.start();
    let got_in = foreign_rows(&store);
    assert!(is_applied(&store.client().execute(over_both(1)).unwrap()));
    std::thread::sleep(Duration::from_millis(300));
    let writes: u64 = spinners.map(Foreign::stop).iter().map(|spun| spun.writes).sum();
    assert!(got_in > 0 && i64::try_from(writes).unwrap() == got_in, "before: {got_in}, in all: {writes}");
    assert_eq!(foreign_rows(&store), got_in);
}

#[test]
fn a_start_waits_for_a_program_that_holds_a_database() {
    if !foreign::is_installed("python3") {
        return;
    }
    let mut store = Store::started();
    assert!(store.stop().success());
    let texts = ["BEGIN IMMEDIATE", FOREIGN_ROW, "COMMIT", "BEGIN IMMEDIATE"];
    let holder = Foreign::hold(&store.layout().database("activity"), 1.5, &texts);
    let begun = Instant::now();
    store.start();
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(is_applied(&store.client().execute(insert(1)).unwrap()));
    drop(holder);
}

#[test]
fn a_start_that_waits_in_vain_names_the_program() {
    if !foreign::is_installed("python3") {
        return;
    }
    let ways: [&[&str]; 5] = [
        &["BEGIN IMMEDIATE"],
        &["BEGIN IMMEDIATE", FOREIGN_ROW],
        &["PRAGMA locking_mode = exclusive", FOREIGN_ROW],
        &["PRAGMA journal_mode = delete", "BEGIN EXCLUSIVE"],
        // Reading is enough to keep the journal mode as it is.
        &["PRAGMA journal_mode = delete", "BEGIN", "SELECT * FROM ledger", "SELECT * FROM counter"],
    ];
    let started = ways.map(|texts| {
        let mut store = Store::started();
        assert!(is_applied(&store.client().execute(insert(1)).unwrap()));
        assert!(store.stop().success());
        let holder = Foreign::hold(&store.layout().database("activity"), 60.0, texts);
        let writer = store.writer_command(false).stderr(Stdio::piped()).spawn().unwrap();
        (store, texts, holder, writer)
    });
    for (mut store, texts, holder, mut writer) in started {
        assert!(wait_for(&mut writer, PATIENCE).is_some_and(|status| status.code() == Some(1)), "{texts:?}");
        let output = writer.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("activity.db"), "{texts:?}: {said}");
        assert!(said.contains(&format!("process {} (python", holder.id())), "{texts:?}: {said}");
        drop(holder);
        store.start();
        assert!(is_applied(&store.client().execute(insert(2)).unwrap()), "{texts:?}");
    }
}

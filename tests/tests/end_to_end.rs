//! The ways a command takes from a client to the databases and back, with nothing going wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::Duration;

use penholder_client::{Client, ClientError, Durability, WriterState};
use penholder_protocol::{Applied, Command, Outcome, Statement, Value};
use penholder_tests::{Mix, Plan, SealedSegment, Store};

const PATIENCE: Duration = Duration::from_secs(20);

fn applied(outcome: Outcome) -> Applied {
    match outcome {
        Outcome::Applied(applied) => applied,
        Outcome::Rejected(rejection) => panic!("rejected: {rejection:?}"),
    }
}

fn insert(database: &str, sequence: i64) -> Statement {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new(database, sql).bind(sequence)
}

#[test]
fn every_level_reaches_the_database() {
    let store = Store::started();
    let mut client = store.client();
    let queued = client.submit(insert("activity", 1), Durability::Queued).unwrap();
    let durable = client.submit(insert("config", 2), Durability::Durable).unwrap();
    let result = applied(client.execute(insert("activity", 3)).unwrap()).results.unwrap();
    assert_eq!((result.len(), result[0].changes, result[0].last_insert_rowid), (1, 1, 2));
    // The stream is applied in order: what came before is applied too.
    let earlier = applied(client.wait(queued, Duration::ZERO).unwrap());
    let later = applied(client.wait(durable, Duration::ZERO).unwrap());
    assert!(earlier.tick <= later.tick);
    assert_eq!(store.number("activity", "SELECT count(*) FROM ledger"), 2);
    assert_eq!(store.number("config", "SELECT sequence FROM ledger"), 2);
}

#[test]
fn a_transaction_over_both_databases_gives_the_results_of_each_statement() {
    let store = Store::started();
    let mut client = store.client();
    let command = Command::new()
        .and(insert("config", 1))
        .and(insert("activity", 1))
        .and(Statement::new(
            "activity",
            "UPDATE ledger SET nonce = 5 RETURNING id, nonce, 'word', x'00ff', 0.5, NULL",
        ))
        .and(Statement::new("config", "DELETE FROM ledger WHERE sequence = 99").expect(0));
    let results = applied(client.execute(command).unwrap()).results.unwrap();
    assert_eq!(results.iter().map(|result| result.changes).collect::<Vec<_>>(), [1, 1, 1, 0]);
    let row = [
        Value::Integer(1),
        Value::Integer(5),
        Value::from("word"),
        Value::Blob(vec![0, 255]),
        Value::Real(0.5),
        Value::Null,
    ];
    assert_eq!(results[2].rows, [row]);
}

#[test]
fn values_of_every_type_arrive_as_they_were() {
    let mut store = Store::new();
    store.add_migration("activity", "CREATE TABLE thing (value ANY) STRICT;");
    store.start();
    let mut client = store.client();
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(-0.1),
        Value::Text("žluťoučký\nkůň \u{1f40e} \0 and more".into()),
        Value::Text(String::new()),
        Value::Blob(Vec::new()),
        Value::Blob((0..=250_u8).cycle().take(3 << 20).collect()),
    ];
    for value in values {
        let mut statement = Statement::new("activity", "INSERT INTO thing VALUES (?1)");
        statement.params.push(value.clone());
        applied(client.execute(statement).unwrap());
        let database = store.database("activity");
        let found: rusqlite::types::Value =
            database.query_row("SELECT value FROM thing ORDER BY rowid DESC", [], |row| row.get(0)).unwrap();
        let found = match found {
            rusqlite::types::Value::Null => Value::Null,
            rusqlite::types::Value::Integer(value) => Value::Integer(value),
            rusqlite::types::Value::Real(value) => Value::Real(value),
            rusqlite::types::Value::Text(value) => Value::Text(value),
            rusqlite::types::Value::Blob(value) => Value::Blob(value),
        };
        assert!(found == value, "not what was sent: {value:.60?}");
    }
}

#[test]
fn many_processes_write_everything_exactly_once_and_in_order() {
    let mut store = Store::started();
    let watcher = store.start_watcher();
    let workers: Vec<_> =
        [Mix::All, Mix::All, Mix::Both, Mix::Activity].map(|mix| store.start_worker(mix, 1500)).into();
    workers.into_iter().for_each(penholder_tests::Process::finish);
    store.tell_workers_to_stop();
    watcher.finish();
    let verdict = store.settle_and_verify();
    println!("{verdict}");
    verdict.expect_clean();
    assert_eq!(verdict.applied + verdict.rejected, 6000);
    assert!(verdict.over_both > 1000, "{verdict}");
}

#[test]
fn a_sealed_segment_of_a_client_without_a_lock_is_an_equal_citizen() {
    let store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let first =
        SealedSegment::new(&store.path()).frame((1..=3).map(|s| plan.command(s))).frame([plan.command(4)]);
    let second = first.next().frame((5..=9).map(|s| plan.command(s)));
    first.drop_into(&store.path());
    second.drop_into(&store.path());
    store.wait_until("9 rows", |store| store.number("activity", "SELECT count(*) FROM ledger") == 9);
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    assert_eq!(store.watermark("activity", first.header.stream), 9);
    assert!(
        store.layout().receipt(first.header.stream).exists(),
        "a lock-free client may look for its receipts"
    );
}

#[test]
fn submitting_works_without_a_writer_and_waiting_says_so() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    let ticket = client.submit(insert("activity", 1), Durability::Durable).unwrap();
    let error = client.wait(ticket, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { writer: WriterState::Stopped, .. }), "{error:?}");
    assert!(error.to_string().contains("stays queued") && error.is_retryable(), "{error}");
    store.start();
    applied(client.wait(ticket, PATIENCE).unwrap());
}

#[test]
fn a_directory_without_a_store_is_named_in_the_error() {
    let store = Store::new();
    std::fs::create_dir_all(store.path()).unwrap();
    let error = Client::connect(store.path()).unwrap_err();
    assert!(matches!(error, ClientError::NoStore { .. }), "{error:?}");
    assert!(error.to_string().contains("penholder serve"), "{error}");
}

#[test]
fn short_lived_clients_leave_no_files_and_no_descriptors() {
    let store = Store::started();
    applied(store.client().execute(insert("activity", 0)).unwrap());
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    let before = store.descriptors();
    for sequence in 1..=300 {
        store.client().submit(insert("activity", sequence), Durability::Queued).unwrap();
    }
    store.wait_until("all rows", |store| store.number("activity", "SELECT count(*) FROM ledger") == 301);
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    store.wait_until("as many descriptors as before", |store| store.descriptors() <= before + 2);
    assert_eq!(std::fs::read_dir(store.layout().spool_tmp()).unwrap().count(), 0);
}

#[test]
fn receipts_of_clients_that_are_gone_go_at_the_next_starts() {
    let mut store = Store::started();
    for sequence in 1..=20 {
        applied(store.client().execute(insert("activity", sequence)).unwrap());
    }
    for _ in 0..3 {
        assert!(store.stop().success());
        store.start();
    }
    let receipts = std::fs::read_dir(store.layout().receipts()).unwrap().count();
    let rows = store.number("activity", "SELECT count(*) FROM _penholder_stream");
    assert!(
        receipts <= 2 && rows <= 2,
        "{receipts} receipts and {rows} watermarks are left of 20 finished streams"
    );
}

#[test]
fn watermarks_of_streams_that_begin_together_lie_together_and_beside_the_clock() {
    let store = Store::started();
    let begin = |sequence| {
        let mut client = store.client();
        applied(client.execute(insert("activity", sequence)).unwrap());
        client.stream()
    };
    (1..=200).map(begin).for_each(drop);
    let newest: Vec<_> = (201..=208).map(begin).collect();
    // Each page of them is one more in the WAL, for every batch of these streams.
    let database = store.database("activity");
    let mut last =
        database.prepare("SELECT owner FROM _penholder_progress ORDER BY rowid DESC LIMIT 10").unwrap();
    let owner = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
    let mut last: Vec<_> = last.query_map([], owner).unwrap().map(Result::unwrap).collect();
    last.reverse();
    let mut expected: Vec<_> = newest.iter().map(|stream| stream.0.to_vec().into()).collect();
    expected.extend(["config", "activity"].map(|name| name.to_owned().into()));
    assert_eq!(last, expected);
}

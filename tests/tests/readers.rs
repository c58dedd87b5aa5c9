//! Readers see one consistent cut over both databases, always, and disturb nobody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::{Duration, Instant};

use penholder_client::Durability;
use penholder_client::read::Reader;
use penholder_protocol::{Command, Outcome, Statement, Tick};
use penholder_tests::{Mix, Process, Store, watcher};

fn over_both(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    let statement = |database| Statement::new(database, sql).bind(sequence);
    let count = |database| Statement::new(database, "UPDATE counter SET count = count + 1 WHERE id = 1");
    Command::new()
        .and(statement("config"))
        .and(statement("activity"))
        .and(count("config"))
        .and(count("activity"))
}

fn tick_of(outcome: &Outcome) -> Tick {
    match outcome {
        Outcome::Applied(applied) => applied.tick,
        Outcome::Rejected(rejection) => panic!("{rejection:?}"),
    }
}

#[test]
fn readers_that_run_all_the_time_see_only_consistent_cuts() {
    let mut store = Store::started();
    let watchers = [store.start_watcher(), store.start_watcher()];
    let workers = [Mix::Both, Mix::All, Mix::Both].map(|mix| store.start_worker(mix, u64::MAX));
    let begun = Instant::now();
    let mut reader = Reader::open(store.path()).unwrap();
    let (mut cuts, mut refused, mut last) = (0_u32, 0_u32, watcher::Sight::default());
    while begun.elapsed() < Duration::from_secs(4) {
        match reader.snapshot() {
            Ok(snapshot) => {
                let sight = watcher::look(&snapshot).unwrap();
                assert!(
                    sight.config >= last.config && sight.activity >= last.activity,
                    "{last:?}, then {sight:?}"
                );
                last = sight;
                cuts += 1;
            }
            Err(error) => {
                println!("no cut: {error}");
                refused += 1;
            }
        }
    }
    store.tell_workers_to_stop();
    workers.into_iter().for_each(Process::finish);
    watchers.into_iter().for_each(Process::finish);
    println!("{cuts} cuts, {refused} refused, {last:?}");
    assert!(cuts > 50 && refused == 0, "{cuts} cuts, {refused} refused while the writer was running");
    assert!(last.both > 50, "{last:?}");
    store.settle_and_verify().expect_clean();
}

#[test]
fn a_reader_sees_its_own_write_after_the_receipt() {
    let mut store = Store::started();
    let noise = store.start_worker(Mix::All, u64::MAX);
    let mut client = store.client();
    let mut reader = Reader::open(store.path()).unwrap();
    for sequence in 1..=100 {
        let tick = tick_of(&client.execute(over_both(sequence)).unwrap());
        let snapshot = reader.snapshot_after(tick).unwrap();
        for database in ["config", "activity"] {
            let sql = "SELECT count(*) FROM ledger WHERE client = 7 AND sequence = ?1";
            let found: i64 =
                snapshot.database(database).unwrap().query_row(sql, [sequence], |row| row.get(0)).unwrap();
            assert_eq!(found, 1, "{database}, command {sequence}");
        }
    }
    store.tell_workers_to_stop();
    noise.finish();
}

#[test]
fn a_snapshot_stays_as_it_is_while_the_writer_goes_on() {
    let store = Store::started();
    let mut client = store.client();
    client.execute(over_both(1)).unwrap();
    let mut reader = Reader::open(store.path()).unwrap();
    let snapshot = reader.snapshot().unwrap();
    let before = watcher::look(&snapshot).unwrap();
    for sequence in 2..=50 {
        client.execute(over_both(sequence)).unwrap();
    }
    assert_eq!(watcher::look(&snapshot).unwrap(), before);
    drop(snapshot);
    assert_eq!(watcher::look(&reader.snapshot().unwrap()).unwrap().both, 50);
}

#[test]
fn readers_work_whatever_the_writer_does_once_there_is_a_store() {
    let mut store = Store::new();
    std::fs::create_dir_all(store.path()).unwrap();
    let error = Reader::open(store.path()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("penholder serve"), "it says what to do: {error}");
    store.start();
    store.client().execute(over_both(1)).unwrap();
    assert_eq!(watcher::look_once(&store.path()).unwrap().both, 1, "running");
    assert!(store.stop().success());
    assert_eq!(watcher::look_once(&store.path()).unwrap().both, 1, "cleanly stopped");
    store.start();
    store.client().execute(over_both(2)).unwrap();
    store.kill();
    assert_eq!(watcher::look_once(&store.path()).unwrap().both, 2, "killed");
    store.start();
    assert_eq!(watcher::look_once(&store.path()).unwrap().both, 2, "running again");
}

#[test]
fn a_reader_cannot_write() {
    let store = Store::started();
    let mut reader = Reader::open(store.path()).unwrap();
    let snapshot = reader.snapshot().unwrap();
    let database = snapshot.database("activity").unwrap();
    assert!(database.execute("INSERT INTO ledger (client, sequence, nonce) VALUES (1, 1, 1)", []).is_err());
    assert!(database.execute_batch("CREATE TABLE mine (a)").is_err());
}

#[test]
fn a_reader_that_holds_its_snapshot_does_not_stop_the_writer_and_the_log_shrinks_after_it() {
    let mut store = Store::new();
    store.settings("[wal]\nbytes_soft = 262144\nbytes_hard = 1048576\n");
    store.start();
    let mut client = store.client();
    client.execute(over_both(1)).unwrap();
    let mut reader = Reader::open(store.path()).unwrap();
    let snapshot = reader.snapshot().unwrap();
    let filler = "x".repeat(20_000);
    let insert = || -> Command {
        let sql = "INSERT INTO ledger (client, sequence, nonce) VALUES (8, length(?1), 0)";
        Statement::new("activity", sql).bind(filler.as_str()).into()
    };
    let big = |count: usize| (0..count).map(|_| insert()).collect::<Vec<_>>();
    let wal = || std::fs::metadata(store.path().join("activity.db-wal")).unwrap().len();
    for _ in 0..120 {
        let tickets = client.submit_batch(&big(100), Durability::Queued).unwrap();
        tick_of(&client.wait(tickets.last().unwrap(), Duration::from_secs(20)).unwrap());
    }
    let pinned = wal();
    assert_eq!(watcher::look(&snapshot).unwrap().both, 1);
    drop(snapshot);
    drop(reader);
    for _ in 0..60 {
        let tickets = client.submit_batch(&big(100), Durability::Queued).unwrap();
        tick_of(&client.wait(tickets.last().unwrap(), Duration::from_secs(20)).unwrap());
    }
    std::thread::sleep(Duration::from_secs(2));
    tick_of(&client.execute(over_both(2)).unwrap());
    println!("write-ahead log: {pinned} bytes while pinned, {} after", wal());
    // The file is kept at up to eight times the hard bound: overwriting is faster than growing.
    assert!(wal() <= 8 << 20, "the log is not cut back: {} bytes", wal());
}

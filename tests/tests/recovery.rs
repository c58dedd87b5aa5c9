//! The writer ends, in every way, and starts again, with no manual step in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use penholder_client::Durability;
use penholder_protocol::{Command, Outcome, Statement, WriterState};
use penholder_tests::{Mix, Process, Store, shim, wait_for};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1) RETURNING id";
    Statement::new("activity", sql).bind(sequence).into()
}

fn rows(store: &Store) -> i64 {
    store.number("activity", "SELECT count(*) FROM ledger")
}

fn is_applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

#[test]
fn a_client_that_waits_gets_its_outcome_from_the_next_writer() {
    let mut store = Store::started();
    let mut client = store.client();
    client.execute(insert(1)).unwrap();
    for round in 0..5 {
        store.kill();
        let ticket = client.submit(insert(2 + round), Durability::Queued).unwrap();
        let waiting = std::thread::spawn(move || {
            let outcome = client.wait(ticket, PATIENCE);
            (client, outcome)
        });
        std::thread::sleep(Duration::from_millis(50));
        store.start();
        let (back, outcome) = waiting.join().unwrap();
        assert!(is_applied(&outcome.unwrap()));
        client = back;
    }
    assert_eq!(rows(&store), 6);
}

#[test]
fn sigterm_and_sigint_end_the_writer_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut store = Store::started();
        let workers = [store.start_worker(Mix::All, 800), store.start_worker(Mix::Both, 800)];
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        store.signal(signal);
        let status = store.wait_writer();
        assert!(status.success(), "{signal:?}: {status}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{signal:?}: {:?}", begun.elapsed());
        assert_eq!(store.control().unwrap().state, WriterState::Stopped);
        store.start();
        workers.into_iter().for_each(Process::finish);
        store.settle_and_verify().expect_clean();
    }
}

#[test]
fn of_two_writers_one_wins_and_the_other_says_who_holds_the_store() {
    let mut store = Store::new();
    store.start();
    let output = store.writer_command(false).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains(&store.writer_pid().to_string()), "it says who holds the lock: {message}");
    assert!(is_applied(&store.client().execute(insert(1)).unwrap()), "the first one goes on");
}

#[test]
fn of_many_writers_started_at_once_exactly_one_stays() {
    let store = Store::new();
    let mut writers: Vec<_> = (0..6)
        .map(|_| store.writer_command(false).stderr(std::process::Stdio::null()).spawn().unwrap())
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let ended: Vec<_> = writers.iter_mut().filter_map(|writer| writer.try_wait().unwrap()).collect();
    for writer in &mut writers {
        // Those that have ended cannot be killed; that is what is counted.
        writer.kill().ok();
        wait_for(writer, PATIENCE);
    }
    assert_eq!(ended.iter().map(ExitStatus::code).collect::<Vec<_>>(), [Some(4); 5]);
}

#[test]
fn everything_is_applied_with_notifications_switched_off() {
    let mut store = Store::new();
    store.settings("[wake]\nnotify = false\nsafety_poll_ms = 100\n");
    store.start();
    let workers = [store.start_worker(Mix::All, 300), store.start_worker(Mix::Both, 300)];
    workers.into_iter().for_each(Process::finish);
    let begun = Instant::now();
    assert!(
        is_applied(&store.client().execute(insert(1)).unwrap()),
        "a new stream is found by the poll alone"
    );
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    store.wait_until("an empty spool", |store| store.segments().is_empty());
}

#[test]
fn once_applies_a_backlog_and_ends() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut tickets = Vec::new();
    for round in 0..5 {
        let mut client = store.client();
        let commands: Vec<Command> = (1..=400).map(|sequence| insert(round * 1000 + sequence)).collect();
        tickets.push(client.submit_batch(&commands, Durability::Queued).unwrap().last().unwrap());
    }
    let mut alive = store.client();
    let last = alive.submit(insert(9999), Durability::Queued).unwrap();
    assert!(store.once().success());
    assert_eq!(rows(&store), 2001);
    assert!(is_applied(&alive.wait(last, Duration::ZERO).unwrap()), "receipts are told before it ends");
    assert_eq!(
        store.segments().len(),
        1,
        "only the living client's own segment stays: {:?}",
        store.segments()
    );
    assert!(store.once().success(), "nothing to do is a success");
}

#[test]
fn once_leaves_nothing_of_a_client_that_is_gone_however_much_it_wrote() {
    let mut store = Store::started();
    let mut expected = 0;
    for (applied_before, count) in
        [false, true].into_iter().flat_map(|before| [(before, 1000), (before, 5000)])
    {
        expected += count;
        let mut client = store.client();
        if !applied_before {
            assert!(store.stop().success());
        }
        let commands: Vec<Command> = (1..=count).map(insert).collect();
        let last = client.submit_batch(&commands, Durability::Queued).unwrap().last().unwrap();
        if applied_before {
            client.wait(last, PATIENCE).unwrap();
            store.kill();
        }
        drop(client);
        assert!(store.once().success());
        assert_eq!(
            store.segments(),
            Vec::<String>::new(),
            "{count} commands, applied before: {applied_before}"
        );
        store.start();
    }
    assert_eq!(rows(&store), expected);
}

#[test]
fn once_applies_a_long_stream_whose_commands_change_kind_each_time() {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (8, 1, 0, 1)";
    let over_both = || Command::new().and(Statement::new("config", sql)).and(Statement::new("activity", sql));
    for (applied_before, count) in [(false, 700), (true, 500), (true, 800), (true, 1100)] {
        let mut store = Store::started();
        let mut client = store.client();
        if !applied_before {
            assert!(store.stop().success());
        }
        // Every batch holds one command, so that many batches are cut before the writer reads on.
        let commands: Vec<Command> = (1..=count)
            .map(|sequence| if sequence % 2 == 0 { over_both() } else { insert(sequence) })
            .collect();
        let last = client.submit_batch(&commands, Durability::Queued).unwrap().last().unwrap();
        if applied_before {
            client.wait(last, PATIENCE).unwrap();
            store.kill();
        }
        drop(client);
        assert!(store.once().success());
        assert_eq!(rows(&store), count, "applied before: {applied_before}");
        assert_eq!(
            store.segments(),
            Vec::<String>::new(),
            "{count} commands, applied before: {applied_before}"
        );
    }
}

#[test]
fn a_backlog_is_applied_when_a_writer_starts() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    let commands: Vec<Command> = (1..=3000).map(insert).collect();
    let last = client.submit_batch(&commands, Durability::Queued).unwrap().last().unwrap();
    store.start();
    assert!(is_applied(&client.wait(last, PATIENCE).unwrap()));
    assert_eq!(rows(&store), 3000);
}

#[test]
fn a_database_from_an_older_backup_is_refused_unless_the_operator_accepts_it() {
    for database in ["activity", "config"] {
        let mut store = Store::started();
        let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, 1, 0, 1)";
        let over_both =
            || Command::new().and(Statement::new("config", sql)).and(Statement::new("activity", sql));
        store.client().execute(over_both()).unwrap();
        let backup = store.scratch().join("backup.db");
        let vacuum = format!("VACUUM INTO '{}'", backup.display());
        let connection = rusqlite::Connection::open(store.layout().database(database)).unwrap();
        connection.execute(&vacuum, []).unwrap();
        drop(connection);
        store.client().execute(over_both()).unwrap();
        store.wait_until("an empty spool", |store| store.segments().is_empty());
        // The writer remembers what it has reclaimed no later than at its end.
        assert!(store.stop().success());
        for suffix in ["", "-wal", "-shm"] {
            let path = format!("{}{suffix}", store.layout().database(database).display());
            if std::fs::exists(&path).unwrap() {
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::copy(&backup, store.layout().database(database)).unwrap();
        let output = store.writer_command(false).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = finish(output);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{database}: {message}");
        assert!(message.contains("--accept-rollback") && message.contains(database), "{database}: {message}");
        let accepted = store.writer_command(true).arg("--accept-rollback").output().unwrap();
        assert!(accepted.status.success(), "{database}: {accepted:?}");
        store.start();
        assert!(is_applied(&store.client().execute(over_both()).unwrap()), "{database}");
    }
}

fn finish(mut writer: std::process::Child) -> std::process::Output {
    if wait_for(&mut writer, Duration::from_secs(10)).is_none() {
        println!("it did not end by itself");
    }
    writer.wait_with_output().unwrap()
}

#[test]
fn the_writer_stops_loudly_when_its_lock_file_is_replaced() {
    for replace in [true, false] {
        let mut store = Store::started();
        let mut client = store.client();
        client.execute(insert(1)).unwrap();
        let lock = store.layout().writer_lock();
        std::fs::remove_file(&lock).unwrap();
        if replace {
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock).unwrap();
        }
        let ticket = client.submit(insert(2), Durability::Queued).unwrap();
        store.wait_until("the writer's end", Store::writer_is_dead);
        let status = store.wait_writer();
        assert!(!status.success(), "{status}");
        assert_eq!(rows(&store), 1, "it was noticed before the next commit");
        store.start();
        assert!(is_applied(&client.wait(ticket, PATIENCE).unwrap()));
    }
}

#[test]
fn the_write_ahead_logs_stay_beside_the_databases_after_a_clean_stop() {
    let mut store = Store::started();
    store.client().execute(insert(1)).unwrap();
    assert!(store.stop().success());
    for file in ["activity.db-wal", "activity.db-shm", "config.db-wal", "config.db-shm"] {
        assert!(store.path().join(file).exists(), "{file}");
    }
}

#[test]
fn a_spool_directory_that_is_renamed_and_back_loses_nothing() {
    let store = Store::started();
    let mut client = store.client();
    client.execute(insert(1)).unwrap();
    let (spool, aside) = (store.layout().spool(), store.scratch().join("aside"));
    std::fs::rename(&spool, &aside).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    std::fs::rename(&aside, &spool).unwrap();
    let ticket = client.submit(insert(2), Durability::Queued).unwrap();
    assert!(is_applied(&client.wait(ticket, PATIENCE).unwrap()));
    assert!(is_applied(&store.client().execute(insert(3)).unwrap()));
}

/// The second signal does not wait for the batch; nothing of it is told, and the next writer applies it.
#[test]
fn a_second_signal_ends_the_writer_at_once() {
    let mut store = Store::new();
    store.settings("[batch]\ncommand_deadline_ms = 3600000\n");
    store.start();
    let endless = "UPDATE counter SET count = count WHERE 0 < (WITH RECURSIVE n(i) AS \
                   (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n)";
    let mut client = store.client();
    client.submit(insert(1), Durability::Queued).unwrap();
    store.wait_until("a row", |store| rows(store) == 1);
    let endless = Command::from(Statement::new("activity", endless));
    client.submit(endless, Durability::Queued).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    store.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!store.writer_is_dead(), "the first signal waits for the batch");
    store.signal(Signal::INT);
    assert_eq!(store.wait_writer().code(), Some(1));
    store.settings("[batch]\ncommand_deadline_ms = 50\n");
    store.start();
    assert!(is_applied(&client.execute(insert(2)).unwrap()), "the endless one is rejected, and no other");
    assert_eq!(rows(&store), 2);
}

/// As where the system has no more watches to give.
#[test]
fn everything_is_applied_without_a_watch_on_the_spool() {
    let mut store = Store::new().quiet();
    store.settings("[wake]\nsafety_poll_ms = 50\n");
    store.set("LD_PRELOAD", &shim("fail").to_string_lossy());
    store.set("PENHOLDER_FAIL_WATCH", "1");
    store.set("RUST_LOG", "warn");
    store.start();
    let workers = [store.start_worker(Mix::All, 100), store.start_worker(Mix::Both, 100)];
    workers.into_iter().for_each(Process::finish);
    assert!(store.complaints().contains("cannot watch"), "{}", store.complaints());
    store.settle_and_verify().expect_clean();
}

#[test]
fn restarts_without_work_leave_a_store_that_serves() {
    let mut store = Store::started();
    for _ in 0..10 {
        store.kill();
        store.start();
    }
    assert!(is_applied(&store.client().execute(insert(1)).unwrap()));
}

#[test]
fn a_clock_that_jumps_by_ten_years_back_and_forth_changes_nothing() {
    let mut store = Store::new();
    store.set("LD_PRELOAD", &shim("clock").to_string_lossy());
    store.start();
    for _ in 0..4 {
        let workers = [store.start_worker(Mix::All, 200), store.start_worker(Mix::Both, 200)];
        store.kill();
        store.start();
        workers.into_iter().for_each(Process::finish);
    }
    store.settle_and_verify().expect_clean();
}

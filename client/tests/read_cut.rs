//! The consistent cut: what a snapshot over both databases may show, and what it must refuse.

#![cfg(feature = "read")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod read_common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use penholder_client::read::{ReadError, Snapshot};
use penholder_protocol::Tick;
use read_common::{DATABASES, Random, Store, Writer};

const SNAPSHOTS: u64 = 5_000;

fn number(snapshot: &Snapshot<'_>, database: &str, sql: &str) -> i64 {
    snapshot.database(database).unwrap().prepare_cached(sql).unwrap().query_row([], |row| row.get(0)).unwrap()
}

#[test]
fn a_cut_with_agreeing_clocks_is_accepted_and_tells_its_ticks() {
    let store = Store::new();
    let mut writer = store.writer();
    writer.commit(
        "INSERT INTO projects(name) VALUES ('a')",
        "INSERT INTO activity_events(at, kind) VALUES (1, 'x')",
    );
    writer.commit("", "INSERT INTO activity_events(at, kind) VALUES (2, 'x')");
    let mut reader = store.reader();
    assert_eq!(reader.databases().collect::<Vec<_>>(), DATABASES);
    let snapshot = reader.snapshot().unwrap();
    assert_eq!(snapshot.tick("config").unwrap(), Tick(2));
    assert_eq!(
        snapshot.tick("activity").unwrap(),
        Tick(3),
        "a batch over one database moves only its own tick"
    );
    assert_eq!(snapshot.newest(), Tick(3));
    assert_eq!(number(&snapshot, "config", "SELECT count(*) FROM projects"), 1);
    assert_eq!(number(&snapshot, "activity", "SELECT count(*) FROM activity_events"), 2);
}

#[test]
fn config_newer_than_a_later_activity_is_accepted_because_it_touched_config_alone() {
    let store = Store::new();
    store.writer().commit("INSERT INTO projects(name) VALUES ('a')", "");
    let mut reader = store.reader();
    let snapshot = reader.snapshot().unwrap();
    assert_eq!((snapshot.tick("config").unwrap(), snapshot.tick("activity").unwrap()), (Tick(2), Tick(1)));
}

#[test]
fn a_writer_dead_between_its_commits_leaves_each_database_readable_but_no_cut() {
    let store = Store::new();
    let mut writer = store.writer();
    let mut reader = store.hasty_reader();
    let mut batch = writer.batch("INSERT INTO projects(name) VALUES ('a')", "DELETE FROM activity_events");
    assert!(batch.commit_next());
    let error = reader.snapshot().unwrap_err();
    assert!(
        matches!(&error, ReadError::Uneven { ahead, behind, tick: Tick(2), writer_running: false, recoverable: true }
            if ahead == "config" && behind == "activity"),
        "{error}"
    );
    assert!(error.to_string().contains("start `penholder serve`, it recovers"), "{error}");
    assert!(!error.is_retryable());
    let config = reader.single("config").unwrap();
    assert_eq!(number(&config, "config", "SELECT count(*) FROM projects"), 1);
    assert_eq!(config.tick("config").unwrap(), Tick(2));
    assert!(matches!(config.database("activity"), Err(ReadError::UnknownDatabase { .. })));
    drop(config);
    assert_eq!(reader.single("activity").unwrap().tick("activity").unwrap(), Tick(1));
    // Recovery commits the missing half.
    assert!(batch.commit_next());
    assert_eq!(reader.snapshot().unwrap().newest(), Tick(2));
}

#[test]
fn a_database_that_is_older_than_a_death_of_the_writer_explains_is_said_to_be_replaced() {
    let store = Store::new();
    let older = store.path().join("older");
    rusqlite::Connection::open(store.layout().database("activity"))
        .unwrap()
        .execute("VACUUM INTO ?1", [older.to_str()])
        .unwrap();
    let mut writer = store.writer();
    writer.commit("DELETE FROM settings", "DELETE FROM activity_events");
    let last = writer.commit("DELETE FROM settings", "DELETE FROM activity_events");
    drop(writer);
    std::fs::rename(older, store.layout().database("activity")).unwrap();
    let error = store.hasty_reader().snapshot().unwrap_err();
    assert!(
        matches!(&error, ReadError::Uneven { behind, tick, recoverable: false, .. }
            if behind == "activity" && *tick == last),
        "{error}"
    );
    let said = error.to_string();
    assert!(said.contains("penholder check") && !said.contains("it recovers"), "{said}");
}

#[test]
fn a_slow_writer_is_told_from_a_dead_one() {
    let store = Store::new();
    let running = store.look_running();
    let mut writer = store.writer();
    assert!(writer.batch("DELETE FROM settings", "DELETE FROM activity_events").commit_next());
    let mut reader = store.hasty_reader();
    assert!(reader.writer_running());
    let error = reader.snapshot().unwrap_err();
    assert!(matches!(error, ReadError::Uneven { writer_running: true, .. }), "{error}");
    assert!(error.is_retryable());
    drop(running);
    assert!(!reader.writer_running());
    assert!(!reader.snapshot().unwrap_err().is_retryable());
}

#[test]
fn a_snapshot_waits_for_the_second_commit_of_a_batch() {
    let store = Store::new();
    let mut writer = store.writer();
    let mut batch = writer.batch("DELETE FROM settings", "DELETE FROM activity_events");
    batch.commit_next();
    let mut reader = store.reader();
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(30));
            batch.commit_next();
        });
        assert_eq!(reader.snapshot().unwrap().tick("activity").unwrap(), Tick(2));
    });
}

/// Each batch leaves a trace that tells whether one database was read too early: pairs over both, facts about
/// activity that config learned of later, and projects that activity refers to only once they are there.
fn play_writer(mut writer: Writer, random: &mut Random, stop: &AtomicBool) {
    let (mut pairs, mut events, mut projects) = (0, 0, 0);
    let pause = |random: &mut Random| match random.below(4) {
        0 => {}
        1 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(random.below(300))),
    };
    while !stop.load(Ordering::Relaxed) {
        match random.below(5) {
            0 => {
                events += 1;
                writer.commit("", "INSERT INTO activity_events(at, kind) VALUES (0, 'event')");
                pause(random);
                writer.commit(&format!("INSERT OR REPLACE INTO settings VALUES ('events', {events})"), "");
            }
            1 => {
                projects += 1;
                writer.commit(&format!("INSERT INTO projects(id, name) VALUES ({projects}, {projects})"), "");
                pause(random);
                let session = format!(
                    "INSERT INTO activity_sessions(started_at, app, project_id) VALUES (0, 'app', {projects})"
                );
                writer.commit("", &session);
            }
            _ => {
                pairs += 1;
                let config = format!("INSERT OR REPLACE INTO settings VALUES ('pairs', {pairs})");
                let mut batch =
                    writer.batch(&config, "INSERT INTO activity_events(at, kind) VALUES (0, 'pair')");
                batch.commit_next();
                pause(random);
                batch.commit_next();
            }
        }
        pause(random);
    }
}

#[test]
fn snapshots_beside_a_writer_never_show_one_database_ahead_of_the_other() {
    let store = Store::new();
    let stop = AtomicBool::new(false);
    let mut random = Random::new();
    let mut reader = store.reader();
    let setting = |snapshot: &Snapshot<'_>, key: &str| {
        let sql =
            format!("SELECT coalesce(max(CAST(value AS INTEGER)), 0) FROM settings WHERE key = '{key}'");
        number(snapshot, "config", &sql)
    };
    let mut distinct = 0;
    thread::scope(|scope| {
        scope.spawn(|| play_writer(store.writer(), &mut random, &stop));
        let mut last = (Tick(0), Tick(0));
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..SNAPSHOTS {
                let snapshot = reader.snapshot().unwrap();
                let count = |kind: &str| {
                    number(
                        &snapshot,
                        "activity",
                        &format!("SELECT count(*) FROM activity_events WHERE kind = '{kind}'"),
                    )
                };
                assert_eq!(setting(&snapshot, "pairs"), count("pair"), "half of a batch over both");
                assert!(setting(&snapshot, "events") <= count("event"), "config newer than activity");
                let used = number(
                    &snapshot,
                    "activity",
                    "SELECT coalesce(max(project_id), 0) FROM activity_sessions",
                );
                let there = number(&snapshot, "config", "SELECT coalesce(max(id), 0) FROM projects");
                assert!(used <= there, "activity newer than config");
                let ticks = (snapshot.tick("config").unwrap(), snapshot.tick("activity").unwrap());
                assert!(ticks.0 >= last.0 && ticks.1 >= last.1, "time went backwards");
                distinct += u64::from(ticks != last);
                last = ticks;
            }
        }));
        stop.store(true, Ordering::Relaxed);
        seen.unwrap_or_else(|failure| std::panic::resume_unwind(failure));
    });
    assert!(distinct > SNAPSHOTS / 100, "only {distinct} of {SNAPSHOTS} snapshots showed something new");
}

#[test]
fn snapshot_after_waits_for_the_tick_and_gives_up_with_what_it_saw() {
    let store = Store::new();
    let mut writer = store.writer();
    let mut reader = store.reader();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            writer.commit("", "INSERT INTO activity_events(at, kind) VALUES (1, 'x')");
        });
        let snapshot = reader.snapshot_after(Tick(2)).unwrap();
        assert_eq!(number(&snapshot, "activity", "SELECT count(*) FROM activity_events"), 1);
    });
    let error = store.hasty_reader().snapshot_after(Tick(7)).map(drop).unwrap_err();
    assert!(
        matches!(error, ReadError::Behind { wanted: Tick(7), reached: Tick(2), writer_running: false }),
        "{error}"
    );
    assert!(error.to_string().contains("no writer runs"), "{error}");
}

#[test]
fn a_snapshot_shows_no_later_commit_and_ends_when_dropped() {
    let store = Store::new();
    let mut writer = store.writer();
    let mut reader = store.reader();
    let count = "SELECT count(*) FROM activity_events";
    let snapshot = reader.snapshot().unwrap();
    writer.commit("", "INSERT INTO activity_events(at, kind) VALUES (1, 'x')");
    assert_eq!(number(&snapshot, "activity", count), 0);
    drop(snapshot);
    assert_eq!(number(&reader.snapshot().unwrap(), "activity", count), 1);
}

#[test]
fn a_snapshot_cannot_write_and_survives_a_transaction_ended_under_it() {
    let store = Store::new();
    let mut reader = store.reader();
    let snapshot = reader.snapshot().unwrap();
    let config = snapshot.database("config").unwrap();
    let error = config.execute("DELETE FROM settings", []).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::ReadOnly));
    config.execute_batch("PRAGMA query_only=0").unwrap();
    let error = config.execute("DELETE FROM settings", []).unwrap_err();
    assert_eq!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::ReadOnly),
        "the file is open for reading only"
    );
    config.execute_batch("COMMIT").unwrap();
    drop(snapshot);
    std::mem::forget(reader.snapshot().unwrap());
    assert_eq!(reader.snapshot().unwrap().newest(), Tick(1));
}

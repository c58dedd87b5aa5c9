//! The WAL of a database, or its index, goes away, is cut or exchanged, while no writer runs or under a running one: nothing
//! is lost, or the writer says so and ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::fs::File;
use std::path::{Path, PathBuf};

use penholder_client::Durability;
use penholder_client::read::Reader;
use penholder_protocol::{Command, Outcome, Statement};
use penholder_tests::{Mix, Store};

/// What happens to a file; the path behind it is an older copy.
type Deed = fn(&Path, &Path);

const DEEDS: [(&str, Deed); 4] = [
    ("removed", |file, _| std::fs::remove_file(file).unwrap()),
    ("emptied", |file, _| drop(File::create(file).unwrap())),
    ("cut in half", |file, _| {
        let length = file.metadata().unwrap().len();
        File::options().write(true).open(file).unwrap().set_len(length / 2).unwrap();
    }),
    ("exchanged for an older one", |file, older| assert!(std::fs::copy(older, file).is_ok())),
];

fn beside(store: &Store, database: &str, suffix: &str) -> PathBuf {
    store.path().join(format!("{database}.db-{suffix}"))
}

/// Gives whether the next start refused, having made sure that it lost nothing if it did not.
fn is_refused(database: &str, suffix: &str, deed: Deed, clean: bool) -> bool {
    let mut store = Store::new().quiet();
    // The first WAL is given up in the middle, so that the older copy is of another one.
    store.settings("[wal]\nbytes_soft = 65536\n");
    store.start();
    store.start_worker(Mix::All, 60).finish();
    assert!(store.stop().success());
    let (file, older) = (beside(&store, database, suffix), store.scratch().join("older"));
    std::fs::copy(&file, &older).unwrap();
    store.start();
    store.start_worker(Mix::All, 60).finish();
    store.start_worker(Mix::Both, 40).finish();
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    if clean {
        assert!(store.stop().success());
    } else {
        store.kill();
    }
    // No process has the database open: this one may.
    deed(&file, &older);
    if store.once().success() {
        store.settle_and_verify().expect_clean();
        return false;
    }
    let complaints = store.complaints();
    assert!(complaints.contains("--accept-rollback"), "{complaints}");
    true
}

#[test]
fn a_log_that_is_gone_cut_or_exchanged_is_never_silently_accepted() {
    let mut refused = 0;
    for database in ["activity", "config"] {
        for (what, deed) in DEEDS {
            println!("the WAL of {database} is {what} after a kill");
            refused += u32::from(is_refused(database, "wal", deed, false));
        }
    }
    assert!(refused > 0, "not one start was refused: were the commits in the WAL?");
    let (what, deed) = DEEDS[3];
    println!("the WAL is {what} after a stop");
    is_refused("activity", "wal", deed, true);
}

#[test]
fn an_index_that_is_gone_cut_or_exchanged_changes_nothing() {
    for (what, deed) in DEEDS {
        println!("the index is {what}");
        assert!(!is_refused("activity", "shm", deed, false));
    }
}

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new("activity", sql).bind(sequence).into()
}

/// A store with a running writer, and commands of one stream that are in the WAL of `activity` and nowhere else.
fn with_commits_in_the_log() -> Store {
    let mut store = Store::new().quiet();
    store.start();
    let mut client = store.client();
    for sequence in 1..=20 {
        assert!(matches!(client.execute(insert(sequence)).unwrap(), Outcome::Applied(_)));
    }
    store
}

fn cut(file: &Path, length: u64) {
    File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

/// Lengths to which a WAL is cut: to nothing, in the middle, by one byte.
fn shorter_lengths(file: &Path) -> [u64; 3] {
    // A commit behind a reset of the log may leave it longer than what counts in it; here it was never reset.
    let length = file.metadata().unwrap().len();
    [0, length / 2, length - 1]
}

/// The writer ended because of the cut, without a checkpoint, and the next one refuses or has all commands.
fn expect_stop_without_checkpoint(store: &mut Store, before: &[u8], commands: i64) {
    assert_eq!(store.wait_writer().code(), Some(1), "{}", store.complaints());
    let complaints = store.complaints();
    assert!(complaints.contains("activity.db-wal was cut short"), "{complaints}");
    assert!(std::fs::read(store.layout().database("activity")).unwrap() == before, "no hole was copied");
    if store.once().success() {
        // They were still in the spool.
        assert_eq!(store.number("activity", "SELECT count(*) FROM ledger WHERE client = 7"), commands);
    } else {
        let complaints = store.complaints();
        assert!(complaints.contains("activity.db is at tick"), "{complaints}");
    }
}

#[test]
fn a_log_that_is_cut_under_a_busy_writer_stops_it_before_its_next_commit() {
    for which in 0..3 {
        let mut store = with_commits_in_the_log();
        let before = std::fs::read(store.layout().database("activity")).unwrap();
        let log = beside(&store, "activity", "wal");
        let length = shorter_lengths(&log)[which];
        println!("the WAL is cut to {length} bytes");
        let mut client = store.client();
        cut(&log, length);
        let ticket = client.submit(insert(21), Durability::Queued).unwrap();
        store.wait_until("the writer's end", Store::writer_is_dead);
        assert_eq!(client.outcome(ticket).unwrap(), None, "nobody was told that it is applied");
        assert!(!store.segments().is_empty(), "it waits in the spool");
        expect_stop_without_checkpoint(&mut store, &before, 21);
    }
}

#[test]
fn a_log_that_is_cut_under_an_idle_writer_is_not_copied_when_it_is_asked_to_stop() {
    for asked in [true, false] {
        let mut store = with_commits_in_the_log();
        let before = std::fs::read(store.layout().database("activity")).unwrap();
        let log = beside(&store, "activity", "wal");
        cut(&log, shorter_lengths(&log)[1]);
        if asked {
            store.signal(rustix::process::Signal::TERM);
        }
        expect_stop_without_checkpoint(&mut store, &before, 20);
    }
}

#[test]
fn a_log_that_sqlite_itself_cuts_back_stops_nobody() {
    let mut store = Store::new();
    // It is cut back to eight times the hard bound.
    store.settings("[wal]\nbytes_soft = 65536\nbytes_hard = 131072\n");
    store.start();
    let (mut client, mut reader) = (store.client(), Reader::open(store.path()).unwrap());
    let length = |store: &Store| beside(store, "activity", "wal").metadata().unwrap().len();
    let pinned = reader.snapshot().unwrap();
    let mut sequence = 0;
    let mut execute = || {
        sequence += 1;
        assert!(matches!(client.execute(insert(sequence)).unwrap(), Outcome::Applied(_)));
    };
    while length(&store) < 12 * 131_072 {
        execute();
    }
    drop(pinned);
    while length(&store) > 8 * 131_072 {
        execute();
    }
    (0..20).for_each(|_| execute());
    store.settle_and_verify();
    assert_eq!(store.number("activity", "SELECT count(*) FROM ledger WHERE client = 7"), sequence);
}

#[test]
fn an_index_that_is_cut_under_a_running_writer_loses_nothing() {
    for length in [0, 4096, 16384] {
        let mut store = with_commits_in_the_log();
        cut(&beside(&store, "activity", "shm"), length);
        let mut client = store.client();
        client.submit(insert(21), Durability::Queued).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        println!("cut to {length} bytes: {}", if store.writer_is_dead() { "it died" } else { "it runs" });
        store.kill();
        assert!(store.once().success(), "{}", store.complaints());
        assert_eq!(store.number("activity", "SELECT count(*) FROM ledger WHERE client = 7"), 21);
    }
}

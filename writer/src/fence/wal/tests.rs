#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::cell::Cell;
use std::ffi::c_int;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::{Connection, OpenFlags, ffi};

use super::super::vfs::{VFS, register};

thread_local! {
    /// What every write of waiting frames by this thread fails with.
    pub(super) static FAILURE: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// What a writer can do to its WAL.
#[derive(Clone, Debug)]
enum Step {
    /// So many rows of so many bytes.
    Insert(u32, u32),
    /// Every row whose number this divides.
    Update(u32),
    Commit,
    RollBack,
    /// Undoes so many rows that were just added.
    UndoInsert(u32),
    Checkpoint,
    Truncate,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..60_u32, 1..9_000_u32).prop_map(|(rows, bytes)| Step::Insert(rows, bytes)),
        3 => (1..5_u32).prop_map(Step::Update),
        4 => Just(Step::Commit),
        1 => Just(Step::RollBack),
        1 => (1..60_u32).prop_map(Step::UndoInsert),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Truncate),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

/// With so small a cache, a transaction writes pages to the WAL that it reads and writes again before it commits.
fn open(path: &Path, vfs: Option<&std::ffi::CStr>) -> Connection {
    let flags = OpenFlags::default();
    let connection = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs).unwrap(),
        None => Connection::open_with_flags(path, flags).unwrap(),
    };
    connection
        .execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA cache_size = 5; \
             PRAGMA wal_autocheckpoint = 0; \
             CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, body BLOB); BEGIN",
        )
        .unwrap();
    connection
}

fn insert(connection: &Connection, rows: u32, bytes: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
               INSERT INTO note(body) SELECT zeroblob(?2 + i) FROM n";
    connection.execute(sql, (rows, bytes)).unwrap();
}

fn take(step: &Step, connection: &mut Connection, reopen: impl Fn() -> Connection) {
    match step {
        Step::Insert(rows, bytes) => insert(connection, *rows, *bytes),
        Step::Update(divisor) => {
            let sql = "UPDATE note SET body = body || x'01' WHERE id % ?1 = 0";
            connection.execute(sql, [divisor]).unwrap();
        }
        Step::Commit => connection.execute_batch("COMMIT; BEGIN").unwrap(),
        Step::RollBack => connection.execute_batch("ROLLBACK; BEGIN").unwrap(),
        Step::UndoInsert(rows) => {
            connection.execute_batch("SAVEPOINT undone").unwrap();
            insert(connection, *rows, 5_000);
            connection.execute_batch("ROLLBACK TO undone; RELEASE undone").unwrap();
        }
        Step::Checkpoint => {
            connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(passive); BEGIN").unwrap();
        }
        Step::Truncate => {
            connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(truncate); BEGIN").unwrap();
        }
        Step::Reopen => {
            // Without a second one, the last to close would copy the WAL into the database.
            let second = reopen();
            *connection = reopen();
            drop(second);
        }
    }
}

/// What anybody else finds in a database.
fn found(path: &Path) -> Digest {
    digest(&Connection::open(path).unwrap())
}

/// Of the rows: how many, what they hold; and whether SQLite finds the database sound.
type Digest = (i64, Option<i64>, Option<i64>, String);

fn digest(connection: &Connection) -> Digest {
    let sql = "SELECT count(*), sum(id * length(body)), sum(instr(body, x'01') * id), \
               (SELECT * FROM pragma_integrity_check) FROM note";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    connection.query_row(sql, [], row).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn others_find_what_they_would_find_without_waiting_frames(steps in steps()) {
        assert!(register());
        let directory = tempfile::tempdir().unwrap();
        let (ours, plain) = (directory.path().join("ours.db"), directory.path().join("plain.db"));
        let mut pair = (open(&ours, Some(VFS)), open(&plain, None));
        for step in &steps {
            take(step, &mut pair.0, || open(&ours, Some(VFS)));
            take(step, &mut pair.1, || open(&plain, None));
            prop_assert_eq!(found(&ours), found(&plain), "after {:?}", step);
        }
    }
}

/// Steps of which some find the disk full, or broken.
fn faulty_steps() -> impl Strategy<Value = Vec<(Step, Option<c_int>)>> {
    let failure = prop_oneof![3 => Just(None), 1 => Just(Some(ffi::SQLITE_FULL)), 1 => Just(Some(ffi::SQLITE_IOERR_WRITE))];
    steps().prop_flat_map(move |steps| {
        let failures = prop::collection::vec(failure.clone(), steps.len());
        failures.prop_map(move |failures| steps.iter().cloned().zip(failures).collect())
    })
}

/// Does a step that may fail; whether what came before it is committed.
fn attempt(step: &Step, connection: &Connection) -> bool {
    let sql = match step {
        Step::Insert(rows, bytes) => {
            format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
                 INSERT INTO note(body) SELECT zeroblob({bytes} + i) FROM n"
            )
        }
        Step::Update(divisor) => format!("UPDATE note SET body = body || x'01' WHERE id % {divisor} = 0"),
        Step::Commit | Step::Reopen => "COMMIT".into(),
        Step::RollBack => "ROLLBACK".into(),
        Step::UndoInsert(rows) => {
            format!("UPDATE note SET id = id + {rows} WHERE id % 7 = 0; SELECT sum(length(body)) FROM note")
        }
        Step::Checkpoint => "COMMIT; PRAGMA wal_checkpoint(passive)".into(),
        Step::Truncate => "COMMIT; PRAGMA wal_checkpoint(truncate)".into(),
    };
    let was_open = !connection.is_autocommit();
    let done = connection.execute_batch(&sql).is_ok();
    was_open && done && connection.is_autocommit() && !matches!(step, Step::RollBack)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_commit_is_whole_or_not_at_all_whatever_writes_fail(steps in faulty_steps()) {
        assert!(register());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours.db");
        let connection = open(&path, Some(VFS));
        connection.execute_batch("COMMIT").unwrap();
        let mut committed = found(&path);
        for (step, failure) in &steps {
            if connection.is_autocommit() {
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            }
            FAILURE.set(*failure);
            let is_committed = attempt(step, &connection);
            FAILURE.set(None);
            if is_committed {
                committed = digest(&connection);
            }
            prop_assert_eq!(&found(&path), &committed, "after {:?} with {:?}", step, failure);
        }
    }
}

#[test]
fn a_frame_is_in_the_file_when_its_commit_ends_and_not_before() {
    assert!(register());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ours.db");
    let connection = open(&path, Some(VFS));
    connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(truncate); BEGIN").unwrap();
    let bytes = || std::fs::metadata(directory.path().join("ours.db-wal")).unwrap().len();
    assert_eq!(bytes(), 0);
    insert(&connection, 20, 4_000);
    let header_alone = bytes();
    assert!(header_alone <= 32, "{header_alone} bytes of a transaction that is not committed");
    connection.execute_batch("COMMIT").unwrap();
    assert!(bytes() > 20 * 4_000);
    assert_eq!(found(&path).0, 20);
}

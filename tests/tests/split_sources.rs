//! The legacy file is never written to, never read while somebody writes, and shown to be the same at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

mod split_common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use penholder::split::copy_first;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, FileControl};

use crate::split_common::{Legacy, has_shell, refusal, split_ok};

const SQL: &str = "CREATE TABLE a(id INTEGER PRIMARY KEY, t);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO a SELECT i, hex(randomblob(50)) FROM n;";

/// An old program: a `sqlite3` that has the file open.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    fn open(path: &Path) -> Self {
        let mut child =
            Command::new("sqlite3").arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// Runs it, and waits until it is done.
    fn run(&mut self, sql: &str) {
        writeln!(self.stdin, "{sql}\nSELECT 'done';").unwrap();
        let mut line = String::new();
        while line.trim() != "done" {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "sqlite3 ended");
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_file_that_somebody_writes_to_is_refused_with_the_process_and_a_way_out() {
    if !has_shell() {
        return;
    }
    let legacy = Legacy::new(SQL);
    let mut shell = Shell::open(&legacy.path());
    shell.run("SELECT count(*) FROM a; BEGIN; SELECT count(*) FROM a;");
    let request = legacy.request(&[]);
    shell.run("COMMIT; BEGIN IMMEDIATE;");
    let message = refusal(&request);
    assert!(
        message.contains(&format!("process {}", shell.child.id())) && message.contains("--copy-to"),
        "{message}"
    );
    shell.run("INSERT INTO a VALUES (NULL, 'x');");
    assert!(refusal(&request).contains("is writing"));
    shell.run("COMMIT; BEGIN EXCLUSIVE;");
    assert!(refusal(&request).contains("is writing"));
    shell.run("ROLLBACK;");
    legacy.split(&legacy.request(&[]));
}

#[test]
fn a_reader_does_not_stand_in_the_way() {
    if !has_shell() {
        return;
    }
    let legacy = Legacy::new(SQL);
    let mut shell = Shell::open(&legacy.path());
    shell.run("BEGIN; SELECT count(*) FROM a;");
    legacy.split(&legacy.request(&[]));
}

#[test]
fn what_a_crash_left_in_a_journal_is_refused_and_not_rolled_back() {
    let legacy = Legacy::new(SQL);
    let connection = Connection::open(legacy.path()).unwrap();
    connection
        .execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE a SET t = 'changed half-way, over many pages, so that it spills'")
        .unwrap();
    let crashed = tempfile::tempdir().unwrap();
    for name in ["legacy.db", "legacy.db-journal"] {
        std::fs::copy(legacy.directory.path().join(name), crashed.path().join(name)).unwrap();
    }
    drop(connection);
    let mut request = legacy.request(&[]);
    request.source = crashed.path().join("legacy.db");
    let before = std::fs::read(&request.source).unwrap();
    let message = refusal(&request);
    assert!(message.contains("legacy.db-journal") && message.contains("rolled back"), "{message}");
    assert!(before == std::fs::read(&request.source).unwrap(), "the file was written to");
    // The next step that the message names.
    drop(
        Connection::open(&request.source)
            .unwrap()
            .query_row("SELECT count(*) FROM a", [], |row| row.get::<_, i64>(0)),
    );
    split_ok(&request);
}

#[test]
fn a_journal_that_is_over_does_not_stand_in_the_way() {
    for mode in ["TRUNCATE", "PERSIST"] {
        let legacy = Legacy::new(&format!("PRAGMA journal_mode = {mode}; {SQL}"));
        assert!(legacy.directory.path().join("legacy.db-journal").exists());
        legacy.split(&legacy.request(&[]));
    }
}

/// A file in WAL mode whose log holds what the file does not.
fn with_log() -> Legacy {
    let legacy = Legacy::new(SQL);
    let connection = Connection::open(legacy.path()).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
    connection.file_control(None::<&str>, FileControl::PersistWal(&mut 1)).unwrap();
    connection.execute("INSERT INTO a VALUES (100000, 'only in the log')", []).unwrap();
    legacy
}

#[test]
fn a_log_that_holds_changes_is_refused_and_a_copy_has_them() {
    let legacy = with_log();
    let mut request = legacy.request(&[]);
    let before = std::fs::read(legacy.path()).unwrap();
    let message = refusal(&request);
    assert!(message.contains("legacy.db-wal") && message.contains("--copy-to"), "{message}");
    let copy = legacy.directory.path().join("copy.db");
    copy_first(&legacy.path(), &copy).unwrap();
    assert!(before == std::fs::read(legacy.path()).unwrap(), "the file was written to");
    request.source = copy.clone();
    assert_eq!(split_ok(&request).tables[0].rows, 501);
    assert!(copy_first(&legacy.path(), &copy).unwrap_err().to_string().contains("is there already"));
}

#[test]
fn a_file_in_wal_mode_that_was_closed_is_split_and_nothing_appears_beside_it() {
    let legacy = Legacy::new(&format!("PRAGMA journal_mode = wal; {SQL}"));
    let request = legacy.request(&[]);
    // To list the tables made a log; the last one to close it takes it away.
    drop(Connection::open(legacy.path()).unwrap().execute_batch("SELECT * FROM a"));
    split_ok(&request);
    let mut names: Vec<_> =
        std::fs::read_dir(legacy.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["legacy.db", "store"]);
}

#[test]
fn what_is_no_database_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let of = |content: &[u8]| {
        let legacy = Legacy::new("CREATE TABLE a(x);");
        let mut request = legacy.request(&[]);
        request.source = directory.path().join("file");
        request.store = directory.path().join("store");
        std::fs::write(&request.source, content).unwrap();
        refusal(&request)
    };
    assert!(of(b"").contains("too short"));
    assert!(of(&[b'x'; 4096]).contains("not an SQLite database"));
    let legacy = Legacy::new(SQL);
    let mut bytes = std::fs::read(legacy.path()).unwrap();
    bytes[18..20].copy_from_slice(&[3, 3]);
    assert!(of(&bytes).contains("newer SQLite"));
    bytes[18..20].copy_from_slice(&[1, 1]);
    // The type of the first page.
    bytes[100] = 0xff;
    assert!(of(&bytes).contains("damaged"));
    let mut request = legacy.request(&[]);
    request.source = directory.path().to_owned();
    assert!(refusal(&request).contains("is not a file"));
}

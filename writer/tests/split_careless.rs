//! `penholder split` in careless hands: what is not its own is never replaced, and nothing promised is dropped.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cli_common::{Run, Store};
use rusqlite::Connection;

const FLAGS: [&str; 6] = ["--activity", "a", "--config", "c", "--orphans", "keep"];

/// A place with a legacy database of `rows` rows.
fn legacy(rows: u32) -> Store {
    let store = Store::empty();
    let connection = Connection::open(store.beside("legacy.db")).unwrap();
    let schema =
        "CREATE TABLE a (id INTEGER PRIMARY KEY, x); CREATE TABLE c (id INTEGER PRIMARY KEY, n TEXT)";
    connection.execute_batch(schema).unwrap();
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO a SELECT i, hex(randomblob(200)) FROM n";
    connection.execute(fill, [rows]).unwrap();
    store
}

fn words<'a>(source: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["split", source, "--into", "STORE"], FLAGS.as_slice(), more].concat()
}

fn split(store: &Store, more: &[&str]) -> Run {
    store.run(&words(store.beside("legacy.db").to_str().unwrap(), more))
}

#[test]
fn a_report_never_takes_the_place_of_a_database() {
    let store = legacy(3);
    let before = fs::read(store.beside("legacy.db")).unwrap();
    let inside = store.path().join("activity.db");
    for (report, because) in [
        (store.beside("legacy.db"), "is a database"),
        (store.beside("../legacy.db").join("../legacy.db"), "cannot write the report"),
        (store.beside("no-such-directory/report.json"), "cannot write the report"),
    ] {
        let run = split(&store, &["--report", report.to_str().unwrap()]).expect(2);
        assert!(run.stderr.contains(because), "{run:?}");
        assert!(!store.path().exists());
    }
    split(&store, &[]).expect(0);
    let run = split(&store, &["--force", "--report", inside.to_str().unwrap()]).expect(2);
    assert!(run.stderr.contains("inside the store"), "{run:?}");
    assert!(fs::read(store.beside("legacy.db")).unwrap() == before, "the source is not what it was");
}

#[test]
fn a_directory_with_files_of_somebody_else_is_refused_with_and_without_force() {
    let store = legacy(3);
    for name in ["activity.db", "receipts/2024.txt", "notes.txt"] {
        let file = store.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "precious").unwrap();
        for force in [[].as_slice(), &["--force"]] {
            let run = split(&store, force).expect(1);
            assert!(run.stderr.contains("belongs to no store"), "{run:?}");
            split(&store, &[force, &["--check"]].concat()).expect(3);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        fs::remove_dir_all(store.path()).unwrap();
    }
    fs::write(store.path(), "a file").unwrap();
    assert!(split(&store, &["--force"]).expect(1).stderr.contains("belongs to no store"));
}

#[test]
fn a_command_that_is_queued_while_a_store_is_being_replaced_stops_the_replacement() {
    let store = legacy(60_000);
    split(&store, &[]).expect(0);
    let source = store.beside("legacy.db");
    let replacing = store.command(&words(source.to_str().unwrap(), &["--force"])).spawn().unwrap();
    wait_for(&store.path().join(".split"));
    let insert = "INSERT INTO c VALUES (77, 'promised')";
    store.run(&["exec", "STORE", "--db", "config", "--level", "durable", insert]).expect(0);
    let output = replacing.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("not applied yet"), "{said}");
    store.run(&["serve", "STORE", "--once"]).expect(0);
    let count = store.run(&[
        "query",
        "STORE",
        "--db",
        "config",
        "SELECT count(*) AS n FROM c WHERE id = 77",
        "--json",
    ]);
    assert_eq!(count.expect(0).stdout, "{\"n\":1}\n");
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not appear", path.display());
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_pipe_in_place_of_the_database_is_refused_at_once() {
    let store = Store::empty();
    let pipe = store.beside("legacy.db");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let run = split(&store, &[]).expect(1);
    assert!(run.stderr.contains("is not a file"), "{run:?}");
}

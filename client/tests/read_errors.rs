//! What a reader says when there is nothing, or not everything, to read.

#![cfg(feature = "read")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod read_common;

use std::os::unix::fs::PermissionsExt;

use penholder_client::read::{ReadError, Reader};
use penholder_protocol::{Control, Tick};
use read_common::Store;

#[test]
fn a_directory_without_a_store_says_how_to_make_one() {
    let empty = tempfile::tempdir().unwrap();
    for path in [empty.path().to_owned(), empty.path().join("nowhere")] {
        let error = Reader::open(&path).unwrap_err();
        assert!(matches!(&error, ReadError::NoStore { path: said } if *said == path), "{error}");
        assert!(error.to_string().contains("penholder serve"), "{error}");
    }
}

#[test]
fn a_store_whose_database_is_missing_names_the_file_and_makes_none() {
    let store = Store::new();
    let activity = store.layout().database("activity");
    std::fs::remove_file(&activity).unwrap();
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(&error, ReadError::Unfinished { path, .. } if *path == activity), "{error}");
    assert!(error.to_string().contains("activity.db is missing"), "{error}");
    assert!(!activity.exists());
    let mut control = Control::read(&store.layout().control()).unwrap();
    control.databases[1].reclaimed = Tick(1);
    let file = std::fs::File::options().write(true).open(store.layout().control()).unwrap();
    control.write_to(&file, false).unwrap();
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(&error, ReadError::Missing { path } if *path == activity), "{error}");
    assert!(!error.to_string().contains("penholder serve"), "{error}");
}

#[test]
fn a_database_without_clock_and_a_control_file_without_databases_are_unfinished() {
    let store = Store::new();
    store.write_control(&["config", "activity", "empty"]);
    let empty = rusqlite::Connection::open(store.layout().database("empty")).unwrap();
    empty.execute_batch("CREATE TABLE t(x)").unwrap();
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(error, ReadError::Unfinished { what: "has no clock", .. }), "{error}");
    store.write_control(&[]);
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(error, ReadError::Unfinished { what: "names no database", .. }), "{error}");
}

#[test]
fn a_broken_control_file_and_a_file_that_is_no_database_are_named() {
    let store = Store::new();
    std::fs::write(store.layout().database("config"), "x".repeat(4096)).unwrap();
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(&error, ReadError::Open { path, .. } if path.ends_with("config.db")), "{error}");
    std::fs::write(store.layout().control(), "x".repeat(8192)).unwrap();
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(&error, ReadError::Control { path, .. } if path.ends_with("control")), "{error}");
}

#[test]
fn files_that_may_not_be_read_are_named_with_what_is_needed() {
    let store = Store::new();
    let forbid = |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let activity = store.layout().database("activity");
    forbid(&activity);
    if rustix::process::geteuid().is_root() {
        return; // Nothing is forbidden to root.
    }
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(&error, ReadError::Open { path, .. } if *path == activity), "{error}");
    forbid(&store.layout().control());
    let error = Reader::open(store.path()).unwrap_err();
    assert!(matches!(error, ReadError::Control { .. }), "{error}");
    assert!(error.to_string().contains("group"), "{error}");
}

#[test]
fn an_unknown_database_and_a_bad_statement_are_named() {
    let store = Store::new();
    let mut reader = store.reader();
    let error = reader.single("nothing").map(drop).unwrap_err();
    assert_eq!(error.to_string(), "no database \"nothing\" here; there is config, activity");
    let snapshot = reader.snapshot().unwrap();
    assert!(matches!(snapshot.tick("nothing"), Err(ReadError::UnknownDatabase { .. })));
    let error = snapshot.stream("config", "SELECT nonsense", [], |_| Ok(())).unwrap_err();
    assert!(matches!(&error, ReadError::Sql { database, .. } if database == "config"), "{error}");
}

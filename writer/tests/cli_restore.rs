//! What people see of damage, and how a store comes back from it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cli_common::{INSERT, Run, Store};
use penholder_protocol::{Control, Layout};

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let items = std::fs::read_dir(directory).unwrap().map(|item| item.unwrap().path());
    items.filter(|path| path.is_file()).collect()
}

fn insert(store: &Store, key: &str, level: &str) -> Run {
    store.run(&["exec", "STORE", "--db", "config", INSERT, key, "v", "--level", level])
}

/// A store whose `config.db` holds these bytes from this place on.
fn damaged(at: u64, bytes: &[u8]) -> Store {
    let store = Store::new();
    let file = File::options().write(true).open(store.path().join("config.db")).unwrap();
    file.write_all_at(bytes, at).unwrap();
    store
}

/// A header that is none, and a first page that is no part of a tree.
fn damages() -> [Store; 2] {
    [damaged(0, &[b'x'; 16]), damaged(100, &[0xff; 8])]
}

#[test]
fn a_damaged_segment_alone_in_the_spool_is_set_aside_before_once_is_over() {
    let store = Store::new();
    insert(&store, "k", "queued").expect(0);
    let segment = files_in(&store.path().join("spool")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written - 1] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    store.run(&["serve", "STORE", "--once"]).expect(0);
    assert!(files_in(&store.path().join("spool")).is_empty());
    assert!(store.path().join("quarantine").join(segment.file_name().unwrap()).is_file());
    assert_eq!(store.settings(), 0);
}

#[test]
fn a_damaged_database_is_a_finding_of_the_check() {
    for store in damages() {
        let run = store.run(&["check", "STORE", "--json"]).expect(3);
        let report = run.json().remove(0);
        let finding = &report["findings"][0];
        assert_eq!((&report["ok"], &finding["check"]), (&false.into(), &"integrity".into()), "{report}");
        assert_eq!(finding["subject"], "config", "{report}");
        assert!(!run.stdout.contains("group"), "permissions have nothing to do with it: {report}");
        let words = store.run(&["check", "STORE"]).expect(3).stdout;
        assert!(words.contains("integrity config: "), "{words}");
    }
}

#[test]
fn a_database_of_which_only_the_first_page_is_left_is_a_finding_too() {
    let store = Store::new();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
               INSERT INTO settings(key, value) SELECT i, 'v' FROM n";
    store.run(&["exec", "STORE", "--db", "config", sql, "--level", "queued"]).expect(0);
    store.run(&["serve", "STORE", "--once"]).expect(0);
    let path = store.path().join("config.db");
    let file = File::options().write(true).open(&path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    // All but the first, which the schema is on.
    (1..pages).for_each(|page| file.write_all_at(&[0xff; 4096], page * 4096).unwrap());
    let report = store.run(&["check", "STORE", "--json"]).expect(3).json().remove(0);
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["check"] == "integrity"), "{report}");
    assert!(findings.iter().all(|finding| finding["subject"] == "config"), "{report}");
}

#[test]
fn a_start_on_a_damaged_database_ends_at_once_and_says_what_to_do() {
    for store in damages() {
        let said = store.run(&["serve", "STORE", "--once"]).expect(1).stderr;
        assert!(!said.contains("stalled"), "{said}");
        for part in ["config.db", "penholder check", "backup"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
}

#[test]
fn a_schema_that_is_not_there_is_refused_before_anything_is_made() {
    let store = Store::empty();
    let said = store.run(&["serve", "STORE", "--schema", "/nonexistent"]).expect(2).stderr;
    assert!(said.contains("/nonexistent") && said.contains("--schema"), "{said}");
    let mut command = store.command(&["serve", "STORE"]);
    let said = Run::of(&command.env("PENHOLDER_SCHEMA", "/nonexistent").output().unwrap()).expect(2).stderr;
    assert!(said.contains("/nonexistent") && said.contains("PENHOLDER_SCHEMA"), "{said}");
    assert!(!store.path().exists());
}

/// The databases of a backup of `store` in a directory in which nothing else is.
fn restored(store: &Store) -> Store {
    let backup = store.beside("backup");
    store.run(&["backup", "STORE", "--to", backup.to_str().unwrap()]).expect(0);
    let fresh = Store::empty();
    std::fs::create_dir(fresh.path()).unwrap();
    std::fs::set_permissions(fresh.path(), Permissions::from_mode(0o750)).unwrap();
    for name in ["config.db", "activity.db"] {
        std::fs::copy(backup.join(name), fresh.path().join(name)).unwrap();
    }
    fresh
}

fn control(store: &Store) -> Control {
    Control::read(&Layout::new(store.path()).control()).unwrap()
}

#[test]
fn databases_of_a_backup_are_served_in_a_fresh_directory_once_that_is_asked_for() {
    let store = Store::new();
    // So that the databases know of several epochs, and of a stream of the last.
    for key in ["a", "b", "c"] {
        insert(&store, key, "queued").expect(0);
        store.run(&["serve", "STORE", "--once"]).expect(0);
    }
    let fresh = restored(&store);
    let said = fresh.run(&["serve", "STORE", "--once"]).expect(1).stderr;
    assert!(said.contains("--accept-rollback"), "{said}");
    assert!(!fresh.path().join("control").exists(), "it would stand in the way of the next start");
    fresh.run(&["serve", "STORE", "--once", "--accept-rollback"]).expect(0);
    assert_eq!(control(&fresh).store, control(&store).store);
    assert!(control(&fresh).epoch > control(&store).epoch);
    insert(&fresh, "d", "queued").expect(0);
    fresh.run(&["serve", "STORE", "--once"]).expect(0);
    assert_eq!(fresh.settings(), 4);
    assert!(files_in(&fresh.path().join("quarantine")).is_empty());
    fresh.run(&["check", "STORE"]).expect(0);
}

#[test]
fn databases_that_do_not_belong_together_are_refused_before_a_control_file_is_made() {
    let store = Store::new();
    for other in [None, Some(Store::new())] {
        let fresh = restored(&store);
        let config = fresh.path().join("config.db");
        std::fs::remove_file(&config).unwrap();
        if let Some(other) = other {
            std::fs::copy(other.path().join("config.db"), &config).unwrap();
        }
        let said = fresh.run(&["serve", "STORE", "--once", "--accept-rollback"]).expect(1).stderr;
        assert!(said.contains("config.db is of") && said.contains("one backup"), "{said}");
        assert!(!fresh.path().join("control").exists());
        std::fs::remove_dir_all(store.beside("backup")).unwrap();
    }
}

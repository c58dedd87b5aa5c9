//! A store in which a database is missing, or is not the one that belongs there: nobody makes do with it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use std::path::{Path, PathBuf};

use cli_common::old::Old;
use cli_common::{INSERT, Store};

/// A database and what lies beside it.
fn files_of(store: &Path, database: &str) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| store.join(format!("{database}.db{suffix}")))
}

/// Takes a database away, and sees that nothing takes its place; gives it back.
fn expect_nothing_in_the_place_of(store: &Store, database: &str) {
    let files = files_of(&store.path(), database);
    let aside = store.beside("aside");
    std::fs::create_dir(&aside).unwrap();
    let there: Vec<_> = files.iter().filter(|path| path.exists()).collect();
    let away = |path: &Path| aside.join(path.file_name().unwrap());
    for path in &there {
        std::fs::rename(path, away(path)).unwrap();
    }
    for words in [&["serve", "STORE", "--once"][..], &["serve", "STORE", "--once", "--accept-rollback"]] {
        let said = store.run(words).expect(1).stderr;
        assert!(said.contains(&format!("{database}.db is missing; put it back")), "{said}");
        assert!(files.iter().all(|path| !path.exists()), "nothing was made in its place");
    }
    for path in &there {
        std::fs::rename(away(path), path).unwrap();
    }
    std::fs::remove_dir(&aside).unwrap();
}

#[test]
fn a_database_that_is_missing_is_not_made_anew() {
    let store = Store::new();
    expect_nothing_in_the_place_of(&store, "activity");
    store.run(&["serve", "STORE", "--once"]).expect(0);
    expect_nothing_in_the_place_of(&store, "config");
    store.run(&["serve", "STORE", "--once"]).expect(0);
    store.run(&["check", "STORE"]).expect(0);
}

#[test]
fn a_database_that_is_missing_right_after_a_split_is_not_made_anew() {
    let old = Old::new();
    old.done();
    expect_nothing_in_the_place_of(&old.0, "activity");
    expect_nothing_in_the_place_of(&old.0, "config");
    old.0.run(&["serve", "STORE", "--once"]).expect(0);
}

/// Puts the files of two databases in each other's place.
fn swap(store: &Store) {
    let [config, activity] = ["config", "activity"].map(|name| store.path().join(format!("{name}.db")));
    let aside = store.beside("aside");
    std::fs::rename(&config, &aside).unwrap();
    std::fs::rename(&activity, &config).unwrap();
    std::fs::rename(&aside, &activity).unwrap();
}

fn identities(store: &Store) -> Vec<String> {
    let report = store.run(&["check", "STORE", "--json"]).expect(3).json().remove(0);
    let findings = report["findings"].as_array().unwrap().iter();
    let found = findings.filter(|finding| finding["check"] == "identity");
    found.map(|finding| format!("{}: {}", finding["subject"], finding["message"])).collect()
}

#[test]
fn databases_in_each_others_place_are_refused_and_found() {
    let old = Old::new();
    old.done();
    for store in [&Store::new(), &old.0] {
        for once_more in [true, false] {
            swap(store);
            let said = store.run(&["serve", "STORE", "--once"]).expect(1).stderr;
            assert!(said.contains("config.db is the database activity of this store"), "{said}");
            let found = identities(store);
            assert!(found[0].contains("it is the database activity of this store"), "{found:?}");
            assert!(found[1].contains("it is the database config of this store"), "{found:?}");
            let said = store.run(&["query", "STORE", "--db", "config", "SELECT 1"]).expect(1).stderr;
            assert!(said.contains("config.db is the database activity of this store"), "{said}");
            swap(store);
            if once_more {
                // Now all of them have been written by a writer.
                store.run(&["serve", "STORE", "--once"]).expect(0);
            }
        }
        let said = store.run(&["check", "STORE"]).stdout;
        assert!(said.contains("2 databases") && !said.contains("identity"), "{said}");
    }
}

#[test]
fn a_database_that_is_copied_over_another_is_refused_and_found() {
    let store = Store::new();
    let [config, activity] = ["config.db", "activity.db"].map(|name| store.path().join(name));
    std::fs::copy(config, &activity).unwrap();
    let said = store.run(&["serve", "STORE", "--once", "--accept-rollback"]).expect(1).stderr;
    assert!(said.contains("activity.db is the database config of this store"), "{said}");
    assert!(identities(&store)[0].starts_with("\"activity\""));
}

#[test]
fn databases_of_a_backup_in_each_others_place_are_refused_before_a_control_file_is_made() {
    let store = Store::new();
    std::fs::remove_file(store.path().join("control")).unwrap();
    swap(&store);
    let said = store.run(&["serve", "STORE", "--once", "--accept-rollback"]).expect(1).stderr;
    assert!(said.contains("config.db is the database activity"), "{said}");
    assert!(!store.path().join("control").exists());
    swap(&store);
    store.run(&["serve", "STORE", "--once", "--accept-rollback"]).expect(0);
}

#[test]
fn a_database_of_a_backup_that_goes_missing_after_the_control_file_is_made_is_not_made_anew() {
    let store = Store::new();
    std::fs::remove_file(store.path().join("control")).unwrap();
    // It dies once it has made the control file anew.
    let mut command = store.command(&["serve", "STORE", "--once", "--accept-rollback"]);
    assert!(!command.env("PENHOLDER_CRASH_AT", "after_floor").output().unwrap().status.success());
    expect_nothing_in_the_place_of(&store, "activity");
    store.run(&["serve", "STORE", "--once", "--accept-rollback"]).expect(0);
}

#[test]
fn a_first_start_that_was_killed_with_some_databases_made_is_finished_by_the_next() {
    for point in ["after_floor", "during_recovery"] {
        for made in [&[][..], &["config"], &["config", "activity"]] {
            let store = Store::empty();
            let mut command = store.command(&["serve", "STORE", "--once"]);
            assert!(!command.env("PENHOLDER_CRASH_AT", point).output().unwrap().status.success());
            // As if it had been killed before it came to the others.
            for database in ["config", "activity"].into_iter().filter(|name| !made.contains(name)) {
                for path in files_of(&store.path(), database) {
                    std::fs::remove_file(path).unwrap();
                }
            }
            store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v", "--level", "queued"]).expect(0);
            store.run(&["serve", "STORE", "--once"]).expect(0);
            assert_eq!(store.settings(), 1, "{point}, {made:?}");
            store.run(&["check", "STORE"]).expect(0);
        }
    }
}

/// `serve` refuses, and neither `check` nor `query` says that it would recover.
fn expect_no_false_hope(store: &Store, check: &str) {
    store.run(&["serve", "STORE", "--once"]).expect(1);
    let said = store.run(&["check", "STORE"]).expect(3).stdout;
    assert!(said.contains(check) && !said.contains("it recovers"), "{said}");
    assert!(said.contains(", 1 finding"), "{said}");
    let run = store.run(&["query", "STORE", "--db", "config", "SELECT 1"]);
    assert!(run.code == 0 || !run.stderr.contains("recovers") && !run.stderr.contains("serve"), "{run:?}");
}

#[test]
fn an_older_database_is_not_said_to_recover() {
    let store = Store::new();
    for name in ["activity.db", "config.db"] {
        std::fs::copy(store.path().join(name), store.beside(name)).unwrap();
    }
    for _ in 0..2 {
        store.run(&["serve", "STORE", "--once"]).expect(0);
    }
    for name in ["activity.db", "config.db"] {
        let (path, newer) = (store.path().join(name), store.beside("newer"));
        std::fs::rename(&path, &newer).unwrap();
        std::fs::copy(store.beside(name), &path).unwrap();
        expect_no_false_hope(&store, "replaced by an older");
        std::fs::rename(&newer, &path).unwrap();
    }
    store.run(&["serve", "STORE", "--once"]).expect(0);
}

#[test]
fn a_database_of_another_store_is_not_said_to_recover() {
    let (store, other) = (Store::new(), Store::new());
    // Now it looks like a death between the commits.
    store.run(&["serve", "STORE", "--once"]).expect(0);
    std::fs::copy(other.path().join("activity.db"), store.path().join("activity.db")).unwrap();
    expect_no_false_hope(&store, "identity activity: it belongs to the store");
}

#[test]
fn a_database_that_is_missing_is_a_finding() {
    let store = Store::new();
    std::fs::remove_file(store.path().join("activity.db")).unwrap();
    expect_no_false_hope(&store, "activity.db is missing; put it back");
}

//! `penholder split --check`: the plan, and that it refuses where the split would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use rusqlite::Connection;

use crate::cli_common::Run;
use crate::cli_common::old::{DECIDED, Old};

#[test]
fn a_check_shows_the_plan_changes_nothing_and_ends_with_3_if_the_split_would_refuse() {
    let old = Old::new();
    let before = std::fs::read(old.0.beside("legacy.db")).unwrap();
    let run = old.split(&["--check"]).expect(3);
    for part in [
        "notes",
        "a proposal",
        "declared, on delete set null",
        "left behind: view both_sides",
        "CREATE VIEW both_sides",
        "disk:",
        "nobody has assigned: notes",
        "--activity notes",
        "--orphans keep",
        "activity = [\"activity_sessions\", \"notes\"]",
    ] {
        assert!(run.stdout.contains(part), "no {part} in\n{}", run.stdout);
    }
    old.split(&["--check", "--activity", "notes"]).expect(3);
    let run = old.split(&["--check", "--activity", "notes", "--orphans", "keep"]).expect(0);
    assert!(run.stdout.contains("ready:") && !run.stdout.contains("virtual"), "{}", run.stdout);
    assert!(!old.0.path().exists() && before == std::fs::read(old.0.beside("legacy.db")).unwrap());
}

#[test]
fn a_check_says_whose_the_rows_of_a_virtual_table_are() {
    let old = Old::new();
    old.change("CREATE VIRTUAL TABLE ft USING fts5(body)");
    let run = old.split(&["--check", "--activity", "ft"]).expect(3);
    assert!(run.stdout.contains("rows and bytes of a virtual table are those of"), "{}", run.stdout);
}

#[test]
fn a_plan_as_json_has_everything_in_it() {
    let old = Old::new();
    let plan = &old.split(&["--check", "--json"]).expect(3).json()[0];
    assert_eq!(plan["schema"], 1);
    let notes = plan["tables"].as_array().unwrap().iter().find(|table| table["table"] == "notes").unwrap();
    assert_eq!(
        (&notes["rows"], &notes["said"], &notes["bytes"]),
        (&2.into(), &"proposal".into(), &4096.into())
    );
    let reference = &plan["references"][0];
    assert_eq!((&reference["orphans"], &reference["orphan_keys"][0]), (&1.into(), &"2".into()));
    assert!(plan["needed_bytes"].as_u64() == Some(2 * plan["source"]["bytes"].as_u64().unwrap()));
    assert!(plan["free_bytes"].as_u64().unwrap() > 0 && plan["estimated_seconds"].as_f64().is_some());
    assert_eq!(plan["refusals"].as_array().unwrap().len(), 2);
}

#[test]
fn a_table_that_nobody_assigned_is_an_error_that_lists_it() {
    let old = Old::new();
    let run = old.split(&["--orphans", "keep"]).expect(1);
    assert!(run.stderr.contains("nobody has assigned: notes") && run.stdout.is_empty(), "{run:?}");
    assert!(!old.0.path().exists());
    let run = old.split(&["--activity", "nots", "--orphans", "keep"]).expect(1);
    assert!(run.stderr.contains("nots") && run.stderr.contains("name one of: projects"), "{run:?}");
    let run = old.split(&["--activity", "notes", "--config", "NOTES"]).expect(1);
    assert!(run.stderr.contains("two places"), "{run:?}");
}

#[test]
fn a_map_assigns_and_flags_go_over_it() {
    let old = Old::new();
    let map = old.0.beside("map.toml");
    std::fs::write(&map, "config = [\"notes\"]\ndrop = [\"activity_sessions\"]\n").unwrap();
    let words = ["--map", map.to_str().unwrap(), "--check", "--json"];
    let sides = |run: Run| -> Vec<String> {
        let plan = run.json().remove(0);
        let tables = plan["tables"].as_array().unwrap().clone();
        tables
            .iter()
            .map(|table| format!("{} {} {}", table["table"], table["side"], table["said"]).replace('"', ""))
            .collect()
    };
    assert_eq!(
        sides(old.split(&words).expect(0)),
        ["projects config built_in", "activity_sessions drop map", "notes config map"]
    );
    let run = old.split(&[&words[..], &["--activity", "notes", "--drop", "projects"]].concat()).expect(0);
    assert_eq!(sides(run), ["projects drop flag", "activity_sessions drop map", "notes activity flag"]);
    std::fs::write(&map, "[tables]\nnotes = \"activity\"\n").unwrap();
    assert_eq!(
        sides(old.split(&[&words[..], &["--orphans", "keep"]].concat()).expect(0))[2],
        "notes activity map"
    );
    std::fs::write(&map, "activty = []\n").unwrap();
    let run = old.split(&words).expect(3);
    assert!(run.stdout.contains("map.toml") && run.stdout.contains("activty"), "{run:?}");
}

#[test]
fn a_check_ends_with_3_wherever_the_split_would_refuse_and_changes_nothing() {
    let old = Old::new();
    let says = |words: &[&str], part: &str| {
        let before = names(&old);
        let run = old.split(&[&DECIDED[..], &["--check"], words].concat()).expect(3);
        assert!(format!("{}{}", run.stdout, run.stderr).contains(part), "no {part} in {run:?}");
        assert_eq!(before, names(&old), "something changed");
    };
    let wal = old.0.beside("legacy.db-wal");
    std::fs::write(&wal, "changes").unwrap();
    says(&[], "legacy.db-wal holds changes");
    let run = old.split(&["--check", "--json"]).expect(3);
    assert!(run.json()[0]["refusals"][0].as_str().unwrap().contains("legacy.db-wal"), "{run:?}");
    let copy = old.0.beside("copy.db");
    old.split(&["--check", "--copy-to", copy.to_str().unwrap()]).expect(2);
    assert!(!copy.exists(), "a check took a copy");
    std::fs::rename(&wal, old.0.beside("legacy.db-journal")).unwrap();
    says(&[], "crash in the middle of a write");
    std::fs::remove_file(old.0.beside("legacy.db-journal")).unwrap();
    let locked = Connection::open(old.0.beside("legacy.db")).unwrap();
    locked.execute_batch("BEGIN EXCLUSIVE").unwrap();
    says(&[], "is writing to");
    drop(locked);
    says(&["--drop", "nowhere"], "does not have");
    std::fs::write(old.0.beside("legacy.db.retired"), "").unwrap();
    says(&["--retire"], "legacy.db.retired is there already");
    let writer = old.0.serve();
    let run = old.split(&[&DECIDED[..], &["--check", "--force"]].concat()).expect(3);
    assert!(run.stdout.contains("a writer serves"), "{run:?}");
    assert_eq!(writer.stop(), 0);
    std::fs::write(old.0.beside("legacy.db"), "not a database, but long enough to have a header").unwrap();
    says(&[], "legacy.db is too short to be a database");
}

/// What lies beside the legacy database.
fn names(old: &Old) -> Vec<std::ffi::OsString> {
    let directory = old.0.beside("legacy.db").parent().unwrap().to_owned();
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_check_of_what_was_split_already_says_that_nothing_would_be_done() {
    let old = Old::new();
    old.done();
    let run = old.split(&[&DECIDED[..], &["--check"]].concat()).expect(0);
    assert!(run.stdout.contains("would say so and do nothing"), "{run:?}");
}

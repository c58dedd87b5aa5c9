//! `penholder split` and `penholder diff` as people and scripts use them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use serde_json::Value;

use crate::cli_common::old::{DECIDED, Old};

#[test]
fn a_split_ends_with_a_table_and_the_next_steps_and_a_report_as_json() {
    let old = Old::new();
    let file = old.0.beside("report.json");
    let run = old.split(&[&DECIDED[..], &["--report", file.to_str().unwrap()]].concat()).expect(0);
    for part in [
        "table",
        "digest",
        "seconds",
        "total",
        "integrity_check and foreign_key_check ok",
        "unchanged, blake3",
        "penholder serve",
        "0440",
        "to go back",
    ] {
        assert!(run.stdout.contains(part), "no {part} in\n{}", run.stdout);
    }
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        (&report["ok"], &report["schema"], &report["orphans"]),
        (&true.into(), &1.into(), &"keep".into())
    );
    for table in report["tables"].as_array().unwrap() {
        assert_eq!(
            (&table["digest"], &table["rows"]),
            (&table["source_digest"], &table["source_rows"]),
            "{table}"
        );
    }
    assert_eq!(report["left_behind"][0]["name"], "both_sides");
    let record: Value =
        serde_json::from_slice(&std::fs::read(old.0.path().join("split.json")).unwrap()).unwrap();
    assert_eq!(record["store_id"], report["store_id"]);
}

#[test]
fn a_second_run_says_so_and_does_nothing() {
    let old = Old::new();
    let report = old.split(&[&DECIDED[..], &["--json"]].concat()).expect(0).json().remove(0);
    let control = std::fs::read(old.0.path().join("control")).unwrap();
    let run = old.split(&[]).expect(0);
    assert!(run.stdout.contains("is there already") && run.stdout.contains("nothing was done"), "{run:?}");
    let again = old.split(&["--json"]).expect(0).json().remove(0);
    assert_eq!((&again["already"], &again["store_id"]), (&true.into(), &report["store_id"]));
    assert_eq!(control, std::fs::read(old.0.path().join("control")).unwrap());
    old.change("INSERT INTO notes VALUES (3, 'written by an old program')");
    let run = old.split(&[]).expect(0);
    assert!(run.stderr.contains("has changed since"), "{run:?}");
    let run = old.split(&["--retire"]).expect(1);
    assert!(run.stderr.contains("not retired") && old.0.beside("legacy.db").exists(), "{run:?}");
}

#[test]
fn another_store_is_never_overwritten_without_force() {
    let old = Old::new();
    old.0.run(&["serve", "STORE", "--once"]).expect(0);
    let run = old.split(&DECIDED).expect(1);
    assert!(run.stderr.contains("is a store already") && run.stderr.contains("--force"), "{run:?}");
    old.split(&[&DECIDED[..], &["--check"]].concat()).expect(3);
    old.split(&[&DECIDED[..], &["--force"]].concat()).expect(0);
}

#[test]
fn a_store_with_commands_that_wait_is_not_replaced() {
    let old = Old::new();
    old.0.run(&["serve", "STORE", "--once"]).expect(0);
    let waiting = cli_common::line("k");
    old.0.feed(&["exec", "STORE", "--stdin", "--level", "queued"], &waiting).expect(0);
    let run = old.split(&[&DECIDED[..], &["--force"]].concat()).expect(1);
    assert!(run.stderr.contains("not applied yet") && run.stderr.contains("serve STORE --once"), "{run:?}");
    let writer = old.0.serve();
    old.split(&[&DECIDED[..], &["--force"]].concat()).expect(4);
    assert_eq!(writer.stop(), 0);
    assert_eq!(old.0.settings(), 1, "it was applied");
}

#[test]
fn a_retired_file_is_renamed_and_can_no_longer_be_written() {
    let old = Old::new();
    let run = old.split(&[&DECIDED[..], &["--retire"]].concat()).expect(0);
    assert!(run.stdout.contains("legacy.db.retired, read-only"), "{}", run.stdout);
    assert!(!old.0.beside("legacy.db").exists());
    let mode = std::fs::metadata(old.0.beside("legacy.db.retired")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o440);
    let run = old.split(&["--retire"]).expect(0);
    assert!(run.stdout.contains("is there already"), "{run:?}");
}

#[test]
fn the_writer_works_on_the_store_and_applies_new_commands() {
    let old = Old::new();
    // Without a reference: whether those are enforced is another matter.
    old.change(
        "DROP VIEW both_sides; DROP TABLE projects; CREATE TABLE settings(key TEXT PRIMARY KEY, value TEXT);",
    );
    old.split(&["--activity", "notes"]).expect(0);
    old.0.run(&["check", "STORE"]).expect(0);
    old.0.run(&["status", "STORE"]).expect(0);
    let rows =
        old.0.run(&["query", "STORE", "--db", "activity", "SELECT count(*) AS n FROM notes", "--json"]);
    assert_eq!(rows.expect(0).json()[0]["n"], 2, "it can be read before a writer ran");
    // A client may come before the first writer, too.
    old.0.feed(&["exec", "STORE", "--stdin", "--level", "durable"], &cli_common::line("early")).expect(0);
    let writer = old.0.serve();
    let insert = "INSERT INTO notes(body) VALUES ('new') RETURNING id";
    let run = old.0.run(&["exec", "STORE", "--db", "activity", insert, "--json"]).expect(0);
    assert_eq!(run.json()[0]["results"][0]["rows"][0][0], 3, "{run:?}");
    assert_eq!(old.0.settings(), 1);
    assert_eq!(writer.stop(), 0);
    old.0.run(&["check", "STORE"]).expect(0);
    // The schema is its own: nothing built in was made beside it, and migrations go on from here.
    let tables =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_penholder%' ESCAPE '\\'";
    let run = old.0.run(&["query", "STORE", "--db", "config", tables, "--json"]).expect(0);
    assert_eq!(
        run.json().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        ["settings"]
    );
    let schema = old.0.beside("schema");
    std::fs::create_dir_all(schema.join("activity")).unwrap();
    std::fs::write(schema.join("activity/001_more.sql"), "ALTER TABLE notes ADD COLUMN more TEXT;").unwrap();
    old.0.run(&["serve", "STORE", "--once", "--schema", schema.to_str().unwrap()]).expect(0);
    old.0.run(&["query", "STORE", "--db", "activity", "SELECT more FROM notes"]).expect(0);
}

#[test]
fn quiet_says_nothing_and_json_is_one_object() {
    let old = Old::new();
    let run = old.split(&[&DECIDED[..], &["--quiet"]].concat()).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[test]
fn after_a_copy_the_next_steps_are_about_the_file_that_the_old_program_uses() {
    let old = Old::new();
    let (legacy, copy) = (old.0.beside("legacy.db"), old.0.beside("copy.db"));
    let run = old.split(&[&DECIDED[..], &["--copy-to", copy.to_str().unwrap()]].concat()).expect(0);
    let legacy = legacy.display();
    assert!(run.stdout.contains(&format!("mv {legacy} {legacy}.retired:")), "{run:?}");
    assert!(run.stdout.contains(&format!("what is written to {legacy} since")), "{run:?}");
    assert!(!run.stdout.contains(&format!("mv {}", copy.display())), "{run:?}");
}

#[test]
fn commands_write_to_full_text_and_spatial_tables_that_were_carried_over() {
    let old = Old::new();
    old.change(
        "CREATE VIRTUAL TABLE ft USING fts5(body); INSERT INTO ft(rowid, body) SELECT id, body FROM notes;
         CREATE TRIGGER fill AFTER INSERT ON notes BEGIN INSERT INTO ft(rowid, body) VALUES (new.id, new.body); END;
         CREATE VIRTUAL TABLE box USING rtree(id, a, b);",
    );
    let words = ["--activity", "notes", "--activity", "ft", "--activity", "box", "--orphans", "null"];
    old.split(&words).expect(0);
    let writer = old.0.serve();
    let exec = |sql: &str| old.0.run(&["exec", "STORE", "--db", "activity", sql]);
    exec("INSERT INTO notes(id, body) VALUES (7, 'horses')").expect(0);
    exec("INSERT INTO ft(rowid, body) VALUES (8, 'a horse')").expect(0);
    exec("UPDATE ft SET body = 'no horses' WHERE rowid = 8").expect(0);
    exec("DELETE FROM ft WHERE rowid = 1").expect(0);
    exec("INSERT INTO box VALUES (1, 2, 3)").expect(0);
    let tx = r#"{"tx":[{"db":"activity","sql":"INSERT INTO ft(rowid, body) VALUES (9, 'horses')"},{"db":"config","sql":"INSERT INTO projects VALUES (5, 'five')"}]}"#;
    old.0.feed(&["exec", "STORE", "--stdin"], &format!("{tx}\n")).expect(0);
    let sql = "SELECT group_concat(rowid) AS rows FROM (SELECT rowid FROM ft WHERE ft MATCH 'horses' ORDER BY rowid)";
    let run = old.0.run(&["query", "STORE", "--db", "activity", sql, "--json"]).expect(0);
    assert_eq!(run.json()[0]["rows"], "7,8,9");
    exec("INSERT INTO notes(body) SELECT data_version FROM pragma_data_version").expect(6);
    exec("INSERT INTO notes(body) SELECT data_version FROM PRAGMA_Data_Version").expect(6);
    assert_eq!(writer.stop(), 0);
    old.0.run(&["check", "STORE"]).expect(0);
}

#[test]
fn diff_compares_by_content_and_lists_keys() {
    let old = Old::new();
    old.done();
    let run = old.diff("activity.db", &[]).expect(0);
    assert!(
        run.stdout.contains("same    notes: 2 rows") && run.stderr.contains("projects (only in"),
        "{run:?}"
    );
    old.change("UPDATE notes SET body = 'z' WHERE id = 1; DELETE FROM notes WHERE id = 2; INSERT INTO notes VALUES (3, 'n')");
    let run = old.diff("activity.db", &["notes"]).expect(3);
    for part in
        ["3 differences by id", "changed            1", "only in the second 2", "only in the first  3"]
    {
        assert!(run.stdout.contains(part), "no {part} in\n{}", run.stdout);
    }
    let line = old.diff("activity.db", &["notes", "--json", "--limit", "1"]).expect(3).json().remove(0);
    assert_eq!((&line["differences_count"], line["differences"].as_array().unwrap().len()), (&3.into(), 1));
    let run = old.diff("activity.db", &["nowhere"]).expect(1);
    assert!(run.stderr.contains("has no table nowhere"), "{run:?}");
    let run = old.diff("config.db", &["notes"]).expect(1);
    assert!(run.stderr.contains("config.db has no table notes"), "{run:?}");
}

#[test]
fn diff_sees_storage_classes_and_keys_of_every_kind() {
    let old = Old::new();
    let other = old.0.beside("other.db");
    let tables = "CREATE TABLE w(a TEXT, b, v, PRIMARY KEY (a, b)) WITHOUT ROWID; CREATE TABLE r(v); CREATE TABLE c(x);";
    old.change(&format!(
        "{tables} INSERT INTO w VALUES ('k', 1, 1), ('k', 2, x'00'); INSERT INTO r VALUES ('1'), (2);"
    ));
    let connection = Connection::open(&other).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA encoding = 'UTF-16le'; {} INSERT INTO w VALUES ('k', 1, 1.0), ('k', 2, x'00'); \
             INSERT INTO r VALUES (1), (2);",
            tables.replace("c(x)", "c(y)")
        ))
        .unwrap();
    drop(connection);
    let (a, b) = (old.0.beside("legacy.db"), other);
    let run = old.0.run(&["diff", a.to_str().unwrap(), b.to_str().unwrap(), "w", "r", "c"]).expect(3);
    for part in [
        "changed            'k', 1",
        "1 difference by a, b",
        "1 difference by rowid",
        "columns are not the same",
    ] {
        assert!(run.stdout.contains(part), "no {part} in\n{}", run.stdout);
    }
}

#[test]
fn diff_names_the_file_that_is_no_database() {
    let old = Old::new();
    let text = old.0.beside("schema.sql");
    std::fs::write(
        &text,
        "CREATE TABLE t(a); -- long enough to be taken for the header of a database ".repeat(20),
    )
    .unwrap();
    let a = old.0.beside("legacy.db");
    let run = old.0.run(&["diff", a.to_str().unwrap(), text.to_str().unwrap()]).expect(1);
    let said = format!("cannot compare {}: file is not a database; name a database", text.display());
    assert!(run.stderr.contains(&said), "{run:?}");
}

#[test]
fn the_writer_enforces_the_references_that_were_foreign_keys() {
    let old = Old::new();
    old.done();
    let writer = old.0.serve();
    let insert = |id: &str, project: &str| {
        let sql = "INSERT INTO activity_sessions VALUES (?1, 'x', ?2)";
        old.0.run(&["exec", "STORE", "--db", "activity", sql, id, project])
    };
    insert("3", "1").expect(0);
    insert("4", "77").expect(6);
    let delete = "DELETE FROM projects WHERE id = 1";
    old.0.run(&["exec", "STORE", "--db", "config", delete]).expect(0);
    let sql = "SELECT group_concat(id || ':' || ifnull(project_id, '-'), ' ') AS rows FROM activity_sessions";
    let rows = old.0.run(&["query", "STORE", "--db", "activity", sql, "--json"]).expect(0);
    // What was set to NULL refers to nothing; the orphan that was kept is as it was.
    assert_eq!(rows.json()[0]["rows"], "1:- 2:9 3:-");
    assert_eq!(writer.stop(), 0);
}

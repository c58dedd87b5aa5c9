//! `[grants]` and `[[references]]` in `penholder.toml`: what a client hears, what is refused, printed and found.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cli_common::{Run, Store};

/// A uid that no test machine gives to anybody.
const STRANGER: u32 = 47_110;

/// Roles of an activity tracker; the grants go in front.
const ROLES: &str = r#"
[roles.daemon]
"activity.activity_events" = ["insert"]
"activity.activity_sessions" = ["insert", "update", "select"]
[roles.app]
"config.*" = ["select", "insert", "update", "delete"]
"activity.*" = ["select"]
"#;

fn settings(store: &Store, grants: &str) {
    std::fs::create_dir_all(store.path()).unwrap();
    std::fs::write(store.path().join("penholder.toml"), format!("[grants]\n{grants}\n{ROLES}")).unwrap();
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn exec(store: &Store, database: &str, sql: &str) -> Run {
    store.run(&["exec", "STORE", "--db", database, sql, "--json"])
}

#[test]
fn a_denied_statement_is_an_outcome_that_names_role_table_and_verb() {
    let store = Store::empty();
    settings(&store, &format!("\"user:{}\" = \"daemon\"", own_uid()));
    let _writer = store.serve();
    let insert = "INSERT INTO activity_events (at, kind) VALUES (1, 'focus')";
    exec(&store, "activity", insert).expect(0);
    for (database, sql, message) in [
        ("activity", "DELETE FROM activity_events", "role daemon has no delete on activity.activity_events"),
        (
            "activity",
            "REPLACE INTO activity_sessions (id, started_at, app) VALUES (1, 2, 'x')",
            "role daemon has no delete on activity.activity_sessions",
        ),
        (
            "activity",
            "INSERT INTO activity_events (at, kind) VALUES (1, 'x') RETURNING id",
            "role daemon has no select on activity.activity_events",
        ),
        ("config", "INSERT INTO settings (key) VALUES ('k')", "role daemon has no insert on config.settings"),
        ("config", "SELECT count(*) FROM sqlite_schema", "role daemon has no select on config.sqlite_schema"),
    ] {
        let outcome = exec(&store, database, sql).expect(6).json().remove(0);
        assert_eq!((&outcome["code"], &outcome["message"]), (&"grant".into(), &message.into()), "{outcome}");
    }
    let run = store.run(&[
        "query",
        "STORE",
        "--db",
        "activity",
        "SELECT count(*) AS n FROM activity_events",
        "--json",
    ]);
    assert_eq!(run.expect(0).json()[0]["n"], 1);
}

#[test]
fn a_command_over_both_databases_is_denied_as_a_whole() {
    let store = Store::empty();
    settings(&store, &format!("\"user:{}\" = \"daemon\"", own_uid()));
    let _writer = store.serve();
    let line = r#"{"tx":[{"db":"activity","sql":"INSERT INTO activity_events (at, kind) VALUES (1, 'x')"},
        {"db":"config","sql":"INSERT INTO settings (key) VALUES ('k')"}]}"#
        .replace('\n', " ");
    let outcome = store.feed(&["exec", "STORE", "--stdin"], &line).expect(6).json().remove(0);
    assert_eq!((&outcome["code"], &outcome["statement"]), (&"grant".into(), &1.into()), "{outcome}");
    let run = store.run(&[
        "query",
        "STORE",
        "--db",
        "activity",
        "SELECT count(*) AS n FROM activity_events",
        "--json",
    ]);
    assert_eq!(run.expect(0).json()[0]["n"], 0);
}

#[test]
fn serve_refuses_a_mistake_with_its_entry_and_what_there_is() {
    for (grants, roles, said) in [
        ("\"user:nobody at all\" = \"app\"", "", "[grants] \"user:nobody at all\""),
        ("\"user:1\" = \"apps\"", "", "there is no role \"apps\"; there are app"),
        (
            "",
            "\"activity.evnts\" = [\"insert\"]",
            "activity.db has no table \"evnts\"; it has activity_events",
        ),
        ("", "\"activ.x\" = [\"insert\"]", "there is no database \"activ\"; there are config, activity"),
        ("", "\"activity.activity_events\" = [\"write\"]", "there is no verb \"write\"; there are select"),
    ] {
        let store = Store::empty();
        settings(&store, grants);
        let path = store.path().join("penholder.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}\n[roles.more]\n{roles}\n")).unwrap();
        let run = store.run(&["serve", "STORE", "--once"]).expect(1);
        assert!(run.stderr.contains(said), "{said}: {run:?}");
    }
}

#[test]
fn the_matrix_is_printed_with_stars_written_out_and_names_looked_up() {
    let store = Store::new();
    settings(&store, "\"user:root\" = \"app\"\n\"user:1001\" = \"daemon\"\n\"group:0\" = \"owner\"");
    let report = store.run(&["grants", "STORE", "--json"]).expect(0).json().remove(0);
    assert_eq!(report["owner_uid"], own_uid());
    let who: Vec<_> =
        report["grants"].as_array().unwrap().iter().map(|g| (g["is"].clone(), g["role"].clone())).collect();
    let expected = [("gid 0", "owner"), ("uid 1001", "daemon"), ("uid 0", "app")];
    assert_eq!(who, expected.map(|(is, role)| (is.into(), role.into())));
    let verbs = |role: &str, table: &str| {
        let roles = report["roles"].as_array().unwrap();
        let found = roles.iter().find(|row| row["role"] == role && row["table"] == table);
        found.map_or_else(String::new, |row| row["verbs"].to_string())
    };
    assert_eq!(verbs("daemon", "activity_sessions"), r#"["select","insert","update"]"#);
    assert_eq!(verbs("app", "activity_sessions"), r#"["select"]"#);
    assert_eq!(verbs("app", "calendar_events"), r#"["select","insert","update","delete"]"#);
    assert_eq!(verbs("app", "_penholder_rejected"), "", "a star does not reach Penholder's own tables");
    let words = store.run(&["grants", "STORE"]).expect(0);
    assert!(words.stdout.contains("activity.activity_events"), "{words:?}");
}

#[test]
fn check_finds_rows_that_refer_to_what_is_not_there() {
    let store = Store::new();
    let insert =
        "INSERT INTO activity_sessions (started_at, app, project_id) VALUES (1, 'x', 7), (2, 'x', 7)";
    store.run(&["exec", "STORE", "--db", "activity", insert, "--level", "queued"]).expect(0);
    store.run(&["serve", "STORE", "--once"]).expect(0);
    store.run(&["check", "STORE"]).expect(0);
    let declare = |on_delete: &str| {
        let ends = "from = \"activity.activity_sessions.project_id\"\nto = \"config.projects.id\"";
        let text = format!("[[references]]\n{ends}\non_delete = \"{on_delete}\"\n");
        std::fs::write(store.path().join("penholder.toml"), text).unwrap();
    };
    declare("keep");
    store.run(&["check", "STORE"]).expect(0);
    declare("restrict");
    let report = store.run(&["check", "STORE", "--json"]).expect(3).json().remove(0);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!((findings.len(), &findings[0]["check"]), (1, &"references".into()), "{report}");
    let message =
        "2 rows with activity.activity_sessions.project_id = 7, and no row with config.projects.id = 7";
    assert_eq!(findings[0]["message"], message);
    let project = "INSERT INTO projects (id, name) VALUES (7, 'p')";
    store.run(&["exec", "STORE", "--db", "config", project, "--level", "queued"]).expect(0);
    store.run(&["serve", "STORE", "--once"]).expect(0);
    store.run(&["check", "STORE"]).expect(0);
}

/// Runs the binary as another user, from a place that everybody can reach.
fn exec_as(uid: u32, store: &Store, sql: &str) -> Run {
    let binary = store.beside("penholder");
    if !binary.exists() {
        // By another process: what one thread writes, the children of the others hold open, and it cannot be run.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_penholder")).arg(&binary).status();
        assert!(copied.unwrap().success());
        std::fs::set_permissions(binary.parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={}", rustix::process::getegid().as_raw())]);
    command.arg("--clear-groups").arg(binary).args(["exec"]).arg(store.path());
    command.args(["--db", "activity", sql, "--json"]);
    Run::of(&command.output().unwrap())
}

#[test]
fn each_user_has_the_role_of_its_own_uid_and_a_stranger_has_none() {
    if own_uid() != 0 {
        println!("skipped: only root can act as other users");
        return;
    }
    let store = Store::empty();
    settings(&store, &format!("\"user:{STRANGER}\" = \"daemon\""));
    let _writer = store.serve();
    for (directory, mode) in [("", 0o755), ("spool", 0o1777), ("spool/tmp", 0o1777), ("receipts", 0o755)] {
        std::fs::set_permissions(store.path().join(directory), PermissionsExt::from_mode(mode)).unwrap();
    }
    let insert = "INSERT INTO activity_events (at, kind) VALUES (1, 'focus')";
    let outcome = exec_as(STRANGER, &store, insert).expect(0).json().remove(0);
    assert_eq!(outcome["status"], "applied", "{outcome}");
    let outcome = exec_as(STRANGER, &store, "DELETE FROM activity_events").expect(6).json().remove(0);
    assert_eq!(outcome["message"], "role daemon has no delete on activity.activity_events");
    exec(&store, "activity", "UPDATE activity_events SET kind = 'x'").expect(0);
    // Nothing of a uid without a role is even decoded.
    let run = exec_as(STRANGER + 1, &store, insert);
    assert_eq!(run.json()[0]["code"], "corrupt", "{run:?}");
    let reasons = std::fs::read_dir(store.path().join("quarantine")).unwrap();
    let reasons = reasons
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "reason"));
    let reasons: Vec<_> = reasons.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert!(reasons.len() == 1 && reasons[0].contains(&format!("uid {}", STRANGER + 1)), "{reasons:?}");
}

//! References from one database to another: kept whatever a command does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use penholder_client::{Client, Durability};
use penholder_protocol::{Code, Outcome, Statement};
use penholder_tests::linked::{THREE, apply, command, projects_of_sessions, store};

/// The message of the rejection.
fn refuse(client: &mut Client, texts: &[&str]) -> String {
    let outcome = client.execute(command(texts)).unwrap();
    let Outcome::Rejected(rejection) = outcome else { panic!("{texts:?} is applied") };
    assert_eq!(rejection.code, Code::Constraint, "{texts:?}: {rejection:?}");
    rejection.message
}

/// Every way to remove project 1 and no other: the bool says whether its key lives on as 9.
const REMOVALS: [(&str, bool); 8] = [
    ("config: DELETE FROM projects WHERE id = 1", false),
    ("config: DELETE FROM projects WHERE name = 'a' RETURNING id", false),
    ("config: INSERT INTO closing VALUES (1)", false),
    ("config: UPDATE projects SET id = 9 WHERE id = 1", true),
    ("config: UPDATE projects SET rowid = 9 WHERE id = 1", true),
    ("config: INSERT INTO projects VALUES (1, 'a', 1) ON CONFLICT DO UPDATE SET id = 9", true),
    ("config: REPLACE INTO projects VALUES (7, 'a', NULL)", false),
    ("config: UPDATE OR REPLACE projects SET name = 'a' WHERE id = 3", false),
];

#[test]
fn a_row_refers_to_nothing_or_to_what_is_there() {
    let store = store("restrict");
    let mut client = store.client();
    apply(&mut client, &THREE);
    let expected = "activity.sessions.project refers to config.projects.id = 8, which is not there";
    for text in [
        "activity: INSERT INTO sessions (project) VALUES (8)",
        "activity: INSERT INTO sessions (project) SELECT 8",
        "activity: UPDATE sessions SET project = 8 WHERE id = 1",
        "activity: INSERT INTO sessions (id, project) VALUES (1, 1) ON CONFLICT DO UPDATE SET project = 8",
        "activity: REPLACE INTO sessions (id, project) VALUES (1, 8)",
        "activity: INSERT INTO imported VALUES (8)",
    ] {
        assert_eq!(refuse(&mut client, &[text]), expected, "{text}");
    }
    assert_eq!(projects_of_sessions(&store), [Some(1), Some(2), Some(1), None]);
    apply(&mut client, &["activity: UPDATE sessions SET project = 2 WHERE id = 1"]);
    apply(&mut client, &["activity: INSERT INTO imported VALUES (3)"]);
    assert_eq!(projects_of_sessions(&store), [Some(2), Some(2), Some(1), None, Some(3)]);
}

#[test]
fn restrict_keeps_what_is_referred_to_whichever_way_it_would_go() {
    let store = store("restrict");
    let mut client = store.client();
    apply(&mut client, &THREE);
    let expected =
        "activity.sessions.project still refers to config.projects.id = 1, and the reference restricts";
    for (text, _) in REMOVALS {
        assert_eq!(refuse(&mut client, &[text]), expected, "{text}");
    }
    let message = refuse(&mut client, &["config: DELETE FROM projects"]);
    assert!(message.contains("restricts"), "{message}");
    let message = refuse(&mut client, &["config: DELETE FROM clients"]);
    assert!(message.contains("restricts"), "a cascade within the database: {message}");
    assert_eq!(store.number("config", "SELECT count(*) FROM projects"), 3);
    assert_eq!(projects_of_sessions(&store), [Some(1), Some(2), Some(1), None]);
    apply(&mut client, &["config: DELETE FROM projects WHERE id = 3"]);
    apply(&mut client, &["activity: DELETE FROM sessions WHERE project = 1"]);
    apply(&mut client, &["config: DELETE FROM projects WHERE id = 1"]);
    assert_eq!(store.number("config", "SELECT count(*) FROM projects"), 1);
}

#[test]
fn set_null_and_cascade_reach_the_rows_that_refer_whichever_way_it_went() {
    for on_delete in ["set null", "cascade"] {
        let store = store(on_delete);
        let mut client = store.client();
        for (text, lives_on) in REMOVALS {
            apply(
                &mut client,
                &[
                    "config: DELETE FROM projects",
                    "config: DELETE FROM clients",
                    "activity: DELETE FROM sessions",
                ],
            );
            apply(&mut client, &THREE);
            apply(&mut client, &[text]);
            let expected: &[_] = match (on_delete, lives_on) {
                ("set null", _) => &[None, Some(2), None, None],
                (_, true) => &[Some(9), Some(2), Some(9), None],
                (_, false) => &[Some(2), None],
            };
            assert_eq!(projects_of_sessions(&store), expected, "{on_delete}: {text}");
        }
        apply(&mut client, &["config: DELETE FROM projects"]);
        let left: &[_] = if on_delete == "cascade" { &[None] } else { &[None; 4] };
        assert_eq!(projects_of_sessions(&store), left, "{on_delete}: a table emptied at once");
    }
}

#[test]
fn keep_leaves_everything_as_it_is() {
    let store = store("keep");
    let mut client = store.client();
    apply(&mut client, &THREE);
    apply(&mut client, &["config: DELETE FROM projects"]);
    apply(&mut client, &["activity: INSERT INTO sessions (project) VALUES (77)"]);
    assert_eq!(projects_of_sessions(&store), [Some(1), Some(2), Some(1), None, Some(77)]);
}

#[test]
fn within_a_command_only_its_end_counts() {
    let store = store("cascade");
    let mut client = store.client();
    apply(
        &mut client,
        &[
            "activity: INSERT INTO sessions (project) VALUES (1)",
            "config: INSERT INTO projects (id, name) VALUES (1, 'a')",
        ],
    );
    for texts in [
        &[
            "config: DELETE FROM projects WHERE id = 1",
            "config: INSERT INTO projects (id, name) VALUES (1, 'b')",
        ][..],
        &["config: REPLACE INTO projects (id, name) VALUES (1, 'c')"],
        &[
            "activity: INSERT INTO sessions (project) VALUES (8)",
            "activity: DELETE FROM sessions WHERE project = 8",
        ],
        &["config: UPDATE projects SET id = 2", "config: UPDATE projects SET id = 1"],
    ] {
        apply(&mut client, texts);
        assert_eq!(projects_of_sessions(&store), [Some(1)], "{texts:?}");
    }
}

#[test]
fn a_rejected_command_leaves_nothing_and_its_neighbours_alone() {
    let store = store("set null");
    let mut client = store.client();
    apply(&mut client, &THREE);
    apply(&mut client, &["config: INSERT INTO tags VALUES ('Fixed'), ('loose')"]);
    apply(&mut client, &["activity: INSERT INTO sessions (tag) VALUES ('LOOSE')"]);
    let commands = [
        &["config: INSERT INTO projects (id, name) VALUES (10, 'j')"][..],
        &[
            "config: DELETE FROM projects WHERE id = 1",
            "config: INSERT INTO projects (id, name) VALUES (11, 'b')",
        ],
        &["config: DELETE FROM projects WHERE id = 2", "activity: INSERT INTO sessions (project) VALUES (2)"],
        &["activity: INSERT INTO sessions (project) VALUES (99)"],
        &["activity: INSERT INTO sessions (project) VALUES (10)"],
        // The column compares without regard to case, and so does the key.
        &["config: UPDATE tags SET word = 'fixed' WHERE word = 'Loose'"],
    ];
    let commands: Vec<_> = commands.iter().map(|texts| command(texts)).collect();
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    let patience = std::time::Duration::from_secs(20);
    let outcomes: Vec<_> = tickets.iter().map(|ticket| client.wait(ticket, patience).unwrap()).collect();
    let applied: Vec<_> = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Applied(_))).collect();
    assert_eq!(applied, [true, false, true, false, true, false], "{outcomes:?}");
    assert_eq!(projects_of_sessions(&store), [Some(1), None, Some(1), None, None, None, Some(10)]);
}

#[test]
fn what_a_command_may_call_does_not_change_where_it_touches_more_than_it_names() {
    let store = store("cascade");
    let mut client = store.client();
    apply(&mut client, &["config: INSERT INTO clients (name) VALUES (datetime() || random())"]);
    let both = ["config: INSERT INTO clients (name) VALUES (random())", "activity: DELETE FROM sessions"];
    let outcome = client.execute(command(&both)).unwrap();
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    for sql in [
        "SELECT _penholder_note(0, 1, NULL)",
        "WITH _penholder_reference_0_x AS (SELECT 1) DELETE FROM projects",
    ] {
        client.execute(Statement::new("config", sql)).unwrap();
    }
    assert_eq!(projects_of_sessions(&store), []);
}

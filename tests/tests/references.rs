//! References from one database to another: kept whatever a command does, and whenever the writer dies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::collections::{BTreeMap, BTreeSet};

use penholder_client::{Client, Durability};
use penholder_protocol::{Code, Command, Outcome, Statement};
use penholder_tests::{Random, Store};

/// Projects hang on clients, so that a cascade within the database removes them too.
const CONFIG: &str = "
CREATE TABLE clients (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT UNIQUE,
    client INTEGER REFERENCES clients (id) ON DELETE CASCADE);
CREATE TABLE tags (word TEXT PRIMARY KEY COLLATE NOCASE) WITHOUT ROWID;
CREATE TABLE closing (project INTEGER);
CREATE TRIGGER close AFTER INSERT ON closing BEGIN DELETE FROM projects WHERE id = new.project; END;
";

const ACTIVITY: &str = "
CREATE TABLE sessions (id INTEGER PRIMARY KEY, project INTEGER, tag TEXT, CHECK (tag <> 'fixed'));
CREATE INDEX sessions_by_project ON sessions (project);
CREATE TABLE imported (project INTEGER);
CREATE TRIGGER import AFTER INSERT ON imported BEGIN INSERT INTO sessions (project) VALUES (new.project); END;
";

/// A store with two references, of which that to projects does `on_delete`.
fn store(on_delete: &str) -> Store {
    let mut store = Store::new();
    for (database, sql) in [("config", CONFIG), ("activity", ACTIVITY)] {
        store.add_migration(database, sql);
    }
    store.settings(&format!(
        "[[references]]\nfrom = \"activity.sessions.project\"\nto = \"config.projects.id\"\non_delete = \"{on_delete}\"\n\
         [[references]]\nfrom = \"activity.sessions.tag\"\nto = \"config.tags.word\"\non_delete = \"set null\"\n"
    ));
    store.start();
    store
}

/// Statements, each `database: SQL`.
fn command(texts: &[&str]) -> Command {
    texts.iter().fold(Command::new(), |command, text| {
        let (database, sql) = text.split_once(": ").unwrap();
        command.and(Statement::new(database, sql))
    })
}

fn apply(client: &mut Client, texts: &[&str]) {
    let outcome = client.execute(command(texts)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{texts:?}: {outcome:?}");
}

/// The message of the rejection.
fn refuse(client: &mut Client, texts: &[&str]) -> String {
    let outcome = client.execute(command(texts)).unwrap();
    let Outcome::Rejected(rejection) = outcome else { panic!("{texts:?} is applied") };
    assert_eq!(rejection.code, Code::Constraint, "{texts:?}: {rejection:?}");
    rejection.message
}

/// The column `project` of all sessions, in order.
fn projects_of_sessions(store: &Store) -> Vec<Option<i64>> {
    let database = store.database("activity");
    let mut statement = database.prepare("SELECT project FROM sessions ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

const THREE: [&str; 6] = [
    "config: INSERT INTO clients VALUES (1, 'c')",
    "config: INSERT INTO projects VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', NULL)",
    "activity: INSERT INTO sessions (project) VALUES (1)",
    "activity: INSERT INTO sessions (project) VALUES (2)",
    "activity: INSERT INTO sessions (project) VALUES (1)",
    "activity: INSERT INTO sessions (project) VALUES (NULL)",
];

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

/// Starts a writer that dies between the commits of the batch that waits.
fn die_between_commits(store: &mut Store, is_between: impl Fn(&Store) -> bool) {
    for pass in 1..10 {
        store.set("PENHOLDER_CRASH_AT", &format!("after_commit:{pass}"));
        if store.try_start().is_ok() {
            store.wait_until("the writer's death", Store::writer_is_dead);
            store.forget_writer();
        }
        store.unset("PENHOLDER_CRASH_AT");
        if is_between(store) {
            return;
        }
    }
    panic!("the writer never died between the commits");
}

#[test]
fn what_a_reference_did_is_completed_after_a_death_between_the_commits() {
    let cascaded = &[Some(5), Some(2), Some(5), None, Some(4), Some(5)][..];
    let nulled = &[None, Some(2), None, None, None, Some(4), Some(5)][..];
    for (on_delete, lose_spool, expected) in
        [("cascade", false, cascaded), ("cascade", true, cascaded), ("set null", true, nulled)]
    {
        let mut store = store(on_delete);
        let mut client = store.client();
        apply(&mut client, &THREE);
        apply(&mut client, &["activity: INSERT INTO sessions (project) VALUES (3)"]);
        assert!(store.stop().success());
        drop(client);
        let mut client = store.client();
        // Each counts on what the one before it did in the other database.
        let commands = [
            &["config: UPDATE projects SET id = 5 WHERE id = 1"][..],
            &["config: DELETE FROM projects WHERE id = 3"],
            &[
                "config: INSERT INTO projects (id, name) VALUES (4, 'd')",
                "activity: INSERT INTO sessions (project) VALUES (4)",
            ],
            &["config: DELETE FROM projects WHERE id = 777"],
            &[
                "activity: INSERT INTO sessions (project) VALUES (5)",
                "config: INSERT INTO clients (id) VALUES (7)",
            ],
        ];
        let commands: Vec<_> = commands.iter().map(|texts| command(texts)).collect();
        client.submit_batch(&commands, Durability::Queued).unwrap();
        drop(client);
        die_between_commits(&mut store, |store| {
            store.number("config", "SELECT count(*) FROM projects WHERE id = 5") == 1
                && store.number("activity", "SELECT count(*) FROM sessions WHERE project = 1") == 2
        });
        if lose_spool {
            for segment in store.segments() {
                std::fs::remove_file(store.layout().spool().join(segment)).unwrap();
            }
        }
        store.start();
        assert_eq!(projects_of_sessions(&store), expected, "{on_delete}, spool lost: {lose_spool}");
        store.wait_until("an empty spool", |store| store.segments().is_empty());
        store.kill();
        store.start();
        assert_eq!(projects_of_sessions(&store), expected, "what was completed once is void");
    }
}

/// Where the writer may die.
const POINTS: [&str; 4] = ["before_commit", "after_commit", "after_commit", "before_receipts"];

/// Printed, so that a failure can be looked at again; `PENHOLDER_TEST_SEED` sets it.
fn seed() -> u64 {
    let given = std::env::var("PENHOLDER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

/// One of few, so that commands meet.
fn key(random: &mut Random) -> i64 {
    i64::try_from(random.below(8)).unwrap()
}

/// What the databases must hold, worked out beside them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    projects: BTreeSet<i64>,
    /// Sessions and what they refer to.
    sessions: BTreeMap<i64, Option<i64>>,
}

impl Model {
    fn of(store: &Store) -> Self {
        let (config, activity) = (store.database("config"), store.database("activity"));
        let mut projects = config.prepare("SELECT id FROM projects").unwrap();
        let mut sessions = activity.prepare("SELECT id, project FROM sessions").unwrap();
        Self {
            projects: projects.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect(),
            sessions: sessions
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect(),
        }
    }

    /// A random command, and its effect here, which is none if it breaks the reference or a key.
    fn step(&mut self, random: &mut Random, id: i64) -> Command {
        let (one, other) = (key(random), key(random));
        let mut after = self.clone();
        let (texts, is_sound) = match random.below(10) {
            0 => (
                vec![format!("config: INSERT INTO projects (id) VALUES ({one})")],
                after.projects.insert(one),
            ),
            1 | 2 | 7..=9 => {
                after.sessions.insert(id, Some(one));
                (
                    vec![format!("activity: INSERT INTO sessions (id, project) VALUES ({id}, {one})")],
                    after.projects.contains(&one),
                )
            }
            3 => {
                after.projects.remove(&one);
                after.sessions.retain(|_, project| *project != Some(one));
                (vec![format!("config: DELETE FROM projects WHERE id = {one}")], true)
            }
            4 => {
                let is_sound =
                    !after.projects.contains(&one) || one == other || !after.projects.contains(&other);
                if after.projects.remove(&one) {
                    after.projects.insert(other);
                    let of_one = after.sessions.values_mut().filter(|project| **project == Some(one));
                    of_one.for_each(|project| *project = Some(other));
                }
                (vec![format!("config: UPDATE projects SET id = {other} WHERE id = {one}")], is_sound)
            }
            5 => {
                // The project goes, and one of the same name comes: what refers to it stays if the key does.
                after.projects.remove(&one);
                after.projects.insert(other);
                if one != other {
                    after.sessions.retain(|_, project| *project != Some(one));
                }
                after.sessions.insert(id, Some(other));
                let texts = vec![
                    format!("config: DELETE FROM projects WHERE id = {one}"),
                    format!("activity: INSERT INTO sessions (id, project) VALUES ({id}, {other})"),
                    format!("config: REPLACE INTO projects (id) VALUES ({other})"),
                ];
                (texts, true)
            }
            _ => {
                let hit: Vec<_> =
                    after.sessions.values_mut().filter(|project| **project == Some(one)).collect();
                let is_sound = hit.is_empty() || self.projects.contains(&other);
                for project in hit {
                    *project = Some(other);
                }
                let text = format!("activity: UPDATE sessions SET project = {other} WHERE project = {one}");
                (vec![text], is_sound)
            }
        };
        if is_sound {
            *self = after;
        }
        command(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[test]
fn random_commands_leave_what_they_must_whenever_the_writer_dies() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut store = store("cascade");
    let mut model = Model::default();
    let mut id = 0;
    for round in 0..40 {
        assert!(store.stop().success());
        let mut client = store.client();
        let commands: Vec<_> = (0..=random.below(40))
            .map(|_| {
                id += 1;
                model.step(&mut random, id)
            })
            .collect();
        client.submit_batch(&commands, Durability::Queued).unwrap();
        drop(client);
        let point = POINTS[usize::try_from(random.below(4)).unwrap()];
        store.set("PENHOLDER_CRASH_AT", &format!("{point}:{}", 1 + random.below(12)));
        if store.try_start().is_ok() {
            store.wait_until("the end of the batch", |store| {
                store.writer_is_dead() || store.segments().is_empty()
            });
            store.kill();
        }
        store.unset("PENHOLDER_CRASH_AT");
        store.start();
        store.wait_until("an empty spool", |store| store.segments().is_empty());
        assert_eq!(Model::of(&store), model, "seed {seed}, round {round}");
    }
}

//! References from one database to another: kept whenever the writer dies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::collections::{BTreeMap, BTreeSet};

use penholder_client::Durability;
use penholder_protocol::Command;
use penholder_tests::linked::{THREE, apply, command, projects_of_sessions, store};
use penholder_tests::{Random, Store};

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

/// A command holds 4096 statements at most, and one that removes more rows than that adds more.
#[test]
fn more_statements_than_a_command_holds_are_completed_too() {
    let mut store = store("cascade");
    let mut client = store.client();
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";
    apply(&mut client, &[&format!("config: INSERT INTO projects (id) {numbers} SELECT i FROM n")]);
    apply(&mut client, &[&format!("activity: INSERT INTO sessions (project) {numbers} SELECT i FROM n")]);
    assert!(store.stop().success());
    let mut client = store.client();
    client.submit(command(&["config: DELETE FROM projects"]), Durability::Queued).unwrap();
    let rows =
        |store: &Store, database, table| store.number(database, &format!("SELECT count(*) FROM {table}"));
    die_between_commits(&mut store, |store| rows(store, "config", "projects") == 0);
    assert_eq!(rows(&store, "activity", "sessions"), 5000);
    store.start();
    assert_eq!(rows(&store, "activity", "sessions"), 0);
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

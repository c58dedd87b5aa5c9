//! A store with references from activity to config, and commands on it.

use penholder_client::Client;
use penholder_protocol::{Command, Outcome, Statement};

use crate::Store;

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
#[must_use]
pub fn store(on_delete: &str) -> Store {
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
#[must_use]
pub fn command(texts: &[&str]) -> Command {
    texts.iter().fold(Command::new(), |command, text| {
        let (database, sql) = text.split_once(": ").unwrap();
        command.and(Statement::new(database, sql))
    })
}

/// Executes a command that must be applied.
pub fn apply(client: &mut Client, texts: &[&str]) {
    let outcome = client.execute(command(texts)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{texts:?}: {outcome:?}");
}

/// The column `project` of all sessions, in order.
#[must_use]
pub fn projects_of_sessions(store: &Store) -> Vec<Option<i64>> {
    let database = store.database("activity");
    let mut statement = database.prepare("SELECT project FROM sessions ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Three projects, and sessions of two of them.
pub const THREE: [&str; 6] = [
    "config: INSERT INTO clients VALUES (1, 'c')",
    "config: INSERT INTO projects VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', NULL)",
    "activity: INSERT INTO sessions (project) VALUES (1)",
    "activity: INSERT INTO sessions (project) VALUES (2)",
    "activity: INSERT INTO sessions (project) VALUES (1)",
    "activity: INSERT INTO sessions (project) VALUES (NULL)",
];

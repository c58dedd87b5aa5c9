//! The application's join beside SQLite's own over two files: the same rows, added up by the same code.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use penholder_client::read::{Large, Lookup, Reader};
use penholder_client::{Client, Durability};
use penholder_protocol::Statement;
use rusqlite::{Connection, OpenFlags, Row};

use crate::client::wait;
use crate::effort::Effort;
use crate::peer::Peer;
use crate::results::{Results, Subject};
use crate::writer::Writer;

const PROJECTS: i64 = 1000;
/// Sessions that one command makes.
const COMMAND_SESSIONS: i64 = 10_000;

const CONFIG: &str = "CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;";
const ACTIVITY: &str = "CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    project INTEGER,
    started INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    app TEXT NOT NULL
) STRICT;";

/// The large side's query of ours, and the whole join of SQLite's. For the sums, each does what it is best at: the
/// application adds up row by row, SQLite groups.
const QUERIES: [(Subject, &str, &str); 2] = [
    (
        Subject::JoinRows,
        "SELECT project, ended - started FROM session",
        "SELECT p.name, s.ended - s.started FROM session s LEFT JOIN config.project p ON p.id = s.project",
    ),
    (
        Subject::JoinSums,
        "SELECT project, ended - started FROM session",
        "SELECT p.name, sum(s.ended - s.started)
         FROM session s JOIN config.project p ON p.id = s.project GROUP BY s.project",
    ),
];

/// Seconds per project; sessions without one count for nobody.
type Sums = HashMap<String, i64>;

/// Joins both ways, in turns.
pub(crate) fn measure(effort: &Effort, scratch: &Path, results: &mut Results) {
    let store = tempfile::Builder::new().prefix("join-").tempdir_in(scratch).unwrap();
    let sessions = effort.sessions;
    eprintln!("filling {sessions} sessions");
    let writer = fill(store.path(), sessions.cast_signed());
    let (mut application, attached) = (Application::open(store.path()), attach(store.path()));
    for round in 1..=effort.rounds {
        eprintln!("round {round}/{}: join of {sessions} sessions with {PROJECTS} projects", effort.rounds);
        for (subject, ours, theirs) in QUERIES {
            let mut sums = [Sums::new(), Sums::new()];
            // Who goes first changes with every round.
            for turn in 0..2 {
                let at = (round + turn) % 2;
                let begun = Instant::now();
                let peer = if at == 0 {
                    application.join(ours, &mut sums[at]);
                    Peer::Penholder
                } else {
                    attached_join(&attached, theirs, &mut sums[at]);
                    Peer::Attach
                };
                results.number(subject, peer, sessions, begun.elapsed().as_secs_f64());
            }
            assert!(sums[0] == sums[1] && !sums[0].is_empty(), "the joins differ");
        }
    }
    writer.stop();
}

/// A store with projects and sessions, and its writer; a session in ten has no project.
fn fill(store: &Path, sessions: i64) -> Writer {
    let schema = crate::writer::schema(store);
    for (database, sql) in [("config", CONFIG), ("activity", ACTIVITY)] {
        std::fs::create_dir_all(schema.join(database)).unwrap();
        std::fs::write(schema.join(database).join("001_join.sql"), sql).unwrap();
    }
    let writer = Writer::start(store);
    let mut client = Client::connect(store).unwrap();
    let projects = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO project SELECT i, 'project number ' || i FROM n";
    client.submit(Statement::new("config", projects).bind(PROJECTS), Durability::Queued).unwrap();
    let rows = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
        INSERT INTO session SELECT i, iif(i % 10, i % ?3 + 1, NULL), i * 30000, i * 30000 + i % 29000,
        'program ' || (i % 37) FROM n";
    let mut last = None;
    for first in (1..=sessions).step_by(COMMAND_SESSIONS as usize) {
        let end = (first + COMMAND_SESSIONS - 1).min(sessions);
        let statement = Statement::new("activity", rows).bind(first).bind(end).bind(PROJECTS);
        last = Some(client.submit(statement, Durability::Queued).unwrap());
    }
    wait(&mut client, last.unwrap());
    writer
}

fn add(sums: &mut Sums, project: Option<&str>, seconds: i64) {
    let Some(project) = project else { return };
    match sums.get_mut(project) {
        Some(sum) => *sum += seconds,
        None => drop(sums.insert(project.to_owned(), seconds)),
    }
}

/// The client library's reader and its join.
struct Application {
    reader: Reader,
    names: Lookup<i64, String>,
}

impl Application {
    fn open(store: &Path) -> Self {
        let names =
            Lookup::new("config", "SELECT id, name FROM project", |row| Ok((row.get(0)?, row.get(1)?)));
        Self { reader: Reader::open(store).unwrap(), names }
    }

    fn join(&mut self, sql: &str, sums: &mut Sums) {
        let snapshot = self.reader.snapshot().unwrap();
        let sessions = Large { database: "activity", sql };
        let each = |row: &Row<'_>, name: Option<&String>| {
            add(sums, name.map(String::as_str), row.get(1)?);
            Ok(())
        };
        self.names.join(&snapshot, sessions, [], |row| row.get(0), each).unwrap();
    }
}

/// A connection to one file with the other attached.
fn attach(store: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(store.join("activity.db"), flags).unwrap();
    let config = store.join("config.db");
    connection.execute("ATTACH ?1 AS config", [config.to_str().unwrap()]).unwrap();
    connection
}

fn attached_join(connection: &Connection, sql: &str, sums: &mut Sums) {
    let mut statement = connection.prepare_cached(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        add(sums, row.get_ref(0).unwrap().as_str_or_null().unwrap(), row.get(1).unwrap());
    }
}

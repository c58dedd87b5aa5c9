//! A legacy database to be split with the built binary.

use rusqlite::Connection;

use super::{Run, Store};

/// Two tables with known names, one without, an orphan, and a view over the cut.
const SQL: &str = "PRAGMA foreign_keys = OFF;
    CREATE TABLE projects(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO projects VALUES (1, 'one');
    CREATE TABLE activity_sessions(id INTEGER PRIMARY KEY, app TEXT, project_id INT REFERENCES projects(id) ON DELETE SET NULL);
    INSERT INTO activity_sessions VALUES (1, 'a', 1), (2, 'b', 9);
    CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); INSERT INTO notes VALUES (1, 'x'), (2, 'y');
    CREATE VIEW both_sides AS SELECT * FROM activity_sessions JOIN projects ON projects.id = project_id;";

/// A legacy database beside a store that is not there yet.
pub(crate) struct Old(pub(crate) Store);

impl Old {
    pub(crate) fn new() -> Self {
        let old = Self(Store::empty());
        old.change(SQL);
        old
    }

    pub(crate) fn change(&self, sql: &str) {
        Connection::open(self.0.beside("legacy.db")).unwrap().execute_batch(sql).unwrap();
    }

    /// `penholder split legacy.db --into STORE` with more words.
    pub(crate) fn split(&self, words: &[&str]) -> Run {
        let source = self.0.beside("legacy.db");
        self.0.run(&[&["split", source.to_str().unwrap(), "--into", "STORE"], words].concat())
    }

    /// Splits with every decision made.
    pub(crate) fn done(&self) -> Run {
        self.split(&DECIDED).expect(0)
    }

    /// `penholder diff legacy.db STORE/DATABASE` with more words.
    pub(crate) fn diff(&self, database: &str, words: &[&str]) -> Run {
        let (a, b) = (self.0.beside("legacy.db"), self.0.path().join(database));
        self.0.run(&[&["diff", a.to_str().unwrap(), b.to_str().unwrap()], words].concat())
    }
}

/// Every decision that [`SQL`] asks for.
pub(crate) const DECIDED: [&str; 4] = ["--activity", "notes", "--orphans", "keep"];

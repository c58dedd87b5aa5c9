//! What is in a store, as a test looks at it from outside.

use std::time::Duration;

use penholder_protocol::StreamId;
use rusqlite::{Connection, OpenFlags};

use crate::Store;

impl Store {
    /// Opens a database for a look, without a cut over both.
    #[must_use]
    pub fn database(&self, name: &str) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(self.layout().database(name), flags).unwrap();
        database.pragma_update(None, "query_only", true).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        database
    }

    /// One integer from a database.
    #[must_use]
    pub fn number(&self, database: &str, sql: &str) -> i64 {
        self.database(database).query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Segments in the spool, by name.
    #[must_use]
    pub fn segments(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.layout().spool()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "tmp");
        names.sort();
        names
    }

    /// Files in quarantine, reasons left out.
    #[must_use]
    pub fn quarantined(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.layout().quarantine()) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.ends_with(".reason"));
        names.sort();
        names
    }

    /// The watermark of a stream in a database; 0 if it is not known there.
    #[must_use]
    pub fn watermark(&self, database: &str, stream: StreamId) -> i64 {
        let found = self.database(database).query_row(
            "SELECT max(sequence) FROM _penholder_stream WHERE stream = ?1",
            [stream.0.as_slice()],
            |row| row.get::<_, Option<i64>>(0),
        );
        found.unwrap().unwrap_or(0)
    }

    /// Open descriptors of the running writer.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.writer_pid())).unwrap().count()
    }
}

//! How many of the writes that were acknowledged are there.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use penholder_client::read::Reader;
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;

use crate::Result;
use crate::race::Log;

/// An acknowledged write: the row that it made.
#[derive(Debug, Deserialize)]
struct Acknowledged {
    db: String,
    table: String,
    id: i64,
}

/// One process: how many writes were acknowledged to it, and how many of those are there.
#[derive(Debug)]
struct Tally {
    role: &'static str,
    acknowledged: u64,
    survived: u64,
}

/// What became of the acknowledged writes.
#[derive(Debug)]
pub(crate) struct Survivors(Vec<Tally>);

impl Survivors {
    /// Looks up every acknowledged write in a file that has all tables.
    pub(crate) fn in_file(logs: &[Log], file: &Path) -> Result<Self> {
        let file = open(file)?;
        Self::count(logs, |_| Ok(&file))
    }

    /// Looks up every acknowledged write in the databases of a store, as of one moment.
    pub(crate) fn in_store(logs: &[Log], store: &Path) -> Result<Self> {
        let mut reader = Reader::open(store)?;
        let cut = reader.snapshot()?;
        Self::count(logs, |write| Ok(cut.database(&write.db)?))
    }

    fn count<'a>(logs: &[Log], database: impl Fn(&Acknowledged) -> Result<&'a Connection>) -> Result<Self> {
        let mut tallies = Vec::new();
        for log in logs {
            let mut tally = Tally { role: log.role, acknowledged: 0, survived: 0 };
            for line in BufReader::new(File::open(&log.path)?).lines() {
                let write: Acknowledged = serde_json::from_str(&line?)?;
                let sql = format!("SELECT count(*) FROM {} WHERE id = ?1", write.table);
                let mut find = database(&write)?.prepare_cached(&sql)?;
                tally.survived += find.query_row([write.id], |row| row.get::<_, u64>(0))?;
                tally.acknowledged += 1;
            }
            tallies.push(tally);
        }
        Ok(Self(tallies))
    }

    /// Over both processes.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.iter().map(|tally| tally.acknowledged).sum()
    }

    /// Over both processes.
    pub(crate) fn survived(&self) -> u64 {
        self.0.iter().map(|tally| tally.survived).sum()
    }

    /// Over both processes.
    pub(crate) fn lost(&self) -> u64 {
        self.acknowledged() - self.survived()
    }

    /// One line per process.
    pub(crate) fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["", "acknowledged", "survived", "lost"]);
        for Tally { role, acknowledged, survived } in &self.0 {
            let numbers =
                [*acknowledged, *survived, acknowledged - survived].map(|number| number.to_string());
            table.add_row([(*role).to_owned()].into_iter().chain(numbers));
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        table.trim_fmt()
    }

    /// How many of how many, over both processes.
    pub(crate) fn in_words(&self) -> String {
        format!("{} of {}", self.survived(), self.acknowledged())
    }
}

/// How many rows of the file refer to a row that is not there.
pub(crate) fn orphans(file: &Path) -> Result<u64> {
    Ok(open(file)?.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?)
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

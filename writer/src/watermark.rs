//! Per database and stream, the last sequence with a final outcome: what makes every command apply exactly once.

use std::collections::HashMap;

use penholder_protocol::{Epoch, Sequence, StreamId};

use crate::Error;
use crate::batch::{Entry, Touches};
use crate::database::Database;

/// The watermarks as they are in the databases, kept in memory between commits.
#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    /// One map per database, in commit order.
    known: Vec<HashMap<StreamId, Sequence>>,
}

impl Watermarks {
    /// Reads all rows of all databases.
    pub(crate) fn load(databases: &[Database<'_>]) -> Result<Self, Error> {
        let load = |database: &Database<'_>| {
            let read = || {
                let sql = "SELECT stream, sequence FROM _penholder_stream";
                let mut statement = database.connection.prepare(sql)?;
                let rows =
                    statement.query_map([], |row| Ok((StreamId(row.get(0)?), Sequence(row.get(1)?))))?;
                rows.collect::<rusqlite::Result<HashMap<_, _>>>()
            };
            read().map_err(Error::sqlite("read the watermarks of", &database.name))
        };
        Ok(Self { known: databases.iter().map(load).collect::<Result<_, _>>()? })
    }

    /// Whether any database knows the stream.
    pub(crate) fn knows(&self, stream: StreamId) -> bool {
        self.known.iter().any(|map| map.contains_key(&stream))
    }

    /// The last sequence of a stream with an outcome in any database.
    pub(crate) fn highest(&self, stream: StreamId) -> Sequence {
        self.known.iter().filter_map(|map| map.get(&stream)).copied().max().unwrap_or_default()
    }

    /// Of the databases that a command touches, those that do not have its outcome yet.
    ///
    /// Recovery completes commands over several databases, so it is all or none, unless a rollback was accepted.
    pub(crate) fn pending(&self, stream: StreamId, sequence: Sequence, touches: Touches) -> Touches {
        let pending = touches.iter().filter(|index| self.of(*index, stream) < sequence);
        pending.fold(Touches::default(), Touches::with)
    }

    /// Writes the watermarks that a batch moves in one database, in the transaction that carries its effect.
    pub(crate) fn advance(
        &self,
        index: usize,
        database: &Database<'_>,
        entries: &[Entry],
    ) -> Result<(), Error> {
        let sql = "INSERT INTO _penholder_progress(owner, epoch, position) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (owner) DO UPDATE SET position = excluded.position";
        for (stream, (epoch, sequence)) in moved(index, entries) {
            assert!(sequence > self.of(index, stream), "a watermark only grows");
            database.run("move a watermark in", sql, (stream.0, epoch.0, sequence.0))?;
        }
        Ok(())
    }

    /// Takes over what a committed batch has moved.
    pub(crate) fn note(&mut self, index: usize, entries: &[Entry]) {
        let moved = moved(index, entries);
        if let Some(map) = self.known.get_mut(index) {
            map.extend(moved.into_iter().map(|(stream, (_, sequence))| (stream, sequence)));
        }
    }

    fn of(&self, index: usize, stream: StreamId) -> Sequence {
        self.known.get(index).and_then(|map| map.get(&stream)).copied().unwrap_or_default()
    }
}

/// The last sequence per stream that touches a database; entries of a stream come together and in order.
fn moved(index: usize, entries: &[Entry]) -> HashMap<StreamId, (Epoch, Sequence)> {
    let runs = entries.chunk_by(|one, other| one.stream == other.stream);
    let touching = |entry: &&Entry| !entry.is_done && entry.touches.contains(index);
    let last = runs.filter_map(|run| run.iter().rev().find(touching));
    last.map(|entry| (entry.stream, (entry.epoch, entry.sequence))).collect()
}

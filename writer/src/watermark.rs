//! Per database and stream, the last sequence with a final outcome: what makes every command apply exactly once.

use std::collections::HashMap;

use penholder_protocol::{Epoch, Sequence, StreamId};

use crate::batch::{Entry, Touches};
use crate::database::Database;
use crate::{Error, clock};

/// The watermarks as they are in the databases, kept in memory between commits.
#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    /// One map per database, in commit order.
    known: Vec<HashMap<StreamId, Sequence>>,
    /// The users whose streams they are.
    owners: HashMap<StreamId, u32>,
}

impl Watermarks {
    /// Reads all rows of all databases.
    pub(crate) fn load(databases: &[Database<'_>]) -> Result<Self, Error> {
        let mut watermarks = Self::default();
        for database in databases {
            let mut read = || {
                let sql = "SELECT stream, sequence, uid FROM _penholder_stream";
                let mut statement = database.connection.prepare(sql)?;
                let mut rows = statement.query([])?;
                let mut known = HashMap::new();
                while let Some(row) = rows.next()? {
                    let stream = StreamId(row.get(0)?);
                    known.insert(stream, Sequence(row.get(1)?));
                    watermarks.owners.insert(stream, row.get(2)?);
                }
                watermarks.known.push(known);
                rusqlite::Result::Ok(())
            };
            read().map_err(Error::sqlite("read the watermarks of", &database.name))?;
        }
        Ok(watermarks)
    }

    /// The user whose stream it is, if any database knows it.
    pub(crate) fn owner(&self, stream: StreamId) -> Option<u32> {
        self.owners.get(&stream).copied()
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
        let sql = "INSERT INTO _penholder_progress(owner, epoch, position, uid) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (owner) DO UPDATE SET position = excluded.position";
        for Entry { stream, epoch, sequence, uid, .. } in moved(index, entries) {
            self.check(index, *stream, *sequence);
            if self.known.get(index).is_some_and(|known| known.contains_key(stream)) {
                database.run("move a watermark in", sql, (stream.0, epoch.0, sequence.0, uid))?;
            } else {
                begin(database, *stream, *epoch, *sequence, *uid)?;
            }
        }
        Ok(())
    }

    /// Stays on in release: a watermark that goes back applies commands twice.
    fn check(&self, index: usize, stream: StreamId, sequence: Sequence) {
        assert!(sequence > self.of(index, stream), "a watermark only grows");
    }

    /// Takes over what a committed batch has moved.
    pub(crate) fn note(&mut self, touches: Touches, entries: &[Entry]) {
        for index in touches.iter() {
            let Some(known) = self.known.get_mut(index) else { continue };
            for entry in moved(index, entries) {
                known.insert(entry.stream, entry.sequence);
                self.owners.insert(entry.stream, entry.uid);
            }
        }
    }

    fn of(&self, index: usize, stream: StreamId) -> Sequence {
        self.known.get(index).and_then(|map| map.get(&stream)).copied().unwrap_or_default()
    }
}

/// Writes the first watermark of a stream, behind those of older ones; of one that has a watermark, the higher one stays.
pub(crate) fn begin(
    database: &Database<'_>,
    stream: StreamId,
    epoch: Epoch,
    sequence: Sequence,
    uid: u32,
) -> Result<(), Error> {
    let sql = "INSERT INTO _penholder_progress(rowid, owner, epoch, position, uid) VALUES \
               ((SELECT coalesce(max(rowid), 0) + 1 FROM _penholder_progress WHERE rowid < ?5), ?1, ?2, ?3, ?4) \
               ON CONFLICT (owner) DO UPDATE SET position = max(position, excluded.position)";
    database.run("begin a stream in", sql, (stream.0, epoch.0, sequence.0, uid, clock::ROWID_MIN))
}

/// Per stream, its last entry that touches a database; entries of a stream come together and in order.
fn moved(index: usize, entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    let runs = entries.chunk_by(|one, other| one.stream == other.stream);
    let touching = move |entry: &&Entry| !entry.is_done && entry.touches.contains(index);
    runs.filter_map(move |run| run.iter().rev().find(touching))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a watermark only grows")]
    fn a_watermark_that_stays_or_goes_back_ends_the_writer() {
        let stream = StreamId([1; 16]);
        let watermarks =
            Watermarks { known: vec![HashMap::from([(stream, Sequence(7))])], ..Watermarks::default() };
        watermarks.check(0, stream, Sequence(8));
        watermarks.check(1, stream, Sequence(1));
        watermarks.check(0, stream, Sequence(7));
    }
}

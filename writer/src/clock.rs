//! The clock rows: every database stores the last tick of each database as known when it committed.
//!
//! They let a reader recognise a consistent cut, and let a start recognise a database that is older than another one
//! remembers.

use penholder_protocol::Tick;

use crate::Error;
use crate::batch::Touches;
use crate::database::Database;

/// The row ids of the clock begin here; those of streams stay below. Rows that an older writer made stay where they are.
pub(crate) const ROWID_MIN: i64 = 1 << 62;

/// The ticks of all databases, and what each database has stored of them.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Last tick per database.
    ticks: Vec<Tick>,
    /// Per database, the ticks that its rows show.
    stored: Vec<Vec<Tick>>,
}

/// Commands decided in a batch, counted in the first database that each touches.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) applied: u64,
    pub(crate) rejected: u64,
}

impl Clock {
    /// Reads the rows of all databases, adding those that are missing.
    pub(crate) fn load(databases: &[Database<'_>]) -> Result<Self, Error> {
        let mut stored = Vec::new();
        for database in databases {
            let mut seen = Vec::new();
            for other in databases {
                let sql = "SELECT tick FROM _penholder_clock WHERE database = ?1";
                let tick = database.read("read the clock of", sql, [&other.name], |row| row.get(0))?;
                seen.push(Tick(tick.unwrap_or_default()));
            }
            stored.push(seen);
        }
        let ticks = stored.iter().enumerate().filter_map(|(own, seen)| seen.get(own).copied()).collect();
        Ok(Self { ticks, stored })
    }

    /// Last tick of a database.
    pub(crate) fn of(&self, index: usize) -> Tick {
        self.ticks.get(index).copied().unwrap_or_default()
    }

    /// The tick of the next batch.
    pub(crate) fn next(&self) -> Tick {
        self.stored.iter().flatten().copied().max().unwrap_or_default().next()
    }

    /// Stores in one database that `tick` is committed in all of `touches`.
    pub(crate) fn write(
        &self,
        index: usize,
        database: &Database<'_>,
        databases: &[Database<'_>],
        touches: Touches,
        tick: Tick,
        counts: Counts,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO _penholder_progress(owner, position, previous, applied, rejected, rowid) \
                   VALUES (?1, ?2, ?3, ?4, ?5, \
                   (SELECT ?6 WHERE NOT EXISTS (SELECT 1 FROM _penholder_progress WHERE rowid >= ?6))) \
                   ON CONFLICT (owner) DO UPDATE SET position = excluded.position, previous = excluded.previous, \
                   applied = applied + excluded.applied, rejected = rejected + excluded.rejected";
        let stored = self.stored.get(index).map(Vec::as_slice).unwrap_or_default();
        for (other, (name, shown)) in databases.iter().map(|d| &d.name).zip(stored).enumerate() {
            let now = if touches.contains(other) { tick } else { self.of(other) };
            if now == *shown {
                continue;
            }
            let counts = if other == index { counts } else { Counts::default() };
            let row = (name, now.0, self.of(other).0, counts.applied, counts.rejected, ROWID_MIN);
            database.run("set the clock of", sql, row)?;
        }
        Ok(())
    }

    /// Takes over what [`write`](Self::write) stored, once it is committed in every database of `touches`.
    pub(crate) fn note(&mut self, touches: Touches, tick: Tick) {
        for index in touches.iter() {
            if let Some(own) = self.ticks.get_mut(index) {
                *own = tick;
            }
        }
        for index in touches.iter() {
            if let Some(stored) = self.stored.get_mut(index) {
                stored.clone_from(&self.ticks);
            }
        }
    }
}

//! One consistent cut: a read transaction on each database, and the rule that tells whether they fit together.

use std::time::Duration;

use penholder_protocol::limits::DATABASES_COUNT_MAX;
use penholder_protocol::{StoreId, Tick};
use rusqlite::{Connection, Params, Row};

use super::ReadError;
use super::reader::Database;

/// Each try waits this much longer than the one before, in µs: the first are over before a fast commit ends.
const PAUSE_STEP_MICROS: u64 = 50;
/// Longest pause between two tries, in µs: a slow disk commits in about this time.
const PAUSE_MICROS_MAX: u64 = 10_000;

/// How long to wait after try number `tried`, from 1, failed.
pub(super) fn pause_after(tried: u32) -> Duration {
    Duration::from_micros((PAUSE_STEP_MICROS * u64::from(tried)).min(PAUSE_MICROS_MAX))
}

/// What each database knew about each when its part of the snapshot began, both in commit order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clocks {
    count: usize,
    /// `known[i][j]`: the last tick of database `j` that database `i` knows of; `known[i][i]` is its own.
    known: [[Tick; DATABASES_COUNT_MAX]; DATABASES_COUNT_MAX],
    /// `before[i][j]`: where database `j` stood before it came to `known[i][j]`.
    before: [[Tick; DATABASES_COUNT_MAX]; DATABASES_COUNT_MAX],
}

/// Two databases that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uneven {
    /// Knows of a tick that the other one lacks.
    pub(super) ahead: usize,
    /// Was read before it had that tick.
    pub(super) behind: usize,
    /// That tick.
    pub(super) tick: Tick,
    /// What `behind` shows of itself.
    pub(super) own: Tick,
    /// It lacks nothing but the last batch of `ahead`, as after a death between the commits of that.
    pub(super) is_half_a_batch: bool,
}

impl Clocks {
    /// The table that every database keeps its clock rows in.
    pub(super) const NAME: &'static str = "_penholder_clock";

    fn known(&self, of: usize, about: usize) -> Tick {
        self.known.get(of).and_then(|row| row.get(about)).copied().unwrap_or_default()
    }

    fn before(&self, of: usize, about: usize) -> Tick {
        self.before.get(of).and_then(|row| row.get(about)).copied().unwrap_or_default()
    }

    /// The own tick of a database.
    fn own(&self, of: usize) -> Tick {
        self.known(of, of)
    }

    /// Finds a database that knows more about another than that one itself shows; `None`: the cut is consistent. What no
    /// death of the writer explains comes first.
    ///
    /// The one writer commits in one order and stores with each commit what every database stands at. So a
    /// database that was read too early gives itself away in the clock of one that was read later.
    pub(super) fn uneven(&self) -> Option<Uneven> {
        (0..self.count)
            .flat_map(|ahead| (0..self.count).map(move |behind| (ahead, behind)))
            .filter(|&(ahead, behind)| self.known(ahead, behind) > self.own(behind))
            .map(|(ahead, behind)| {
                let (tick, own) = (self.known(ahead, behind), self.own(behind));
                let is_half_a_batch = tick == self.own(ahead) && own >= self.before(ahead, behind);
                Uneven { ahead, behind, tick, own, is_half_a_batch }
            })
            .min_by_key(|uneven| uneven.is_half_a_batch)
    }

    fn newest(&self) -> Tick {
        (0..self.count).map(|database| self.own(database)).max().unwrap_or_default()
    }

    fn learn(&mut self, of: usize, about: usize, tick: Tick, before: Tick) {
        for (table, value) in [(&mut self.known, tick), (&mut self.before, before)] {
            if let Some(cell) = table.get_mut(of).and_then(|row| row.get_mut(about)) {
                *cell = value;
            }
        }
    }
}

/// A view of the databases in which time stands still, until it is dropped.
#[derive(Debug)]
pub struct Snapshot<'reader> {
    store: StoreId,
    databases: &'reader [Database],
    clocks: Clocks,
}

impl<'reader> Snapshot<'reader> {
    /// Begins a read transaction on each database, and reads its clock in it. Whether they fit is for the caller.
    pub(super) fn begin(store: StoreId, databases: &'reader [Database]) -> Result<Self, ReadError> {
        let clocks = Clocks { count: databases.len(), ..Clocks::default() };
        // Built first, so that an error below ends what was begun.
        let mut snapshot = Self { store, databases, clocks };
        for (of, database) in databases.iter().enumerate() {
            let begun =
                end(&database.connection).and_then(|()| snapshot.read_clock(of, &database.connection));
            begun.map_err(|source| ReadError::Sql { database: database.name.clone(), source })?;
        }
        Ok(snapshot)
    }

    /// The transaction begins with its first read, so the clock and all that is read later are of one moment.
    fn read_clock(&mut self, of: usize, connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        let mut statement =
            connection.prepare_cached("SELECT database, tick, previous FROM _penholder_clock")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_str()?;
            if let Some(about) = self.databases.iter().position(|database| database.name == name) {
                let tick = |column| row.get(column).map(|tick: i64| Tick(tick.max(0).unsigned_abs()));
                self.clocks.learn(of, about, tick(1)?, tick(2)?);
            }
        }
        Ok(())
    }

    pub(super) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// The connection to one database, inside this snapshot. It can read whatever SQL can say, and write nothing.
    ///
    /// Transactions are the snapshot's: a COMMIT or ROLLBACK run on the connection ends the cut for that database.
    pub fn database(&self, name: &str) -> Result<&Connection, ReadError> {
        self.position(name).map(|(_, database)| &database.connection)
    }

    /// The batch that was last committed in one database. It changes if and only if that database was written.
    pub fn tick(&self, name: &str) -> Result<Tick, ReadError> {
        self.position(name).map(|(at, _)| self.clocks.own(at))
    }

    /// The newest batch in this snapshot, over all its databases.
    #[must_use]
    pub fn newest(&self) -> Tick {
        self.clocks.newest()
    }

    /// The store this is a snapshot of.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Runs a query over one database and shows every row to `each`, one at a time and without collecting them;
    /// returns how many there were. The statement stays prepared for the next snapshot.
    pub fn stream(
        &self,
        database: &str,
        sql: &str,
        params: impl Params,
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<u64, ReadError> {
        let run = |connection: &Connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params)?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                each(row)?;
                count += 1;
            }
            Ok(count)
        };
        run(self.database(database)?)
            .map_err(|source| ReadError::Sql { database: database.to_owned(), source })
    }

    fn position(&self, name: &str) -> Result<(usize, &'reader Database), ReadError> {
        let found = self.databases.iter().enumerate().find(|(_, database)| database.name == name);
        found.ok_or_else(|| ReadError::UnknownDatabase {
            name: name.to_owned(),
            known: self.databases.iter().map(|database| database.name.clone()).collect(),
        })
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        for database in self.databases {
            if let Err(error) = end(&database.connection) {
                log::warn!("cannot end the read transaction on {}: {error}", database.name);
            }
        }
    }
}

/// Ends the connection's transaction, if there is one.
fn end(connection: &Connection) -> rusqlite::Result<()> {
    if !connection.is_autocommit() {
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    Ok(())
}

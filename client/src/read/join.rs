//! Joins across databases, in application code: the small side in memory, the large side streamed.
//!
//! Foreign keys and consistent reads stop at the edge of a SQLite file, and ATTACH would tie both files into one
//! transaction of the reader's own making. What remains is what SQLite itself does in a join with a small table:
//! look each row of the large side up in the small one. The small side changes rarely, and its database's
//! tick tells exactly when, so it is loaded once and kept.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use penholder_protocol::{StoreId, Tick};
use rusqlite::{Params, Row};

use super::{ReadError, Snapshot};

type Read<K, V> = Box<dyn Fn(&Row<'_>) -> rusqlite::Result<(K, V)> + Send>;

/// The small side of a join: the rows of one query as a map, loaded once per change of their database.
///
/// ```no_run
/// use penholder_client::read::{Large, Lookup, Reader};
///
/// let mut names: Lookup<i64, String> =
///     Lookup::new("config", "SELECT id, name FROM projects", |row| Ok((row.get(0)?, row.get(1)?)));
/// let mut reader = Reader::open("store")?;
/// let sessions = Large { database: "activity", sql: "SELECT project_id, app FROM activity_sessions" };
/// names.join(&reader.snapshot()?, sessions, [], |row| row.get(0), |row, project| {
///     println!("{} for {}", row.get::<_, String>(1)?, project.map_or("nobody", String::as_str));
///     Ok(())
/// })?;
/// # Ok::<(), penholder_client::read::ReadError>(())
/// ```
///
/// Keep it as long as the [`Reader`](super::Reader), or longer: it belongs to no snapshot. Everything it holds is
/// in memory, so it is for tables of up to some hundred thousand rows; swap the sides if it is the other way round.
pub struct Lookup<K, V> {
    database: String,
    sql: String,
    read: Read<K, V>,
    /// What `map` holds: that store's database at its own tick.
    loaded: Option<(StoreId, Tick)>,
    map: HashMap<K, V>,
    loads: u64,
}

/// The large side of a join: a query over another database.
#[derive(Clone, Copy, Debug)]
pub struct Large<'a> {
    /// The database's name.
    pub database: &'a str,
    /// One SELECT.
    pub sql: &'a str,
}

impl<K: Eq + Hash, V> Lookup<K, V> {
    /// Describes the small side: a SELECT over `database` without parameters, and how a row of it becomes key and
    /// value. Nothing is read before the first use. Of several rows with the same key the last one counts.
    pub fn new(
        database: impl Into<String>,
        sql: impl Into<String>,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<(K, V)> + Send + 'static,
    ) -> Self {
        let (database, sql) = (database.into(), sql.into());
        Self { database, sql, read: Box::new(read), loaded: None, map: HashMap::new(), loads: 0 }
    }

    /// The rows as they are in `snapshot`; read again only if the database's tick is another one than last time.
    pub fn at(&mut self, snapshot: &Snapshot<'_>) -> Result<&HashMap<K, V>, ReadError> {
        let wanted = Some((snapshot.store(), snapshot.tick(&self.database)?));
        if self.loaded != wanted {
            // Nothing counts as loaded until all of it is.
            self.loaded = None;
            self.map.clear();
            snapshot.stream(&self.database, &self.sql, [], |row| {
                let (key, value) = (self.read)(row)?;
                self.map.insert(key, value);
                Ok(())
            })?;
            self.loaded = wanted;
            self.loads += 1;
        }
        Ok(&self.map)
    }

    /// Streams the large side and shows each of its rows to `each`, with the small side's value for its key.
    ///
    /// `key` reads the key out of a row. A row whose key is NULL or unknown is shown too, with `None`, as in a
    /// LEFT JOIN; for an INNER JOIN let `each` skip those. Returns how many rows the large side had.
    pub fn join(
        &mut self,
        snapshot: &Snapshot<'_>,
        large: Large<'_>,
        params: impl Params,
        key: impl Fn(&Row<'_>) -> rusqlite::Result<Option<K>>,
        mut each: impl FnMut(&Row<'_>, Option<&V>) -> rusqlite::Result<()>,
    ) -> Result<u64, ReadError> {
        let small = self.at(snapshot)?;
        snapshot.stream(large.database, large.sql, params, |row| {
            let key = key(row)?;
            each(row, key.and_then(|key| small.get(&key)))
        })
    }

    /// How often the rows were read from the database so far.
    #[must_use]
    pub fn loads(&self) -> u64 {
        self.loads
    }
}

impl<K, V> fmt::Debug for Lookup<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup")
            .field("database", &self.database)
            .field("sql", &self.sql)
            .field("loaded", &self.loaded)
            .field("rows", &self.map.len())
            .finish_non_exhaustive()
    }
}

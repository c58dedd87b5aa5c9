//! Databases without a control file beside them: restored from a backup, or left when it was lost.

use penholder_protocol::{Epoch, Layout, StoreId, Tick};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::{Config, Error};

/// What the databases of a store know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) store: StoreId,
    /// Above that of every writer and of every stream that they know.
    pub(crate) epoch: Epoch,
    /// All of them have come so far; 0 if they are still to be made.
    pub(crate) tick: Tick,
}

impl Origin {
    /// A store that nobody knows yet.
    pub(crate) fn new(store: StoreId) -> Self {
        Self { store, epoch: Epoch(1), tick: Tick(0) }
    }
}

/// Finds out which store the databases are of; none if they are new. They have to agree.
pub(crate) fn find(layout: &Layout, config: &Config) -> Result<Option<Origin>, Error> {
    let origins: Vec<Option<Origin>> =
        config.databases.iter().map(|name| look_into(layout, name)).collect::<Result<_, _>>()?;
    let Some(newest) = origins.iter().flatten().copied().max_by_key(|origin| origin.epoch) else {
        return Ok(None);
    };
    if origins.iter().all(|origin| origin.is_some_and(|origin| origin.store == newest.store)) {
        let tick = origins.iter().flatten().map(|origin| origin.tick).min().unwrap_or_default();
        return Ok(Some(Origin { tick, ..newest }));
    }
    let each = config.databases.iter().zip(&origins).map(|(name, origin)| match origin {
        Some(Origin { store, .. }) => format!("{name}.db is of the store {store}"),
        None => format!("{name}.db is of none"),
    });
    Err(Error::refused(
        format!("the databases do not belong together: {}", each.collect::<Vec<_>>().join(", ")),
        "put all databases of one backup there",
    ))
}

fn look_into(layout: &Layout, name: &str) -> Result<Option<Origin>, Error> {
    let path = layout.database(name);
    if !path.try_exists().map_err(Error::io("look for", &path))? {
        return Ok(None);
    }
    let read = || {
        // As the last to close it, it leaves no WAL behind that would have the database's old mode.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_penholder_meta')";
        if !connection.query_row(sql, [], |row| row.get(0))? {
            return Ok(None);
        }
        let sql = "SELECT value, max((SELECT value FROM _penholder_meta WHERE key = 'floor') + 1, \
                   (SELECT ifnull(max(epoch), 0) FROM _penholder_stream)), \
                   (SELECT ifnull(max(tick), 0) FROM _penholder_clock WHERE database = ?1), \
                   (SELECT value FROM _penholder_meta WHERE key = 'database') \
                   FROM _penholder_meta WHERE key = 'store_id'";
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, String>(0)?, Epoch(row.get(1)?), Tick(row.get(2)?), row.get(3)?))
        };
        connection.query_row(sql, [name], row).optional()
    };
    let Some((id, epoch, tick, named)) = read().map_err(Error::sqlite("identify", name))? else {
        return Ok(None);
    };
    refuse_misplaced(name, named)?;
    let store = id.parse().map_err(|_| {
        Error::refused(format!("{name}.db names {id:?} as its store"), "restore it from a backup")
    })?;
    // A writer's floor is one below its epoch.
    Ok(Some(Origin { store, epoch: epoch.next(), tick }))
}

/// Refuses a database that names itself as another one of its store.
pub(crate) fn refuse_misplaced(name: &str, named: Option<String>) -> Result<(), Error> {
    match named.filter(|own| own != name) {
        None => Ok(()),
        Some(own) => Err(Error::refused(
            format!("{name}.db is the database {own} of this store"),
            format!("put the file back that is {name}"),
        )),
    }
}

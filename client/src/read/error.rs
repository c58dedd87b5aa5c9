//! Why a read did not happen, and what to do about it.

use std::io;
use std::path::PathBuf;

use penholder_protocol::Tick;

/// What can go wrong between opening a store and the last row of a query.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory has no control file: no writer ever made a store here.
    #[error(
        "no store in {path}: {path}/control is missing; `penholder serve {path}` makes one, or says what to put back",
        path = path.display()
    )]
    NoStore {
        /// The directory that was asked for.
        path: PathBuf,
    },
    /// The control file is there and cannot be used: its permissions forbid it, or its content is not valid.
    #[error("cannot read {}: {source}{}", path.display(), hint_for(source.kind()))]
    Control {
        /// The control file.
        path: PathBuf,
        /// What the system, or the decoder, said.
        source: io::Error,
    },
    /// The store was begun and not finished.
    #[error("{} {what}; run `penholder serve` to finish the store, or restore it from a backup", path.display())]
    Unfinished {
        /// The database, or the control file if that lists none.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A database was there and was taken away.
    #[error("{} is missing; put it back, or restore all databases from one backup", path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// A database is of another store, or is another one of this store.
    #[error("{} {what}; put the file back that belongs there", path.display())]
    Misplaced {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// SQLite cannot open the database: it is damaged, or, usually, this user may not read it or the `-wal` and `-shm`
    /// files beside it.
    #[error("cannot open {}: {source}; {}", path.display(), hint_for_open(source))]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The store, or this snapshot, has no database of that name.
    #[error("no database {name:?} here; there is {}", known.join(", "))]
    UnknownDatabase {
        /// The name that was asked for.
        name: String,
        /// The names that would have worked.
        known: Vec<String>,
    },
    /// The databases stood at different ticks at every try, so that no cut over all of them is consistent. Each alone
    /// stays readable: [`Reader::single`](super::Reader::single).
    #[error(
        "no consistent cut: {ahead} already has tick {tick}, {behind} does not; {}",
        hint_for_uneven(*writer_running, *recoverable)
    )]
    Uneven {
        /// A database that has seen `tick` of `behind`.
        ahead: String,
        /// The database that lacks it.
        behind: String,
        /// The tick that `behind` lacks.
        tick: Tick,
        /// Whether a writer runs: then it is slow.
        writer_running: bool,
        /// Whether a writer that died between its two commits can have left it so: then the next one mends it. Else `behind`
        /// was replaced by an older copy, or one of both is not of this store.
        recoverable: bool,
    },
    /// The tick that was waited for did not come within the time that was allowed.
    #[error(
        "tick {wanted} is not there yet, only {reached}; {}",
        if *writer_running { "the writer is busy: wait longer" } else { "no writer runs: start `penholder serve`" }
    )]
    Behind {
        /// The tick that was waited for.
        wanted: Tick,
        /// The newest tick of any database.
        reached: Tick,
        /// Whether a writer runs.
        writer_running: bool,
    },
    /// SQLite refused or failed a statement.
    #[error("in database {database}: {source}")]
    Sql {
        /// The database's name.
        database: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl ReadError {
    /// Whether the same call may succeed a little later, without anybody doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Uneven { writer_running, .. } | Self::Behind { writer_running, .. } => *writer_running,
            Self::Open { source, .. } | Self::Sql { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ),
            Self::NoStore { .. }
            | Self::Control { .. }
            | Self::Unfinished { .. }
            | Self::Missing { .. }
            | Self::Misplaced { .. }
            | Self::UnknownDatabase { .. } => false,
        }
    }

    /// The name of the database that SQLite found damaged, if that is what happened.
    #[must_use]
    pub fn damaged(&self) -> Option<&str> {
        match self {
            Self::Open { path, source } if is_damage(source) => path.file_stem()?.to_str(),
            Self::Sql { database, source } if is_damage(source) => Some(database),
            Self::Open { .. }
            | Self::Sql { .. }
            | Self::NoStore { .. }
            | Self::Control { .. }
            | Self::Unfinished { .. }
            | Self::Missing { .. }
            | Self::Misplaced { .. }
            | Self::UnknownDatabase { .. }
            | Self::Uneven { .. }
            | Self::Behind { .. } => None,
        }
    }
}

fn is_damage(source: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

fn hint_for_open(source: &rusqlite::Error) -> &'static str {
    if is_damage(source) {
        "restore it from a backup"
    } else {
        "this user needs to read it and the -wal and -shm beside it: usually by belonging to the store's group, and a \
         running writer makes them if they are gone"
    }
}

fn hint_for(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::PermissionDenied {
        "; this user needs to read the store, usually by belonging to its group"
    } else if kind == io::ErrorKind::NotADirectory {
        "; name the directory of a store"
    } else {
        ""
    }
}

fn hint_for_uneven(writer_running: bool, recoverable: bool) -> &'static str {
    if writer_running {
        "the writer is between its commits and slow: try again"
    } else if !recoverable {
        "one of them was replaced by an older or another one: `penholder check` looks for it, put the right one back; \
         each database alone stays readable"
    } else {
        "the writer died between its two commits: start `penholder serve`, it recovers; \
         each database alone stays readable"
    }
}

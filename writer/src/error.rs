//! Why the writer could not start, or stopped.

use std::io;
use std::path::{Path, PathBuf};

/// Whether a virtual table contradicts itself or what it is about.
pub(crate) fn is_contradiction(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CORRUPT_VTAB)
}

/// What to do about a damaged database.
const DAMAGE_HINT: &str = "; `penholder check` shows the damage, a restored backup ends it";

/// Every variant says what happened where, and what the operator does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another writer holds the store.
    #[error("another writer holds {}: {holder}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it: process id, host, start time.
        holder: String,
    },
    /// Another program holds a database's own locks, and did not give them back in time.
    #[error(
        "{holder} holds the locks of {database}.db, which only the writer may write; end it and start again"
    )]
    Held {
        /// The database's name.
        database: String,
        /// The process and its program, as far as the system tells.
        holder: String,
    },
    /// A setting, a flag or a migration is wrong; nothing was changed.
    #[error("{what}; {hint}")]
    Refused {
        /// What is wrong, and where.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The store changed under the writer: a file was replaced, or somebody else wrote.
    #[error("{what}; stop whatever else uses the store and start the writer again")]
    Intruder {
        /// What was noticed.
        what: String,
    },
    /// `SQLite` failed in a way that says nothing about the command: disk full, I/O, memory, corruption.
    #[error("{operation} {database}.db: {source}{}", if self.is_damage() { DAMAGE_HINT } else { "" })]
    Sqlite {
        /// What was being done.
        operation: &'static str,
        /// The database's name.
        database: String,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// A file of the store could not be used.
    #[error("{operation} {}: {source}{}", path.display(), hint_for_io(source))]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn hint_for_io(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "; run it as the owner of the store"
    } else if source.kind() == io::ErrorKind::NotADirectory {
        "; name the directory of a store"
    } else {
        ""
    }
}

impl Error {
    /// Refuses to go on, with the operator's next step.
    pub fn refused(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), hint: hint.into() }
    }

    /// Wraps a failed file operation; for use with `map_err`.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }

    /// Wraps a failed database operation; for use with `map_err`.
    pub fn sqlite(operation: &'static str, database: &str) -> impl FnOnce(rusqlite::Error) -> Self {
        let database = database.to_owned();
        move |source| Self::Sqlite { operation, database, source }
    }

    /// Whether reopening the databases may mend it; false for what an operator must mend first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Sqlite { .. } | Self::Io { .. } => true,
            Self::Locked { .. } | Self::Held { .. } | Self::Refused { .. } | Self::Intruder { .. } => false,
        }
    }

    /// Whether `SQLite` found a database damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Sqlite { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
                    && !self.is_contradiction()
            }
            Self::Io { .. }
            | Self::Locked { .. }
            | Self::Held { .. }
            | Self::Refused { .. }
            | Self::Intruder { .. } => false,
        }
    }

    /// Whether a virtual table contradicts itself or what it is about: no damage, and the fault of who uses it.
    pub(crate) fn is_contradiction(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if is_contradiction(source))
    }

    /// Whether a statement of the writer's own asked for what cannot be: no machine, only the writer's defect does that.
    #[must_use]
    pub(crate) fn is_of_the_writer(&self) -> bool {
        use rusqlite::ErrorCode::{ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch};
        let Self::Sqlite { source, .. } = self else { return false };
        let code = source.sqlite_error_code();
        code.is_some_and(|code| {
            [ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch].contains(&code)
        })
    }

    /// Whether a disk is full: it passes by itself once space is back.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Locked { .. } | Self::Held { .. } | Self::Refused { .. } | Self::Intruder { .. } => false,
        }
    }
}

//! What commands do to the rows of a reference, noted by triggers that belong to the connection.
//!
//! Rows are also written by triggers, cascades and rows that SELECT, so that only SQLite knows which. A trigger of the
//! temporary schema sees them all, and stands in no file. It does not see what REPLACE removes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penholder_protocol::Value;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, ffi};

use super::Column;
use crate::Error;
use crate::database::{quoted, value_of};

/// The function that the triggers call; the guard lets nobody else.
pub(super) const FUNCTION: &str = "_penholder_note";

/// How the names of the triggers begin.
const TRIGGER: &str = "_penholder_reference_";

/// Most bytes of notes of one command.
const NOTES_BYTES_MAX: usize = 8 << 20;

/// Whether a function is called by one of the triggers.
pub(crate) fn is_ours(function: &str, trigger: Option<&str>) -> bool {
    function == FUNCTION && trigger.is_some_and(|name| name.starts_with(TRIGGER))
}

/// What happened to a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    /// Index of the reference.
    pub(super) reference: usize,
    /// Key of a row that others refer to, before it was removed or renamed; NULL: a row came to refer to `new`.
    pub(super) old: Value,
    /// The new key of the row, or what a row refers to now; NULL: the row was removed.
    pub(super) new: Value,
}

/// Notes on the command at hand.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    notes: Vec<Note>,
    bytes: usize,
}

impl Notes {
    /// Forgets what the last command did.
    pub(super) fn clear(&self) {
        *self.taken() = Taken::default();
    }

    /// What happened since this was last asked.
    pub(super) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut self.taken().notes)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, context: &Context<'_>) -> rusqlite::Result<()> {
        let note = Note {
            reference: context.get(0)?,
            old: value_of(context.get_raw(1)),
            new: value_of(context.get_raw(2)),
        };
        let mut taken = self.taken();
        // Rows that refer to the same come together.
        if taken.notes.last() == Some(&note) {
            return Ok(());
        }
        taken.bytes += size_of::<Note>() + bytes_of(&note.old) + bytes_of(&note.new);
        if taken.bytes > NOTES_BYTES_MAX {
            let text = "the command changes more references to another database than one command may";
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_TOOBIG),
                Some(text.into()),
            ));
        }
        taken.notes.push(note);
        Ok(())
    }

    /// Makes the function known to a connection, which its triggers call.
    pub(super) fn connect(&self, connection: &Connection) -> rusqlite::Result<()> {
        let notes = self.clone();
        connection.create_scalar_function(FUNCTION, 3, FunctionFlags::SQLITE_UTF8, move |context| {
            notes.add(context).map(|()| rusqlite::types::Null)
        })
    }
}

/// Bytes of a value beside its place in a note.
pub(super) fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}

/// Notes every row that comes to refer to another.
pub(super) fn watch_child(connection: &Connection, reference: usize, child: &Column) -> Result<(), Error> {
    let (table, column) = (quoted(&child.table), quoted(&child.column));
    // Not UPDATE OF: a column can also be updated under the name rowid.
    let sql = format!(
        "CREATE TEMP TRIGGER {TRIGGER}{reference}_inserted AFTER INSERT ON {table} WHEN NEW.{column} IS NOT NULL \
         BEGIN SELECT {FUNCTION}({reference}, NULL, NEW.{column}); END; \
         CREATE TEMP TRIGGER {TRIGGER}{reference}_updated AFTER UPDATE ON {table} \
         WHEN NEW.{column} IS NOT NULL AND NEW.{column} IS NOT OLD.{column} \
         BEGIN SELECT {FUNCTION}({reference}, NULL, NEW.{column}); END"
    );
    connection.execute_batch(&sql).map_err(Error::sqlite("watch the references of", &child.database))
}

/// Notes every row that others may refer to and that is removed or gets another key.
pub(super) fn watch_parent(connection: &Connection, reference: usize, parent: &Column) -> Result<(), Error> {
    let (table, key) = (quoted(&parent.table), quoted(&parent.column));
    let sql = format!(
        "CREATE TEMP TRIGGER {TRIGGER}{reference}_removed AFTER DELETE ON {table} WHEN OLD.{key} IS NOT NULL \
         BEGIN SELECT {FUNCTION}({reference}, OLD.{key}, NULL); END; \
         CREATE TEMP TRIGGER {TRIGGER}{reference}_renamed AFTER UPDATE ON {table} \
         WHEN OLD.{key} IS NOT NULL AND NEW.{key} IS NOT OLD.{key} \
         BEGIN SELECT {FUNCTION}({reference}, OLD.{key}, NEW.{key}); END"
    );
    connection.execute_batch(&sql).map_err(Error::sqlite("watch the references to", &parent.database))
}

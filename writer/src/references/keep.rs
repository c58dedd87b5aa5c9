//! Keeps the references: at the end of a command, every row that it made refer to another finds that one, and no row
//! refers to one that it removed.
//!
//! At the end, not before: within a command the order of the statements does not matter, and a row that is replaced under
//! its own key was never gone.

use std::sync::Arc;

use penholder_protocol::{Code, Command, PackedCommand, Sequence, Statement, StreamId, Text, Value, limits};
use rusqlite::OptionalExtension;

use super::notes::{self, Note, Notes, bytes_of};
use super::{Column, OnDelete};
use crate::apply::{self, Failure, rejection};
use crate::batch::{Entry, Touches};
use crate::database::{Bound, Database, quoted, says, value_of};
use crate::grants::Roles;
use crate::guard::Mode;
use crate::{Config, Error};

/// Most bytes of statements that the references may add to one command: with those of a batch they must fit into a
/// redo row.
pub(crate) const ADDED_BYTES_MAX: usize = 1 << 20;

/// Most characters of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 100;

/// A reference as it is kept on open databases.
#[derive(Debug)]
struct Kept {
    from: Column,
    to: Column,
    /// Index of the database that refers.
    child: usize,
    /// Index of the database that it refers to.
    parent: usize,
    /// Whether a key is there.
    parent_has: String,
    parent_keys: String,
    /// Whether any row refers to a key.
    child_has: String,
    /// What is done to rows that refer to a removed key; `None`: it may not be removed.
    on_removal: Option<Arc<Text>>,
    /// What is done to rows that refer to a key that was changed: a second parameter is the new one.
    on_renaming: Option<Arc<Text>>,
    /// The schema says REPLACE somewhere: any statement may remove rows without a note.
    may_replace: bool,
}

/// The references of a store while its databases are open.
#[derive(Debug, Default)]
pub(crate) struct References {
    kept: Vec<Kept>,
    notes: Notes,
    /// Keys before a command that may remove rows without a note, by reference.
    before: Vec<(usize, Value)>,
    /// The commands of the batch to which statements were added, and these.
    added: Vec<(StreamId, Sequence, Command)>,
    added_bytes: usize,
}

impl References {
    /// Installs what notes the changes; call it when the schema is complete, and before a client's statement is prepared.
    pub(crate) fn install(config: &Config, databases: &[Database<'_>]) -> Result<Self, Error> {
        let mut references = Self::default();
        for declared in &config.references {
            let (from, to) = declared.ends(&config.databases)?;
            let place = |column: &Column| Touches::index_of(&column.database, &config.databases);
            let (Some(child), Some(parent)) = (place(&from), place(&to)) else { continue };
            let (Some(below), Some(above)) = (databases.get(child), databases.get(parent)) else { continue };
            declared.check_columns((&from, below.connection), (&to, above.connection))?;
            if !declared.is_kept() {
                continue;
            }
            for database in [below, above] {
                let connected = references.notes.connect(database.connection);
                connected.map_err(Error::sqlite("watch the references of", &database.name))?;
            }
            let index = references.kept.len();
            notes::watch_child(below.connection, index, &from)?;
            notes::watch_parent(above.connection, index, &to)?;
            below.guard.watch(&from.table);
            above.guard.watch(&to.table);
            let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE sql LIKE '%replace%')";
            let may_replace = above.read("read the schema of", sql, [], |row| row.get(0))?;
            references.kept.push(Kept::new(
                from,
                to,
                (child, parent),
                declared.on_delete,
                may_replace != Some(false),
            ));
        }
        Ok(references)
    }

    /// Forgets the batch before.
    pub(crate) fn begin_batch(&mut self) {
        self.added.clear();
        self.added_bytes = 0;
    }

    /// Bytes of what was added to the commands of the batch: it stands in their redo row.
    pub(crate) fn added_bytes(&self) -> usize {
        self.added_bytes
    }

    /// The commands of the batch to which statements were added, in order, and these.
    pub(crate) fn added(&self) -> &[(StreamId, Sequence, Command)] {
        &self.added
    }

    /// Gets ready for a command, whose statements have not run yet.
    pub(crate) fn begin(&mut self, databases: &[Database<'_>], entry: &Entry) -> Result<(), Error> {
        if self.kept.is_empty() {
            return Ok(());
        }
        self.notes.clear();
        self.before.clear();
        for (index, kept) in self.kept.iter().enumerate() {
            let Some(parent) = databases.get(kept.parent) else { continue };
            let mut texts = entry.command.read().statements().map(|statement| statement.text);
            let may_replace = kept.may_replace
                || texts.any(|text| text.database == parent.name && says(&text.sql, b"replace"));
            if may_replace && entry.touches.contains(kept.parent) {
                let keys = keys_of(parent, &kept.parent_keys)
                    .map_err(Error::sqlite("read the keys of references to", &parent.name))?;
                self.before.extend(keys.into_iter().map(|key| (index, key)));
            }
        }
        Ok(())
    }

    /// Does for the rows that refer what the references ask for, or fails because it may not be.
    pub(crate) fn settle(&mut self, databases: &mut [Database<'_>], entry: &Entry) -> Result<(), Failure> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let mut added = Vec::new();
        let mut wanted = Vec::new();
        let removed = |(reference, old)| Note { reference, old, new: Value::Null };
        let mut pending = self.notes.take();
        pending.extend(std::mem::take(&mut self.before).into_iter().map(removed));
        // What is done for one reference may be noted for another.
        while !pending.is_empty() {
            for note in pending {
                let Some(kept) = self.kept.get(note.reference).filter(|kept| kept.is_within(entry)) else {
                    continue;
                };
                if note.old == Value::Null {
                    wanted.push(note);
                } else {
                    added.extend(kept.settle_removal(databases, &note)?);
                }
            }
            pending = self.notes.take();
        }
        for note in &wanted {
            if let Some(kept) = self.kept.get(note.reference) {
                kept.check(databases, &note.new)?;
            }
        }
        if !added.is_empty() {
            self.add(entry, &added)?;
        }
        Ok(())
    }

    /// Takes back what was added to a command that is rejected after all.
    pub(crate) fn undo(&mut self, entry: &Entry) {
        let is_its = |(stream, sequence, _): &mut _| (*stream, *sequence) == (entry.stream, entry.sequence);
        while self.added.pop_if(is_its).is_some() {}
    }

    fn add(&mut self, entry: &Entry, statements: &[Statement]) -> Result<(), Failure> {
        // No less than what they take where they are stored.
        let size = |s: &Statement| {
            let text = s.text.database.len() + s.text.sql.len();
            64 + text + s.params.iter().map(|p| bytes_of(p) + 16).sum::<usize>()
        };
        let bytes: usize = statements.iter().map(size).sum();
        if bytes > ADDED_BYTES_MAX {
            let message = "the command removes more rows that others refer to than one command may; remove them in parts";
            return Err(Failure::Rejected(rejection(Code::Limit, message, None)));
        }
        self.added_bytes += bytes;
        // Each is to be read again as a command.
        for part in statements.chunks(limits::COMMAND_STATEMENTS_MAX) {
            self.added.push((entry.stream, entry.sequence, Command { key: None, statements: part.to_vec() }));
        }
        Ok(())
    }
}

impl Kept {
    fn new(
        from: Column,
        to: Column,
        (child, parent): (usize, usize),
        on: OnDelete,
        may_replace: bool,
    ) -> Self {
        let (table, column) = (quoted(&from.table), quoted(&from.column));
        let (parents, key) = (quoted(&to.table), quoted(&to.column));
        let text = |sql: String| Some(Text::new(&from.database, sql));
        let to_null = format!("UPDATE {table} SET {column} = NULL WHERE {column} = ?1");
        let (on_removal, on_renaming) = match on {
            OnDelete::Restrict | OnDelete::Keep => (None, None),
            OnDelete::SetNull => (text(to_null), None),
            OnDelete::Cascade => (
                text(format!("DELETE FROM {table} WHERE {column} = ?1")),
                text(format!("UPDATE {table} SET {column} = ?2 WHERE {column} = ?1")),
            ),
        };
        Self {
            child,
            parent,
            parent_has: format!("SELECT 1 FROM {parents} WHERE {key} = ?1"),
            parent_keys: format!("SELECT {key} FROM {parents} WHERE {key} IS NOT NULL"),
            child_has: format!("SELECT 1 FROM {table} WHERE {column} = ?1 LIMIT 1"),
            on_removal,
            on_renaming,
            may_replace,
            from,
            to,
        }
    }

    /// Whether the command's transactions reach to where the reference comes from: not if a rollback of one database
    /// was accepted, and only its part is applied again.
    fn is_within(&self, entry: &Entry) -> bool {
        entry.touches.contains(self.child)
    }

    /// What was done to the rows that refer to a key which is gone.
    fn settle_removal(
        &self,
        databases: &mut [Database<'_>],
        note: &Note,
    ) -> Result<Option<Statement>, Failure> {
        if has(databases, self.parent, &self.parent_has, &note.old)?
            || !has(databases, self.child, &self.child_has, &note.old)?
        {
            return Ok(None);
        }
        let renaming = self.on_renaming.as_ref().filter(|_| note.new != Value::Null);
        let Some(text) = renaming.or(self.on_removal.as_ref()) else {
            let (from, to, key) = (&self.from, &self.to, shown(&note.old));
            let message = format!("{from} still refers to {to} = {key}, and the reference restricts");
            return Err(Failure::Rejected(rejection(Code::Constraint, &message, None)));
        };
        let mut statement = Statement::of(Arc::clone(text)).bind(note.old.clone());
        if renaming.is_some() {
            statement = statement.bind(note.new.clone());
        }
        if let Some(database) = databases.get_mut(self.child) {
            let packed = PackedCommand::pack(&statement.clone().into());
            for statement in packed.read().statements() {
                // What is added must do the same when it is completed after a crash.
                apply::run_one(database, &statement, Mode::ClientReplayable(Roles::OWNER), None)
                    .map_err(|error| apply::classify(error, database, None))?;
            }
        }
        Ok(Some(statement))
    }

    /// Fails if rows refer to a key that is not there.
    fn check(&self, databases: &[Database<'_>], key: &Value) -> Result<(), Failure> {
        if has(databases, self.parent, &self.parent_has, key)?
            || !has(databases, self.child, &self.child_has, key)?
        {
            return Ok(());
        }
        let (from, to, key) = (&self.from, &self.to, shown(key));
        let message = format!("{from} refers to {to} = {key}, which is not there");
        Err(Failure::Rejected(rejection(Code::Constraint, &message, None)))
    }
}

/// Whether a statement of the engine finds a row for a value; it counts as the command's own time.
fn has(databases: &[Database<'_>], index: usize, sql: &str, value: &Value) -> Result<bool, Failure> {
    let Some(database) = databases.get(index) else { return Ok(false) };
    database.guard.set_mode(Mode::Engine);
    let look = || {
        let mut statement = database.connection.prepare_cached(sql)?;
        statement.query_row([Bound::from(value)], |_| Ok(())).optional()
    };
    look().map(|found| found.is_some()).map_err(|error| apply::classify(error, database, None))
}

fn keys_of(database: &Database<'_>, sql: &str) -> rusqlite::Result<Vec<Value>> {
    database.guard.set_mode(Mode::Engine);
    let mut statement = database.connection.prepare_cached(sql)?;
    let keys = statement.query_map([], |row| Ok(value_of(row.get_ref(0)?)))?;
    keys.collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Text(text) => format!("{:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>()),
        Value::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

//! References between databases, which SQLite cannot declare: as `penholder.toml` has them, and as the writer keeps them.

use std::fmt;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::batch::Touches;
use crate::{Config, Error};

mod keep;
mod notes;

pub(crate) use keep::{ADDED_BYTES_MAX, References};
pub(crate) use notes::is_ours as is_own_trigger;

/// A column of a table of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of the database.
    pub database: String,
    /// Name of the table in it.
    pub table: String,
    /// Name of the column in that.
    pub column: String,
}

impl Column {
    /// Reads `DATABASE.TABLE.COLUMN`.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('.').map(str::to_owned);
        let column = Self { database: words.next()?, table: words.next()?, column: words.next()? };
        let is_whole = words.next().is_none() && !column.table.is_empty() && !column.column.is_empty();
        is_whole.then_some(column)
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.database, self.table, self.column)
    }
}

/// What becomes of the rows that refer to a row that goes, or whose key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum OnDelete {
    /// It may not go.
    #[serde(rename = "restrict")]
    Restrict,
    /// They refer to nothing from then on.
    #[serde(rename = "set null")]
    SetNull,
    /// They go as well, or follow the key.
    #[serde(rename = "cascade")]
    Cascade,
    /// They stay as they are: nothing is enforced, and a row may refer to what is not there.
    #[serde(rename = "keep")]
    Keep,
}

/// A `[[references]]` of `penholder.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// `DATABASE.TABLE.COLUMN` that refers.
    pub from: String,
    /// `DATABASE.TABLE.COLUMN` that it refers to.
    pub to: String,
    /// What becomes of the rows that refer.
    pub on_delete: OnDelete,
}

/// A mistake in a reference, with its place.
fn refuse(reference: &Reference, reason: impl fmt::Display) -> Error {
    let what =
        format!("penholder.toml: [[references]] from {:?} to {:?}: {reason}", reference.from, reference.to);
    Error::refused(what, "correct it and start again")
}

impl Reference {
    /// Both ends; refuses names of databases that do not exist, and an order in which they cannot be kept.
    pub fn ends(&self, databases: &[String]) -> Result<(Column, Column), Error> {
        let (from, to) = self.parsed(databases)?;
        let place = |column: &Column| Touches::index_of(&column.database, databases);
        if place(&to) >= place(&from) {
            let order = databases.join(", ");
            let reason = format!(
                "it must go to a database that commits before its own; the order is {order}, and within a database \
                 SQLite's own REFERENCES does it"
            );
            return Err(refuse(self, reason));
        }
        Ok((from, to))
    }

    fn parsed(&self, databases: &[String]) -> Result<(Column, Column), Error> {
        let parse = |text: &str| {
            let column = Column::parse(text)
                .ok_or_else(|| refuse(self, format!("{text:?} is not DATABASE.TABLE.COLUMN")))?;
            if !databases.contains(&column.database) {
                let known = databases.join(", ");
                return Err(refuse(
                    self,
                    format!("there is no database {:?}; there are {known}", column.database),
                ));
            }
            Ok(column)
        };
        Ok((parse(&self.from)?, parse(&self.to)?))
    }

    /// Whether the writer has anything to do for it.
    fn is_kept(&self) -> bool {
        self.on_delete != OnDelete::Keep
    }

    /// Refuses an end that is not a column of a table of its database, and a key that is not unique.
    fn check_columns(&self, from: (&Column, &Connection), to: (&Column, &Connection)) -> Result<(), Error> {
        for (column, connection) in [from, to] {
            let failed = || Error::sqlite("read the schema of", &column.database);
            let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?1) \
                       AND sql NOT LIKE 'CREATE VIRTUAL%'), \
                       EXISTS (SELECT 1 FROM pragma_table_xinfo(?1) WHERE lower(name) = lower(?2))";
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let names = (&column.table, &column.column);
            match connection.query_row(sql, names, row).map_err(failed())? {
                (true, true) => {}
                (false, _) => {
                    let what = format!("{}.db has no table {:?}", column.database, column.table);
                    return Err(refuse(self, what));
                }
                (true, false) => {
                    return Err(refuse(self, format!("{} has no column {:?}", column.table, column.column)));
                }
            }
        }
        if !is_unique(to.0, to.1)? {
            return Err(refuse(self, format!("{} is neither the primary key nor UNIQUE", to.0)));
        }
        if !is_indexed(from.0, from.1)? {
            log::warn!(
                "{} has no index: what is done to the rows that it refers to reads its whole table",
                from.0
            );
        }
        Ok(())
    }
}

fn is_unique(column: &Column, connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT (SELECT count(*) = 1 AND lower(max(name)) = lower(?2) FROM pragma_table_xinfo(?1) WHERE pk > 0) \
               OR EXISTS (SELECT 1 FROM pragma_index_list(?1) AS list WHERE list.\"unique\" AND NOT list.partial \
               AND (SELECT count(*) = 1 AND lower(max(name)) = lower(?2) FROM pragma_index_info(list.name)))";
    let found = connection.query_row(sql, (&column.table, &column.column), |row| row.get(0));
    found.map_err(Error::sqlite("read the schema of", &column.database))
}

fn is_indexed(column: &Column, connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_xinfo(?1) WHERE pk = 1 AND lower(name) = lower(?2)) \
               OR EXISTS (SELECT 1 FROM pragma_index_list(?1) AS list, pragma_index_info(list.name) AS info \
               WHERE NOT list.partial AND info.seqno = 0 AND lower(info.name) = lower(?2))";
    let found = connection.query_row(sql, (&column.table, &column.column), |row| row.get(0));
    found.map_err(Error::sqlite("read the schema of", &column.database))
}

/// The databases that a command touches along with those it names: those whose rows refer to what it may remove.
///
/// Known before a command is prepared, because a batch is cut by it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Along(Vec<Touches>);

impl Along {
    /// From the settings alone; nothing where no reference is kept.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let kept: Vec<_> = config.references.iter().filter(|reference| reference.is_kept()).collect();
        if kept.is_empty() {
            return Ok(Self::default());
        }
        let mut along: Vec<_> =
            (0..config.databases.len()).map(|index| Touches::default().with(index)).collect();
        // Databases that commit later are complete before those that they refer to.
        for to in (0..along.len()).rev() {
            for reference in &kept {
                let (child, parent) = reference.ends(&config.databases)?;
                let index = |column: &Column| Touches::index_of(&column.database, &config.databases);
                if index(&parent) == Some(to)
                    && let Some(more) = index(&child).and_then(|child| along.get(child).copied())
                    && let Some(touches) = along.get_mut(to)
                {
                    *touches = touches.and(more);
                }
            }
        }
        Ok(Self(along))
    }

    /// All that a command touches that names these.
    pub(crate) fn of(&self, named: Touches) -> Touches {
        if self.0.is_empty() {
            return named;
        }
        let each = self.0.iter().enumerate().filter(|(index, _)| named.contains(*index));
        each.fold(named, |all, (_, touches)| all.and(*touches))
    }
}

#[cfg(test)]
mod tests;

//! The schema, made once in memory: what this SQLite cannot make is found before anything is written, and SQLite itself
//! tells which tables a view or a trigger touches.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::catalog::{Catalog, ForeignKey, Kind, Object, Table, quote};

/// A table that is there for one question.
const PROBE: &str = "_penholder_probe";

/// A schema without rows.
pub(super) struct Rehearsal {
    connection: Connection,
    touched: Arc<Mutex<Vec<Touch>>>,
    /// What could not be made, and why.
    pub(super) refusals: Vec<String>,
}

/// One table, as one statement touches it.
#[derive(Debug)]
struct Touch {
    table: String,
    /// The view or trigger that does it.
    accessor: Option<String>,
}

/// The tables that a view or trigger touches, or why it does not work.
pub(super) type Touched = Result<BTreeSet<String>, String>;

impl Rehearsal {
    /// Makes tables and indexes as the new databases will have them.
    pub(super) fn of(catalog: &Catalog) -> rusqlite::Result<Self> {
        let mut connection = Connection::open_in_memory_with_flags(
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.pragma_update(None, "encoding", &catalog.facts.encoding)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.pragma_update(None, "writable_schema", true)?;
        // The writer reads the schema with this limit.
        let bound = i32::try_from(penholder_protocol::limits::SQL_BYTES_MAX).unwrap_or(i32::MAX);
        connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, bound)?;
        let touched = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&touched);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            if let Some(table) = table_of(&context.action) {
                let touch = Touch { table: table.into(), accessor: context.accessor.map(Into::into) };
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(touch);
            }
            Authorization::Allow
        }))?;
        let mut rehearsal = Self { connection, touched, refusals: Vec::new() };
        for table in catalog.tables.iter().filter(|table| table.kind != Kind::Internal) {
            // A virtual table makes its shadow tables itself.
            if !matches!(table.kind, Kind::Shadow(_)) {
                rehearsal.make("table", &table.name, &table.sql);
            }
        }
        for index in &catalog.indexes {
            rehearsal.make("index", &index.name, &index.sql);
        }
        for view in &catalog.views {
            rehearsal.make("view", &view.name, &view.sql);
        }
        Ok(rehearsal)
    }

    fn make(&mut self, kind: &str, name: &str, sql: &str) {
        if let Err(error) = self.run(sql) {
            self.refusals.push(format!("{kind} {name} cannot be made by this SQLite: {error}"));
        }
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    fn listen(&self, work: impl FnOnce() -> rusqlite::Result<()>) -> Result<Vec<Touch>, String> {
        let take = || std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        take();
        work().map_err(|error| error.to_string())?;
        Ok(take())
    }

    /// The tables that a view reads.
    pub(super) fn of_view(&self, view: &Object, catalog: &Catalog) -> Touched {
        let sql = format!("SELECT * FROM {}", quote(&view.name));
        let touches = self.listen(|| self.connection.prepare(&sql).map(drop))?;
        Ok(names(touches.iter(), catalog))
    }

    /// The tables that a virtual table reads beside its own: FTS5 can keep its content in another one.
    pub(super) fn of_virtual(&self, table: &Table, catalog: &Catalog) -> Touched {
        let sql = format!("SELECT * FROM {} LIMIT 1", quote(&table.name));
        let touches = self.listen(|| self.run(&sql))?;
        Ok(names(touches.iter(), catalog))
    }

    /// The tables that a trigger reads and writes, its own included; it is made for the question only.
    pub(super) fn of_trigger(&self, trigger: &Object, catalog: &Catalog) -> Touched {
        self.run(&trigger.sql).map_err(|error| error.to_string())?;
        let found = self.fire(trigger, catalog);
        self.run(&format!("DROP TRIGGER {}", quote(&trigger.name))).map_err(|error| error.to_string())?;
        found
    }

    /// Prepares one statement of each kind that can fire it.
    fn fire(&self, trigger: &Object, catalog: &Catalog) -> Touched {
        let table = quote(&trigger.table);
        let columns =
            super::catalog::columns(&self.connection, &trigger.table).map_err(|error| error.to_string())?;
        let sets: Vec<String> = columns
            .iter()
            .filter(|column| !column.generated)
            .map(|column| format!("{0} = {0}", quote(&column.name)))
            .collect();
        let statements = [
            format!("INSERT INTO {table} DEFAULT VALUES"),
            format!("UPDATE {table} SET {}", sets.join(", ")),
            format!("DELETE FROM {table}"),
        ];
        let mut found = BTreeSet::new();
        for sql in &statements {
            let touches = self.listen(|| self.connection.prepare(sql).map(drop));
            let touches = match touches {
                // A view without INSTEAD OF triggers for this kind of statement.
                Err(error) if error.contains("because it is a view") => continue,
                touches => touches?,
            };
            let ours = |touch: &&Touch| {
                touch.accessor.as_ref().is_some_and(|accessor| accessor.eq_ignore_ascii_case(&trigger.name))
            };
            found.extend(names(touches.iter().filter(ours), catalog));
        }
        found.extend(names([Touch { table: trigger.table.clone(), accessor: None }].iter(), catalog));
        Ok(found)
    }

    /// Whether SQLite can look up what the foreign key refers to: its parent has a key over just these columns.
    pub(super) fn try_key(&self, catalog: &Catalog, key: &ForeignKey) -> Result<(), String> {
        let names = |list: Vec<String>| list.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        let from = names(key.columns.iter().map(|(from, _)| from.clone()).collect());
        let to: Option<Vec<String>> = key.columns.iter().map(|(_, to)| to.clone()).collect();
        let to = to.map(|to| format!("({})", names(to))).unwrap_or_default();
        let probe = quote(PROBE);
        let parent = catalog.table(&key.parent).map_or(&key.parent, |table| &table.name);
        let sql =
            format!("CREATE TABLE {probe}({from}, FOREIGN KEY ({from}) REFERENCES {}{to})", quote(parent));
        self.run(&sql).map_err(|error| error.to_string())?;
        let checked = self.run(&format!("PRAGMA foreign_key_check({probe})"));
        self.run(&format!("DROP TABLE {probe}")).map_err(|error| error.to_string())?;
        // In the words of the old schema.
        checked.map_err(|error| error.to_string().replace(PROBE, &key.child))
    }

    /// The number of foreign keys and the names of the columns that a table has when it is made with another text.
    pub(super) fn shape(&self, table: &str, sql: &str) -> rusqlite::Result<(u64, Vec<String>)> {
        self.run("SAVEPOINT shape")?;
        let make = || {
            self.run(&format!("DROP TABLE {}", quote(table)))?;
            self.run(sql)?;
            let keys = "SELECT count(DISTINCT id) FROM pragma_foreign_key_list(?1)";
            let keys = self.connection.query_row(keys, [table], |row| row.get(0))?;
            let columns = super::catalog::columns(&self.connection, table)?;
            let indexes = "SELECT group_concat(name || \"unique\" || origin) FROM pragma_index_list(?1)";
            let indexes: Option<String> = self.connection.query_row(indexes, [table], |row| row.get(0))?;
            let described = columns.iter().map(|column| format!("{column:?}"));
            Ok((keys, described.chain(indexes).collect()))
        };
        let made = make();
        self.run("ROLLBACK TO shape")?;
        self.run("RELEASE shape")?;
        made
    }
}

/// The table that an action is about.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these four name a table that is read or written")]
fn table_of<'a>(action: &AuthAction<'a>) -> Option<&'a str> {
    match action {
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => Some(table_name),
        _ => None,
    }
}

/// The units that these tables belong to; views and SQLite's own tables are none.
fn names<'t>(touches: impl Iterator<Item = &'t Touch>, catalog: &Catalog) -> BTreeSet<String> {
    let unit = |touch: &Touch| {
        let table = catalog.table(&touch.table).filter(|table| table.kind != Kind::Internal)?;
        Some(table.unit().to_owned())
    };
    touches.filter_map(unit).collect()
}

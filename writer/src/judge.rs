//! Whether the roles of a client allow a statement: found out by preparing it on a likeness of the database.
//!
//! On the database itself the authorizer cannot tell what a client asks for from what the schema does because of it: it
//! reports the reads and the cascades of foreign keys as the client's, it gives the name of a common table expression
//! where it would give that of a view, and it does not report what REPLACE deletes. So the judge has a database of its
//! own, in memory and empty: every table as it is, every view as a table, no trigger of the schema, no foreign keys. What
//! is reported there is what the client asks for. There, each table also has a unique index over all of its columns and
//! a trigger on DELETE, so that every REPLACE has to mention the trigger.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penholder_protocol::limits;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ffi};

use crate::Error;
use crate::database::{prepare_one, quoted};
use crate::grants::{Grants, Matrix, Roles, Verb};
use crate::guard;

/// How the names of the triggers begin that make REPLACE show itself; the table's name follows.
const REMOVAL: &str = "_penholder_removal_";

/// Table-valued functions that read nothing but their arguments.
const ROWS_OF_ARGUMENTS: [&str; 2] = ["json_each", "json_tree"];

/// Knows what the roles may do in one database.
#[derive(Debug)]
pub(crate) struct Judge {
    likeness: Connection,
    hearing: Arc<Mutex<Hearing>>,
}

/// What the authorizer of the likeness looks at.
#[derive(Debug)]
struct Hearing {
    database: String,
    matrix: Matrix,
    /// Kept by a module: no trigger tells what REPLACE removes from them.
    virtual_tables: Vec<String>,
    /// Tables and views with triggers, whose own ON CONFLICT a REPLACE would override.
    with_triggers: Vec<String>,
    /// Modules that can be read like a table; a name that is neither is a common table expression.
    modules: Vec<String>,
    /// Whose statement is being prepared; `None` while the likeness is built.
    roles: Option<Roles>,
    /// The statement is a DELETE: that it removes rows says nothing about REPLACE.
    deletes: bool,
    denied: Option<String>,
}

/// What stands in the schema of a database.
struct Item {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

impl Judge {
    /// Draws the likeness of a database whose schema is complete, and reads the grants on its tables.
    pub(crate) fn new(name: &str, connection: &Connection, grants: &Grants) -> Result<Self, Error> {
        let failed = || Error::sqlite("read the schema of", name);
        let items = items(connection).map_err(failed())?;
        let of_kind = |kind: &'static str| items.iter().filter(move |item| item.kind == kind);
        let tables: Vec<_> = of_kind("table").chain(of_kind("view")).map(|item| item.name.clone()).collect();
        let is_virtual = |item: &&Item| starts_with(&item.sql, "CREATE VIRTUAL");
        let lower = |name: &String| name.to_ascii_lowercase();
        let hearing = Arc::new(Mutex::new(Hearing {
            database: name.to_owned(),
            matrix: grants.matrix(name, &tables)?,
            virtual_tables: of_kind("table").filter(is_virtual).map(|item| lower(&item.name)).collect(),
            with_triggers: of_kind("trigger").map(|item| lower(&item.table)).collect(),
            modules: modules(connection).map_err(failed())?,
            roles: None,
            deletes: false,
            denied: None,
        }));
        let likeness = draw(connection, &items, Arc::clone(&hearing)).map_err(|error| {
            let what =
                format!("the grants on {name}.db cannot be enforced, its schema cannot be drawn: {error}");
            Error::refused(what, "mend the schema, or remove [grants]")
        })?;
        Ok(Self { likeness, hearing })
    }

    /// Fails if the statement is wrong or asks for more than the roles may; then the second value says what.
    pub(crate) fn judge(&self, sql: &str, roles: Roles) -> (rusqlite::Result<()>, Option<String>) {
        self.hearing().begin(roles);
        let prepared = prepare_one(&self.likeness, sql).map(drop);
        let denied = self.hearing().denied.take();
        // Whatever SQLite makes of a refusal: refused is refused.
        match denied {
            Some(denied) => (Err(refused()), Some(denied)),
            None => (prepared, None),
        }
    }

    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error with which SQLite answers what its authorizer refused.
pub(crate) fn refused() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_AUTH), None)
}

impl Hearing {
    fn begin(&mut self, roles: Roles) {
        self.roles = Some(roles);
        self.deletes = false;
        self.denied = None;
    }

    fn decide(&mut self, context: &AuthContext<'_>) -> Authorization {
        let Some(roles) = self.roles else { return Authorization::Allow };
        match self.objection(context, roles) {
            None => Authorization::Allow,
            Some(objection) => {
                self.denied.get_or_insert(objection);
                Authorization::Deny
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not about a table is the guard's to refuse")]
    fn objection(&mut self, context: &AuthContext<'_>, roles: Roles) -> Option<String> {
        match context.action {
            // What a table expression of that name does is refused as well: nobody calls one so in good faith.
            AuthAction::Select => {
                let table = context.accessor.and_then(|trigger| trigger.strip_prefix(REMOVAL))?;
                self.objection_to_removal(table, roles)
            }
            AuthAction::Read { table_name, column_name } => {
                if column_name.is_empty() && self.is_expression(table_name) {
                    return None;
                }
                self.lacks(table_name, Verb::Select, roles)
            }
            AuthAction::Insert { table_name } => self.lacks_to_write(table_name, Verb::Insert, roles),
            AuthAction::Update { table_name, .. } => self.lacks_to_write(table_name, Verb::Update, roles),
            AuthAction::Delete { table_name } => {
                self.deletes = true;
                self.lacks(table_name, Verb::Delete, roles)
            }
            // Functions are judged where the statement will run.
            AuthAction::Function { .. } => None,
            action => guard::refusal(&action, false),
        }
    }

    fn lacks(&self, table: &str, verb: Verb, roles: Roles) -> Option<String> {
        if verb == Verb::Select && ROWS_OF_ARGUMENTS.iter().any(|name| name.eq_ignore_ascii_case(table)) {
            return None;
        }
        let verbs = self.matrix.verbs(table, roles).unwrap_or_default();
        let (who, verb_name, database) = (self.matrix.names(roles), verb.as_str(), &self.database);
        (!verbs.contains(verb)).then(|| format!("{who} has no {verb_name} on {database}.{table}"))
    }

    fn lacks_to_write(&self, table: &str, verb: Verb, roles: Roles) -> Option<String> {
        let is_virtual = self.virtual_tables.contains(&table.to_ascii_lowercase());
        let removal = || self.lacks(table, Verb::Delete, roles).filter(|_| is_virtual);
        self.lacks(table, verb, roles).or_else(removal)
    }

    /// Rows of the table may be removed: by DELETE, by REPLACE, or by an ON CONFLICT REPLACE of the schema.
    fn objection_to_removal(&self, table: &str, roles: Roles) -> Option<String> {
        let overrides = !self.deletes && self.with_triggers.iter().any(|known| known == table);
        self.lacks(table, Verb::Delete, roles).or_else(|| {
            overrides.then(|| {
                let (who, database) = (self.matrix.names(roles), &self.database);
                format!(
                    "{who} may not REPLACE in {database}.{table}: its triggers would replace rows as well, in tables \
                     where {who} may have no delete; use ON CONFLICT DO UPDATE"
                )
            })
        })
    }

    /// Whether a name is that of a common table expression, of which no column is read.
    fn is_expression(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let is_table = self.matrix.verbs(&name, Roles::NONE).is_some();
        let is_own = name.starts_with("sqlite_") || name.starts_with("pragma_");
        !is_table && !is_own && !self.modules.contains(&name)
    }
}

fn items(connection: &Connection) -> rusqlite::Result<Vec<Item>> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema \
               WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND sql IS NOT NULL ORDER BY rowid";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Item { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    rows.collect()
}

fn modules(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_module_list")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// Builds the likeness: virtual tables first, which bring tables of their own, then what is not there yet.
fn draw(original: &Connection, items: &[Item], hearing: Arc<Mutex<Hearing>>) -> rusqlite::Result<Connection> {
    let mut likeness = Connection::open_in_memory()?;
    likeness.pragma_update(None, "foreign_keys", false)?;
    likeness.pragma_update(None, "recursive_triggers", true)?;
    likeness.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    likeness.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    let is_virtual = |item: &&Item| starts_with(&item.sql, "CREATE VIRTUAL");
    let is_plain = |item: &&Item| item.kind == "table" && !is_virtual(item);
    for item in items.iter().filter(is_virtual) {
        likeness.execute_batch(&item.sql)?;
    }
    for item in items.iter().filter(is_plain) {
        if !likeness.table_exists(None, item.name.as_str())? {
            likeness.execute_batch(&item.sql)?;
        }
    }
    for item in items.iter().filter(|item| item.kind == "index") {
        likeness.execute_batch(&item.sql)?;
    }
    for item in items.iter().filter(|item| item.kind == "view") {
        let columns = columns(original, &item.name)?.join(", ");
        // Without a row id, as a view has none: what is called so then belongs to a table around it.
        let table = quoted(&item.name);
        let sql = format!("CREATE TABLE {table} ({columns}, PRIMARY KEY ({columns})) WITHOUT ROWID");
        likeness.execute_batch(&sql)?;
    }
    for item in items.iter().filter(|item| item.kind == "view" || is_plain(item)) {
        let (table, lower) = (quoted(&item.name), item.name.to_ascii_lowercase());
        let columns = columns(&likeness, &item.name)?.join(", ");
        let name = quoted(&format!("{REMOVAL}{lower}"));
        likeness.execute_batch(&format!(
            "CREATE UNIQUE INDEX {name} ON {table} ({columns}); \
             CREATE TRIGGER {name} AFTER DELETE ON {table} BEGIN SELECT 1; END"
        ))?;
    }
    likeness.pragma_update(None, "trusted_schema", false)?;
    likeness.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    likeness.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    for (limit, bound) in [
        (Limit::SQLITE_LIMIT_SQL_LENGTH, limits::SQL_BYTES_MAX + 1),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, limits::STATEMENT_PARAMS_MAX),
    ] {
        likeness.set_limit(limit, i32::try_from(bound).unwrap_or(i32::MAX))?;
    }
    likeness.authorizer(Some(move |context: AuthContext<'_>| {
        hearing.lock().unwrap_or_else(PoisonError::into_inner).decide(&context)
    }))?;
    Ok(likeness)
}

/// The columns of a table that hold values, quoted.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")?;
    let rows = statement.query_map([table], |row| row.get::<_, String>(0))?;
    rows.map(|name| Ok(quoted(&name?))).collect()
}

fn starts_with(text: &str, words: &str) -> bool {
    text.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

//! What the legacy file holds: its tables with their sizes, and everything that hangs on them.

use std::collections::HashMap;

use rusqlite::{Connection, Row};

/// Everything in the file's schema.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// In the order in which they were made.
    pub(super) tables: Vec<Table>,
    pub(super) indexes: Vec<Object>,
    pub(super) triggers: Vec<Object>,
    pub(super) views: Vec<Object>,
    pub(super) keys: Vec<ForeignKey>,
    pub(super) facts: Facts,
}

/// What the header says, and every new database takes over.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) encoding: String,
    pub(super) page_bytes: u32,
    pub(super) user_version: i32,
    pub(super) application_id: i32,
}

/// What becomes of a table's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Assigned and copied.
    Ordinary,
    /// Has no rows of its own: its shadow tables have.
    Virtual,
    /// Goes where the virtual table of this name goes.
    Shadow(String),
    /// SQLite's own (`sqlite_sequence`, `sqlite_stat1`): each side gets the rows about its tables.
    Internal,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) sql: String,
    pub(super) columns: Vec<Column>,
    pub(super) without_rowid: bool,
    pub(super) rows: u64,
    /// With its indexes.
    pub(super) bytes: u64,
    /// The largest row, as stored.
    pub(super) row_bytes_max: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    #[expect(dead_code, reason = "compared in its Debug form, when a table is made with another text")]
    pub(super) declared: String,
    pub(super) not_null: bool,
    /// Its place in the primary key, from 1; 0: none.
    pub(super) key: u32,
    pub(super) generated: bool,
}

impl Table {
    /// The table that decides where this one goes.
    pub(super) fn unit(&self) -> &str {
        match &self.kind {
            Kind::Shadow(owner) => owner,
            Kind::Ordinary | Kind::Virtual | Kind::Internal => &self.name,
        }
    }
}

/// An index, a trigger or a view.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) table: String,
    pub(super) sql: String,
}

#[derive(Clone, Debug)]
pub(super) struct ForeignKey {
    /// Its number in `PRAGMA foreign_key_list`, counted from the last one declared.
    pub(super) id: i64,
    pub(super) child: String,
    pub(super) parent: String,
    /// Child column, and the parent's where it is named.
    pub(super) columns: Vec<(String, Option<String>)>,
    pub(super) on_update: String,
    pub(super) on_delete: String,
}

impl Catalog {
    /// Reads it in the read transaction of `connection`.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut catalog = Self { facts: Facts::read(connection)?, ..Self::default() };
        let kinds = kinds(connection)?;
        let mut statement = connection.prepare(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let object = Object { name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? };
            match row.get::<_, String>(0)?.as_str() {
                "table" => catalog.tables.push(table(connection, object, &kinds)?),
                "index" => catalog.indexes.push(object),
                "trigger" => catalog.triggers.push(object),
                _ => catalog.views.push(object),
            }
        }
        for table in &catalog.tables {
            catalog.keys.extend(foreign_keys(connection, &table.name)?);
        }
        catalog.measure(connection)?;
        Ok(catalog)
    }

    /// Finds text in the schema that is not UTF-8, and could not be named to anybody.
    pub(super) fn unreadable(connection: &Connection) -> rusqlite::Result<Option<String>> {
        let mut statement = connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..4 {
                let text = row.get_ref(column)?.as_bytes_or_null()?.unwrap_or_default();
                if std::str::from_utf8(text).is_err() {
                    let lossy = |at: usize| -> rusqlite::Result<String> {
                        let bytes = row.get_ref(at)?.as_bytes_or_null()?.unwrap_or_default();
                        Ok(String::from_utf8_lossy(bytes).into_owned())
                    };
                    return Ok(Some(format!("{} {}", lossy(0)?, lossy(1)?)));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// The tables that somebody has to assign.
    pub(super) fn assignable(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| matches!(table.kind, Kind::Ordinary | Kind::Virtual))
    }

    /// Counts rows and bytes in one walk over all pages.
    fn measure(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut trees = HashMap::new();
        let mut statement =
            connection.prepare("SELECT name, pagetype, ncell, pgsize, mx_payload FROM dbstat")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_str().unwrap_or_default();
            if !trees.contains_key(name) {
                trees.insert(name.to_owned(), Tree::default());
            }
            if let Some(tree) = trees.get_mut(name) {
                tree.add(row)?;
            }
        }
        let of = |name: &str| trees.get(name).copied().unwrap_or_default();
        for table in &mut self.tables {
            let own = of(&table.name);
            table.rows = if table.without_rowid { own.cells } else { own.leaf_cells };
            table.bytes = own.bytes;
            table.row_bytes_max = own.payload_max;
        }
        let sql = "SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index'";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, owner): (String, String) = (row.get(0)?, row.get(1)?);
            if let Some(table) = self.tables.iter_mut().find(|table| table.name == owner) {
                table.bytes += of(&name).bytes;
            }
        }
        Ok(())
    }
}

/// One b-tree, as its pages add up.
#[derive(Clone, Copy, Default)]
struct Tree {
    bytes: u64,
    leaf_cells: u64,
    cells: u64,
    payload_max: u64,
}

impl Tree {
    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let cells: u64 = row.get(2)?;
        match row.get_ref(1)?.as_str().unwrap_or_default() {
            "leaf" => {
                self.leaf_cells += cells;
                self.cells += cells;
            }
            "internal" => self.cells += cells,
            _ => {}
        }
        self.bytes += row.get::<_, u64>(3)?;
        self.payload_max = self.payload_max.max(row.get(4)?);
        Ok(())
    }
}

impl Facts {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        let unsigned = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        Ok(Self {
            encoding: connection.pragma_query_value(None, "encoding", |row| row.get(0))?,
            page_bytes: unsigned("page_size")?,
            user_version: number("user_version")?,
            application_id: number("application_id")?,
        })
    }
}

/// Per table, what `PRAGMA table_list` calls it, and whether it has no rowid.
fn kinds(connection: &Connection) -> rusqlite::Result<HashMap<String, (String, bool)>> {
    let sql = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    rows.collect()
}

fn table(
    connection: &Connection,
    object: Object,
    kinds: &HashMap<String, (String, bool)>,
) -> rusqlite::Result<Table> {
    let (word, without_rowid) = kinds.get(&object.name).cloned().unwrap_or_default();
    let kind = match word.as_str() {
        "virtual" => Kind::Virtual,
        "shadow" => Kind::Shadow(owner(&object.name, kinds)),
        _ if object.name.starts_with("sqlite_") => Kind::Internal,
        _ => Kind::Ordinary,
    };
    // The columns of a virtual table are the module's business; an unknown module has none to tell.
    let columns = match kind {
        Kind::Virtual => Vec::new(),
        Kind::Ordinary | Kind::Shadow(_) | Kind::Internal => columns(connection, &object.name)?,
    };
    Ok(Table {
        name: object.name,
        kind,
        sql: object.sql,
        columns,
        without_rowid,
        rows: 0,
        bytes: 0,
        row_bytes_max: 0,
    })
}

/// The virtual table that a shadow table belongs to: the longest name that it begins with.
fn owner(shadow: &str, kinds: &HashMap<String, (String, bool)>) -> String {
    let is_owner = |name: &&String| {
        kinds.get(*name).is_some_and(|(kind, _)| kind == "virtual")
            && shadow.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && shadow.get(name.len()..).is_some_and(|rest| rest.starts_with('_'))
    };
    kinds.keys().filter(is_owner).max_by_key(|name| name.len()).cloned().unwrap_or_default()
}

/// The columns of a table, in their order.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let sql = "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([table], |row| {
        Ok(Column {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            key: row.get(3)?,
            generated: row.get::<_, i64>(4)? != 0,
        })
    })?;
    rows.collect()
}

fn foreign_keys(connection: &Connection, child: &str) -> rusqlite::Result<Vec<ForeignKey>> {
    let sql = "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1) \
               ORDER BY id DESC, seq";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([child])?;
    let mut keys: Vec<ForeignKey> = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let column = (row.get(2)?, row.get(3)?);
        match keys.last_mut() {
            Some(key) if key.id == id => key.columns.push(column),
            _ => keys.push(ForeignKey {
                id,
                child: child.to_owned(),
                parent: row.get(1)?,
                columns: vec![column],
                on_update: row.get(4)?,
                on_delete: row.get(5)?,
            }),
        }
    }
    Ok(keys)
}

/// A name as SQL text.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

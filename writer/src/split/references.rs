//! Foreign keys: those inside a database stay, those over the cut become declared references, and the orphans of all.

use std::collections::BTreeMap;

use super::assign::{Said, Side};
use super::catalog::{Catalog, ForeignKey};
use super::orphans::{self, Nulled, OrphanPolicy, Orphans};
use super::plan::{LeftBehind, Reference, side_of};
use super::progress::Progress;
use super::rehearse::Rehearsal;
use super::source::Source;
use super::sql;
use crate::Error;

/// What becomes of all foreign keys.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) references: Vec<Reference>,
    /// Texts of the tables that lose one.
    pub(super) texts: BTreeMap<String, String>,
    pub(super) nulled: Vec<Nulled>,
    pub(super) left_behind: Vec<LeftBehind>,
    pub(super) warnings: Vec<String>,
    pub(super) refusals: Vec<String>,
}

/// What becomes of one foreign key.
enum Fate {
    /// Stays in the text of its table.
    Inside,
    /// Leaves the text, and is declared.
    Crosses,
    /// Leaves the text, because it can never hold.
    Gone(String),
    /// Nothing can become of it.
    Refused(String),
}

/// Decides about every foreign key of a table that is carried over.
pub(super) fn settle(
    source: &Source,
    catalog: &Catalog,
    sides: &BTreeMap<String, (Side, Said)>,
    rehearsal: &Rehearsal,
    policy: OrphanPolicy,
    progress: &Progress,
) -> Result<Settled, Error> {
    let mut settled = Settled::default();
    let mut removed: BTreeMap<String, Vec<&ForeignKey>> = BTreeMap::new();
    for key in &catalog.keys {
        let Some(child) = side_of(catalog, sides, &key.child).filter(|side| *side != Side::Drop) else {
            continue;
        };
        let parent = side_of(catalog, sides, &key.parent);
        let fate = fate(catalog, key, child, parent, rehearsal);
        match fate {
            Fate::Refused(reason) => settled.refusals.push(reason),
            Fate::Gone(reason) => {
                removed.entry(key.child.clone()).or_default().push(key);
                settled.warnings.push(format!("the foreign key {} is dropped: {reason}", describe(key)));
                settled.left_behind.push(LeftBehind {
                    kind: "foreign key",
                    name: describe(key),
                    sql: text_of(key),
                    reason,
                });
            }
            Fate::Inside | Fate::Crosses => {
                let crosses = matches!(fate, Fate::Crosses);
                if crosses {
                    removed.entry(key.child.clone()).or_default().push(key);
                    warn_of_actions(key, &mut settled.warnings);
                }
                let orphans = orphans::find(&source.pin, catalog, key, progress)?;
                settled.take_orphans(catalog, key, &orphans, policy);
                if crosses || orphans.count > 0 {
                    let to = parent.unwrap_or(child);
                    settled.references.push(reference(catalog, key, (child, to), crosses, policy, orphans));
                }
            }
        }
    }
    for (table, keys) in removed {
        match text_without(catalog, rehearsal, &table, &keys) {
            Ok(text) => drop(settled.texts.insert(table, text)),
            Err(reason) => settled.refusals.push(reason),
        }
    }
    Ok(settled)
}

fn fate(
    catalog: &Catalog,
    key: &ForeignKey,
    child: Side,
    parent: Option<Side>,
    rehearsal: &Rehearsal,
) -> Fate {
    let name = describe(key);
    let parent = match parent {
        None => return Fate::Gone(format!("there is no table {}", key.parent)),
        Some(Side::Drop) => return Fate::Gone(format!("the table {} is left behind", key.parent)),
        Some(parent) => parent,
    };
    if let Err(error) = rehearsal.try_key(catalog, key) {
        return Fate::Gone(format!("it never worked: {error}"));
    }
    if child == parent {
        return Fate::Inside;
    }
    let together = format!(
        "assign {} and {} to the same database, or leave one of them behind with --drop",
        key.child, key.parent
    );
    if key.columns.len() > 1 {
        return Fate::Refused(format!(
            "the foreign key {name} has several columns, and only one of a single column can lead to another database: \
             {together}"
        ));
    }
    if child == Side::Config {
        return Fate::Refused(format!(
            "the foreign key {name} would lead from config to activity, and references lead from activity to config: \
             {together}"
        ));
    }
    let names = [&key.child, &key.parent].into_iter().chain(key.columns.iter().map(|(from, _)| from));
    if names.into_iter().any(|name| name.contains('.')) {
        return Fate::Refused(format!(
            "the foreign key {name} cannot be declared, because a name in it has a dot: {together}"
        ));
    }
    Fate::Crosses
}

impl Settled {
    /// Does with orphans what was asked.
    fn take_orphans(&mut self, catalog: &Catalog, key: &ForeignKey, orphans: &Orphans, policy: OrphanPolicy) {
        if orphans.count == 0 {
            return;
        }
        let (name, count) = (describe(key), orphans.count);
        if policy.is_fatal() {
            let first = orphans.keys.join(", ");
            let and_more = if count > orphans.keys.len() as u64 { ", ..." } else { "" };
            let (rows, refer) = if count == 1 { ("row", "refers") } else { ("rows", "refer") };
            self.refusals.push(format!(
                "{count} {rows} of {} {refer} by {name} to rows that are not there (their keys: {first}{and_more}): decide \
                 with --orphans keep, null or report-only, or mend the old database",
                key.child
            ));
        }
        if policy != OrphanPolicy::Null {
            return;
        }
        match nulled(catalog, key) {
            Ok(nulled) => self.nulled.push(nulled),
            Err(reason) => self.refusals.push(format!(
                "the {count} orphans of {name} cannot be set to NULL: {reason}; choose another --orphans"
            )),
        }
    }
}

/// The column to be set to NULL, or why it cannot be.
fn nulled(catalog: &Catalog, key: &ForeignKey) -> Result<Nulled, String> {
    let (Some(child), Some(parent)) = (catalog.table(&key.child), catalog.table(&key.parent)) else {
        return Err("a table is missing".into());
    };
    let [(from, _)] = key.columns.as_slice() else { return Err("it has several columns".into()) };
    let column = child.columns.iter().find(|column| column.name.eq_ignore_ascii_case(from));
    if column.is_none_or(|column| column.not_null || column.key > 0) {
        return Err(format!("{from} may not be NULL"));
    }
    if child.columns.iter().any(|column| column.generated) {
        return Err(format!("{} has generated columns that may depend on it", child.name));
    }
    let parent_column = orphans::parent_columns(key, parent).pop().unwrap_or_default();
    Ok(Nulled { table: child.name.clone(), column: from.clone(), parent: parent.name.clone(), parent_column })
}

/// The text of a table without some foreign keys; SQLite itself has to agree that nothing else changed.
fn text_without(
    catalog: &Catalog,
    rehearsal: &Rehearsal,
    table: &str,
    keys: &[&ForeignKey],
) -> Result<String, String> {
    let failed =
        |why: &str| format!("the foreign keys of table {table} cannot be taken out of its text: {why}");
    let sql = catalog.table(table).map(|table| table.sql.as_str()).unwrap_or_default();
    let all = catalog.keys.iter().filter(|key| key.child == table).count();
    // SQLite numbers them from the last one.
    let place = |key: &&ForeignKey| usize::try_from(key.id).ok().and_then(|id| all.checked_sub(id + 1));
    let places: Vec<usize> = keys.iter().filter_map(place).collect();
    let text =
        sql::without_foreign_keys(sql, &places).ok_or_else(|| failed("it has fewer than SQLite says"))?;
    let shape = |sql: &str| rehearsal.shape(table, sql).map_err(|error| failed(&error.to_string()));
    let ((keys_before, rest_before), (keys_after, rest_after)) = (shape(sql)?, shape(&text)?);
    if keys_after + keys.len() as u64 != keys_before || rest_after != rest_before {
        return Err(failed("something else changes with them"));
    }
    Ok(text)
}

fn reference(
    catalog: &Catalog,
    key: &ForeignKey,
    (child, parent): (Side, Side),
    crosses: bool,
    policy: OrphanPolicy,
    orphans: Orphans,
) -> Reference {
    let table = catalog.table(&key.parent);
    let to = table.map(|table| orphans::parent_columns(key, table)).unwrap_or_default();
    let from: Vec<&str> = key.columns.iter().map(|(from, _)| from.as_str()).collect();
    let child_name = catalog.table(&key.child).map_or(&key.child, |table| &table.name);
    let parent_name = table.map_or(&key.parent, |table| &table.name);
    Reference {
        from: format!("{}.{child_name}.{}", child.name(), from.join(",")),
        to: format!("{}.{parent_name}.{}", parent.name(), to.join(",")),
        on_delete: on_delete(key),
        crosses,
        declared: crosses && (orphans.count == 0 || policy != OrphanPolicy::ReportOnly),
        orphans: orphans.count,
        orphan_keys: orphans.keys,
    }
}

/// The old action in the words of `penholder.toml`.
fn on_delete(key: &ForeignKey) -> &'static str {
    match key.on_delete.as_str() {
        "CASCADE" => "cascade",
        "SET NULL" => "set null",
        "SET DEFAULT" => "keep",
        _ => "restrict",
    }
}

fn warn_of_actions(key: &ForeignKey, warnings: &mut Vec<String>) {
    let name = describe(key);
    if key.on_delete == "SET DEFAULT" {
        warnings.push(format!(
            "{name} was ON DELETE SET DEFAULT, which cannot be declared between databases: declared as keep"
        ));
    }
    if key.on_update != "NO ACTION" && key.on_update != "RESTRICT" {
        warnings.push(format!(
            "{name} was ON UPDATE {}, which is not done between databases: change keys in both yourself",
            key.on_update
        ));
    }
}

/// `child(a, b) -> parent(c, d)`.
pub(super) fn describe(key: &ForeignKey) -> String {
    let from: Vec<&str> = key.columns.iter().map(|(from, _)| from.as_str()).collect();
    let to: Option<Vec<&str>> = key.columns.iter().map(|(_, to)| to.as_deref()).collect();
    let to = to.map(|to| format!("({})", to.join(", "))).unwrap_or_default();
    format!("{}({}) -> {}{to}", key.child, from.join(", "), key.parent)
}

fn text_of(key: &ForeignKey) -> String {
    let to: Option<Vec<&str>> = key.columns.iter().map(|(_, to)| to.as_deref()).collect();
    let to = to.map(|to| format!("({})", to.join(", "))).unwrap_or_default();
    format!("REFERENCES {}{to} ON UPDATE {} ON DELETE {}", key.parent, key.on_update, key.on_delete)
}

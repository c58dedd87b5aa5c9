//! Views and triggers: kept where all that they touch is in one database, left behind with their text where not.

use std::collections::{BTreeMap, BTreeSet};

use super::assign::{Said, Side};
use super::catalog::{Catalog, Kind, Object};
use super::plan::{LeftBehind, side_of};
use super::rehearse::{Rehearsal, Touched};

/// An index, a view, a trigger or a virtual table that goes with its tables.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) table: String,
    pub(super) sql: String,
    pub(super) side: Side,
}

/// What becomes of everything that is no ordinary table.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) kept: Vec<Kept>,
    pub(super) left_behind: Vec<LeftBehind>,
    pub(super) refusals: Vec<String>,
}

/// Sorts the objects of the old schema, in its order.
pub(super) fn sort(
    catalog: &Catalog,
    sides: &BTreeMap<String, (Side, Said)>,
    rehearsal: &Rehearsal,
) -> Sorted {
    let mut sorted = Sorted::default();
    let side = |name: &str| side_of(catalog, sides, name);
    for table in catalog.assignable() {
        if side(&table.name) == Some(Side::Drop) {
            let reason = "--drop, or the map, says so".to_owned();
            sorted.left_behind.push(LeftBehind {
                kind: "table",
                name: table.name.clone(),
                sql: table.sql.clone(),
                reason,
            });
        } else if table.kind == Kind::Virtual {
            let object =
                Object { name: table.name.clone(), table: table.name.clone(), sql: table.sql.clone() };
            match judge(rehearsal.of_virtual(table, catalog), &side) {
                Ok(_) => sorted.keep("table", &object, side(&table.name)),
                Err(reason) => sorted.refusals.push(format!("the virtual table {} {reason}", table.name)),
            }
        }
    }
    for index in &catalog.indexes {
        sorted.keep("index", index, side(&index.table));
    }
    for view in &catalog.views {
        match judge(rehearsal.of_view(view, catalog), &side) {
            Ok(side) => sorted.keep("view", view, side.or(Some(Side::Config))),
            Err(reason) => sorted.leave("view", view, reason),
        }
    }
    for trigger in &catalog.triggers {
        let of_view = catalog.views.iter().any(|view| view.name.eq_ignore_ascii_case(&trigger.table));
        let own = if of_view { sorted.side_of_view(&trigger.table) } else { side(&trigger.table) };
        let touched = rehearsal.of_trigger(trigger, catalog);
        match (judge(touched, &side), own) {
            (_, None) => {
                sorted.leave("trigger", trigger, format!("the view {} is left behind", trigger.table));
            }
            (_, Some(Side::Drop)) => {
                sorted.leave("trigger", trigger, format!("the table {} is left behind", trigger.table));
            }
            (Ok(touched), Some(own)) if touched.is_none_or(|touched| touched == own) => {
                sorted.keep("trigger", trigger, Some(own));
            }
            (Ok(touched), Some(own)) => {
                let other = touched.map_or("", Side::name);
                let reason = format!(
                    "it belongs to {} in {} and works on tables in {other}",
                    trigger.table,
                    own.name()
                );
                sorted.leave("trigger", trigger, reason);
            }
            (Err(reason), _) => sorted.leave("trigger", trigger, reason),
        }
    }
    sorted
}

impl Sorted {
    fn keep(&mut self, kind: &'static str, object: &Object, side: Option<Side>) {
        let Some(side) = side.filter(|side| *side != Side::Drop) else { return };
        let Object { name, table, sql } = object.clone();
        self.kept.push(Kept { kind, name, table, sql, side });
    }

    fn leave(&mut self, kind: &'static str, object: &Object, reason: String) {
        let (name, sql) = (object.name.clone(), object.sql.clone());
        self.left_behind.push(LeftBehind { kind, name, sql, reason });
    }

    fn side_of_view(&self, name: &str) -> Option<Side> {
        let same = |kept: &&Kept| kept.kind == "view" && kept.name.eq_ignore_ascii_case(name);
        self.kept.iter().find(same).map(|kept| kept.side)
    }
}

/// The one database in which everything is that was touched; `None`: nothing was.
fn judge(touched: Touched, side: &dyn Fn(&str) -> Option<Side>) -> Result<Option<Side>, String> {
    let touched = touched.map_err(|error| format!("does not work in the old database either: {error}"))?;
    let of = |wanted: Side| -> Vec<&str> {
        touched.iter().filter(|name| side(name) == Some(wanted)).map(String::as_str).collect()
    };
    let (activity, config, dropped) = (of(Side::Activity), of(Side::Config), of(Side::Drop));
    if !dropped.is_empty() {
        return Err(format!("works on what is left behind: {}", dropped.join(", ")));
    }
    if !activity.is_empty() && !config.is_empty() {
        return Err(format!(
            "works on both databases: {} in activity, {} in config",
            activity.join(", "),
            config.join(", ")
        ));
    }
    let sides: BTreeSet<Side> = touched.iter().filter_map(|name| side(name)).collect();
    Ok(sides.first().copied())
}

//! Which table goes where: by flag, by map, by what is known of the activity tracker, else a proposal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Table};
use crate::Error;

/// Where a table goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The database that is written rarely.
    Config,
    /// The database that is written all the time.
    Activity,
    /// Nowhere: it is left behind.
    Drop,
}

impl Side {
    /// The database's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Activity => "activity",
            Self::Drop => "drop",
        }
    }
}

/// Who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A flag.
    Flag,
    /// The map.
    Map,
    /// The names of the activity tracker's tables.
    BuiltIn,
    /// Nobody yet: sizes and references suggest it.
    Proposal,
}

/// What the user said about tables.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// A TOML file that says it.
    pub map: Option<PathBuf>,
    /// Tables by flag: they go over the map.
    pub flags: Vec<(String, Side)>,
}

/// The activity tracker's tables.
const BUILT_IN: [(&str, Side); 8] = [
    ("activity_events", Side::Activity),
    ("activity_sessions", Side::Activity),
    ("projects", Side::Config),
    ("project_domains", Side::Config),
    ("project_calendar_keywords", Side::Config),
    ("calendar_subscriptions", Side::Config),
    ("calendar_events", Side::Config),
    ("settings", Side::Config),
];

/// A table of this part of the largest one, or more, is proposed for activity.
const LARGE_PART: u64 = 8;

/// The map as it is written: `activity = ["a", "b"]`, or `[tables]` with `a = "activity"`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Map {
    activity: Vec<String>,
    config: Vec<String>,
    drop: Vec<String>,
    tables: BTreeMap<String, Side>,
}

/// Assigns every table that can be assigned, by its name in lower case.
pub(super) fn assign(catalog: &Catalog, choices: &Choices) -> Result<BTreeMap<String, (Side, Said)>, Error> {
    let mut sides = BTreeMap::new();
    for table in catalog.assignable() {
        let known = BUILT_IN.iter().find(|(name, _)| name.eq_ignore_ascii_case(&table.name));
        if let Some((_, side)) = known {
            sides.insert(table.name.to_ascii_lowercase(), (*side, Said::BuiltIn));
        }
    }
    if let Some(path) = &choices.map {
        let place = path.display().to_string();
        take(catalog, &mut sides, &read_map(path)?, Said::Map, &place)?;
    }
    take(catalog, &mut sides, &choices.flags, Said::Flag, "the command line")?;
    propose(catalog, &mut sides);
    Ok(sides)
}

fn read_map(path: &Path) -> Result<Vec<(String, Side)>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let map: Map = toml::from_str(&text).map_err(|error| {
        let hint = "write it as activity = [\"table\", ...], config = [...], drop = [...]";
        Error::refused(format!("{}: {}", path.display(), error.message()), hint)
    })?;
    let of = |names: Vec<String>, side| names.into_iter().map(move |name| (name, side));
    let lists = of(map.activity, Side::Activity).chain(of(map.config, Side::Config));
    Ok(lists.chain(of(map.drop, Side::Drop)).chain(map.tables).collect())
}

/// Puts what was said over what was known; a name that is no table, and two words about one table, are mistakes.
fn take(
    catalog: &Catalog,
    sides: &mut BTreeMap<String, (Side, Said)>,
    said: &[(String, Side)],
    by: Said,
    place: &str,
) -> Result<(), Error> {
    let mut seen: BTreeMap<String, Side> = BTreeMap::new();
    for (name, side) in said {
        let lower = name.to_ascii_lowercase();
        if !catalog.assignable().any(|table| table.name.eq_ignore_ascii_case(name)) {
            let names: Vec<&str> = catalog.assignable().map(|table| table.name.as_str()).collect();
            return Err(Error::refused(
                format!("{place} names the table {name}, which the old database does not have"),
                format!("name one of: {}", names.join(", ")),
            ));
        }
        if seen.insert(lower.clone(), *side).is_some_and(|before| before != *side) {
            return Err(Error::refused(
                format!("{place} sends the table {name} to two places"),
                "decide for one",
            ));
        }
        sides.insert(lower, (*side, by));
    }
    Ok(())
}

/// Proposes a side for what is left: large tables are activity, and so is what refers to one, since references lead
/// from activity to config only; the rest is config.
fn propose(catalog: &Catalog, sides: &mut BTreeMap<String, (Side, Said)>) {
    let largest = catalog.assignable().map(|table| bytes_of(catalog, table)).max().unwrap_or_default();
    let open: Vec<&Table> =
        catalog.assignable().filter(|table| !sides.contains_key(&table.name.to_ascii_lowercase())).collect();
    for table in &open {
        let is_large = bytes_of(catalog, table) * LARGE_PART >= largest && is_referred_less(catalog, table);
        let side = if is_large { Side::Activity } else { Side::Config };
        sides.insert(table.name.to_ascii_lowercase(), (side, Said::Proposal));
    }
    // Each round moves a table, and none moves back.
    loop {
        let refers_to_activity = |name: &str| {
            let mut keys = catalog.keys.iter().filter(|key| key.child.eq_ignore_ascii_case(name));
            keys.any(|key| {
                sides.get(&key.parent.to_ascii_lowercase()).is_some_and(|(side, _)| *side == Side::Activity)
            })
        };
        let moved: Vec<String> = sides
            .iter()
            .filter(|(name, (side, said))| {
                *said == Said::Proposal && *side == Side::Config && refers_to_activity(name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if moved.is_empty() {
            return;
        }
        for name in moved {
            sides.insert(name, (Side::Activity, Said::Proposal));
        }
    }
}

/// Whether a table refers to others more than others refer to it: a small database has no large tables, only
/// directions.
fn is_referred_less(catalog: &Catalog, table: &Table) -> bool {
    let foreign = |key: &&super::catalog::ForeignKey| !key.child.eq_ignore_ascii_case(&key.parent);
    let keys = || catalog.keys.iter().filter(foreign);
    let from = keys().filter(|key| key.child.eq_ignore_ascii_case(&table.name)).count();
    let to = keys().filter(|key| key.parent.eq_ignore_ascii_case(&table.name)).count();
    from >= to
}

/// Bytes of a table and of the shadow tables that go with it.
pub(super) fn bytes_of(catalog: &Catalog, table: &Table) -> u64 {
    let same = |other: &&Table| other.unit() == table.name;
    catalog.tables.iter().filter(same).map(|table| table.bytes).sum()
}

//! Who may do what: users and groups have roles, roles have verbs on tables.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Config, Error};

mod principal;

use principal::Principal;

/// The role that may do everything but change the schema: the writer's own user has it, and root.
pub const OWNER: &str = "owner";

/// Most roles that a store may declare: the roles of a client are a set of bits.
pub(crate) const ROLES_COUNT_MAX: usize = 60;

/// What a statement does with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Reads columns: in WHERE, in RETURNING, on the right of SET, in a subquery.
    Select,
    /// Adds rows.
    Insert,
    /// Changes rows.
    Update,
    /// Removes rows, also by REPLACE.
    Delete,
}

impl Verb {
    /// Every verb, in the order in which people name them.
    pub const ALL: [Self; 4] = [Self::Select, Self::Insert, Self::Update, Self::Delete];

    /// The word for it in `penholder.toml` and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    /// With one more verb.
    #[must_use]
    pub const fn with(self, verb: Verb) -> Self {
        Self(self.0 | 1 << verb as u8)
    }

    /// With all verbs of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the verb is in it.
    #[must_use]
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & 1 << verb as u8 != 0
    }

    /// The verbs in it.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.contains(*verb))
    }
}

/// The roles of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Roles(u64);

impl Roles {
    /// No role: may do nothing.
    pub(crate) const NONE: Self = Self(0);
    /// May do everything but change the schema.
    pub(crate) const OWNER: Self = Self(1 << ROLES_COUNT_MAX);
    /// Bits that a set of roles takes.
    pub(crate) const BITS: usize = ROLES_COUNT_MAX + 1;

    fn of(index: usize) -> Self {
        Self(1 << index)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }

    pub(crate) fn is_owner(self) -> bool {
        self.0 & Self::OWNER.0 != 0
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    fn contains(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}

/// The verbs of each role on the tables of one database, by the table's name in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matrix {
    names: Vec<String>,
    tables: BTreeMap<String, Vec<Verbs>>,
}

impl Matrix {
    /// What the roles together may do with a table; `None` if there is no such table.
    pub(crate) fn verbs(&self, table: &str, roles: Roles) -> Option<Verbs> {
        let each = self.tables.get(&table.to_ascii_lowercase())?;
        let held = each.iter().enumerate().filter(|(index, _)| roles.contains(*index));
        Some(held.fold(Verbs::default(), |all, (_, verbs)| all.and(*verbs)))
    }

    /// The roles, for a message.
    pub(crate) fn names(&self, roles: Roles) -> String {
        let held = self.names.iter().enumerate().filter(|(index, _)| roles.contains(*index));
        let held: Vec<_> = held.map(|(_, name)| name.as_str()).collect();
        match held.as_slice() {
            [] => "a client without a role".into(),
            [one] => format!("role {one}"),
            [first @ .., last] => format!("roles {} and {last}", first.join(", ")),
        }
    }

    /// Every table with the verbs of one role on it; those it has none on are left out.
    fn of_role(&self, index: usize) -> impl Iterator<Item = (&str, Verbs)> {
        let held =
            self.tables.iter().filter_map(move |(table, each)| Some((table.as_str(), *each.get(index)?)));
        held.filter(|(_, verbs)| *verbs != Verbs::default())
    }
}

/// A line of `[roles.<name>]`.
#[derive(Clone, Debug)]
struct Line {
    role: usize,
    database: String,
    /// `None`: every table but Penholder's own.
    table: Option<String>,
    verbs: Verbs,
}

/// The grants of a store, with its users and groups looked up.
#[derive(Debug)]
pub struct Grants {
    names: Vec<String>,
    lines: Vec<Line>,
    /// As written, who that is, and which roles it gives.
    granted: Vec<(String, Principal, Roles)>,
    own_uid: u32,
    /// Who was asked for before: groups are looked up once in the writer's life.
    known: Mutex<HashMap<u32, Roles>>,
}

/// Where to look when a grant is refused.
fn refuse(entry: impl fmt::Display, reason: impl fmt::Display) -> Error {
    Error::refused(format!("penholder.toml: {entry}: {reason}"), "correct it and start again")
}

fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

impl Grants {
    /// Looks up the users and groups of the settings; `own_uid` is the one that the writer runs as.
    pub fn look_up(config: &Config, own_uid: u32) -> Result<Self, Error> {
        let names: Vec<String> = config.roles.keys().cloned().collect();
        if names.len() > ROLES_COUNT_MAX {
            let reason = format!("{} roles are declared, at most {ROLES_COUNT_MAX} may be", names.len());
            return Err(refuse("[roles]", reason));
        }
        let mut lines = Vec::new();
        for (index, (role, tables)) in config.roles.iter().enumerate() {
            if role == OWNER {
                return Err(refuse(
                    "[roles.owner]",
                    "it is built in and may do everything but schema changes",
                ));
            }
            for (target, verbs) in tables {
                lines.push(line(index, role, target, verbs, &config.databases)?);
            }
        }
        let mut granted: Vec<(String, Principal, Roles)> = Vec::new();
        for (who, role) in &config.grants {
            let entry = format!("[grants] {who:?}");
            let roles = match names.iter().position(|name| name == role) {
                Some(index) => Roles::of(index),
                None if role == OWNER => Roles::OWNER,
                None => {
                    let known = list(names.iter().map(String::as_str).chain([OWNER]));
                    return Err(refuse(entry, format!("there is no role {role:?}; there are {known}")));
                }
            };
            let principal = Principal::look_up(who).map_err(|reason| refuse(&entry, reason))?;
            if let Some((other, ..)) = granted.iter().find(|(_, known, _)| known.is_same(&principal)) {
                return Err(refuse(
                    entry,
                    format!("{other:?} is {principal} as well; leave one of them out"),
                ));
            }
            granted.push((who.clone(), principal, roles));
        }
        Ok(Self { names, lines, granted, own_uid, known: Mutex::default() })
    }

    /// Whether anybody but owners may be given anything.
    pub(crate) fn has_roles(&self) -> bool {
        !self.names.is_empty()
    }

    /// The roles of a user: its own grant, else all that its groups have.
    pub(crate) fn roles_of(&self, uid: u32) -> Roles {
        if let Some(roles) = self.known().get(&uid) {
            return *roles;
        }
        let roles = self.find(uid);
        self.known().insert(uid, roles);
        roles
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, Roles>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, uid: u32) -> Roles {
        let own = |principal: &Principal| *principal == Principal::User(uid);
        if let Some((.., roles)) = self.granted.iter().find(|(_, principal, _)| own(principal)) {
            return *roles;
        }
        if uid == self.own_uid || uid == 0 {
            return Roles::OWNER;
        }
        let groups: Vec<_> = self
            .granted
            .iter()
            .filter_map(|(_, principal, roles)| match principal {
                Principal::Group { gid, members } => Some((*gid, members, *roles)),
                Principal::User(_) => None,
            })
            .collect();
        if groups.is_empty() {
            return Roles::NONE;
        }
        let Some((name, primary)) = principal::user(uid) else { return Roles::NONE };
        let is_member = |gid: u32, members: &[String]| gid == primary || members.contains(&name);
        let held = groups.into_iter().filter(|(gid, members, _)| is_member(*gid, members));
        held.fold(Roles::NONE, |all, (.., roles)| all.and(roles))
    }

    /// The verbs on the tables and views that a database has; refuses a line about a table that it does not have.
    pub(crate) fn matrix(&self, database: &str, tables: &[String]) -> Result<Matrix, Error> {
        let mut matrix = Matrix { names: self.names.clone(), tables: BTreeMap::new() };
        for table in tables {
            matrix.tables.insert(table.to_ascii_lowercase(), vec![Verbs::default(); self.names.len()]);
        }
        for line in self.lines.iter().filter(|line| line.database == database) {
            let mut found = false;
            for (table, each) in &mut matrix.tables {
                let meant = match &line.table {
                    Some(name) => name.eq_ignore_ascii_case(table),
                    None => !table.starts_with("_penholder_"),
                };
                if let Some(verbs) = each.get_mut(line.role).filter(|_| meant) {
                    *verbs = verbs.and(line.verbs);
                    found = true;
                }
            }
            if let Some(name) = line.table.as_ref().filter(|_| !found) {
                let role = self.names.get(line.role).map_or("", String::as_str);
                let own = |table: &&str| !table.starts_with("_penholder_");
                let known = list(matrix.tables.keys().map(String::as_str).filter(own));
                let entry = format!("[roles.{role}] \"{database}.{name}\"");
                return Err(refuse(entry, format!("{database}.db has no table {name:?}; it has {known}")));
            }
        }
        Ok(matrix)
    }

    /// Who has which role: as written, as looked up, and the role's name.
    pub fn granted(&self) -> impl Iterator<Item = (&str, String, &str)> {
        self.granted.iter().map(|(who, principal, roles)| {
            let role = self.names.iter().enumerate().find(|(index, _)| roles.contains(*index));
            (who.as_str(), principal.to_string(), role.map_or(OWNER, |(_, name)| name.as_str()))
        })
    }

    /// Every role with its verbs on each table of a database that it has any on.
    pub fn effective(&self, database: &str, tables: &[String]) -> Result<Vec<(&str, String, Verbs)>, Error> {
        let matrix = self.matrix(database, tables)?;
        let mut effective = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let held = matrix.of_role(index);
            effective.extend(held.map(|(table, verbs)| (name.as_str(), table.to_owned(), verbs)));
        }
        Ok(effective)
    }
}

fn line(
    index: usize,
    role: &str,
    target: &str,
    verbs: &[String],
    databases: &[String],
) -> Result<Line, Error> {
    let entry = || format!("[roles.{role}] {target:?}");
    let Some((database, table)) = target.split_once('.').filter(|(_, table)| !table.is_empty()) else {
        return Err(refuse(entry(), "it is not DATABASE.TABLE or DATABASE.*"));
    };
    if !databases.iter().any(|known| known == database) {
        let known = list(databases.iter().map(String::as_str));
        return Err(refuse(entry(), format!("there is no database {database:?}; there are {known}")));
    }
    let own = table.to_ascii_lowercase();
    if own.starts_with("_penholder_") && own != "_penholder_rejected" {
        return Err(refuse(entry(), "the table is Penholder's own"));
    }
    let mut set = Verbs::default();
    for word in verbs {
        let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.as_str() == word) else {
            let known = list(Verb::ALL.map(Verb::as_str));
            return Err(refuse(entry(), format!("there is no verb {word:?}; there are {known}")));
        };
        set = set.with(verb);
    }
    let table = (table != "*").then(|| table.to_owned());
    Ok(Line { role: index, database: database.to_owned(), table, verbs: set })
}

#[cfg(test)]
mod tests;

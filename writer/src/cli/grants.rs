//! `penholder grants`: who may do what in a store, with names looked up and stars written out.

use std::os::unix::fs::MetadataExt;

use penholder::{Config, Grants, OWNER, Verb};
use penholder_client::read::{Reader, Snapshot};
use penholder_protocol::Layout;
use serde::Serialize;

use super::args::GrantsArgs;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{render, status};

#[derive(Serialize)]
struct Report {
    schema: u32,
    owner_uid: u32,
    grants: Vec<Grant>,
    roles: Vec<RoleOnTable>,
}

/// A line of `[grants]`.
#[derive(Serialize)]
struct Grant {
    who: String,
    is: String,
    role: String,
}

/// What a role may do with one table.
#[derive(Serialize)]
struct RoleOnTable {
    role: String,
    database: String,
    table: String,
    verbs: Vec<&'static str>,
}

/// Prints the effective matrix; a mistake in it is what the writer would refuse to start with.
pub(super) fn run(args: &GrantsArgs, output: &mut Output) -> Result<Exit, Failure> {
    let report = report(args)?;
    if args.json {
        output.json(&report)?;
    } else {
        print(&report, output)?;
    }
    Ok(Exit::Ok)
}

fn report(args: &GrantsArgs) -> Result<Report, Failure> {
    status::control(&Layout::new(&args.store))?;
    let config = Config::load(&args.store)?.validate()?;
    let owner_uid = std::fs::metadata(&args.store).map_err(Failure::on("cannot look at the store"))?.uid();
    let grants = Grants::look_up(&config, owner_uid)?;
    let mut reader = Reader::open(&args.store)?;
    let mut roles = Vec::new();
    for database in &config.databases {
        let tables = tables(&reader.single(database)?, database)?;
        let effective = grants.effective(database, &tables)?;
        roles.extend(effective.into_iter().map(|(role, table, verbs)| RoleOnTable {
            role: role.to_owned(),
            database: database.clone(),
            table,
            verbs: verbs.iter().map(Verb::as_str).collect(),
        }));
    }
    // By role, in the order of the databases.
    roles.sort_by(|one, other| one.role.cmp(&other.role));
    let granted = grants.granted();
    let granted = granted.map(|(who, is, role)| Grant { who: who.to_owned(), is, role: role.to_owned() });
    Ok(Report { schema: 1, owner_uid, grants: granted.collect(), roles })
}

fn tables(snapshot: &Snapshot<'_>, database: &str) -> Result<Vec<String>, Failure> {
    let mut tables = Vec::new();
    let sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    snapshot.stream(database, sql, [], |row| {
        tables.push(row.get(0)?);
        Ok(())
    })?;
    Ok(tables)
}

fn print(report: &Report, output: &mut Output) -> Result<(), Failure> {
    let owner = vec![format!("uid {}", report.owner_uid), "the store's own".into(), OWNER.into()];
    let root = vec!["uid 0".into(), "root".into(), OWNER.into()];
    let is_named = |row: &Vec<String>| report.grants.iter().any(|grant| Some(&grant.is) == row.first());
    let mut who = vec![owner];
    if report.owner_uid != 0 {
        who.push(root);
    }
    who.retain(|row| !is_named(row));
    who.extend(
        report.grants.iter().map(|grant| vec![grant.is.clone(), grant.who.clone(), grant.role.clone()]),
    );
    let table = render::words(output, &["who", "as written", "role"], who);
    output.line(table)?;
    output.line("")?;
    if report.roles.is_empty() {
        output.remark("no role but owner has grants: nobody else can submit");
        return Ok(());
    }
    let row = |on: &RoleOnTable| {
        let verbs = Verb::ALL.map(|verb| if on.verbs.contains(&verb.as_str()) { "yes" } else { "-" });
        let head = [on.role.clone(), format!("{}.{}", on.database, on.table)];
        head.into_iter().chain(verbs.map(str::to_owned)).collect()
    };
    let names: Vec<_> = ["role", "table"].into_iter().chain(Verb::ALL.map(Verb::as_str)).collect();
    let table = render::words(output, &names, report.roles.iter().map(row).collect());
    output.line(table)
}

//! The plan of a split and what came of it, as people read them.

use std::path::Path;

use penholder::split::{Plan, Reference, Report, Said, Side};

use super::exit::Failure;
use super::output::{BAD, GOOD, ODD, Output, STRONG};
use super::render;

/// Shows what a split would do.
pub(super) fn plan(plan: &Plan, output: &mut Output) -> Result<(), Failure> {
    let source = &plan.source;
    output.line(format!(
        "{}: {}, {}, pages of {} bytes",
        source.path.display(),
        render::bytes(source.bytes),
        source.encoding,
        source.page_bytes
    ))?;
    output.line("")?;
    let row = |table: &penholder::split::PlannedTable| {
        let kind = if table.is_virtual { " (virtual)" } else { "" };
        vec![
            format!("{}{kind}", table.table),
            table.side.name().to_owned(),
            said(table.said).to_owned(),
            table.rows.to_string(),
            render::bytes(table.bytes),
            table.indexes.to_string(),
            table.triggers.to_string(),
        ]
    };
    let names = ["table", "database", "because of", "rows", "bytes", "indexes", "triggers"];
    let table = render::words(output, &names, plan.tables.iter().map(row).collect());
    output.line(table)?;
    if plan.tables.iter().any(|table| table.is_virtual) {
        output
            .line("rows and bytes of a virtual table are those of the tables in which its module keeps it")?;
    }
    references(&plan.references, output)?;
    left_behind(&plan.left_behind, output)?;
    output.line("")?;
    output.line(format!(
        "disk: {} needed, {} free; time: about {:.0} s",
        render::bytes(plan.needed_bytes),
        render::bytes(plan.free_bytes),
        plan.estimated_seconds.ceil()
    ))?;
    map(plan, output)?;
    for warning in &plan.warnings {
        let word = output.paint(ODD, "note:");
        output.line(format!("{word} {warning}"))?;
    }
    if plan.refusals.is_empty() {
        let word = output.paint(GOOD, "ready:");
        return output
            .line(format!("{word} without --check this would make the store {}", plan.store.display()));
    }
    for refusal in &plan.refusals {
        let word = output.paint(BAD, "refused:");
        output.line(format!("{word} {refusal}"))?;
    }
    Ok(())
}

fn said(said: Said) -> &'static str {
    match said {
        Said::Flag => "a flag",
        Said::Map => "the map",
        Said::BuiltIn => "its name",
        Said::Proposal => "a proposal",
    }
}

/// What is proposed, in the form of a map to be saved and corrected.
fn map(plan: &Plan, output: &mut Output) -> Result<(), Failure> {
    if plan.tables.iter().all(|table| table.said != Said::Proposal) {
        return Ok(());
    }
    output.line("")?;
    output
        .line("To confirm what is proposed, correct these lines, save them, and pass the file with --map:")?;
    for side in [Side::Activity, Side::Config, Side::Drop] {
        let of = plan.tables.iter().filter(|table| table.side == side);
        let names: Vec<String> = of.map(|table| format!("{:?}", table.table)).collect();
        output.line(format!("  {} = [{}]", side.name(), names.join(", ")))?;
    }
    Ok(())
}

fn references(references: &[Reference], output: &mut Output) -> Result<(), Failure> {
    if references.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let row = |reference: &Reference| {
        let becomes = match (reference.crosses, reference.declared) {
            (false, _) => "stays a foreign key".to_owned(),
            (true, true) => format!("declared, on delete {}", reference.on_delete),
            (true, false) => "not declared".to_owned(),
        };
        vec![
            reference.from.clone(),
            reference.to.clone(),
            becomes,
            reference.orphans.to_string(),
            keys(reference),
        ]
    };
    let names = ["reference", "to", "becomes", "orphans", "their keys"];
    let table = render::words(output, &names, references.iter().map(row).collect());
    output.line(table)
}

/// The first keys of orphans.
fn keys(reference: &Reference) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = reference.orphan_keys.iter().take(SHOWN).map(String::as_str).collect();
    let more = if reference.orphans > shown.len() as u64 { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn left_behind(objects: &[penholder::split::LeftBehind], output: &mut Output) -> Result<(), Failure> {
    for object in objects {
        output.line("")?;
        let word = output.paint(ODD, "left behind:");
        output.line(format!(
            "{word} {} {}: {}",
            object.kind,
            render::printable(&object.name),
            object.reason
        ))?;
        for line in object.sql.lines() {
            output.line(format!("    {}", render::printable(line)))?;
        }
    }
    Ok(())
}

/// Shows what was done, and the proof; `original` is the file that the old program goes on using if a copy was split.
pub(super) fn report(report: &Report, original: Option<&Path>, output: &mut Output) -> Result<(), Failure> {
    let row = |table: &penholder::split::TableResult| {
        let verdict = if table.ok { "ok" } else { "DIFFERS" };
        vec![
            table.table.clone(),
            table.database.to_owned(),
            table.rows.to_string(),
            render::bytes(table.bytes),
            verdict.to_owned(),
            format!("{:.2}", table.seconds),
        ]
    };
    let names = ["table", "database", "rows", "bytes", "digest", "seconds"];
    let mut rows: Vec<Vec<String>> = report.tables.iter().map(row).collect();
    let bytes = report.tables.iter().map(|table| table.bytes).sum();
    let count: u64 = report.tables.iter().map(|table| table.rows).sum();
    rows.push(vec![
        "total".into(),
        String::new(),
        count.to_string(),
        render::bytes(bytes),
        if report.tables.iter().all(|table| table.ok) { "ok".into() } else { "DIFFERS".into() },
        format!("{:.2}", report.seconds),
    ]);
    let table = render::words(output, &names, rows);
    output.line(table)?;
    references(&report.references, output)?;
    left_behind(&report.left_behind, output)?;
    for warning in &report.warnings {
        let word = output.paint(ODD, "note:");
        output.line(format!("{word} {warning}"))?;
    }
    output.line("")?;
    for database in &report.databases {
        let verdict = if database.is_ok() { output.paint(GOOD, "ok") } else { output.paint(BAD, "NOT OK") };
        output.line(format!(
            "{}.db: {}, integrity_check and foreign_key_check {verdict}",
            database.database,
            render::bytes(database.bytes)
        ))?;
    }
    output.line(format!("{}: unchanged, blake3 {}", report.source.path.display(), report.source_blake3))?;
    if report.ok { next_steps(report, original, output) } else { Ok(()) }
}

fn next_steps(report: &Report, original: Option<&Path>, output: &mut Output) -> Result<(), Failure> {
    let (store, source) = (report.store.display(), original.unwrap_or(&report.source.path).display());
    output.line("")?;
    output.line(output.paint(STRONG, "Next steps"))?;
    output.line(format!("  start the writer:      penholder serve {store}"))?;
    if original.is_some() {
        let copy = report.source.path.display();
        output.line(format!(
            "  a copy was split:       what is written to {source} since {copy} was taken is not in the store"
        ))?;
    }
    let does_it = if original.is_some() { "" } else { ", which --retire does" };
    let lines = if let Some(retired) = &report.retired {
        let retired = retired.display();
        [
            format!("  the old file is now:   {retired}, read-only"),
            format!("  to go back:            stop the writer, mv {retired} {source}, chmod u+w {source};"),
        ]
    } else {
        [
            format!("  retire the old file:   chmod 0440 {source} && mv {source} {source}.retired{does_it}:"),
            format!(
                "                         an old program cannot go on writing to it unnoticed\n  to go back:            stop the writer and use {source} again, which was not changed;"
            ),
        ]
    };
    lines.iter().try_for_each(|line| output.line(line))?;
    output.line("                         what was written since is in the store only")
}

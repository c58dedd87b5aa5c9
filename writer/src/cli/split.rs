//! `penholder split`: plans, asks for what is not decided, splits, and shows the proof.

use std::path::Path;
use std::sync::Arc;

use penholder::split::{self, Choices, Ended, Progress, Request, Side};
use penholder_protocol::publish;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::migration_args::SplitArgs;
use super::output::Output;
use super::split_report;
use super::watch::Watch;

/// Splits, or with `--check` only plans; exits with 3 if the plan would be refused, or if anything differs.
pub(super) fn run(args: &SplitArgs, quiet: bool, output: &mut Output) -> Result<Exit, Failure> {
    let mut request = request(args);
    args.report.as_deref().map_or(Ok(()), |report| refuse_report(report, args))?;
    if let Some(copy) = &args.copy_to {
        split::copy_first(&args.source, copy)?;
        request.source.clone_from(copy);
    }
    let progress = Arc::new(Progress::default());
    let watch = Watch::start(&progress, quiet);
    if args.check {
        let plan = split::check(&request, &progress);
        watch.stop();
        return match plan {
            Ok(plan) => show_plan(args, &plan, quiet, output),
            Err(error @ penholder::Error::Refused { .. }) => no_plan(args, &error, output),
            Err(error) => Err(error.into()),
        };
    }
    let ended = split::split(&request, &progress);
    watch.stop();
    let report = match ended? {
        Ended::Split(report) => report,
        Ended::Already { record, changed, retired } => {
            let line = format!(
                "{} is there already, split from {}; nothing was done",
                args.into.display(),
                record.source.path.display()
            );
            if args.json {
                output.json(&serde_json::json!({"schema": 1, "ok": true, "already": true, "store_id": record.store_id, "changed": changed, "retired": retired}))?;
            } else if !quiet {
                output.line(line)?;
            }
            if changed {
                output.remark(&format!(
                    "{} has changed since; `penholder diff` lists the rows that the store does not have",
                    args.source.display()
                ));
            }
            if let Some(retired) = retired {
                output.remark(&format!("the old file is now {}", retired.display()));
            }
            return Ok(Exit::Ok);
        }
    };
    if let Some(file) = &args.report {
        write(file, &report)?;
    }
    if args.json {
        output.json(&report)?;
    } else if !quiet {
        split_report::report(&report, args.copy_to.as_ref().map(|_| args.source.as_path()), output)?;
    }
    if !report.ok {
        let differences = report.differences.join("\n  - ");
        output.complain(&format!("no store was made, because the copy is not the same:\n  - {differences}"));
        return Ok(Exit::Finding);
    }
    Ok(Exit::Ok)
}

/// Says why there is not even a plan: the split would refuse for the same reason.
fn no_plan(args: &SplitArgs, error: &penholder::Error, output: &mut Output) -> Result<Exit, Failure> {
    let refusal = serde_json::json!({"schema": 1, "refusals": [error.to_string()]});
    if let Some(file) = &args.report {
        write(file, &refusal)?;
    }
    if args.json {
        output.json(&refusal)?;
    } else {
        output.complain(&error.to_string());
    }
    Ok(Exit::Finding)
}

fn show_plan(
    args: &SplitArgs,
    plan: &split::Plan,
    quiet: bool,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if let Some(file) = &args.report {
        write(file, plan)?;
    }
    if args.json {
        output.json(plan)?;
    } else if !quiet {
        split_report::plan(plan, output)?;
    }
    Ok(if plan.refusals.is_empty() { Exit::Ok } else { Exit::Finding })
}

fn request(args: &SplitArgs) -> Request {
    let of = |tables: &[String], side: Side| {
        tables.iter().map(move |table| (table.clone(), side)).collect::<Vec<_>>()
    };
    let flags =
        [of(&args.activity, Side::Activity), of(&args.config, Side::Config), of(&args.drop, Side::Drop)];
    Request {
        source: args.source.clone(),
        store: args.into.clone(),
        choices: Choices { map: args.map.clone(), flags: flags.concat() },
        orphans: args.orphans.into(),
        force: args.force,
        retire: args.retire,
    }
}

/// Refuses a report that would take the place of a database, or that could not be written at the end.
fn refuse_report(report: &Path, args: &SplitArgs) -> Result<(), Failure> {
    let directory = directory_of(report);
    let directory = std::fs::canonicalize(directory).map_err(|error| {
        Failure::usage(format!("cannot write the report to {}: {error}", directory.display()))
    })?;
    let entry = |path: &Path| Some(std::fs::canonicalize(directory_of(path)).ok()?.join(path.file_name()?));
    let there = report.file_name().map(|name| directory.join(name));
    let sources = [entry(&args.source), std::fs::canonicalize(&args.source).ok()];
    let copy = args.copy_to.as_deref().and_then(entry);
    let is_database = there.is_some() && sources.into_iter().chain([copy]).any(|path| path == there);
    let is_inside = std::fs::canonicalize(&args.into).is_ok_and(|store| directory.starts_with(store));
    if is_database || is_inside {
        let what = format!("{} is a database or inside the store", report.display());
        return Err(Failure::usage(format!("{what}; write the report elsewhere")));
    }
    Ok(())
}

/// Where a file is or is to be.
fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file as a whole.
fn write(file: &Path, content: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    let directory = directory_of(file);
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::usage(format!("{} is no name for a report", file.display())))?;
    publish(directory, directory, name, &text, 0o640)
        .map_err(Failure::on(format!("cannot write the report {}", file.display())))
}

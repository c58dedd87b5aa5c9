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
    if let Some(copy) = &args.copy_to {
        split::copy_first(&args.source, copy)?;
        request.source.clone_from(copy);
    }
    let progress = Arc::new(Progress::default());
    let watch = Watch::start(&progress, quiet);
    if args.check {
        let plan = split::check(&request, &progress);
        watch.stop();
        return show_plan(args, &plan?, quiet, output);
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
        split_report::report(&report, output)?;
    }
    if !report.ok {
        let differences = report.differences.join("\n  - ");
        output.complain(&format!("no store was made, because the copy is not the same:\n  - {differences}"));
        return Ok(Exit::Finding);
    }
    Ok(Exit::Ok)
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

/// Writes a file as a whole.
fn write(file: &Path, content: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::usage(format!("{} is no name for a report", file.display())))?;
    publish(directory, directory, name, &text, 0o640)
        .map_err(Failure::on(format!("cannot write the report {}", file.display())))
}

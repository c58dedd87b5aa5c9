//! Outcomes, as JSON for scripts and as words for people.

use penholder_protocol::{Applied, Outcome, Rejection, StatementResult};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::json::AsJson;
use super::output::{BAD, GOOD, ODD, Output};
use super::render;

/// What is known about a command when it is reported.
#[derive(Debug)]
pub(super) enum Report {
    /// It is in the spool, and nobody waited or nobody answered in time.
    Queued,
    /// It has its final outcome.
    Final(Outcome),
}

impl Report {
    /// What the process should end with because of it.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Queued | Self::Final(Outcome::Applied(_)) => Exit::Ok,
            Self::Final(Outcome::Rejected(_)) => Exit::Rejected,
        }
    }
}

/// One line of JSON output; fields are only ever added.
#[derive(Serialize)]
struct ReportAsJson<'r> {
    seq: u64,
    status: &'static str,
    #[serde(flatten)]
    details: Details<'r>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Details<'r> {
    Queued {},
    Applied { results: Option<Vec<ResultAsJson<'r>>>, tick: u64 },
    Rejected { code: &'static str, message: &'r str, statement: Option<u32> },
}

#[derive(Serialize)]
struct ResultAsJson<'r> {
    changes: u64,
    last_insert_rowid: i64,
    rows: Vec<Vec<AsJson<'r>>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rows_truncated: bool,
}

/// Writes a report as one line of JSON; `seq` counts the commands of this process from 1.
pub(super) fn print_json(output: &mut Output, seq: u64, report: &Report) -> Result<(), Failure> {
    let (status, details) = match report {
        Report::Queued => ("queued", Details::Queued {}),
        Report::Final(Outcome::Applied(Applied { tick, results })) => {
            let results = results.as_ref().map(|results| results.iter().map(result).collect());
            ("applied", Details::Applied { results, tick: tick.0 })
        }
        Report::Final(Outcome::Rejected(Rejection { code, message, statement })) => {
            ("rejected", Details::Rejected { code: code.as_str(), message, statement: *statement })
        }
    };
    output.json(&ReportAsJson { seq, status, details })
}

fn result(result: &StatementResult) -> ResultAsJson<'_> {
    ResultAsJson {
        changes: result.changes,
        last_insert_rowid: result.last_insert_rowid,
        rows: result.rows.iter().map(|row| row.iter().map(AsJson).collect()).collect(),
        rows_truncated: result.rows_truncated,
    }
}

/// Writes a report in words: what happened, then the rows that came back.
pub(super) fn print_words(output: &mut Output, report: &Report) -> Result<(), Failure> {
    match report {
        Report::Queued => {
            let word = output.paint(ODD, "queued");
            output.line(word)
        }
        Report::Final(Outcome::Applied(applied)) => {
            let line = applied_in_words(output, applied);
            output.line(line)?;
            applied.results.iter().flatten().try_for_each(|result| print_rows(output, result))
        }
        Report::Final(Outcome::Rejected(rejection)) => {
            let word = output.paint(BAD, "rejected");
            output.line(format!("{word} ({}): {}", reason(rejection), render::printable(&rejection.message)))
        }
    }
}

fn applied_in_words(output: &Output, applied: &Applied) -> String {
    let word = output.paint(GOOD, "applied");
    match &applied.results {
        Some(results) => {
            let changes = results.iter().map(|result| result.changes).sum();
            format!("{word}, {} changed, tick {}", render::count(changes, "row"), applied.tick)
        }
        None => format!("{word}, details lost in a restart of the writer, tick {}", applied.tick),
    }
}

/// `constraint, statement 0`.
pub(super) fn reason(rejection: &Rejection) -> String {
    match rejection.statement {
        Some(statement) => format!("{}, statement {statement}", rejection.code),
        None => rejection.code.to_string(),
    }
}

fn print_rows(output: &mut Output, result: &StatementResult) -> Result<(), Failure> {
    if let Some(first) = result.rows.first() {
        // A receipt carries the values of RETURNING, not the names of its columns.
        let names: Vec<_> = (1..=first.len()).map(|number| format!("column {number}")).collect();
        let table = render::table(output, &names, result.rows.iter().map(Vec::as_slice));
        output.line(table)?;
    }
    if result.rows_truncated {
        output.remark("more rows were returned than a receipt holds; query for the rest");
    }
    Ok(())
}

//! `penholder exec`: submits one command from the arguments, or many from stdin.

use penholder_protocol::{Command, Outcome, Statement, Value};

use super::args::{ExecArgs, Level};
use super::exit::{Exit, Failure};
use super::outcome::{self, Report};
use super::output::Output;
use super::{json, stdin, submit};

/// Submits what was asked for, and prints what became of it.
pub(super) fn run(args: &ExecArgs, output: &mut Output) -> Result<Exit, Failure> {
    if args.stdin {
        return stdin::run(args, output);
    }
    let (Some(db), Some(sql)) = (&args.db, &args.sql) else {
        return Err(Failure::usage("exec needs --db and one SQL statement, or --stdin"));
    };
    let mut statement = Statement::new(db, sql);
    statement.params = params(&args.params)?;
    statement.expect_rows = args.expect;
    let command = Command { key: args.key, statements: vec![statement] };
    let mut client = submit::connect(&args.store, args.timeout)?;
    let known = client.databases();
    if !known.contains(db) {
        return Err(Failure::usage(format!(
            "no database {db:?} in this store; there is {}",
            known.join(", ")
        )));
    }
    let (report, exit) = if args.level == Level::Applied {
        let (ticket, report, exit) = submit::execute(&mut client, command, args.timeout, output)?;
        if matches!(report, Report::Final(Outcome::Rejected(_))) {
            let id = format!("{}-{}", ticket.stream(), ticket.sequence());
            output.remark(&format!(
                "kept as {id}; see `penholder rejected {} show {id}`",
                args.store.display()
            ));
        }
        (report, exit)
    } else {
        submit::submit(&mut client, &[command], args.level)?;
        (Report::Queued, Exit::Ok)
    };
    if args.json {
        outcome::print_json(output, 1, &report)?;
    } else {
        outcome::print_words(output, &report)?;
    }
    Ok(exit)
}

/// Reads the parameters of the command line.
pub(super) fn params(texts: &[String]) -> Result<Vec<Value>, Failure> {
    let value = |(at, text): (usize, &String)| {
        json::param(text).map_err(|error| Failure::usage(format!("parameter {}: {error}", at + 1)))
    };
    texts.iter().enumerate().map(value).collect()
}

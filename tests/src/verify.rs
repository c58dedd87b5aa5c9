//! The oracle: compares the databases with what the clients were promised.

use std::collections::BTreeMap;
use std::fmt;

use rusqlite::Connection;

use crate::promises::Promises;
use crate::{Kind, Plan, Store};

/// What the oracle found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Everything that should not be, one sentence each.
    pub problems: Vec<String>,
    /// Clients that left a log.
    pub clients: usize,
    /// Commands that are in the ledger.
    pub applied: u64,
    /// Commands over both databases that are in the ledger.
    pub over_both: u64,
    /// Commands that were rejected, as they had to be.
    pub rejected: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} clients, {} commands applied ({} over both databases), {} rejected, {} problems",
            self.clients,
            self.applied,
            self.over_both,
            self.rejected,
            self.problems.len()
        )?;
        self.problems.iter().take(20).try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl Verdict {
    /// Stops the test if anything was found.
    pub fn expect_clean(&self) {
        assert!(self.problems.is_empty(), "the ledger is not clean: {self}");
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }
}

/// One row: sequence and nonce, in the order in which they were applied.
type Rows = BTreeMap<u64, Vec<(u64, i64)>>;

/// Reads databases, spool and logs. No writer may be running, and `serve --once` must have applied what was left.
#[must_use]
pub fn verify(store: &Store) -> Verdict {
    let mut verdict = Verdict::default();
    let logs = Promises::read_all(&store.logs());
    verdict.clients = logs.len();
    let databases = ["config", "activity"].map(|name| (name, store.database(name)));
    let rows = databases.each_ref().map(|(name, database)| (*name, rows_of(database, name, &mut verdict)));
    for log in &logs {
        check_client(log, &rows, &mut verdict);
    }
    for (name, rows) in &rows {
        for client in rows.keys().filter(|client| logs.iter().all(|log| log.client != **client)) {
            verdict.problem(format!("{name} has rows of client {client}, which never was"));
        }
    }
    for (name, database) in &databases {
        check_rejections(&logs, &rows, name, database, &mut verdict);
    }
    for (name, database) in &databases {
        check_counter(name, database, verdict.over_both, &mut verdict);
        check_soundness(name, database, &mut verdict);
    }
    for segment in store.segments() {
        verdict.problem(format!("the spool still has {segment}"));
    }
    verdict
}

fn rows_of(database: &Connection, name: &str, verdict: &mut Verdict) -> Rows {
    let mut rows = Rows::new();
    let mut statement = database.prepare("SELECT client, sequence, nonce FROM ledger ORDER BY id").unwrap();
    let found = statement
        .query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?, row.get::<_, i64>(2)?)))
        .unwrap();
    for row in found {
        match row {
            Ok((client, sequence, nonce)) => rows.entry(client).or_default().push((sequence, nonce)),
            Err(error) => verdict.problem(format!("{name}: reading the ledger: {error}")),
        }
    }
    rows
}

/// The highest number of a client that has left any trace.
fn reached(log: &Promises, rows: &[(&str, Rows); 2]) -> u64 {
    let last_row = |rows: &Rows| rows.get(&log.client).and_then(|rows| rows.iter().map(|row| row.0).max());
    let rows = rows.iter().filter_map(|(_, rows)| last_row(rows)).max().unwrap_or(0);
    rows.max(log.promised).max(log.outcomes.keys().copied().max().unwrap_or(0))
}

/// Commands 1 to the last are there, each exactly once, in order, in the databases that its kind says.
fn check_client(log: &Promises, rows: &[(&str, Rows); 2], verdict: &mut Verdict) {
    let (client, plan, last) = (log.client, Plan::new(log.client, log.mix), reached(log, rows));
    if last > log.submitted {
        verdict.problem(format!(
            "client {client}: {last} is applied, and only {} were submitted",
            log.submitted
        ));
    }
    if log.done && !log.lost_power && log.promised != log.submitted {
        verdict.problem(format!("client {client} ended with {} of {} promised", log.promised, log.submitted));
    }
    for (name, rows) in rows {
        let expected: Vec<(u64, i64)> = (1..=last)
            .filter(|sequence| plan.kind(*sequence).writes(name))
            .map(|sequence| (sequence, plan.nonce(sequence)))
            .collect();
        let found = rows.get(&client).map(Vec::as_slice).unwrap_or_default();
        if found != expected {
            verdict.problem(difference(client, name, found, &expected, log.promised));
        }
    }
    for (sequence, outcome) in &log.outcomes {
        let expected = plan.kind(*sequence).rejection().map(|code| code.as_str().to_owned());
        if *outcome != expected {
            verdict
                .problem(format!("client {client}: outcome of {sequence} is {outcome:?}, not {expected:?}"));
        }
    }
    let kinds = (1..=last).map(|sequence| plan.kind(sequence));
    for kind in kinds {
        verdict.applied += u64::from(kind.rejection().is_none());
        verdict.over_both += u64::from(kind == Kind::Both);
        verdict.rejected += u64::from(kind.rejection().is_some());
    }
}

/// Says what is wrong first, instead of printing two long lists.
fn difference(
    client: u64,
    name: &str,
    found: &[(u64, i64)],
    expected: &[(u64, i64)],
    promised: u64,
) -> String {
    let numbers = |rows: &[(u64, i64)]| rows.iter().map(|row| row.0).collect::<Vec<_>>();
    let (have, want) = (numbers(found), numbers(expected));
    let missing: Vec<_> = want.iter().filter(|n| !have.contains(n)).take(5).collect();
    let extra: Vec<_> = have.iter().filter(|n| !want.contains(n)).take(5).collect();
    let mut sorted = have.clone();
    sorted.sort_unstable();
    let doubled: Vec<_> =
        sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).take(5).collect();
    let disordered = have.windows(2).find(|pair| pair[0] > pair[1]);
    format!(
        "client {client} in {name}: {} rows, expected {} (promised up to {promised}); missing {missing:?}, \
         applied twice {doubled:?}, not to be there {extra:?}, out of order {disordered:?}",
        have.len(),
        want.len()
    )
}

/// Every rejected command is kept in every database it touches, and nothing else is.
fn check_rejections(
    logs: &[Promises],
    rows: &[(&str, Rows); 2],
    name: &str,
    database: &Connection,
    verdict: &mut Verdict,
) {
    let sql = "SELECT count(*) FROM _penholder_rejected WHERE stream = ?1";
    for log in logs {
        let plan = Plan::new(log.client, log.mix);
        let touches = |kind: Kind| match kind {
            Kind::FailsInBoth => true,
            Kind::FailsExpectation | Kind::FailsConstraint => name == "activity",
            Kind::Activity | Kind::Config | Kind::Both | Kind::Single => false,
        };
        let known = (1..=reached(log, rows)).filter(|sequence| touches(plan.kind(*sequence))).count() as u64;
        // Behind the last command that left a trace, rejected ones may follow that were never promised.
        let possible = (1..=log.submitted).filter(|sequence| touches(plan.kind(*sequence))).count() as u64;
        let kept: u64 = database.query_row(sql, [log.stream.0.as_slice()], |row| row.get(0)).unwrap();
        if !(known..=possible).contains(&kept) {
            let client = log.client;
            verdict
                .problem(format!("client {client} in {name}: {kept} rejections are kept, expected {known}"));
        }
    }
}

fn check_counter(name: &str, database: &Connection, over_both: u64, verdict: &mut Verdict) {
    let counters: [u64; 3] = database
        .query_row(
            "SELECT (SELECT count(*) FROM ledger), (SELECT count FROM counter WHERE id = 0),
                    (SELECT count FROM counter WHERE id = 1)",
            [],
            |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]),
        )
        .unwrap();
    if counters[0] != counters[1] {
        verdict.problem(format!("{name}: {} rows, but {} were counted", counters[0], counters[1]));
    }
    if counters[2] != over_both {
        verdict.problem(format!("{name}: {} over both were counted, expected {over_both}", counters[2]));
    }
}

fn check_soundness(name: &str, database: &Connection, verdict: &mut Verdict) {
    let sound: String = database.query_row("PRAGMA integrity_check(5)", [], |row| row.get(0)).unwrap();
    if sound != "ok" {
        verdict.problem(format!("{name}: integrity_check: {sound}"));
    }
    let mut statement = database.prepare("PRAGMA foreign_key_check").unwrap();
    if statement.exists([]).unwrap() {
        verdict.problem(format!("{name}: foreign_key_check finds a dangling row"));
    }
}

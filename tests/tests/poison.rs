//! One of 64 commands fails, in every way there is: it alone is rejected, the other 63 are applied once and in order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::Duration;

use penholder_client::{Client, Durability};
use penholder_protocol::{Code, Command, Outcome, Rejection, Statement, Value};
use penholder_tests::Store;

const COMMANDS: i64 = 64;
/// Where the offender stands.
const OFFENDER: i64 = 32;

const TRAPS: &str = "
CREATE TABLE taken (a INTEGER PRIMARY KEY, b INTEGER);
INSERT INTO taken VALUES (1, 1);
CREATE TABLE explosive (a INTEGER PRIMARY KEY ON CONFLICT ROLLBACK);
INSERT INTO explosive VALUES (1);
CREATE TABLE typed (a INTEGER NOT NULL ON CONFLICT FAIL) STRICT;
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE late_child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE child (parent INTEGER REFERENCES parent (id));
CREATE TABLE trapped (a INTEGER);
CREATE TABLE counted (a INTEGER PRIMARY KEY AUTOINCREMENT);
INSERT INTO counted VALUES (9223372036854775807);
CREATE VIRTUAL TABLE words USING fts5 (word);
CREATE VIEW pages AS SELECT pageno FROM dbstat;
CREATE VIEW depths AS SELECT rtreedepth(x'00010203') AS depth;
CREATE TRIGGER trap_rollback BEFORE INSERT ON trapped WHEN new.a = 1 BEGIN SELECT RAISE(ROLLBACK, 'trap'); END;
CREATE TRIGGER trap_fail BEFORE INSERT ON trapped WHEN new.a = 2 BEGIN SELECT RAISE(FAIL, 'trap'); END;
CREATE TRIGGER trap_abort AFTER INSERT ON trapped WHEN new.a = 3 BEGIN SELECT RAISE(ABORT, 'trap'); END;
CREATE TRIGGER trap_nested AFTER INSERT ON trapped WHEN new.a = 4 BEGIN INSERT OR ROLLBACK INTO taken VALUES (1, 4); END;
";

/// Writes, and then takes more memory than there is: SQLite ends the whole transaction.
const HEAP_HOG: &str = "
INSERT INTO taken WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
SELECT 5, length(b) FROM (SELECT i, zeroblob(8000000 + i) AS b FROM n ORDER BY b LIMIT 1000)";

/// One step of SQLite's machine that would take an hour: no deadline ends it.
const TIME_HOG: &str = "
INSERT INTO taken SELECT 5, trim(b, a || 'b') FROM (
    SELECT replace(hex(zeroblob(4000000)), '00', 'aa') AS a, replace(hex(zeroblob(4000000)), '00', 'bb') AS b)";

/// Tables that an offender may have written to before it failed, with what must be in them.
const UNTOUCHED: [(&str, i64); 8] = [
    ("taken", 1),
    ("explosive", 1),
    ("typed", 0),
    ("parent", 0),
    ("late_child", 0),
    ("child", 0),
    ("trapped", 0),
    ("counted", 1),
];

/// What the offender is surrounded by, and carried in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Every command is one statement: no savepoint protects anybody.
    Single,
    /// Every command is several statements over activity; the offender writes before it fails.
    Several,
    /// Every command is over both databases; the offender writes into both before it fails.
    Both,
}

fn store() -> Store {
    let mut store = Store::new();
    store.settings("[batch]\ncommand_deadline_ms = 250\n[sqlite]\nheap_bytes_max = 134217728\n");
    store.add_migration("activity", TRAPS);
    store.start();
    store
}

fn ledger(database: &str, case: i64, sequence: i64, bump: bool) -> Statement {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (?1, ?2, ?3, ?4)";
    Statement::new(database, sql).bind(case).bind(sequence).bind(case * 1000 + sequence).bind(bump)
}

fn count(database: &str) -> Statement {
    Statement::new(database, "UPDATE counter SET count = count + 1 WHERE id = 0").expect(1)
}

fn neighbour(shape: Shape, case: i64, sequence: i64) -> Command {
    match shape {
        Shape::Single => ledger("activity", case, sequence, true).into(),
        Shape::Several => {
            Command::new().and(ledger("activity", case, sequence, false)).and(count("activity"))
        }
        Shape::Both => Command::new()
            .and(ledger("config", case, sequence, true))
            .and(ledger("activity", case, sequence, false))
            .and(count("activity")),
    }
}

fn offender(shape: Shape, case: i64, statement: Statement) -> Command {
    match shape {
        Shape::Single => statement.into(),
        Shape::Several => Command::new().and(ledger("activity", case, OFFENDER, true)).and(statement),
        Shape::Both => Command::new()
            .and(ledger("config", case, OFFENDER, true))
            .and(ledger("activity", case, OFFENDER, true))
            .and(statement),
    }
}

/// Submits 64 commands in one write, the offender among them, and returns why it was rejected.
fn run(store: &Store, client: &mut Client, case: i64, shape: Shape, statement: &Statement) -> Rejection {
    let commands: Vec<Command> = (1..=COMMANDS)
        .map(|sequence| match sequence {
            OFFENDER => offender(shape, case, statement.clone()),
            _ => neighbour(shape, case, sequence),
        })
        .collect();
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    let mut rejected = None;
    for (sequence, ticket) in (1..).zip(tickets.iter()) {
        let outcome = client.wait(ticket, Duration::from_secs(20)).unwrap();
        match outcome {
            Outcome::Rejected(rejection) if sequence == OFFENDER => rejected = Some(rejection),
            Outcome::Applied(_) if sequence != OFFENDER => {}
            other @ (Outcome::Applied(_) | Outcome::Rejected(_)) => {
                panic!("{shape:?}, {statement:?}: command {sequence}: {other:?}")
            }
        }
    }
    let expected: Vec<i64> = (1..=COMMANDS).filter(|sequence| *sequence != OFFENDER).collect();
    assert_eq!(sequences(store, "activity", case), expected, "{shape:?}, {statement:?}");
    let in_config = if shape == Shape::Both { expected } else { Vec::new() };
    assert_eq!(sequences(store, "config", case), in_config, "{shape:?}, {statement:?}");
    for (table, rows) in UNTOUCHED {
        let found = store.number("activity", &format!("SELECT count(*) FROM {table}"));
        assert_eq!(found, rows, "{shape:?}, {statement:?}: rows in {table}");
    }
    rejected.expect("the offender is rejected")
}

/// In the order in which they were applied.
fn sequences(store: &Store, database: &str, case: i64) -> Vec<i64> {
    let database = store.database(database);
    let mut statement =
        database.prepare("SELECT sequence FROM ledger WHERE client = ?1 ORDER BY id").unwrap();
    statement.query_map([case], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Runs every statement in every shape, and compares the codes of the rejections.
fn each_alone_is_rejected(cases: &[(Statement, &[Code])]) {
    let store = store();
    let mut client = store.client();
    let mut wrong = Vec::new();
    for (number, (statement, codes)) in (1..).zip(cases) {
        for (place, shape) in (1..).zip([Shape::Single, Shape::Several, Shape::Both]) {
            let rejection = run(&store, &mut client, number * 10 + place, shape, statement);
            if !codes.contains(&rejection.code) {
                wrong.push(format!("{shape:?} {:?}: {rejection:?}, expected {codes:?}", statement.text.sql));
            }
            let index = match shape {
                Shape::Single => 0,
                Shape::Several => 1,
                Shape::Both => 2,
            };
            if rejection.statement.is_some_and(|statement| statement != index) || rejection.message.is_empty()
            {
                wrong.push(format!("{shape:?} {:?}: statement {index}: {rejection:?}", statement.text.sql));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for database in ["activity", "config"] {
        let rows = store.number(database, "SELECT count(*) FROM ledger");
        assert_eq!(store.number(database, "SELECT count FROM counter WHERE id = 0"), rows, "{database}");
    }
}

fn on_activity(sql: &str) -> Statement {
    Statement::new("activity", sql)
}

#[test]
fn a_violated_constraint_rejects_one_command_whatever_its_conflict_clause() {
    let constraint: &[Code] = &[Code::Constraint];
    each_alone_is_rejected(&[
        (on_activity("INSERT INTO taken VALUES (1, 2)"), constraint),
        (on_activity("INSERT INTO taken VALUES (7, 0), (8, 0), (1, 0), (9, 0)"), constraint),
        (on_activity("INSERT OR ROLLBACK INTO taken VALUES (1, 2)"), constraint),
        (on_activity("INSERT OR ROLLBACK INTO taken VALUES (7, 0), (1, 2)"), constraint),
        (on_activity("INSERT OR FAIL INTO taken VALUES (7, 0), (8, 0), (1, 0), (9, 0)"), constraint),
        (on_activity("INSERT OR FAIL INTO typed VALUES (7), (NULL)"), constraint),
        (on_activity("UPDATE OR FAIL taken SET a = NULL WHERE a = 1"), &[Code::Constraint, Code::Sql]),
        (on_activity("INSERT INTO explosive VALUES (7), (1)"), constraint),
        (on_activity("INSERT INTO typed VALUES (7), (NULL)"), constraint),
        (on_activity("INSERT INTO typed VALUES (7), ('word')"), constraint),
    ]);
}

#[test]
fn a_trigger_that_raises_rejects_one_command() {
    let constraint: &[Code] = &[Code::Constraint];
    each_alone_is_rejected(&[
        (on_activity("INSERT INTO trapped VALUES (9), (1)"), constraint),
        (on_activity("INSERT INTO trapped VALUES (9), (2)"), constraint),
        (on_activity("INSERT INTO trapped VALUES (9), (3)"), constraint),
        (on_activity("INSERT INTO trapped VALUES (9), (4)"), constraint),
    ]);
}

#[test]
fn a_foreign_key_rejects_one_command_at_once_or_deferred() {
    let constraint: &[Code] = &[Code::Constraint];
    each_alone_is_rejected(&[
        (on_activity("INSERT INTO child VALUES (77)"), constraint),
        (on_activity("INSERT INTO late_child VALUES (77)"), constraint),
        (on_activity("INSERT INTO late_child VALUES (NULL), (77)"), constraint),
    ]);
}

#[test]
fn words_that_end_or_nest_a_transaction_reject_one_command() {
    let refused: &[Code] = &[Code::Grant, Code::Sql];
    let texts = [
        "COMMIT",
        "END",
        "ROLLBACK",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "SAVEPOINT mine",
        "SAVEPOINT command",
        "RELEASE command",
        "ROLLBACK TO command",
        "RELEASE mine",
    ];
    each_alone_is_rejected(&texts.map(|sql| (on_activity(sql), refused)));
}

#[test]
fn words_that_leave_state_on_the_connection_reject_one_command() {
    let refused: &[Code] = &[Code::Grant, Code::Sql];
    let texts = [
        "PRAGMA foreign_keys = off",
        "PRAGMA synchronous = off",
        "PRAGMA journal_mode = delete",
        "PRAGMA user_version",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "VACUUM",
        "CREATE TEMP TABLE left_behind (a)",
        "CREATE TEMP TRIGGER left_behind AFTER INSERT ON taken BEGIN SELECT 1; END",
        "CREATE TABLE left_behind (a)",
        "CREATE VIRTUAL TABLE left_behind USING fts5 (a)",
        "DROP TABLE taken",
        "ALTER TABLE taken ADD COLUMN c",
        "ANALYZE",
        "REINDEX",
        "UPDATE _penholder_clock SET tick = 0",
        "DELETE FROM _penholder_progress",
        "INSERT INTO _penholder_meta VALUES ('x', 1)",
        "DELETE FROM sqlite_schema",
        "SELECT load_extension('/nonexistent')",
    ];
    each_alone_is_rejected(&texts.map(|sql| (on_activity(sql), refused)));
}

#[test]
fn words_that_reach_beyond_the_tables_reject_one_command() {
    let refused: &[Code] = &[Code::Grant, Code::Sql];
    let texts = [
        // A double-quoted name that does not exist is no string.
        "INSERT INTO taken VALUES (5, \"five\")",
        "INSERT INTO taken SELECT 5, count(*) FROM pragma_table_info('taken')",
        "INSERT INTO taken SELECT 5, count(*) FROM pages",
        // Harmless, but SQLite does not know that: a view may call what is known to be so.
        "INSERT INTO taken SELECT 5, depth FROM depths",
        "INSERT INTO taken SELECT 5, count(*) FROM sqlite_dbpage",
        "INSERT INTO taken VALUES (5, load_extension('libc.so.6'))",
        "INSERT INTO taken VALUES (5, fts3_tokenizer('simple', x'0000000000000000'))",
        "INSERT INTO taken VALUES (5, length(readfile('/etc/passwd')))",
        "INSERT INTO taken VALUES (5, writefile('/tmp/written', 'x'))",
        "UPDATE sqlite_schema SET sql = '' WHERE name = 'taken'",
        "UPDATE words_data SET block = x'00'",
        "DELETE FROM words_content",
        "VACUUM INTO '/tmp/written'",
    ];
    each_alone_is_rejected(&texts.map(|sql| (on_activity(sql), refused)));
}

#[test]
fn wrong_sql_rejects_one_command() {
    let sql: &[Code] = &[Code::Sql];
    each_alone_is_rejected(&[
        (on_activity("INSERT INTO taken VALUES (5, 5); INSERT INTO taken VALUES (6, 6)"), sql),
        (on_activity("INSERT INTO taken VALUES (5, 5); COMMIT"), &[Code::Sql, Code::Grant]),
        (on_activity("INSERT INTO taken VALUES (?1, ?2)").bind(5), sql),
        (on_activity("INSERT INTO taken VALUES (?1, 5)").bind(5).bind(6), sql),
        (on_activity("INSERT INTO nowhere VALUES (1)"), sql),
        (on_activity("INSERT INTO taken (nothing) VALUES (1)"), sql),
        (on_activity("INSRT INTO taken VALUES (5, 5)"), sql),
        (on_activity(""), sql),
        (on_activity("  -- nothing but a comment"), sql),
        (on_activity("INSERT INTO taken VALUES (5, 'never closed"), sql),
        (on_activity("INSERT INTO taken VALUES (5, 5)\0; DROP TABLE taken"), sql),
        (Statement::new("nowhere", "INSERT INTO taken VALUES (5, 5)"), sql),
        (Statement::new("", "INSERT INTO taken VALUES (5, 5)"), sql),
        (Statement::new("../activity", "INSERT INTO taken VALUES (5, 5)"), sql),
    ]);
}

#[test]
fn a_statement_that_costs_too_much_rejects_one_command() {
    let limit: &[Code] = &[Code::Limit];
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                   INSERT INTO trapped SELECT i + 100 FROM n";
    let silent = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                  INSERT INTO trapped SELECT i FROM n WHERE i < 0";
    each_alone_is_rejected(&[
        (on_activity(endless), limit),
        (on_activity(silent), limit),
        (on_activity("INSERT INTO taken VALUES (5, length(zeroblob(2000000000)))"), limit),
        (on_activity("INSERT INTO taken VALUES (5, printf('%.*c', 1900000000, 'x'))"), limit),
        (on_activity("INSERT INTO taken VALUES (5, length(hex(zeroblob(200000000))))"), limit),
        (on_activity("INSERT INTO taken VALUES (5, length(printf('%900000000s')))"), limit),
        (on_activity(HEAP_HOG), limit),
        (on_activity(TIME_HOG), limit),
    ]);
}

/// SQLite says that the disk is full.
#[test]
fn a_table_that_has_no_number_left_rejects_one_command() {
    let limit: &[Code] = &[Code::Limit];
    each_alone_is_rejected(&[
        (on_activity("INSERT INTO counted DEFAULT VALUES"), limit),
        (on_activity("INSERT INTO counted VALUES (7), (NULL)"), limit),
    ]);
}

#[test]
fn an_expectation_that_does_not_hold_rejects_one_command() {
    let expectation: &[Code] = &[Code::Expectation];
    each_alone_is_rejected(&[
        (on_activity("UPDATE taken SET b = 2 WHERE a = 99").expect(1), expectation),
        (on_activity("UPDATE taken SET b = 2 WHERE a = 1").expect(0), expectation),
        (on_activity("INSERT INTO trapped VALUES (7), (8)").expect(1), expectation),
    ]);
}

#[test]
fn what_varies_is_refused_only_in_a_command_over_both_databases() {
    let store = store();
    let mut client = store.client();
    for (case, sql) in (1..).zip(["random() IS NULL", "datetime('now') IS NULL", "CURRENT_TIMESTAMP IS NULL"])
    {
        let statement = on_activity(&format!("INSERT INTO trapped SELECT 50 WHERE {sql}"));
        let rejection = run(&store, &mut client, case, Shape::Both, &statement);
        assert!(matches!(rejection.code, Code::Grant | Code::Sql), "{sql}: {rejection:?}");
        let outcome = client.execute(statement).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{sql} in one database: {outcome:?}");
    }
}

#[test]
fn last_insert_rowid_tells_nothing_about_another_command() {
    let store = store();
    let mut client = store.client();
    client.execute(on_activity("INSERT INTO parent VALUES (4711)")).unwrap();
    let outcome =
        client.execute(on_activity("INSERT INTO trapped VALUES (last_insert_rowid()) RETURNING a")).unwrap();
    let Outcome::Applied(applied) = outcome else { panic!("{outcome:?}") };
    assert_eq!(applied.results.unwrap()[0].rows, [[Value::Integer(0)]]);
}

#[test]
fn every_command_of_a_batch_may_fail() {
    let store = store();
    let mut client = store.client();
    let commands: Vec<Command> =
        (0..200).map(|_| on_activity("INSERT OR ROLLBACK INTO taken VALUES (1, 2)").into()).collect();
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    for ticket in tickets.iter() {
        let outcome = client.wait(ticket, Duration::from_secs(20)).unwrap();
        assert!(
            matches!(outcome, Outcome::Rejected(Rejection { code: Code::Constraint, .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(store.number("activity", "SELECT count(*) FROM taken"), 1);
    assert_eq!(store.number("activity", "SELECT count(*) FROM _penholder_rejected"), 200);
}

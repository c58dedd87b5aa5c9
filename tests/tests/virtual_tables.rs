//! A full-text index that contradicts what it is about: SQLite calls that corrupt, and the database is sound. The
//! command that comes upon it is rejected, its neighbours are applied, and the writer stays.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that goes wrong")]

use std::time::Duration;

use penholder_client::{Client, Durability};
use penholder_protocol::{Code, Command, Outcome, Statement};
use penholder_tests::Store;

const COMMANDS: i64 = 64;
/// Where the offender stands.
const OFFENDER: i64 = 20;

/// `found` was never built, and of `broken` the structure is missing, which shows when it is written to the disk.
const TABLES: &str = "
CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE found USING fts5 (body, content = 'note', content_rowid = 'id');
INSERT INTO note VALUES (1, 'never indexed');
CREATE TRIGGER note_gone AFTER DELETE ON note BEGIN
    INSERT INTO found (found, rowid, body) VALUES ('delete', old.id, old.body);
END;
CREATE VIRTUAL TABLE broken USING fts5 (body);
INSERT INTO broken VALUES ('first');
";

fn neighbour(databases: &[&str], case: i64, sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (?1, ?2, ?3, 1)";
    let insert = |database: &&str| Statement::new(*database, sql).bind(case).bind(sequence).bind(case);
    databases.iter().map(insert).fold(Command::new(), Command::and)
}

/// Submits the offender among others, in one write, and demands that it alone is rejected.
fn is_alone(client: &mut Client, case: i64, databases: &[&str], offender: &Command) {
    let sequences = 1..=COMMANDS;
    let of =
        |sequence| if sequence == OFFENDER { offender.clone() } else { neighbour(databases, case, sequence) };
    let commands: Vec<_> = sequences.clone().map(of).collect();
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    for (sequence, ticket) in sequences.zip(tickets.iter()) {
        match client.wait(ticket, Duration::from_secs(20)).unwrap() {
            Outcome::Applied(_) if sequence != OFFENDER => {}
            Outcome::Rejected(rejection) if sequence == OFFENDER => {
                assert_eq!(rejection.code, Code::Sql, "{rejection:?}");
                assert!(rejection.message.contains("rebuild"), "{rejection:?}");
            }
            other @ (Outcome::Applied(_) | Outcome::Rejected(_)) => {
                panic!("case {case}, command {sequence}: {other:?}")
            }
        }
    }
}

#[test]
fn an_index_that_contradicts_its_content_rejects_one_command_and_stops_nobody() {
    let mut store = Store::new();
    store.add_migration("activity", TABLES);
    store.start();
    assert!(store.stop().success());
    let database = rusqlite::Connection::open(store.path().join("activity.db")).unwrap();
    database.execute("DELETE FROM broken_data WHERE id = 10", []).unwrap();
    drop(database);
    store.start();
    let mut client = store.client();
    let offenders = [
        "DELETE FROM note WHERE id = 1",
        "INSERT INTO found (found, rowid, body) VALUES ('delete', 1, 'x')",
        "INSERT INTO found (found, rank) VALUES ('integrity-check', 1)",
        "INSERT INTO broken VALUES ('second')",
    ];
    for (case, sql) in (1..).zip(offenders) {
        let offender = Statement::new("activity", sql);
        is_alone(&mut client, case, &["activity"], &offender.clone().into());
        let several = neighbour(&["activity"], case + 100, OFFENDER).and(offender);
        is_alone(&mut client, case + 100, &["activity", "activity"], &several);
    }
    assert!(!store.writer_is_dead());
    assert_eq!(store.number("activity", "SELECT count(*) FROM note"), 1);
    let alone = store.number("activity", "SELECT count(*) FROM ledger WHERE client < 100");
    assert_eq!(alone, 4 * (COMMANDS - 1));
    assert_eq!(
        store.number("activity", "SELECT count(*) FROM ledger WHERE client > 100"),
        8 * (COMMANDS - 1)
    );
    assert!(store.stop().success());
}

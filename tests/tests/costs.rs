//! What one statement may cost: memory, time, and the time of a single step that nothing interrupts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::Duration;

use penholder_client::Durability;
use penholder_protocol::{Code, Command, Outcome, Statement};
use penholder_tests::Store;

const PATIENCE: Duration = Duration::from_secs(30);

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new("activity", sql).bind(sequence).into()
}

fn applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

/// The most memory that the writer ever held, in bytes.
fn peak_memory(store: &Store) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", store.writer_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn no_statement_takes_more_than_its_share_of_memory_or_time() {
    const HEAP: u64 = 96 << 20;
    let mut store = Store::new();
    store.settings(&format!(
        "[batch]\ncommand_deadline_ms = 250\n[sqlite]\nheap_bytes_max = {HEAP}\ncache_bytes = 1048576\n"
    ));
    store.start();
    let mut client = store.client();
    let mut neighbour = store.client();
    let count =
        |n: u64| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})");
    let (few, endless) = (count(200), count(u64::MAX >> 2));
    let long = "replace(hex(zeroblob(3000000)), '00', 'aa')";
    let into = "INSERT INTO ledger (client, sequence, nonce)";
    let texts = [
        "SELECT hex(zeroblob(200000000))".to_owned(),
        "SELECT printf('%900000000s')".to_owned(),
        "SELECT randomblob(300000000)".to_owned(),
        format!("{endless} SELECT max(i) FROM n"),
        format!("{endless} {into} SELECT 9, i, i FROM n"),
        format!(
            "{few} SELECT length(b) FROM (SELECT zeroblob(9000000 + i) AS b FROM n ORDER BY b LIMIT 500)"
        ),
        format!("{few} {into} SELECT 9, i, i FROM n RETURNING zeroblob(9000000)"),
        format!("{few} SELECT group_concat(hex(zeroblob(1000000))) FROM n"),
        format!("{few} SELECT json_group_array(hex(zeroblob(1000000))) FROM n"),
        "WITH RECURSIVE n(b) AS (SELECT randomblob(900000) UNION SELECT randomblob(900000) FROM n)
         SELECT count(*) FROM n"
            .to_owned(),
        format!("SELECT instr({long}, substr({long}, 9) || 'b')"),
        format!("SELECT trim({long}, 'b' || {long} || 'c')"),
        format!("SELECT json_patch({long}, {long})"),
    ];
    for (sequence, text) in (1..).zip(&texts) {
        let ticket = client.submit(Statement::new("activity", text.as_str()), Durability::Queued).unwrap();
        assert!(applied(&neighbour.execute(insert(sequence)).unwrap()), "{text}");
        let outcome = client.wait(ticket, PATIENCE).unwrap();
        let Outcome::Rejected(rejection) = outcome else { panic!("{text}: {outcome:?}") };
        assert_eq!(rejection.code, Code::Limit, "{text}: {rejection:?}");
        println!("{text:.60}: {}", rejection.message);
    }
    // A pattern is too long before it is compared.
    let text = format!("SELECT {long} LIKE '%' || substr({long}, 1, 1000) || 'b'");
    let outcome = client.execute(Statement::new("activity", text)).unwrap();
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    let peak = peak_memory(&store);
    println!("the writer held at most {peak} bytes");
    assert!(peak < HEAP + (64 << 20), "{peak}");
    let rows = i64::try_from(texts.len()).unwrap();
    assert_eq!(store.number("activity", "SELECT count(*) FROM ledger"), rows);
    assert!(store.stop().success());
}

#[test]
fn values_are_not_kept_after_their_statement_ran() {
    let store = Store::started();
    let mut client = store.client();
    for distinct in 0..80 {
        let text = format!("UPDATE counter SET count = count WHERE id = length(?1) + {distinct}");
        let statement = Statement::new("activity", text).bind(vec![7_u8; 2 << 20]);
        assert!(applied(&client.execute(statement).unwrap()), "{distinct}");
    }
    let peak = peak_memory(&store);
    println!("after 160 MiB of values the writer held at most {peak} bytes");
    assert!(peak < 96 << 20, "{peak}");
}

#[test]
fn ordinary_statements_pass_the_limits() {
    let store = Store::started();
    let mut client = store.client();
    let rows: Vec<String> = (0..2000).map(|n| format!("(7, {n}, {n})")).collect();
    let many_rows = format!("INSERT INTO ledger (client, sequence, nonce) VALUES {}", rows.join(", "));
    let any_of: Vec<String> = (0..500).map(|n| format!("sequence = {n}")).collect();
    let many_conditions = format!("UPDATE ledger SET nonce = 0 WHERE {}", any_of.join(" OR "));
    let functions =
        "UPDATE ledger SET nonce = instr(replace(trim('  a-b ', ' '), '-', ' '), 'b') WHERE client = 7";
    let like = "UPDATE ledger SET nonce = nonce WHERE client LIKE '%7%' AND client GLOB '*'";
    let sort =
        "UPDATE ledger SET nonce = 1 WHERE id IN (SELECT id FROM ledger ORDER BY hex(nonce), id LIMIT 5)";
    for text in [many_rows.as_str(), &many_conditions, functions, like, sort] {
        let outcome = client.execute(Statement::new("activity", text)).unwrap();
        assert!(applied(&outcome), "{text:.60}: {outcome:?}");
    }
}

#[test]
fn a_migration_may_take_more_memory_than_a_command() {
    let mut store = Store::new();
    store.settings("[sqlite]\nheap_bytes_max = 100663296\ncache_bytes = 1048576\n");
    let sort = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
                SELECT length(b) AS a FROM (SELECT zeroblob(9000000 + i) AS b FROM n ORDER BY b LIMIT 500)";
    store.add_migration("activity", &format!("CREATE TABLE sorted AS {sort};"));
    store.start();
    assert_eq!(store.number("activity", "SELECT count(*) FROM sorted"), 20);
    let outcome = store.client().execute(Statement::new("activity", sort)).unwrap();
    assert!(matches!(&outcome, Outcome::Rejected(rejection) if rejection.code == Code::Limit), "{outcome:?}");
}

//! `penholder exec` and `query`: what scripts send and get.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use cli_common::{INSERT, Store, line};
use serde_json::json;

#[test]
fn an_applied_command_prints_its_results_and_exits_with_0() {
    let store = Store::new();
    let _writer = store.serve();
    let sql = "INSERT INTO projects(name) VALUES (?1) RETURNING id, name, x'00ff', 1.5, NULL";
    let run = store.run(&["exec", "STORE", "--db", "config", sql, "one", "--json"]).expect(0);
    let tick = run.json()[0]["tick"].as_u64().unwrap();
    let rows = json!([[1, "one", {"blob": "AP8="}, 1.5, null]]);
    let results = json!([{"changes": 1, "last_insert_rowid": 1, "rows": rows}]);
    assert_eq!(run.json(), [json!({"seq": 1, "status": "applied", "results": results, "tick": tick})]);
    let run = store.run(&["exec", "STORE", "--db", "config", "DELETE FROM projects"]).expect(0);
    assert!(run.stdout.starts_with("applied, 1 row changed, tick "), "{run:?}");
}

#[test]
fn a_rejected_command_prints_why_and_exits_with_6() {
    let store = Store::new();
    let _writer = store.serve();
    store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v"]).expect(0);
    let run = store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v", "--json"]).expect(6);
    let message = "UNIQUE constraint failed: settings.key";
    let expected =
        json!({"seq": 1, "status": "rejected", "code": "constraint", "message": message, "statement": 0});
    assert_eq!(run.json(), [expected]);
    let update =
        ["exec", "STORE", "--db", "config", "UPDATE settings SET value = 1", "--expect", "2", "--json"];
    let rejected = store.run(&update).expect(6).json().remove(0);
    assert_eq!(rejected["code"], "expectation");
    assert_eq!(rejected["message"], "expected 2 rows to change, 1 would have");
    let delete = ["exec", "STORE", "--db", "config", "DELETE FROM projects", "--expect", "1", "--json"];
    let rejected = store.run(&delete).expect(6).json().remove(0);
    assert_eq!(rejected["message"], "expected 1 row to change, 0 would have");
    let wrong = ["exec", "STORE", "--db", "config", "nonsense", "--json"];
    assert_eq!(store.run(&wrong).expect(6).json()[0]["code"], "sql");
}

#[test]
fn without_a_writer_a_command_times_out_with_5_and_stays_queued() {
    let store = Store::new();
    let words = ["exec", "STORE", "--db", "config", INSERT, "k", "v", "--timeout", "50ms", "--json"];
    let run = store.run(&words).expect(5);
    assert_eq!(run.json(), [json!({"seq": 1, "status": "queued"})]);
    assert!(run.stderr.contains("no writer runs"), "{run:?}");
    for level in ["queued", "durable"] {
        let words = ["exec", "STORE", "--db", "config", INSERT, level, "v", "--level", level, "--json"];
        assert_eq!(store.run(&words).expect(0).json(), [json!({"seq": 1, "status": "queued"})]);
    }
    store.run(&["serve", "STORE", "--once"]).expect(0);
    assert_eq!(store.settings(), 3);
}

#[test]
fn the_same_key_gets_the_first_outcome_again() {
    let store = Store::new();
    let _writer = store.serve();
    let key = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for _ in 0..2 {
        store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v", "--key", key]).expect(0);
    }
    assert_eq!(store.settings(), 1);
}

#[test]
fn commands_on_stdin_are_answered_in_order_whatever_becomes_of_them() {
    let store = Store::new();
    let _writer = store.serve();
    let input: String = (0..1000).map(|n| line(&(n % 900).to_string()) + "\n").collect();
    let run = store.feed(&["exec", "STORE", "--stdin", "--window", "64"], &input).expect(6);
    let answers = run.json();
    assert_eq!(answers.len(), 1000);
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer["seq"], at + 1);
        assert_eq!(answer["status"], if at < 900 { "applied" } else { "rejected" });
    }
    assert_eq!(store.settings(), 900);
}

#[test]
fn a_transaction_over_both_databases_is_applied_all_or_nothing() {
    let store = Store::new();
    let _writer = store.serve();
    let event = "INSERT INTO activity_events(at, kind) VALUES (?1, 'x')";
    let one = json!({"db": "config", "sql": INSERT, "params": ["k", "v"]});
    let two = |at: serde_json::Value| json!({"db": "activity", "sql": event, "params": [at]});
    let input = format!(
        "{}\n{}\n",
        json!({"tx": [one, two(json!(9_007_199_254_740_993_i64))]}),
        json!({"tx": [json!({"db": "config", "sql": "DELETE FROM settings"}), two(json!(null))]}),
    );
    let run = store.feed(&["exec", "STORE", "--stdin", "--json"], &input).expect(6);
    assert_eq!(run.json()[0]["results"].as_array().unwrap().len(), 2);
    assert_eq!(run.json()[1]["statement"], 1);
    assert_eq!(store.settings(), 1);
    let rows = store
        .run(&["query", "STORE", "--db", "activity", "SELECT at FROM activity_events", "--json"])
        .expect(0);
    assert_eq!(rows.stdout, "{\"at\":9007199254740993}\n");
}

#[test]
fn a_wrong_line_is_named_and_does_not_lose_those_before_it() {
    let store = Store::new();
    let _writer = store.serve();
    let input = format!("{}\n\n{}\n{{\"db\":1}}\n{}\n", line("a"), line("b"), line("c"));
    let run = store.feed(&["exec", "STORE", "--stdin"], &input).expect(1);
    assert_eq!(run.json().iter().filter(|answer| answer["status"] == "applied").count(), 2);
    assert!(run.stderr.contains("line 4: "), "{run:?}");
    assert!(run.stderr.contains("submitted: 2 commands before it"), "{run:?}");
    assert_eq!(store.settings(), 2);
    let run = store.feed(&["exec", "STORE", "--stdin"], &format!("{}\n[1]\n", line("d"))).expect(1);
    assert!(
        run.stderr.contains("expected an object") && run.stderr.contains("submitted: 1 command before it"),
        "{run:?}"
    );
}

#[test]
fn stdin_without_a_writer_says_what_was_queued_and_stops() {
    let store = Store::new();
    let input: String = (0..10).map(|n| line(&n.to_string()) + "\n").collect();
    let run =
        store.feed(&["exec", "STORE", "--stdin", "--window", "4", "--timeout", "100ms"], &input).expect(5);
    let queued = run.json().len();
    assert!((1..=4).contains(&queued), "{run:?}");
    assert!(run.json().iter().all(|answer| answer["status"] == "queued"));
    let run = store.feed(&["exec", "STORE", "--stdin", "--level", "queued"], &input).expect(0);
    assert_eq!(run.json().len(), 10);
}

#[cfg(debug_assertions)]
#[test]
fn a_query_asks_one_database_even_where_the_writer_died_between_its_two_commits() {
    let store = Store::new();
    let event = "INSERT INTO activity_events(at, kind) VALUES (1, 'x')";
    let setting = json!({"db": "config", "sql": INSERT, "params": ["k", "v"]});
    let input = json!({"tx": [setting, json!({"db": "activity", "sql": event})]}).to_string();
    store.feed(&["exec", "STORE", "--stdin", "--level", "queued"], &input).expect(0);
    let mut dying = store.command(&["serve", "STORE", "--once"]);
    dying.env("PENHOLDER_CRASH_AT", "after_commit:1").status().unwrap();
    let count = |database: &str, table: &str| {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        let run = store.run(&["query", "STORE", "--db", database, &sql, "--json"]).expect(0);
        assert!(run.stderr.contains("penholder serve"), "{run:?}");
        run.json()[0]["n"].as_u64().unwrap()
    };
    assert_eq!((count("config", "settings"), count("activity", "activity_events")), (1, 0));
    store.run(&["query", "STORE", "--db", "nowhere", "SELECT 1"]).expect(2);
}

#[test]
fn a_query_reads_and_nothing_else() {
    let store = Store::new();
    let two = "SELECT 1 AS a, 'x' AS a, ?1 AS b UNION ALL SELECT 2, NULL, ?2";
    let run = store
        .run(&["query", "STORE", "--db", "config", two, "-5", "{\"blob\":\"AA==\"}", "--json"])
        .expect(0);
    assert_eq!(
        run.stdout,
        "{\"a\":1,\"a_2\":\"x\",\"b\":-5}\n{\"a\":2,\"a_2\":null,\"b\":{\"blob\":\"AA==\"}}\n"
    );
    let run = store.run(&["query", "STORE", "--db", "config", two, "1", "2"]).expect(0);
    assert_eq!(run.stdout.lines().count(), 3, "{run:?}");
    for (sql, said) in [
        ("DELETE FROM settings", "query only reads"),
        ("SELECT 1; SELECT 2", "query takes one statement"),
        ("COMMIT", "query only reads"),
        ("ATTACH 'x' AS x", "query only reads"),
        ("", "the SQL holds no statement"),
        ("selekt", "the SQL is wrong: near \"selekt\""),
        ("SELECT * FROM nowhere", "the SQL is wrong: no such table"),
        ("SELECT ?1, ?2", "the query takes 2 parameters, and there are 0"),
    ] {
        let run = store.run(&["query", "STORE", "--db", "config", sql]).expect(2);
        assert!(run.stdout.is_empty() && run.stderr.contains(said), "{run:?}");
    }
    store.run(&["query", "STORE", "--db", "config", "SELECT 1", "one too many"]).expect(2);
    store.run(&["query", "STORE", "--db", "nowhere", "SELECT 1"]).expect(2);
    let run =
        store.run(&["query", "STORE", "--db", "config", "SELECT abs(-9223372036854775807 - 1)"]).expect(1);
    assert!(run.stderr.contains("the query failed: integer overflow"), "{run:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_word() {
    use std::io::{BufRead, BufReader, Read};
    let store = Store::new();
    let many =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT i FROM n";
    let mut child = store.command(&["query", "STORE", "--db", "config", many, "--json"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((first.as_str(), said.as_str()), ("{\"i\":1}\n", ""));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

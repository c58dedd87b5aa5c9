//! Every limit holds, says its name, and hurts nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::{Duration, Instant};

use penholder_client::{Client, ClientConfig, ClientError, Durability, WhenFull, WriterState};
use penholder_protocol::{Code, Command, Key, Outcome, Rejection, Statement, Value, limits};
use penholder_tests::{Mix, Plan, SealedSegment, Store};

const PATIENCE: Duration = Duration::from_secs(30);

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new("activity", sql).bind(sequence).into()
}

fn applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

#[test]
fn a_command_at_a_limit_works_and_one_above_it_is_refused_by_name() {
    let store = Store::started();
    let mut client = store.client();
    let text = |bytes: usize| {
        let sql = "UPDATE counter SET count = count WHERE id = 0 --";
        Statement::new("activity", format!("{sql}{}", "x".repeat(bytes - sql.len())))
    };
    let statements = |count: usize| Command {
        statements: vec![insert(1).statements.remove(0); count],
        ..Command::default()
    };
    let params = |count: usize| {
        let marks = vec!["?"; count].join(",");
        let mut statement =
            Statement::new("activity", format!("UPDATE counter SET count = count WHERE id IN ({marks})"));
        statement.params = vec![Value::Integer(0); count];
        Command::from(statement)
    };
    let blob = |bytes: usize| {
        let sql = "UPDATE counter SET count = count WHERE id = length(?1)";
        Command::from(Statement::new("activity", sql).bind(vec![7_u8; bytes]))
    };
    let cases: [(&str, Command, Command); 4] = [
        ("SQL text", text(limits::SQL_BYTES_MAX).into(), text(limits::SQL_BYTES_MAX + 1).into()),
        (
            "statements",
            statements(limits::COMMAND_STATEMENTS_MAX),
            statements(limits::COMMAND_STATEMENTS_MAX + 1),
        ),
        ("parameters", params(limits::STATEMENT_PARAMS_MAX), params(limits::STATEMENT_PARAMS_MAX + 1)),
        ("frame", blob(limits::FRAME_BYTES_MAX - 1024), blob(limits::FRAME_BYTES_MAX + 1)),
    ];
    for (name, fits, exceeds) in cases {
        let ticket = client.submit(fits, Durability::Queued).unwrap();
        let outcome = client.wait(ticket, PATIENCE).unwrap();
        assert!(applied(&outcome), "{name}: {outcome:?}");
        let error = client.submit(exceeds, Durability::Queued).unwrap_err();
        assert!(matches!(error, ClientError::Encode(_)), "{name}: {error:?}");
        assert!(!error.to_string().is_empty() && !error.is_retryable(), "{name}: {error}");
        let outcome = client.execute(insert(2)).unwrap();
        assert!(applied(&outcome), "{name}: the client goes on: {outcome:?}");
    }
}

#[test]
fn results_are_cut_at_the_limit_and_say_so() {
    let store = Store::started();
    let mut client = store.client();
    let sql = "INSERT INTO ledger (client, sequence, nonce) \
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
               SELECT 8, i, i FROM n RETURNING sequence, 'some text to make the row longer'";
    let outcome = client.execute(Statement::new("activity", sql)).unwrap();
    let Outcome::Applied(done) = outcome else { panic!("{outcome:?}") };
    let result = done.results.unwrap().remove(0);
    assert!(result.rows_truncated && result.changes == 5000, "{} rows", result.rows.len());
    assert!((100..5000).contains(&result.rows.len()), "{} rows", result.rows.len());
    assert_eq!(result.rows[0][0], Value::Integer(1));
    assert_eq!(store.number("activity", "SELECT count(*) FROM ledger"), 5000);
}

#[test]
fn the_quota_of_a_stream_fails_or_blocks_by_choice() {
    let mut store = Store::new();
    store.settings("[space]\nquota_stream_bytes = 1048576\n");
    store.start();
    assert!(store.stop().success());
    let mut failing = store.client();
    let blob = || -> Command {
        let sql = "INSERT INTO ledger (client, sequence, nonce) VALUES (7, length(?1), 0)";
        Statement::new("activity", sql).bind(vec![1_u8; 100_000]).into()
    };
    let mut accepted = 0;
    let error = loop {
        match failing.submit(blob(), Durability::Queued) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100, "the quota does not hold");
    };
    assert!(matches!(error, ClientError::Full { writer: WriterState::Stopped, .. }), "{error:?}");
    assert!(error.is_retryable() && accepted >= 5, "{accepted}: {error}");
    let when_full = WhenFull::Block(Duration::from_millis(200));
    let mut blocking = Client::open(ClientConfig { when_full, ..ClientConfig::new(store.path()) }).unwrap();
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = blocking.submit(blob(), Durability::Queued) {
            break error;
        }
    };
    assert!(matches!(error, ClientError::Full { .. }), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(200), "it waited first");
    store.start();
    let when_full = WhenFull::Block(PATIENCE);
    let mut patient = Client::open(ClientConfig { when_full, ..ClientConfig::new(store.path()) }).unwrap();
    let mut last = None;
    for _ in 0..60 {
        last = Some(patient.submit(blob(), Durability::Queued).unwrap());
    }
    assert!(applied(&patient.wait(last.unwrap(), PATIENCE).unwrap()));
    assert!(failing.submit(blob(), Durability::Queued).is_ok(), "room came back");
}

#[test]
fn a_floor_of_free_space_is_told_with_both_numbers() {
    let mut store = Store::new();
    store.settings("[space]\nfree_bytes_min = 1125899906842624\n");
    store.start();
    let error = store.client().submit(insert(1), Durability::Queued).unwrap_err();
    assert!(matches!(error, ClientError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("1125899906842624") && error.is_retryable(), "{error}");
}

#[test]
fn a_stream_longer_than_a_segment_goes_on_in_the_next() {
    let store = Store::started();
    let mut client = store.client();
    let blob = |sequence: i64| -> Command {
        let sql = "INSERT INTO ledger (client, sequence, nonce) VALUES (7, ?1, length(?2))";
        Statement::new("activity", sql).bind(sequence).bind(vec![1_u8; 500_000]).into()
    };
    let mut last = None;
    for sequence in 1..=60 {
        last = Some(client.submit(blob(sequence), Durability::Queued).unwrap());
    }
    assert!(applied(&client.wait(last.unwrap(), PATIENCE).unwrap()));
    let sql = "SELECT count(*) FROM ledger WHERE nonce = 500000 AND sequence = id";
    assert_eq!(store.number("activity", sql), 60);
    store.wait_until("only the last segment", |store| store.segments().len() == 1);
    assert!(!store.segments()[0].contains("-00000001."), "{:?}", store.segments());
}

#[test]
fn thousands_of_different_texts_pass_the_dictionary() {
    let store = Store::started();
    let mut client = store.client();
    let commands: Vec<Command> = (0..10_000)
        .map(|n| {
            Statement::new(
                "activity",
                format!("UPDATE counter SET count = count + 1 WHERE id = 1 AND {n} = {n}"),
            )
        })
        .map(Command::from)
        .collect();
    let mut last = None;
    for some in commands.chunks(500) {
        last = client.submit_batch(some, Durability::Queued).unwrap().last();
    }
    assert!(applied(&client.wait(last.unwrap(), PATIENCE).unwrap()));
    assert_eq!(store.number("activity", "SELECT count FROM counter WHERE id = 1"), 10_000);
}

#[test]
fn one_batch_may_be_as_large_as_a_submit() {
    let store = Store::started();
    let mut client = store.client();
    let commands: Vec<Command> = (1..=70_000).map(insert).collect();
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    assert_eq!(tickets.len(), 70_000);
    assert!(applied(&client.wait(tickets.last().unwrap(), PATIENCE).unwrap()));
    assert_eq!(store.number("activity", "SELECT count(*) FROM ledger WHERE id = sequence"), 70_000);
}

#[test]
fn an_empty_command_and_an_empty_batch_are_told_apart() {
    let store = Store::started();
    let mut client = store.client();
    assert!(matches!(client.submit(Command::new(), Durability::Queued), Err(ClientError::Encode(_))));
    let none = client.submit_batch(&[], Durability::Queued).unwrap();
    assert!(none.is_empty() && none.last().is_none());
    assert!(applied(&client.execute(insert(1)).unwrap()));
}

#[test]
fn one_client_that_floods_does_not_starve_another() {
    let mut store = Store::started();
    let flood = store.start_worker(Mix::Activity, u64::MAX);
    let (mut bulk, mut polite) = (store.client(), store.client());
    let commands: Vec<Command> = (1..=60_000).map(insert).collect();
    // By what was done before it, not by the time that took. A flood that is over before the other one begins shows nothing.
    let has_shown = (0..20).any(|round| {
        let last = bulk.submit_batch(&commands, Durability::Queued).unwrap().last().unwrap();
        let mut is_over =
            || applied(&bulk.wait(last, Duration::ZERO).unwrap_or(Outcome::Rejected(unfinished())));
        let was_over = is_over();
        assert!(applied(&polite.execute(insert(round)).unwrap()));
        let is_over = is_over();
        assert!(applied(&bulk.wait(last, PATIENCE * 2).unwrap()));
        !was_over && !is_over
    });
    assert!(has_shown, "it was served behind the flood, each time");
    store.tell_workers_to_stop();
    flood.finish();
}

fn unfinished() -> penholder_protocol::Rejection {
    penholder_protocol::Rejection { code: Code::Limit, message: String::new(), statement: None }
}

#[test]
fn a_frame_with_an_impossible_length_is_damage_and_allocates_nothing() {
    let store = Store::started();
    for length in [1_u32, 31, u32::try_from(limits::FRAME_BYTES_MAX).unwrap() + 1, u32::MAX] {
        let plan = Plan::new(1, Mix::Activity);
        let segment = SealedSegment::new(&store.path()).frame([plan.command(1)]);
        let mut bytes = segment.bytes();
        bytes[128..132].copy_from_slice(&length.to_le_bytes());
        segment.drop_bytes(&store.path(), &bytes);
    }
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    assert_eq!(store.number("activity", "SELECT count(*) FROM ledger"), 0);
    assert_eq!(store.quarantined().len(), 4, "{:?}", store.quarantined());
    assert!(applied(&store.client().execute(insert(1)).unwrap()));
}

#[test]
fn more_streams_than_a_user_may_have_wait_and_are_served_when_others_are_over() {
    let mut store = Store::new();
    store.settings("[space]\nstreams_user_max = 2\n");
    store.start();
    let (mut one, mut two, mut three) = (store.client(), store.client(), store.client());
    assert!(applied(&one.execute(insert(1)).unwrap()));
    assert!(applied(&two.execute(insert(2)).unwrap()));
    let ticket = three.submit(insert(3), Durability::Queued).unwrap();
    let waited = three.wait(ticket, Duration::from_millis(1500));
    assert!(matches!(waited, Err(ClientError::Timeout { .. })), "{waited:?}");
    assert!(applied(&one.execute(insert(4)).unwrap()), "those who are in are served");
    drop(one);
    assert!(applied(&three.wait(ticket, PATIENCE).unwrap()));
    assert_eq!(store.number("activity", "SELECT count(*) FROM ledger"), 4);
}

/// To look up a key takes a checksum of all the command's SQL, written out: some 256 bytes in the spool are a gigabyte.
#[test]
fn a_command_that_is_too_large_is_refused_before_its_key_is_looked_up() {
    let store = Store::started();
    let mut client = store.client();
    let key = Key::random().unwrap();
    assert!(applied(&client.execute(insert(1).with_key(key)).unwrap()));
    let sql = format!("DELETE FROM ledger --{}", "x".repeat(limits::SQL_BYTES_MAX - 22));
    let statements = vec![Statement::new("activity", sql); 40];
    let outcome = client.execute(Command { key: Some(key), statements }).unwrap();
    assert!(matches!(outcome, Outcome::Rejected(Rejection { code: Code::Limit, .. })), "{outcome:?}");
}

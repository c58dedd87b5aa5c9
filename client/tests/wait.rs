//! Waiting for outcomes that a writer made by hand publishes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use fake_store::{FakeReceipts, FakeStore, insert};
use penholder_client::{
    Applied, Client, ClientError, Code, Durability, Outcome, Rejection, StatementResult, Tick, Value,
    WriterState, writer_running,
};
use penholder_protocol::receipt::STATE_QUARANTINED;

#[allow(dead_code, reason = "each test file uses its part")]
mod fake_store;

const SHORT: Duration = Duration::from_millis(40);
const LONG: Duration = Duration::from_secs(30);

fn applied(tick: u64) -> Outcome {
    Outcome::Applied(Applied { tick: Tick(tick), results: None })
}

fn applied_with(tick: u64, rowid: i64) -> Outcome {
    let rows = vec![vec![Value::Integer(rowid)]];
    let result = StatementResult { changes: 1, last_insert_rowid: rowid, rows, rows_truncated: false };
    Outcome::Applied(Applied { tick: Tick(tick), results: Some(vec![result]) })
}

fn rejected(message: &str) -> Outcome {
    let message = message.to_owned();
    Outcome::Rejected(Rejection { code: Code::Constraint, message, statement: Some(0) })
}

#[test]
fn a_timeout_says_what_the_writer_does_and_how_to_start_one() {
    let mut store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let ticket = client.submit(insert(1), Durability::Queued).unwrap();
    let begun = Instant::now();
    let error = client.wait(ticket, SHORT).unwrap_err();
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < LONG);
    assert!(matches!(error, ClientError::Timeout { writer: WriterState::Stopped, .. }));
    let (text, serve) = (error.to_string(), format!("penholder serve {}", store.path().display()));
    assert!(
        text.contains("stays queued") && text.contains("no writer runs") && text.contains(&serve),
        "{text}"
    );

    let writer = store.lock_as_writer();
    let error = client.wait(ticket, SHORT).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { writer: WriterState::Running, .. }));
    assert!(error.is_retryable() && error.to_string().contains("busy"), "{error}");
    assert!(writer_running(store.path()).unwrap());

    store.control.state = WriterState::Stalled;
    store.write_control();
    let error = client.wait(ticket, SHORT).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { writer: WriterState::Stalled, .. }));
    assert!(error.is_retryable() && error.to_string().contains("stalled, and its log says why"), "{error}");
    drop(writer);
    assert!(!writer_running(store.path()).unwrap());
    assert!(!writer_running(&store.path().join("nothing")).unwrap());
}

#[test]
fn a_wait_that_began_before_the_receipt_file_sees_it_appear() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let ticket = client.submit(insert(1), Durability::Queued).unwrap();
    assert_eq!(client.outcome(ticket).unwrap(), None);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || client.wait(ticket, LONG).unwrap());
        std::thread::sleep(SHORT);
        let mut receipts = FakeReceipts::create(&store, ticket.stream());
        std::thread::sleep(SHORT);
        receipts.publish(1, 5);
        assert_eq!(waiting.join().unwrap(), applied(5));
    });
}

#[test]
fn a_sleeping_wait_is_woken_at_once() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let first = client.submit(insert(1), Durability::Queued).unwrap();
    let mut receipts = FakeReceipts::create(&store, first.stream());
    receipts.publish(1, 1);
    client.wait(first, LONG).unwrap();
    let ticket = client.submit(insert(2), Durability::Queued).unwrap();
    // Many rounds of the sleep's time limit would show if the bell did not wake it.
    let mut woken_within: Vec<_> = (0..20)
        .map(|round| {
            let waiting = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| (client.wait(ticket, LONG), Instant::now()));
                std::thread::sleep(Duration::from_millis(5));
                let published = Instant::now();
                receipts.publish(2, 2);
                let (outcome, woken) = waiting.join().unwrap();
                assert_eq!(outcome.unwrap(), applied(2));
                woken.saturating_duration_since(published)
            });
            receipts.publish(1, 2 + round);
            waiting
        })
        .collect();
    woken_within.sort();
    let median = woken_within.get(10).copied().unwrap();
    assert!(median < Duration::from_millis(20), "woken after {median:?}");
}

#[test]
fn results_and_rejections_reach_the_tickets_they_belong_to_in_any_order_of_asking() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let commands: Vec<_> = (1..=5).map(insert).collect();
    let tickets: Vec<_> = client.submit_for_results(&commands).unwrap().iter().collect();
    let [one, two, three, four, five] = tickets[..] else { panic!("five tickets") };
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.record(1, &applied_with(3, 11));
    receipts.record(2, &rejected("two"));
    receipts.publish(3, 3);
    assert_eq!(client.wait(three, LONG).unwrap(), applied(3));
    assert_eq!(client.outcome(four).unwrap(), None);
    receipts.record(4, &applied_with(4, 14));
    receipts.record(5, &rejected("five"));
    receipts.publish(5, 4);
    assert_eq!(client.wait(five, LONG).unwrap(), rejected("five"));
    assert_eq!(client.wait(two, LONG).unwrap(), rejected("two"));
    assert_eq!(client.wait(one, LONG).unwrap(), applied_with(3, 11));
    assert_eq!(client.wait(four, LONG).unwrap(), applied_with(4, 14));
    assert_eq!(client.wait(two, LONG).unwrap(), rejected("two"), "a rejection stays one");
    assert_eq!(client.wait(one, LONG).unwrap(), applied(4), "results are handed out once");
}

#[test]
fn many_records_of_the_largest_size_are_all_read() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let commands: Vec<_> = (1..=50).map(insert).collect();
    let tickets = client.submit_for_results(&commands).unwrap();
    let mut receipts = FakeReceipts::create(&store, client.stream());
    let outcome = |sequence: u64| rejected(&format!("{sequence}:{}", "x".repeat(75_000)));
    for sequence in 1..=50 {
        receipts.record(sequence, &outcome(sequence));
    }
    receipts.publish(50, 1);
    for ticket in tickets.iter() {
        assert_eq!(client.wait(ticket, LONG).unwrap(), outcome(ticket.sequence().0));
    }
}

#[test]
fn a_receipt_that_was_dropped_before_it_was_read_is_not_taken_for_success() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let commands: Vec<_> = (1..=6).map(insert).collect();
    let tickets: Vec<_> = client.submit_batch(&commands, Durability::Queued).unwrap().iter().collect();
    let [one, two, three, four, five, six] = tickets[..] else { panic!("six tickets") };
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.publish(1, 1);
    assert_eq!(client.wait(one, LONG).unwrap(), applied(1));
    receipts.record(2, &rejected("two"));
    receipts.cell.records_start = receipts.cell.records_end;
    receipts.record(4, &rejected("four"));
    receipts.publish(5, 2);
    assert!(matches!(client.wait(two, LONG), Err(ClientError::OutcomeLost { .. })));
    assert!(matches!(client.wait(three, LONG), Err(ClientError::OutcomeLost { .. })));
    assert_eq!(client.wait(four, LONG).unwrap(), rejected("four"));
    assert_eq!(client.wait(five, LONG).unwrap(), applied(2));
    assert_eq!(client.wait(one, LONG).unwrap(), applied(2));
    receipts.publish(6, 3);
    assert_eq!(client.wait(six, LONG).unwrap(), applied(3));
}

#[test]
fn a_quarantined_stream_rejects_what_was_not_applied() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let one = client.submit(insert(1), Durability::Queued).unwrap();
    let two = client.submit(insert(2), Durability::Queued).unwrap();
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.cell.state = STATE_QUARANTINED;
    receipts.publish(1, 1);
    assert_eq!(client.wait(one, LONG).unwrap(), applied(1));
    let Outcome::Rejected(rejection) = client.wait(two, LONG).unwrap() else { panic!("a rejection") };
    assert_eq!(rejection.code, Code::Corrupt);
}

#[test]
fn a_receipt_file_that_was_made_anew_is_found() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let one = client.submit(insert(1), Durability::Queued).unwrap();
    let two = client.submit(insert(2), Durability::Queued).unwrap();
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.publish(1, 1);
    client.wait(one, LONG).unwrap();
    std::fs::remove_file(&receipts.path).unwrap();
    FakeReceipts::create(&store, client.stream()).publish(2, 2);
    assert_eq!(client.wait(two, LONG).unwrap(), applied(2));
}

#[test]
fn what_a_removed_receipt_file_told_is_not_forgotten() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let commands: Vec<_> = (1..=3).map(insert).collect();
    let tickets: Vec<_> = client.submit_batch(&commands, Durability::Queued).unwrap().iter().collect();
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.publish(1, 1);
    client.wait(tickets[0], LONG).unwrap();
    receipts.record(2, &rejected("two"));
    receipts.publish(2, 2);
    std::fs::remove_file(&receipts.path).unwrap();
    let mut anew = FakeReceipts::create(&store, client.stream());
    std::thread::sleep(SHORT);
    assert_eq!(client.outcome(tickets[2]).unwrap(), None, "the new file is open");
    assert_eq!(client.outcome(tickets[1]).unwrap(), Some(rejected("two")));
    anew.publish(3, 3);
    assert_eq!(client.wait(tickets[2], LONG).unwrap(), applied(3));
    assert_eq!(client.outcome(tickets[1]).unwrap(), Some(rejected("two")));
}

#[test]
fn records_that_the_writer_began_anew_in_the_same_file_are_read_again() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let commands: Vec<_> = (1..=3).map(insert).collect();
    let tickets: Vec<_> = client.submit_batch(&commands, Durability::Queued).unwrap().iter().collect();
    let [one, _, three] = tickets[..] else { panic!("three tickets") };
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.record(1, &rejected("a long message for the first command"));
    receipts.publish(1, 1);
    assert!(matches!(client.wait(one, LONG).unwrap(), Outcome::Rejected(_)));
    receipts.cell.records_end = receipts.cell.records_start;
    receipts.record(3, &rejected("three"));
    receipts.publish(3, 2);
    assert_eq!(client.wait(three, LONG).unwrap(), rejected("three"));
}

#[test]
fn another_client_can_ask_for_a_ticket() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let ticket = client.submit(insert(1), Durability::Queued).unwrap();
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.record(1, &rejected("one"));
    receipts.publish(1, 1);
    let mut other = Client::connect(store.path()).unwrap();
    assert_eq!(other.outcome(ticket).unwrap(), Some(rejected("one")));
}

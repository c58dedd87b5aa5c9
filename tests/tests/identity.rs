//! Who a command comes from, and whether it was seen before: keys, sequences, old and foreign segments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::Duration;

use penholder_client::{Client, Durability};
use penholder_protocol::{
    Code, Command, Control, Epoch, Key, Outcome, Rejection, SegmentKind, SegmentName, Sequence, Statement,
    StoreId,
};
use penholder_tests::{Mix, Plan, SealedSegment, Store};

const PATIENCE: Duration = Duration::from_secs(20);

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1) RETURNING id";
    Statement::new("activity", sql).bind(sequence).into()
}

/// Rows in activity's ledger, which the counter must agree with at every moment.
fn rows(store: &Store) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM ledger) - count FROM counter WHERE id = 0";
    assert_eq!(store.number("activity", sql), 0, "a command counted twice");
    store.number("activity", "SELECT count(*) FROM ledger")
}

/// Lets another client be served, then gives the writer time for its safety poll: what is to happen has happened.
fn let_things_happen(store: &Store) {
    let before = rows(store);
    let outcome = store.client().execute(insert(99)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "a bystander is not served: {outcome:?}");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rows(store), before + 1, "something else was applied");
}

fn is_quarantined(store: &Store, segment: &SealedSegment) -> bool {
    let name = segment.name().to_string();
    let reason = store.layout().quarantine().join(format!("{name}.reason"));
    let there = store.quarantined().iter().any(|found| found.starts_with(&name));
    assert!(
        !there || std::fs::read_to_string(reason).is_ok_and(|text| text.len() > 10),
        "a reason lies beside it"
    );
    there
}

fn outcome_of(client: &mut Client, command: Command) -> Outcome {
    client.execute(command).unwrap()
}

#[test]
fn a_key_that_was_seen_before_gets_the_first_outcome() {
    let store = Store::started();
    let (mut client, mut other) = (store.client(), store.client());
    let key = Key::random().unwrap();
    let first = outcome_of(&mut client, insert(1).with_key(key));
    assert!(matches!(first, Outcome::Applied(_)), "{first:?}");
    assert_eq!(outcome_of(&mut client, insert(1).with_key(key)), first);
    assert_eq!(outcome_of(&mut other, insert(1).with_key(key)), first);
    assert_eq!(rows(&store), 1);
}

#[test]
fn a_key_counts_within_one_batch() {
    let store = Store::started();
    let mut client = store.client();
    let key = Key::random().unwrap();
    let commands: Vec<Command> = (0..64).map(|_| insert(1).with_key(key)).collect();
    let tickets = client.submit_for_results(&commands).unwrap();
    let outcomes: Vec<Outcome> =
        tickets.iter().map(|ticket| client.wait(ticket, PATIENCE).unwrap()).collect();
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    assert_eq!(rows(&store), 1);
}

#[test]
fn a_key_counts_after_a_restart_of_the_writer() {
    let mut store = Store::started();
    let key = Key::random().unwrap();
    let first = outcome_of(&mut store.client(), insert(1).with_key(key));
    store.kill();
    store.start();
    assert_eq!(outcome_of(&mut store.client(), insert(1).with_key(key)), first);
    assert!(store.stop().success());
    store.start();
    assert_eq!(outcome_of(&mut store.client(), insert(1).with_key(key)), first);
    assert_eq!(rows(&store), 1);
}

#[test]
fn a_key_over_both_databases_counts_once() {
    let store = Store::started();
    let key = Key::random().unwrap();
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, 1, 0, 1)";
    let command =
        Command::new().and(Statement::new("config", sql)).and(Statement::new("activity", sql)).with_key(key);
    let first = outcome_of(&mut store.client(), command.clone());
    assert!(matches!(first, Outcome::Applied(_)), "{first:?}");
    assert_eq!(outcome_of(&mut store.client(), command), first);
    assert_eq!((rows(&store), store.number("config", "SELECT count(*) FROM ledger")), (1, 1));
}

#[test]
fn a_key_used_for_another_command_is_rejected_and_names_the_reason() {
    let store = Store::started();
    let mut client = store.client();
    let key = Key::random().unwrap();
    outcome_of(&mut client, insert(1).with_key(key));
    let elsewhere = Statement::new("config", "UPDATE counter SET count = 5 WHERE id = 1");
    for other in [insert(2), insert(1).and(insert(1).statements.remove(0)), elsewhere.into()] {
        let outcome = outcome_of(&mut client, other.clone().with_key(key));
        assert!(
            matches!(&outcome, Outcome::Rejected(Rejection { code: Code::Key, .. })),
            "{other:?}: {outcome:?}"
        );
    }
    assert_eq!(rows(&store), 1);
    assert_eq!(store.number("config", "SELECT count FROM counter WHERE id = 1"), 0);
}

#[test]
fn a_key_of_a_rejected_command_gets_the_first_rejection() {
    let store = Store::started();
    let mut client = store.client();
    let key = Key::random().unwrap();
    let update =
        Statement::new("activity", "UPDATE counter SET count = count + 0 WHERE count = 1 AND id = 0");
    let command = Command::from(update.expect(1)).with_key(key);
    let first = outcome_of(&mut client, command.clone());
    assert!(matches!(first, Outcome::Rejected(_)), "{first:?}");
    outcome_of(&mut client, insert(1));
    assert_eq!(outcome_of(&mut client, command), first, "the condition holds now, and the answer stays");
}

#[test]
fn a_segment_that_comes_back_after_it_was_applied_is_not_applied_again() {
    let mut store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let segment = SealedSegment::new(&store.path()).frame((1..=5).map(|sequence| plan.command(sequence)));
    segment.drop_into(&store.path());
    store.wait_until("5 rows", |store| rows(store) == 5);
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    segment.drop_into(&store.path());
    let_things_happen(&store);
    // Once its watermark is pruned, only the floor tells that it is old.
    for _ in 0..3 {
        assert!(store.stop().success());
        store.start();
    }
    segment.drop_into(&store.path());
    let_things_happen(&store);
    assert!(is_quarantined(&store, &segment), "{:?}", store.quarantined());
    assert!(store.control().unwrap().quarantined > 0, "status tells of it");
}

#[test]
fn a_segment_that_comes_back_while_no_writer_runs_is_not_applied_again() {
    let mut store = Store::started();
    let plan = Plan::new(1, Mix::All);
    let segment = SealedSegment::new(&store.path()).frame((1..=20).map(|sequence| plan.command(sequence)));
    segment.drop_into(&store.path());
    store.wait_until("an empty spool", |store| store.segments().is_empty() && rows(store) > 0);
    let before = rows(&store);
    store.kill();
    segment.drop_into(&store.path());
    store.start();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rows(&store), before);
    let_things_happen(&store);
}

#[test]
fn a_store_whose_watermarks_were_deleted_applies_no_old_segment() {
    let mut store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let segment = SealedSegment::new(&store.path()).frame((1..=5).map(|sequence| plan.command(sequence)));
    segment.drop_into(&store.path());
    store.wait_until("5 rows", |store| rows(store) == 5);
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    for _ in 0..2 {
        assert!(store.stop().success());
        store.start();
    }
    assert!(store.stop().success());
    for database in ["activity", "config"] {
        let database = store.database(database);
        database.pragma_update(None, "query_only", false).unwrap();
        database.execute("DELETE FROM _penholder_progress WHERE typeof(owner) = 'blob'", []).unwrap();
    }
    store.start();
    segment.drop_into(&store.path());
    let_things_happen(&store);
    assert!(is_quarantined(&store, &segment), "{:?}", store.quarantined());
}

#[test]
fn commands_that_waited_through_several_runs_of_the_writer_are_not_taken_for_old_ones() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    let first = client.submit(insert(1), Durability::Queued).unwrap();
    drop(client);
    let plan = Plan::new(1, Mix::Activity);
    let segment = SealedSegment::new(&store.path()).frame((1..=5).map(|sequence| plan.command(sequence)));
    segment.drop_into(&store.path());
    for pass in 1..=3 {
        // Each of these runs dies before it has applied anything.
        store.set("PENHOLDER_CRASH_AT", "before_commit");
        if store.try_start().is_ok() {
            store.wait_until("the writer's death", Store::writer_is_dead);
            store.forget_writer();
        }
        println!("run {pass} is over: {:?}", store.segments());
    }
    store.unset("PENHOLDER_CRASH_AT");
    store.start();
    store.wait_until("6 rows", |store| rows(store) == 6);
    assert_eq!(store.quarantined(), Vec::<String>::new());
    assert!(store.watermark("activity", first.stream()) >= 1);
}

#[test]
fn a_client_keeps_its_stream_over_many_runs_of_the_writer() {
    let mut store = Store::started();
    let mut client = store.client();
    for sequence in 1..=5 {
        let outcome = outcome_of(&mut client, insert(sequence));
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        assert!(store.stop().success());
        store.start();
    }
    assert_eq!(rows(&store), 5);
}

#[test]
fn a_gap_in_the_sequence_stops_the_stream_and_nobody_else() {
    let store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let first = SealedSegment::new(&store.path()).frame((1..=3).map(|sequence| plan.command(sequence)));
    let mut third = first.next().frame((6..=8).map(|sequence| plan.command(sequence)));
    third.header.number = 3;
    third.header.first_sequence = Sequence(6);
    first.drop_into(&store.path());
    store.wait_until("3 rows", |store| rows(store) == 3);
    third.drop_into(&store.path());
    let_things_happen(&store);
    assert_eq!(rows(&store), 4);
}

#[test]
fn a_segment_that_skips_a_sequence_stops_the_stream() {
    let store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let first = SealedSegment::new(&store.path()).frame((1..=3).map(|sequence| plan.command(sequence)));
    let mut second = first.next().frame((5..=8).map(|sequence| plan.command(sequence)));
    second.header.first_sequence = Sequence(5);
    first.drop_into(&store.path());
    second.drop_into(&store.path());
    store.wait_until("3 rows", |store| rows(store) == 3);
    let_things_happen(&store);
    assert!(is_quarantined(&store, &second), "{:?}", store.quarantined());
}

#[test]
fn the_same_sequence_with_other_bytes_stops_the_stream() {
    let store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let first = SealedSegment::new(&store.path()).frame((1..=3).map(|sequence| plan.command(sequence)));
    let mut second = first.next().frame((11..=18).map(|sequence| plan.command(sequence)));
    second.header.first_sequence = Sequence(3);
    first.drop_into(&store.path());
    second.drop_into(&store.path());
    store.wait_until("3 rows", |store| rows(store) == 3);
    let_things_happen(&store);
    assert!(is_quarantined(&store, &second), "{:?}", store.quarantined());
}

#[test]
fn a_segment_under_two_names_is_applied_once() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    client.submit_batch(&[1, 2, 3].map(insert), Durability::Queued).unwrap();
    let live = store.segments().remove(0);
    let live_path = store.layout().spool().join(&live);
    let name = SegmentName::parse(&live).unwrap();
    let sealed = SegmentName { kind: SegmentKind::Sealed, ..name };
    let other = SegmentName { number: 2, ..name };
    std::fs::copy(&live_path, store.layout().segment(sealed)).unwrap();
    std::fs::copy(&live_path, store.layout().segment(other)).unwrap();
    drop(client);
    store.start();
    store.wait_until("rows", |store| rows(store) > 0);
    let_things_happen(&store);
    assert_eq!(rows(&store), 4);
    store.wait_until("an empty spool", |store| store.segments().is_empty());
}

#[test]
fn a_segment_of_another_store_is_quarantined() {
    let store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let mut segment = SealedSegment::new(&store.path()).frame((1..=3).map(|sequence| plan.command(sequence)));
    segment.header.store = StoreId::random().unwrap();
    segment.drop_into(&store.path());
    store.wait_until("its quarantine", |store| is_quarantined(store, &segment));
    let_things_happen(&store);
}

#[test]
fn a_segment_from_the_future_is_quarantined() {
    let store = Store::started();
    let plan = Plan::new(1, Mix::Activity);
    let segment = SealedSegment::new(&store.path())
        .frame((1..=3).map(|sequence| plan.command(sequence)))
        .of_epoch(Epoch(1_000_000));
    segment.drop_into(&store.path());
    store.wait_until("its quarantine", |store| is_quarantined(store, &segment));
    let_things_happen(&store);
}

#[test]
fn the_client_of_a_quarantined_stream_is_told() {
    use std::os::unix::fs::FileExt;
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    let tickets = client.submit_batch(&[1, 2, 3].map(insert), Durability::Queued).unwrap();
    let path = store.layout().spool().join(store.segments().remove(0));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&[0xff], length - 20).unwrap();
    store.start();
    let outcome = client.wait(tickets.last().unwrap(), PATIENCE).unwrap();
    assert!(matches!(&outcome, Outcome::Rejected(Rejection { code: Code::Corrupt, .. })), "{outcome:?}");
    let error = client.submit(insert(4), Durability::Queued).unwrap_err();
    assert!(matches!(error, penholder_client::ClientError::Quarantined { .. }), "{error:?}");
    assert_eq!(rows(&store), 0);
    let_things_happen(&store);
}

#[test]
fn a_floor_above_a_new_stream_makes_the_client_start_over() {
    let mut store = Store::started();
    for _ in 0..3 {
        assert!(store.stop().success());
        store.start();
    }
    let control = Control::read(&store.layout().control()).unwrap();
    assert!(control.floor < control.epoch, "a new stream of this run is above the floor: {control:?}");
    let outcome = outcome_of(&mut store.client(), insert(1));
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
}

//! Submitting without a writer: what stands in the spool afterwards, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use fake_store::{FakeReceipts, FakeStore, insert};
use penholder_client::{
    Client, ClientConfig, ClientError, Command, Durability, EncodeError, Statement, WhenFull, values,
};
use penholder_protocol::limits::{DEFINITIONS_COUNT_MAX, SEGMENT_BYTES_SOFT};
use penholder_protocol::{Epoch, Layout, WriterState, receipt};

#[allow(dead_code, reason = "each test file uses its part")]
mod fake_store;

#[test]
fn a_directory_without_a_control_file_is_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect(directory.path()).unwrap_err();
    assert!(matches!(error, ClientError::NoStore { .. }));
    assert!(error.to_string().contains("penholder serve"), "{error}");
}

#[test]
fn submitted_commands_stand_in_the_spool_in_order_and_a_live_client_holds_the_lock() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    assert_eq!(client.databases(), ["config", "activity"]);
    let ticket = client.submit(insert(1), Durability::Queued).unwrap();
    let batch: Vec<_> = (2..=1000).map(insert).collect();
    let tickets = client.submit_batch(&batch, Durability::Queued).unwrap();
    assert_eq!((ticket.sequence().0, tickets.len(), tickets.last().unwrap().sequence().0), (1, 999, 1000));
    assert_eq!(store.commands(), (1..=1000).map(insert).collect::<Vec<_>>());

    let [name] = store.segments()[..] else { panic!("one segment") };
    assert_eq!(name.stream, client.stream());
    let path = store.layout.segment(name);
    assert_eq!(store.read_segment(name).0.inode, std::fs::metadata(&path).unwrap().ino());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    let file = File::open(&path).unwrap();
    assert!(fs2::FileExt::try_lock_shared(&file).is_err());
    drop(client);
    fs2::FileExt::try_lock_shared(&file).unwrap();
    assert_eq!(std::fs::read_dir(store.layout.spool_tmp()).unwrap().count(), 0);
}

#[test]
fn a_transaction_is_one_command_over_both_databases() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    client
        .transaction()
        .statement("config", "UPDATE p SET n = ?2 WHERE id = ?1", values![7, "x"])
        .expect(1)
        .statement("activity", "DELETE FROM t", values![])
        .submit(Durability::Queued)
        .unwrap();
    let update = Statement::new("config", "UPDATE p SET n = ?2 WHERE id = ?1").bind(7).bind("x").expect(1);
    let command = Command::from(update).and(Statement::new("activity", "DELETE FROM t"));
    assert_eq!(store.commands(), [command]);
}

#[test]
fn an_empty_batch_writes_nothing() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    assert!(client.submit_batch(&[], Durability::Durable).unwrap().is_empty());
    assert!(store.segments().is_empty());
}

#[test]
fn a_long_segment_is_followed_by_another_without_a_gap() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let large = "x".repeat(1 << 20);
    let command =
        || Command::from(Statement::new("activity", "INSERT INTO t(a) VALUES (?1)").bind(large.as_str()));
    for _ in 0..20 {
        client.submit(command(), Durability::Queued).unwrap();
    }
    assert_eq!(store.commands().len(), 20);
    let segments = store.segments();
    assert_eq!(segments.iter().map(|name| name.number).collect::<Vec<_>>(), [1, 2, 3]);
    for name in &segments[..2] {
        assert!(std::fs::metadata(store.layout.segment(*name)).unwrap().len() >= SEGMENT_BYTES_SOFT);
        let file = File::open(store.layout.segment(*name)).unwrap();
        fs2::FileExt::try_lock_shared(&file).unwrap();
    }
}

#[test]
fn a_full_dictionary_begins_the_next_segment() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let text =
        |number: usize| Command::from(Statement::new("activity", format!("DELETE FROM t WHERE a={number}")));
    let commands: Vec<_> = (0..DEFINITIONS_COUNT_MAX).map(text).collect();
    client.submit_batch(&commands, Durability::Queued).unwrap();
    client.submit(text(0), Durability::Queued).unwrap();
    assert_eq!(store.segments().len(), 1);
    client.submit(text(DEFINITIONS_COUNT_MAX), Durability::Queued).unwrap();
    assert_eq!(store.segments().len(), 2);
    assert_eq!(store.commands().len(), DEFINITIONS_COUNT_MAX + 2);
}

#[test]
fn a_submit_that_no_segment_can_take_is_refused_without_leaving_segments_behind() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let text =
        |number: usize| Command::from(Statement::new("activity", format!("DELETE FROM t WHERE a={number}")));
    let commands: Vec<_> = (0..=DEFINITIONS_COUNT_MAX).map(text).collect();
    for _ in 0..3 {
        let error = client.submit_batch(&commands, Durability::Queued).unwrap_err();
        assert!(matches!(&error, ClientError::Encode(EncodeError::TooLarge { size: 4097, .. })), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(store.segments().len(), 1);
    assert!(matches!(
        client.submit(Command::new(), Durability::Queued),
        Err(ClientError::Encode(EncodeError::Empty))
    ));
    client.submit(insert(1), Durability::Queued).unwrap();
    assert_eq!(store.commands(), [insert(1)]);
}

#[test]
fn a_full_quota_fails_the_submit_until_commands_are_applied() {
    let store = FakeStore::with_limits(2000, 0);
    let mut client = Client::connect(store.path()).unwrap();
    let mut submitted = 0;
    let error = loop {
        match client.submit(insert(1), Durability::Queued) {
            Ok(_) => submitted += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, ClientError::Full { quota_bytes: 2000, writer: WriterState::Stopped, .. }),
        "{error}"
    );
    assert!(error.is_retryable() && error.to_string().contains("no writer runs"), "{error}");
    assert!((10..100).contains(&submitted), "{submitted} commands in 2000 bytes");
    assert_eq!(store.commands().len(), submitted);

    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.publish(submitted as u64, 1);
    std::thread::sleep(Duration::from_millis(15));
    assert_eq!(client.unapplied_bytes(), 0);
    client.submit(insert(2), Durability::Queued).unwrap();
    assert!(client.unapplied_bytes() > 0);
}

#[test]
fn a_blocked_submit_goes_on_when_commands_are_applied() {
    let store = FakeStore::with_limits(1, 0);
    let when_full = WhenFull::Block(Duration::from_millis(50));
    let mut client = Client::open(ClientConfig { when_full, ..ClientConfig::new(store.path()) }).unwrap();
    client.submit(insert(1), Durability::Queued).unwrap();
    let begun = Instant::now();
    assert!(matches!(client.submit(insert(2), Durability::Queued), Err(ClientError::Full { .. })));
    assert!(begun.elapsed() >= Duration::from_millis(50));

    let when_full = WhenFull::Block(Duration::from_secs(30));
    let mut client = Client::open(ClientConfig { when_full, ..ClientConfig::new(store.path()) }).unwrap();
    client.submit(insert(1), Durability::Queued).unwrap();
    let stream = client.stream();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(move || client.submit(insert(2), Durability::Queued).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        assert!(!blocked.is_finished());
        FakeReceipts::create(&store, stream).publish(1, 1);
        assert_eq!(blocked.join().unwrap().sequence().0, 2);
    });
}

#[test]
fn too_little_free_space_refuses_the_submit_until_the_limit_allows_it() {
    let mut store = FakeStore::with_limits(0, u64::MAX);
    let mut client = Client::connect(store.path()).unwrap();
    let error = client.submit(insert(1), Durability::Queued).unwrap_err();
    assert!(matches!(error, ClientError::NoSpace { floor_bytes: u64::MAX, .. }), "{error}");
    assert!(store.segments().is_empty());
    store.control.free_bytes_min = 1;
    store.write_control();
    client.submit(insert(1), Durability::Queued).unwrap();
}

#[test]
fn a_first_segment_whose_epoch_the_floor_has_passed_is_not_left_in_the_spool() {
    let mut store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let stream = client.stream();
    (store.control.epoch, store.control.floor) = (Epoch(3), Epoch(3));
    store.write_control();
    let error = client.submit(insert(1), Durability::Queued).unwrap_err();
    assert!(matches!(&error, ClientError::Io { .. }), "{error}");
    assert!(store.segments().is_empty());

    store.control.epoch = Epoch(4);
    store.write_control();
    let ticket = client.submit(insert(1), Durability::Queued).unwrap();
    assert_ne!(ticket.stream(), stream, "a stream that a writer may have put aside is not used again");
    assert_eq!(ticket.stream(), client.stream());
    assert_eq!(store.read_segment(store.segments()[0]).0.epoch, Epoch(4));
}

#[test]
fn a_replaced_store_is_not_written_to() {
    let mut store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    store.control.store = penholder_protocol::StoreId::random().unwrap();
    store.write_control();
    let error = client.submit(insert(1), Durability::Queued).unwrap_err();
    assert!(error.to_string().contains("another store"), "{error}");
    assert!(store.segments().is_empty() && !error.is_retryable());
}

#[test]
fn a_quarantined_stream_takes_nothing_more() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    client.submit(insert(1), Durability::Queued).unwrap();
    let mut receipts = FakeReceipts::create(&store, client.stream());
    receipts.cell.state = receipt::STATE_QUARANTINED;
    receipts.publish(0, 1);
    std::thread::sleep(Duration::from_millis(15));
    let refused = client.submit(insert(2), Durability::Queued);
    assert!(matches!(refused, Err(ClientError::Quarantined { stream }) if stream == client.stream()));
    assert_eq!(store.commands(), [insert(1)]);
}

#[test]
fn durable_submits_work_across_segments_and_after_older_ones_were_reclaimed() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    let large = "x".repeat(3 << 20);
    let statement = Statement::new("activity", "INSERT INTO t(a) VALUES (?1)").bind(large.as_str());
    for _ in 0..6 {
        client.submit(statement.clone(), Durability::Queued).unwrap();
    }
    assert_eq!(store.segments().len(), 2);
    client.submit(insert(1), Durability::Durable).unwrap();
    client.submit(statement.clone(), Durability::Durable).unwrap();
    for _ in 0..6 {
        client.submit(statement.clone(), Durability::Queued).unwrap();
    }
    let segments = store.segments();
    assert_eq!(segments.len(), 5);
    for reclaimed in &segments[..4] {
        std::fs::remove_file(store.layout.segment(*reclaimed)).unwrap();
    }
    client.submit(insert(2), Durability::Durable).unwrap();
}

#[test]
fn two_clients_use_two_streams() {
    let store = FakeStore::new();
    let mut clients = [Client::connect(store.path()).unwrap(), Client::connect(store.path()).unwrap()];
    for client in &mut clients {
        client.submit(insert(1), Durability::Queued).unwrap();
    }
    assert_ne!(clients[0].stream(), clients[1].stream());
    assert_eq!(store.segments().len(), 2);
}

#[test]
fn a_missing_spool_is_named_in_the_error() {
    let store = FakeStore::new();
    let mut client = Client::connect(store.path()).unwrap();
    std::fs::remove_dir_all(Layout::new(store.path()).spool()).unwrap();
    let error = client.submit(insert(1), Durability::Queued).unwrap_err();
    assert!(error.to_string().contains("spool") && !error.is_retryable(), "{error}");
}

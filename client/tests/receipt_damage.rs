//! A client whose receipt file is damaged: it is told less, never something else, and never hangs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use fake_store::{FakeReceipts, FakeStore, insert};
use penholder_client::{Applied, Client, Code, Durability, Outcome, Rejection, Tick};

#[allow(dead_code, reason = "each test file uses its part")]
mod fake_store;

/// Bytes of a header that its checksum covers, and the checksum.
const COVERED: usize = 60;
/// Where the records begin.
const RECORDS: usize = 4096;
/// The progress cell: one page that two processes share in memory, and that no checksum covers.
const CELL: std::ops::Range<usize> = 64..104;

const PATIENCE: Duration = Duration::from_millis(1);

fn rejected() -> Outcome {
    let message = "UNIQUE constraint failed: t.a".to_owned();
    Outcome::Rejected(Rejection { code: Code::Constraint, message, statement: Some(0) })
}

fn applied() -> Outcome {
    Outcome::Applied(Applied { tick: Tick(5), results: None })
}

/// Submits two commands of which the first is rejected, damages the receipts, and asks for both.
fn ask(store: &FakeStore, damage: impl FnOnce(&mut Vec<u8>)) -> [Option<Outcome>; 2] {
    let mut client = Client::connect(store.path()).unwrap();
    let tickets = client.submit_batch(&[insert(1), insert(2)], Durability::Queued).unwrap();
    let tickets: Vec<_> = tickets.iter().collect();
    let mut receipts = FakeReceipts::create(store, tickets[0].stream());
    receipts.record(1, &rejected());
    receipts.publish(2, 5);
    let mut bytes = std::fs::read(&receipts.path).unwrap();
    damage(&mut bytes);
    std::fs::write(&receipts.path, bytes).unwrap();
    let told = [tickets[0], tickets[1]].map(|ticket| client.wait(ticket, PATIENCE).ok());
    std::fs::remove_file(&receipts.path).unwrap();
    told
}

#[test]
fn a_flipped_bit_of_header_or_records_tells_less_and_nothing_else() {
    let store = FakeStore::new();
    assert_eq!(ask(&store, |_| {}), [Some(rejected()), Some(applied())]);
    let mut length = 0;
    ask(&store, |bytes| length = bytes.len());
    for at in (0..COVERED).chain(RECORDS..length) {
        let told = ask(&store, |bytes| bytes[at] ^= 1 << (at % 8));
        assert!(told[0].is_none() || told[0] == Some(rejected()), "byte {at}: {told:?}");
        assert!(told[1].is_none() || told[1] == Some(applied()), "byte {at}: {told:?}");
        assert_ne!(told[0], Some(rejected()), "byte {at}: nothing was damaged");
    }
}

#[test]
fn a_receipt_file_cut_anywhere_tells_less_and_nothing_else() {
    let store = FakeStore::new();
    let mut length = 0;
    ask(&store, |bytes| length = bytes.len());
    for cut in (0..RECORDS).step_by(97).chain(RECORDS..length) {
        let told = ask(&store, |bytes| bytes.truncate(cut));
        assert_eq!(told[0], None, "cut at {cut}");
        assert!(told[1].is_none() || told[1] == Some(applied()), "cut at {cut}: {told:?}");
    }
}

#[test]
fn whatever_stands_in_the_progress_cell_a_client_answers() {
    let store = FakeStore::new();
    let begun = Instant::now();
    for at in CELL {
        for value in [0, 1, 0x7f, 0xff] {
            let _told = ask(&store, |bytes| bytes[at] = value);
        }
    }
    ask(&store, |bytes| bytes[CELL].fill(0xff));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

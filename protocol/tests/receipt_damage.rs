//! Every way a receipt file can be cut, bent and spliced: what is read is what was told, or nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use penholder_protocol::receipt::{HEADER_BYTES, ReceiptHeader, Record, decode_record, encode_record};
use penholder_protocol::{
    Applied, Code, DecodeError, Outcome, Rejection, Sequence, StatementResult, StoreId, StreamId, Tick, Value,
};

const SALT: u64 = 0x0123_4567_89ab_cdef;
const START: u64 = HEADER_BYTES as u64;

fn header() -> ReceiptHeader {
    ReceiptHeader { store: StoreId([1; 16]), stream: StreamId([2; 16]), salt: SALT }
}

fn outcomes() -> Vec<(Sequence, Outcome)> {
    let rejected = |code, message: &str| {
        Outcome::Rejected(Rejection { code, message: message.to_owned(), statement: Some(1) })
    };
    let rows = vec![vec![Value::Integer(7), Value::Text("seven".into()), Value::Null]];
    let result = StatementResult { changes: 1, last_insert_rowid: 7, rows, rows_truncated: false };
    vec![
        (Sequence(2), rejected(Code::Constraint, "UNIQUE constraint failed: t.a")),
        (Sequence(3), Outcome::Applied(Applied { tick: Tick(9), results: Some(vec![result]) })),
        (Sequence(9), rejected(Code::Grant, "")),
    ]
}

/// The records, and where each ends.
fn records() -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for (sequence, outcome) in outcomes() {
        encode_record(SALT, START + bytes.len() as u64, sequence, &outcome, &mut bytes);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Reads records to the end, or to the first that is none.
fn read(bytes: &[u8]) -> (Vec<(Sequence, Outcome)>, Result<(), DecodeError>) {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        match decode_record(SALT, START + at as u64, &bytes[at..]) {
            Ok(Some(Record { sequence, outcome, bytes })) => {
                found.push((sequence, outcome));
                at += bytes;
            }
            Ok(None) => return (found, Ok(())),
            Err(error) => return (found, Err(error)),
        }
    }
}

#[test]
fn a_header_page_cut_anywhere_or_with_any_bit_flipped_is_refused() {
    let page = header().encode();
    assert_eq!(ReceiptHeader::decode(&page), Ok(header()));
    for cut in 0..60 {
        assert!(ReceiptHeader::decode(&page[..cut]).is_err(), "cut at {cut}");
    }
    for bit in 0..60 * 8 {
        let mut bent = page.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 64 {
            DecodeError::Magic { what: "receipt file" }
        } else {
            DecodeError::Checksum { what: "receipt header", offset: 0 }
        };
        assert_eq!(ReceiptHeader::decode(&bent), Err(expected), "bit {bit}");
    }
}

#[test]
fn records_cut_anywhere_give_those_that_are_whole() {
    let (bytes, ends) = records();
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(read(&bytes[..cut]), (outcomes()[..whole].to_vec(), Ok(())), "cut at {cut}");
    }
}

#[test]
fn no_flipped_bit_makes_another_outcome() {
    let (bytes, ends) = records();
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let before = ends.iter().filter(|end| **end <= bit / 8).count();
        let (found, end) = read(&bent);
        assert_eq!(found, outcomes()[..before], "bit {bit}");
        // A length that says more than there is has no checksum to fail yet.
        assert!(matches!(end, Ok(()) | Err(DecodeError::Checksum { .. })), "bit {bit}: {end:?}");
    }
}

#[test]
fn a_record_that_is_left_out_doubled_swapped_or_from_another_file_is_none() {
    let (bytes, ends) = records();
    let (one, two, three) = (&bytes[..ends[0]], &bytes[ends[0]..ends[1]], &bytes[ends[1]..]);
    let told = outcomes();
    for (case, (order, good)) in [
        (vec![two, three], 0),
        (vec![one, three], 1),
        (vec![one, one, two], 1),
        (vec![one, three, two], 1),
        (vec![two, one, three], 0),
        (vec![one, two, two], 2),
    ]
    .into_iter()
    .enumerate()
    {
        let (found, end) = read(&order.concat());
        assert_eq!(found, told[..good], "case {case}");
        assert!(matches!(end, Err(DecodeError::Checksum { .. })), "case {case}: {end:?}");
    }
    let mut other = Vec::new();
    encode_record(SALT ^ 1, START, told[0].0, &told[0].1, &mut other);
    assert!(matches!(read(&other), (none, Err(DecodeError::Checksum { .. })) if none.is_empty()));
}

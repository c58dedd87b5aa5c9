//! Another language writes what we read, from the document alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use std::process::Command as Process;

use common::decode_from;
use penholder_protocol::{
    Command, Epoch, Key, SegmentDecoder, SegmentHeader, Sequence, Statement, Step, StoreId, StreamId, Text,
    Value,
};

#[test]
fn a_sealed_segment_written_by_python_is_read() {
    if !Process::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no python3");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("segment");
    let (store, stream) = (StoreId([0xa1; 16]), StreamId([0xb2; 16]));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/sealed_segment.py");
    let arguments = [store.to_string(), stream.to_string(), "9".to_owned()];
    let ran = Process::new("python3").arg(script).args(arguments).arg(&output).status().unwrap();
    assert!(ran.success());
    let bytes = std::fs::read(&output).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    let expected = SegmentHeader {
        store,
        stream,
        number: 1,
        epoch: Epoch(9),
        first_sequence: Sequence(1),
        salt: 0x0102_0304_0506_0708,
        boot: [0; 16],
        inode: 0,
    };
    assert_eq!(header, expected);
    let mut decoder = SegmentDecoder::new(&header);
    let (found, end) = decode_from(&mut decoder, &bytes[SegmentHeader::BYTES..]);
    assert_eq!((end, decoder.offset()), (Ok(Step::Incomplete), bytes.len() as u64));
    let insert = Text::new("activity", "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)");
    let one = Statement::of(insert.clone())
        .bind(Value::Null)
        .bind(-7)
        .bind(0.5)
        .bind("na\u{ef}ve")
        .bind(&[0_u8, 255][..]);
    let two = Command::new()
        .and(Statement::new("config", "UPDATE p SET n = 1").expect(1))
        .and((1..=5).fold(Statement::of(insert), Statement::bind))
        .with_key(Key(*b"sixteen bytes ok"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].commands.unpack(), [Command::from(one), two]);
}

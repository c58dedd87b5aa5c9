//! `docs/format.md` says what the code does: every table is compared with what is really written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;

use common::*;
use penholder_protocol::receipt::{ReceiptHeader, encode_record};
use penholder_protocol::{
    Applied, Command, Control, DatabaseSlot, Epoch, Outcome, Progress, ProgressCell, SegmentEncoder,
    SegmentHeader, Sequence, Statement, StoreId, StreamId, Tick, Value, WriterState, limits,
};

const DOCUMENT: &str = include_str!("../../docs/format.md");
const LIMITS: &str = include_str!("../src/limits.rs");

/// The lines of the block with this label.
fn block(label: &str) -> Vec<&'static str> {
    let start = format!("```text {label}\n");
    let (_, rest) = DOCUMENT.split_once(&start).unwrap_or_else(|| panic!("no block {label}"));
    rest.split_once("```").unwrap().0.lines().collect()
}

/// One documented field.
struct Row {
    offset: usize,
    bytes: usize,
    field: &'static str,
    content: &'static str,
}

fn table(label: &str) -> Vec<Row> {
    let row = |line: &'static str| {
        let parts: Vec<&str> = line.splitn(4, ": ").map(str::trim).collect();
        let number = |at: usize| parts[at].parse().unwrap_or_else(|_| panic!("not a table line: {line}"));
        Row { offset: number(0), bytes: number(1), field: parts[2], content: parts[3] }
    };
    block(label).into_iter().skip(1).map(row).collect()
}

/// Asserts that a structure written for real has each field where the document says, and no other.
fn assert_layout(label: &str, written: &[u8], fields: &[(&str, Vec<u8>)]) {
    let rows = table(label);
    let mut expected: BTreeMap<&str, &Vec<u8>> = fields.iter().map(|(name, bytes)| (*name, bytes)).collect();
    let mut end = 0;
    for row in &rows {
        assert_eq!(row.offset, end, "{label}: {} does not follow on the field before", row.field);
        end += row.bytes;
        let found = &written[row.offset..end];
        if row.field == "reserved" {
            assert!(found.iter().all(|byte| *byte == 0), "{label}: reserved bytes at {}", row.offset);
            continue;
        }
        let value = expected.remove(row.field).unwrap_or_else(|| panic!("{label}: what is {}?", row.field));
        assert_eq!(found, value, "{label}: {} at {}", row.field, row.offset);
        if row.field == "magic" {
            let digits: Vec<String> = found.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(row.content, digits.join(" "), "{label}: the magic number");
        } else if row.field == "version" || row.field == "header_length" {
            let number = u16::from_le_bytes([found[0], found[1]]);
            assert_eq!(row.content, number.to_string(), "{label}: {}", row.field);
        }
    }
    assert_eq!(end, written.len(), "{label}: its length");
    assert!(expected.is_empty(), "{label} does not tell of {:?}", expected.keys());
}

fn u16s(value: u16) -> Vec<u8> {
    value.to_le_bytes().into()
}
fn u32s(value: u32) -> Vec<u8> {
    value.to_le_bytes().into()
}
fn u64s(value: u64) -> Vec<u8> {
    value.to_le_bytes().into()
}

#[test]
fn the_segment_header_is_as_documented() {
    let header = SegmentHeader { number: 0x0102_0304, first_sequence: Sequence(0x55), ..header() };
    let written = header.encode();
    let fields = [
        ("magic", b"\x89PNH\r\n\x1a\n".to_vec()),
        ("version", u16s(1)),
        ("header_length", u16s(128)),
        ("incompatible_flags", u32s(0)),
        ("compatible_flags", u32s(0)),
        ("number", u32s(0x0102_0304)),
        ("store", header.store.0.into()),
        ("stream", header.stream.0.into()),
        ("epoch", u64s(7)),
        ("first_sequence", u64s(0x55)),
        ("salt", u64s(header.salt)),
        ("boot", header.boot.into()),
        ("inode", u64s(4711)),
        ("crc", u32s(crc32fast::hash(&written[..124]))),
    ];
    assert_layout("segment-header", &written, &fields);
}

#[test]
fn the_frame_header_is_as_documented() {
    let mut bytes = vec![0; HEADER];
    let commands = vec![Command::from(Statement::new("a", "b")); 3];
    SegmentEncoder::new(&header()).encode(&commands, true, 0x0807_0605_0403_0201, &mut bytes).unwrap();
    let frames = frames_of(&bytes);
    for (at, (kind, flags, count)) in [(1, 0, 0), (2, 1, 3)].into_iter().enumerate() {
        let (offset, frame) = &frames[at];
        let mut sealed = frame.clone();
        reseal(&mut sealed, *offset, header().salt);
        let fields = [
            ("length", u32s(frame.len() as u32)),
            ("crc", sealed[4..8].to_vec()),
            ("type", vec![kind]),
            ("flags", vec![flags]),
            ("count", u32s(count)),
            ("sequence", u64s(1)),
            ("submitted_ns", u64s(0x0807_0605_0403_0201)),
        ];
        assert_layout("frame-header", &frame[..32], &fields);
    }
}

#[test]
fn a_receipt_record_is_a_frame_as_documented() {
    let mut record = Vec::new();
    let outcome = Outcome::Applied(Applied { tick: Tick(6), results: None });
    encode_record(77, 5000, Sequence(9), &outcome, &mut record);
    let mut sealed = record.clone();
    reseal(&mut sealed, 5000, 77);
    let fields = [
        ("length", u32s(record.len() as u32)),
        ("crc", sealed[4..8].to_vec()),
        ("type", vec![3]),
        ("flags", vec![0]),
        ("count", u32s(1)),
        ("sequence", u64s(9)),
        ("submitted_ns", u64s(0)),
    ];
    assert_layout("frame-header", &record[..32], &fields);
}

#[test]
fn the_receipt_header_and_its_cell_are_as_documented() {
    let header = ReceiptHeader { store: StoreId([1; 16]), stream: StreamId([2; 16]), salt: 0x0303_0404 };
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&header.encode(), 0).unwrap();
    let cell = ProgressCell {
        applied: Sequence(0x10),
        tick: Tick(0x20),
        records_end: 0x5000,
        records_start: 0x4000,
        state: 1,
    };
    Progress::map_writer(file.as_file()).unwrap().publish(cell);
    let written = std::fs::read(file.path()).unwrap();
    let fields = [
        ("magic", b"\x89PNR\r\n\x1a\n".to_vec()),
        ("version", u16s(1)),
        ("incompatible_flags", u32s(0)),
        ("store", vec![1; 16]),
        ("stream", vec![2; 16]),
        ("salt", u64s(0x0303_0404)),
        ("crc", u32s(crc32fast::hash(&written[..56]))),
        ("applied", u64s(0x10)),
        ("tick", u64s(0x20)),
        ("records_end", u64s(0x5000)),
        ("records_start", u64s(0x4000)),
        ("state", u32s(1)),
        ("bell", u32s(1)),
    ];
    assert_layout("receipt-header", &written, &fields);
}

#[test]
fn the_control_file_is_as_documented() {
    let slot =
        |n: u8| DatabaseSlot { name: char::from(b'a' + n).to_string().repeat(24), reclaimed: Tick(n.into()) };
    let mut control = Control {
        store: StoreId([1; 16]),
        generation: 1,
        epoch: Epoch(0x11),
        floor: Epoch(0x12),
        state: WriterState::Stalled,
        pid: 0x13,
        torn: 0x14,
        quarantined: 0x15,
        foreign_writes: 0x16,
        quota_stream_bytes: 0x17,
        free_bytes_min: 0x18,
        suspect: Some((StreamId([0x19; 16]), Sequence(0x1a))),
        fruitless_starts: 0x1b,
        databases: (0..8).map(slot).collect(),
    };
    let file = tempfile::tempfile().unwrap();
    control.write_to(&file, false).unwrap();
    let mut written = [0; 512];
    file.read_exact_at(&mut written, 0).unwrap();
    let slots: Vec<u8> = control
        .databases
        .iter()
        .flat_map(|s| [s.name.clone().into_bytes(), u64s(s.reclaimed.0)].concat())
        .collect();
    let fields = [
        ("magic", b"\x89PNC\r\n\x1a\n".to_vec()),
        ("version", u16s(1)),
        ("incompatible_flags", u32s(0)),
        ("store", vec![1; 16]),
        ("generation", u64s(2)),
        ("epoch", u64s(0x11)),
        ("floor", u64s(0x12)),
        ("state", u32s(2)),
        ("pid", u32s(0x13)),
        ("torn", u64s(0x14)),
        ("quarantined", u64s(0x15)),
        ("foreign_writes", u64s(0x16)),
        ("quota_stream_bytes", u64s(0x17)),
        ("free_bytes_min", u64s(0x18)),
        ("suspect_stream", vec![0x19; 16]),
        ("suspect_sequence", u64s(0x1a)),
        ("fruitless_starts", u32s(0x1b)),
        ("databases_count", u32s(8)),
        ("slots", slots),
        ("crc", u32s(crc32fast::hash(&written[..508]))),
    ];
    assert_layout("control", &written, &fields);
    // The other generation goes to the other copy.
    control.write_to(&file, false).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4096 + 512);
}

#[test]
fn every_limit_is_documented_with_its_value() {
    let number = |line: &'static str| {
        let mut parts = line.split(": ");
        (parts.next().unwrap(), parts.next().unwrap().parse().unwrap())
    };
    let documented: BTreeMap<&str, u64> = block("limits").into_iter().map(number).collect();
    let expected: BTreeMap<&str, u64> = [
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX as u64),
        ("FRAME_BYTES_SOFT", limits::FRAME_BYTES_SOFT as u64),
        ("SEGMENT_BYTES_SOFT", limits::SEGMENT_BYTES_SOFT),
        ("SEGMENT_BYTES_MAX", limits::SEGMENT_BYTES_MAX),
        ("SPOOL_FILE_BYTES_MAX", limits::SPOOL_FILE_BYTES_MAX),
        ("SUBMIT_BYTES_MAX", limits::SUBMIT_BYTES_MAX as u64),
        ("SQL_BYTES_MAX", limits::SQL_BYTES_MAX as u64),
        ("DEFINITIONS_COUNT_MAX", limits::DEFINITIONS_COUNT_MAX as u64),
        ("FRAME_COMMANDS_MAX", limits::FRAME_COMMANDS_MAX as u64),
        ("COMMAND_STATEMENTS_MAX", limits::COMMAND_STATEMENTS_MAX as u64),
        ("STATEMENT_PARAMS_MAX", limits::STATEMENT_PARAMS_MAX as u64),
        ("SEQUENCE_MAX", limits::SEQUENCE_MAX),
        ("RESULT_BYTES_MAX", limits::RESULT_BYTES_MAX as u64),
        ("RECORD_BYTES_MAX", limits::RECORD_BYTES_MAX as u64),
        ("MESSAGE_BYTES_MAX", limits::MESSAGE_BYTES_MAX as u64),
        ("DATABASE_NAME_BYTES_MAX", limits::DATABASE_NAME_BYTES_MAX as u64),
        ("DATABASES_COUNT_MAX", limits::DATABASES_COUNT_MAX as u64),
    ]
    .into();
    assert_eq!(documented, expected);
    let constant = |line: &'static str| line.strip_prefix("pub const ")?.split(':').next();
    let constants: BTreeSet<&str> = LIMITS.lines().filter_map(constant).collect();
    assert_eq!(constants, expected.into_keys().collect(), "a limit is not documented");
}

#[test]
fn the_example_is_what_is_really_written() {
    let digits = block("example").join(" ");
    let documented: Vec<u8> =
        digits.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let header = SegmentHeader { salt: 0x1122_3344_5566_7788, ..header() };
    let command = Statement::new("activity", "INSERT INTO t VALUES (?1)").bind(Value::Integer(42));
    let mut written = Vec::new();
    SegmentEncoder::new(&header).encode(&[command.into()], false, 0, &mut written).unwrap();
    assert_eq!(documented, written);
}

#[test]
fn the_conditions_are_numbered_without_gaps() {
    let number = |line: &str| line.split_once(". ").and_then(|(number, _)| number.parse::<u32>().ok());
    let numbers: Vec<u32> = DOCUMENT
        .lines()
        .skip_while(|line| !line.contains("header is valid iff"))
        .take_while(|line| !line.starts_with("## 7"))
        .filter_map(number)
        .collect();
    assert_eq!(numbers, (1..=22).collect::<Vec<_>>());
}

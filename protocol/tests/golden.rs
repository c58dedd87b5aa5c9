//! Files of every version of the format are kept for ever: they mean what they meant, and are written as they were.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use std::fmt::Write;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use common::*;
use penholder_protocol::receipt::{HEADER_BYTES, ReceiptHeader, STATE_OPEN, decode_record, encode_record};
use penholder_protocol::{
    Applied, Code, Control, DatabaseSlot, Epoch, Outcome, Progress, ProgressCell, Rejection, SegmentDecoder,
    SegmentEncoder, SegmentHeader, Sequence, StatementResult, Step, StoreId, StreamId, Tick, Value,
    WriterState,
};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(golden(name)).unwrap()
}

/// Compares a dump with the one that is checked in.
fn assert_dump(name: &str, dump: &str) {
    let expected = std::fs::read_to_string(golden(name)).unwrap();
    assert!(dump == expected, "{name} means something else now:\n{dump}");
}

/// The content of a segment as text, and the segment written anew from that content.
fn segment(bytes: &[u8]) -> (String, Vec<u8>) {
    let header = SegmentHeader::decode(bytes).unwrap();
    let mut dump = format!("{header:#?}\n");
    let (mut decoder, mut encoder) = (SegmentDecoder::new(&header), SegmentEncoder::new(&header));
    let mut again = header.encode().to_vec();
    loop {
        match decoder.next(&bytes[decoder.offset() as usize..]).unwrap() {
            Step::Submitted(s) => {
                let (end, first) = (decoder.offset(), s.first_sequence);
                writeln!(dump, "up to {end}: from {first}, results {}, at {}", s.results, s.submitted_ns)
                    .unwrap();
                let commands = s.commands.unpack();
                for command in &commands {
                    writeln!(dump, "{command:#?}").unwrap();
                }
                encoder.encode(&commands, s.results, s.submitted_ns, &mut again).unwrap();
            }
            Step::Incomplete | Step::End => return (dump, again),
        }
    }
}

/// The content of a receipt file as text, and the file written anew from that content.
fn receipt(bytes: &[u8]) -> (String, Vec<u8>) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let header = ReceiptHeader::decode(bytes).unwrap();
    let cell = Progress::map_reader(&file).unwrap().read();
    let mut dump = format!("{header:#?}\n{cell:#?}\n");
    let mut records = Vec::new();
    let mut offset = HEADER_BYTES;
    while let Some(record) = decode_record(header.salt, offset as u64, &bytes[offset..]).unwrap() {
        writeln!(dump, "at {offset}: {record:#?}").unwrap();
        encode_record(header.salt, offset as u64, record.sequence, &record.outcome, &mut records);
        offset += record.bytes;
    }
    (dump, receipt_file(&header, &records, cell))
}

fn receipt_file(header: &ReceiptHeader, records: &[u8], cell: ProgressCell) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&[&header.encode(), records].concat(), 0).unwrap();
    Progress::map_writer(file.as_file()).unwrap().publish(cell);
    std::fs::read(file.path()).unwrap()
}

/// The content of a control file as text, and the file written anew from that content.
fn control(bytes: &[u8]) -> (String, Vec<u8>) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let content = Control::read_from(&file).unwrap();
    (format!("{content:#?}\n"), control_file(&content))
}

/// Writes the generation before, and then the content.
fn control_file(content: &Control) -> Vec<u8> {
    let path = tempfile::NamedTempFile::new().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path.path()).unwrap();
    let mut older = Control { generation: content.generation - 2, ..content.clone() };
    older.write_to(&file, false).unwrap();
    older.write_to(&file, false).unwrap();
    std::fs::read(path.path()).unwrap()
}

#[test]
fn the_golden_segment_is_read_and_written_as_ever() {
    let bytes = bytes_of("segment.seg");
    let (dump, again) = segment(&bytes);
    assert_dump("segment.txt", &dump);
    assert!(again == bytes, "the segment is written in another way now");
}

#[test]
fn the_golden_receipt_file_is_read_and_written_as_ever() {
    let bytes = bytes_of("receipt.rcpt");
    let (dump, again) = receipt(&bytes);
    assert_dump("receipt.txt", &dump);
    assert!(again == bytes, "the receipt file is written in another way now");
}

#[test]
fn the_golden_control_file_is_read_and_written_as_ever() {
    let bytes = bytes_of("control");
    let (dump, again) = control(&bytes);
    assert_dump("control.txt", &dump);
    assert!(again == bytes, "the control file is written in another way now");
}

#[test]
#[ignore = "writes the files of a new version; those of a version that was released never change"]
fn write_the_golden_files() {
    let write = |name: &str, bytes: &[u8], dump: &str, text: &str| {
        std::fs::write(golden(name), bytes).unwrap();
        std::fs::write(golden(text), dump).unwrap();
    };
    let bytes = sample_segment();
    write("segment.seg", &bytes, &segment(&bytes).0, "segment.txt");
    let bytes = sample_receipt();
    write("receipt.rcpt", &bytes, &receipt(&bytes).0, "receipt.txt");
    let bytes = control_file(&sample_control());
    write("control", &bytes, &control(&bytes).0, "control.txt");
}

fn sample_receipt() -> Vec<u8> {
    let row = vec![
        Value::Null,
        Value::Integer(-1),
        Value::Real(0.5),
        Value::Text("t".into()),
        Value::Blob(vec![7]),
    ];
    let result = StatementResult { changes: 1, last_insert_rowid: -5, rows: vec![row], rows_truncated: true };
    let results = Some(vec![result, StatementResult::default()]);
    let mut outcomes = vec![Outcome::Applied(Applied { tick: Tick(40), results })];
    for (at, code) in (0..).zip(Code::ALL) {
        let statement = (at % 2 == 0).then_some(at);
        outcomes.push(Outcome::Rejected(Rejection {
            code,
            message: format!("because of {code}"),
            statement,
        }));
    }
    let header = ReceiptHeader { store: header().store, stream: header().stream, salt: 0xfeed_beef };
    let mut records = Vec::new();
    for (sequence, outcome) in (3..).zip(&outcomes) {
        let offset = (HEADER_BYTES + records.len()) as u64;
        encode_record(header.salt, offset, Sequence(sequence), outcome, &mut records);
    }
    let cell = ProgressCell {
        applied: Sequence(12),
        tick: Tick(41),
        records_start: HEADER_BYTES as u64,
        records_end: (HEADER_BYTES + records.len()) as u64,
        state: STATE_OPEN,
    };
    receipt_file(&header, &records, cell)
}

fn sample_control() -> Control {
    let slot = |(name, tick): (&str, u64)| DatabaseSlot { name: name.to_owned(), reclaimed: Tick(tick) };
    Control {
        store: StoreId(*b"the store's id.."),
        generation: 8,
        epoch: Epoch(5),
        floor: Epoch(4),
        state: WriterState::Running,
        pid: 4242,
        torn: 1,
        quarantined: 2,
        foreign_writes: 3,
        quota_stream_bytes: 64 << 20,
        free_bytes_min: 256 << 20,
        suspect: Some((StreamId(*b"the stream's id."), Sequence(6))),
        fruitless_starts: 7,
        databases: [("config", 38), ("activity", 41)].map(slot).into(),
    }
}

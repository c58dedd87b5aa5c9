//! What is refused, and with which error: torn, corrupt, not ours and too new are told apart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use common::*;
use penholder_protocol::receipt::{ReceiptHeader, decode_record, encode_record};
use penholder_protocol::{
    Applied, DecodeError, Outcome, SegmentHeader, Sequence, Step, StoreId, StreamId, Tick,
};

/// A header with some bytes changed and its checksum right.
fn header_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = header().encode().to_vec();
    header[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32fast::hash(&header[..124]);
    header[124..].copy_from_slice(&crc.to_le_bytes());
    header
}

#[test]
fn a_file_of_another_kind_lacks_the_magic_number() {
    let png = b"\x89PNG\r\n\x1a\n and an image";
    assert_eq!(SegmentHeader::decode(png), Err(DecodeError::Magic { what: "segment" }));
    assert_eq!(SegmentHeader::decode(b""), Err(DecodeError::Magic { what: "segment" }));
    assert_eq!(ReceiptHeader::decode(png), Err(DecodeError::Magic { what: "receipt file" }));
}

#[test]
fn a_newer_version_and_an_unknown_incompatible_flag_are_unsupported() {
    assert_eq!(
        SegmentHeader::decode(&header_with(8, &2_u16.to_le_bytes())),
        Err(DecodeError::Unsupported { what: "segment", version: 2, flags: 0 })
    );
    assert_eq!(
        SegmentHeader::decode(&header_with(12, &4_u32.to_le_bytes())),
        Err(DecodeError::Unsupported { what: "segment", version: 1, flags: 4 })
    );
}

#[test]
fn a_flipped_version_is_damage_and_not_a_newer_version() {
    let mut bytes = header().encode();
    bytes[8] ^= 2;
    assert_eq!(
        SegmentHeader::decode(&bytes),
        Err(DecodeError::Checksum { what: "segment header", offset: 0 })
    );
    let receipt = ReceiptHeader { store: StoreId([1; 16]), stream: StreamId([2; 16]), salt: 3 };
    let mut page = receipt.encode();
    page[12] ^= 1;
    assert_eq!(
        ReceiptHeader::decode(&page),
        Err(DecodeError::Checksum { what: "receipt header", offset: 0 })
    );
}

#[test]
fn an_unknown_compatible_flag_and_the_reserved_bytes_of_a_header_are_ignored() {
    assert_eq!(SegmentHeader::decode(&header_with(16, &[0xff; 4])), Ok(header()));
    assert_eq!(SegmentHeader::decode(&header_with(104, &[0xff; 20])), Ok(header()));
}

#[test]
fn a_header_with_impossible_numbers_is_invalid() {
    for (at, bytes, words) in [
        (20, &[0; 4][..], "count from 1"),
        (64, &[0; 8][..], "count from 1"),
        (64, &[0xff; 8][..], "sequence"),
        (10, &[129, 0][..], "length"),
    ] {
        assert_invalid(&SegmentHeader::decode(&header_with(at, bytes)).unwrap_err(), words);
    }
}

#[test]
fn a_header_of_any_shorter_length_is_an_error() {
    let bytes = header().encode();
    for length in 0..bytes.len() {
        assert!(SegmentHeader::decode(&bytes[..length]).is_err(), "{length} bytes were taken");
    }
}

#[test]
fn a_changed_frame_is_a_checksum_error_at_its_offset() {
    let mut frames = define(HEADER, 1, "activity", "SELECT 1");
    frames[40] ^= 1;
    assert_eq!(error_of(&frames), DecodeError::Checksum { what: "frame", offset: HEADER as u64 });
}

#[test]
fn reserved_bytes_are_judged_only_after_the_checksum() {
    let payload = Bytes::new().u32(1).text("a").text("b").0;
    let frame = Frame { kind: DEFINE, flags: 0, reserved: 256, count: 0, sequence: 1, payload: &payload };
    let mut bytes = frame.at(HEADER, header().salt);
    assert_invalid(&error_of(&bytes), "reserved");
    bytes[10] = 7;
    assert!(matches!(error_of(&bytes), DecodeError::Checksum { .. }));
}

#[test]
fn an_unknown_critical_type_is_refused_and_an_unknown_skippable_one_is_skipped() {
    let unknown = |kind, offset| {
        Frame { kind, flags: 0xff, reserved: 0, count: 9, sequence: 77, payload: b"?" }
            .at(offset, header().salt)
    };
    for kind in [0, 3, 4, 0x7f] {
        assert_invalid(&error_of(&unknown(kind, HEADER)), &format!("unknown frame type {kind}"));
    }
    for kind in [0x80, 0x81, 0x82, 0xff] {
        let mut frames = unknown(kind, HEADER);
        frames.extend(define(HEADER + frames.len(), 1, "activity", "SELECT 1"));
        frames.extend(unknown(kind, HEADER + frames.len()));
        frames.extend(submit(HEADER + frames.len(), 1, &one_command(1)));
        let (found, end) = decode_frames(&frames);
        assert_eq!((found.len(), end), (1, Ok(Step::Incomplete)));
    }
}

#[test]
fn an_unknown_flag_of_a_critical_frame_is_refused() {
    let salt = header().salt;
    let payload = Bytes::new().u32(1).text("a").text("b").0;
    let frame = Frame { kind: DEFINE, flags: 1, reserved: 0, count: 0, sequence: 1, payload: &payload };
    assert_invalid(&error_of(&frame.at(HEADER, salt)), "flags");
    let payload = one_command(1);
    let mut frames = define(HEADER, 1, "a", "b");
    let frame = Frame { kind: SUBMIT, flags: 2, reserved: 0, count: 1, sequence: 1, payload: &payload };
    frames.extend(frame.at(HEADER + frames.len(), salt));
    assert_invalid(&error_of(&frames), "flags");
}

#[test]
fn a_sequence_that_is_not_the_next_is_refused() {
    for sequence in [0, 2, u64::MAX] {
        let payload = one_command(1);
        let frame = Frame { kind: SUBMIT, flags: 0, reserved: 0, count: 1, sequence, payload: &payload };
        assert_invalid(&error_of(&frame.at(HEADER, header().salt)), "expected");
    }
}

#[test]
fn a_sequence_never_passes_what_a_database_can_hold() {
    let last = SegmentHeader { first_sequence: Sequence(i64::MAX as u64), ..header() };
    assert_eq!(SegmentHeader::decode(&last.encode()).as_ref(), Ok(&last));
    let mut frames = define(HEADER, 1, "a", "b");
    frames[16..24].copy_from_slice(&last.first_sequence.0.to_le_bytes());
    reseal(&mut frames, HEADER, last.salt);
    let two = Bytes::new().u64(2).raw(&one_command(1)[8..]).raw(&one_command(1)[8..]).0;
    let frame =
        Frame { kind: SUBMIT, flags: 0, reserved: 0, count: 2, sequence: i64::MAX as u64, payload: &two };
    frames.extend(frame.at(HEADER + frames.len(), last.salt));
    let end = decode_from(&mut penholder_protocol::SegmentDecoder::new(&last), &frames).1;
    assert_invalid(&end.unwrap_err(), "sequence");
}

#[test]
fn dictionary_ids_count_from_one_and_are_never_bound_twice() {
    for id in [0, 2, u32::MAX] {
        assert_invalid(&error_of(&define(HEADER, id, "a", "b")), "out of order");
    }
    let mut frames = define(HEADER, 1, "a", "b");
    frames.extend(define(HEADER + frames.len(), 1, "a", "b"));
    assert_invalid(&error_of(&frames), "out of order");
}

#[test]
fn a_text_that_was_not_defined_is_refused() {
    for text in [0, 2, u32::MAX] {
        let mut frames = define(HEADER, 1, "a", "b");
        frames.extend(submit(HEADER + frames.len(), 1, &one_command(text)));
        assert_invalid(&error_of(&frames), "not defined");
    }
}

#[test]
fn a_payload_must_be_used_up_and_its_count_must_agree_with_the_frame() {
    let mut frames = define(HEADER, 1, "a", "b");
    let at = HEADER + frames.len();
    let with = |frame: Vec<u8>| [frames.clone(), frame].concat();
    assert_invalid(&error_of(&with(submit(at, 1, &[one_command(1), vec![0]].concat()))), "1 trailing");
    assert_invalid(&error_of(&with(submit(at, 2, &one_command(1)))), "announced");
    assert_invalid(&error_of(&with(submit(at, 0, &Bytes::new().u64(0).0))), "announced");
    let empty = Bytes::new().u64(1).u8(0).u64(0).0;
    assert_invalid(&error_of(&with(submit(at, 1, &empty))), "without statements");
    let define_more = Bytes::new().u32(2).text("a").text("b").u8(0).0;
    let frame = Frame { kind: DEFINE, flags: 0, reserved: 0, count: 0, sequence: 1, payload: &define_more };
    assert_invalid(&error_of(&with(frame.at(at, header().salt))), "1 trailing");
    let define_one = Bytes::new().u32(2).text("a").text("b").0;
    let frame = Frame { kind: DEFINE, flags: 0, reserved: 0, count: 1, sequence: 1, payload: &define_one };
    assert_invalid(&error_of(&with(frame.at(at, header().salt))), "count");
    frames.extend(submit(at, 1, &one_command(1)));
    assert_eq!(decode_frames(&frames).0.len(), 1);
}

#[test]
fn a_receipt_record_is_one_outcome_that_stands_where_it_was_written() {
    let outcome = Outcome::Applied(Applied { tick: Tick(3), results: None });
    let mut bytes = Vec::new();
    encode_record(9, 4096, Sequence(5), &outcome, &mut bytes);
    let record = decode_record(9, 4096, &bytes).unwrap().unwrap();
    assert_eq!((record.sequence, record.outcome, record.bytes), (Sequence(5), outcome, bytes.len()));
    assert_eq!(decode_record(9, 4096, &bytes[..bytes.len() - 1]), Ok(None));
    assert_eq!(decode_record(9, 4096, &[0; 64]), Ok(None));
    assert!(matches!(decode_record(8, 4096, &bytes), Err(DecodeError::Checksum { .. })));
    assert!(matches!(decode_record(9, 4104, &bytes), Err(DecodeError::Checksum { offset: 4104, .. })));
    for (kind, payload) in [(SUBMIT, &bytes[32..]), (3, &[0; 3][..])] {
        let frame = Frame { kind, flags: 0, reserved: 0, count: 1, sequence: 5, payload };
        let error = decode_record(9, 4096, &frame.at(4096, 9)).unwrap_err();
        assert!(matches!(error, DecodeError::Invalid { what: "receipt record", .. }), "{error:?}");
    }
}

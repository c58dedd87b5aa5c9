//! Every way a segment can be cut, bent and spliced: what is read is a prefix of what was written, or an error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use std::time::{Duration, Instant};

use common::*;
use penholder_protocol::{DecodeError, SegmentDecoder, SegmentEncoder, SegmentHeader, Statement, Step};

/// The commands of a segment, by where their frame ends in the file.
fn whole() -> (Vec<u8>, Vec<(usize, penholder_protocol::Submitted)>) {
    let segment = sample_segment();
    let mut decoder = SegmentDecoder::new(&header());
    let mut found = Vec::new();
    while let Step::Submitted(submitted) = decoder.next(&segment[decoder.offset() as usize..]).unwrap() {
        found.push((decoder.offset() as usize, submitted));
    }
    assert_eq!((found.len(), decoder.offset() as usize), (3, segment.len()));
    (segment, found)
}

#[test]
fn a_segment_cut_at_any_offset_gives_the_frames_that_are_whole_and_goes_on_when_the_rest_arrives() {
    let (segment, expected) = whole();
    for cut in HEADER..=segment.len() {
        let mut decoder = SegmentDecoder::new(&header());
        let (mut found, end) = decode_from(&mut decoder, &segment[HEADER..cut]);
        assert_eq!(end, Ok(Step::Incomplete), "cut at {cut}");
        assert_eq!(found.len(), expected.iter().filter(|(end, _)| *end <= cut).count(), "cut at {cut}");
        let at = decoder.offset() as usize;
        found.extend(decode_from(&mut decoder, &segment[at..]).0);
        assert!(found.iter().eq(expected.iter().map(|(_, submitted)| submitted)), "cut at {cut}");
    }
}

#[test]
fn no_flipped_bit_ever_makes_another_command() {
    let (segment, expected) = whole();
    let mut ends = [0_usize; 3];
    for bit in 0..segment.len() * 8 {
        let mut bent = segment.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let Ok(read) = SegmentHeader::decode(&bent) else {
            assert!(bit / 8 < HEADER, "a flip behind the header broke the header");
            continue;
        };
        assert!(bit / 8 >= HEADER, "bit {bit} of the header is not protected");
        let (found, end) = decode_from(&mut SegmentDecoder::new(&read), &bent[HEADER..]);
        let before = expected.iter().filter(|(end, _)| *end <= bit / 8).count();
        assert_eq!(found.len(), before, "bit {bit}");
        assert!(found.iter().eq(expected.iter().take(before).map(|(_, submitted)| submitted)), "bit {bit}");
        match end {
            Ok(Step::Incomplete) => ends[0] += 1,
            Ok(Step::End) => ends[1] += 1,
            Err(DecodeError::Checksum { .. }) => ends[2] += 1,
            other => panic!("bit {bit} ended in {other:?}"),
        }
    }
    assert!(ends[0] > 0 && ends[2] > 1000, "{ends:?}");
}

#[test]
fn a_frame_that_is_left_out_doubled_or_swapped_does_not_validate() {
    let segment = sample_segment();
    let frames = frames_of(&segment);
    let join = |order: &[usize]| order.iter().flat_map(|at| frames[*at].1.clone()).collect::<Vec<u8>>();
    let all: Vec<usize> = (0..frames.len()).collect();
    for at in 0..frames.len() {
        let until: Vec<usize> = all[..at].to_vec();
        let read = decode_frames(&join(&until)).0;
        let mut orders = vec![[&all[..=at], &all[at..]].concat()];
        if at + 1 < frames.len() {
            orders.push([&all[..at], &all[at + 1..]].concat());
            orders.push([&all[..at], &[at + 1, at], &all[at + 2..]].concat());
        }
        for (case, order) in orders.iter().enumerate() {
            let (found, end) = decode_frames(&join(order));
            assert!(matches!(end, Err(DecodeError::Checksum { .. })), "frame {at}, case {case}: {end:?}");
            let good = if case == 0 { decode_frames(&join(&all[..=at])).0 } else { read.clone() };
            assert_eq!(found, good, "frame {at}, case {case}");
        }
    }
}

#[test]
fn a_frame_from_a_segment_with_another_salt_does_not_validate() {
    let other = SegmentHeader { salt: header().salt ^ 1, ..header() };
    let mut frames = Vec::new();
    SegmentEncoder::new(&other).encode(&sample_commands(), false, 1, &mut frames).unwrap();
    assert_eq!(decode_from(&mut SegmentDecoder::new(&other), &frames).0.len(), 1);
    assert_eq!(error_of(&frames), DecodeError::Checksum { what: "frame", offset: HEADER as u64 });
}

#[test]
fn a_log_that_is_stored_as_a_blob_inside_a_log_is_never_taken_for_frames() {
    let inner = sample_segment();
    let store = Statement::new("activity", "INSERT INTO files VALUES (?1)").bind(inner.clone());
    let mut outer = Vec::new();
    SegmentEncoder::new(&header()).encode(&[store.into()], false, 1, &mut outer).unwrap();
    assert_eq!(decode_frames(&outer).0.len(), 1);
    // Damage the frame around it, then look for anything behind: same salt, but every offset is another.
    let frames = frames_of(&[vec![0; HEADER], outer.clone()].concat());
    let mut decoder = SegmentDecoder::new(&header());
    assert_eq!(decoder.next(&frames[0].1), Ok(Step::Incomplete));
    let mut damaged = frames[1].1.clone();
    damaged[33] ^= 1;
    assert!(matches!(decoder.next(&damaged), Err(DecodeError::Checksum { .. })));
    assert!(!decoder.later_frame_validates(&damaged));
}

#[test]
fn a_tail_of_zeros_ends_the_data_wherever_it_begins() {
    let (segment, expected) = whole();
    for from in HEADER..segment.len() {
        let mut zeroed = segment.clone();
        zeroed[from..].fill(0);
        let mut decoder = SegmentDecoder::new(&header());
        let (found, end) = decode_from(&mut decoder, &zeroed[HEADER..]);
        // A frame that happens to end in zeros is whole although its last bytes were never written.
        let whole_until =
            segment[from..].iter().position(|byte| *byte != 0).map_or(segment.len(), |more| from + more);
        assert_eq!(
            found.len(),
            expected.iter().filter(|(end, _)| *end <= whole_until).count(),
            "from {from}"
        );
        assert!(
            matches!(end, Ok(Step::End | Step::Incomplete) | Err(DecodeError::Checksum { .. })),
            "{end:?}"
        );
        let rest = &zeroed[decoder.offset() as usize..];
        assert!(!decoder.later_frame_validates(rest), "zeros validate, from {from}");
    }
}

#[test]
fn damage_in_front_of_a_whole_frame_is_told_from_a_torn_tail() {
    let segment = sample_segment();
    let frames = frames_of(&segment);
    for (at, (offset, bytes)) in frames.iter().enumerate() {
        let mut decoder = SegmentDecoder::new(&header());
        let mut damaged = segment.clone();
        damaged[offset + bytes.len() - 1] ^= 1;
        let end = decode_from(&mut decoder, &damaged[HEADER..]).1;
        assert!(matches!(end, Err(DecodeError::Checksum { .. })), "{end:?}");
        assert_eq!(decoder.offset(), *offset as u64);
        assert_eq!(decoder.later_frame_validates(&damaged[*offset..]), at + 1 < frames.len(), "frame {at}");
    }
}

#[test]
fn a_later_frame_without_payload_at_the_very_end_is_seen() {
    let mut bytes = define(HEADER, 1, "a", "b");
    let last = Frame { kind: 0x80, flags: 0, reserved: 0, count: 0, sequence: 1, payload: b"" };
    bytes.extend(last.at(HEADER + bytes.len(), header().salt));
    bytes[40] ^= 1;
    assert!(SegmentDecoder::new(&header()).later_frame_validates(&bytes));
}

#[test]
fn looking_for_a_later_frame_takes_bounded_time_on_hostile_bytes() {
    // Every 32nd byte begins what could be a frame of two megabytes.
    let mut bytes = Vec::new();
    while bytes.len() < 4 << 20 {
        bytes.extend((2_u32 << 20).to_le_bytes());
        bytes.extend([9, 9, 9, 9, SUBMIT, 0, 0, 0, 1, 0, 0, 0]);
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend([0; 8]);
    }
    let begun = Instant::now();
    // What is too dear to search counts as damage in the middle: the stream stops instead of losing something.
    assert!(SegmentDecoder::new(&header()).later_frame_validates(&bytes));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

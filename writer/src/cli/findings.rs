//! What a check looks for in the spool and the receipts, given the databases of one moment.
//!
//! Spool and receipts have to be read before the databases: then whatever they promise must be there.

use penholder_protocol::{Sequence, StreamId};
use serde::Serialize;

use super::spool::{Segment, Told, Watermarks};

/// A difference between what is and what should be.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Which check found it.
    pub(super) check: &'static str,
    /// The database, segment or receipt it is about.
    pub(super) subject: String,
    /// What is wrong, and what to do about it.
    pub(super) message: String,
}

impl Finding {
    pub(super) fn new(check: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), message: message.into() }
    }
}

/// A receipt never says more than the databases know.
pub(super) fn in_receipts(told: &[(StreamId, Told)], watermarks: &Watermarks) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (stream, told) in told {
        let subject = format!("{stream}.rcpt");
        match told {
            Err(reason) => findings.push(Finding::new("receipts", subject, reason)),
            Ok(cell) => {
                let known = watermarks.highest(*stream).unwrap_or_default();
                if cell.applied > known {
                    let message = format!(
                        "the client was told that command {} has its outcome, the databases know of {known}: \
                         restore the newer databases",
                        cell.applied
                    );
                    findings.push(Finding::new("receipts", subject, message));
                }
            }
        }
    }
    findings
}

/// Every stream in the spool goes on where the databases stand, without a hole.
pub(super) fn in_spool(segments: &[Segment], watermarks: &Watermarks) -> Vec<Finding> {
    let streams = segments.chunk_by(|one, other| one.name.stream == other.name.stream);
    streams.flat_map(|segments| in_stream(segments, watermarks)).collect()
}

fn in_stream(segments: &[Segment], watermarks: &Watermarks) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expected: Option<(u32, Sequence)> = None;
    for segment in segments {
        let mut find =
            |message: String| findings.push(Finding::new("spool", segment.name.to_string(), message));
        if let Some(damage) = &segment.damage {
            find(format!("{damage}; nothing behind it in its stream will be applied"));
        }
        let (Some(header), Some(next)) = (&segment.header, segment.next_sequence()) else { continue };
        let known = watermarks.highest(segment.name.stream);
        if known.is_none() && header.epoch <= watermarks.floor() {
            find(
                "no database knows its stream, and it is from before the last start: a restored old file"
                    .into(),
            );
        }
        match expected {
            Some((number, sequence)) if (number, sequence) != (header.number, header.first_sequence) => {
                find(format!(
                    "begins with command {} where {sequence} was expected in segment {number}",
                    header.first_sequence
                ));
            }
            None if header.first_sequence > known.unwrap_or_default().next() => {
                let known = known.unwrap_or_default();
                find(format!(
                    "begins with command {}, the databases know of {known}: commands are missing",
                    header.first_sequence
                ));
            }
            Some(_) | None => {}
        }
        if let Some(hole) = first_hole(segment, watermarks, known.unwrap_or_default()) {
            find(format!(
                "command {hole} has no outcome, and later ones have: start the writer to complete it"
            ));
        }
        expected = Some((header.number + 1, next));
    }
    findings
}

/// The first command that some database it touches has no outcome of, although a later one has one.
fn first_hole(segment: &Segment, watermarks: &Watermarks, known: Sequence) -> Option<Sequence> {
    let commands = segment.frames.iter().flat_map(super::spool::Frame::commands);
    let mut decided = commands.take_while(|(sequence, _)| *sequence <= known);
    decided
        .find(|(sequence, touches)| !watermarks.is_done(segment.name.stream, *sequence, *touches))
        .map(|found| found.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use penholder_protocol::{Epoch, SegmentHeader, SegmentKind, SegmentName, StoreId};

    use super::*;
    use crate::cli::spool::Frame;

    const STREAM: StreamId = StreamId([1; 16]);

    fn segment(number: u32, first: u64, touches: &[u8]) -> Segment {
        let header = SegmentHeader {
            store: StoreId([0; 16]),
            stream: STREAM,
            number,
            epoch: Epoch(2),
            first_sequence: Sequence(first),
            salt: 0,
            boot: [0; 16],
            inode: 0,
        };
        let frame =
            Frame { first_sequence: Sequence(first), touches: touches.to_vec(), bytes: 1, submitted_ns: 0 };
        let name = SegmentName { stream: STREAM, number, kind: SegmentKind::Live };
        Segment { name, uid: Some(0), header: Some(header), frames: vec![frame], damage: None }
    }

    fn watermarks(each: &[u64]) -> Watermarks {
        let of_one = |sequence: &u64| BTreeMap::from([(STREAM, Sequence(*sequence))]);
        Watermarks { sequences: each.iter().map(of_one).collect(), floors: vec![Epoch(1); each.len()] }
    }

    fn found(segments: &[Segment], watermarks: &Watermarks) -> usize {
        in_stream(segments, watermarks).len()
    }

    #[test]
    fn a_stream_that_goes_on_where_the_databases_stand_is_sound() {
        assert_eq!(found(&[segment(1, 1, &[1, 2, 1])], &watermarks(&[3, 2])), 0);
        assert_eq!(found(&[segment(3, 8, &[1]), segment(4, 9, &[1])], &watermarks(&[7, 2])), 0);
        assert_eq!(found(&[segment(1, 1, &[1])], &Watermarks::default()), 0);
    }

    #[test]
    fn missing_commands_are_found_before_the_first_segment_and_between_two() {
        assert_eq!(found(&[segment(3, 9, &[1])], &watermarks(&[7, 2])), 1);
        assert_eq!(found(&[segment(1, 1, &[1]), segment(2, 3, &[1])], &watermarks(&[1, 0])), 1);
        assert_eq!(found(&[segment(1, 1, &[1]), segment(3, 2, &[1])], &watermarks(&[1, 0])), 1);
    }

    #[test]
    fn a_command_that_one_database_lacks_is_a_hole() {
        assert_eq!(found(&[segment(1, 1, &[3, 1])], &watermarks(&[2, 0])), 1);
        assert_eq!(found(&[segment(1, 1, &[2, 1])], &watermarks(&[2, 0])), 1);
        assert_eq!(found(&[segment(1, 1, &[1, 2])], &watermarks(&[1, 0])), 0, "not decided yet is no hole");
    }

    #[test]
    fn an_unknown_stream_from_before_the_last_start_is_a_restored_file() {
        let settled =
            |floors: [u64; 2]| Watermarks { floors: floors.map(Epoch).to_vec(), ..Watermarks::default() };
        assert_eq!(found(&[segment(1, 1, &[1])], &settled([2, 2])), 1);
        assert_eq!(found(&[segment(1, 1, &[1])], &settled([2, 1])), 0, "a start died before all had settled");
    }

    #[test]
    fn a_receipt_that_says_more_than_the_databases_is_found() {
        let cell = penholder_protocol::ProgressCell {
            applied: Sequence(5),
            tick: penholder_protocol::Tick(1),
            records_start: 0,
            records_end: 0,
            state: 0,
        };
        assert_eq!(in_receipts(&[(STREAM, Ok(cell))], &watermarks(&[5, 1])), []);
        assert_eq!(in_receipts(&[(STREAM, Ok(cell))], &watermarks(&[4, 1])).len(), 1);
        assert_eq!(in_receipts(&[(STREAM, Err("short".into()))], &watermarks(&[5])).len(), 1);
    }
}

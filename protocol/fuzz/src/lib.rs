//! What is fuzzed: every function takes arbitrary bytes, and stops if a decoder breaks a promise.
//!
//! Nearly all arbitrary bytes fail a checksum. Where that is so, the bytes are also decoded as what a checksum covers,
//! with the checksum put right, so that what is behind it is fuzzed too.

use std::fs::File;
use std::os::unix::fs::FileExt;

use penholder_protocol::receipt::{ReceiptHeader, decode_record};
use penholder_protocol::{
    Command, Control, DecodeError, Epoch, LaterFrame, SegmentDecoder, SegmentEncoder, SegmentHeader,
    SegmentName, Sequence, Step, StoreId, StreamId, decode_commands, decode_outcome, encode_commands,
    encode_outcome,
};

/// A decoder, by the name of its program and of its corpus.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "segment", run: segment },
    Target { name: "frame", run: frame },
    Target { name: "receipt", run: receipt },
    Target { name: "record", run: record },
    Target { name: "control", run: control },
    Target { name: "stored", run: stored },
    Target { name: "names", run: names },
];

/// Salt of everything whose checksum is put right.
const SALT: u64 = 0x1122_3344_5566_7788;

/// The header of the segment that `frame` is in.
pub fn header() -> SegmentHeader {
    SegmentHeader {
        store: StoreId([1; 16]),
        stream: StreamId([2; 16]),
        number: 1,
        epoch: Epoch(1),
        first_sequence: Sequence(1),
        salt: SALT,
        boot: [0; 16],
        inode: 0,
    }
}

/// A whole file of the spool: its header with the checksum put right, and what follows as it is.
pub fn segment(bytes: &[u8]) {
    let as_it_is = SegmentHeader::decode(bytes);
    let mut file = bytes.to_vec();
    if let Some(start) = file.first_chunk_mut::<{ SegmentHeader::BYTES }>() {
        let crc = crc32fast::hash(&start[..124]);
        start[124..].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(header) = SegmentHeader::decode(&file) else {
        assert!(as_it_is.is_err(), "a right checksum made a good header bad");
        return;
    };
    assert_eq!(SegmentHeader::decode(&header.encode()).as_ref(), Ok(&header));
    follow(&header, file.get(SegmentHeader::BYTES..).unwrap_or_default());
}

/// The frames of a segment. Each is built from what stands behind its length, and gets a right length and checksum.
pub fn frame(bytes: &[u8]) {
    let header = header();
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (body, after) = after.split_at(length);
        let offset = (SegmentHeader::BYTES + frames.len()) as u64;
        frames.extend(sealed(body, offset));
        rest = after;
    }
    follow(&header, &frames);
}

/// A frame whose bytes from the type on are `body`, at `offset` of a file with our salt.
pub fn sealed(body: &[u8], offset: u64) -> Vec<u8> {
    let mut frame = vec![0; 8];
    frame.extend(body);
    frame.resize(frame.len().max(32), 0);
    let length = (frame.len() as u32).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&SALT.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc.update(&length);
    crc.update(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
    frame
}

/// Reads frames to their end, whole and in two pieces: both must give the same, and what is read can be written again.
fn follow(header: &SegmentHeader, frames: &[u8]) {
    let mut decoder = SegmentDecoder::new(header);
    let (found, end) = read(&mut decoder, frames);
    let consumed = decoder.offset() as usize - SegmentHeader::BYTES;
    assert!(consumed <= frames.len(), "read behind the end");
    let rest = &frames[consumed..];
    let mut search = LaterFrame::new(&decoder);
    let stepwise = (0..=rest.len() / 13).any(|step| search.begins_in(&rest[step * 13..], 13));
    assert_eq!(stepwise, decoder.later_frame_validates(rest), "the window makes a difference");

    let mut pieces = SegmentDecoder::new(header);
    let (mut again, mut last) = read(&mut pieces, &frames[..frames.len() / 2]);
    if last.is_ok() {
        let (more, end) = read(&mut pieces, frames);
        again.extend(more);
        last = end;
    }
    assert!(
        end == last && same(&found, &again),
        "how the bytes arrive makes a difference: {end:?}, {last:?}"
    );
    if !found.is_empty() {
        write_again(header, &found);
    }
}

fn read(decoder: &mut SegmentDecoder, frames: &[u8]) -> (Vec<Command>, Result<(), DecodeError>) {
    let mut found = Vec::new();
    loop {
        let at = decoder.offset() as usize - SegmentHeader::BYTES;
        match decoder.next(frames.get(at..).unwrap_or_default()) {
            Ok(Step::Submitted(submitted)) => {
                assert_eq!(
                    submitted.first_sequence.0 + submitted.commands.len() as u64,
                    decoder.next_sequence().0
                );
                found.extend(submitted.commands.unpack());
            }
            Ok(Step::Incomplete | Step::End) => return (found, Ok(())),
            Err(error) => return (found, Err(error)),
        }
    }
}

/// What a reader accepts, a writer of frames can write, and it means the same.
fn write_again(header: &SegmentHeader, commands: &[Command]) {
    let mut bytes = Vec::new();
    if SegmentEncoder::new(header).encode(commands, false, 0, &mut bytes).is_err() {
        // More texts, or bytes, than one submit may have.
        return;
    }
    let (found, end) = read(&mut SegmentDecoder::new(header), &bytes);
    assert!(end.is_ok() && same(&found, commands), "what was written again is something else");
}

/// By their bytes: no NaN equals itself.
fn same(one: &[Command], other: &[Command]) -> bool {
    let bytes = |commands: &[Command]| {
        encode_commands(commands.iter().map(|command| (StreamId([0; 16]), Sequence(1), command)))
    };
    bytes(one) == bytes(other)
}

/// The header page of a receipt file, as it is and with the checksum put right.
pub fn receipt(bytes: &[u8]) {
    let as_it_is = ReceiptHeader::decode(bytes);
    let mut page = bytes.to_vec();
    if page.len() >= 60 {
        let crc = crc32fast::hash(&page[..56]);
        page[56..60].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(header) = ReceiptHeader::decode(&page) else {
        assert!(as_it_is.is_err(), "a right checksum made a good header bad");
        return;
    };
    assert_eq!(ReceiptHeader::decode(&header.encode()), Ok(header));
}

/// A record of a receipt file, as it is and with length and checksum put right.
pub fn record(bytes: &[u8]) {
    let _found = decode_record(SALT, 4096, bytes);
    let whole = sealed(bytes, 4096);
    if let Ok(Some(record)) = decode_record(SALT, 4096, &whole) {
        assert_eq!(record.bytes, whole.len());
        let again = decode_outcome(&encode_outcome(&record.outcome));
        assert_eq!(
            encode_outcome(&again.expect("what was encoded decodes")),
            encode_outcome(&record.outcome)
        );
    }
}

/// The control file, as it is and with the checksums of both copies put right.
pub fn control(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    look(&bytes);
    for at in [0, 4096] {
        if let Some(copy) = bytes.get_mut(at..at + 512) {
            let crc = crc32fast::hash(&copy[..508]);
            copy[508..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    look(&bytes);
}

fn look(bytes: &[u8]) {
    let file = memory_file();
    file.write_all_at(bytes, 0).expect("a file in memory");
    let Ok(mut control) = Control::read_from(&file) else { return };
    let generation = control.generation;
    let other = memory_file();
    // The highest generation there is has none behind it; no writer gets there.
    if generation < u64::MAX {
        control.write_to(&other, false).expect("what was read can be written");
        assert_eq!(Control::read_from(&other).expect("and read"), control);
    }
}

fn memory_file() -> File {
    let file = rustix::fs::memfd_create("control", rustix::fs::MemfdFlags::CLOEXEC);
    file.expect("a file in memory").into()
}

/// What the databases keep: commands, outcomes.
pub fn stored(bytes: &[u8]) {
    if let Ok(commands) = decode_commands(bytes) {
        let again = encode_commands(commands.iter().map(|(stream, sequence, c)| (*stream, *sequence, c)));
        assert_eq!(again, bytes, "the same commands, other bytes");
    }
    if let Ok(outcome) = decode_outcome(bytes) {
        assert_eq!(encode_outcome(&outcome), bytes, "the same outcome, other bytes");
    }
}

/// Names of files.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(name) = SegmentName::parse(text) {
        assert_eq!(name.to_string(), text, "two names for one segment");
    }
    if let Ok(stream) = text.parse::<StreamId>() {
        assert_eq!(stream.to_string(), text, "two names for one stream");
    }
}

//! Frames written by hand, so that what is tested is not also what is compared with.

#![allow(dead_code, reason = "each test binary uses its own part")]

use penholder_protocol::{
    Command, DecodeError, Epoch, Key, SegmentDecoder, SegmentEncoder, SegmentHeader, Sequence, Statement,
    Step, StoreId, StreamId, Submitted, Text, Value,
};

/// Length of the segment header, in bytes.
pub(crate) const HEADER: usize = SegmentHeader::BYTES;
pub(crate) const DEFINE: u8 = 1;
pub(crate) const SUBMIT: u8 = 2;

/// A header in which every field has its own value.
pub(crate) fn header() -> SegmentHeader {
    SegmentHeader {
        store: StoreId(*b"the store's id.."),
        stream: StreamId(*b"the stream's id."),
        number: 1,
        epoch: Epoch(7),
        first_sequence: Sequence(1),
        salt: 0x0123_4567_89ab_cdef,
        boot: *b"the boot's id...",
        inode: 4711,
    }
}

/// A frame as the format says: checksum over salt, offset, length, and everything behind the checksum.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) reserved: u16,
    pub(crate) count: u32,
    pub(crate) sequence: u64,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    pub(crate) fn at(&self, offset: usize, salt: u64) -> Vec<u8> {
        let mut frame = ((32 + self.payload.len()) as u32).to_le_bytes().to_vec();
        frame.extend([0; 4]);
        frame.extend([self.kind, self.flags]);
        frame.extend(self.reserved.to_le_bytes());
        frame.extend(self.count.to_le_bytes());
        frame.extend(self.sequence.to_le_bytes());
        frame.extend(1_700_000_000_000_000_000_u64.to_le_bytes());
        frame.extend(self.payload);
        reseal(&mut frame, offset, salt);
        frame
    }
}

/// Makes the checksum of a frame right again.
pub(crate) fn reseal(frame: &mut [u8], offset: usize, salt: u64) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&(offset as u64).to_le_bytes());
    crc.update(&frame[..4]);
    crc.update(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
}

/// A `Define` frame that binds `id`.
pub(crate) fn define(offset: usize, id: u32, database: &str, sql: &str) -> Vec<u8> {
    let payload = Bytes::new().u32(id).text(database).text(sql).0;
    Frame { kind: DEFINE, flags: 0, reserved: 0, count: 0, sequence: 1, payload: &payload }
        .at(offset, header().salt)
}

/// A `Submit` frame of `count` commands with the payload given.
pub(crate) fn submit(offset: usize, count: u32, payload: &[u8]) -> Vec<u8> {
    Frame { kind: SUBMIT, flags: 0, reserved: 0, count, sequence: 1, payload }.at(offset, header().salt)
}

/// A payload of one command of one statement without parameters.
pub(crate) fn one_command(text: u32) -> Vec<u8> {
    Bytes::new().u64(1).u8(0).u64(1).u32(text).u8(0).u64(0).0
}

/// A payload under construction.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub(crate) fn raw(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
    pub(crate) fn text(self, value: &str) -> Self {
        self.u64(value.len() as u64).raw(value.as_bytes())
    }
}

/// Decodes frames that stand directly behind the header.
pub(crate) fn decode_frames(frames: &[u8]) -> (Vec<Submitted>, Result<Step, DecodeError>) {
    decode_from(&mut SegmentDecoder::new(&header()), frames)
}

/// Decodes until there is nothing more, and says what stood there.
pub(crate) fn decode_from(
    decoder: &mut SegmentDecoder,
    frames: &[u8],
) -> (Vec<Submitted>, Result<Step, DecodeError>) {
    let start = decoder.offset();
    let mut found = Vec::new();
    loop {
        match decoder.next(&frames[(decoder.offset() - start) as usize..]) {
            Ok(Step::Submitted(submitted)) => found.push(submitted),
            end => return (found, end),
        }
    }
}

/// The error that frames behind the header end with.
pub(crate) fn error_of(frames: &[u8]) -> DecodeError {
    decode_frames(frames).1.expect_err("the frames were taken")
}

/// Asserts that an error is `Invalid` and that its reason says so.
pub(crate) fn assert_invalid(error: &DecodeError, words: &str) {
    assert!(
        matches!(error, DecodeError::Invalid { reason, .. } if reason.contains(words)),
        "{error:?} does not say {words:?}"
    );
}

/// Commands with every kind of value, with and without key and expectation.
pub(crate) fn sample_commands() -> Vec<Command> {
    let insert = Text::new("activity", "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)");
    let all = Statement::of(insert.clone())
        .bind(Value::Null)
        .bind(-2_i64)
        .bind(1.5)
        .bind("na\u{ef}ve \u{1f58b}")
        .bind(vec![0_u8, 1, 254, 255]);
    let both = Command::new()
        .and(Statement::new("config", "UPDATE p SET n = ?1 WHERE id = ?2").bind("x").bind(7).expect(1))
        .and(
            Statement::of(insert)
                .bind(i64::MIN)
                .bind(i64::MAX)
                .bind(f64::MIN_POSITIVE)
                .bind("")
                .bind(Vec::new()),
        )
        .with_key(Key(*b"an idempotency k"));
    vec![all.into(), both, Statement::new("activity", "DELETE FROM t").expect(u64::MAX).into()]
}

/// A segment of a few kilobytes: three appends, of several frames each.
pub(crate) fn sample_segment() -> Vec<u8> {
    let mut bytes = header().encode().to_vec();
    let mut encoder = SegmentEncoder::new(&header());
    let commands = sample_commands();
    encoder.encode(&commands, false, 1, &mut bytes).unwrap();
    encoder.encode(&commands[..1], true, 2, &mut bytes).unwrap();
    let long = Statement::new("config", "INSERT INTO s VALUES (?1)").bind("long ".repeat(150));
    encoder.encode(&[long.into(), commands[1].clone()], false, 3, &mut bytes).unwrap();
    bytes
}

/// The frames of a segment one by one, as (offset, bytes).
pub(crate) fn frames_of(segment: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut offset = HEADER;
    while offset < segment.len() {
        let length = u32::from_le_bytes(segment[offset..offset + 4].try_into().unwrap()) as usize;
        frames.push((offset, segment[offset..offset + length].to_vec()));
        offset += length;
    }
    frames
}

//! The file in which the writer tells one stream what became of its commands.
//!
//! The first page is a header with the progress cell, which both sides map; the rest is an append-only run of
//! records, whose head the writer may punch out once the client has had time to read it. Only rejections and results that were asked
//! for have a record: any other command up to the applied sequence was applied.
//! Order of publishing: records, `start`, `end`, `tick`, `applied`, `state`, `bell`. A receipt is a hint and never synced.

use crate::frame::{self, Found, FrameHeader, bytes_at, put, u16_at, u32_at, u64_at};
use crate::limits::RECORD_BYTES_MAX;
use crate::{DecodeError, Outcome, Sequence, StoreId, StreamId, payload};

/// Length of the header page, in bytes: where the first record begins.
pub const HEADER_BYTES: usize = 4096;
/// Offset of the applied sequence (u64) in the header page: every command up to it has its final outcome.
pub const CELL_APPLIED: usize = 64;
/// Offset of the tick (u64) that the applied sequence was committed with.
pub const CELL_TICK: usize = 72;
/// Offset of the end of the records (u64), in bytes from the start of the file.
pub const CELL_END: usize = 80;
/// Offset of the start of the records that are still there (u64), in bytes from the start of the file.
pub const CELL_START: usize = 88;
/// Offset of the stream's state (u32), one of the `STATE_` constants.
pub const CELL_STATE: usize = 96;
/// Offset of the bell (u32): it changes with every publication, and is what a waiting client sleeps on (futex).
pub const CELL_BELL: usize = 100;

/// Commands of the stream are applied as they come.
pub const STATE_OPEN: u32 = 0;
/// The stream is quarantined: no command behind the applied sequence will ever be applied.
pub const STATE_QUARANTINED: u32 = 1;

const MAGIC: [u8; 8] = *b"\x89PNR\r\n\x1a\n";
const VERSION: u16 = 1;
const TYPE_OUTCOME: u8 = 3;

/// Whose receipts these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptHeader {
    /// The store that answers.
    pub store: StoreId,
    /// The stream that is answered.
    pub stream: StreamId,
    /// Random; part of every record's checksum.
    pub salt: u64,
}

impl ReceiptHeader {
    /// Lays out the header page with an empty progress cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; HEADER_BYTES];
        put(&mut page, 0, &MAGIC);
        put(&mut page, 8, &VERSION.to_le_bytes());
        put(&mut page, 16, &self.store.0);
        put(&mut page, 32, &self.stream.0);
        put(&mut page, 48, &self.salt.to_le_bytes());
        let crc = crc32fast::hash(page.get(..56).unwrap_or_default());
        put(&mut page, 56, &crc.to_le_bytes());
        put(&mut page, CELL_END, &(HEADER_BYTES as u64).to_le_bytes());
        put(&mut page, CELL_START, &(HEADER_BYTES as u64).to_le_bytes());
        page
    }

    /// Reads the header page.
    pub fn decode(page: &[u8]) -> Result<Self, DecodeError> {
        let what = "receipt file";
        if !page.starts_with(&MAGIC) {
            return Err(DecodeError::Magic { what });
        }
        let header = || {
            Some(Self {
                store: StoreId(bytes_at(page, 16)?),
                stream: StreamId(bytes_at(page, 32)?),
                salt: u64_at(page, 48)?,
            })
        };
        // In every version the checksum is here: a damaged version must not pass for a newer one.
        let found = match (header(), u32_at(page, 56)) {
            (Some(header), Some(crc)) if page.get(..56).map(crc32fast::hash) == Some(crc) => header,
            _ => return Err(DecodeError::Checksum { what: "receipt header", offset: 0 }),
        };
        let (version, flags) = (u16_at(page, 8).unwrap_or(0), u32_at(page, 12).unwrap_or(0));
        if version != VERSION || flags != 0 {
            return Err(DecodeError::Unsupported { what, version, flags });
        }
        Ok(found)
    }
}

/// Appends the record of one outcome; it will stand at `offset` of the file.
pub fn encode_record(salt: u64, offset: u64, sequence: Sequence, outcome: &Outcome, out: &mut Vec<u8>) {
    let start = frame::open(out);
    payload::put(outcome, out);
    let header =
        FrameHeader { kind: TYPE_OUTCOME, flags: 0, count: 1, first_sequence: sequence.0, submitted_ns: 0 };
    frame::seal(out, start, salt, offset, header);
}

/// One outcome, and how long its record is.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// The command it is about.
    pub sequence: Sequence,
    /// What became of it.
    pub outcome: Outcome,
    /// Length of the record, in bytes.
    pub bytes: usize,
}

/// Reads the record that begins `bytes` and stands at `offset` of the file; `None` if it is not complete yet.
pub fn decode_record(salt: u64, offset: u64, bytes: &[u8]) -> Result<Option<Record>, DecodeError> {
    match frame::find(bytes, salt, offset)? {
        Found::Incomplete | Found::End => Ok(None),
        Found::Frame { header, payload, length } => {
            if header.kind != TYPE_OUTCOME || length > RECORD_BYTES_MAX {
                return Err(DecodeError::invalid("receipt record", offset, "not an outcome"));
            }
            let outcome = payload::get(payload)
                .map_err(|reason| DecodeError::invalid("receipt record", offset, reason))?;
            Ok(Some(Record { sequence: Sequence(header.first_sequence), outcome, bytes: length }))
        }
    }
}

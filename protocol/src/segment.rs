//! The header of a segment: whose it is, and what its frames are checked against.

use crate::frame::{bytes_at, put, u16_at, u32_at, u64_at};
use crate::limits::SEQUENCE_MAX;
use crate::{DecodeError, Epoch, Sequence, StoreId, StreamId};

/// First bytes of a segment; damaged by any transfer that is not binary, like PNG's.
pub(crate) const MAGIC: [u8; 8] = *b"\x89PNH\r\n\x1a\n";
/// The version this crate reads and writes.
pub(crate) const VERSION: u16 = 1;

/// The header's length as it stands in the header.
const HEADER_LENGTH: u16 = 128;
const _: () = assert!(HEADER_LENGTH as usize == SegmentHeader::BYTES);

/// Identity and position of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store it was written for.
    pub store: StoreId,
    /// The stream it is a part of.
    pub stream: StreamId,
    /// Its number in the stream, from 1, without gaps.
    pub number: u32,
    /// The writer's epoch when it was created.
    pub epoch: Epoch,
    /// Sequence of its first command.
    pub first_sequence: Sequence,
    /// Random; part of every frame's checksum.
    pub salt: u64,
    /// The boot it was created in; zeros where the platform does not tell.
    pub boot: [u8; 16],
    /// Its own inode number when it was created, for diagnosis; 0 if not stated.
    pub inode: u64,
}

impl SegmentHeader {
    /// Length in the file, in bytes: where the first frame begins.
    pub const BYTES: usize = 128;

    /// Lays the header out.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 10, &HEADER_LENGTH.to_le_bytes());
        put(&mut bytes, 20, &self.number.to_le_bytes());
        put(&mut bytes, 24, &self.store.0);
        put(&mut bytes, 40, &self.stream.0);
        put(&mut bytes, 56, &self.epoch.0.to_le_bytes());
        put(&mut bytes, 64, &self.first_sequence.0.to_le_bytes());
        put(&mut bytes, 72, &self.salt.to_le_bytes());
        put(&mut bytes, 80, &self.boot);
        put(&mut bytes, 96, &self.inode.to_le_bytes());
        let crc = crc32fast::hash(bytes.get(..124).unwrap_or_default());
        put(&mut bytes, 124, &crc.to_le_bytes());
        bytes
    }

    /// Reads the header that begins `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "segment";
        if !bytes.starts_with(&MAGIC) {
            return Err(DecodeError::Magic { what });
        }
        // In every version the checksum is here: a damaged version must not pass for a newer one.
        let stored = u32_at(bytes, 124);
        if stored.is_none() || stored != bytes.get(..124).map(crc32fast::hash) {
            return Err(DecodeError::Checksum { what: "segment header", offset: 0 });
        }
        let version = u16_at(bytes, 8).unwrap_or(0);
        let flags = u32_at(bytes, 12).unwrap_or(0);
        if version != VERSION || flags != 0 {
            return Err(DecodeError::Unsupported { what, version, flags });
        }
        if u16_at(bytes, 10).map(usize::from) != Some(Self::BYTES) {
            return Err(DecodeError::invalid("segment header", 0, "its length is not that of its version"));
        }
        let header = || {
            Some(Self {
                number: u32_at(bytes, 20)?,
                store: StoreId(bytes_at(bytes, 24)?),
                stream: StreamId(bytes_at(bytes, 40)?),
                epoch: Epoch(u64_at(bytes, 56)?),
                first_sequence: Sequence(u64_at(bytes, 64)?),
                salt: u64_at(bytes, 72)?,
                boot: bytes_at(bytes, 80)?,
                inode: u64_at(bytes, 96)?,
            })
        };
        match header() {
            Some(header) if header.number >= 1 && (1..=SEQUENCE_MAX).contains(&header.first_sequence.0) => {
                Ok(header)
            }
            _ => Err(DecodeError::invalid(
                "segment header",
                0,
                "numbers count from 1, sequences up to 2^63 - 1",
            )),
        }
    }
}

/// The id of the running boot; zeros where the platform does not tell.
#[must_use]
pub fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.parse::<StreamId>().map_or([0; 16], |id| id.0)
}

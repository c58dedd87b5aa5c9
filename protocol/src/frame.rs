//! One checksummed record of a segment: a fixed header and a payload.

use crate::DecodeError;
use crate::limits::FRAME_BYTES_MAX;

/// Length of a frame's header, in bytes.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;

/// Binds a number to an SQL text, for this segment.
pub(crate) const TYPE_DEFINE: u8 = 1;
/// Carries commands.
pub(crate) const TYPE_SUBMIT: u8 = 2;
/// Types with this bit may be skipped by a reader that does not know them.
pub(crate) const TYPE_SKIPPABLE: u8 = 0x80;

/// The client wants the results of these commands in its receipts.
pub(crate) const FLAG_RESULTS: u8 = 1;

/// The fields of a frame's header that a writer of frames chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Commands in the payload; 0 in a definition.
    pub(crate) count: u32,
    /// Of the first command in it; in a definition, of the next command to come.
    pub(crate) first_sequence: u64,
    /// Wall clock of the submit in nanoseconds since 1970, for metrics only.
    pub(crate) submitted_ns: u64,
}

/// Leaves room for a header at the end of `out`; the caller appends the payload and calls [`seal`].
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + FRAME_HEADER_BYTES, 0);
    start
}

/// Fills in the header of the frame that begins at `start` of `out` and at `offset` of the segment.
pub(crate) fn seal(out: &mut [u8], start: usize, salt: u64, offset: u64, header: FrameHeader) {
    let Some(frame) = out.get_mut(start..) else { return };
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    put(frame, 0, &length.to_le_bytes());
    put(frame, 8, &[header.kind, header.flags, 0, 0]);
    put(frame, 12, &header.count.to_le_bytes());
    put(frame, 16, &header.first_sequence.to_le_bytes());
    put(frame, 24, &header.submitted_ns.to_le_bytes());
    let crc = checksum(salt, offset, frame);
    put(frame, 4, &crc.to_le_bytes());
}

/// What stands at a position of a segment.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<'a> {
    /// Fewer bytes than the header or its length says.
    Incomplete,
    /// A zero length: end of data.
    End,
    /// A frame whose checksum is right.
    Frame { header: FrameHeader, payload: &'a [u8], length: usize },
}

/// Looks at the frame that begins `bytes` and stands at `offset` of the segment.
pub(crate) fn find(bytes: &[u8], salt: u64, offset: u64) -> Result<Found<'_>, DecodeError> {
    let Some(length) = u32_at(bytes, 0) else { return Ok(Found::Incomplete) };
    let length = length as usize;
    if length == 0 {
        return Ok(Found::End);
    }
    if !(FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) {
        // Nothing vouches for a length outside the limits: the same case as a checksum that does not match.
        return Err(DecodeError::Checksum { what: "frame", offset });
    }
    let Some(frame) = bytes.get(..length) else { return Ok(Found::Incomplete) };
    if u32_at(frame, 4) != Some(checksum(salt, offset, frame)) {
        return Err(DecodeError::Checksum { what: "frame", offset });
    }
    let (Some(&[kind, flags, 0, 0]), Some(count), Some(first_sequence), Some(submitted_ns)) =
        (frame.get(8..12), u32_at(frame, 12), u64_at(frame, 16), u64_at(frame, 24))
    else {
        return Err(DecodeError::invalid("frame", offset, "its reserved bytes are not zero"));
    };
    let payload = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    let header = FrameHeader { kind, flags, count, first_sequence, submitted_ns };
    Ok(Found::Frame { header, payload, length })
}

/// CRC-32 over the salt, the offset, the length and the body: a frame that was copied, shifted or spliced from
/// elsewhere does not validate.
pub(crate) fn checksum(salt: u64, offset: u64, frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc.update(frame.get(..4).unwrap_or_default());
    crc.update(frame.get(8..).unwrap_or_default());
    crc.finalize()
}

/// Copies `field` to `at`; every caller writes inside a buffer it has just sized.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

//! Reads a segment forward, frame by frame.

use std::sync::Arc;

use crate::frame::{self, FLAG_RESULTS, FRAME_HEADER_BYTES, Found, FrameHeader};
use crate::frame::{TYPE_DEFINE, TYPE_SKIPPABLE, TYPE_SUBMIT};
use crate::limits::{
    DATABASE_NAME_BYTES_MAX, DEFINITIONS_COUNT_MAX, FRAME_BYTES_MAX, SEQUENCE_MAX, SQL_BYTES_MAX,
};
use crate::payload::{self, Definition};
use crate::{DecodeError, Packed, SegmentHeader, Sequence, Text};

/// Bytes that are checksummed at most in search of a later frame: a twentieth of a second, whatever the bytes are.
const SEARCH_BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;

/// The commands of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// Sequence of the first; the others follow without gaps.
    pub first_sequence: Sequence,
    /// Never empty.
    pub commands: Packed,
    /// Whether the client wants their results.
    pub results: bool,
    /// Wall clock of the submit in nanoseconds since 1970, for metrics only.
    pub submitted_ns: u64,
    /// Length of the frame, in bytes.
    pub bytes: usize,
}

/// What stood at the read position.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// A frame of commands; the position is now behind it.
    Submitted(Submitted),
    /// Fewer bytes than needed, perhaps none; the position has not moved behind what is complete.
    Incomplete,
    /// A zero length, which ends the data.
    End,
}

/// Position, expected sequence and dictionary of a segment that is being read.
#[derive(Debug)]
pub struct SegmentDecoder {
    salt: u64,
    offset: u64,
    next: Sequence,
    dictionary: Vec<Arc<Text>>,
}

impl SegmentDecoder {
    /// Starts behind the header.
    #[must_use]
    pub fn new(header: &SegmentHeader) -> Self {
        Self {
            salt: header.salt,
            offset: SegmentHeader::BYTES as u64,
            next: header.first_sequence,
            dictionary: Vec::new(),
        }
    }

    /// Where the next frame begins, in bytes from the start of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Sequence of the next command.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        self.next
    }

    /// Takes the next frame of commands; `bytes` are the file's from [`offset`](Self::offset) on.
    ///
    /// Definitions in front of it are taken in. `bytes` stays the same over several calls; the caller slices it by
    /// how far `offset` moved. After an error the segment must not be read further.
    pub fn next(&mut self, mut bytes: &[u8]) -> Result<Step, DecodeError> {
        loop {
            let (header, payload, length) = match frame::find(bytes, self.salt, self.offset)? {
                Found::Incomplete => return Ok(Step::Incomplete),
                Found::End => return Ok(Step::End),
                Found::Frame { header, payload, length } => (header, payload, length),
            };
            let step = self.read(header, payload, length)?;
            self.offset += length as u64;
            bytes = bytes.get(length..).unwrap_or_default();
            if let Some(submitted) = step {
                self.next = Sequence(self.next.0 + submitted.commands.len() as u64);
                return Ok(Step::Submitted(submitted));
            }
        }
    }

    /// Bytes that the next frame says it takes, of which `bytes` are the first; at least those of its header.
    #[must_use]
    pub fn wanted(bytes: &[u8]) -> usize {
        let length = frame::u32_at(bytes, 0).unwrap_or_default() as usize;
        length.clamp(FRAME_HEADER_BYTES, FRAME_BYTES_MAX)
    }

    /// Whether any frame validates at a later position: damage in the middle, not a tail that was never written.
    ///
    /// `bytes` are the rest of the file from [`offset`](Self::offset) on; where they are too many to be held at once,
    /// use [`LaterFrame`].
    #[must_use]
    pub fn later_frame_validates(&self, bytes: &[u8]) -> bool {
        LaterFrame::new(self).begins_in(bytes, bytes.len())
    }

    /// Length of what could be a whole frame `skip` bytes further on, judged by all but its checksum.
    fn plausible_length(&self, rest: &[u8], skip: u64) -> Option<usize> {
        if skip == 0 {
            // The damage itself.
            return None;
        }
        let length = frame::u32_at(rest, 0)? as usize;
        let kind = *rest.get(8)?;
        let known = [TYPE_DEFINE, TYPE_SUBMIT].contains(&kind) || kind & TYPE_SKIPPABLE != 0;
        // A command takes at least a byte, so the sequence cannot have grown by more than the bytes between.
        let grown = frame::u64_at(rest, 16)?.checked_sub(self.next.0)?;
        let plausible = (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX.min(rest.len())).contains(&length);
        (plausible && known && grown <= skip).then_some(length)
    }

    fn read(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        length: usize,
    ) -> Result<Option<Submitted>, DecodeError> {
        if header.kind & TYPE_SKIPPABLE != 0 {
            return Ok(None);
        }
        let known_flags = match header.kind {
            TYPE_DEFINE => 0,
            TYPE_SUBMIT => FLAG_RESULTS,
            unknown => return Err(self.invalid(format!("unknown frame type {unknown}"))),
        };
        if header.flags & !known_flags != 0 {
            return Err(self.invalid(format!("unknown frame flags {:#x}", header.flags)));
        }
        if header.first_sequence != self.next.0 {
            let reason = format!("sequence {} where {} was expected", header.first_sequence, self.next);
            return Err(self.invalid(reason));
        }
        if header.kind == TYPE_DEFINE {
            return self.define(header, payload).map(|()| None);
        }
        let commands = self.commands(header, payload)?;
        Ok(Some(Submitted {
            first_sequence: self.next,
            commands,
            results: header.flags & FLAG_RESULTS != 0,
            submitted_ns: header.submitted_ns,
            bytes: length,
        }))
    }

    fn define(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), DecodeError> {
        if header.count != 0 {
            return Err(self.invalid(format!("a definition with a command count of {}", header.count)));
        }
        let definition: Definition = payload::get(payload).map_err(|reason| self.invalid(reason))?;
        if definition.id as usize != self.dictionary.len() + 1
            || self.dictionary.len() >= DEFINITIONS_COUNT_MAX
        {
            return Err(self.invalid(format!("definition number {} out of order", definition.id)));
        }
        self.check("bytes in an SQL text", definition.sql.len(), SQL_BYTES_MAX)?;
        self.check("bytes in a database name", definition.database.len(), DATABASE_NAME_BYTES_MAX)?;
        self.dictionary.push(Text::new(definition.database, definition.sql));
        Ok(())
    }

    fn commands(&self, header: FrameHeader, payload: &[u8]) -> Result<Packed, DecodeError> {
        let text = |number: u32| self.dictionary.get((number as usize).checked_sub(1)?);
        let commands =
            Packed::from_payload(payload.to_owned(), text).map_err(|reason| self.invalid(reason))?;
        if commands.len() != header.count as usize || commands.is_empty() {
            let reason = format!("{} commands where {} were announced", commands.len(), header.count);
            return Err(self.invalid(reason));
        }
        if self.next.0 + (u64::from(header.count) - 1) > SEQUENCE_MAX {
            return Err(self.invalid("a sequence beyond what a database can hold"));
        }
        Ok(commands)
    }

    fn check(&self, what: &str, size: usize, limit: usize) -> Result<(), DecodeError> {
        if size > limit { Err(self.invalid(format!("{size} {what}, the limit is {limit}"))) } else { Ok(()) }
    }

    fn invalid(&self, reason: impl Into<String>) -> DecodeError {
        DecodeError::invalid("frame", self.offset, reason)
    }
}

/// Looks for a frame that validates behind damage, through a window on the rest of the file.
///
/// What is too dear to search counts as found: to stop a stream is safe, to drop what was written is not.
#[derive(Debug)]
pub struct LaterFrame<'d> {
    decoder: &'d SegmentDecoder,
    /// Where the window begins, in bytes from the damage on.
    skip: u64,
    /// Bytes that were checksummed.
    searched: usize,
}

impl<'d> LaterFrame<'d> {
    /// Longest frame: a window with this much behind the positions to look at misses none.
    pub const REACH_BYTES: usize = FRAME_BYTES_MAX;

    /// Begins at the damage, which is where `decoder` stands.
    #[must_use]
    pub fn new(decoder: &'d SegmentDecoder) -> Self {
        Self { decoder, skip: 0, searched: 0 }
    }

    /// Where the next window must begin, in bytes from the start of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.decoder.offset + self.skip
    }

    /// Moves on to `offset` of the file, if it is further on: what lies between is known to be zeros.
    pub fn skip_to(&mut self, offset: u64) {
        self.skip = self.skip.max(offset.saturating_sub(self.decoder.offset));
    }

    /// Whether a frame begins at one of the first `positions` of `window` and validates; then moves on by as many.
    pub fn begins_in(&mut self, window: &[u8], positions: usize) -> bool {
        let last = window.len().saturating_sub(FRAME_HEADER_BYTES);
        let found = (0..positions.min(last + 1)).any(|at| {
            let rest = window.get(at..).unwrap_or_default();
            let skip = self.skip + at as u64;
            let Some(length) = self.decoder.plausible_length(rest, skip) else { return false };
            self.searched += length;
            let offset = self.decoder.offset + skip;
            self.searched > SEARCH_BYTES_MAX
                || matches!(frame::find(rest, self.decoder.salt, offset), Ok(Found::Frame { .. }))
        });
        self.skip += positions as u64;
        found
    }
}

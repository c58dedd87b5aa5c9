//! Reads a segment forward, frame by frame.

use std::sync::Arc;

use crate::frame::{self, FLAG_RESULTS, FRAME_HEADER_BYTES, Found, FrameHeader};
use crate::frame::{TYPE_DEFINE, TYPE_SKIPPABLE, TYPE_SUBMIT};
use crate::limits::{DEFINITIONS_COUNT_MAX, FRAME_COMMANDS_MAX};
use crate::payload::{self, Definition, WireCommand};
use crate::{Command, DecodeError, SegmentHeader, Sequence, Statement, Text};

/// The commands of one frame.
#[derive(Debug, PartialEq)]
pub struct Submitted {
    /// Sequence of the first; the others follow without gaps.
    pub first_sequence: Sequence,
    /// Never empty.
    pub commands: Vec<Command>,
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

    /// Whether any frame validates at a later position: damage in the middle, not a tail that was never written.
    #[must_use]
    pub fn later_frame_validates(&self, bytes: &[u8]) -> bool {
        (1..bytes.len().saturating_sub(FRAME_HEADER_BYTES)).any(|skip| {
            let rest = bytes.get(skip..).unwrap_or_default();
            matches!(frame::find(rest, self.salt, self.offset + skip as u64), Ok(Found::Frame { .. }))
        })
    }

    fn read(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        length: usize,
    ) -> Result<Option<Submitted>, DecodeError> {
        let invalid = |reason: String| DecodeError::invalid("frame", self.offset, reason);
        if header.kind & TYPE_SKIPPABLE != 0 {
            return Ok(None);
        }
        if header.first_sequence != self.next.0 {
            let reason = format!("sequence {} where {} was expected", header.first_sequence, self.next);
            return Err(invalid(reason));
        }
        match header.kind {
            TYPE_DEFINE => {
                let definition: Definition = payload::get(payload).map_err(invalid)?;
                if definition.id as usize != self.dictionary.len() + 1
                    || self.dictionary.len() >= DEFINITIONS_COUNT_MAX
                {
                    return Err(invalid(format!("definition number {} out of order", definition.id)));
                }
                self.dictionary.push(Text::new(definition.database, definition.sql));
                Ok(None)
            }
            TYPE_SUBMIT => {
                let wire: Vec<WireCommand> = payload::get(payload).map_err(invalid)?;
                if wire.len() != header.count as usize || wire.is_empty() || wire.len() > FRAME_COMMANDS_MAX {
                    return Err(invalid(format!(
                        "{} commands where {} were announced",
                        wire.len(),
                        header.count
                    )));
                }
                let commands = wire.into_iter().map(|c| self.command(c)).collect::<Result<_, _>>()?;
                Ok(Some(Submitted {
                    first_sequence: self.next,
                    commands,
                    results: header.flags & FLAG_RESULTS != 0,
                    submitted_ns: header.submitted_ns,
                    bytes: length,
                }))
            }
            unknown => Err(invalid(format!("unknown frame type {unknown}"))),
        }
    }

    fn command(&self, wire: WireCommand) -> Result<Command, DecodeError> {
        let mut statements = Vec::with_capacity(wire.statements.len());
        for statement in wire.statements {
            let index = (statement.text as usize).checked_sub(1);
            let Some(text) = index.and_then(|index| self.dictionary.get(index)) else {
                let reason = format!("statement text {} is not defined", statement.text);
                return Err(DecodeError::invalid("frame", self.offset, reason));
            };
            statements.push(Statement {
                text: Arc::clone(text),
                params: statement.params,
                expect_rows: statement.expect_rows,
            });
        }
        if statements.is_empty() {
            return Err(DecodeError::invalid("frame", self.offset, "a command without statements"));
        }
        Ok(Command { key: wire.key, statements })
    }
}

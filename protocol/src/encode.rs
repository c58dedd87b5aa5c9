//! Turns commands into the bytes of one append.

use std::collections::HashMap;
use std::sync::Arc;

use crate::frame::{self, FLAG_RESULTS, FRAME_HEADER_BYTES, FrameHeader, TYPE_DEFINE, TYPE_SUBMIT};
use crate::limits::{
    COMMAND_STATEMENTS_MAX, DATABASE_NAME_BYTES_MAX, DEFINITIONS_COUNT_MAX, FRAME_BYTES_MAX,
    FRAME_BYTES_SOFT, FRAME_COMMANDS_MAX, SQL_BYTES_MAX, STATEMENT_PARAMS_MAX, SUBMIT_BYTES_MAX,
};
use crate::payload::{self, Definition};
use crate::{Command, SegmentHeader, Sequence, Text};

/// A command that the format cannot carry; nothing was encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The command passes a limit of the format.
    #[error("{what} is {size}, the limit is {limit}; split the command or shorten it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The largest size allowed, in the same unit.
        limit: usize,
    },
    /// The command has no statement.
    #[error("a command needs at least one statement")]
    Empty,
    /// The segment's dictionary is full: begin the next segment and encode again.
    #[error("the dictionary of this segment is full")]
    DictionaryFull,
}

/// Encodes commands behind one another into one segment.
#[derive(Debug)]
pub struct SegmentEncoder {
    salt: u64,
    offset: u64,
    next: Sequence,
    dictionary: HashMap<Arc<Text>, u32>,
    /// The text used last and its number: most streams repeat one text, and comparing pointers is cheapest.
    recent: Option<(Arc<Text>, u32)>,
}

impl SegmentEncoder {
    /// Starts behind the header of a new segment.
    #[must_use]
    pub fn new(header: &SegmentHeader) -> Self {
        Self {
            salt: header.salt,
            offset: SegmentHeader::BYTES as u64,
            next: header.first_sequence,
            dictionary: HashMap::new(),
            recent: None,
        }
    }

    /// Sequence of the next command.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        self.next
    }

    /// Length of the segment once all that was encoded is in it, in bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset
    }

    /// Appends the frames of `commands` to `out`, to be added to the segment in one `write`.
    ///
    /// An error leaves the encoder as it was and `out` as it came. If the *write* fails, the encoder is ahead of the
    /// file: drop it and begin the next segment.
    pub fn encode(
        &mut self,
        commands: &[Command],
        results: bool,
        submitted_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let before = (out.len(), self.offset, self.next, self.dictionary.len());
        let encoded = self.encode_all(commands, results, submitted_ns, out);
        if encoded.is_err() {
            out.truncate(before.0);
            (self.offset, self.next) = (before.1, before.2);
            self.dictionary.retain(|_, id| (*id as usize) <= before.3);
            self.recent = None;
        }
        encoded
    }

    fn encode_all(
        &mut self,
        commands: &[Command],
        results: bool,
        submitted_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let submit_start = out.len();
        let mut rest = commands;
        let mut defined = 0;
        while !rest.is_empty() {
            // Each command is looked at once, not again for every frame in front of it.
            let ahead = rest.get(defined..rest.len().min(FRAME_COMMANDS_MAX)).unwrap_or_default();
            for command in ahead {
                self.define_texts(command, submitted_ns, out)?;
                // Definitions stand before the frame that uses them; a full dictionary ends the search early.
                check_size("one submit", out.len() - submit_start, SUBMIT_BYTES_MAX)?;
            }
            defined += ahead.len();
            let (count, start) = self.fill_frame(rest, out)?;
            let flags = if results { FLAG_RESULTS } else { 0 };
            self.seal(out, start, TYPE_SUBMIT, flags, count, submitted_ns);
            self.next = Sequence(self.next.0 + u64::from(count));
            rest = rest.get(count as usize..).unwrap_or_default();
            defined -= count as usize;
            check_size("one submit", out.len() - submit_start, SUBMIT_BYTES_MAX)?;
        }
        Ok(())
    }

    /// Puts as many commands as fit into one frame, and says how many and where the frame starts.
    fn fill_frame(&mut self, commands: &[Command], out: &mut Vec<u8>) -> Result<(u32, usize), EncodeError> {
        let start = frame::open(out);
        payload::put(&0_u64, out);
        let mut count = 0_u32;
        for command in commands.iter().take(FRAME_COMMANDS_MAX) {
            let end = out.len();
            payload::put_command(command, out, |text| self.id_of(text).unwrap_or(0));
            if out.len() - start > FRAME_BYTES_MAX {
                if count == 0 {
                    return check_size("a command", out.len() - start, FRAME_BYTES_MAX).map(|()| (0, start));
                }
                out.truncate(end);
                break;
            }
            count += 1;
            if out.len() - start >= FRAME_BYTES_SOFT {
                break;
            }
        }
        frame::put(out, start + FRAME_HEADER_BYTES, &u64::from(count).to_le_bytes());
        Ok((count, start))
    }

    fn define_texts(
        &mut self,
        command: &Command,
        submitted_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if command.statements.is_empty() {
            return Err(EncodeError::Empty);
        }
        check_size("the number of statements", command.statements.len(), COMMAND_STATEMENTS_MAX)?;
        for statement in &command.statements {
            check_size("the number of parameters", statement.params.len(), STATEMENT_PARAMS_MAX)?;
            if self.id_of(&statement.text).is_some() {
                continue;
            }
            let text = &statement.text;
            check_size("an SQL text in bytes", text.sql.len(), SQL_BYTES_MAX)?;
            check_size("a database name in bytes", text.database.len(), DATABASE_NAME_BYTES_MAX)?;
            if self.dictionary.len() >= DEFINITIONS_COUNT_MAX {
                return Err(EncodeError::DictionaryFull);
            }
            let id = u32::try_from(self.dictionary.len() + 1).unwrap_or(u32::MAX);
            let start = frame::open(out);
            payload::put(&Definition { id, database: text.database.clone(), sql: text.sql.clone() }, out);
            self.seal(out, start, TYPE_DEFINE, 0, 0, submitted_ns);
            self.dictionary.insert(Arc::clone(text), id);
        }
        Ok(())
    }

    fn id_of(&mut self, text: &Arc<Text>) -> Option<u32> {
        if let Some((recent, id)) = &self.recent
            && Arc::ptr_eq(recent, text)
        {
            return Some(*id);
        }
        let id = *self.dictionary.get(text)?;
        self.recent = Some((Arc::clone(text), id));
        Some(id)
    }

    fn seal(&mut self, out: &mut [u8], start: usize, kind: u8, flags: u8, count: u32, submitted_ns: u64) {
        let header = FrameHeader { kind, flags, count, first_sequence: self.next.0, submitted_ns };
        frame::seal(out, start, self.salt, self.offset, header);
        self.offset += (out.len() - start) as u64;
    }
}

fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), EncodeError> {
    if size > limit { Err(EncodeError::TooLarge { what, size, limit }) } else { Ok(()) }
}

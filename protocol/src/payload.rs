//! The only module that knows the payload serializer (bincode, fixed-width little-endian layout).
//!
//! The limit on every decode bounds what a hostile length can allocate; without one it aborts the process.

use std::borrow::Borrow;
use std::io;
use std::sync::Arc;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::{FRAME_BYTES_MAX, SUBMIT_BYTES_MAX};
use crate::packed::ValueRef;
use crate::{Command, Key, Outcome, Sequence, Statement, StreamId, Text, Value};

/// The payload of a `Define` frame.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: u32,
    pub(crate) database: String,
    pub(crate) sql: String,
}

/// A command outside a segment, in a database row: nothing to look up.
#[derive(Serialize, Deserialize)]
struct StoredStatement {
    text: Text,
    expect_rows: Option<u64>,
    params: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct StoredCommand {
    stream: StreamId,
    sequence: Sequence,
    key: Option<Key>,
    statements: Vec<StoredStatement>,
}

const fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    bincode::config::legacy().with_limit::<LIMIT>()
}

/// Appends one value in the payload layout.
pub(crate) fn put<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let encoded = bincode::serde::encode_into_std_write(value, out, bincode::config::legacy());
    debug_assert!(encoded.is_ok(), "plain data encodes into memory");
}

/// Appends a command as a frame carries it, with the number that `number_of` gives each text.
pub(crate) fn put_command(
    command: &Command,
    out: &mut Vec<u8>,
    mut number_of: impl FnMut(&Arc<Text>) -> u32,
) {
    put(&(command.key, command.statements.len() as u64), out);
    for statement in &command.statements {
        put(&(number_of(&statement.text), statement.expect_rows, &statement.params), out);
    }
}

/// The bytes say nothing that [`put_command`] writes.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Reads what [`put_command`] wrote in place, without allocating.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes behind the position.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    /// A count of elements or bytes.
    pub(crate) fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.array().map(u64::from_le_bytes)?;
        usize::try_from(length).map_err(|_| Malformed)
    }

    /// The key that begins a command.
    pub(crate) fn key(&mut self) -> Result<Option<Key>, Malformed> {
        self.option(|cursor| cursor.array().map(Key))
    }

    /// The head of a statement: the number of its text, its expectation, and how many values follow.
    pub(crate) fn statement(&mut self) -> Result<(u32, Option<u64>, usize), Malformed> {
        let number = self.array().map(u32::from_le_bytes)?;
        let expect_rows = self.option(|cursor| cursor.array().map(u64::from_le_bytes))?;
        Ok((number, expect_rows, self.length()?))
    }

    /// The next value, whose text is taken as it is.
    pub(crate) fn value(&mut self) -> Result<ValueRef<'a>, Malformed> {
        // The numbers are the places of the variants of `Value`.
        Ok(match self.array().map(u32::from_le_bytes)? {
            0 => ValueRef::Null,
            1 => ValueRef::Integer(i64::from_le_bytes(self.array()?)),
            2 => ValueRef::Real(f64::from_le_bytes(self.array()?)),
            3 => ValueRef::Text(self.bytes()?),
            4 => ValueRef::Blob(self.bytes()?),
            _ => return Err(Malformed),
        })
    }

    /// Passes over the next value; text must be UTF-8.
    pub(crate) fn check_value(&mut self) -> Result<(), Malformed> {
        match self.value()? {
            ValueRef::Text(text) => str::from_utf8(text).map(drop).map_err(|_| Malformed),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => Ok(()),
        }
    }

    fn option<T>(
        &mut self,
        some: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.array()? {
            [0] => Ok(None),
            [1] => some(self).map(Some),
            _ => Err(Malformed),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*array)
    }
}

/// Reads one value that fills `bytes` exactly.
pub(crate) fn get<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    exact(bytes, bincode::serde::decode_from_slice(bytes, config::<{ FRAME_BYTES_MAX * 4 }>()))
}

fn exact<T>(bytes: &[u8], decoded: Result<(T, usize), bincode::error::DecodeError>) -> Result<T, String> {
    match decoded {
        Ok((value, consumed)) if consumed == bytes.len() => Ok(value),
        Ok((_, consumed)) => Err(format!("{} trailing bytes", bytes.len() - consumed)),
        Err(error) => Err(error.to_string()),
    }
}

/// Encodes commands with their SQL, for a row of a database (redo, rejected).
#[must_use]
pub fn encode_commands<C: Borrow<Command>>(
    commands: impl ExactSizeIterator<Item = (StreamId, Sequence, C)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    put(&(commands.len() as u64), &mut out);
    for (stream, sequence, command) in commands {
        let command = command.borrow();
        put(&(stream, sequence, command.key, command.statements.len() as u64), &mut out);
        for statement in &command.statements {
            put(&(&*statement.text, statement.expect_rows, &statement.params), &mut out);
        }
    }
    out
}

/// Bytes that a stored command takes more than one in a frame: the stream and the sequence.
pub(crate) const STORED_BYTES_MORE: usize = 16 + 8;

/// Bytes that a stored statement takes more than one in a frame: its text with two lengths, for the text's number.
pub(crate) fn stored_bytes_more(text: &Text) -> usize {
    8 + text.database.len() + 8 + text.sql.len() - 4
}

/// Decodes what [`encode_commands`] wrote.
pub fn decode_commands(bytes: &[u8]) -> io::Result<Vec<(StreamId, Sequence, Command)>> {
    let stored: Vec<StoredCommand> =
        exact(bytes, bincode::serde::decode_from_slice(bytes, config::<{ SUBMIT_BYTES_MAX * 4 }>()))
            .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
    let command = |stored: StoredCommand| {
        let statement = |s: StoredStatement| Statement {
            text: Arc::new(s.text),
            params: s.params,
            expect_rows: s.expect_rows,
        };
        let statements = stored.statements.into_iter().map(statement).collect();
        (stored.stream, stored.sequence, Command { key: stored.key, statements })
    };
    Ok(stored.into_iter().map(command).collect())
}

/// Encodes an outcome, for a receipt or a row of a database.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Vec<u8> {
    let mut out = Vec::new();
    put(outcome, &mut out);
    out
}

/// Decodes what [`encode_outcome`] wrote.
pub fn decode_outcome(bytes: &[u8]) -> io::Result<Outcome> {
    get(bytes).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
}

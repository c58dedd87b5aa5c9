//! The only module that knows the payload serializer (bincode, fixed-width little-endian layout).
//!
//! The limit on every decode bounds what a hostile length can allocate; without one it aborts the process.

use std::io;
use std::sync::Arc;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::{FRAME_BYTES_MAX, SUBMIT_BYTES_MAX};
use crate::{Command, Key, Outcome, Sequence, Statement, StreamId, Text, Value};

/// A statement as a segment stores it: its text by the number the dictionary gave it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireStatement {
    pub(crate) text: u32,
    pub(crate) expect_rows: Option<u64>,
    pub(crate) params: Vec<Value>,
}

/// A command as a segment stores it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireCommand {
    pub(crate) key: Option<Key>,
    pub(crate) statements: Vec<WireStatement>,
}

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
pub fn encode_commands<'a>(
    commands: impl ExactSizeIterator<Item = (StreamId, Sequence, &'a Command)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    put(&(commands.len() as u64), &mut out);
    for (stream, sequence, command) in commands {
        put(&(stream, sequence, command.key, command.statements.len() as u64), &mut out);
        for statement in &command.statements {
            put(&(&*statement.text, statement.expect_rows, &statement.params), &mut out);
        }
    }
    out
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

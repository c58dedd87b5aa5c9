//! What became of a command.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Tick, Value};

/// The final word on a command. A rejection is data, not an error of the machinery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its effect is committed in every database it touches.
    Applied(Applied),
    /// It had no effect at all.
    Rejected(Rejection),
}

/// How a command was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The batch that carried it, or a later one if the details were lost in a crash.
    pub tick: Tick,
    /// One per statement; `None` when nobody asked for them, or when a crash of the writer lost them.
    pub results: Option<Vec<StatementResult>>,
}

/// What one statement did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatementResult {
    /// Rows inserted, updated or deleted by the statement itself, triggers not counted.
    pub changes: u64,
    /// Row id of the last row inserted by this command so far; 0 if none.
    pub last_insert_rowid: i64,
    /// Rows of `RETURNING`.
    pub rows: Vec<Vec<Value>>,
    /// Whether rows were left out because the receipt would have passed its limit.
    pub rows_truncated: bool,
}

/// Why a command was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The kind of reason.
    pub code: Code,
    /// For people: what, where, and what to do.
    pub message: String,
    /// Index of the offending statement in the command, from 0.
    pub statement: Option<u32>,
}

/// Kinds of rejection, as scripts see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// A constraint of the schema was violated.
    Constraint,
    /// `expect_rows` did not hold.
    Expectation,
    /// Not allowed to this client.
    Grant,
    /// The SQL is wrong: it does not prepare, names no known database, binds a wrong number of parameters.
    Sql,
    /// Too large, too long, too slow.
    Limit,
    /// The writer died of this command several times.
    Poison,
    /// The idempotency key was used before for another command.
    Key,
    /// It stands at or behind bytes that cannot be trusted; its stream is quarantined.
    Corrupt,
}

impl Code {
    /// Every code, in the order of the format.
    pub const ALL: [Self; 8] = [
        Self::Constraint,
        Self::Expectation,
        Self::Grant,
        Self::Sql,
        Self::Limit,
        Self::Poison,
        Self::Key,
        Self::Corrupt,
    ];

    /// The word for it in JSON and in the databases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Constraint => "constraint",
            Self::Expectation => "expectation",
            Self::Grant => "grant",
            Self::Sql => "sql",
            Self::Limit => "limit",
            Self::Poison => "poison",
            Self::Key => "key",
            Self::Corrupt => "corrupt",
        }
    }

    /// The code with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

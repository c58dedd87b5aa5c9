//! What a client asks for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Key;

/// One SQLite value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A signed 64-bit integer.
    Integer(i64),
    /// A 64-bit float; SQLite stores NaN as NULL.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(#[serde(with = "serde_bytes")] Vec<u8>),
}

macro_rules! value_from {
    ($($from:ty => |$value:ident| $into:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        })*
    };
}

value_from! {
    i64 => |value| Self::Integer(value),
    i32 => |value| Self::Integer(value.into()),
    u32 => |value| Self::Integer(value.into()),
    bool => |value| Self::Integer(value.into()),
    f64 => |value| Self::Real(value),
    &str => |value| Self::Text(value.to_owned()),
    String => |value| Self::Text(value),
    Vec<u8> => |value| Self::Blob(value),
    &[u8] => |value| Self::Blob(value.to_vec()),
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// An SQL text and the database it is for: what a segment's dictionary defines once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Text {
    /// Name of the database, for example `activity`.
    pub database: String,
    /// Exactly one SQL statement.
    pub sql: String,
}

impl Text {
    /// Names a statement once, so that a hot path shares it instead of copying the SQL each time.
    pub fn new(database: impl Into<String>, sql: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { database: database.into(), sql: sql.into() })
    }
}

/// One SQL text with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What to run and where.
    pub text: Arc<Text>,
    /// Values of `?1`, `?2`, and so on.
    pub params: Vec<Value>,
    /// Rows this statement must change; any other number rejects the whole command.
    pub expect_rows: Option<u64>,
}

impl Statement {
    /// A statement without parameters.
    pub fn new(database: impl Into<String>, sql: impl Into<String>) -> Self {
        Self::of(Text::new(database, sql))
    }

    /// A statement of a shared text.
    #[must_use]
    pub fn of(text: Arc<Text>) -> Self {
        Self { text, params: Vec::new(), expect_rows: None }
    }

    /// Adds the value of the next parameter.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.params.push(value.into());
        self
    }

    /// Rejects the whole command unless this statement changes exactly `rows` rows.
    #[must_use]
    pub fn expect(mut self, rows: u64) -> Self {
        self.expect_rows = Some(rows);
        self
    }
}

/// One or more statements, applied all or nothing, possibly over several databases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// The same key gets the first outcome again, however often it is submitted.
    pub key: Option<Key>,
    /// In the order in which they run.
    pub statements: Vec<Statement>,
}

impl Command {
    /// A command with no statement yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a statement behind the others.
    #[must_use]
    pub fn and(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// Makes a repeated submit harmless.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }
}

impl From<Statement> for Command {
    fn from(statement: Statement) -> Self {
        Self { key: None, statements: vec![statement] }
    }
}

//! Builds a command of several statements where it is submitted.

use penholder_protocol::{Command, Key, Outcome, Statement, Value};

use crate::{Client, ClientError, Durability, Ticket};

/// Statements that are applied all or nothing, possibly over several databases; nothing happens before
/// [`execute`](Self::execute) or [`submit`](Self::submit).
#[derive(Debug)]
#[must_use = "a transaction does nothing until it is submitted"]
pub struct Transaction<'c> {
    client: &'c mut Client,
    command: Command,
}

impl<'c> Transaction<'c> {
    pub(crate) fn new(client: &'c mut Client) -> Self {
        Self { client, command: Command::new() }
    }

    /// Adds a statement for `database`; `params` are the values of `?1`, `?2`, and so on, see [`values!`](crate::values).
    pub fn statement(
        self,
        database: impl Into<String>,
        sql: impl Into<String>,
        params: impl IntoIterator<Item = Value>,
    ) -> Self {
        let mut statement = Statement::new(database, sql);
        statement.params.extend(params);
        self.and(statement)
    }

    /// Adds a statement.
    pub fn and(mut self, statement: Statement) -> Self {
        self.command.statements.push(statement);
        self
    }

    /// Rejects everything unless the statement added last changes exactly `rows` rows.
    pub fn expect(mut self, rows: u64) -> Self {
        if let Some(statement) = self.command.statements.last_mut() {
            statement.expect_rows = Some(rows);
        }
        self
    }

    /// Makes a repeated submit harmless.
    pub fn key(mut self, key: Key) -> Self {
        self.command.key = Some(key);
        self
    }

    /// Submits the statements and waits for their outcome; see [`Client::execute`].
    pub fn execute(self) -> Result<Outcome, ClientError> {
        self.client.execute(self.command)
    }

    /// Submits the statements; see [`Client::submit`].
    pub fn submit(self, durability: Durability) -> Result<Ticket, ClientError> {
        self.client.submit(self.command, durability)
    }
}

/// Makes an array of [`Value`](crate::Value)s of anything that converts into one: `values![1, "text", None::<i64>]`.
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::Value::from($value)),*] as [$crate::Value; _] };
}

//! The one-line form of a command: what `exec --stdin` reads and `rejected show` prints.

use std::collections::HashMap;
use std::sync::Arc;

use penholder_protocol::limits::DEFINITIONS_COUNT_MAX;
use penholder_protocol::{Command, Statement, Text};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::args;
use super::json::{self, AsJson};

/// Either one statement or `tx`, and for both an idempotency key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    db: Option<String>,
    sql: Option<String>,
    params: Option<Vec<Box<RawValue>>>,
    expect: Option<u64>,
    tx: Option<Vec<LineStatement>>,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineStatement {
    db: String,
    sql: String,
    params: Option<Vec<Box<RawValue>>>,
    expect: Option<u64>,
}

/// Reads lines; it keeps the texts it has seen, so that a repeated one is stored and compared once.
#[derive(Default)]
pub(super) struct Lines {
    texts: HashMap<String, HashMap<String, Arc<Text>>>,
    count: usize,
}

impl Lines {
    /// Reads one command.
    pub(super) fn parse(&mut self, line: &[u8]) -> Result<Command, String> {
        let line = object(line)?;
        let key = line.key.as_deref().map(args::key).transpose().map_err(|error| format!("key: {error}"))?;
        let statements = match (line.tx, line.db, line.sql) {
            (None, Some(db), Some(sql)) => {
                vec![LineStatement { db, sql, params: line.params, expect: line.expect }]
            }
            (Some(_), None, None) if line.params.is_some() || line.expect.is_some() => {
                return Err("params and expect belong to the statements inside tx".to_owned());
            }
            (Some(tx), None, None) if tx.is_empty() => return Err("tx holds no statement".to_owned()),
            (Some(tx), None, None) => tx,
            (Some(_), _, _) => return Err("db and sql belong to the statements inside tx".to_owned()),
            (None, None, _) => return Err("db is missing".to_owned()),
            (None, Some(_), None) => return Err("sql is missing".to_owned()),
        };
        let statements = statements.into_iter().map(|statement| self.statement(statement));
        Ok(Command { key, statements: statements.collect::<Result<_, _>>()? })
    }

    fn statement(&mut self, line: LineStatement) -> Result<Statement, String> {
        let mut params = Vec::new();
        for (number, raw) in (1..).zip(line.params.unwrap_or_default()) {
            params.push(json::value(&raw).map_err(|error| format!("parameter {number}: {error}"))?);
        }
        Ok(Statement { text: self.text(line.db, line.sql), params, expect_rows: line.expect })
    }

    fn text(&mut self, database: String, sql: String) -> Arc<Text> {
        if let Some(known) = self.texts.get(&database).and_then(|texts| texts.get(&sql)) {
            return Arc::clone(known);
        }
        if self.count >= DEFINITIONS_COUNT_MAX {
            self.texts.clear();
            self.count = 0;
        }
        self.count += 1;
        let text = Text::new(database.clone(), sql.clone());
        self.texts.entry(database).or_default().insert(sql, Arc::clone(&text));
        text
    }
}

/// Reads the object that a line is; serde would take an array for the fields of one.
fn object(line: &[u8]) -> Result<Line, String> {
    let parsed = match line.first() {
        Some(b'{') => serde_json::from_slice(line),
        _ => match serde_json::from_slice::<&RawValue>(line) {
            Ok(_) => return Err(r#"expected an object, such as {"db":"...","sql":"..."}"#.to_owned()),
            Err(error) => Err(error),
        },
    };
    parsed
        .map_err(|error| if error.is_data() { plain(&error) } else { format!("not JSON: {}", plain(&error)) })
}

/// What serde says, without the line number: there is only one line.
fn plain(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    let words = text.rsplit_once(" at line ").map_or(text.as_str(), |(words, _)| words);
    if column == 0 { words.to_owned() } else { format!("{words} at column {column}") }
}

/// Writes a command as such a line.
pub(super) struct CommandAsJson<'c>(pub(super) &'c Command);

impl Serialize for CommandAsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(command) = self;
        let mut map = serializer.serialize_map(None)?;
        match command.statements.as_slice() {
            [statement] => put_statement(&mut map, statement)?,
            statements => {
                let statements: Vec<_> = statements.iter().map(StatementAsJson).collect();
                map.serialize_entry("tx", &statements)?;
            }
        }
        if let Some(key) = command.key {
            map.serialize_entry("key", &uuid::Uuid::from_bytes(key.0).to_string())?;
        }
        map.end()
    }
}

struct StatementAsJson<'s>(&'s Statement);

impl Serialize for StatementAsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        put_statement(&mut map, self.0)?;
        map.end()
    }
}

fn put_statement<M: SerializeMap>(map: &mut M, statement: &Statement) -> Result<(), M::Error> {
    map.serialize_entry("db", &statement.text.database)?;
    map.serialize_entry("sql", &statement.text.sql)?;
    map.serialize_entry("params", &statement.params.iter().map(AsJson).collect::<Vec<_>>())?;
    match statement.expect_rows {
        Some(rows) => map.serialize_entry("expect", &rows),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop where it stands")]
mod tests {
    use penholder_protocol::Value;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Lines::default().parse(line.as_bytes())
    }

    #[test]
    fn a_line_is_one_statement_or_a_transaction() {
        let one = parse(
            r#"{"db":"a","sql":"S","params":[1,"x",null],"key":"67e55044-10b1-426f-9247-bb680e5fe0c8","expect":1}"#,
        );
        let one = one.unwrap();
        assert_eq!(one.statements[0].params, [Value::Integer(1), Value::Text("x".into()), Value::Null]);
        assert_eq!(one.statements[0].expect_rows, Some(1));
        assert_eq!(one.key.unwrap().0[..2], [0x67, 0xe5]);
        let two =
            parse(r#"{"tx":[{"db":"c","sql":"A"},{"db":"a","sql":"B","params":[2.0],"expect":0}]}"#).unwrap();
        assert_eq!(two.statements.len(), 2);
        assert_eq!(two.statements[1].params, [Value::Real(2.0)]);
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_command() {
        let command = Command::new()
            .and(Statement::new("a", "S").bind(i64::MAX).bind(vec![0_u8, 255]).bind(f64::INFINITY).expect(3))
            .and(Statement::new("b", "T\n\"quoted\""));
        let line = serde_json::to_string(&CommandAsJson(&command)).unwrap();
        assert_eq!(parse(&line), Ok(command));
        let command =
            Command::from(Statement::new("a", "S").bind(1)).with_key(penholder_protocol::Key([7; 16]));
        assert_eq!(parse(&serde_json::to_string(&CommandAsJson(&command)).unwrap()), Ok(command));
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong_with_it() {
        let cases = [
            ("", "not JSON: EOF"),
            ("{", "not JSON: EOF"),
            ("nonsense", "not JSON: "),
            ("[1", "not JSON: "),
            ("[1]", "expected an object"),
            (r#"["a","S"]"#, "expected an object"),
            ("null", "expected an object"),
            (r#"{"sql":"S"}"#, "db is missing"),
            (r#"{"db":"a"}"#, "sql is missing"),
            (r#"{"db":"a","sql":"S","parms":[1]}"#, "parms"),
            (r#"{"db":"a","sql":"S","params":[[1]]}"#, "parameter 1: an array"),
            (r#"{"db":"a","sql":"S","params":[99999999999999999999]}"#, "64 bits"),
            (r#"{"db":"a","sql":"S","params":[{"blob":"!"}]}"#, "base64"),
            (r#"{"db":"a","sql":"S","key":"x"}"#, "UUID"),
            (r#"{"db":"a","sql":"S","expect":-1}"#, "-1"),
            (r#"{"tx":[]}"#, "no statement"),
            (r#"{"tx":[{"db":"a","sql":"S"}],"expect":1}"#, "inside tx"),
            (r#"{"tx":[{"db":"a","sql":"S"}],"db":"a"}"#, "inside tx"),
            (r#"{"db":"a","sql":"S"} {}"#, "not JSON: trailing"),
        ];
        for (line, part) in cases {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_repeated_text_is_shared() {
        let mut lines = Lines::default();
        let mut text = || lines.parse(br#"{"db":"a","sql":"S"}"#).unwrap().statements[0].text.clone();
        assert!(Arc::ptr_eq(&text(), &text()));
    }
}

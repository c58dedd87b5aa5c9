//! The encoder: its hand-written layout, and what an error leaves behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use common::*;
use penholder_protocol::limits::{COMMAND_STATEMENTS_MAX, FRAME_BYTES_MAX};
use penholder_protocol::{
    Applied, Code, Command, EncodeError, Key, Outcome, Rejection, SegmentEncoder, Sequence, Statement,
    StreamId, Text, Tick, Value, encode_commands, encode_outcome,
};
use serde::Serialize;

#[derive(Serialize)]
struct WireStatement {
    text: u32,
    expect_rows: Option<u64>,
    params: Vec<Value>,
}

#[derive(Serialize)]
struct WireCommand {
    key: Option<Key>,
    statements: Vec<WireStatement>,
}

#[derive(Serialize)]
struct StoredStatement {
    text: Text,
    expect_rows: Option<u64>,
    params: Vec<Value>,
}

#[derive(Serialize)]
struct StoredCommand {
    stream: StreamId,
    sequence: Sequence,
    key: Option<Key>,
    statements: Vec<StoredStatement>,
}

fn derived<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::legacy()).unwrap()
}

#[test]
fn the_layout_written_piece_by_piece_is_the_one_that_the_types_derive() {
    let commands = sample_commands();
    let mut bytes = vec![0; HEADER];
    SegmentEncoder::new(&header()).encode(&commands, false, 1, &mut bytes).unwrap();
    let frames = frames_of(&bytes);
    let mut texts: Vec<&Text> = Vec::new();
    for statement in commands.iter().flat_map(|command| &command.statements) {
        if !texts.contains(&&*statement.text) {
            texts.push(&statement.text);
        }
    }
    assert_eq!(frames.len(), texts.len() + 1);
    for (at, text) in texts.iter().enumerate() {
        assert_eq!(frames[at].1[32..], derived(&(at as u32 + 1, &text.database, &text.sql)));
    }
    let wire_statement = |s: &Statement| WireStatement {
        text: texts.iter().position(|text| **text == *s.text).unwrap() as u32 + 1,
        expect_rows: s.expect_rows,
        params: s.params.clone(),
    };
    let wire: Vec<WireCommand> = commands
        .iter()
        .map(|c| WireCommand { key: c.key, statements: c.statements.iter().map(wire_statement).collect() })
        .collect();
    assert_eq!(frames[texts.len()].1[32..], derived(&wire));
}

#[test]
fn commands_for_a_row_of_a_database_have_the_layout_that_their_type_derives() {
    let commands = sample_commands();
    let statement = |s: &Statement| StoredStatement {
        text: (*s.text).clone(),
        expect_rows: s.expect_rows,
        params: s.params.clone(),
    };
    let stored: Vec<StoredCommand> = (1..)
        .zip(&commands)
        .map(|(n, c)| StoredCommand {
            stream: header().stream,
            sequence: Sequence(n),
            key: c.key,
            statements: c.statements.iter().map(statement).collect(),
        })
        .collect();
    let rows: Vec<_> = (1..).zip(&commands).map(|(n, c)| (header().stream, Sequence(n), c)).collect();
    assert_eq!(encode_commands(rows.into_iter()), derived(&stored));
}

#[test]
fn the_numbers_of_codes_values_and_outcomes_are_those_of_the_format() {
    for (number, code) in (0_u32..).zip(Code::ALL) {
        let rejected = Outcome::Rejected(Rejection { code, message: "m".into(), statement: Some(9) });
        let bytes = Bytes::new().u32(1).u32(number).text("m").u8(1).u32(9).0;
        assert_eq!(encode_outcome(&rejected), bytes);
        assert_eq!(Code::from_word(code.as_str()), Some(code));
    }
    let applied = Outcome::Applied(Applied { tick: Tick(5), results: None });
    assert_eq!(encode_outcome(&applied), Bytes::new().u32(0).u64(5).u8(0).0);
    let values = [
        (Value::Null, Bytes::new().u32(0)),
        (Value::Integer(-1), Bytes::new().u32(1).u64(u64::MAX)),
        (Value::Real(1.5), Bytes::new().u32(2).u64(0x3ff8_0000_0000_0000)),
        (Value::Text("\u{e9}".into()), Bytes::new().u32(3).u64(2).raw(&[0xc3, 0xa9])),
        (Value::Blob(vec![0, 255]), Bytes::new().u32(4).u64(2).raw(&[0, 255])),
    ];
    for (value, bytes) in values {
        assert_eq!(derived(&value), bytes.0);
    }
}

#[test]
fn a_text_is_defined_once_however_it_is_shared() {
    let shared = Text::new("a", "b");
    let commands: Vec<Command> = vec![
        Statement::of(shared.clone()).into(),
        Statement::new("a", "b").into(),
        Statement::of(shared).into(),
    ];
    let mut bytes = vec![0; HEADER];
    let mut encoder = SegmentEncoder::new(&header());
    encoder.encode(&commands, false, 1, &mut bytes).unwrap();
    encoder.encode(&commands, false, 1, &mut bytes).unwrap();
    let kinds: Vec<u8> = frames_of(&bytes).iter().map(|(_, frame)| frame[8]).collect();
    assert_eq!(kinds, [DEFINE, SUBMIT, SUBMIT]);
    assert_eq!(encoder.end(), bytes.len() as u64);
    assert_eq!(encoder.next_sequence(), Sequence(7));
}

#[test]
fn no_commands_are_no_bytes() {
    let mut bytes = Vec::new();
    SegmentEncoder::new(&header()).encode(&[], true, 1, &mut bytes).unwrap();
    assert!(bytes.is_empty());
}

/// Whether an error is the one that was expected.
type Refusal = fn(&EncodeError) -> bool;

#[test]
fn an_error_leaves_the_encoder_and_its_output_as_they_were() {
    let good = sample_commands();
    let fine = Command::from(Statement::new("new", "a text that nobody defined").bind("x".repeat(300_000)));
    let too_many =
        Command { key: None, statements: vec![Statement::new("n", "2"); COMMAND_STATEMENTS_MAX + 1] };
    let too_long = Statement::new("another", "one").bind("x".repeat(FRAME_BYTES_MAX));
    let too_many_texts =
        Command { key: None, statements: (0..4096).map(|n| Statement::new("a", n.to_string())).collect() };
    let cases: Vec<(Command, Refusal)> = vec![
        (Command::new(), |error| *error == EncodeError::Empty),
        (too_many, |error| matches!(error, EncodeError::TooLarge { limit: COMMAND_STATEMENTS_MAX, .. })),
        (too_long.into(), |error| matches!(error, EncodeError::TooLarge { limit: FRAME_BYTES_MAX, .. })),
        (too_many_texts, |error| *error == EncodeError::DictionaryFull),
    ];
    let mut expected = Vec::new();
    let mut untouched = SegmentEncoder::new(&header());
    untouched.encode(&good, false, 1, &mut expected).unwrap();
    // A text that only the failed append defined must be defined again.
    untouched.encode(std::slice::from_ref(&fine), true, 2, &mut expected).unwrap();
    for (bad, is_right) in cases {
        let mut bytes = Vec::new();
        let mut encoder = SegmentEncoder::new(&header());
        encoder.encode(&good, false, 1, &mut bytes).unwrap();
        let (before, end, next) = (bytes.clone(), encoder.end(), encoder.next_sequence());
        let error = encoder.encode(&[fine.clone(), bad, fine.clone()], false, 1, &mut bytes).unwrap_err();
        assert!(is_right(&error), "{error:?}");
        assert_eq!((&bytes, encoder.end(), encoder.next_sequence()), (&before, end, next));
        encoder.encode(std::slice::from_ref(&fine), true, 2, &mut bytes).unwrap();
        assert!(bytes == expected, "after {error:?} the next append is another");
    }
}

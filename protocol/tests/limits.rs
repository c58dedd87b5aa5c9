//! Both sides keep to every limit: what the encoder lets through the decoder takes, and what passes a limit is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use std::sync::Arc;

use common::*;
use penholder_protocol::limits::{
    COMMAND_STATEMENTS_MAX, DATABASE_NAME_BYTES_MAX, DEFINITIONS_COUNT_MAX, FRAME_BYTES_MAX,
    FRAME_BYTES_SOFT, FRAME_COMMANDS_MAX, RECORD_BYTES_MAX, SQL_BYTES_MAX, STATEMENT_PARAMS_MAX,
    SUBMIT_BYTES_MAX,
};
use penholder_protocol::receipt::{decode_record, encode_record};
use penholder_protocol::{
    Applied, Command, EncodeError, Outcome, SegmentEncoder, Sequence, Statement, StatementResult, Step, Text,
    Tick, Value, decode_commands, encode_commands,
};

fn encode(commands: &[Command]) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    SegmentEncoder::new(&header()).encode(commands, false, 1, &mut bytes).map(|()| bytes)
}

/// Asserts that commands survive, and returns how long each of their frames is.
fn round_trip(commands: &[Command]) -> Vec<usize> {
    let (found, end) = decode_frames(&encode(commands).unwrap());
    assert_eq!(end, Ok(Step::Incomplete));
    let read: Vec<Command> = found.iter().flat_map(|frame| frame.commands.unpack()).collect();
    assert!(read == commands, "the commands changed on their way");
    found.iter().map(|frame| frame.bytes).collect()
}

fn too_large(commands: &[Command], size: usize, limit: usize) {
    let error = encode(commands).unwrap_err();
    assert!(
        matches!(error, EncodeError::TooLarge { size: s, limit: l, .. } if (s, l) == (size, limit)),
        "{error:?}"
    );
}

#[test]
fn a_frame_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
    // Frame header 32, command count 8, no key 1, statement count 8, text 4, no expectation 1, parameter count 8,
    // type of the value 4, its length 8.
    let room = FRAME_BYTES_MAX - 74;
    let with = |bytes: usize| Command::from(Statement::new("a", "b").bind(vec![7_u8; bytes]));
    assert_eq!(round_trip(&[with(room)]), [FRAME_BYTES_MAX]);
    too_large(&[with(room + 1)], FRAME_BYTES_MAX + 1, FRAME_BYTES_MAX);
    // A decoder meets the same bound before it allocates anything.
    for length in [0_u32, 1, 31, 32, FRAME_BYTES_MAX as u32, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.resize(64, 1);
        let end = decode_frames(&bytes).1;
        match length {
            0 => assert_eq!(end, Ok(Step::End)),
            65..=4_194_304 => assert_eq!(end, Ok(Step::Incomplete)),
            _ => assert!(matches!(end, Err(penholder_protocol::DecodeError::Checksum { .. })), "{end:?}"),
        }
    }
}

#[test]
fn many_commands_are_spread_over_frames_of_the_soft_size() {
    let text = Text::new("activity", "INSERT");
    let command = |n: i64| Command::from(Statement::of(Arc::clone(&text)).bind(n).bind("x".repeat(1000)));
    let commands: Vec<Command> = (0..1000).map(command).collect();
    let frames = round_trip(&commands);
    assert_eq!(frames.len(), 4);
    assert!(frames.iter().all(|bytes| *bytes < FRAME_BYTES_SOFT + 2048), "{frames:?}");
}

#[test]
fn the_smallest_commands_fill_a_frame_up_to_its_soft_size_and_never_pass_its_count() {
    let command = Command::from(Statement::of(Text::new("a", "b")));
    let frames = round_trip(&vec![command.clone(); FRAME_COMMANDS_MAX + 1]);
    assert!(frames.len() > 1);
    let one = one_command(1)[8..].to_vec();
    for (count, taken) in [(FRAME_COMMANDS_MAX, true), (FRAME_COMMANDS_MAX + 1, false)] {
        let payload = Bytes::new().u64(count as u64).raw(&one.repeat(count)).0;
        let mut frames = define(HEADER, 1, "a", "b");
        frames.extend(submit(HEADER + frames.len(), count as u32, &payload));
        assert_eq!(decode_frames(&frames).0.len(), usize::from(taken), "{count} commands");
    }
}

#[test]
fn a_command_of_the_most_statements_is_taken_and_one_more_is_not() {
    let of = |count| Command { key: None, statements: vec![Statement::new("a", "b"); count] };
    round_trip(&[of(COMMAND_STATEMENTS_MAX)]);
    too_large(&[of(COMMAND_STATEMENTS_MAX + 1)], COMMAND_STATEMENTS_MAX + 1, COMMAND_STATEMENTS_MAX);
    let statements = Bytes::new().u32(1).u8(0).u64(0).0.repeat(COMMAND_STATEMENTS_MAX + 1);
    let payload = Bytes::new().u64(1).u8(0).u64(COMMAND_STATEMENTS_MAX as u64 + 1).raw(&statements).0;
    let mut frames = define(HEADER, 1, "a", "b");
    frames.extend(submit(HEADER + frames.len(), 1, &payload));
    assert_invalid(&error_of(&frames), "statements");
}

#[test]
fn a_statement_of_the_most_parameters_is_taken_and_one_more_is_not() {
    let of = |count| {
        let mut statement = Statement::new("a", "b");
        statement.params = vec![Value::Null; count];
        Command::from(statement)
    };
    round_trip(&[of(STATEMENT_PARAMS_MAX)]);
    too_large(&[of(STATEMENT_PARAMS_MAX + 1)], STATEMENT_PARAMS_MAX + 1, STATEMENT_PARAMS_MAX);
    let params = vec![0; 4 * (STATEMENT_PARAMS_MAX + 1)];
    let payload =
        Bytes::new().u64(1).u8(0).u64(1).u32(1).u8(0).u64(STATEMENT_PARAMS_MAX as u64 + 1).raw(&params).0;
    let mut frames = define(HEADER, 1, "a", "b");
    frames.extend(submit(HEADER + frames.len(), 1, &payload));
    assert_invalid(&error_of(&frames), "parameters");
}

#[test]
fn a_frame_full_of_the_smallest_values_is_taken() {
    // A million values of four bytes each: what takes eight times its size in memory when it is decoded.
    let mut statement = Statement::new("a", "b");
    statement.params = vec![Value::Null; 32_000];
    round_trip(&[Command { key: None, statements: vec![statement; 32] }]);
}

#[test]
fn texts_and_names_of_the_longest_size_are_taken_and_longer_ones_are_not() {
    let (sql, name) = ("s".repeat(SQL_BYTES_MAX + 1), "n".repeat(DATABASE_NAME_BYTES_MAX + 1));
    let statement = |name: &str, sql: &str| Command::from(Statement::new(name, sql));
    round_trip(&[statement(&name[1..], &sql[1..])]);
    too_large(&[statement("a", &sql)], SQL_BYTES_MAX + 1, SQL_BYTES_MAX);
    too_large(&[statement(&name, "b")], DATABASE_NAME_BYTES_MAX + 1, DATABASE_NAME_BYTES_MAX);
    assert_invalid(&error_of(&define(HEADER, 1, "a", &sql)), "SQL text");
    assert_invalid(&error_of(&define(HEADER, 1, &name, "b")), "database name");
}

#[test]
fn a_dictionary_takes_its_number_of_texts_and_no_more() {
    let command = |n: usize| Command::from(Statement::new("a", format!("SELECT {n}")));
    let mut commands: Vec<Command> = (0..DEFINITIONS_COUNT_MAX).map(command).collect();
    round_trip(&commands);
    commands.push(command(DEFINITIONS_COUNT_MAX));
    assert_eq!(encode(&commands), Err(EncodeError::DictionaryFull));
    let mut frames = Vec::new();
    for id in 1..=DEFINITIONS_COUNT_MAX as u32 + 1 {
        frames.extend(define(HEADER + frames.len(), id, "a", "b"));
    }
    assert_invalid(&error_of(&frames), "4097");
}

#[test]
fn one_submit_never_passes_its_limit() {
    let text = Text::new("a", "b");
    let megabyte = vec![0_u8; 1 << 20];
    let of = |count| vec![Command::from(Statement::of(Arc::clone(&text)).bind(&*megabyte)); count];
    assert!(encode(&of(63)).unwrap().len() < SUBMIT_BYTES_MAX);
    assert!(matches!(encode(&of(64)), Err(EncodeError::TooLarge { limit: SUBMIT_BYTES_MAX, .. })));
}

#[test]
fn commands_as_large_as_a_submit_survive_in_a_row_of_a_database() {
    let (_, stream) = (0, header().stream);
    let mut statement = Statement::new("a", "b");
    statement.params = vec![Value::Null; 32_000];
    let command = Command { key: None, statements: vec![statement; 30] };
    let rows: Vec<_> = (1..=16).map(|n| (stream, Sequence(n), &command)).collect();
    let bytes = encode_commands(rows.iter().copied());
    assert!(bytes.len() > SUBMIT_BYTES_MAX * 9 / 10);
    let read = decode_commands(&bytes).unwrap();
    assert!(read.iter().map(|(stream, sequence, command)| (*stream, *sequence, command)).eq(rows));
    assert!(decode_commands(&bytes[..bytes.len() - 1]).is_err());
}

#[test]
fn a_record_that_is_longer_than_a_record_may_be_is_refused() {
    let outcome = |bytes: usize| {
        let result =
            StatementResult { rows: vec![vec![Value::Blob(vec![1; bytes])]], ..StatementResult::default() };
        Outcome::Applied(Applied { tick: Tick(1), results: Some(vec![result]) })
    };
    let mut bytes = Vec::new();
    encode_record(1, 4096, Sequence(1), &outcome(0), &mut bytes);
    let room = RECORD_BYTES_MAX - bytes.len();
    for (more, taken) in [(room, true), (room + 1, false)] {
        let mut bytes = Vec::new();
        encode_record(1, 4096, Sequence(1), &outcome(more), &mut bytes);
        assert_eq!(decode_record(1, 4096, &bytes).is_ok(), taken, "{} bytes", bytes.len());
    }
}

//! Random commands survive, however the bytes are cut up on their way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

mod common;

use common::header;
use penholder_protocol::{
    Command, Key, PackedCommand, SegmentDecoder, SegmentEncoder, Sequence, Statement, Step, Text, Value,
    decode_commands, encode_commands,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A runner whose seed is printed, and taken from `PENHOLDER_SEED` if that is set.
fn runner(cases: u32) -> TestRunner {
    let mut drawn = [0; 8];
    getrandom::fill(&mut drawn).unwrap();
    let given = std::env::var("PENHOLDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or(u64::from_le_bytes(drawn));
    println!("seed: PENHOLDER_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_filter("NaN is not equal to itself", |real| !real.is_nan()).prop_map(Value::Real),
        ".{0,12}".prop_map(Value::Text),
        vec(any::<u8>(), 0..200).prop_map(Value::Blob),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let text = ("[a-c]{0,3}", "[a-c]{0,3}").prop_map(|(database, sql)| Text::new(database, sql));
    let statement = (text, vec(value(), 0..5), any::<Option<u64>>())
        .prop_map(|(text, params, expect_rows)| Statement { text, params, expect_rows });
    let key = any::<Option<[u8; 16]>>().prop_map(|key| key.map(Key));
    (key, vec(statement, 1..4)).prop_map(|(key, statements)| Command { key, statements })
}

#[test]
fn random_commands_survive_in_a_segment_that_arrives_in_pieces() {
    let submits = vec((vec(command(), 0..6), any::<bool>(), any::<u64>()), 1..6);
    let all = (submits, vec(any::<prop::sample::Index>(), 0..12));
    let tried = runner(400).run(&all, |(submits, cuts)| {
        let mut encoder = SegmentEncoder::new(&header());
        let mut bytes = header().encode().to_vec();
        for (commands, results, ns) in &submits {
            encoder.encode(commands, *results, *ns, &mut bytes).unwrap();
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| 128 + cut.index(bytes.len() - 127)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut decoder = SegmentDecoder::new(&header());
        let mut found = Vec::new();
        for end in ends {
            while let Step::Submitted(s) = decoder.next(&bytes[decoder.offset() as usize..end]).unwrap() {
                found.push((s.commands.unpack(), s.results, s.submitted_ns));
            }
        }
        prop_assert_eq!(decoder.offset(), encoder.end());
        prop_assert_eq!(decoder.next_sequence(), encoder.next_sequence());
        let sent: Vec<_> = submits.into_iter().filter(|(commands, ..)| !commands.is_empty()).collect();
        prop_assert_eq!(found, sent);
        Ok(())
    });
    tried.unwrap();
}

#[test]
fn random_commands_survive_in_a_row_of_a_database() {
    let tried = runner(300).run(&vec(command(), 0..6), |commands| {
        let rows: Vec<_> = (1..).zip(&commands).map(|(n, c)| (header().stream, Sequence(n), c)).collect();
        let bytes = encode_commands(rows.iter().copied());
        let foretold: usize = commands.iter().map(|c| PackedCommand::pack(c).read().stored_bytes()).sum();
        prop_assert_eq!(bytes.len(), 8 + foretold);
        let read = decode_commands(&bytes).unwrap();
        prop_assert!(read.iter().map(|(stream, sequence, c)| (*stream, *sequence, c)).eq(rows));
        Ok(())
    });
    tried.unwrap();
}

#[test]
fn random_bytes_with_a_right_checksum_never_panic() {
    let tried =
        runner(3000).run(&(any::<[u8; 16]>(), vec(any::<u8>(), 0..120), 1_u8..4), |(head, tail, kind)| {
            let mut frame = vec![0; 8];
            frame.extend([kind % 4, head[0] & 1, 0, 0, head[1] % 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            frame.extend(&head[8..]);
            frame.extend(tail);
            let length = frame.len() as u32;
            frame[..4].copy_from_slice(&length.to_le_bytes());
            common::reseal(&mut frame, 128, header().salt);
            let end = common::decode_frames(&frame).1;
            prop_assert!(!matches!(end, Ok(Step::End)), "{:?}", end);
            Ok(())
        });
    tried.unwrap();
}

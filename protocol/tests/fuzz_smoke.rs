//! The fuzz targets without a fuzzer: the corpus, and what a few thousand seeded changes make of it.
//!
//! `PENHOLDER_FUZZ_ROUNDS` and `PENHOLDER_FUZZ_SEED` change how many, and which. `protocol/fuzz` has the same targets
//! under libFuzzer, which finds more, given hours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and their data is small"
)]

mod common;

#[path = "../fuzz/src/lib.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::pedantic,
    reason = "it is a crate of its own, without the lints of this workspace"
)]
mod targets;

use std::path::{Path, PathBuf};

use common::{frames_of, header, sample_commands, sample_segment};
use penholder_protocol::receipt::ReceiptHeader;
use penholder_protocol::{
    Applied, Control, DatabaseSlot, Epoch, Outcome, SegmentKind, SegmentName, Sequence, StatementResult,
    StoreId, StreamId, Tick, Value, WriterState, encode_commands, encode_outcome,
};
use targets::{TARGETS, Target};

/// Changed inputs per target.
const ROUNDS: u64 = 3000;

/// Numbers at which lengths, counts and tags turn over.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 3, 31, 32, 255, 4096, 1 << 22, u32::MAX as u64, i64::MAX as u64, u64::MAX];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|item| item.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Numbers that depend on the seed alone (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    /// One change of what a fuzzer would try.
    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        match self.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let from = self.below(other.len());
                let end = from + self.below(other.len() - from + 1);
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), other[from..end].iter().copied());
            }
            4 => {
                let end = at + self.below(bytes.len() - at + 1);
                bytes.drain(at..end);
            }
            _ => {
                let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)];
                let end = (at + width).min(bytes.len());
                bytes.splice(at.min(end)..end, number[..width].iter().copied());
            }
        }
    }
}

fn run(target: &Target, bytes: &[u8], what: &str) {
    let ended = std::panic::catch_unwind(|| (target.run)(bytes));
    if let Err(panic) = ended {
        let file = std::env::temp_dir().join(format!("penholder-fuzz-{}", target.name));
        std::fs::write(&file, bytes).unwrap();
        eprintln!("{}: {what}; the input is in {}", target.name, file.display());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn every_decoder_keeps_its_promises_on_the_corpus_and_on_what_is_made_of_it() {
    let (rounds, seed) = (setting("PENHOLDER_FUZZ_ROUNDS", ROUNDS), setting("PENHOLDER_FUZZ_SEED", 42));
    println!("seed {seed}, {rounds} rounds per target");
    for target in &TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has a corpus", target.name);
        for (path, bytes) in &corpus {
            run(target, bytes, &path.display().to_string());
        }
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for round in 0..rounds {
            let mut bytes = corpus[random.below(corpus.len())].1.clone();
            let other = &corpus[random.below(corpus.len())].1;
            for _ in 0..=random.below(4) {
                random.change(&mut bytes, other);
            }
            run(target, &bytes, &format!("seed {seed}, round {round}"));
        }
    }
}

#[test]
fn every_target_has_a_program_for_the_fuzzer() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    for Target { name, .. } in &TARGETS {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/src/bin/{name}.rs"));
        let text = std::fs::read_to_string(program).unwrap();
        assert!(text.contains(&format!("penholder_protocol_fuzz::{name}(bytes)")), "{text}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is in the manifest");
    }
}

#[test]
#[ignore = "writes the corpus; for a change of the format"]
fn the_corpus_is_what_the_encoders_write() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(root.join(target)).unwrap();
        std::fs::write(root.join(target).join(name), bytes).unwrap();
    };
    let segment = sample_segment();
    write("segment", "sample", &segment);
    write("segment", "header", &segment[..common::HEADER]);
    write("segment", "cut", &segment[..segment.len() - 7]);
    let mut bodies = Vec::new();
    for (_, frame) in frames_of(&segment) {
        bodies.extend((frame.len() as u16 - 8).to_le_bytes());
        bodies.extend(&frame[8..]);
    }
    write("frame", "sample", &bodies);
    let page = ReceiptHeader { store: StoreId([1; 16]), stream: header().stream, salt: 7 }.encode();
    write("receipt", "page", &page[..128]);
    for (name, outcome) in outcomes() {
        let payload = encode_outcome(&outcome);
        let body = [&[3, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8], &payload].concat();
        write("record", name, &body);
        write("stored", name, &payload);
    }
    let commands = sample_commands();
    let numbered = commands.iter().map(|command| (header().stream, Sequence(7), command));
    write("stored", "commands", &encode_commands(numbered));
    write("control", "both", &control());
    let name = SegmentName { stream: StreamId([0xab; 16]), number: 0x12, kind: SegmentKind::Live };
    write("names", "live", name.to_string().as_bytes());
    write("names", "sealed", SegmentName { kind: SegmentKind::Sealed, ..name }.to_string().as_bytes());
    write("names", "stream", name.stream.to_string().as_bytes());
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let result = StatementResult {
        changes: 2,
        last_insert_rowid: -1,
        rows: vec![
            vec![Value::Null, Value::Real(0.5)],
            vec![Value::Text("é".into()), Value::Blob(vec![0, 255])],
        ],
        rows_truncated: true,
    };
    let rejection = penholder_protocol::Rejection {
        code: penholder_protocol::Code::Grant,
        message: "no".to_owned(),
        statement: Some(3),
    };
    vec![
        ("applied", Outcome::Applied(Applied { tick: Tick(5), results: None })),
        ("results", Outcome::Applied(Applied { tick: Tick(5), results: Some(vec![result]) })),
        ("rejected", Outcome::Rejected(rejection)),
    ]
}

fn control() -> Vec<u8> {
    let slot = |name: &str| DatabaseSlot { name: name.to_owned(), reclaimed: Tick(3) };
    let mut control = Control {
        store: StoreId([1; 16]),
        generation: 0,
        epoch: Epoch(2),
        floor: Epoch(1),
        state: WriterState::Running,
        pid: 1,
        torn: 0,
        quarantined: 0,
        foreign_writes: 0,
        quota_stream_bytes: 1,
        free_bytes_min: 1,
        suspect: Some((header().stream, Sequence(4))),
        fruitless_starts: 1,
        databases: vec![slot("config"), slot("activity")],
    };
    let path = std::env::temp_dir().join(format!("penholder-corpus-{}", std::process::id()));
    let file = std::fs::File::create_new(&path).unwrap();
    control.write_to(&file, false).unwrap();
    control.write_to(&file, false).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    bytes
}

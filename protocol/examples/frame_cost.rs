//! What a command costs in a frame of its own and in a frame of many; see `docs/decisions/0002`.
//!
//! `cargo run --release -p penholder-protocol --example frame_cost`

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement ends at the first surprise")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "numbers of a measurement are small"
)]

use std::hint::black_box;
use std::time::Instant;

use penholder_protocol::{
    Command, Epoch, SegmentDecoder, SegmentEncoder, SegmentHeader, Sequence, Statement, Step, StoreId,
    StreamId, Text,
};

const COMMANDS: usize = 50_000;

fn main() {
    let header = SegmentHeader {
        store: StoreId([1; 16]),
        stream: StreamId([2; 16]),
        number: 1,
        epoch: Epoch(1),
        first_sequence: Sequence(1),
        salt: 3,
        boot: [0; 16],
        inode: 0,
    };
    let text = Text::new("activity", "INSERT INTO activity_events (at, kind, detail) VALUES (?1, ?2, ?3)");
    let command = |n: i64| {
        Command::from(Statement::of(text.clone()).bind(n).bind("focus").bind("a window title of some length"))
    };
    let commands: Vec<Command> = (0..).map(command).take(COMMANDS).collect();
    println!("commands/frame  bytes/command  encode ns  decode ns  (best of 9, a command of 3 parameters)");
    for per_frame in [1, 10, 100, 1000, 10_000] {
        let (mut encode, mut decode, mut size) = (f64::MAX, f64::MAX, 0);
        for _ in 0..9 {
            let mut bytes = Vec::with_capacity(16 << 20);
            let mut encoder = SegmentEncoder::new(&header);
            let begun = Instant::now();
            for some in commands.chunks(per_frame) {
                encoder.encode(black_box(some), false, 1, &mut bytes).unwrap();
            }
            encode = encode.min(begun.elapsed().as_nanos() as f64);
            size = bytes.len();
            let mut decoder = SegmentDecoder::new(&header);
            let begun = Instant::now();
            let mut count = 0;
            while let Step::Submitted(submitted) =
                decoder.next(&bytes[decoder.offset() as usize - 128..]).unwrap()
            {
                count += black_box(submitted).commands.len();
            }
            decode = decode.min(begun.elapsed().as_nanos() as f64);
            assert_eq!(count, COMMANDS);
        }
        let each = |total: f64| total / COMMANDS as f64;
        println!(
            "{per_frame:>14}  {:>13.0}  {:>9.0}  {:>9.0}",
            each(size as f64),
            each(encode),
            each(decode)
        );
    }
}

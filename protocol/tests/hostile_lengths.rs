//! A length is a claim, and nothing is allocated on a claim alone.
//!
//! The only test of its binary: it looks at how far the whole process has ever reached out for memory.

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
use penholder_protocol::{decode_commands, decode_outcome};

/// The most bytes this process has ever mapped, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[test]
fn counts_that_announce_gigabytes_allocate_next_to_nothing() {
    let before = peak_bytes();
    let sizes =
        [1_u64 << 20, 1 << 24, 1 << 31, u64::from(u32::MAX), 1 << 33, 1 << 40, i64::MAX as u64, u64::MAX];
    for size in sizes {
        let starts = [
            Bytes::new().u64(size),
            Bytes::new().u64(1).u8(0).u64(size),
            Bytes::new().u64(1).u8(0).u64(1).u32(1).u8(0).u64(size),
            Bytes::new().u64(1).u8(0).u64(1).u32(1).u8(0).u64(1).u32(3).u64(size),
            Bytes::new().u64(1).u8(0).u64(1).u32(1).u8(0).u64(1).u32(4).u64(size),
        ];
        for start in starts {
            for tail in [0, 7, 100_000] {
                let payload = [start.0.clone(), vec![0; tail]].concat();
                let mut frames = define(HEADER, 1, "a", "b");
                frames.extend(submit(HEADER + frames.len(), 1, &payload));
                error_of(&frames);
            }
            decode_commands(&[&[1, 0, 0, 0, 0, 0, 0, 0][..], &[1; 24], &start.0].concat()).unwrap_err();
            decode_commands(&start.0).unwrap_err();
        }
        for start in [Bytes::new().u32(1).u64(size), Bytes::new().u32(1).text("a").u64(size)] {
            let frame =
                Frame { kind: DEFINE, flags: 0, reserved: 0, count: 0, sequence: 1, payload: &start.0 };
            error_of(&frame.at(HEADER, header().salt));
        }
        decode_outcome(&Bytes::new().u32(0).u64(1).u8(1).u64(size).0).unwrap_err();
        decode_outcome(&Bytes::new().u32(1).u32(0).u64(size).0).unwrap_err();
    }
    let Some((before, after)) = before.zip(peak_bytes()) else {
        println!("skipped the check of memory: this system does not tell");
        return;
    };
    // A row of a database may hold 64 MiB in one value, which bounds what a text of a row reserves.
    assert!(after - before < 400 << 20, "memory grew by {} bytes", after - before);
}

//! The progress cell, as the process that waits sees it while the other publishes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penholder_protocol::receipt::{HEADER_BYTES, ReceiptHeader, STATE_OPEN, STATE_QUARANTINED};
use penholder_protocol::{Progress, ProgressCell, Sequence, StoreId, StreamId, Tick};

fn receipt_file() -> (tempfile::NamedTempFile, ReceiptHeader) {
    let header = ReceiptHeader { store: StoreId([1; 16]), stream: StreamId([2; 16]), salt: 3 };
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&header.encode(), 0).unwrap();
    (file, header)
}

fn cell(applied: u64, state: u32) -> ProgressCell {
    let tick = Tick(applied * 2);
    ProgressCell { applied: Sequence(applied), tick, records_start: 4096, records_end: 4096 + applied, state }
}

#[test]
fn a_new_header_page_has_an_empty_cell_and_publishing_does_not_touch_the_header() {
    let (file, header) = receipt_file();
    let progress = Progress::map_writer(file.as_file()).unwrap();
    let empty = ProgressCell {
        applied: Sequence(0),
        tick: Tick(0),
        records_start: 4096,
        records_end: 4096,
        state: 0,
    };
    assert_eq!(progress.read(), empty);
    let reader = Progress::map_reader(&File::open(file.path()).unwrap()).unwrap();
    let bell = reader.bell();
    progress.publish(cell(9, STATE_QUARANTINED));
    assert_eq!(reader.read(), cell(9, STATE_QUARANTINED));
    assert_ne!(reader.bell(), bell);
    reader.wait(bell, Duration::from_mins(1));
    let mut page = [0; HEADER_BYTES];
    file.as_file().read_exact_at(&mut page, 0).unwrap();
    assert_eq!(ReceiptHeader::decode(&page), Ok(header));
}

#[test]
fn a_file_shorter_than_its_header_page_is_not_mapped() {
    let (file, _) = receipt_file();
    file.as_file().set_len(4095).unwrap();
    assert!(Progress::map_reader(file.as_file()).is_err());
    assert!(Progress::map_writer(file.as_file()).is_err());
}

#[test]
#[should_panic(expected = "mapped for reading")]
fn publishing_through_a_mapping_for_reading_is_a_programmer_error() {
    let (file, _) = receipt_file();
    Progress::map_reader(file.as_file()).unwrap().publish(cell(1, STATE_OPEN));
}

/// Otherwise a command that was applied just before the quarantine would be reported as rejected.
#[test]
fn whoever_sees_the_quarantine_sees_the_last_applied_sequence_too() {
    const ROUNDS: u64 = 200_000;
    let (file, _) = receipt_file();
    let writer = Progress::map_writer(file.as_file()).unwrap();
    let reader = Progress::map_reader(&File::open(file.path()).unwrap()).unwrap();
    let (turn, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                writer.publish(cell(0, STATE_OPEN));
                turn.store(round, Ordering::Release);
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                writer.publish(cell(5, STATE_QUARANTINED));
                while seen.load(Ordering::Acquire) != round {
                    std::hint::spin_loop();
                }
            }
        });
        for round in 1..=ROUNDS {
            while turn.load(Ordering::Acquire) != round {
                std::hint::spin_loop();
            }
            let mut wrong = None;
            loop {
                let cell = reader.read();
                if cell.state == STATE_QUARANTINED && cell.applied != Sequence(5) {
                    wrong = Some(cell);
                }
                if cell.applied == Sequence(5) {
                    assert_eq!((cell.tick, cell.records_end), (Tick(10), 4101));
                    break;
                }
            }
            seen.store(round, Ordering::Release);
            if let Some(cell) = wrong {
                seen.store(ROUNDS, Ordering::Release);
                std::process::exit({
                    eprintln!("round {round}: {cell:?}");
                    101
                });
            }
        }
    });
}

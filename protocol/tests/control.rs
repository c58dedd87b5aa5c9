//! The control file: two copies, of which one is always whole.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use penholder_protocol::{
    Control, DatabaseSlot, DecodeError, Epoch, Sequence, StoreId, StreamId, Tick, WriterState, limits,
};

fn content() -> Control {
    Control {
        store: StoreId([7; 16]),
        generation: 0,
        epoch: Epoch(3),
        floor: Epoch(2),
        state: WriterState::Running,
        pid: 4242,
        torn: 1,
        quarantined: 2,
        foreign_writes: 3,
        quota_stream_bytes: 1 << 26,
        free_bytes_min: 1 << 28,
        suspect: Some((StreamId([9; 16]), Sequence(11))),
        fruitless_starts: 4,
        databases: ["config", "activity"]
            .map(|name| DatabaseSlot { name: name.into(), reclaimed: Tick(5) })
            .into(),
    }
}

fn open() -> File {
    tempfile::tempfile().unwrap()
}

/// The reason for which a control file is refused.
fn refusal(file: &File) -> DecodeError {
    let error = Control::read_from(file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    error.into_inner().unwrap().downcast_ref::<DecodeError>().unwrap().clone()
}

/// Changes bytes of a copy and makes its checksum right again.
fn rewrite(file: &File, copy: u64, at: usize, bytes: &[u8]) {
    let mut page = [0; 512];
    file.read_exact_at(&mut page, copy * 4096).unwrap();
    page[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32fast::hash(&page[..508]);
    page[508..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&page, copy * 4096).unwrap();
}

#[test]
fn every_field_survives_and_the_newer_copy_counts() {
    let file = open();
    let mut control = content();
    for round in 1..=6 {
        control.torn += 1;
        control.suspect = (round % 2 == 0).then_some((StreamId([8; 16]), Sequence(round)));
        control.state = [WriterState::Stopped, WriterState::Stalled, WriterState::Running]
            [usize::from(round % 2 == 0) + usize::from(round % 3 == 0)];
        control.write_to(&file, round % 2 == 1).unwrap();
        assert_eq!(control.generation, round);
        assert_eq!(Control::read_from(&file).unwrap(), control);
    }
}

#[test]
fn the_most_databases_with_the_longest_names_fit() {
    let file = open();
    let name = |n: usize| format!("{n}").repeat(limits::DATABASE_NAME_BYTES_MAX);
    let slot = |n| DatabaseSlot { name: name(n), reclaimed: Tick(u64::MAX - n as u64) };
    let mut control =
        Control { databases: (0..limits::DATABASES_COUNT_MAX).map(slot).collect(), ..content() };
    control.write_to(&file, false).unwrap();
    assert_eq!(Control::read_from(&file).unwrap(), control);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let slots = |names: &[&str]| {
        names
            .iter()
            .map(|name| DatabaseSlot { name: (*name).to_owned(), reclaimed: Tick(0) })
            .collect::<Vec<_>>()
    };
    for databases in [slots(&["a"; 9]), slots(&["config", &"x".repeat(25)]), slots(&[""]), slots(&["a\0b"])] {
        let file = open();
        let mut control = content();
        control.write_to(&file, false).unwrap();
        let mut changed = Control { databases, ..control.clone() };
        assert_eq!(changed.write_to(&file, false).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(changed.generation, control.generation);
        assert_eq!(Control::read_from(&file).unwrap(), control);
    }
}

#[test]
fn a_torn_write_of_one_copy_leaves_the_other() {
    for kept in 0..512 {
        let file = open();
        let mut old = content();
        old.write_to(&file, false).unwrap();
        old.write_to(&file, false).unwrap();
        let mut new = Control { pid: !0, torn: !0, epoch: Epoch(!0), ..old.clone() };
        let whole = open();
        new.write_to(&whole, false).unwrap();
        let mut page = [0; 512];
        whole.read_exact_at(&mut page, 4096).unwrap();
        file.write_all_at(&page[..kept], 4096).unwrap();
        assert_eq!(Control::read_from(&file).unwrap(), old, "{kept} bytes of the new copy");
    }
}

#[test]
fn damage_to_both_copies_is_an_error_and_never_another_content() {
    for bit in 0..512 * 8 {
        let file = open();
        let mut control = content();
        control.write_to(&file, false).unwrap();
        control.write_to(&file, false).unwrap();
        for copy in [0, 4096] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, copy + bit / 8).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], copy + bit / 8).unwrap();
        }
        let error = refusal(&file);
        let expected = if bit < 64 {
            DecodeError::Magic { what: "control file" }
        } else {
            DecodeError::Checksum { what: "control file", offset: 0 }
        };
        assert_eq!(error, expected, "bit {bit}");
    }
}

#[test]
fn a_file_that_is_empty_short_or_of_another_kind_is_an_error() {
    let file = open();
    assert_eq!(refusal(&file), DecodeError::Magic { what: "control file" });
    content().write_to(&file, false).unwrap();
    file.set_len(4096 + 511).unwrap();
    assert_eq!(refusal(&file), DecodeError::Checksum { what: "control file", offset: 0 });
}

#[test]
fn a_whole_copy_of_a_newer_version_is_never_passed_over_for_an_older_one() {
    for (at, bytes, version, flags) in [(8, &[2, 0][..], 2, 0), (12, &[1][..], 1, 1)] {
        for copy in 0..2 {
            let file = open();
            let mut control = content();
            control.write_to(&file, false).unwrap();
            control.write_to(&file, false).unwrap();
            rewrite(&file, copy, at, bytes);
            assert_eq!(refusal(&file), DecodeError::Unsupported { what: "control file", version, flags });
        }
    }
}

#[test]
fn fields_out_of_range_make_a_copy_invalid() {
    for (at, bytes) in [(56, &[3][..]), (132, &[9][..]), (136, &[0xff][..]), (136, &[0][..])] {
        let file = open();
        content().write_to(&file, false).unwrap();
        rewrite(&file, 1, at, bytes);
        assert!(matches!(refusal(&file), DecodeError::Invalid { .. }), "{at}");
    }
}

#[test]
fn a_write_that_failed_is_repeated_over_the_same_copy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut control = content();
    control.write_to(&file, false).unwrap();
    control.write_to(&file, false).unwrap();
    let good = control.clone();
    let read_only = File::open(&path).unwrap();
    for _ in 0..3 {
        control.write_to(&read_only, true).unwrap_err();
        // Generation 2 stands in the only copy that is surely whole: the next write must not go there.
        assert_eq!(control.generation, good.generation);
    }
}

#[test]
fn a_reader_beside_a_busy_writer_always_finds_a_whole_copy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    content().write_to(&file, false).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut control = content();
            control.generation = 1;
            for round in 0..100_000_u64 {
                control.torn = round;
                control.quarantined = !round;
                control.write_to(&file, false).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut reads = 0;
        while !done.load(Ordering::Acquire) {
            let read = Control::read(&path).unwrap();
            assert!(read.quarantined == !read.torn || read.generation == 1, "a mixture of two contents");
            reads += 1;
        }
        println!("{reads} reads");
    });
}

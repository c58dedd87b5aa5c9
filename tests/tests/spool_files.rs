//! Whatever lies in the spool that is not a good segment: ignored or quarantined, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penholder_protocol::{Command, Outcome, SegmentName, Statement, StreamId};
use penholder_tests::{Mix, Plan, SealedSegment, Store};
use rustix::fs::{CWD, FileType, Mode, mknodat};

fn insert(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new("activity", sql).bind(sequence).into()
}

fn rows(store: &Store) -> i64 {
    store.number("activity", "SELECT count(*) FROM ledger")
}

/// A name that the writer must look at.
fn some_name() -> String {
    format!("{}-00000001.seg", StreamId::random().unwrap())
}

fn small_segment(store: &Store, client: u64) -> SealedSegment {
    let plan = Plan::new(client, Mix::Activity);
    SealedSegment::new(&store.path()).frame([plan.command(1)]).frame([plan.command(2), plan.command(3)])
}

/// A new client is served at once, while whatever was put into the spool lies there.
fn bystander_is_served(store: &Store) {
    // Quarantine may come before what was good in front of the damage is applied: only the client's own rows count.
    let own = || store.number("activity", "SELECT count(*) FROM ledger WHERE client = 7");
    let (before, begun) = (own(), Instant::now());
    let outcome = store.client().execute(insert(1)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "served only after {:?}", begun.elapsed());
    assert_eq!(own(), before + 1);
}

/// Puts something into the spool of a running writer, and once more before a writer starts.
fn is_harmless(what: &str, put: impl Fn(&Store, &Path)) {
    let mut store = Store::started();
    put(&store, &store.layout().spool());
    bystander_is_served(&store);
    std::thread::sleep(Duration::from_millis(1200));
    bystander_is_served(&store);
    assert!(store.stop().success(), "{what}");
    put(&store, &store.layout().spool());
    store.start();
    bystander_is_served(&store);
    assert_eq!(rows(&store), 3, "{what}");
    assert!(store.stop().success(), "{what}");
    assert!(store.once().success(), "{what}");
}

#[test]
fn a_fifo_does_not_hang_the_writer() {
    is_harmless("fifo", |_, spool| {
        mknodat(CWD, spool.join(some_name()), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    });
}

#[test]
fn a_symbolic_link_is_not_followed() {
    is_harmless("symlink", |store, spool| {
        let plan = Plan::new(1, Mix::Activity);
        let segment = SealedSegment::new(&store.path()).frame([plan.command(1)]);
        let outside = store.scratch().join(format!("outside-{}", segment.name()));
        std::fs::write(&outside, segment.bytes()).unwrap();
        std::os::unix::fs::symlink(&outside, spool.join(segment.name().to_string())).unwrap();
        std::os::unix::fs::symlink("/dev/zero", spool.join(some_name())).unwrap();
        std::os::unix::fs::symlink(store.layout().database("activity"), spool.join(some_name())).unwrap();
        std::os::unix::fs::symlink("nowhere", spool.join(some_name())).unwrap();
    });
}

#[test]
fn a_hard_link_is_not_taken_for_a_segment_and_its_other_name_stays() {
    is_harmless("hard link", |store, spool| {
        let plan = Plan::new(1, Mix::Activity);
        let segment = SealedSegment::new(&store.path()).frame([plan.command(1)]);
        let outside = store.scratch().join(format!("linked-{}", segment.name()));
        std::fs::write(&outside, segment.bytes()).unwrap();
        std::fs::hard_link(&outside, spool.join(segment.name().to_string())).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(std::fs::read(&outside).unwrap(), segment.bytes(), "a foreign file was touched");
    });
}

#[test]
fn a_directory_under_a_segments_name_is_harmless() {
    is_harmless("directory", |_, spool| {
        let directory = spool.join(some_name());
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("content"), "something").unwrap();
    });
}

#[test]
fn a_socket_under_a_segments_name_is_harmless() {
    is_harmless("socket", |_, spool| {
        drop(std::os::unix::net::UnixListener::bind(spool.join(some_name())).unwrap());
    });
}

#[test]
fn a_device_under_a_segments_name_is_harmless() {
    let probe = tempfile::tempdir().unwrap();
    let zero = rustix::fs::makedev(1, 5);
    let make =
        |path: PathBuf| mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), zero);
    if let Err(error) = make(probe.path().join("zero")) {
        println!("SKIPPED: making a device is not permitted here: {error}");
        return;
    }
    is_harmless("device", |_, spool| make(spool.join(some_name())).unwrap());
}

#[test]
fn a_file_without_any_permission_is_harmless() {
    is_harmless("mode 000", |store, _| {
        let path = small_segment(store, 0).drop_bytes(&store.path(), b"secret");
        // The writer may have taken it away by now.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).ok();
    });
}

#[test]
fn a_sparse_terabyte_is_refused_without_being_read() {
    is_harmless("sparse", |store, spool| {
        let whole = std::fs::File::create(spool.join(some_name())).unwrap();
        whole.set_len(1 << 40).unwrap();
        let header = SealedSegment::new(&store.path());
        let path = header.drop_into(&store.path());
        if let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) {
            file.set_len(1 << 40).unwrap();
        }
    });
}

#[test]
fn odd_names_are_ignored() {
    let mut store = Store::started();
    let id = StreamId::random().unwrap().to_string();
    let long = "x".repeat(255);
    let names: [&[u8]; 14] = [
        b"\xff\xfe\x80",
        b"line\nbreak.seg",
        b"\x1b[31mred.seg",
        b".hidden",
        b"README",
        b"core",
        long.as_bytes(),
        b"00000000000000000000000000000000-00000001.seg.tmp",
        &[id.as_bytes(), b"-1.seg"].concat(),
        &[id.as_bytes(), b"-00000000.seg"].concat(),
        &[id.as_bytes(), b"-0000000G.seg"].concat(),
        &[id.as_bytes(), b"-00000001.SEG"].concat(),
        &[id.to_uppercase().as_bytes(), b"-00000001.seg"].concat(),
        &[id.as_bytes(), b"-000000001.live"].concat(),
    ];
    let content = small_segment(&store, 1).bytes();
    for name in names {
        std::fs::write(store.layout().spool().join(OsStr::from_bytes(name)), &content).unwrap();
    }
    bystander_is_served(&store);
    std::thread::sleep(Duration::from_millis(1200));
    assert!(store.stop().success());
    assert!(store.once().success());
    for name in names {
        let path = store.layout().spool().join(OsStr::from_bytes(name));
        // The upper-case twin of an all-digits id would be a real name.
        let is_segment = std::str::from_utf8(name).ok().and_then(SegmentName::parse).is_some();
        assert!(is_segment || path.exists(), "{path:?} was taken for a segment");
    }
    assert_eq!(rows(&store), 1);
}

#[test]
fn garbage_is_quarantined_with_a_reason() {
    let store = Store::started();
    let samples: [Vec<u8>; 6] = [
        b"hello".to_vec(),
        vec![0xff; 4096],
        (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect(),
        small_segment(&store, 1).bytes()[..60].to_vec(),
        [
            small_segment(&store, 2).bytes(),
            b"tail that is no frame, and longer than a frame's header".to_vec(),
        ]
        .concat(),
        std::fs::read(store.layout().control()).unwrap(),
    ];
    let mut names = Vec::new();
    for sample in &samples {
        let segment = SealedSegment::new(&store.path());
        segment.drop_bytes(&store.path(), sample);
        names.push(segment.name().to_string());
    }
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    bystander_is_served(&store);
    assert_eq!(store.quarantined().len(), samples.len(), "{:?}", store.quarantined());
    for (name, sample) in names.iter().zip(&samples) {
        let kept = std::fs::read(store.layout().quarantine().join(name)).unwrap();
        assert!(kept == *sample, "the original bytes are kept: {name}");
        let reason =
            std::fs::read_to_string(store.layout().quarantine().join(format!("{name}.reason"))).unwrap();
        assert!(reason.len() > 10, "{name}: {reason}");
    }
}

#[test]
fn an_unknown_version_or_flag_is_quarantined_and_says_so() {
    let store = Store::started();
    for (at, value) in [(8, 2_u8), (12, 1)] {
        let segment = small_segment(&store, 1);
        let mut bytes = segment.bytes();
        bytes[at] = value;
        let crc = crc32(&bytes[..124]);
        bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        segment.drop_bytes(&store.path(), &bytes);
        store.wait_until("an empty spool", |store| store.segments().is_empty());
        let reason = store.layout().quarantine().join(format!("{}.reason", segment.name()));
        let reason = std::fs::read_to_string(reason).unwrap();
        assert!(reason.contains("newer Penholder"), "{reason}");
    }
    bystander_is_served(&store);
    assert_eq!(rows(&store), 1);
}

/// CRC-32 (IEEE), bit by bit: a second opinion on the one in the protocol.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[test]
fn an_empty_or_zeroed_segment_is_nothing() {
    let store = Store::started();
    for content in [Vec::new(), vec![0; 128], vec![0; 10_000]] {
        SealedSegment::new(&store.path()).drop_bytes(&store.path(), &content);
    }
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    bystander_is_served(&store);
}

#[test]
fn a_thousand_bad_files_do_not_keep_the_writer_from_starting() {
    let mut store = Store::started();
    assert!(store.stop().success());
    for number in 0..1000_usize {
        let segment = SealedSegment::new(&store.path());
        segment.drop_bytes(&store.path(), &vec![0x5a; number]);
    }
    store.start();
    bystander_is_served(&store);
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    bystander_is_served(&store);
}

#[test]
fn a_bystander_does_not_wait_for_thousands_of_bad_files() {
    let store = Store::started();
    for _ in 0..3000 {
        SealedSegment::new(&store.path()).drop_bytes(&store.path(), &[0x5a; 300]);
    }
    // By what was done before it, not by the time that took: the rest is still there, each time.
    for _ in 0..3 {
        bystander_is_served(&store);
        let left = store.segments().len();
        assert!(left > 100, "served after all of them but {left}");
    }
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    assert_eq!(store.quarantined().len(), 3000);
}

#[test]
fn what_is_quarantined_under_a_name_is_not_replaced_by_the_next() {
    let store = Store::started();
    let segment = SealedSegment::new(&store.path());
    for round in 0..3 {
        segment.drop_bytes(&store.path(), &vec![0x5a; 200 + round]);
        store.wait_until("its quarantine", |store| store.quarantined().len() == round + 1);
    }
    std::fs::create_dir(store.layout().segment(segment.name())).unwrap();
    store.wait_until("its quarantine", |store| store.quarantined().len() == 4);
    bystander_is_served(&store);
}

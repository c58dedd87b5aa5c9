//! A split that dies anywhere leaves no store, and the next one starts cleanly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

mod split_common;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use penholder_tests::{Random, roles_program};

use crate::split_common::{Legacy, refusal, split_ok};

const SQL: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, n); INSERT INTO p VALUES (1, 'a');
    CREATE TABLE a(id INTEGER PRIMARY KEY, p INT REFERENCES p(id), t); CREATE INDEX by_t ON a(t); CREATE TABLE b(x);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO a SELECT i, 1, hex(randomblob(50)) FROM n;
    INSERT INTO b SELECT t FROM a;";

/// The split as a process that can die.
fn command(legacy: &Legacy, flags: &[&str]) -> Command {
    let mut command = Command::new(roles_program());
    command.arg("split").arg(legacy.path()).arg(legacy.store());
    command.args(["--config", "p", "--activity", "a", "--activity", "b"]).args(flags);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn die_at(legacy: &Legacy, point: &str, flags: &[&str]) -> Output {
    let output = command(legacy, flags).env("PENHOLDER_CRASH_AT", point).output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "{point}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A writer that is asked to serve the directory says why it does not.
fn serve(store: &Path) -> Result<(), String> {
    let config = penholder::Config { once: true, ..penholder::Config::new(store) };
    penholder::run(&config, &penholder::Stop::new(), &mut ()).map_err(|error| error.to_string())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Splits again, and looks at everything.
fn starts_cleanly(legacy: &Legacy) {
    let output = command(legacy, &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        names(&legacy.store()),
        [
            "activity.db",
            "config.db",
            "control",
            "penholder.toml",
            "quarantine",
            "receipts",
            "split.json",
            "spool",
            "writer.lock"
        ]
    );
    assert_eq!(names(legacy.directory.path()), ["legacy.db", "store"], "nothing was left beside");
    // Looking at a database that nobody serves makes a log beside it.
    legacy.compare(&legacy.request(&["p"]));
}

#[test]
fn a_split_may_die_at_every_named_point_before_the_store_is_there() {
    let points = [
        "split_begun",
        "split_copy:1",
        "split_copy:2",
        "split_copy:3",
        "split_built:1",
        "split_built:2",
        "split_copied",
        "split_verified",
        "split_renamed:1",
        "split_renamed:2",
        "split_before_control",
    ];
    for point in points {
        let legacy = Legacy::new(SQL);
        let bytes = std::fs::read(legacy.path()).unwrap();
        die_at(&legacy, point, &[]);
        assert!(!legacy.store().join("control").exists(), "{point}: there is a store");
        let error = serve(&legacy.store()).unwrap_err();
        assert!(error.contains("interrupted") && error.contains("penholder split"), "{point}: {error}");
        assert!(bytes == std::fs::read(legacy.path()).unwrap(), "{point}: the legacy file was written to");
        // Twice at the same point, then to the end.
        die_at(&legacy, point, &[]);
        starts_cleanly(&legacy);
    }
}

#[test]
fn a_split_that_dies_once_the_store_is_there_is_done() {
    let by_split = |legacy: &Legacy| {
        let output = command(legacy, &[]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let by_writer = |legacy: &Legacy| serve(&legacy.store()).unwrap();
    for next in [&by_split as &dyn Fn(&Legacy), &by_writer] {
        let legacy = Legacy::new(SQL);
        die_at(&legacy, "split_published", &[]);
        legacy.compare(&legacy.request(&["p"]));
        assert!(legacy.store().join(".split").exists(), "it did not die there");
        next(&legacy);
        assert!(!legacy.store().join(".split").exists(), "what was built aside is still there");
    }
}

#[test]
fn a_split_that_fails_takes_away_what_it_made() {
    let legacy = Legacy::new("CREATE TABLE u(x); CREATE INDEX i ON u(x); INSERT INTO u VALUES (1), (1)");
    let forged = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX i ON u(x)' WHERE name = 'i'";
    rusqlite::Connection::open(legacy.path()).unwrap().execute_batch(forged).unwrap();
    refusal(&legacy.request(&[]));
    assert_eq!(names(legacy.directory.path()), ["legacy.db"]);
    std::fs::create_dir(legacy.store()).unwrap();
    refusal(&legacy.request(&[]));
    assert_eq!(names(&legacy.store()), [""; 0], "the directory was there, and stays");
    std::fs::write(legacy.store().join("writer.lock"), "").unwrap();
    refusal(&legacy.request(&[]));
    assert_eq!(names(&legacy.store()), ["writer.lock"], "and so does a lock that was there");
}

#[test]
fn a_file_that_was_not_retired_because_of_a_crash_is_retired_by_the_next_run() {
    let legacy = Legacy::new(SQL);
    die_at(&legacy, "split_before_retire", &["--retire"]);
    assert!(legacy.path().exists());
    for _ in 0..2 {
        let output = command(&legacy, &["--retire"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(names(legacy.directory.path()), ["legacy.db.retired", "store"]);
    }
}

#[test]
fn a_store_that_is_being_replaced_is_whole_or_gone_and_never_mixed() {
    for (point, survives) in [
        ("split_copied", true),
        ("split_verified", true),
        ("split_replacing", false),
        ("split_renamed:1", false),
        ("split_before_control", false),
    ] {
        let legacy = Legacy::new(SQL);
        split_ok(&legacy.request(&["p"]));
        let id = std::fs::read_to_string(legacy.store().join("split.json")).unwrap();
        die_at(&legacy, point, &["--force"]);
        assert_eq!(legacy.store().join("control").exists(), survives, "{point}");
        if survives {
            assert_eq!(std::fs::read_to_string(legacy.store().join("split.json")).unwrap(), id, "{point}");
            legacy.compare(&legacy.request(&["p"]));
            let output = command(&legacy, &["--force"]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            legacy.compare(&legacy.request(&["p"]));
        } else {
            assert!(serve(&legacy.store()).unwrap_err().contains("interrupted"), "{point}");
            starts_cleanly(&legacy);
        }
    }
}

#[test]
fn kill_9_at_random_moments_leaves_no_half_of_a_store() {
    let given = std::env::var("PENHOLDER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let legacy = Legacy::new(SQL);
    let mut killed = 0;
    for _ in 0..20 {
        let mut child: Child = command(&legacy, &[]).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        if legacy.store().join("control").exists() {
            legacy.compare(&legacy.request(&["p"]));
            std::fs::remove_dir_all(legacy.store()).unwrap();
        } else {
            killed += 1;
        }
    }
    println!("{killed} of 20 died before the store was there");
    starts_cleanly(&legacy);
}

#[test]
fn two_splits_into_one_store_do_not_disturb_each_other() {
    let legacy = Legacy::new(SQL);
    let children: Vec<Child> = (0..3).map(|_| command(&legacy, &[]).spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // One splits; the others find it at work, or done.
        assert!(matches!(output.status.code(), Some(0 | 4)) || said.contains("is a store already"), "{said}");
    }
    legacy.compare(&legacy.request(&["p"]));
}

/// A small file system of its own; `None`, with a word, where that is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u64) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(place));
        }
        eprintln!("SKIPPED: a full disk needs the right to mount a tmpfs; run as root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_anything_is_written() {
    let Some(disk) = SmallDisk::mount(1) else { return };
    let legacy = Legacy::new(SQL);
    let mut request = legacy.request(&["p"]);
    request.store = disk.0.path().join("store");
    let message = split_common::refusal(&request);
    assert!(message.contains("bytes are needed") && message.contains("are free"), "{message}");
    assert_eq!(names(disk.0.path()).len(), 0);
}

#[test]
fn a_disk_that_fills_up_on_the_way_leaves_no_store_and_the_next_run_starts_cleanly() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let legacy = Legacy::new(&SQL.replace("i < 3000", "i < 100000"));
    let store = disk.0.path().join("store");
    let mut command = Command::new(roles_program());
    command.arg("split").arg(legacy.path()).arg(&store);
    command.args(["--config", "p", "--activity", "a", "--activity", "b"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let growing = store.join(".split/activity.db");
    while !growing.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let filler = disk.0.path().join("filler");
    let file = std::fs::File::create(&filler).unwrap();
    // The split goes on writing while its space is taken.
    let fill = || {
        let space = rustix::fs::statvfs(disk.0.path()).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, space.f_bavail * space.f_frsize)
    };
    while fill().is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the split ended before the disk was full");
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("full") || said.contains("No space"), "{said}");
    assert!(!store.join("control").exists() && !store.join(".split").exists());
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nobody_starts_a_writer_while_a_split_is_at_work() {
    let legacy = Legacy::new(&SQL.replace("i < 3000", "i < 100000"));
    let mut child = command(&legacy, &[]).spawn().unwrap();
    while !legacy.store().join(".split").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the split ended too early");
        std::thread::yield_now();
    }
    let error = serve(&legacy.store()).unwrap_err();
    assert!(error.contains("another writer holds"), "{error}");
    assert!(child.wait().unwrap().success());
}

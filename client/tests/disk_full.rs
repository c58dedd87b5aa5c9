//! Appending to a file system that is really full. Needs the right to mount one; skips without it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use fake_store::{FakeStore, insert};
use penholder_client::{Client, ClientError, Command, Durability, Statement};

#[allow(dead_code, reason = "each test file uses its part")]
mod fake_store;

/// A small file system in memory, unmounted in the end.
struct SmallDisk {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        mount(&["-t", "tmpfs", "-o", "size=2m", "none"], &path)
            .then_some(Self { path, _directory: directory })
    }

    fn grow(&self) {
        assert!(mount(&["-o", "remount,size=64m"], &self.path));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Process::new("umount").arg("-l").arg(&self.path).status().unwrap();
    }
}

fn mount(options: &[&str], at: &Path) -> bool {
    let status = Process::new("mount").args(options).arg(at).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_keeps_exactly_the_commands_it_says_and_the_next_segment_goes_on_behind_them() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no right to mount a small file system");
        return;
    };
    let store = FakeStore::in_directory(tempfile::tempdir_in(&disk.path).unwrap(), 0, 0);
    let mut client = Client::connect(store.path()).unwrap();
    let filler = "x".repeat(100_000);
    let mut expected = Vec::new();
    let batch = |round: i64| -> Vec<Command> {
        let insert = Statement::new("activity", "INSERT INTO t(a, b) VALUES (?1, ?2)");
        (0..7).map(|n| insert.clone().bind(round * 100 + n).bind(filler.as_str()).into()).collect()
    };
    let error = (0..).find_map(|round| {
        let commands = batch(round);
        let error = client.submit_batch(&commands, Durability::Durable).err();
        let queued = match &error {
            None => 7,
            Some(ClientError::Append { queued, submitted: 7, .. }) => usize::try_from(*queued).unwrap(),
            Some(other) => panic!("{other}"),
        };
        expected.extend_from_slice(&commands[..queued]);
        error
    });
    let error = error.unwrap();
    assert!(error.is_retryable() && error.to_string().contains("are queued"), "{error}");
    assert!(!expected.len().is_multiple_of(7), "a part of the batch fitted");
    assert!(store.commands() == expected);
    assert_eq!(store.segments().len(), 1);

    disk.grow();
    let ticket = client.submit(insert(1), Durability::Durable).unwrap();
    expected.push(insert(1));
    assert_eq!(ticket.sequence().0, expected.len() as u64);
    assert_eq!(store.segments().len(), 2);
    assert!(store.commands() == expected);
}

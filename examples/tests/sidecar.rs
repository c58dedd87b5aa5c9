//! The supervisor keeps a writer alive, and ends with the application.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A script in the place of `penholder`: writes down each start with its pid, then does what `after` says.
fn script(place: &Path, after: &str) -> PathBuf {
    let path = place.join("penholder");
    let log = place.join("starts");
    fs::write(&path, format!("#!/bin/sh\necho $$ \"$@\" >> {}\n{after}\n", log.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn sidecar(place: &Path, after: &str, application: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecar"));
    command.env("PENHOLDER", script(place, after)).arg("the-store");
    if !application.is_empty() {
        command.arg("--").args(application);
    }
    command.spawn().unwrap()
}

/// The lines that the script wrote, once there are `count`.
fn starts(place: &Path, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(place.join("starts")).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(Instant::now() < deadline, "the writer was not started {count} times: {text}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn pid(line: &str) -> Pid {
    Pid::from_raw(line.split(' ').next().unwrap().parse().unwrap()).unwrap()
}

#[test]
fn a_writer_that_dies_is_started_again_on_the_same_store() {
    let place = tempfile::tempdir().unwrap();
    let mut sidecar = sidecar(place.path(), "exec sleep 60", &[]);
    let first = starts(place.path(), 1);
    assert!(first.iter().all(|line| line.ends_with(" serve the-store")), "{first:?}");
    kill_process(pid(first.first().unwrap()), Signal::KILL).unwrap();
    let again = starts(place.path(), 2);
    assert_ne!(pid(again.first().unwrap()), pid(again.last().unwrap()));
    kill_process(Pid::from_child(&sidecar), Signal::TERM).unwrap();
    assert_eq!(sidecar.wait().unwrap().code(), Some(0));
    let gone = rustix::process::test_kill_process(pid(again.last().unwrap()));
    assert!(gone.is_err(), "the writer outlived the supervisor");
}

#[test]
fn the_exit_code_of_the_application_is_passed_on_and_the_writer_stopped() {
    let place = tempfile::tempdir().unwrap();
    let mut sidecar = sidecar(place.path(), "exec sleep 60", &["sh", "-c", "sleep 0.3; exit 7"]);
    assert_eq!(sidecar.wait().unwrap().code(), Some(7));
}

#[test]
fn a_writer_that_is_kept_out_by_another_one_is_not_started_again() {
    let place = tempfile::tempdir().unwrap();
    let mut sidecar = sidecar(place.path(), "exit 4", &[]);
    assert_eq!(sidecar.wait().unwrap().code(), Some(4));
    assert_eq!(starts(place.path(), 1).len(), 1);
}

//! The race is skipped, and says so, where there is nothing to play it with. `.ci/run` plays it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

/// Where a program of every system is.
fn which(program: &str) -> PathBuf {
    let output = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}

#[test]
fn without_node_the_race_says_so_and_is_no_failure() {
    let place = tempfile::tempdir().unwrap();
    for program in ["sh", "dirname"] {
        symlink(which(program), place.path().join(program)).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_legacy-race")).env("PATH", place.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.starts_with("SKIPPED") && said.contains("no node"), "{said}");
}

//! A store in a directory of its own, and the built binary to use it with.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "every test file uses a part of it, and a test may stop where it stands"
)]

pub(crate) mod old;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The statement most tests submit.
pub(crate) const INSERT: &str = "INSERT INTO settings(key, value) VALUES (?1, ?2)";

/// What a run of the binary left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Stdout as JSON, line by line.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

pub(crate) struct Store {
    directory: tempfile::TempDir,
}

/// Dies with the test.
pub(crate) struct Writer {
    child: Child,
    pub(crate) ready: String,
}

impl Store {
    /// A directory in which nothing is yet.
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A store that no writer serves.
    pub(crate) fn new() -> Self {
        let store = Self::empty();
        store.run(&["serve", "STORE", "--once"]).expect(0);
        store
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// A path beside the store.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The binary with these words; `STORE` stands for the store's path.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penholder"));
        let path = self.path();
        for word in words {
            if *word == "STORE" {
                command.arg(&path)
            } else {
                command.arg(word)
            };
        }
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env_remove("NO_COLOR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Run {
        Run::of(&self.command(words).output().unwrap())
    }

    /// Runs with this text on stdin.
    pub(crate) fn feed(&self, words: &[&str], text: &str) -> Run {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = text.to_owned();
        // It may end before it has read all.
        let feeder = std::thread::spawn(move || stdin.write_all(text.as_bytes()).is_ok());
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Run::of(&output)
    }

    /// Starts a writer and waits until it is ready.
    pub(crate) fn serve(&self) -> Writer {
        let mut child = self.command(&["serve", "STORE"]).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        Writer { child, ready }
    }

    /// Counts the rows of `settings`.
    pub(crate) fn settings(&self) -> i64 {
        let run =
            self.run(&["query", "STORE", "--db", "config", "SELECT count(*) AS n FROM settings", "--json"]);
        run.expect(0).json()[0]["n"].as_i64().unwrap()
    }
}

impl Writer {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end as systemd does, and returns its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone already when the test ended it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A command on stdin that adds a setting.
pub(crate) fn line(key: &str) -> String {
    serde_json::json!({"db": "config", "sql": INSERT, "params": [key, "v"]}).to_string()
}

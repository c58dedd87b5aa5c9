//! Processes of other users: only root can start them, so tests that need them skip, with a message, where it is not.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use penholder_protocol::WriterState;

use crate::{Store, roles_program, wait_for};

/// The group of all who use the store of a test.
pub const GROUP: u32 = 64_000;

/// A user of that group and of no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(pub u32);

/// A user who runs nothing but the writer.
pub const WRITER: User = User(64_000);
/// Two users who submit.
pub const ALICE: User = User(64_001);
/// See [`ALICE`].
pub const MALLORY: User = User(64_002);

impl User {
    /// The same command, run by this user.
    #[must_use]
    pub fn runs(self, command: &Command) -> Command {
        let mut switched = Command::new("setpriv");
        switched.arg(format!("--reuid={}", self.0)).arg(format!("--regid={GROUP}")).arg("--clear-groups");
        switched.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => switched.env(name, value),
                None => switched.env_remove(name),
            };
        }
        switched
    }

    /// Runs a line of shell and gives what came of it.
    #[must_use]
    pub fn shell(self, script: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        self.runs(&shell).stdin(Stdio::null()).output().unwrap()
    }

    /// Whether a line of shell succeeds.
    #[must_use]
    pub fn can(self, script: &str) -> bool {
        self.shell(script).status.success()
    }
}

/// A store whose writer is `writer`, or the user of the test, and that the group may use; `None`, with a message, where
/// no other user can be had. The directory is made by hand, as an operator would.
#[must_use]
pub fn shared_store(writer: Option<User>) -> Option<Store> {
    let switched = Command::new("setpriv").args(["--reuid=64001", "--clear-groups", "true"]).output();
    if !switched.as_ref().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: setpriv cannot switch to another user here: {switched:?}");
        return None;
    }
    let store = Store::new();
    std::fs::set_permissions(store.scratch(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(store.path()).unwrap();
    chown(store.path(), writer.map(|user| user.0), Some(GROUP)).unwrap();
    std::fs::set_permissions(store.path(), PermissionsExt::from_mode(0o2750)).unwrap();
    store.settings(&grants());
    std::fs::create_dir(store.logs()).unwrap();
    std::fs::set_permissions(store.logs(), PermissionsExt::from_mode(0o1777)).unwrap();
    // Other users may not be able to reach the directory that was built into. Another process copies: a file that this one
    // has open for writing is inherited by whatever another thread starts meanwhile, and cannot be run so long.
    let copied = Command::new("cp").args([roles_program(), program(&store)]).status();
    assert!(copied.unwrap().success());
    Some(store)
}

/// What lets all three write the tables of the ledger, and nothing else.
fn grants() -> String {
    let each = [WRITER, ALICE, MALLORY].map(|user| format!("\"user:{}\" = \"member\"\n", user.0)).concat();
    let verbs = "[\"select\", \"insert\", \"update\", \"delete\"]";
    format!("[grants]\n{each}[roles.member]\n\"config.*\" = {verbs}\n\"activity.*\" = {verbs}\n")
}

/// The program of the roles, where every user can run it.
fn program(store: &Store) -> PathBuf {
    store.scratch().join("roles")
}

/// A running writer; ends with this value.
#[derive(Debug)]
pub struct Writer(Option<Child>);

impl Writer {
    /// Starts the writer of a shared store and waits until it is ready.
    #[must_use]
    pub fn start(store: &Store, user: Option<User>) -> Self {
        let plain = writer_command(store);
        let mut command = user.map(|user| user.runs(&plain)).unwrap_or(plain);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let ready =
            || store.control().is_some_and(|c| c.pid == child.id() && c.state == WriterState::Running);
        while !ready() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the writer does not get ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.try_wait().unwrap().is_none(), "the writer has ended");
        Self(Some(child))
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Asks it to end, and whether it did so in peace.
    pub fn stop(mut self) -> bool {
        let mut child = self.0.take().expect("a writer that was started");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for(&mut child, Duration::from_secs(30)).is_some_and(|status| status.success())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Already gone is as good.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The command line of the writer, with the program where every user can run it.
fn writer_command(store: &Store) -> Command {
    let plain = store.writer_command(false);
    let mut command = Command::new(program(store));
    command.args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The command line of a ledger client.
#[must_use]
pub fn worker(store: &Store, client: u64, commands: u64) -> Command {
    let mut command = Command::new(program(store));
    command.arg("client").arg(store.path()).arg(store.logs());
    command.args([client.to_string(), crate::Mix::Both.to_string(), commands.to_string()]);
    command
}

//! The writer as a child process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use penholder_protocol::{Control, Layout, WriterState};
use penholder_tests::Serve;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Job, Role};
use crate::workload::{DATABASE, TABLE};

/// A running writer.
pub(crate) struct Writer {
    process: std::process::Child,
}

impl Writer {
    /// Starts one on the store in `place`, which it creates, and waits until it is ready.
    pub(crate) fn start(place: &Path) -> Self {
        let mut writer = Self::spawn(place);
        let begun = Instant::now();
        while !writer.is_ready(place) {
            assert!(begun.elapsed() < Duration::from_secs(30), "the writer does not get ready");
            if let Some(status) = writer.process.try_wait().unwrap() {
                panic!("the writer ended before it was ready: {status}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        writer
    }

    /// Starts one, and waits for nothing.
    pub(crate) fn spawn(place: &Path) -> Self {
        Self { process: Role::server(Job::Writer, place).command().stdout(Stdio::null()).spawn().unwrap() }
    }

    fn is_ready(&self, place: &Path) -> bool {
        Control::read(&Layout::new(place).control())
            .is_ok_and(|control| control.pid == self.process.id() && control.state == WriterState::Running)
    }

    /// Asks it to end, waits until it has, and gives the most memory it ever held, in MiB.
    pub(crate) fn stop(mut self) -> f64 {
        let peak_kib = field(&format!("/proc/{}/status", self.process.id()), "VmHWM:");
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the writer failed: {status}");
        peak_kib as f64 / 1024.0
    }

    /// How often its threads went to sleep, all together.
    pub(crate) fn voluntary_switches(&self) -> u64 {
        std::fs::read_dir(format!("/proc/{}/task", self.process.id()))
            .unwrap()
            .map(|task| {
                field(task.unwrap().path().join("status").to_str().unwrap(), "voluntary_ctxt_switches:")
            })
            .sum()
    }
}

pub(crate) fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Where the migrations of a store are: beside it, so that they go with the scratch directory.
pub(crate) fn schema(place: &Path) -> PathBuf {
    place.with_extension("schema")
}

/// Runs as the writer; a store that was given no migrations gets the one table that everybody writes to.
pub(crate) fn run(place: &Path) {
    let schema = schema(place);
    let folder = schema.join(DATABASE);
    if !schema.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("001_event.sql"), TABLE).unwrap();
    }
    let serve = Serve { store: place.to_owned(), schema, once: false, accept_rollback: false };
    penholder_tests::serve(&serve).unwrap();
}

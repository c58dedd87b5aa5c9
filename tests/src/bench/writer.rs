//! The writer as a child process.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use penholder_protocol::{Control, Layout, WriterState};
use penholder_tests::Serve;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Role;
use crate::workload::{DATABASE, TABLE};

/// A running writer.
pub(crate) struct Writer {
    process: std::process::Child,
}

impl Writer {
    /// Starts one on the store in `place`, which it creates, and waits until it is ready.
    pub(crate) fn start(place: &Path) -> Self {
        let process = Role::writer(place).command().stdout(Stdio::null()).spawn().unwrap();
        let mut writer = Self { process };
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

    fn is_ready(&self, place: &Path) -> bool {
        Control::read(&Layout::new(place).control())
            .is_ok_and(|control| control.pid == self.process.id() && control.state == WriterState::Running)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the writer failed: {status}");
    }

    /// The most memory it ever held, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        field(&format!("/proc/{}/status", self.process.id()), "VmHWM:")
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

/// Runs as the writer.
pub(crate) fn run(place: &Path) {
    let schema = place.with_extension("schema");
    let folder = schema.join(DATABASE);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("001_event.sql"), TABLE).unwrap();
    let serve = Serve { store: place.to_owned(), schema, once: false, accept_rollback: false };
    penholder_tests::serve(&serve).unwrap();
}

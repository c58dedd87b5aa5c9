//! A process that a test starts, stops and kills.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A client or reader process; killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Waits until it has ended, however; kills it if it never does.
    pub fn wait(mut self) {
        wait_for(&mut self.0, Duration::from_secs(30));
    }

    /// Kills it: `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until it has ended by itself, and stops the test if it failed or never does.
    pub fn finish(mut self) {
        let status = wait_for(&mut self.0, Duration::from_mins(2)).expect("a client or reader does not end");
        assert!(status.success(), "a client or reader failed: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits for the end of a process; kills it and gives `None` if it takes too long.
pub fn wait_for(process: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Some(status) = process.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    None
}

//! Faults at chosen system calls of a real process, by strace.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::script::Ending;

/// What happens at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed before it.
    Kill,
    /// It fails with this error and does nothing.
    Error(&'static str),
}

/// One fault in one run of a process.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    pub(crate) call: String,
    pub(crate) fault: Fault,
    /// From which call of this name on, counted from 1 in each thread.
    pub(crate) nth: u64,
    /// Whether every later one fails too.
    pub(crate) for_ever: bool,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            Fault::Kill => "signal=KILL".into(),
            Fault::Error(error) => format!("error={error}"),
        };
        write!(f, "inject={}:{what}:when={}{}", self.call, self.nth, if self.for_ever { "+" } else { "" })
    }
}

impl Injection {
    /// The command under strace, which notes in `trace` whether the fault happened.
    pub(crate) fn around(&self, command: &Command, trace: &Path) -> Command {
        let mut strace = straced(command);
        if self.fault != Fault::Kill {
            // Faster; but with it strace 6.1 never sends the signal.
            strace.arg("--seccomp-bpf");
        }
        strace.arg("-e").arg(format!("trace={}", self.call)).arg("-e").arg(self.to_string());
        strace.arg("-o").arg(trace).arg("--").arg(command.get_program()).args(command.get_args());
        strace
    }

    /// Whether the fault happened: as the trace tells, or as strace ends, which dies of what its process died of.
    pub(crate) fn happened(&self, ending: Ending, trace: &Path) -> bool {
        match self.fault {
            Fault::Kill => ending == Ending::Signal,
            Fault::Error(_) => {
                let text = std::fs::read(trace).unwrap_or_default();
                String::from_utf8_lossy(&text).contains("(INJECTED)")
            }
        }
    }
}

/// Every system call that the command makes, with how often; the file is used for the trace.
pub(crate) fn calls_of(command: &Command, trace: &Path) -> Vec<(String, u64)> {
    let mut strace = straced(command);
    strace.arg("-o").arg(trace).arg("--").arg(command.get_program()).args(command.get_args());
    assert!(strace.status().unwrap().success(), "the script fails under strace without any fault");
    let mut calls = std::collections::BTreeMap::<String, u64>::new();
    let text = std::fs::read(trace).unwrap();
    for line in String::from_utf8_lossy(&text).lines() {
        // `1234 call(arguments) = result`; a call that another thread interrupts is resumed on a line of its own.
        let Some((_, rest)) = line.split_once(' ') else { continue };
        let name = rest.trim_start().split('(').next().unwrap_or_default();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls.into_iter().collect()
}

fn straced(command: &Command) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            strace.env(name, value);
        }
    }
    strace
}

/// Where the trace of a run goes.
pub(crate) fn trace_beside(store: &Path) -> PathBuf {
    store.with_extension("strace")
}

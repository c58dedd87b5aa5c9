//! The three roles as child processes of this one: the same program, started again with another first argument.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// How long a role may take to start, or to finish what it began.
const PATIENCE: Duration = Duration::from_secs(40);

/// A role that runs as a process of its own.
#[derive(Debug)]
pub(crate) struct Role {
    name: &'static str,
    child: Child,
}

/// Where a rehearsal keeps its files.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// The store.
    pub(crate) store: PathBuf,
    /// The directory of the logs of promises, one for each role.
    pub(crate) promises: PathBuf,
}

impl Stage {
    /// The log of promises of a role.
    pub(crate) fn promises_of(&self, role: &str) -> PathBuf {
        self.promises.join(format!("{role}.jsonl"))
    }
}

impl Role {
    /// Starts a role; what it prints can be taken from its standard output.
    pub(crate) fn start(name: &'static str, stage: &Stage) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("role").arg(name).arg(&stage.store).arg(stage.promises_of(name));
        Ok(Self { name, child: command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()? })
    }

    /// Starts the writer, and waits until it says that it serves the store.
    pub(crate) fn start_writer(stage: &Stage) -> Result<Self> {
        let mut writer = Self::start("writer", stage)?;
        writer.first_line()?;
        Ok(writer)
    }

    /// The role's standard output.
    pub(crate) fn output(&mut self) -> Result<BufReader<ChildStdout>> {
        Ok(BufReader::new(self.child.stdout.take().ok_or("its output was taken before")?))
    }

    /// Reads the first line that the role prints.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output()?.read_line(&mut line)?;
        let line = line.trim().to_owned();
        if line.is_empty() { Err(format!("the {} did not start", self.name).into()) } else { Ok(line) }
    }

    /// Kills it as `kill -9` does: no chance to finish anything.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to finish, and waits until it has.
    pub(crate) fn finish(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let failed = format!("the {} failed: {status}", self.name);
                return if status.success() { Ok(()) } else { Err(failed.into()) };
            }
            if Instant::now() > deadline {
                return Err(format!("the {} did not finish", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Role {
    /// Leaves no process behind when the rehearsal fails; a role that ended before does not mind.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

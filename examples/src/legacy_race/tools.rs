//! What the race needs besides this program: Node with sql.js, and the `penholder` binary.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// Where the Node programs are.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/legacy-race");
/// What `install.sh` exits with where sql.js cannot be had.
const UNAVAILABLE: i32 = 77;

/// The programs to run.
#[derive(Debug)]
pub(crate) struct Tools {
    node_path: PathBuf,
    /// The `penholder` binary.
    pub(crate) penholder: PathBuf,
}

/// What there is on this machine.
pub(crate) enum Found {
    All(Tools),
    /// Something that cannot be had here, and why.
    Missing(String),
}

impl Tools {
    /// Installs sql.js and builds `penholder`, unless both are there.
    pub(crate) fn find() -> Result<Found> {
        let this = std::env::current_exe()?;
        let profile = this.parent().ok_or("this program is in no directory")?;
        let target = profile.parent().ok_or("this program is in no target directory")?;
        let installed =
            Command::new("sh").arg(format!("{SCRIPTS}/install.sh")).arg(target.join("tmp")).output()?;
        let words = String::from_utf8_lossy(&installed.stderr).trim().to_owned();
        if installed.status.code() == Some(UNAVAILABLE) {
            return Ok(Found::Missing(words.lines().last().unwrap_or_default().to_owned()));
        }
        if !installed.status.success() {
            return Err(format!("sql.js cannot be installed: {words}").into());
        }
        let node_path = String::from_utf8(installed.stdout)?.trim().into();
        Ok(Found::All(Self { node_path, penholder: penholder(profile, target)? }))
    }

    /// One of the Node programs.
    pub(crate) fn node(&self, script: &str) -> Command {
        let mut command = Command::new("node");
        command.arg(format!("{SCRIPTS}/{script}")).stdin(Stdio::null());
        command.env("NODE_PATH", &self.node_path).env("PENHOLDER", &self.penholder);
        command
    }

    /// Starts the writer of a store, and waits until it is ready.
    pub(crate) fn serve(&self, store: &Path) -> Result<Writer> {
        let mut command = Command::new(&self.penholder);
        command.args(["-q", "serve"]).arg(store).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take();
        let writer = Writer(child);
        let mut ready = String::new();
        BufReader::new(output.ok_or("the writer has no output")?).read_line(&mut ready)?;
        if ready.is_empty() { Err("the writer did not start".into()) } else { Ok(writer) }
    }
}

/// Runs a program to its end, and demands that it succeeds.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    let failed = || format!("{}: {status}", command.get_program().display());
    if status.success() { Ok(()) } else { Err(failed().into()) }
}

/// The binary that the variable `PENHOLDER` names, else one built like this program and beside it.
fn penholder(profile: &Path, target: &Path) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("PENHOLDER") {
        return Ok(given.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // Named together with this package, so that cargo takes the libraries that it built for it.
    build.args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "penholder",
        "-p",
        env!("CARGO_PKG_NAME"),
        "--bin",
        "penholder",
    ]);
    build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    build.arg("--target-dir").arg(target);
    build.args(profile.ends_with("release").then_some("--release"));
    must(&mut build).map_err(|error| format!("build it, or name it in PENHOLDER: {error}"))?;
    Ok(profile.join("penholder"))
}

/// A writer that does not outlive this value.
#[derive(Debug)]
pub(crate) struct Writer(Child);

impl Writer {
    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the writer ended with {status}").into()) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A writer that was stopped does not mind.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

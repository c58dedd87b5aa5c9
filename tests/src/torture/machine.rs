//! What this machine has and allows.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::scenario::Skip;

/// Tells the program that it already has its own mounts.
const PRIVATE: &str = "PENHOLDER_TORTURE_PRIVATE";

/// Starts the program again in a mount namespace of its own, so that no mount outlives it; `None` if it is there, or
/// may not. What mounts then skips.
pub(crate) fn go_private() -> Option<ExitCode> {
    if !rustix::process::geteuid().is_root() || std::env::var_os(PRIVATE).is_some() {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe().unwrap());
    command.args(std::env::args_os().skip(1)).env(PRIVATE, "1");
    let status = command.status().ok()?;
    Some(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Whether mounts are private to this program.
pub(crate) fn need_private_mounts() -> Result<(), Skip> {
    if std::env::var_os(PRIVATE).is_some() {
        return Ok(());
    }
    Err("mounting needs root and a mount namespace (unshare of util-linux)".into())
}

/// Where a program is, or why the scenario is skipped.
pub(crate) fn need(program: &str) -> Result<PathBuf, Skip> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("needs {program}, which is not installed"))
}

/// Runs a program to its end; what it says is only shown if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {}: {said}", arguments.join(" "), output.status))
}

/// A seed that no earlier run had.
pub(crate) fn drawn_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() ^ (u64::from(std::process::id()) << 32)
}

//! Two Node processes at once.

use std::path::{Path, PathBuf};
use std::process::Child;

use crate::Result;
use crate::tools::Tools;

/// The two processes, as `workload.js` knows them.
const ROLES: [&str; 2] = ["daemon", "server"];

/// What one of them was told is safe.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) role: &'static str,
    pub(crate) path: PathBuf,
}

/// Runs `script` as both processes, on the file or the store that they share, until both end.
///
/// Their logs are written beside what they share.
pub(crate) fn run(tools: &Tools, script: &str, shared: &Path, seconds: u64) -> Result<Vec<Log>> {
    let log = |role| Log { role, path: shared.with_extension(format!("{role}.jsonl")) };
    let logs: Vec<Log> = ROLES.into_iter().map(log).collect();
    let mut running = Vec::new();
    for Log { role, path } in &logs {
        let mut node = tools.node(script);
        node.arg(role).arg(shared).arg(path).arg(seconds.to_string());
        running.push((role, node.spawn()?));
    }
    // Waits for both, whatever became of the first.
    let ended: Vec<Result<()>> = running.into_iter().map(|(role, child)| end(role, child)).collect();
    ended.into_iter().collect::<Result<()>>()?;
    Ok(logs)
}

fn end(role: &str, mut child: Child) -> Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the {role} failed: {status}").into()) }
}

//! Faults between a real process and the system's library, for what needs no privilege.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Builds `shim/<name>.c`, to be put into `LD_PRELOAD`, with the compiler that SQLite was built with.
pub fn shim(name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim").join(name).with_extension("c");
    let directory = std::env::temp_dir().join(format!("penholder-shim-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let library = directory.join(name).with_extension("so");
    if !library.exists() {
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        let status = command.args(["-ldl", "-lpthread"]).status().unwrap();
        assert!(status.success(), "{} does not compile", source.display());
    }
    library
}

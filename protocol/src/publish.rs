//! The one way in which a whole file appears: written aside, synced, renamed, its directory synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::StreamId;

/// Creates `directory/name` with `content` and `mode`, durably and all at once; an existing file is replaced.
///
/// `tmp` is a directory of the same file system in which the file is built.
pub fn publish(tmp: &Path, directory: &Path, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let aside = tmp.join(format!("{}.tmp", StreamId::random()?));
    let written =
        write_aside(&aside, content, mode).and_then(|()| std::fs::rename(&aside, directory.join(name)));
    if let Err(error) = written {
        return match std::fs::remove_file(&aside) {
            Err(gone) if gone.kind() != io::ErrorKind::NotFound => Err(gone),
            Ok(()) | Err(_) => Err(error),
        };
    }
    sync_directory(directory)
}

fn write_aside(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

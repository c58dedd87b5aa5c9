//! Sets aside what cannot be trusted: the original bytes, and the reason beside them.

use std::io::ErrorKind;

use penholder_protocol::{Layout, SegmentName, publish, sync_directory};

use crate::Error;

/// Moves a segment out of the spool, so that nobody reads it again. Its bytes stay as they are.
pub(crate) fn set_aside(layout: &Layout, name: SegmentName, reason: &str) -> Result<(), Error> {
    log::error!("quarantining {name}: {reason}; nothing behind it in its stream is applied");
    let directory = layout.quarantine();
    let text = format!("{reason}\n");
    publish(&directory, &directory, &format!("{name}.reason"), text.as_bytes(), 0o600)
        .map_err(Error::io("write a reason into", &directory))?;
    let place = directory.join(name.to_string());
    match std::fs::rename(layout.segment(name), &place) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("move a segment to", &place)(error)),
    }
    sync_directory(&directory).map_err(Error::io("sync", &directory))?;
    sync_directory(&layout.spool()).map_err(Error::io("sync", &layout.spool()))
}

//! How much a client may queue before it has to stop: unapplied bytes of its stream, free space of the disk.

use std::collections::VecDeque;
use std::path::Path;

use penholder_protocol::Sequence;

use crate::ClientError;

/// Submits are counted together up to this many bytes, which bounds the memory that counting takes.
const GROUP_BYTES: u64 = 64 << 10;

/// Free space is looked at again after this many appended bytes.
const SPACE_CHECK_BYTES: u64 = 1 << 20;

/// The bytes of a stream that have no outcome yet, never too few and at most one group too many.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Last sequence and bytes of each group, oldest first.
    groups: VecDeque<(Sequence, u64)>,
    bytes: u64,
}

impl Backlog {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn add(&mut self, last: Sequence, bytes: u64) {
        self.bytes += bytes;
        match self.groups.back_mut() {
            Some(group) if group.1 + bytes <= GROUP_BYTES => *group = (last, group.1 + bytes),
            _ => self.groups.push_back((last, bytes)),
        }
    }

    /// Takes note that everything up to `applied` has its outcome.
    pub(crate) fn applied(&mut self, applied: Sequence) {
        while let Some(&(last, bytes)) = self.groups.front()
            && last <= applied
        {
            self.bytes -= bytes;
            self.groups.pop_front();
        }
    }
}

/// Remembers when to look at the disk again.
#[derive(Debug)]
pub(crate) struct SpaceCheck {
    unchecked_bytes: u64,
}

impl SpaceCheck {
    /// Due at once.
    pub(crate) fn new() -> Self {
        Self { unchecked_bytes: SPACE_CHECK_BYTES }
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.unchecked_bytes = self.unchecked_bytes.saturating_add(bytes);
    }

    /// Whether enough was appended since the last check that passed.
    pub(crate) fn is_due(&self) -> bool {
        self.unchecked_bytes >= SPACE_CHECK_BYTES
    }

    /// Looks at the file system of `spool`; below `floor_bytes` it is an error, and the check stays due.
    pub(crate) fn check(&mut self, spool: &Path, floor_bytes: u64) -> Result<(), ClientError> {
        self.unchecked_bytes = SPACE_CHECK_BYTES;
        let space = rustix::fs::statvfs(spool)
            .map_err(|error| ClientError::io("look at the free space of", spool)(error.into()))?;
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        if free_bytes < floor_bytes {
            return Err(ClientError::NoSpace { path: spool.to_owned(), free_bytes, floor_bytes });
        }
        self.unchecked_bytes = 0;
        Ok(())
    }
}

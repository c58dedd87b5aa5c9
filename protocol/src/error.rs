//! Why bytes were not understood.

use crate::limits;

/// Foreign bytes that are not what they should be. Never a panic, never a large allocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The file does not begin like one of ours.
    #[error("not a Penholder {what}: the magic number is missing")]
    Magic {
        /// Which kind of file was expected.
        what: &'static str,
    },
    /// A newer program wrote it, or a flag is set that changes how it must be read.
    #[error("{what} needs a newer Penholder: version {version}, incompatible flags {flags:#x}")]
    Unsupported {
        /// Which kind of file it is.
        what: &'static str,
        /// Its format version.
        version: u16,
        /// Its incompatible flags that are unknown here.
        flags: u32,
    },
    /// The checksum does not match: the bytes changed after they were written, or were never all written.
    #[error("checksum mismatch in {what} at offset {offset}")]
    Checksum {
        /// Which structure it protects.
        what: &'static str,
        /// Where the structure begins, in bytes from the start of the file.
        offset: u64,
    },
    /// The checksum is right and the content is still not allowed.
    #[error("invalid {what} at offset {offset}: {reason}")]
    Invalid {
        /// Which structure it is.
        what: &'static str,
        /// Where the structure begins, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl DecodeError {
    pub(crate) fn invalid(what: &'static str, offset: u64, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(limits::MESSAGE_BYTES_MAX));
        Self::Invalid { what, offset, reason }
    }
}

//! Why a submit or a wait did not succeed, what that does not mean, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penholder_protocol::{EncodeError, Sequence, StreamId, WriterState};

/// What to do about a writer whose disk is full or fails.
const STALLED: &str = "the writer is stalled, and its log says why";

/// What can go wrong between a command and its outcome.
///
/// A rejected command is not an error but an [`Outcome`](penholder_protocol::Outcome). An error of a submit does not
/// mean that the command was not queued: submit it again with the same [`Key`](penholder_protocol::Key), and it is
/// applied once.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The directory has no control file: no writer ever made a store here. Nothing was queued.
    #[error(
        "no store in {path}: {path}/control is missing; `penholder serve {path}` makes one, or says what to put back",
        path = path.display()
    )]
    NoStore {
        /// The directory that was asked for.
        path: PathBuf,
    },
    /// No outcome came in time. The command stays queued; wait for its ticket again, do not submit it again.
    #[error(
        "no outcome for command {sequence} of stream {stream} within {waited:?}; it stays queued; {}",
        hint_for_timeout(*writer, store)
    )]
    Timeout {
        /// The stream of the command.
        stream: StreamId,
        /// The command.
        sequence: Sequence,
        /// How long was waited.
        waited: Duration,
        /// A running one is busy, a stalled one waits for its disk, and a stopped one has to be started.
        writer: WriterState,
        /// The store's directory.
        store: PathBuf,
    },
    /// The stream's commands that are not applied yet fill its quota. Nothing was queued.
    #[error(
        "{unapplied_bytes} bytes of this stream wait to be applied, the quota is {quota_bytes}; {}",
        hint_for_full(*writer)
    )]
    Full {
        /// Bytes of this stream without an outcome.
        unapplied_bytes: u64,
        /// The store's quota for one stream, in bytes.
        quota_bytes: u64,
        /// What the writer is doing.
        writer: WriterState,
    },
    /// The file system has less free space than the store demands before a submit. Nothing was queued.
    #[error(
        "{path} has {free_bytes} free bytes, the store demands {floor_bytes}; free some space and submit again",
        path = path.display()
    )]
    NoSpace {
        /// The spool.
        path: PathBuf,
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that have to be free.
        floor_bytes: u64,
    },
    /// A command passes a limit of the format. Nothing was queued.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Appending failed, usually because the disk is full. Exactly the first `queued` commands of the submit are
    /// queued, though not yet durable; the rest is not.
    #[error(
        "cannot append to {path}: {source}; the first {queued} of {submitted} commands are queued, submit the rest again",
        path = path.display()
    )]
    Append {
        /// The segment.
        path: PathBuf,
        /// How many commands of the submit are queued.
        queued: u64,
        /// How many commands the submit had.
        submitted: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A failed sync or repair leaves open whether the commands are queued, and whether they would survive power
    /// loss. The client goes on with a new stream, which is not ordered with the old one. Submit again with the same
    /// keys.
    #[error(
        "cannot {operation} {path}: {source}; whether the commands survive is unknown, submit them again with the same keys",
        path = path.display()
    )]
    Unknown {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer found bytes in this stream that it cannot trust, and applies nothing more of it. Nothing was queued
    /// by this submit; earlier commands without an outcome are rejected. Connect again to get a new stream.
    #[error("stream {stream} is quarantined; see `penholder status`, and connect again for a new stream")]
    Quarantined {
        /// The stream.
        stream: StreamId,
    },
    /// The command has its final outcome, but its receipt was dropped before it was read, so that nothing here tells
    /// applied from rejected. Submitting it again with the same key gives the outcome.
    #[error(
        "command {sequence} of stream {stream} is finished but its receipt is gone; \
         `penholder rejected` shows whether it was rejected"
    )]
    OutcomeLost {
        /// The stream of the command.
        stream: StreamId,
        /// The command.
        sequence: Sequence,
    },
    /// The client was made before a `fork` by another process, whose stream this process must not write. Nothing was
    /// queued; connect again in this process.
    #[error("this client belongs to process {owner}; connect again after a fork")]
    Forked {
        /// The process that connected.
        owner: u32,
    },
    /// A file of the store cannot be used. Nothing was queued.
    #[error("cannot {operation} {path}: {source}{}", hint_for_io(source), path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ClientError {
    /// Whether the same call may succeed later without a change by the caller: a wait as it is, a submit with the
    /// same keys, or from the first command on that is not queued.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout { .. }
            | Self::Full { .. }
            | Self::NoSpace { .. }
            | Self::Append { .. }
            | Self::Unknown { .. } => true,
            Self::Io { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData
            ),
            Self::NoStore { .. }
            | Self::Encode(_)
            | Self::Quarantined { .. }
            | Self::OutcomeLost { .. }
            | Self::Forked { .. } => false,
        }
    }

    /// Says what was tried on which file, for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }
}

fn hint_for_timeout(writer: WriterState, store: &Path) -> String {
    match writer {
        WriterState::Running => "the writer is busy: wait longer".to_owned(),
        WriterState::Stalled => STALLED.to_owned(),
        WriterState::Stopped => format!("no writer runs: start `penholder serve {}`", store.display()),
    }
}

fn hint_for_full(writer: WriterState) -> &'static str {
    match writer {
        WriterState::Running => "the writer is busy: wait and submit again",
        WriterState::Stalled => STALLED,
        WriterState::Stopped => "no writer runs: start `penholder serve`",
    }
}

fn hint_for_io(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "; a client needs to write the spool and read the receipts, usually by belonging to the store's group"
    } else if source.kind() == io::ErrorKind::NotADirectory {
        "; name the directory of a store"
    } else {
        ""
    }
}

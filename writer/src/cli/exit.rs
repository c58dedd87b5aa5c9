//! How a command ends: the exit codes, and what is said on stderr.

use std::fmt::{self, Display};
use std::io;
use std::process::ExitCode;

use penholder_client::ClientError;
use penholder_client::read::ReadError;

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All went well.
    Ok = 0,
    /// It did not work.
    Failure = 1,
    /// It was asked for in a wrong way; nothing happened.
    Usage = 2,
    /// A verification found something.
    Finding = 3,
    /// Another writer holds the store.
    Locked = 4,
    /// No outcome in time; the command stays queued.
    TimedOut = 5,
    /// At least one command was rejected.
    Rejected = 6,
}

impl Exit {
    /// The worse of two ends: a failure hides a timeout, and a timeout hides a rejection.
    pub(super) fn or_worse(self, other: Self) -> Self {
        let rank = |exit: Self| match exit {
            Self::Ok => 0,
            Self::Rejected => 1,
            Self::TimedOut => 2,
            Self::Finding => 3,
            Self::Locked => 4,
            Self::Usage => 5,
            Self::Failure => 6,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody reads the output any more: end without a word.
    Pipe,
    /// To be said on stderr.
    Said {
        /// What the process ends with.
        exit: Exit,
        /// One or two sentences, with the next step where there is one.
        message: String,
    },
}

impl Failure {
    /// It did not work.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Said { exit: Exit::Failure, message: message.into() }
    }

    /// It was asked for in a wrong way.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Said { exit: Exit::Usage, message: message.into() }
    }

    /// Wraps an error with what was being done; for use with `map_err`.
    pub(super) fn on<E: Display>(doing: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format!("{doing}: {error}"))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe => f.write_str("nobody reads the output any more"),
            Self::Said { message, .. } => f.write_str(message),
        }
    }
}

/// The only plain I/O errors here come from stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Pipe;
        }
        Self::new(format!("cannot write the output: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let exit =
            if matches!(error, ReadError::UnknownDatabase { .. }) { Exit::Usage } else { Exit::Failure };
        Self::Said { exit, message: error.to_string() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = if matches!(error, ClientError::Timeout { .. }) { Exit::TimedOut } else { Exit::Failure };
        Self::Said { exit, message: error.to_string() }
    }
}

impl From<penholder::Error> for Failure {
    fn from(error: penholder::Error) -> Self {
        let exit =
            if matches!(error, penholder::Error::Locked { .. }) { Exit::Locked } else { Exit::Failure };
        Self::Said { exit, message: error.to_string() }
    }
}

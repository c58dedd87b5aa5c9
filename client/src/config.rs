//! How a client behaves; what the store demands stands in its control file instead.

use std::path::PathBuf;
use std::time::Duration;

/// How a client behaves. `ClientConfig { when_full: .., ..ClientConfig::new(path) }` changes one setting.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The store's directory.
    pub store: PathBuf,
    /// What a submit does while the stream's quota or the disk leaves no room.
    pub when_full: WhenFull,
    /// How long [`Client::execute`](crate::Client::execute) waits for an outcome.
    pub timeout: Duration,
}

impl ClientConfig {
    /// The defaults for the store in the directory `store`: fail at once when full, wait ten seconds for outcomes.
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self { store: store.into(), when_full: WhenFull::Fail, timeout: Duration::from_secs(10) }
    }
}

/// What a submit does while the stream's quota or the disk leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Fails at once.
    Fail,
    /// Waits for room, and fails when there is none after this time.
    Block(Duration),
}

/// What a command survives once submit has returned. Only an outcome says that it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of any process; one `write`.
    Queued,
    /// Power loss too, for this command and every earlier one of its stream; costs an fdatasync.
    Durable,
}

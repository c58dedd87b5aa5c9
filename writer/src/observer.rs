//! What the writer tells the program around it: that it is ready, and that it is alive.

use std::path::PathBuf;

use penholder_protocol::Epoch;

/// The writer holds the store and applies commands from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The store's directory.
    pub store: PathBuf,
    /// The number of this run.
    pub epoch: Epoch,
}

/// Is called by the writer's own thread, between two batches; what takes long here makes every client wait.
pub trait Observer {
    /// Recovery is over and the first look at the spool is next. Called again when the writer had to start over.
    fn ready(&mut self, ready: &Ready);

    /// The loop went round: called at least once per safety poll, and never while the writer is stuck.
    fn beat(&mut self);
}

/// Watches nothing.
impl Observer for () {
    fn ready(&mut self, _: &Ready) {}

    fn beat(&mut self) {}
}

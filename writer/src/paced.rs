//! Work that is asked for by events and must not starve the rest.

use std::time::{Duration, Instant};

/// Such work may take this share of the writer's time while there is other work.
const SHARE: u32 = 40;

/// When to do it again.
#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) wanted: bool,
    not_before: Instant,
}

impl Paced {
    /// Due at once.
    pub(crate) fn new() -> Self {
        Self { wanted: true, not_before: Instant::now() }
    }

    /// Whether to do it now.
    pub(crate) fn is_due(&self, busy: bool) -> bool {
        self.wanted && (!busy || Instant::now() >= self.not_before)
    }

    /// It was done, and took so long.
    pub(crate) fn done(&mut self, took: Duration) {
        self.wanted = false;
        self.not_before = Instant::now() + took * SHARE;
    }
}

//! Leaves the processor to the clients for a moment, when more of their commands are about to come.

use std::time::{Duration, Instant};

/// A yield that takes longer than this gave the processor to something that does not wait for the disk, as clients do.
const HELD_UP: Duration = Duration::from_millis(1);

/// Pauses in a row that are then naps: who is woken gets the processor sooner than who yielded it.
const NAPS: u32 = 256;

/// The system makes it some 60 microseconds.
const NAP: Duration = Duration::from_micros(10);

/// How the next pauses are made.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    /// Pauses that are still to be naps.
    naps: u32,
}

impl Pause {
    /// Yields, or naps where yielding has taken too long.
    pub(crate) fn make(&mut self) {
        if self.naps > 0 {
            self.naps -= 1;
            std::thread::sleep(NAP);
            return;
        }
        let before = Instant::now();
        std::thread::yield_now();
        if before.elapsed() > HELD_UP {
            self.naps = NAPS;
        }
    }
}

//! The progress cell of a receipt file, mapped by the writer that publishes and by the client that waits.
#![allow(
    unsafe_code,
    reason = "a cell shared by two processes is reached through a mapping, and no crate hands out atomics over one"
)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};

use crate::receipt::{CELL_APPLIED, CELL_BELL, CELL_END, CELL_START, CELL_STATE, CELL_TICK, HEADER_BYTES};
use crate::{Sequence, Tick};

/// What the writer last published for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressCell {
    /// Every command up to this one has its final outcome.
    pub applied: Sequence,
    /// The tick that `applied` was committed with.
    pub tick: Tick,
    /// Where the records that are still there start, in bytes from the start of the file.
    pub records_start: u64,
    /// Where the records end, in bytes from the start of the file.
    pub records_end: u64,
    /// One of the `STATE_` constants of [`receipt`](crate::receipt).
    pub state: u32,
}

/// A mapping of a receipt file's header page.
#[derive(Debug)]
pub struct Progress {
    map: MmapRaw,
    writable: bool,
}

impl Progress {
    /// Maps the header page of a receipt file that was opened for reading only.
    pub fn map_reader(file: &File) -> io::Result<Self> {
        check_length(file)?;
        Ok(Self { map: MmapOptions::new().len(HEADER_BYTES).map_raw_read_only(file)?, writable: false })
    }

    /// Maps the header page of a receipt file that was opened for reading and writing.
    pub fn map_writer(file: &File) -> io::Result<Self> {
        check_length(file)?;
        Ok(Self { map: MmapOptions::new().len(HEADER_BYTES).map_raw(file)?, writable: true })
    }

    /// Reads the cell. What stands in the file up to `records_end` covers every command up to `applied`.
    #[must_use]
    pub fn read(&self) -> ProgressCell {
        // In the reverse order of `publish`: who sees the quarantine sees the last applied sequence too, and who sees
        // that sees its tick and its records.
        let state = self.word32(CELL_STATE).load(Ordering::Acquire);
        let applied = Sequence(self.word64(CELL_APPLIED).load(Ordering::Acquire));
        ProgressCell {
            applied,
            tick: Tick(self.word64(CELL_TICK).load(Ordering::Acquire)),
            records_start: self.word64(CELL_START).load(Ordering::Acquire),
            records_end: self.word64(CELL_END).load(Ordering::Acquire),
            state,
        }
    }

    /// Publishes the cell and wakes whoever sleeps on it.
    ///
    /// # Panics
    ///
    /// If the mapping was not made by [`map_writer`](Self::map_writer).
    pub fn publish(&self, cell: ProgressCell) {
        assert!(self.writable, "a cell that was mapped for reading is published by somebody else");
        self.word64(CELL_START).store(cell.records_start, Ordering::Release);
        self.word64(CELL_END).store(cell.records_end, Ordering::Release);
        self.word64(CELL_TICK).store(cell.tick.0, Ordering::Release);
        self.word64(CELL_APPLIED).store(cell.applied.0, Ordering::Release);
        // Last: who sees "quarantined" must see the last command that was applied before.
        self.word32(CELL_STATE).store(cell.state, Ordering::Release);
        self.word32(CELL_BELL).fetch_add(1, Ordering::Release);
        self.wake();
    }

    /// The bell as it is now: read it, look at the cell, and [`wait`](Self::wait) if nothing was there.
    #[must_use]
    pub fn bell(&self) -> u32 {
        self.word32(CELL_BELL).load(Ordering::Acquire)
    }

    /// Sleeps until the bell is no longer `seen` or the time is over; may wake for no reason.
    #[cfg(target_os = "linux")]
    pub fn wait(&self, seen: u32, timeout: Duration) {
        use rustix::thread::futex;
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // Woken, interrupted, too late to sleep, timed out: the caller looks at the cell in every case.
        futex::wait(self.word32(CELL_BELL), futex::Flags::empty(), seen, Some(&timeout)).ok();
    }

    /// Sleeps a moment: where there is no futex, the caller polls.
    #[cfg(not(target_os = "linux"))]
    pub fn wait(&self, seen: u32, timeout: Duration) {
        if self.bell() == seen {
            std::thread::sleep(timeout.min(Duration::from_micros(500)));
        }
    }

    #[cfg(target_os = "linux")]
    fn wake(&self) {
        use rustix::thread::futex;
        // Nobody waiting is the common case, and waking cannot fail in a way that the client's timeout does not mend.
        futex::wake(self.word32(CELL_BELL), futex::Flags::empty(), i32::MAX as u32).ok();
    }

    #[cfg(not(target_os = "linux"))]
    fn wake(&self) {}

    fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset + 8 <= HEADER_BYTES && offset.is_multiple_of(8),
            "a cell's word lies aligned in the header page"
        );
        // SAFETY: the mapping is HEADER_BYTES long, page-aligned and lives as long as `self`; the offset is aligned and
        // inside it. Both processes reach the word only through atomics. Nobody truncates a receipt file below its
        // header: clients cannot write it, and the writer only appends and punches holes behind it.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }

    fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(
            offset + 4 <= HEADER_BYTES && offset.is_multiple_of(4),
            "a cell's word lies aligned in the header page"
        );
        // SAFETY: as in `word64`.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }
}

fn check_length(file: &File) -> io::Result<()> {
    if file.metadata()?.len() < HEADER_BYTES as u64 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a receipt file is shorter than its header page",
        ));
    }
    Ok(())
}

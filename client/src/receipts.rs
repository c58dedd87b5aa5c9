//! What became of the commands of one stream, as its receipt file tells.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use penholder_protocol::limits::RECORD_BYTES_MAX;
use penholder_protocol::receipt::{HEADER_BYTES, ReceiptHeader, STATE_QUARANTINED, decode_record};
use penholder_protocol::{Applied, Code, DecodeError, Layout, Outcome, Progress, ProgressCell};
use penholder_protocol::{Rejection, Sequence, StoreId, StreamId, Tick};

use crate::ClientError;
use crate::unread::Unread;

/// How long a wait watches the cell before it sleeps: about two commits of a fast disk. On an idle core, going to sleep
/// and being woken costs a third of a commit.
const SPIN: Duration = Duration::from_micros(300);

/// A yield that takes longer than this gave the core to something that does not wait for the disk, as clients do.
const HELD_UP: Duration = Duration::from_millis(1);

/// Waits in a row that then sleep at once: who is woken gets the core sooner than who yielded it.
const ASLEEP_WAITS: u32 = 64;

/// Looks at the cell per reading of the clock while spinning.
const SPIN_LOOKS: u32 = 32;

/// Longest sleep on the cell before the file itself is looked at again.
const SLICE: Duration = Duration::from_millis(100);

/// How often a submit looks for a receipt file that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long a quarantine is looked at twice, as a cell is not published in one piece.
const SETTLE: Duration = Duration::from_millis(10);

/// Bytes of records that are read at once: two of the longest.
const READ_BYTES: usize = 2 * RECORD_BYTES_MAX;

/// The receipts of one stream; their file appears when the writer first commits for it.
#[derive(Debug)]
pub(crate) struct Receipts {
    store: StoreId,
    stream: StreamId,
    path: PathBuf,
    opened: Option<Opened>,
    looked: Option<Instant>,
    unread: Unread,
    /// The last tick that was read: every command that is settled was committed by then.
    tick: Tick,
    /// Waits that are still to sleep at once.
    asleep: u32,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    salt: u64,
    progress: Progress,
    /// Where the next record to read begins, in bytes from the start of the file.
    position: u64,
}

impl Receipts {
    pub(crate) fn new(layout: &Layout, store: StoreId, stream: StreamId) -> Self {
        let path = layout.receipt(stream);
        Self {
            store,
            stream,
            path,
            opened: None,
            looked: None,
            unread: Unread::default(),
            tick: Tick::default(),
            asleep: 0,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    /// What the writer last published, if it ever did; looks at the file from time to time only.
    pub(crate) fn cell(&mut self) -> Result<Option<ProgressCell>, ClientError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            self.leave_replaced()?;
            self.look()?;
        }
        Ok(self.opened.as_ref().map(|opened| opened.progress.read()))
    }

    /// Whether the stream is quarantined, as far as its receipts tell.
    pub(crate) fn is_quarantined(&mut self) -> Result<bool, ClientError> {
        Ok(self.cell()?.is_some_and(|cell| cell.state == STATE_QUARANTINED))
    }

    /// The final outcome of a command, if it has one. Results are handed out once, rejections as often as asked for.
    pub(crate) fn outcome(&mut self, sequence: Sequence) -> Result<Option<Outcome>, ClientError> {
        if sequence > self.unread.settled() {
            let Some(opened) = &self.opened else { return Ok(None) };
            let mut cell = opened.progress.read();
            if sequence > cell.applied && cell.state == STATE_QUARANTINED {
                thread::sleep(SETTLE);
                cell = opened.progress.read();
                if sequence > cell.applied {
                    return Ok(Some(quarantined()));
                }
            }
            if sequence > cell.applied {
                return Ok(None);
            }
            self.read_records()?;
        }
        if let Some(outcome) = self.unread.take(sequence) {
            return Ok(Some(outcome));
        }
        if self.unread.may_have_lost(sequence) {
            return Err(ClientError::OutcomeLost { stream: self.stream, sequence });
        }
        Ok(Some(Outcome::Applied(Applied { tick: self.tick, results: None })))
    }

    /// Waits for the final outcome of a command; `None` when the time is over.
    pub(crate) fn wait(
        &mut self,
        sequence: Sequence,
        timeout: Duration,
    ) -> Result<Option<Outcome>, ClientError> {
        let begun = Instant::now();
        let watches = self.asleep == 0;
        self.asleep = self.asleep.saturating_sub(1);
        loop {
            if self.opened.is_none() {
                self.look()?;
            }
            let bell = self.bell();
            if let Some(outcome) = self.outcome(sequence)? {
                return Ok(Some(outcome));
            }
            let waited = begun.elapsed();
            let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Ok(None);
            };
            if bell.is_some() && watches && waited < SPIN {
                (0..SPIN_LOOKS).take_while(|_| self.bell() == bell).for_each(|_| std::hint::spin_loop());
                thread::yield_now();
                if begun.elapsed().saturating_sub(waited) > HELD_UP {
                    self.asleep = ASLEEP_WAITS;
                }
            } else {
                // Without a file there is nothing to sleep on: naps of an eighth of the time waited so far.
                let nap = (waited / 8).clamp(Duration::from_micros(50), Duration::from_millis(20));
                self.sleep(bell, left.min(if bell.is_some() { SLICE } else { nap }))?;
            }
        }
    }

    /// The bell as it is now, to be looked at before what it announces.
    pub(crate) fn bell(&self) -> Option<u32> {
        self.opened.as_ref().map(|opened| opened.progress.bell())
    }

    /// Sleeps until the bell is no longer `seen` or the time is over; notices when the file was replaced.
    pub(crate) fn sleep(&mut self, seen: Option<u32>, time: Duration) -> Result<(), ClientError> {
        let (Some(opened), Some(bell)) = (&self.opened, seen) else {
            thread::sleep(time);
            return Ok(());
        };
        opened.progress.wait(bell, time);
        if opened.progress.bell() == bell { self.leave_replaced() } else { Ok(()) }
    }

    /// Lets go of a file that the writer has removed. What it told is read first: the next one tells it no more.
    fn leave_replaced(&mut self) -> Result<(), ClientError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let metadata = opened.file.metadata().map_err(ClientError::io("look at", &self.path))?;
        if metadata.nlink() == 0 {
            self.read_records()?;
            self.opened = None;
        }
        Ok(())
    }

    /// Opens the file if it is there and complete, and not open yet.
    fn look(&mut self) -> Result<(), ClientError> {
        self.looked = Some(Instant::now());
        if self.opened.is_some() {
            return Ok(());
        }
        match open(&self.path, self.store, self.stream) {
            Ok(opened) => self.opened = Some(opened),
            // Not made yet, or not all of it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {}
            Err(error) => return Err(ClientError::io("read", &self.path)(error)),
        }
        Ok(())
    }

    /// Takes in the records that were published since the last time.
    fn read_records(&mut self) -> Result<(), ClientError> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        loop {
            let cell = opened.progress.read();
            if opened.position < cell.records_start {
                // Read too late: what stood there is gone.
                self.unread.gap();
                opened.position = cell.records_start;
            }
            if opened.position > cell.records_end {
                // The writer began anew in the same file.
                opened.position = cell.records_start;
            }
            self.tick = self.tick.max(cell.tick);
            if opened.position >= cell.records_end {
                self.unread.complete(cell.applied);
                return Ok(());
            }
            let length = usize::try_from(cell.records_end - opened.position).unwrap_or(READ_BYTES);
            self.buffer.resize(length.min(READ_BYTES), 0);
            opened
                .file
                .read_exact_at(&mut self.buffer, opened.position)
                .map_err(ClientError::io("read", &self.path))?;
            match take_records(&self.buffer, opened.salt, opened.position, &mut self.unread) {
                Ok(taken) if taken > 0 => opened.position += taken,
                _ if opened.progress.read().records_start > opened.position => {}
                damaged => {
                    log::warn!("{} is damaged at {}: {damaged:?}", self.path.display(), opened.position);
                    self.unread.gap();
                    opened.position = cell.records_end;
                }
            }
        }
    }
}

/// Keeps every record that is whole in `bytes`, which stand at `position`, and says how many bytes they are.
fn take_records(bytes: &[u8], salt: u64, position: u64, unread: &mut Unread) -> Result<u64, DecodeError> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..)
        && !rest.is_empty()
    {
        match decode_record(salt, position + taken as u64, rest) {
            Ok(Some(record)) => {
                taken += record.bytes;
                unread.keep(record.sequence, record.outcome, record.bytes);
            }
            Ok(None) => break,
            // What was good is taken first; the next call begins with the damage.
            Err(_) if taken > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken as u64)
}

fn open(path: &PathBuf, store: StoreId, stream: StreamId) -> io::Result<Opened> {
    let file = File::open(path)?;
    let mut page = [0; HEADER_BYTES];
    file.read_exact_at(&mut page, 0)?;
    let header = match ReceiptHeader::decode(&page) {
        Err(DecodeError::Magic { .. } | DecodeError::Checksum { .. }) => {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoded => decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
    };
    if header.store != store || header.stream != stream {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it belongs to another stream"));
    }
    let progress = Progress::map_reader(&file)?;
    Ok(Opened { file, salt: header.salt, progress, position: HEADER_BYTES as u64 })
}

fn quarantined() -> Outcome {
    Outcome::Rejected(Rejection {
        code: Code::Corrupt,
        message: "its stream is quarantined: it stands at or behind bytes that cannot be trusted; \
                  connect again and submit it to a new stream"
            .to_owned(),
        statement: None,
    })
}

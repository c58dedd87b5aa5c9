//! Tells each stream what became of its commands.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use penholder_protocol::receipt::{self, ReceiptHeader};
use penholder_protocol::{
    Applied, Layout, Outcome, Progress, ProgressCell, Sequence, StoreId, StreamId, Tick, limits,
};
use rustix::fs::FallocateFlags;

use crate::batch::Entry;
use crate::commit::Committed;
use crate::intake::Over;
use crate::{Error, access};

/// Records kept at least, in bytes: a window of 256 commands in flight with results of the largest size.
const RECORDS_BYTES_KEPT: u64 = 16 << 20;

const _: () = assert!(RECORDS_BYTES_KEPT >= 128 * limits::RECORD_BYTES_MAX as u64);

/// Receipts per user that stay after the stream is over: of sealed streams, whose readers hold no lock that would tell,
/// and of quarantined ones, whose readers have to learn of it.
const LINGERING_COUNT_MAX: usize = 256;

/// The receipt files of the streams that are being followed.
#[derive(Debug)]
pub(crate) struct Receipts {
    layout: Layout,
    store: StoreId,
    open: HashMap<StreamId, ReceiptFile>,
    lingering: HashMap<u32, VecDeque<StreamId>>,
}

#[derive(Debug)]
struct ReceiptFile {
    file: File,
    salt: u64,
    progress: Progress,
    cell: ProgressCell,
    /// Starts of recent runs of records, where the head may be cut off.
    marks: VecDeque<u64>,
}

impl Receipts {
    /// Removes what nobody will read any more, and keeps the receipts of the streams in the spool.
    pub(crate) fn open(
        layout: &Layout,
        store: StoreId,
        in_spool: impl Fn(StreamId) -> bool,
    ) -> Result<Self, Error> {
        let directory = layout.receipts();
        let failed = || Error::io("clean", &directory);
        for item in std::fs::read_dir(&directory).map_err(failed())? {
            let path = item.map_err(failed())?.path();
            let stream = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if !stream.is_some_and(&in_spool) {
                std::fs::remove_file(&path).map_err(failed())?;
            }
        }
        Ok(Self { layout: layout.clone(), store, open: HashMap::new(), lingering: HashMap::new() })
    }

    /// Publishes the outcomes of a batch that is durable in every database it touches.
    pub(crate) fn publish(&mut self, committed: &Committed) -> Result<(), Error> {
        let told: Vec<_> = committed.entries.iter().zip(&committed.outcomes).collect();
        for run in told.chunk_by(|(one, _), (other, _)| one.stream == other.stream) {
            let Some((first, _)) = run.first() else { continue };
            let (stream, uid) = (first.stream, first.uid);
            let file = self.file(stream, uid)?;
            file.tell(run, committed.tick).map_err(Error::io("write", &self.layout.receipt(stream)))?;
        }
        Ok(())
    }

    /// Whether a stream was told of everything up to a command; one that is not followed has nothing to be told.
    pub(crate) fn is_told(&self, stream: StreamId, last: Sequence) -> bool {
        self.open.get(&stream).is_none_or(|file| file.cell.applied >= last)
    }

    /// Tells a stream that nothing behind its last outcome will ever be applied.
    fn stop(&mut self, over: Over) -> Result<(), Error> {
        let file = self.file(over.stream, over.uid)?;
        if file.cell.state != receipt::STATE_QUARANTINED {
            file.cell.state = receipt::STATE_QUARANTINED;
            file.progress.publish(file.cell);
        }
        Ok(())
    }

    /// Lets go of a stream that is over. Its receipts go too if the owner of its lock is gone, and later otherwise.
    pub(crate) fn close(&mut self, over: Over) -> Result<(), Error> {
        if over.stopped {
            self.stop(over)?;
        }
        self.open.remove(&over.stream);
        let mut gone = over.stream;
        if over.sealed || over.stopped {
            let lingering = self.lingering.entry(over.uid).or_default();
            lingering.push_back(over.stream);
            if lingering.len() <= LINGERING_COUNT_MAX {
                return Ok(());
            }
            gone = lingering.pop_front().unwrap_or(gone);
        }
        let path = self.layout.receipt(gone);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn file(&mut self, stream: StreamId, uid: u32) -> Result<&mut ReceiptFile, Error> {
        match self.open.entry(stream) {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let path = self.layout.receipt(stream);
                let file = ReceiptFile::resume_or_create(&path, self.store, stream, uid)
                    .map_err(Error::io("open", &path))?;
                Ok(place.insert(file))
            }
        }
    }
}

impl ReceiptFile {
    /// Goes on with the file that a client may have mapped already, or makes a new one.
    fn resume_or_create(path: &Path, store: StoreId, stream: StreamId, uid: u32) -> io::Result<Self> {
        let (file, header) = match Self::resume(path, store, stream)? {
            Some(found) => found,
            None => Self::create(path, store, stream, uid)?,
        };
        let progress = Progress::map_writer(&file)?;
        let cell = progress.read();
        Ok(Self { file, salt: header.salt, progress, cell, marks: VecDeque::new() })
    }

    fn resume(path: &Path, store: StoreId, stream: StreamId) -> io::Result<Option<(File, ReceiptHeader)>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut page = vec![0; receipt::HEADER_BYTES];
        let read = file.read_exact_at(&mut page, 0);
        let header = read.ok().and_then(|()| ReceiptHeader::decode(&page).ok());
        let ours = header.filter(|header| (header.store, header.stream) == (store, stream));
        Ok(ours.map(|header| (file, header)))
    }

    /// Makes the file aside, for the eyes of one user.
    fn create(path: &Path, store: StoreId, stream: StreamId, uid: u32) -> io::Result<(File, ReceiptHeader)> {
        let salt = StreamId::random()?.0.first_chunk().copied().unwrap_or_default();
        let header = ReceiptHeader { store, stream, salt: u64::from_le_bytes(salt) };
        let aside = path.with_extension("tmp");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        access::let_read(&file, uid)?;
        file.write_all_at(&header.encode(), 0)?;
        std::fs::rename(&aside, path)?;
        Ok((file, header))
    }

    /// Writes the records of a run of outcomes, then moves the cell and wakes the client.
    fn tell(&mut self, run: &[(&Entry, &Outcome)], tick: Tick) -> io::Result<()> {
        let mut records = Vec::new();
        for (entry, outcome) in run {
            let wanted = entry.wants_results || matches!(outcome, Outcome::Rejected(_));
            let is_known =
                matches!(outcome, Outcome::Rejected(_) | Outcome::Applied(Applied { results: Some(_), .. }));
            if !wanted || !is_known || entry.sequence <= self.cell.applied {
                continue;
            }
            let start = records.len();
            let offset = self.cell.records_end + start as u64;
            receipt::encode_record(self.salt, offset, entry.sequence, outcome, &mut records);
            if records.len() - start > limits::RECORD_BYTES_MAX {
                // Too many results for a receipt: without a record it reads as applied, details not told.
                records.truncate(start);
            }
        }
        if !records.is_empty() {
            self.file.write_all_at(&records, self.cell.records_end)?;
            self.marks.push_back(self.cell.records_end);
            self.cell.records_end += records.len() as u64;
            self.cut_head()?;
        }
        if let Some((last, _)) = run.last()
            && last.sequence > self.cell.applied
        {
            self.cell.applied = last.sequence;
            self.cell.tick = tick;
            self.progress.publish(self.cell);
        }
        Ok(())
    }

    /// Gives the space of old records back once twice as much is kept as must be.
    fn cut_head(&mut self) -> io::Result<()> {
        if self.cell.records_end - self.cell.records_start < 2 * RECORDS_BYTES_KEPT {
            return Ok(());
        }
        let keep_from = self.cell.records_end - RECORDS_BYTES_KEPT;
        while let Some(mark) = self.marks.front().copied().filter(|mark| *mark <= keep_from) {
            self.cell.records_start = mark;
            self.marks.pop_front();
        }
        let hole = receipt::HEADER_BYTES as u64..self.cell.records_start;
        if hole.is_empty() {
            // No run of records begins early enough: the file was resumed, or begins with one long run.
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, hole.start, hole.end - hole.start) {
            Err(rustix::io::Errno::OPNOTSUPP) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn old_records_without_a_known_start_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (store, stream) = (StoreId([1; 16]), StreamId([2; 16]));
        let path = directory.path().join("receipts");
        let mut file =
            ReceiptFile::resume_or_create(&path, store, stream, rustix::process::geteuid().as_raw()).unwrap();
        file.cell.records_end += 3 * RECORDS_BYTES_KEPT;
        file.cut_head().unwrap();
        assert_eq!(file.cell.records_start, receipt::HEADER_BYTES as u64, "resumed: no run of it is known");
        file.marks.push_back(file.cell.records_start);
        file.cut_head().unwrap();
        assert_eq!(file.cell.records_start, receipt::HEADER_BYTES as u64, "one run that is longer than all");
        file.marks.push_back(file.cell.records_end - 2 * RECORDS_BYTES_KEPT);
        file.cut_head().unwrap();
        assert_eq!(file.cell.records_start, file.cell.records_end - 2 * RECORDS_BYTES_KEPT);
    }
}

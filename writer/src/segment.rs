//! One segment file in the spool: opened with suspicion, read forward in whole frames.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use penholder_protocol::{
    DecodeError, Epoch, LaterFrame, Layout, NotOpened, SegmentDecoder, SegmentHeader, SegmentKind,
    SegmentName, Sequence, SpoolFile, Step, StoreId, Submitted, limits,
};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::Error;

/// Bytes that are read at once where frames are short.
const WINDOW_BYTES: usize = 64 << 10;

/// A segment that is being read.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    pub(crate) header: SegmentHeader,
    /// The user that owns the file: whoever submitted its commands.
    pub(crate) owner: u32,
    /// Bytes that were read and will be read again, or to tell a torn tail from damage; not accounted for yet.
    pub(crate) searched: u64,
    file: File,
    decoder: SegmentDecoder,
    /// Bytes to read at once: what is read beyond a turn is read again.
    window: usize,
    /// Where the frame ends of which a part is there: while its owner lives, nothing is read before the file is that long.
    wanted: u64,
    /// The owner is gone: what is there now is all there will be.
    owner_gone: bool,
}

/// Why a file in the spool is not read, or not read further.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Its owner is still writing it, or holds a lease on it; look again later.
    NotYet,
    /// It is gone, or never held anything.
    Nothing,
    /// It cannot be trusted from here on; the reason is for people.
    Corrupt(String),
    /// The machine failed, not the file.
    Environment(Error),
}

/// What stands at the read position.
#[derive(Debug)]
pub(crate) enum Read {
    /// Nothing more yet, or nothing more wanted.
    Nothing,
    /// Nothing more, ever.
    Finished {
        /// The segment ended in the middle of a frame, which nobody was promised.
        torn: bool,
    },
    /// A frame does not validate while its owner lives; it may be half visible, so look again.
    Suspicious(DecodeError),
}

impl Segment {
    /// Opens a segment without following, blocking on or trusting anything; `device` is the spool's.
    pub(crate) fn open(
        layout: &Layout,
        name: SegmentName,
        store: StoreId,
        device: u64,
    ) -> Result<Self, Trouble> {
        let path = layout.segment(name);
        let SpoolFile { file, uid: owner, .. } =
            SpoolFile::open(&path, device).map_err(|error| match error {
                NotOpened::Gone => Trouble::Nothing,
                NotOpened::Refused(reason) => Trouble::Corrupt(reason),
                // Somebody holds a lease on it; it was asked to give it up, and the kernel takes it after a while.
                NotOpened::Failed(error) if error.kind() == ErrorKind::WouldBlock => Trouble::NotYet,
                NotOpened::Failed(error) => Trouble::Environment(Error::io("open", &path)(error)),
            })?;
        let failed = |error| Trouble::Environment(Error::io("read", &path)(error));
        let owner_gone = name.kind == SegmentKind::Sealed || is_unlocked(&file);
        let mut bytes = [0; SegmentHeader::BYTES];
        let length = read_up_to(&file, &mut bytes, 0).map_err(failed)?;
        if length < SegmentHeader::BYTES || bytes.iter().all(|byte| *byte == 0) {
            let blank = bytes.iter().all(|byte| *byte == 0);
            return Err(match (owner_gone, blank) {
                (false, _) => Trouble::NotYet,
                (true, true) => Trouble::Nothing,
                (true, false) => Trouble::Corrupt("shorter than a segment header".into()),
            });
        }
        let header = SegmentHeader::decode(&bytes).map_err(|error| Trouble::Corrupt(error.to_string()))?;
        if (header.stream, header.number) != (name.stream, name.number) {
            return Err(Trouble::Corrupt("its name and its header name different segments".into()));
        }
        if header.store != store {
            return Err(Trouble::Corrupt(format!("it was written for the store {}", header.store)));
        }
        let decoder = SegmentDecoder::new(&header);
        Ok(Self {
            name,
            header,
            owner,
            searched: 0,
            file,
            decoder,
            window: WINDOW_BYTES,
            wanted: 0,
            owner_gone,
        })
    }

    /// Sequence of the next command.
    pub(crate) fn next_sequence(&self) -> Sequence {
        self.decoder.next_sequence()
    }

    /// Refuses a segment of a time that has not come yet, or that is long past.
    pub(crate) fn check_epoch(&self, current: Epoch, floor: Epoch, is_known: bool) -> Result<(), Trouble> {
        let epoch = self.header.epoch;
        if epoch > current {
            return Err(Trouble::Corrupt(format!("it is of epoch {epoch}, which has not come yet")));
        }
        if is_known || epoch > floor {
            return Ok(());
        }
        if self.is_just_made() {
            // A client that took the old epoch; it sees the raised floor before it appends, and starts over.
            return Err(Trouble::NotYet);
        }
        let reason = format!(
            "no database knows its stream, and epoch {epoch} is long past: a file restored from a backup"
        );
        Err(Trouble::Corrupt(reason))
    }

    /// Whether its owner lives and has not appended anything yet.
    fn is_just_made(&self) -> bool {
        let length = self.file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        !self.owner_gone && length <= SegmentHeader::BYTES as u64
    }

    /// Learns whether the owner is still there: it holds a lock while it lives.
    pub(crate) fn look_for_owner(&mut self) -> bool {
        self.owner_gone = self.owner_gone || is_unlocked(&self.file);
        !self.owner_gone
    }

    /// Takes note that the stream's next segment is there: nothing is appended to this one any more, whoever holds its
    /// lock, because the sequence of a later command would not follow on it.
    pub(crate) fn is_followed(&mut self) {
        self.owner_gone = true;
    }

    /// Reads whole frames until one with commands, through `scratch`, which grows with the frames.
    ///
    /// `take` gets the commands of as many frames as it wants: it says whether it wants more.
    pub(crate) fn read(
        &mut self,
        scratch: &mut Vec<u8>,
        mut take: impl FnMut(Submitted) -> bool,
    ) -> Result<Read, Trouble> {
        if !self.owner_gone && self.decoder.offset() < self.wanted && self.length()? < self.wanted {
            return Ok(Read::Nothing);
        }
        loop {
            let start = self.decoder.offset();
            if start >= limits::SEGMENT_BYTES_MAX {
                return Err(Trouble::Corrupt("longer than a segment may be".into()));
            }
            let window = self.window;
            scratch.resize(scratch.len().max(window), 0);
            let length = self.read_at(scratch.get_mut(..window).unwrap_or_default(), start)?;
            loop {
                let read_so_far = usize::try_from(self.decoder.offset() - start).unwrap_or(usize::MAX);
                let rest = scratch.get(read_so_far..length).unwrap_or_default();
                match self.decoder.next(rest) {
                    Ok(Step::Submitted(submitted)) => {
                        if submitted.bytes <= WINDOW_BYTES {
                            self.window = WINDOW_BYTES;
                        }
                        if !take(submitted) {
                            return Ok(Read::Nothing);
                        }
                    }
                    Ok(Step::Incomplete) if length == window && self.decoder.offset() > start => break,
                    Ok(Step::Incomplete) if length == window && SegmentDecoder::wanted(rest) > length => {
                        // A little more than the frame, as the next one will be of about its length.
                        self.window = SegmentDecoder::wanted(rest) * 9 / 8;
                        break;
                    }
                    Ok(Step::Incomplete) => {
                        // The decoder may have moved behind definitions.
                        let consumed = usize::try_from(self.decoder.offset() - start).unwrap_or(usize::MAX);
                        let tail = scratch.get(consumed..length).unwrap_or_default();
                        if !tail.is_empty() {
                            self.wanted = self.decoder.offset() + SegmentDecoder::wanted(tail) as u64;
                            self.searched += tail.len() as u64;
                        }
                        return self.at_end(consumed < length);
                    }
                    Ok(Step::End) => return self.at_zeros(scratch),
                    Err(error) => return self.at_damage(error),
                }
            }
        }
    }

    /// What an append left unfinished is torn; a length that a flipped bit made too large has whole frames behind it.
    fn at_end(&mut self, tail: bool) -> Result<Read, Trouble> {
        if !self.owner_gone {
            return Ok(Read::Nothing);
        }
        if tail && self.later_frame_validates()? {
            let offset = self.decoder.offset();
            return Err(Trouble::Corrupt(format!(
                "the length of the frame at offset {offset} is more than there is, and a frame behind it validates"
            )));
        }
        Ok(Read::Finished { torn: tail })
    }

    /// A zero length ends the data; behind it may only be zeros, which a file system leaves when power is lost.
    fn at_zeros(&mut self, scratch: &mut [u8]) -> Result<Read, Trouble> {
        if !self.owner_gone {
            return Ok(Read::Nothing);
        }
        let mut offset = self.decoder.offset();
        while let Some(data) = self.next_data(offset)? {
            if data >= limits::SPOOL_FILE_BYTES_MAX {
                // It was not that long when it was opened.
                return Err(Trouble::Corrupt("longer than a file of the spool may be".into()));
            }
            let length = self.read_at(scratch, data)?;
            self.searched += length as u64;
            if scratch.iter().take(length).any(|byte| *byte != 0) {
                return self.judge("a frame of length zero before the end");
            }
            if length == 0 {
                break;
            }
            offset = data + length as u64;
        }
        Ok(Read::Finished { torn: true })
    }

    fn at_damage(&mut self, error: DecodeError) -> Result<Read, Trouble> {
        match &error {
            DecodeError::Checksum { .. } if !self.owner_gone => Ok(Read::Suspicious(error)),
            DecodeError::Checksum { .. } => self.judge(&error.to_string()),
            DecodeError::Magic { .. } | DecodeError::Unsupported { .. } | DecodeError::Invalid { .. } => {
                Err(Trouble::Corrupt(error.to_string()))
            }
        }
    }

    /// A tail that a power cut tore, or damage: the page cache of the running boot does not tear, and nothing behind
    /// a tear validates.
    fn judge(&mut self, reason: &str) -> Result<Read, Trouble> {
        let same_boot = self.header.boot == penholder_protocol::boot_id();
        if same_boot || self.later_frame_validates()? {
            return Err(Trouble::Corrupt(reason.into()));
        }
        Ok(Read::Finished { torn: true })
    }

    /// Whether a frame validates anywhere behind the read position, to the end of the file.
    fn later_frame_validates(&mut self) -> Result<bool, Trouble> {
        let mut search = LaterFrame::new(&self.decoder);
        let mut window = vec![0; 2 * LaterFrame::REACH_BYTES];
        while search.offset() < limits::SPOOL_FILE_BYTES_MAX {
            let Some(data) = self.next_data(search.offset())? else { return Ok(false) };
            // A frame may begin in the zeros of a hole, with the low bytes of its length.
            search.skip_to(data.saturating_sub(3));
            let length = self.read_at(&mut window, search.offset())?;
            let is_last = length < window.len();
            let positions = if is_last { length } else { LaterFrame::REACH_BYTES };
            let found = search.begins_in(window.get(..length).unwrap_or_default(), positions);
            if found || is_last {
                self.searched += search.offset() - self.decoder.offset();
                return Ok(found);
            }
        }
        // It was not that long when it was opened: whoever makes it grow is not torn.
        Ok(true)
    }

    /// Where data begins at or behind `offset`; `None` if only a hole is there, or nothing.
    fn next_data(&self, offset: u64) -> Result<Option<u64>, Trouble> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            // A file system that does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    fn length(&self) -> Result<u64, Trouble> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| self.failed(error))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Trouble> {
        read_up_to(&self.file, bytes, offset).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> Trouble {
        Trouble::Environment(Error::io("read a segment of", self.name.to_string().as_ref())(error))
    }
}

/// Takes the lock if nobody holds it; a segment whose owner is gone is never written again.
fn is_unlocked(file: &File) -> bool {
    fs2::FileExt::try_lock_exclusive(file).is_ok()
}

/// Reads from `offset` on; a regular file gives less than asked for only at its end.
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(bytes, offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]
mod tests;

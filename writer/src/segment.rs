//! One segment file in the spool: opened with suspicion, read forward in whole frames.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use penholder_protocol::{
    DecodeError, Layout, SegmentDecoder, SegmentHeader, SegmentKind, SegmentName, Sequence, Step, StoreId,
    Submitted, limits,
};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::Error;

/// Bytes that are read at once where frames are short.
const WINDOW_BYTES: usize = 64 << 10;

/// A segment that is being read.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    pub(crate) header: SegmentHeader,
    file: File,
    decoder: SegmentDecoder,
    /// Bytes to read at once: what is read beyond a turn is read again.
    window: usize,
    /// The owner is gone: what is there now is all there will be.
    owner_gone: bool,
}

/// Why a file in the spool is not read, or not read further.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Its owner is still writing it; look again later.
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
    /// Opens a segment without following, blocking on or trusting anything.
    pub(crate) fn open(layout: &Layout, name: SegmentName, store: StoreId) -> Result<Self, Trouble> {
        let path = layout.segment(name);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path);
        let file = file.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Trouble::Nothing,
            Some(Errno::ACCESS | Errno::PERM) => Trouble::Corrupt(format!("cannot be opened: {error}")),
            // A symbolic link, a socket, a pipe, a device without a driver.
            Some(Errno::LOOP | Errno::NXIO | Errno::NODEV) => Trouble::Corrupt("not a regular file".into()),
            _ => Trouble::Environment(Error::io("open", &path)(error)),
        })?;
        let failed = |error| Trouble::Environment(Error::io("read", &path)(error));
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.nlink() > 1 {
            return Err(Trouble::Corrupt("not a regular file with one name".into()));
        }
        if metadata.nlink() == 0 {
            return Err(Trouble::Nothing);
        }
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
        Ok(Self { name, header, file, decoder, window: WINDOW_BYTES, owner_gone })
    }

    /// Sequence of the next command.
    pub(crate) fn next_sequence(&self) -> Sequence {
        self.decoder.next_sequence()
    }

    /// Whether its owner lives and has not appended anything yet.
    pub(crate) fn is_just_made(&self) -> bool {
        let length = self.file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        !self.owner_gone && length <= SegmentHeader::BYTES as u64
    }

    /// Learns whether the owner is still there: it holds a lock while it lives.
    pub(crate) fn look_for_owner(&mut self) -> bool {
        self.owner_gone = self.owner_gone || is_unlocked(&self.file);
        !self.owner_gone
    }

    /// Reads whole frames until one with commands, through `scratch`, which grows with the frames.
    ///
    /// `take` gets the commands of as many frames as it wants: it says whether it wants more.
    pub(crate) fn read(
        &mut self,
        scratch: &mut Vec<u8>,
        mut take: impl FnMut(Submitted) -> bool,
    ) -> Result<Read, Trouble> {
        loop {
            let start = self.decoder.offset();
            if start >= limits::SEGMENT_BYTES_MAX {
                return Err(Trouble::Corrupt("longer than a segment may be".into()));
            }
            let failed = |error| {
                Trouble::Environment(Error::io("read a segment of", self.name.to_string().as_ref())(error))
            };
            scratch.resize(scratch.len().max(self.window), 0);
            let window = scratch.get_mut(..self.window).unwrap_or_default();
            let length = read_up_to(&self.file, window, start).map_err(failed)?;
            loop {
                let read_so_far = usize::try_from(self.decoder.offset() - start).unwrap_or(usize::MAX);
                let rest = scratch.get(read_so_far..length).unwrap_or_default();
                match self.decoder.next(rest) {
                    Ok(Step::Submitted(submitted)) => {
                        if !take(submitted) {
                            return Ok(Read::Nothing);
                        }
                    }
                    Ok(Step::Incomplete) if length == self.window && self.decoder.offset() > start => break,
                    Ok(Step::Incomplete)
                        if length == self.window && SegmentDecoder::wanted(rest) > length =>
                    {
                        // A little more than the frame, as the next one will be of about its length.
                        self.window = SegmentDecoder::wanted(rest) * 9 / 8;
                        break;
                    }
                    Ok(Step::End) | Err(DecodeError::Checksum { .. })
                        if length == self.window && length < limits::FRAME_BYTES_MAX =>
                    {
                        // What comes behind tells a torn tail from damage.
                        self.window = limits::FRAME_BYTES_MAX;
                        break;
                    }
                    Ok(Step::Incomplete) => {
                        let consumed = usize::try_from(self.decoder.offset() - start).unwrap_or(usize::MAX);
                        return Ok(self.at_end(consumed < length));
                    }
                    Ok(Step::End) => {
                        let consumed = usize::try_from(self.decoder.offset() - start).unwrap_or(usize::MAX);
                        return self.at_zeros(scratch.get(consumed..length).unwrap_or_default());
                    }
                    Err(error) => {
                        let consumed = usize::try_from(self.decoder.offset() - start).unwrap_or(usize::MAX);
                        return self.at_damage(error, scratch.get(consumed..length).unwrap_or_default());
                    }
                }
            }
        }
    }

    fn at_end(&self, tail: bool) -> Read {
        if self.owner_gone { Read::Finished { torn: tail } } else { Read::Nothing }
    }

    /// A zero length ends the data; behind it may only be zeros, which a file system leaves when power is lost.
    fn at_zeros(&self, rest: &[u8]) -> Result<Read, Trouble> {
        if !self.owner_gone {
            return Ok(Read::Nothing);
        }
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(Read::Finished { torn: true });
        }
        self.judge(rest, "a frame of length zero before the end")
    }

    fn at_damage(&self, error: DecodeError, rest: &[u8]) -> Result<Read, Trouble> {
        match &error {
            DecodeError::Checksum { .. } if !self.owner_gone => Ok(Read::Suspicious(error)),
            DecodeError::Checksum { .. } => self.judge(rest, &error.to_string()),
            DecodeError::Magic { .. } | DecodeError::Unsupported { .. } | DecodeError::Invalid { .. } => {
                Err(Trouble::Corrupt(error.to_string()))
            }
        }
    }

    /// A tail that a power cut tore, or damage: the page cache of the running boot does not tear, and nothing behind
    /// a tear validates.
    fn judge(&self, rest: &[u8], reason: &str) -> Result<Read, Trouble> {
        let same_boot = self.header.boot == penholder_protocol::boot_id();
        if same_boot || self.decoder.later_frame_validates(rest) {
            return Err(Trouble::Corrupt(reason.into()));
        }
        Ok(Read::Finished { torn: true })
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

//! Makes the medium have what memory shows of a database, before the writer relies on it.
//!
//! The system tells one sync of a write that failed, and goes on to show what was written to whoever reads the file. So
//! a commit whose sync failed is there for the next writer, every sync behind it succeeds, and a power cut takes it
//! and all that follows. On ext4 it is worse: what is written again to a block whose first write failed never arrives,
//! and syncs all the same, as long as the block stays in memory. And a checkpoint that a reader stopped half-way counts as
//! done what was never synced. Why nothing less will do is in `docs/decisions/0016-what-a-failed-sync-leaves.md`.

use std::path::Path;

use penholder_protocol::WriterState;
use rusqlite::{Connection, ffi};

use crate::Error;
use crate::fence::{OpenFile, forget_pages};
use crate::keeper::beside;

/// Bytes of the header of a WAL, and of each frame in it.
pub(crate) const WAL_HEADER_BYTES: usize = 32;
pub(crate) const FRAME_HEADER_BYTES: usize = 24;

/// Bytes at the beginning of both that their checksum covers.
const SUMMED_HEADER_BYTES: usize = 24;
const SUMMED_FRAME_BYTES: usize = 8;

/// The end of a WAL that is written again, in bytes: the last transaction at least, for all before it was synced.
const TAIL_BYTES_MAX: u64 = 32 << 20;

/// Most bytes that SQLite's files take at once.
const PIECE_BYTES: usize = 64 << 10;

/// Makes everything that a connection shows of a database survive a power cut, or be copied again before the WAL is given
/// up. The process holds all locks of writers and checkpoints; `last` is how the writer before ended.
pub(crate) fn rewrite(connection: &Connection, path: &Path, last: WriterState) -> Result<(), Error> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let rewritten = rewrite_wal(connection, path).and_then(|()| rewrite_database(connection, path, last));
    rewritten.map_err(Error::sqlite("write again what is in memory of", &name))
}

fn rewrite_wal(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (busy, frames) = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], row)?;
    // Busy, or no WAL at all: neither is possible under the locks that are held, and "no frames" would be wrong.
    let frames = u64::try_from(frames).ok().filter(|_| busy == 0).ok_or_else(data_error)?;
    let page_bytes: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let wal = OpenFile::wal(connection).ok_or_else(data_error)?;
    let end = if frames == 0 {
        0
    } else {
        WAL_HEADER_BYTES as u64 + frames * (FRAME_HEADER_BYTES as u64 + page_bytes)
    };
    let begin = end.saturating_sub(TAIL_BYTES_MAX);
    let mut tail = vec![0; usize::try_from(end - begin).unwrap_or_default()];
    for (piece, offset) in tail.chunks_mut(PIECE_BYTES).zip((begin..).step_by(PIECE_BYTES)) {
        wal.read(piece, offset)?;
    }
    // Only what is synced can be forgotten.
    wal.sync()?;
    forget(&beside(path, "-wal"));
    for (piece, offset) in tail.chunks(PIECE_BYTES).zip((begin..).step_by(PIECE_BYTES)) {
        wal.write(piece, offset)?;
    }
    wal.sync()?;
    check(&wal, frames)
}

fn rewrite_database(connection: &Connection, path: &Path, last: WriterState) -> rusqlite::Result<()> {
    let file = OpenFile::database(connection).ok_or_else(data_error)?;
    let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    // A database that the medium knows as empty would take its WAL with it.
    let mut page = vec![0; page_bytes];
    file.read(&mut page, 0)?;
    if last != WriterState::Stopped {
        file.sync()?;
        forget(path);
    }
    file.write(&page, 0)?;
    file.sync()?;
    file.forget_backfill()
}

/// Where memory is all there is, nothing is forgotten, and nothing need be.
fn forget(path: &Path) {
    if let Err(error) = forget_pages(path) {
        log::warn!("cannot forget what is in memory of {}: {error}", path.display());
    }
}

/// Reads the WAL as SQLite does after a crash: all that its index knows must be there.
fn check(wal: &OpenFile<'_>, frames: u64) -> rusqlite::Result<()> {
    if frames == 0 {
        return Ok(());
    }
    let mut header = [0; WAL_HEADER_BYTES];
    wal.read(&mut header, 0)?;
    let mut sums = Sums::of_header(&header).ok_or_else(data_error)?;
    let mut frame = vec![0; FRAME_HEADER_BYTES + sums.page_bytes];
    let mut offset = WAL_HEADER_BYTES as u64;
    for _ in 0..frames {
        wal.read(&mut frame, offset)?;
        if !sums.admit(&frame) {
            return Err(data_error());
        }
        offset += frame.len() as u64;
    }
    Ok(())
}

/// What SQLite returns when a checksum does not hold; the next start takes what is on the disk.
fn data_error() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_DATA), None)
}

/// The checksum of a WAL, which goes from frame to frame.
struct Sums {
    page_bytes: usize,
    salt: [u8; 8],
    is_big_endian: bool,
    running: (u32, u32),
}

impl Sums {
    /// `None` if the header is none.
    fn of_header(header: &[u8; WAL_HEADER_BYTES]) -> Option<Self> {
        let magic = word(header, 0)?;
        let mut sums = Self {
            page_bytes: usize::try_from(word(header, 8)?).ok()?,
            salt: *header.get(16..)?.first_chunk()?,
            is_big_endian: magic & 1 == 1,
            running: (0, 0),
        };
        sums.add(header.get(..SUMMED_HEADER_BYTES)?);
        let holds = (word(header, 24)?, word(header, 28)?) == sums.running;
        (holds && magic & !1 == 0x377f_0682).then_some(sums)
    }

    /// Whether a frame is the next one.
    fn admit(&mut self, frame: &[u8]) -> bool {
        let Some((header, page)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return false };
        self.add(header.get(..SUMMED_FRAME_BYTES).unwrap_or_default());
        self.add(page);
        header.get(8..16) == Some(&self.salt)
            && (word(header, 16), word(header, 20)) == (Some(self.running.0), Some(self.running.1))
    }

    fn add(&mut self, bytes: &[u8]) {
        let take = if self.is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let (mut first, mut second) = self.running;
        for [a, b, c, d, e, f, g, h] in bytes.as_chunks().0.iter().copied() {
            first = first.wrapping_add(take([a, b, c, d])).wrapping_add(second);
            second = second.wrapping_add(take([e, f, g, h])).wrapping_add(first);
        }
        self.running = (first, second);
    }
}

/// A word of a header, which are big-endian whatever the sums are.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

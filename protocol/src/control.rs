//! The one page in which the writer tells every process what store this is and how old it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::frame::{bytes_at, put, u16_at, u32_at, u64_at};
use crate::limits::{DATABASE_NAME_BYTES_MAX, DATABASES_COUNT_MAX};
use crate::{DecodeError, Epoch, Sequence, StoreId, StreamId, Tick};

const MAGIC: [u8; 8] = *b"\x89PNC\r\n\x1a\n";
const VERSION: u16 = 1;
const COPY_BYTES: usize = 512;
/// Distance of the two copies, in bytes: never in one sector.
const COPY_DISTANCE: u64 = 4096;
const SLOTS: usize = 136;
const SLOT_BYTES: usize = DATABASE_NAME_BYTES_MAX + 8;
const CHECKSUM: usize = COPY_BYTES - 4;

/// Looks at the file before damage counts as damage: a look can fall into two writes, each of another copy.
const LOOKS_COUNT_MAX: usize = 16;

const _: () = assert!(SLOTS + DATABASES_COUNT_MAX * SLOT_BYTES <= CHECKSUM);

/// What the writer last said that it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterState {
    /// It ended cleanly, or never ran.
    Stopped,
    /// It applies commands.
    Running,
    /// It waits for disk space, or for a failing disk; commands queue up.
    Stalled,
}

impl WriterState {
    /// The word for it in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Stalled => "stalled",
        }
    }
}

/// A database, in commit order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSlot {
    /// Its name: the file is `<name>.db`.
    pub name: String,
    /// Its own tick when segments were last reclaimed, or when the store was made: a database that is older was restored
    /// from a backup. 0: the store is still being made.
    pub reclaimed: Tick,
}

impl DatabaseSlot {
    /// Whether the writer makes the database if it is not there; else it was taken away.
    #[must_use]
    pub fn is_to_be_made(&self) -> bool {
        self.reclaimed == Tick(0)
    }
}

/// The content of the control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The store's identity.
    pub store: StoreId,
    /// Counts the writes of this file; the valid copy with the higher one counts.
    pub generation: u64,
    /// The writer's run, current or last.
    pub epoch: Epoch,
    /// Streams of this epoch and below are known to the databases, or are not to be trusted.
    pub floor: Epoch,
    /// What the writer last said that it is doing.
    pub state: WriterState,
    /// Process id of the writer, for people only.
    pub pid: u32,
    /// Segments that ended in the middle of a frame, ever.
    pub torn: u64,
    /// Segments that were quarantined, ever.
    pub quarantined: u64,
    /// Commits by somebody else that were noticed, ever.
    pub foreign_writes: u64,
    /// Most unapplied bytes of one stream before its client stops submitting.
    pub quota_stream_bytes: u64,
    /// Free bytes of the file system below which clients stop submitting.
    pub free_bytes_min: u64,
    /// The command that was being applied alone, when the writer suspects one of killing it.
    pub suspect: Option<(StreamId, Sequence)>,
    /// Starts since a batch was last committed; many in a row mean that a command kills the writer.
    pub fruitless_starts: u32,
    /// The databases in commit order.
    pub databases: Vec<DatabaseSlot>,
}

impl Control {
    /// Reads the control file of a store.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::read_from(&File::open(path)?)
    }

    /// Reads the newer valid copy.
    pub fn read_from(file: &File) -> io::Result<Self> {
        let mut looks = 1;
        loop {
            match Self::look(file)? {
                Ok(control) => return Ok(control),
                Err(DecodeError::Checksum { .. }) if looks < LOOKS_COUNT_MAX => {
                    looks += 1;
                    std::thread::yield_now();
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    fn look(file: &File) -> io::Result<Result<Self, DecodeError>> {
        let mut newest: Result<Self, DecodeError> = Err(DecodeError::Magic { what: "control file" });
        for copy in 0..2 {
            let mut bytes = [0; COPY_BYTES];
            let length = read_up_to(file, &mut bytes, copy * COPY_DISTANCE)?;
            let found = Self::decode(bytes.get(..length).unwrap_or_default());
            newest = match (newest, found) {
                // Whole, and not for us: what is older beside it must not be believed.
                (_, error @ Err(DecodeError::Unsupported { .. })) => return Ok(error),
                (Ok(old), Ok(new)) => Ok(if new.generation > old.generation { new } else { old }),
                (Ok(old), Err(_)) => Ok(old),
                (Err(DecodeError::Magic { .. }), found) | (Err(_), found @ Ok(_)) => found,
                (error @ Err(_), Err(_)) => error,
            };
        }
        Ok(newest)
    }

    /// Writes the next generation over the older copy; with `durable`, it is on the medium when this returns.
    ///
    /// After an error the generation is the old one, so that the next write goes over the same copy again: the other
    /// one is the only copy that is surely whole.
    pub fn write_to(&mut self, file: &File, durable: bool) -> io::Result<()> {
        self.check()?;
        let generation = self.generation + 1;
        let bytes = Self { generation, ..self.clone() }.encode();
        file.write_all_at(&bytes, (generation % 2) * COPY_DISTANCE)?;
        if durable {
            file.sync_data()?;
        }
        self.generation = generation;
        Ok(())
    }

    /// Refuses what the slots cannot hold.
    fn check(&self) -> io::Result<()> {
        let fits = |slot: &DatabaseSlot| is_name(&slot.name) && slot.name.len() <= DATABASE_NAME_BYTES_MAX;
        if self.databases.len() > DATABASES_COUNT_MAX || !self.databases.iter().all(fits) {
            let reason = "too many databases for the control file, or a name that it cannot hold";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        Ok(())
    }

    fn encode(&self) -> [u8; COPY_BYTES] {
        let mut bytes = [0; COPY_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.store.0);
        let numbers = [self.generation, self.epoch.0, self.floor.0];
        for (at, number) in (32..).step_by(8).zip(numbers) {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        let state: u32 = match self.state {
            WriterState::Stopped => 0,
            WriterState::Running => 1,
            WriterState::Stalled => 2,
        };
        put(&mut bytes, 56, &state.to_le_bytes());
        put(&mut bytes, 60, &self.pid.to_le_bytes());
        let numbers =
            [self.torn, self.quarantined, self.foreign_writes, self.quota_stream_bytes, self.free_bytes_min];
        for (at, number) in (64..).step_by(8).zip(numbers) {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        if let Some((stream, sequence)) = self.suspect {
            put(&mut bytes, 104, &stream.0);
            put(&mut bytes, 120, &sequence.0.to_le_bytes());
        }
        put(&mut bytes, 128, &self.fruitless_starts.to_le_bytes());
        put(&mut bytes, 132, &u32::try_from(self.databases.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (at, slot) in (SLOTS..).step_by(SLOT_BYTES).zip(&self.databases) {
            put(&mut bytes, at, slot.name.as_bytes());
            put(&mut bytes, at + DATABASE_NAME_BYTES_MAX, &slot.reclaimed.0.to_le_bytes());
        }
        let crc = crc32fast::hash(bytes.get(..CHECKSUM).unwrap_or_default());
        put(&mut bytes, CHECKSUM, &crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "control file";
        if !bytes.starts_with(&MAGIC) {
            return Err(DecodeError::Magic { what });
        }
        // In every version the checksum is here: a damaged version must not pass for a newer one.
        let crc = bytes.get(..CHECKSUM).map(crc32fast::hash);
        if crc.is_none() || crc != u32_at(bytes, CHECKSUM) {
            return Err(DecodeError::Checksum { what, offset: 0 });
        }
        let (version, flags) = (u16_at(bytes, 8).unwrap_or(0), u32_at(bytes, 12).unwrap_or(0));
        if version != VERSION || flags != 0 {
            return Err(DecodeError::Unsupported { what, version, flags });
        }
        Self::fields(bytes).ok_or_else(|| DecodeError::invalid(what, 0, "a field is out of range"))
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let suspect = (StreamId(bytes_at(bytes, 104)?), Sequence(u64_at(bytes, 120)?));
        let count = u32_at(bytes, 132)? as usize;
        if count > DATABASES_COUNT_MAX {
            return None;
        }
        let slot = |at: usize| {
            let name: [u8; DATABASE_NAME_BYTES_MAX] = bytes_at(bytes, at)?;
            let name = std::str::from_utf8(&name).ok()?.trim_end_matches('\0').to_owned();
            is_name(&name).then_some(())?;
            Some(DatabaseSlot { name, reclaimed: Tick(u64_at(bytes, at + DATABASE_NAME_BYTES_MAX)?) })
        };
        Some(Self {
            store: StoreId(bytes_at(bytes, 16)?),
            generation: u64_at(bytes, 32)?,
            epoch: Epoch(u64_at(bytes, 40)?),
            floor: Epoch(u64_at(bytes, 48)?),
            state: match u32_at(bytes, 56)? {
                0 => WriterState::Stopped,
                1 => WriterState::Running,
                2 => WriterState::Stalled,
                _ => return None,
            },
            pid: u32_at(bytes, 60)?,
            torn: u64_at(bytes, 64)?,
            quarantined: u64_at(bytes, 72)?,
            foreign_writes: u64_at(bytes, 80)?,
            quota_stream_bytes: u64_at(bytes, 88)?,
            free_bytes_min: u64_at(bytes, 96)?,
            suspect: (suspect.1 != Sequence(0)).then_some(suspect),
            fruitless_starts: u32_at(bytes, 128)?,
            databases: (SLOTS..).step_by(SLOT_BYTES).take(count).map(slot).collect::<Option<_>>()?,
        })
    }
}

/// Zeros fill a slot up behind the name, so a name has none.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}

/// Fills `bytes` from `offset` on as far as the file goes.
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..)
        && !rest.is_empty()
    {
        match file.read_at(rest, offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

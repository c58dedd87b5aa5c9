//! What waits in the spool, read beside the writer: without locks, and without believing what stands there.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use penholder_protocol::limits::SPOOL_FILE_BYTES_MAX;
use penholder_protocol::receipt::{HEADER_BYTES, ReceiptHeader};
use penholder_protocol::{
    CommandRef, Control, DecodeError, Epoch, Layout, NotOpened, Progress, ProgressCell, SegmentDecoder,
    SegmentHeader, SegmentName, Sequence, SpoolFile, Step, StreamId, Submitted,
};

use super::exit::Failure;

/// How often a segment is read until it is taken as damaged.
const TRIES_COUNT_MAX: u32 = 4;
/// Time between two of these tries.
const PAUSE: Duration = Duration::from_millis(4);

/// One segment, as it was when it was read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    /// Who owns it; `None` if it could not be opened.
    pub(super) uid: Option<u32>,
    /// `None`: nothing or not enough is there yet, or it is in `damage`.
    pub(super) header: Option<SegmentHeader>,
    /// In the order of the file.
    pub(super) frames: Vec<Frame>,
    /// Why it cannot be trusted from there on.
    pub(super) damage: Option<String>,
}

/// A frame of commands.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) first_sequence: Sequence,
    /// Per command, the databases it touches: bit n is the n-th in commit order.
    pub(super) touches: Vec<u8>,
    pub(super) bytes: u64,
    pub(super) submitted_ns: u64,
}

impl Frame {
    /// Its commands, each with the databases it touches.
    pub(super) fn commands(&self) -> impl Iterator<Item = (Sequence, u8)> {
        let first = self.first_sequence.0;
        self.touches.iter().zip(first..).map(|(touches, sequence)| (Sequence(sequence), *touches))
    }
}

/// The segments of all streams, by stream and number.
pub(super) fn segments(layout: &Layout, control: &Control) -> Result<Vec<Segment>, Failure> {
    let spool = layout.spool();
    let failed = || Failure::on(format!("cannot list {}", spool.display()));
    let mut names = Vec::new();
    for item in std::fs::read_dir(&spool).map_err(failed())? {
        let name = item.map_err(failed())?.file_name();
        names.extend(name.to_str().and_then(SegmentName::parse));
    }
    names.sort_unstable();
    let device = std::fs::metadata(&spool).map_err(failed())?.dev();
    Ok(names.into_iter().filter_map(|name| read(layout, device, name, control)).collect())
}

/// Reads one segment; `None` if it is gone by now.
fn read(layout: &Layout, device: u64, name: SegmentName, control: &Control) -> Option<Segment> {
    let mut tries = 1;
    loop {
        let mut segment = Segment { name, uid: None, header: None, frames: Vec::new(), damage: None };
        match SpoolFile::open(&layout.segment(name), device) {
            Ok(opened) => {
                segment.uid = Some(opened.uid);
                match read_bytes(&opened.file) {
                    Ok(bytes) => segment.fill(&bytes, control),
                    Err(error) => segment.damage = Some(format!("cannot be read: {error}")),
                }
            }
            Err(NotOpened::Gone) => return None,
            Err(NotOpened::Refused(reason)) => segment.damage = Some(reason),
            Err(NotOpened::Failed(error)) => segment.damage = Some(format!("cannot be read: {error}")),
        }
        // A client may be in the middle of a write, and the half of it visible.
        if segment.damage.is_none() || tries >= TRIES_COUNT_MAX {
            return Some(segment);
        }
        tries += 1;
        std::thread::sleep(PAUSE);
    }
}

fn read_bytes(file: &std::fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(SPOOL_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Segment {
    fn fill(&mut self, bytes: &[u8], control: &Control) {
        if bytes.len() < SegmentHeader::BYTES
            || bytes.iter().take(SegmentHeader::BYTES).all(|byte| *byte == 0)
        {
            return;
        }
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) => header,
            Err(error) => return self.damage = Some(error.to_string()),
        };
        if (header.stream, header.number) != (self.name.stream, self.name.number) {
            return self.damage = Some("its name and its header name different segments".to_owned());
        }
        if header.store != control.store {
            return self.damage = Some(format!("it was written for the store {}", header.store));
        }
        let mut decoder = SegmentDecoder::new(&header);
        self.header = Some(header);
        if let Err(error) = self.frames_from(&mut decoder, bytes, control) {
            self.damage = Some(error.to_string());
        }
    }

    fn frames_from(
        &mut self,
        decoder: &mut SegmentDecoder,
        bytes: &[u8],
        control: &Control,
    ) -> Result<(), DecodeError> {
        loop {
            let from = usize::try_from(decoder.offset()).unwrap_or(usize::MAX);
            match decoder.next(bytes.get(from..).unwrap_or_default())? {
                Step::Submitted(submitted) => self.frames.push(frame(&submitted, control)),
                Step::Incomplete | Step::End => return Ok(()),
            }
        }
    }

    /// The sequence behind its last whole frame.
    pub(super) fn next_sequence(&self) -> Option<Sequence> {
        let first = self.header.as_ref()?.first_sequence;
        Some(
            self.frames
                .last()
                .map_or(first, |last| Sequence(last.first_sequence.0 + last.touches.len() as u64)),
        )
    }
}

fn frame(submitted: &Submitted, control: &Control) -> Frame {
    Frame {
        first_sequence: submitted.first_sequence,
        touches: submitted.commands.iter().map(|command| touches(command, control)).collect(),
        bytes: submitted.bytes as u64,
        submitted_ns: submitted.submitted_ns,
    }
}

/// The databases a command names; one that names none that exists is settled in the first.
fn touches(command: CommandRef<'_>, control: &Control) -> u8 {
    let place = |name: &str| control.databases.iter().position(|slot| slot.name == name);
    let named = command.statements().filter_map(|statement| place(&statement.text.database));
    let touches = named.fold(0, |touches, place| touches | 1 << place);
    if touches == 0 { 1 } else { touches }
}

/// What the databases know of the streams.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    /// Per database in commit order and per stream, the last sequence with an outcome.
    pub(super) sequences: Vec<BTreeMap<StreamId, Sequence>>,
    /// The floor that each database has settled. That of the control file is raised before, and a start may die in between.
    pub(super) floors: Vec<Epoch>,
}

impl Watermarks {
    /// Whether every database of a command has its outcome.
    pub(super) fn is_done(&self, stream: StreamId, sequence: Sequence, touches: u8) -> bool {
        self.sequences.iter().enumerate().all(|(place, map)| {
            touches & 1 << place == 0 || map.get(&stream).is_some_and(|watermark| *watermark >= sequence)
        })
    }

    /// The last sequence with an outcome in any database; `None`: no database knows the stream.
    pub(super) fn highest(&self, stream: StreamId) -> Option<Sequence> {
        self.sequences.iter().filter_map(|map| map.get(&stream)).copied().max()
    }

    /// Streams of this epoch and below that no database knows are restored old files.
    pub(super) fn floor(&self) -> Epoch {
        self.floors.iter().copied().min().unwrap_or_default()
    }

    /// Adds the rows of the next database.
    pub(super) fn load(&mut self, connection: &rusqlite::Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT stream, sequence FROM _penholder_stream")?;
        let rows = statement.query_map([], |row| Ok((StreamId(row.get(0)?), Sequence(row.get(1)?))))?;
        self.sequences.push(rows.collect::<rusqlite::Result<_>>()?);
        let sql = "SELECT ifnull((SELECT value FROM _penholder_meta WHERE key = 'floor'), 0)";
        self.floors.push(Epoch(connection.query_row(sql, [], |row| row.get(0))?));
        Ok(())
    }
}

/// What the receipts of one stream say; `Err` says what is wrong with them.
pub(super) type Told = Result<ProgressCell, String>;

/// The progress cells of all receipt files.
pub(super) fn receipts(layout: &Layout, control: &Control) -> Result<Vec<(StreamId, Told)>, Failure> {
    let directory = layout.receipts();
    let failed = || Failure::on(format!("cannot list {}", directory.display()));
    let mut told = Vec::new();
    for item in std::fs::read_dir(&directory).map_err(failed())? {
        let name = item.map_err(failed())?.file_name();
        let stream =
            name.to_str().and_then(|name| name.strip_suffix(".rcpt")).and_then(|stem| stem.parse().ok());
        let Some(stream) = stream else { continue };
        match read_receipt(layout, control, stream) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => told.push((stream, read.map_err(|error| error.to_string()))),
        }
    }
    Ok(told)
}

fn read_receipt(layout: &Layout, control: &Control, stream: StreamId) -> io::Result<ProgressCell> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let file = std::fs::File::open(layout.receipt(stream))?;
    let mut page = vec![0; HEADER_BYTES];
    (&file).read_exact(&mut page)?;
    let header = ReceiptHeader::decode(&page).map_err(|error| invalid(error.to_string()))?;
    if (header.store, header.stream) != (control.store, stream) {
        return Err(invalid("its header names another store or stream".to_owned()));
    }
    Ok(Progress::map_reader(&file)?.read())
}

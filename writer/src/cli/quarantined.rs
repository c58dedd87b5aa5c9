//! One file in quarantine: what is readable of it, and why the rest is not.

use std::fmt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use penholder_client::read::Reader;
use penholder_protocol::{
    Command, Control, Epoch, Layout, NotOpened, SegmentDecoder, SegmentHeader, SegmentKind, SegmentName,
    Sequence, SpoolFile, Step, StreamId,
};

use super::exit::Failure;
use super::spool::Watermarks;

/// Digits by which names that were quarantined more than once are told apart.
const SUFFIX_DIGITS: usize = 8;

/// Most characters of a reason that are shown.
const REASON_CHARACTERS_MAX: usize = 4096;

/// The name of a file in quarantine: that of the segment, and a suffix where that was taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) name: SegmentName,
    suffix: Option<String>,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.suffix {
            Some(suffix) => write!(f, "{}.{suffix}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl Id {
    /// Reads a file name; a reason, or what is no name of ours, is `None`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(name) = SegmentName::parse(text) {
            return Some(Self { name, suffix: None });
        }
        let (name, suffix) = text.rsplit_once('.')?;
        let plain = suffix.len() == SUFFIX_DIGITS && suffix.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then_some(Self { name: SegmentName::parse(name)?, suffix: Some(suffix.to_owned()) })
    }
}

impl FromStr for Id {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::parse(text).ok_or_else(|| {
            let hint = "they look like <32 digits>-<8 digits>.live or .seg, see `quarantine list`";
            Failure::usage(format!("{text:?} is not the id of a file in quarantine; {hint}"))
        })
    }
}

/// What the directory says about a file.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) id: Id,
    pub(super) path: PathBuf,
    /// Who owns it: the user who put it into the spool.
    pub(super) uid: u32,
    pub(super) bytes: u64,
    pub(super) is_directory: bool,
    /// When its reason was written.
    pub(super) quarantined: Option<Timestamp>,
    /// As the writer wrote it; `None` if a power cut took it.
    pub(super) reason: Option<String>,
}

/// Where the reason of a file lies.
pub(super) fn reason_path(layout: &Layout, id: &Id) -> PathBuf {
    layout.quarantine().join(format!("{id}.reason"))
}

/// All files in quarantine, in the order of their names.
pub(super) fn list(layout: &Layout) -> Result<Vec<Listed>, Failure> {
    let directory = layout.quarantine();
    let failed = || Failure::on(format!("cannot list {} (it is the writer's alone)", directory.display()));
    let mut all = Vec::new();
    for item in std::fs::read_dir(&directory).map_err(failed())? {
        let name = item.map_err(failed())?.file_name();
        if let Some(id) = name.to_str().and_then(Id::parse) {
            // One that went meanwhile was dropped or released.
            all.extend(look(layout, id).ok());
        }
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(all)
}

/// One of them.
pub(super) fn look(layout: &Layout, id: Id) -> Result<Listed, Failure> {
    let path = layout.quarantine().join(id.to_string());
    let metadata = std::fs::symlink_metadata(&path)
        .map_err(Failure::on(format!("no file {id} in quarantine that can be looked at")))?;
    let beside = reason_path(layout, &id);
    let reason = std::fs::read_to_string(&beside).ok().map(|text| {
        let text: String = text.trim_end().chars().take(REASON_CHARACTERS_MAX).collect();
        text
    });
    let quarantined =
        std::fs::metadata(&beside).and_then(|metadata| metadata.modified()).ok().and_then(|time| {
            let since = time.duration_since(UNIX_EPOCH).ok()?;
            Timestamp::from_nanosecond(i128::try_from(since.as_nanos()).ok()?).ok()
        });
    Ok(Listed {
        path,
        uid: metadata.uid(),
        bytes: metadata.len(),
        is_directory: metadata.is_dir(),
        quarantined,
        reason: reason.filter(|reason| !reason.is_empty()),
        id,
    })
}

/// What can be read of a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) header: Option<SegmentHeader>,
    /// With the sequence of each.
    pub(super) commands: Vec<(Sequence, Command)>,
    /// Why nothing is read from there on; `None`: it is sound to its end.
    pub(super) damage: Option<String>,
    /// Bytes behind the last whole frame, which nobody was promised.
    pub(super) torn_bytes: u64,
}

impl Content {
    fn damaged(damage: impl Into<String>) -> Self {
        Self { damage: Some(damage.into()), ..Self::default() }
    }

    /// The last command that can be read.
    pub(super) fn last(&self) -> Option<Sequence> {
        self.commands.last().map(|(sequence, _)| *sequence)
    }
}

/// Reads a file as the writer would, with the same suspicion.
pub(super) fn read(layout: &Layout, listed: &Listed, control: &Control) -> Result<Content, Failure> {
    let failed = || Failure::on(format!("cannot read {}", listed.id));
    let device = std::fs::metadata(layout.quarantine()).map_err(failed())?.dev();
    let opened = match SpoolFile::open(&listed.path, device) {
        Ok(opened) => opened,
        Err(NotOpened::Refused(reason)) => return Ok(Content::damaged(reason)),
        Err(NotOpened::Gone) => return Err(Failure::new(format!("{} is gone", listed.id))),
        Err(NotOpened::Failed(error)) => return Err(failed()(error)),
    };
    let mut bytes = vec![0; usize::try_from(opened.length).unwrap_or(usize::MAX)];
    opened.file.read_exact_at(&mut bytes, 0).map_err(failed())?;
    let header = match SegmentHeader::decode(&bytes) {
        Ok(header) => header,
        Err(error) => return Ok(Content::damaged(error.to_string())),
    };
    let name = listed.id.name;
    if (header.stream, header.number) != (name.stream, name.number) {
        return Ok(Content::damaged("its name and its header name different segments"));
    }
    if header.store != control.store {
        return Ok(Content::damaged(format!("it was written for the store {}", header.store)));
    }
    Ok(frames(header, &bytes))
}

fn frames(header: SegmentHeader, bytes: &[u8]) -> Content {
    let mut decoder = SegmentDecoder::new(&header);
    let mut content = Content { header: Some(header), ..Content::default() };
    loop {
        let from = usize::try_from(decoder.offset()).unwrap_or(usize::MAX);
        let rest = bytes.get(from..).unwrap_or_default();
        match decoder.next(rest) {
            Ok(Step::Submitted(submitted)) => {
                let sequences = (submitted.first_sequence.0..).map(Sequence);
                content.commands.extend(sequences.zip(submitted.commands.unpack()));
            }
            Ok(Step::Incomplete | Step::End) if decoder.later_frame_validates(rest) => {
                content.damage = Some(format!("a frame at offset {from} is cut, and one behind it is whole"));
                return content;
            }
            Ok(Step::Incomplete | Step::End) => {
                content.torn_bytes = rest.len() as u64;
                return content;
            }
            Err(error) => {
                content.damage = Some(error.to_string());
                return content;
            }
        }
    }
}

/// What the databases know about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The last sequence with an outcome.
    UpTo(Sequence),
    /// No database knows it.
    Nothing,
}

/// Asks the databases about a stream.
pub(super) fn known(layout: &Layout, control: &Control, stream: StreamId) -> Result<Known, Failure> {
    let mut reader = Reader::open(layout.root())?;
    let mut watermarks = Watermarks::default();
    for slot in &control.databases {
        let snapshot = reader.single(&slot.name)?;
        let connection = snapshot.database(&slot.name)?;
        watermarks.load(connection).map_err(Failure::on(format!("cannot read {}.db", slot.name)))?;
    }
    Ok(watermarks.highest(stream).map_or(Known::Nothing, Known::UpTo))
}

/// Why the writer would put a file aside again; `None`: it would take it.
pub(super) fn objection(content: &Content, known: Known, control: &Control) -> Option<String> {
    let Some(header) = &content.header else { return content.damage.clone() };
    if let Some(damage) = &content.damage {
        return Some(format!("{damage}; nothing behind that can be applied"));
    }
    if header.epoch > control.epoch {
        return Some(format!("it is of epoch {}, which has not come yet", header.epoch));
    }
    let highest = match known {
        Known::Nothing if header.epoch <= control.floor && header.epoch > Epoch(0) => {
            return Some(format!(
                "no database knows its stream, and epoch {} is past: it may have been applied already",
                header.epoch
            ));
        }
        Known::Nothing => Sequence(0),
        Known::UpTo(highest) => highest,
    };
    if header.first_sequence > highest.next() {
        return Some(format!(
            "it starts with command {}, and command {highest} is the last that any database has: put back the \
             segments before it first",
            header.first_sequence
        ));
    }
    match content.last() {
        Some(last) if last > highest => None,
        Some(_) => Some("every command in it has its outcome: drop it".to_owned()),
        None => Some("it holds no command: drop it".to_owned()),
    }
}

/// The word for how a segment came to be.
pub(super) fn word(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Live => "live",
        SegmentKind::Sealed => "sealed",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_is_printed_and_nothing_else_does() {
        let name = "0123456789abcdef0123456789abcdef-0000000a.live";
        for text in [name.to_owned(), format!("{name}.00ff12ab")] {
            assert_eq!(Id::parse(&text).unwrap().to_string(), text);
        }
        for text in ["", "README", ".", "..", "../control"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
        for suffix in [".reason", ".00ff12a", ".00ff12abc", ".00ff12ab.reason", "/../x"] {
            assert_eq!(Id::parse(&format!("{name}{suffix}")), None, "{suffix}");
        }
    }

    fn content(first: u64, commands: u64) -> Content {
        let header = SegmentHeader {
            store: penholder_protocol::StoreId([1; 16]),
            stream: StreamId([2; 16]),
            number: 1,
            epoch: Epoch(5),
            first_sequence: Sequence(first),
            salt: 0,
            boot: [0; 16],
            inode: 0,
        };
        let commands = (first..first + commands).map(|n| (Sequence(n), Command::new())).collect();
        Content { header: Some(header), commands, ..Content::default() }
    }

    fn control(epoch: u64, floor: u64) -> Control {
        Control {
            store: penholder_protocol::StoreId([1; 16]),
            generation: 1,
            epoch: Epoch(epoch),
            floor: Epoch(floor),
            state: penholder_protocol::WriterState::Stopped,
            pid: 0,
            torn: 0,
            quarantined: 0,
            foreign_writes: 0,
            quota_stream_bytes: 0,
            free_bytes_min: 0,
            suspect: None,
            fruitless_starts: 0,
            databases: Vec::new(),
        }
    }

    #[test]
    fn what_the_writer_would_refuse_is_objected_to_before() {
        fn says(content: &Content, known: Known, control: &Control) -> String {
            objection(content, known, control).unwrap_or_default()
        }
        let now = control(5, 4);
        assert_eq!(objection(&content(1, 3), Known::Nothing, &now), None);
        assert_eq!(objection(&content(4, 3), Known::UpTo(Sequence(3)), &now), None);
        assert_eq!(objection(&content(2, 3), Known::UpTo(Sequence(3)), &now), None);
        assert!(says(&content(5, 3), Known::UpTo(Sequence(3)), &now).contains("starts with command 5"));
        assert!(says(&content(1, 3), Known::UpTo(Sequence(3)), &now).contains("has its outcome"));
        assert!(says(&content(1, 0), Known::Nothing, &now).contains("no command"));
        assert!(says(&content(1, 3), Known::Nothing, &control(4, 3)).contains("not come yet"));
        assert!(says(&content(1, 3), Known::Nothing, &control(9, 8)).contains("no database knows"));
        assert_eq!(objection(&content(1, 3), Known::UpTo(Sequence(0)), &control(9, 8)), None);
        let mut bad = content(1, 3);
        bad.damage = Some("checksum".to_owned());
        assert!(says(&bad, Known::Nothing, &now).contains("checksum"));
        assert!(says(&Content::damaged("not a regular file"), Known::Nothing, &now).contains("regular"));
    }
}

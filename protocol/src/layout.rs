//! Where everything is in a store, and what segment names look like.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::StreamId;

/// The paths of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The store in the directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Settings and grants; optional.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.root.join("penholder.toml")
    }

    /// A database. Only SQLite may ever open it, or the files beside it.
    #[must_use]
    pub fn database(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.db"))
    }

    /// Locked by the writer for its life; never unlinked.
    #[must_use]
    pub fn writer_lock(&self) -> PathBuf {
        self.root.join("writer.lock")
    }

    /// What the writer tells every process; see [`Control`](crate::Control).
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// The directory of segments.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Files under construction, to be renamed into the spool.
    #[must_use]
    pub fn spool_tmp(&self) -> PathBuf {
        self.root.join("spool").join("tmp")
    }

    /// A segment in the spool.
    #[must_use]
    pub fn segment(&self, name: SegmentName) -> PathBuf {
        self.spool().join(name.to_string())
    }

    /// The directory of receipt files.
    #[must_use]
    pub fn receipts(&self) -> PathBuf {
        self.root.join("receipts")
    }

    /// The receipts of one stream.
    #[must_use]
    pub fn receipt(&self, stream: StreamId) -> PathBuf {
        self.receipts().join(format!("{stream}.rcpt"))
    }

    /// Segments that cannot be trusted, with a reason beside each.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Space held back, to be given up when the disk is full.
    #[must_use]
    pub fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

/// How a segment came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SegmentKind {
    /// A client appends to it, and holds a lock on it while it lives.
    Live,
    /// Complete when it appeared.
    Sealed,
}

/// The name of a segment: `<stream>-<number>.live` or `.seg`, the number in eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// The stream it is a part of.
    pub stream: StreamId,
    /// Its number in the stream, from 1.
    pub number: u32,
    /// How it came to be.
    pub kind: SegmentKind,
}

impl SegmentName {
    /// Reads a file name; anything but the exact pattern is `None`, never opened and never logged raw.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, kind) = match name.rsplit_once('.')? {
            (stem, "live") => (stem, SegmentKind::Live),
            (stem, "seg") => (stem, SegmentKind::Sealed),
            _ => return None,
        };
        let (stream, number) = stem.split_once('-')?;
        let plain =
            number.len() == 8 && number.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = plain.then(|| u32::from_str_radix(number, 16).ok())??;
        (number >= 1).then_some(Self { stream: stream.parse().ok()?, number, kind })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extension = match self.kind {
            SegmentKind::Live => "live",
            SegmentKind::Sealed => "seg",
        };
        write!(f, "{}-{:08x}.{extension}", self.stream, self.number)
    }
}

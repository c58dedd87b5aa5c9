//! What processes did to their files, step by step, as the shim `record` wrote it down.

use std::path::PathBuf;

use crate::{Store, shim};

/// One thing that a process did; files go by their inode, as their names change.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum Step {
    /// Made a file.
    Create { path: String, inode: u64 },
    /// Wrote to one.
    Write { inode: u64, offset: usize, bytes: Vec<u8> },
    /// Gave it another length.
    Truncate { inode: u64, length: usize },
    /// Synced it.
    Sync { inode: u64 },
    /// Synced a directory.
    SyncDirectory { path: String },
    /// Renamed a file.
    Rename { from: String, to: String },
    /// Removed one.
    Unlink { path: String },
    /// Made a directory.
    MakeDirectory { path: String },
    /// Tried to sync a file, and was told that what it wrote did not arrive.
    SyncFailed { inode: u64 },
    /// Let the system forget what it kept in memory of a file.
    Forget { inode: u64 },
}

/// Steps in their order.
#[derive(Debug)]
pub struct Recording {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Bytes of a record's header.
const HEADER_BYTES: usize = 32;

impl Recording {
    /// Lets every process of the store that is started from now on write down what it does; they believe to run in
    /// another boot than this program.
    pub fn begin(store: &mut Store) {
        let (root, boot) = (store.scratch(), store.scratch().join("boot_id"));
        std::fs::write(&boot, "0b007000-0000-4000-8000-000000000001\n").unwrap();
        store.set("LD_PRELOAD", &shim("record").to_string_lossy());
        store.set("PENHOLDER_RECORD_ROOT", &root.to_string_lossy());
        store.set("PENHOLDER_RECORD_TRACE", &trace_of(store).to_string_lossy());
        store.set("PENHOLDER_RECORD_BOOT", &boot.to_string_lossy());
    }

    /// What was written down so far; nobody may be writing.
    #[must_use]
    pub fn so_far(store: &Store) -> Self {
        Self::parse(&std::fs::read(trace_of(store)).unwrap_or_default())
    }

    /// Ends it.
    #[must_use]
    pub fn end(store: &mut Store) -> Self {
        store.unset("LD_PRELOAD");
        Self::parse(&std::fs::read(trace_of(store)).unwrap())
    }

    fn parse(mut bytes: &[u8]) -> Self {
        let mut steps = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap()) as usize;
            let long = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().unwrap());
            let (kind, inode, offset) = (word(0), long(16), usize::try_from(long(24)).unwrap());
            let (first, rest) = rest.split_at(word(4));
            let (second, rest) = rest.split_at(word(8));
            let (content, rest) = rest.split_at(word(12));
            bytes = rest;
            let path = String::from_utf8(first.to_vec()).unwrap();
            steps.push(match kind {
                1 => Step::Create { path, inode },
                2 => Step::Write { inode, offset, bytes: content.to_vec() },
                3 => Step::Truncate { inode, length: offset },
                4 => Step::Sync { inode },
                5 => Step::SyncDirectory { path },
                6 => Step::Rename { from: path, to: String::from_utf8(second.to_vec()).unwrap() },
                7 => Step::Unlink { path },
                8 => Step::MakeDirectory { path },
                9 => Step::SyncFailed { inode },
                10 => Step::Forget { inode },
                other => panic!("a record of kind {other}"),
            });
        }
        assert!(bytes.is_empty(), "a trace that ends in the middle of a record");
        Self { steps }
    }
}

/// The shim writes it past itself.
fn trace_of(store: &Store) -> PathBuf {
    store.scratch().join("trace")
}

//! The files that may be open at once, which bound the streams that are followed.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything but streams: databases, directories, locks, the watch, standard streams.
const OWN_DESCRIPTORS: usize = 64;

/// A segment, and a receipt file.
const DESCRIPTORS_PER_STREAM: usize = 2;

/// Takes all the descriptors that are allowed: every stream that is followed holds some.
pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("cannot raise the limit of open files: {error}; fewer streams are followed at once");
    }
}

/// Streams that can be followed at once with the descriptors that are allowed.
pub(crate) fn streams_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    (files.saturating_sub(OWN_DESCRIPTORS) / DESCRIPTORS_PER_STREAM).max(1)
}

//! The files that may be open and mapped at once, which bound the streams that are followed.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything but streams: databases, directories, locks, the watch, standard streams.
const OWN_DESCRIPTORS: usize = 64;

/// A segment, and a receipt file.
const DESCRIPTORS_PER_STREAM: usize = 2;

/// Mappings for everything but the receipts of streams, of which each has one.
const OWN_MAPPINGS: usize = 1024;

/// What Linux allows where it does not tell.
const MAPPINGS_MAX: usize = 65_530;

/// Takes all the descriptors that are allowed: every stream that is followed holds some.
pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("cannot raise the limit of open files: {error}; fewer streams are followed at once");
    }
}

/// Streams that can be followed at once with the descriptors and mappings that are allowed.
pub(crate) fn streams_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    let mappings = mappings.and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS_MAX);
    streams_within(files, mappings)
}

fn streams_within(files: usize, mappings: usize) -> usize {
    let by_files = files.saturating_sub(OWN_DESCRIPTORS) / DESCRIPTORS_PER_STREAM;
    by_files.min(mappings.saturating_sub(OWN_MAPPINGS)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_is_scarcer_bounds_the_streams() {
        assert_eq!(streams_within(1024, 65_530), 480);
        assert_eq!(
            streams_within(1 << 20, 65_530),
            64_506,
            "a receipt file that is not mapped would stop the writer"
        );
        assert_eq!(streams_within(10, 10), 1);
    }
}

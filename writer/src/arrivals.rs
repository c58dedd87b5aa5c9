//! What came into the spool and is not followed yet: found a few names per turn, let in a few streams per turn, every
//! user in turn and within bounds. However much one user puts there, the others are found and served.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::ReadDir;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use penholder_protocol::{Layout, SegmentName, StreamId};

/// Entries of the directory that are looked at per turn: about a millisecond.
const NAMES_PER_TURN: usize = 512;

/// Streams that are let in per turn: each is opened at once.
pub(crate) const STREAMS_PER_TURN: usize = 64;

/// Names that are remembered per user. Those beyond stay in the spool, and are found again when there is room.
const NAMES_PER_USER_MAX: usize = 16 << 10;

/// The names that wait, and the walk through the directory that finds them.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    walk: Option<ReadDir>,
    users: BTreeMap<u32, BTreeSet<SegmentName>>,
    /// Who was let in last.
    last: u32,
    /// Names were left out for want of room.
    overflowed: bool,
    /// Walks that were begun.
    begun: u64,
}

/// How far the walks have come: a name that was there when a walk began is known once it is over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walks {
    /// The last that is over, counted from 1.
    pub(crate) over: u64,
    /// The last that was begun.
    pub(crate) begun: u64,
}

/// A stream that is let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) stream: StreamId,
    /// Its segments by the user who owns them; more than one user is a reason for suspicion.
    pub(crate) names: Vec<(u32, SegmentName)>,
}

impl Arrivals {
    /// Begins to walk through the spool, unless a walk is under way.
    pub(crate) fn begin_walk(&mut self, spool: &Path) -> io::Result<()> {
        if self.walk.is_none() {
            self.walk = Some(std::fs::read_dir(spool)?);
            self.overflowed = false;
            self.begun += 1;
        }
        Ok(())
    }

    /// Whether a walk is under way.
    pub(crate) fn is_walking(&self) -> bool {
        self.walk.is_some()
    }

    /// How far the walks have come.
    pub(crate) fn walks(&self) -> Walks {
        Walks { over: self.begun - u64::from(self.is_walking()), begun: self.begun }
    }

    /// The next names of the walk that are those of segments, in no order; when it ends, the walk is over.
    pub(crate) fn walk(&mut self) -> io::Result<Vec<SegmentName>> {
        let mut names = Vec::new();
        let Some(walk) = &mut self.walk else { return Ok(names) };
        for _ in 0..NAMES_PER_TURN {
            let Some(item) = walk.next() else {
                self.walk = None;
                break;
            };
            names.extend(item?.file_name().to_str().and_then(SegmentName::parse));
        }
        Ok(names)
    }

    /// Whether a name waits already.
    pub(crate) fn holds(&self, name: SegmentName) -> bool {
        self.users.values().any(|names| names.contains(&name))
    }

    /// Takes note of a name, and asks the file whose it is: the directory cannot be asked, and the name does not count.
    pub(crate) fn note(&mut self, layout: &Layout, name: SegmentName) -> io::Result<()> {
        let Some(uid) = owner(layout, name)? else { return Ok(()) };
        let names = self.users.entry(uid).or_default();
        if names.len() < NAMES_PER_USER_MAX {
            names.insert(name);
        } else {
            self.overflowed = true;
        }
        Ok(())
    }

    /// Whether names were left in the spool for want of room, and there is room now.
    pub(crate) fn wants_walk(&self) -> bool {
        let has_room = |names: &BTreeSet<SegmentName>| names.len() < NAMES_PER_USER_MAX / 2;
        self.overflowed && self.walk.is_none() && self.users.values().all(has_room)
    }

    /// Whether any stream could be let in, given who `may_enter`.
    pub(crate) fn has_work(&self, may_enter: impl Fn(u32) -> bool) -> bool {
        self.users.keys().any(|uid| may_enter(*uid))
    }

    /// Lets the next stream in: of the next user after the last one who may enter.
    pub(crate) fn next(&mut self, may_enter: impl Fn(u32) -> bool) -> Option<Arrival> {
        let behind = (std::ops::Bound::Excluded(self.last), std::ops::Bound::Unbounded);
        let turn = self.users.range(behind).chain(self.users.range(..=self.last));
        let (uid, first) = turn
            .filter(|(uid, _)| may_enter(**uid))
            .find_map(|(uid, names)| Some((*uid, *names.first()?)))?;
        self.last = uid;
        let stream = first.stream;
        let mut names = Vec::new();
        for (uid, waiting) in &mut self.users {
            // Names order by stream first.
            let its: Vec<_> =
                waiting.range(smallest(stream)..).take_while(|name| name.stream == stream).copied().collect();
            for name in its {
                waiting.remove(&name);
                names.push((*uid, name));
            }
        }
        self.users.retain(|_, names| !names.is_empty());
        Some(Arrival { stream, names })
    }
}

/// The user who owns a file of the spool; `None` if it is gone.
pub(crate) fn owner(layout: &Layout, name: SegmentName) -> io::Result<Option<u32>> {
    match std::fs::symlink_metadata(layout.segment(name)) {
        Ok(metadata) => Ok(Some(metadata.uid())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// When a file of the spool was made, as time since 1970; the latest there is if the file system does not tell. Unlike its
/// other times it is not the owner's to set.
pub(crate) fn birth(layout: &Layout, name: SegmentName) -> Duration {
    let made = std::fs::symlink_metadata(layout.segment(name)).and_then(|metadata| metadata.created());
    made.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or(Duration::MAX)
}

/// The user whose stream it is if no database knows it. Nobody knew its id before its first file was there: among several
/// owners it is the one whose file was made first.
pub(crate) fn first_owner(layout: &Layout, names: &[(u32, SegmentName)]) -> Option<u32> {
    let (uid, _) = names.first()?;
    if names.iter().all(|(other, _)| other == uid) {
        return Some(*uid);
    }
    names.iter().min_by_key(|(_, name)| (birth(layout, *name), name.number)).map(|(uid, _)| *uid)
}

fn smallest(stream: StreamId) -> SegmentName {
    SegmentName { stream, number: 0, kind: penholder_protocol::SegmentKind::Live }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    use penholder_protocol::SegmentKind;

    fn name(stream: u8, number: u32) -> SegmentName {
        SegmentName { stream: StreamId([stream; 16]), number, kind: SegmentKind::Sealed }
    }

    fn waiting(names: &[(u32, u8, u32)]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for (uid, stream, number) in names {
            arrivals.users.entry(*uid).or_default().insert(name(*stream, *number));
        }
        arrivals
    }

    #[test]
    fn users_are_let_in_in_turn_however_many_streams_one_has() {
        let mut names: Vec<_> = (1..=100).map(|stream| (1000, stream, 1)).collect();
        names.extend([(1001, 201, 1), (1002, 202, 1)]);
        let mut arrivals = waiting(&names);
        let mut uids = Vec::new();
        while let Some(arrival) = arrivals.next(|_| true) {
            uids.push(arrival.names[0].0);
        }
        assert_eq!((&uids[..4], uids.len()), (&[1000, 1001, 1002, 1000][..], 102));
        assert!(!arrivals.has_work(|_| true));
    }

    #[test]
    fn whoever_has_enough_waits_and_does_not_keep_others_out() {
        let mut arrivals = waiting(&[(1000, 1, 1), (1001, 2, 1)]);
        assert_eq!(arrivals.next(|uid| uid != 1000).unwrap().stream, StreamId([2; 16]));
        assert_eq!(arrivals.next(|uid| uid != 1000), None);
        assert!(arrivals.has_work(|_| true) && !arrivals.has_work(|uid| uid != 1000));
        assert_eq!(arrivals.next(|_| true).unwrap().stream, StreamId([1; 16]));
    }

    #[test]
    fn all_segments_of_a_stream_come_together_whoever_owns_them() {
        let mut arrivals = waiting(&[(1000, 7, 2), (1000, 7, 1), (1001, 7, 3), (1001, 8, 1)]);
        let arrival = arrivals.next(|_| true).unwrap();
        assert_eq!(arrival.names, [(1000, name(7, 1)), (1000, name(7, 2)), (1001, name(7, 3))]);
        assert_eq!(arrivals.next(|_| true).unwrap().stream, StreamId([8; 16]));
    }

    #[test]
    fn a_walk_comes_in_pieces_and_what_a_user_has_too_much_of_is_left_in_the_spool() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        std::fs::create_dir(layout.spool()).unwrap();
        let count = u32::try_from(NAMES_PER_USER_MAX + 10).unwrap();
        for number in 1..=count {
            std::fs::write(layout.segment(name(1, number)), "").unwrap();
        }
        std::fs::write(layout.spool().join("README"), "").unwrap();
        let (mut arrivals, mut found, mut turns) = (Arrivals::default(), 0, 0);
        arrivals.begin_walk(&layout.spool()).unwrap();
        while arrivals.is_walking() {
            let names = arrivals.walk().unwrap();
            assert!(names.len() <= NAMES_PER_TURN);
            for name in names {
                assert!(!arrivals.holds(name));
                arrivals.note(&layout, name).unwrap();
                found += 1;
            }
            turns += 1;
        }
        assert!(found == count && turns > 30, "{found} in {turns} turns");
        assert!(!arrivals.wants_walk(), "there is no room for what was left");
        assert_eq!(arrivals.next(|_| true).unwrap().names.len(), NAMES_PER_USER_MAX);
        assert!(arrivals.wants_walk());
        arrivals.note(&layout, name(2, 1)).unwrap();
        assert!(!arrivals.has_work(|_| true), "it is not there");
    }
}

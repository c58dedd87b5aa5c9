//! Whose turn it is: every user in turn, and every stream of a user in turn, so that nobody gains by opening more.

use penholder_protocol::StreamId;

/// The streams that are followed, by user.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The next one first, in both.
    users: Vec<User>,
}

#[derive(Debug)]
struct User {
    uid: u32,
    streams: Vec<StreamId>,
    /// Those that have been quiet for long: they are passed over without a look.
    resting: Vec<StreamId>,
}

/// Where in the order a stream stands: the round, and the user in it.
pub(crate) type Place = (usize, usize);

impl Turns {
    /// Puts a stream at the end of its user's turns.
    pub(crate) fn push(&mut self, uid: u32, stream: StreamId) {
        match self.users.iter_mut().find(|user| user.uid == uid) {
            Some(user) => user.streams.push(stream),
            None => self.users.push(User { uid, streams: vec![stream], resting: Vec::new() }),
        }
    }

    /// Takes the quiet streams out of turn, and puts those that are no longer quiet at the end.
    pub(crate) fn settle(&mut self, is_quiet: impl Fn(StreamId) -> bool) {
        for user in &mut self.users {
            let woken: Vec<_> = user.resting.extract_if(.., |stream| !is_quiet(*stream)).collect();
            user.resting.extend(user.streams.extract_if(.., |stream| is_quiet(*stream)));
            user.streams.extend(woken);
        }
    }

    /// Lets go of the streams that are not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(StreamId) -> bool) {
        for user in &mut self.users {
            user.streams.retain(|stream| keep(*stream));
            user.resting.retain(|stream| keep(*stream));
        }
        self.users.retain(|user| !user.streams.is_empty() || !user.resting.is_empty());
    }

    /// How many users there are.
    pub(crate) fn users_count(&self) -> usize {
        self.users.len()
    }

    /// The streams of a user that are followed.
    pub(crate) fn streams_count(&self, uid: u32) -> usize {
        let of = |user: &User| user.streams.len() + user.resting.len();
        self.users.iter().find(|user| user.uid == uid).map_or(0, of)
    }

    /// The streams out of turn, and the users in whose turns they would be.
    pub(crate) fn resting(&self) -> impl Iterator<Item = (usize, StreamId)> {
        let users = self.users.iter().enumerate();
        users.flat_map(|(place, user)| user.resting.iter().map(move |stream| (place, *stream)))
    }

    /// Every stream in turn once: the first of every user, then the second of every user, and so on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, StreamId)> {
        let rounds = self.users.iter().map(|user| user.streams.len()).max().unwrap_or(0);
        let round = |round: usize| {
            let stream =
                move |(place, user): (usize, &User)| Some(((round, place), *user.streams.get(round)?));
            self.users.iter().enumerate().filter_map(stream)
        };
        (0..rounds).flat_map(round)
    }

    /// Begins the next time with the stream at `place`; without one, everybody moves on by one.
    pub(crate) fn begin_with(&mut self, place: Option<Place>) {
        let (round, first) = place.unwrap_or((0, 1));
        // With one user, or none, the turn goes to the next stream.
        let (round, first) = if first >= self.users.len() { (round + 1, 0) } else { (round, first) };
        for (number, user) in self.users.iter_mut().enumerate() {
            let served = if number < first { round + 1 } else { round };
            let streams = user.streams.len();
            user.streams.rotate_left(served.checked_rem(streams).unwrap_or(0));
        }
        self.users.rotate_left(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(uid: u8, number: u8) -> StreamId {
        let mut id = [0; 16];
        (id[0], id[1]) = (uid, number);
        StreamId(id)
    }

    fn turns(streams: &[(u8, u8)]) -> Turns {
        let mut turns = Turns::default();
        for (uid, count) in streams {
            (0..*count).for_each(|number| turns.push((*uid).into(), id(*uid, number)));
        }
        turns
    }

    fn order(turns: &Turns) -> Vec<(u8, u8)> {
        turns.iter().map(|(_, stream)| (stream.0[0], stream.0[1])).collect()
    }

    #[test]
    fn a_user_with_many_streams_waits_for_one_with_few() {
        let turns = turns(&[(1, 4), (2, 1), (3, 2)]);
        assert_eq!(order(&turns), [(1, 0), (2, 0), (3, 0), (1, 1), (3, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn whoever_was_passed_over_comes_first_and_those_served_come_last() {
        let mut turns = turns(&[(1, 4), (2, 1), (3, 2)]);
        let (place, _) = turns.iter().find(|(_, stream)| *stream == id(3, 1)).unwrap();
        turns.begin_with(Some(place));
        assert_eq!(order(&turns), [(3, 1), (1, 2), (2, 0), (3, 0), (1, 3), (1, 0), (1, 1)]);
    }

    #[test]
    fn with_nobody_passed_over_every_stream_is_first_once() {
        let mut alone = turns(&[(1, 3)]);
        let mut first = Vec::new();
        for _ in 0..3 {
            first.push(order(&alone)[0]);
            alone.begin_with(None);
        }
        assert_eq!(first, [(1, 0), (1, 1), (1, 2)]);
        let mut several = turns(&[(1, 2), (2, 1)]);
        several.begin_with(None);
        assert_eq!(order(&several)[0], (2, 0));
        Turns::default().begin_with(None);
    }

    #[test]
    fn a_user_without_streams_is_forgotten() {
        let mut turns = turns(&[(1, 2), (2, 1)]);
        turns.retain(|stream| stream.0[0] == 1);
        assert_eq!((turns.users_count(), turns.streams_count(1), turns.streams_count(2)), (1, 2, 0));
    }

    #[test]
    fn a_quiet_stream_rests_and_comes_back_at_the_end_of_its_users_turns() {
        let mut turns = turns(&[(1, 3), (2, 1)]);
        turns.settle(|stream| stream == id(1, 0) || stream == id(2, 0));
        assert_eq!(order(&turns), [(1, 1), (1, 2)]);
        assert_eq!(turns.resting().collect::<Vec<_>>(), [(0, id(1, 0)), (1, id(2, 0))]);
        assert_eq!((turns.users_count(), turns.streams_count(1), turns.streams_count(2)), (2, 3, 1));
        turns.settle(|stream| stream == id(1, 1));
        assert_eq!(order(&turns), [(1, 2), (2, 0), (1, 0)]);
        turns.retain(|stream| stream != id(1, 1));
        assert_eq!(turns.resting().count(), 0, "whoever is let go of need not be awake");
    }
}

//! What a submit hands out: the name under which an outcome is asked for.

use penholder_protocol::{Sequence, StreamId};

/// A submitted command, to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) stream: StreamId,
    pub(crate) sequence: Sequence,
}

impl Ticket {
    /// The stream that the command was appended to.
    #[must_use]
    pub fn stream(self) -> StreamId {
        self.stream
    }

    /// The command's position in the stream.
    #[must_use]
    pub fn sequence(self) -> Sequence {
        self.sequence
    }
}

/// The tickets of one submit, in the order of its commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tickets {
    pub(crate) stream: StreamId,
    pub(crate) first: Sequence,
    pub(crate) count: u64,
}

impl Tickets {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether the submit had no command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The ticket of the last command. Once it has an outcome, all of them have.
    #[must_use]
    pub fn last(&self) -> Option<Ticket> {
        self.iter().next_back()
    }

    /// All of them in order.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Ticket> + use<> {
        let stream = self.stream;
        (self.first.0..self.first.0 + self.count)
            .map(move |sequence| Ticket { stream, sequence: Sequence(sequence) })
    }
}

//! A bounded group of commands that is committed together.

use penholder_protocol::{CommandRef, Epoch, Packed, PackedCommand, Sequence, StreamId};

use crate::grants::Roles;

/// The databases a command touches, by their index in commit order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touches(u8);

impl Touches {
    /// The databases that a command names; one that names none that exists is settled in the first.
    pub(crate) fn of<'n>(command: CommandRef<'_>, names: &(impl Iterator<Item = &'n str> + Clone)) -> Self {
        let index = |wanted: &str| names.clone().position(|name| name == wanted);
        let named = command.statements().filter_map(|statement| index(&statement.text.database));
        let touches = named.fold(Self::default(), Self::with);
        if touches.is_empty() { touches.with(0) } else { touches }
    }

    /// The one database that every command of a frame touches, if there is one: most frames are of that kind.
    pub(crate) fn of_all(commands: &Packed, names: &[String]) -> Option<Self> {
        let mut found = commands.texts().map(|text| Self::index_of(&text.database, names));
        let first = found.next()??;
        found.all(|other| other == Some(first)).then(|| Self::default().with(first))
    }

    /// The place of a database in commit order.
    pub(crate) fn index_of(name: &str, names: &[String]) -> Option<usize> {
        names.iter().position(|known| known == name)
    }

    pub(crate) fn with(self, database: usize) -> Self {
        Self(self.0 | 1 << database)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn contains(self, database: usize) -> bool {
        self.0 & 1 << database != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether an effect is spread over files that do not commit atomically.
    pub(crate) fn are_several(self) -> bool {
        self.0.count_ones() > 1
    }

    /// The first in commit order.
    pub(crate) fn first(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    /// In commit order.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (first < u8::BITS).then_some(first as usize)
        })
    }
}

/// A command and where it came from.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) stream: StreamId,
    /// Who owns the segment that it stood in.
    pub(crate) uid: u32,
    pub(crate) epoch: Epoch,
    pub(crate) sequence: Sequence,
    pub(crate) command: PackedCommand,
    pub(crate) touches: Touches,
    /// What its client may do.
    pub(crate) roles: Roles,
    /// Every database it touches has it already: a crash came between the commit and the receipt.
    pub(crate) is_done: bool,
    /// The client wants to know what its statements did.
    pub(crate) wants_results: bool,
    pub(crate) submitted_ns: u64,
    /// What it takes in a row, as redo or as rejected, with its SQL written out.
    pub(crate) bytes: usize,
}

/// The databases that the entries still to be applied touch.
pub(crate) fn touches_of(entries: &[Entry]) -> Touches {
    entries.iter().filter(|e| !e.is_done).fold(Touches::default(), |all, entry| all.and(entry.touches))
}

//! The commands of a frame as they stand in it: checked once, then read in place without a copy.

use std::sync::Arc;

use crate::limits::{COMMAND_STATEMENTS_MAX, FRAME_COMMANDS_MAX, STATEMENT_PARAMS_MAX};
use crate::payload::{self, Cursor};
use crate::{Command, Key, Statement, Text, Value};

/// The commands of one frame, checked and still encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// The texts that the commands use and the numbers they have in `bytes`, ascending.
    texts: Vec<(u32, Arc<Text>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Place {
    /// Where the command starts, in bytes.
    at: u32,
    stored_bytes: u32,
}

/// One command, which shares the bytes of its frame with its neighbours.
#[derive(Clone, Debug)]
pub struct PackedCommand {
    packed: Arc<Packed>,
    place: Place,
}

/// One command, read in place.
#[derive(Clone, Copy, Debug)]
pub struct CommandRef<'a> {
    packed: &'a Packed,
    place: Place,
}

/// The statements of a command, in the order in which they run.
#[derive(Clone, Debug)]
pub struct Statements<'a> {
    packed: &'a Packed,
    rest: Cursor<'a>,
    left: usize,
    /// Values that stand between `rest` and the next statement.
    unread: usize,
}

/// One statement, read in place.
#[derive(Clone, Debug)]
pub struct StatementRef<'a> {
    /// What to run and where.
    pub text: &'a Arc<Text>,
    /// Rows this statement must change; any other number rejects the whole command.
    pub expect_rows: Option<u64>,
    /// Values of `?1`, `?2`, and so on.
    pub params: Params<'a>,
}

/// The parameters of a statement.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    rest: Cursor<'a>,
    left: usize,
}

/// One SQLite value, read in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// SQL NULL.
    Null,
    /// A signed 64-bit integer.
    Integer(i64),
    /// A 64-bit float; SQLite stores NaN as NULL.
    Real(f64),
    /// Text; it was checked to be UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

impl Packed {
    /// Checks the payload of a frame, whose texts `text` finds by their numbers in the segment's dictionary.
    pub(crate) fn from_payload<'t>(
        payload: Vec<u8>,
        text: impl Fn(u32) -> Option<&'t Arc<Text>>,
    ) -> Result<Self, String> {
        let mut packed = Self { bytes: payload, places: Vec::new(), texts: Vec::new() };
        packed.check(text)?;
        Ok(packed)
    }

    /// How many commands there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All commands in order, each of which keeps the frame alive.
    #[must_use]
    pub fn into_commands(mut self) -> impl ExactSizeIterator<Item = PackedCommand> {
        let places = std::mem::take(&mut self.places);
        let packed = Arc::new(self);
        places.into_iter().map(move |place| PackedCommand { packed: Arc::clone(&packed), place })
    }

    /// All commands in order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = CommandRef<'_>> {
        self.places.iter().map(|place| CommandRef { packed: self, place: *place })
    }

    /// Every text that a command uses, once.
    #[must_use]
    pub fn texts(&self) -> impl ExactSizeIterator<Item = &Arc<Text>> {
        self.texts.iter().map(|(_, text)| text)
    }

    /// Copies all commands out.
    #[must_use]
    pub fn unpack(&self) -> Vec<Command> {
        self.iter().map(CommandRef::unpack).collect()
    }

    /// Walks through all of `bytes` once, notes where the commands start, and collects the texts they use.
    fn check<'t>(&mut self, text: impl Fn(u32) -> Option<&'t Arc<Text>>) -> Result<(), String> {
        let mut cursor = Cursor::new(&self.bytes);
        let count = cursor.length().map_err(|_| "no count of commands")?;
        if count > FRAME_COMMANDS_MAX {
            return Err(format!("{count} commands in a frame, the limit is {FRAME_COMMANDS_MAX}"));
        }
        let mut places = Vec::with_capacity(count.min(cursor.left()));
        let mut recent = (0, 0);
        for _ in 0..count {
            let at = self.bytes.len() - cursor.left();
            let mut stored_bytes = payload::STORED_BYTES_MORE;
            let malformed = |_| format!("a command that does not decode at byte {at} of the payload");
            cursor.key().map_err(malformed)?;
            let statements = cursor.length().map_err(malformed)?;
            check_count("statements in a command", statements, COMMAND_STATEMENTS_MAX)?;
            if statements == 0 {
                return Err("a command without statements".into());
            }
            for _ in 0..statements {
                let (number, _, params) = cursor.statement().map_err(malformed)?;
                check_count("parameters in a statement", params, STATEMENT_PARAMS_MAX)?;
                for _ in 0..params {
                    cursor.check_value().map_err(malformed)?;
                }
                if recent.0 != number || self.texts.is_empty() {
                    let found = text(number).ok_or(format!("statement text {number} is not defined"))?;
                    if let Err(place) = self.texts.binary_search_by_key(&number, |(known, _)| *known) {
                        self.texts.insert(place, (number, Arc::clone(found)));
                    }
                    recent = (number, payload::stored_bytes_more(found));
                }
                stored_bytes += recent.1;
            }
            let narrow = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
            stored_bytes += self.bytes.len() - cursor.left() - at;
            places.push(Place { at: narrow(at), stored_bytes: narrow(stored_bytes) });
        }
        if cursor.left() > 0 {
            return Err(format!("{} trailing bytes", cursor.left()));
        }
        self.places = places;
        Ok(())
    }

    fn text(&self, number: u32) -> Option<&Arc<Text>> {
        let place = self.texts.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        self.texts.get(place).map(|(_, text)| text)
    }
}

fn check_count(what: &str, count: usize, limit: usize) -> Result<(), String> {
    if count > limit { Err(format!("{count} {what}, the limit is {limit}")) } else { Ok(()) }
}

impl PackedCommand {
    /// Packs a command that did not come out of a segment.
    #[must_use]
    pub fn pack(command: &Command) -> Self {
        let mut texts: Vec<Arc<Text>> = Vec::new();
        let mut bytes = Vec::new();
        payload::put(&1_u64, &mut bytes);
        payload::put_command(command, &mut bytes, |text| {
            let known = texts.iter().position(|known| known == text).unwrap_or_else(|| {
                texts.push(Arc::clone(text));
                texts.len() - 1
            });
            u32::try_from(known).unwrap_or(u32::MAX)
        });
        let packed = Packed::from_payload(bytes, |number| texts.get(number as usize));
        debug_assert!(packed.is_ok(), "what was just encoded can be read: {packed:?}");
        let packed = packed.unwrap_or_default();
        let place = packed.places.first().copied().unwrap_or_default();
        Self { packed: Arc::new(packed), place }
    }

    /// The command, to be read in place.
    #[must_use]
    pub fn read(&self) -> CommandRef<'_> {
        CommandRef { packed: &self.packed, place: self.place }
    }
}

impl<'a> CommandRef<'a> {
    /// The same key gets the first outcome again, however often it is submitted.
    #[must_use]
    pub fn key(self) -> Option<Key> {
        self.cursor().key().ok().flatten()
    }

    /// Its statements, in the order in which they run.
    #[must_use]
    pub fn statements(self) -> Statements<'a> {
        let mut rest = self.cursor();
        let left = rest.key().and_then(|_| rest.length()).unwrap_or_default();
        Statements { packed: self.packed, rest, left, unread: 0 }
    }

    /// Bytes that it takes among those of [`encode_commands`](crate::encode_commands), where it has its texts with it.
    #[must_use]
    pub fn stored_bytes(self) -> usize {
        self.place.stored_bytes as usize
    }

    /// Copies it out.
    #[must_use]
    pub fn unpack(self) -> Command {
        Command { key: self.key(), statements: self.statements().map(StatementRef::unpack).collect() }
    }

    fn cursor(self) -> Cursor<'a> {
        Cursor::new(self.packed.bytes.get(self.place.at as usize..).unwrap_or_default())
    }
}

impl<'a> Iterator for Statements<'a> {
    type Item = StatementRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        for _ in 0..std::mem::take(&mut self.unread) {
            self.rest.value().ok()?;
        }
        let (number, expect_rows, params) = self.rest.statement().ok()?;
        self.unread = params;
        let params = Params { rest: self.rest, left: params };
        Some(StatementRef { text: self.packed.text(number)?, expect_rows, params })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Statements<'_> {}

impl StatementRef<'_> {
    /// Copies it out.
    #[must_use]
    pub fn unpack(self) -> Statement {
        let params = self.params.map(Value::from).collect();
        Statement { text: Arc::clone(self.text), params, expect_rows: self.expect_rows }
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.rest.value().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Params<'_> {}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(integer) => Self::Integer(integer),
            ValueRef::Real(real) => Self::Real(real),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(blob) => Self::Blob(blob.to_vec()),
        }
    }
}

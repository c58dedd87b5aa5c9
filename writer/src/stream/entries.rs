//! The commands of a frame as the entries of a batch.

use penholder_protocol::{Epoch, PackedCommand, Sequence, StreamId, Submitted};

use crate::batch::{Entry, Touches};
use crate::grants::Roles;
use crate::stream::Rules;
use crate::watermark::Watermarks;

/// Tells of each command what it touches, and whether a database has it already.
pub(super) fn of(
    submitted: Submitted,
    (stream, (uid, roles), epoch): (StreamId, (u32, Roles), Epoch),
    rules: &Rules,
    watermarks: &Watermarks,
) -> impl Iterator<Item = Entry> {
    let highest = watermarks.highest(stream);
    let (wants_results, submitted_ns) = (submitted.results, submitted.submitted_ns);
    let touches_of_all = Touches::of_all(&submitted.commands, &rules.databases);
    (submitted.first_sequence.0..).zip(submitted.commands.into_commands()).map(move |(sequence, mut command)| {
        let sequence = Sequence(sequence);
        let names = || rules.databases.iter().map(String::as_str);
        let named = touches_of_all.unwrap_or_else(|| Touches::of(command.read(), &names()));
        // What any database has is never widened: its watermark there stands.
        let mut touches = if sequence > highest { rules.along.of(named) } else { named };
        let mut is_done = false;
        if sequence <= highest {
            let pending = watermarks.pending(stream, sequence, named);
            is_done = pending.is_empty();
            if !is_done && pending != named {
                log::warn!(
                    "command {sequence} of stream {stream} is in one database only: a rollback was accepted"
                );
                command = part_of(&command, pending, &rules.databases);
                touches = pending;
            }
        }
        let bytes = command.read().stored_bytes();
        Entry {
            stream,
            uid,
            epoch,
            sequence,
            command,
            touches,
            roles,
            is_done,
            wants_results,
            submitted_ns,
            bytes,
        }
    })
}

/// The statements of a command that are for one of `touches`.
fn part_of(command: &PackedCommand, touches: Touches, databases: &[String]) -> PackedCommand {
    let mut part = command.read().unpack();
    part.statements.retain(|statement| {
        Touches::index_of(&statement.text.database, databases).is_some_and(|index| touches.contains(index))
    });
    PackedCommand::pack(&part)
}

//! Idempotency keys: the same key gets the first outcome again.

use penholder_protocol::{
    Code, CommandRef, Key, Outcome, Sequence, StreamId, Tick, decode_outcome, encode_commands, encode_outcome,
};

use crate::Error;
use crate::apply::rejection;
use crate::database::Database;

/// The first outcome of the command's key; a rejection if the key belongs to another command.
pub(crate) fn lookup(databases: &[Database<'_>], command: CommandRef<'_>) -> Result<Option<Outcome>, Error> {
    let Some(key) = command.key() else { return Ok(None) };
    let sql = "SELECT hash, outcome FROM _penholder_key WHERE key = ?1";
    for database in databases {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
        let Some((hash, outcome)) = database.read("look up a key in", sql, [key.0], row)? else { continue };
        if hash != hash_of(command) {
            let message = format!("key {key} was used before for another command; draw a new one");
            return Ok(Some(Outcome::Rejected(rejection(Code::Key, &message, None))));
        }
        let outcome = decode_outcome(&outcome)
            .map_err(Error::io("decode the outcome of a key in", database.name.as_ref()))?;
        return Ok(Some(outcome));
    }
    Ok(None)
}

/// Stores the outcome of a key, in the transaction that carries the effect.
pub(crate) fn remember(
    database: &Database<'_>,
    key: Key,
    command: CommandRef<'_>,
    tick: Tick,
    outcome: &Outcome,
) -> Result<(), Error> {
    let sql = "INSERT INTO _penholder_key(key, hash, tick, outcome) VALUES (?1, ?2, ?3, ?4)";
    let row = (key.0, hash_of(command), tick.0, encode_outcome(outcome));
    database.run("remember a key in", sql, row)
}

/// Copies what a database remembers of a key since `tick` to another; whether there is anything.
pub(crate) fn copy(
    source: &Database<'_>,
    target: &Database<'_>,
    key: Key,
    tick: Tick,
) -> Result<bool, Error> {
    let sql = "SELECT hash, outcome FROM _penholder_key WHERE key = ?1 AND tick = ?2";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let Some((hash, outcome)) = source.read("look up a key in", sql, (key.0, tick.0), row)? else {
        return Ok(false);
    };
    let sql = "INSERT INTO _penholder_key(key, hash, tick, outcome) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (key) DO NOTHING";
    target.run("copy a key to", sql, (key.0, hash, tick.0, outcome))?;
    Ok(true)
}

/// Tells one command from another; a client that forges a collision only confuses itself.
fn hash_of(command: CommandRef<'_>) -> i64 {
    let anonymous = std::iter::once((StreamId([0; 16]), Sequence(0), command.unpack()));
    i64::from(crc32fast::hash(&encode_commands(anonymous)))
}

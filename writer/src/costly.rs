//! Functions whose time grows with the product of the lengths of two arguments.
//!
//! SQLite asks the progress handler between two steps of its machine, and such a call is one step: with the longest
//! values it takes hours, and neither a deadline nor an interrupt ends it. Here, what would take longer than about a
//! second is refused before it begins. Everything else is done by SQLite's own function, which a connection without a
//! file still has.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql, ffi};

/// Name, number of arguments, and the largest product of the lengths of the first two, in bytes squared: what takes a
/// second or so.
const COSTLY: [(&str, i32, u64); 8] = [
    // They compare a whole block of memory at each position.
    ("instr", 2, 1 << 33),
    ("replace", 3, 1 << 33),
    // They look at each character of one for each character of the other.
    ("trim", 2, 1 << 27),
    ("ltrim", 2, 1 << 27),
    ("rtrim", 2, 1 << 27),
    ("unhex", 2, 1 << 27),
    // They look up each label of one among all labels of the other.
    ("json_patch", 2, 1 << 31),
    ("jsonb_patch", 2, 1 << 31),
];

/// Puts a bound before each of the functions.
pub(crate) fn bound(connection: &Connection) -> rusqlite::Result<()> {
    let plain = Connection::open_in_memory()?;
    plain.set_limit(Limit::SQLITE_LIMIT_LENGTH, connection.limit(Limit::SQLITE_LIMIT_LENGTH)?)?;
    let plain = Arc::new(Mutex::new(plain));
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, arguments, cost_max) in COSTLY {
        let plain = Arc::clone(&plain);
        let marks = vec!["?"; usize::try_from(arguments).unwrap_or_default()].join(", ");
        let call = format!("SELECT {name}({marks})");
        connection.create_scalar_function(name, arguments, flags, move |context| {
            if length(context.get_raw(0)).saturating_mul(length(context.get_raw(1))) > cost_max {
                return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None));
            }
            let plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
            run(&plain, &call, context)
        })?;
    }
    Ok(())
}

/// Lets SQLite's own function do it.
fn run(plain: &Connection, call: &str, context: &Context<'_>) -> rusqlite::Result<Value> {
    let mut statement = plain.prepare_cached(call)?;
    for index in 0..context.len() {
        statement.raw_bind_parameter(index + 1, Argument(context.get_raw(index)))?;
    }
    let result = match statement.raw_query().next()? {
        Some(row) => row.get(0)?,
        None => Value::Null,
    };
    statement.clear_bindings();
    Ok(result)
}

/// Bytes of a value as text.
fn length(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() as u64,
        // A number as text takes some 20 characters.
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 20,
    }
}

/// An argument, passed on as it came.
struct Argument<'a>(ValueRef<'a>);

impl ToSql for Argument<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn ask(connection: &Connection, sql: &str) -> rusqlite::Result<Value> {
        connection.query_row(sql, [], |row| row.get(0))
    }

    #[test]
    fn ordinary_calls_give_what_they_always_gave() {
        let plain = Connection::open_in_memory().unwrap();
        let bounded = Connection::open_in_memory().unwrap();
        bound(&bounded).unwrap();
        let values =
            ["NULL", "''", "'a'", "'aXbXc'", "'ä'", "'x€ä'", "12", "-1.5", "1e300", "x'00'", "x'c3a4'"];
        let calls = |a: &str, b: &str| {
            vec![
                format!("instr({a}, {b})"),
                format!("replace({a}, {b}, 'yy')"),
                format!("replace({a}, 'X', {b})"),
                format!("trim({a}, {b})"),
                format!("ltrim({a}, {b})"),
                format!("rtrim({a}, {b})"),
                format!("unhex({a}, {b})"),
                format!("trim({a})"),
                format!("typeof(replace({a}, {b}, 1))"),
            ]
        };
        for a in values {
            for call in values.into_iter().flat_map(|b| calls(a, b)) {
                let sql = format!("SELECT {call}");
                assert_eq!(ask(&bounded, &sql).unwrap(), ask(&plain, &sql).unwrap(), "{call}");
            }
        }
        for call in
            [r#"json_patch('{"a":1,"b":2}', '{"b":null,"c":[1]}')"#, "hex(jsonb_patch('{}', '{\"a\":1}'))"]
        {
            let sql = format!("SELECT {call}");
            assert_eq!(ask(&bounded, &sql).unwrap(), ask(&plain, &sql).unwrap(), "{call}");
        }
        assert!(ask(&bounded, "SELECT json_patch('{', '{}')").is_err());
    }

    #[test]
    fn a_call_that_would_take_hours_is_refused_at_once() {
        let connection = Connection::open_in_memory().unwrap();
        bound(&connection).unwrap();
        let long = "replace(hex(zeroblob(3000000)), '00', 'aa')";
        let calls = [
            format!("instr({long}, {long} || 'b')"),
            "instr(zeroblob(6000000), zeroblob(3000000) || x'01')".to_owned(),
            format!("replace({long}, substr({long}, 9) || 'b', '')"),
            format!("trim({long}, {long} || 'b')"),
            format!("ltrim({long}, {long} || 'b')"),
            format!("rtrim({long}, {long} || 'b')"),
            format!("unhex({long}, {long})"),
            format!("json_patch({long}, {long})"),
        ];
        for call in calls {
            let begun = Instant::now();
            let error = ask(&connection, &format!("SELECT {call}")).unwrap_err();
            assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::TooBig), "{call}: {error}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{call}: {:?}", begun.elapsed());
        }
    }

    #[test]
    fn the_schema_may_use_them() {
        let connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "trusted_schema", false).unwrap();
        bound(&connection).unwrap();
        let sql = "CREATE TABLE t (a, b AS (replace(a, 'x', 'y')), CHECK (instr(a, 'z') = 0));
                   CREATE INDEX i ON t (trim(a, ' '));
                   INSERT INTO t VALUES (' x ')";
        connection.execute_batch(sql).unwrap();
        assert_eq!(
            ask(&connection, "SELECT b FROM t WHERE trim(a, ' ') = 'x'").unwrap(),
            Value::Text(" y ".into())
        );
        assert!(connection.execute("INSERT INTO t VALUES ('z')", []).is_err());
    }
}

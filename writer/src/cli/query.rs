//! `penholder query`: one statement that reads, on a consistent snapshot.

use penholder_client::read::{ReadError, Reader, Snapshot};
use penholder_protocol::Value;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Batch, Connection, ErrorCode, Statement};

use super::args::QueryArgs;
use super::exec;
use super::exit::{Exit, Failure};
use super::json::{self, RowAsJson};
use super::output::Output;
use super::render;

/// Prints the rows of the query: as a table, or each as an object.
pub(super) fn run(args: &QueryArgs, output: &mut Output) -> Result<Exit, Failure> {
    let params = exec::params(&args.params)?;
    let mut reader = Reader::open(&args.store)?;
    match reader.snapshot() {
        // One database is asked, and that one is whole.
        Err(error @ ReadError::Uneven { .. }) => output.remark(&error.to_string()),
        taken => return print(&taken?, args, &params, output),
    }
    print(&reader.single(&args.db)?, args, &params, output)
}

fn print(
    snapshot: &Snapshot<'_>,
    args: &QueryArgs,
    params: &[Value],
    output: &mut Output,
) -> Result<Exit, Failure> {
    let mut statement = prepare(snapshot.database(&args.db)?, &args.sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    if args.json {
        let names = json::distinct(&names);
        each_row(&mut statement, params, |values| output.json(&RowAsJson { names: &names, values }))?;
        return Ok(Exit::Ok);
    }
    let mut rows: Vec<Vec<Value>> = Vec::new();
    each_row(&mut statement, params, |values| {
        rows.push(values.to_vec());
        Ok(())
    })?;
    let table = render::table(output, &names, rows.iter().map(Vec::as_slice));
    output.line(table)?;
    if output.is_terminal {
        output.remark(&render::count(rows.len() as u64, "row"));
    }
    Ok(Exit::Ok)
}

/// Prepares a text that must be exactly one statement, which returns rows and changes nothing.
fn prepare<'c>(connection: &'c Connection, sql: &'c str) -> Result<Statement<'c>, Failure> {
    let mut statements = Batch::new(connection, sql);
    // A damaged database, or one that is locked, is no mistake in the SQL.
    let wrong = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::Unknown) | None => Failure::usage(format!("the SQL is wrong: {error}")),
        Some(_) => Failure::on("the query failed")(error),
    };
    let statement = statements.next().map_err(wrong)?;
    let statement = statement.ok_or_else(|| Failure::usage("the SQL holds no statement"))?;
    if !matches!(statements.next(), Ok(None)) {
        return Err(Failure::usage("query takes one statement, and this is more than one"));
    }
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(Failure::usage("query only reads; use `penholder exec` to change something"));
    }
    Ok(statement)
}

fn each_row(
    statement: &mut Statement<'_>,
    params: &[Value],
    mut each: impl FnMut(&[Value]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = || Failure::on("the query failed");
    let (columns, wanted) = (statement.column_count(), statement.parameter_count());
    if wanted != params.len() {
        let count = render::count(wanted as u64, "parameter");
        return Err(Failure::usage(format!("the query takes {count}, and there are {}", params.len())));
    }
    let mut rows = statement.query(rusqlite::params_from_iter(params.iter().map(Bound))).map_err(failed())?;
    let mut values = Vec::with_capacity(columns);
    while let Some(row) = rows.next().map_err(failed())? {
        values.clear();
        for column in 0..columns {
            values.push(row.get_ref(column).map(value_of).map_err(failed())?);
        }
        each(&values)?;
    }
    Ok(())
}

/// A parameter, without a copy of it.
struct Bound<'v>(&'v Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(integer) => ValueRef::Integer(*integer),
            Value::Real(real) => ValueRef::Real(*real),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

fn value_of(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    #[test]
    fn only_one_statement_that_reads_is_accepted() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a)").unwrap();
        for sql in [
            "SELECT 1",
            "SELECT * FROM t;",
            "PRAGMA table_info(t)",
            "EXPLAIN SELECT 1",
            "-- x\nVALUES (1) -- y",
        ] {
            assert!(prepare(&connection, sql).is_ok(), "{sql}");
        }
        let refused = [
            "",
            "  ",
            "-- x",
            "SELECT 1; SELECT 2",
            "DELETE FROM t",
            "INSERT INTO t VALUES (1) RETURNING a",
            "BEGIN",
            "COMMIT",
            "ATTACH ':memory:' AS x",
            "SELECT 1; nonsense",
            "CREATE TABLE u(a)",
            "nonsense",
            "PRAGMA query_only = 0",
        ];
        for sql in refused {
            assert!(prepare(&connection, sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn rows_come_with_the_values_that_were_bound() {
        let connection = Connection::open_in_memory().unwrap();
        let params = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            Value::Text("x".into()),
            Value::Blob(vec![1]),
        ];
        let mut statement = prepare(&connection, "SELECT ?1, ?2, ?3, ?4, ?5").unwrap();
        let mut seen = Vec::new();
        each_row(&mut statement, &params, |values| {
            seen.push(values.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [params.to_vec()]);
        assert!(each_row(&mut statement, &params[..1], |_| Ok(())).is_err());
    }
}

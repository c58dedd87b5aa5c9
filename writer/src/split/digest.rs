//! A digest of a table's rows that does not depend on their order.
//!
//! Every row becomes bytes that tell values and storage classes apart, the bytes a 128-bit hash, and the hashes a sum:
//! a row more, a row less, or one bit changed anywhere gives another sum.

use std::fmt;
use std::sync::Arc;

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde::{Serialize, Serializer};
use twox_hash::XxHash3_128;

use super::progress::Progress;
use crate::Error;

/// The name of the SQL function.
const FUNCTION: &str = "_penholder_digest";

/// Rows between two words to whoever watches.
const ROWS_PER_LOOK: u64 = 4096;

/// A text or blob longer than this goes into its row as a hash of its own: the row's bytes stay few.
const INLINE_BYTES_MAX: usize = 1024;

/// Number of rows, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Rows.
    pub rows: u64,
    sum: u128,
}

impl Digest {
    pub(super) fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    fn to_bytes(self) -> Vec<u8> {
        [&self.rows.to_le_bytes()[..], &self.sum.to_le_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> rusqlite::Result<Self> {
        let parts = bytes.split_first_chunk().zip(bytes.last_chunk());
        let ((rows, _), sum) = parts.ok_or(rusqlite::Error::InvalidQuery)?;
        Ok(Self { rows: u64::from_le_bytes(*rows), sum: u128::from_le_bytes(*sum) })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Digests the values of `columns` in all rows of `from`, both written in SQL.
pub(super) fn of_rows(
    connection: &Connection,
    columns: &[String],
    from: &str,
    progress: &Arc<Progress>,
) -> Result<Digest, Error> {
    let place = place(connection);
    let columns_max = connection.limit(Limit::SQLITE_LIMIT_FUNCTION_ARG);
    let sum = || {
        // Within SQLite, each row and value costs fewer calls than when they are handed out one by one.
        if i32::try_from(columns.len()).is_ok_and(|count| columns_max.is_ok_and(|max| count <= max)) {
            return within(connection, columns, from, progress);
        }
        one_by_one(connection, columns, from, progress)
    };
    sum().map_err(Error::sqlite("digest a table of", &place))
}

fn within(
    connection: &Connection,
    columns: &[String],
    from: &str,
    progress: &Arc<Progress>,
) -> rusqlite::Result<Digest> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_aggregate_function(FUNCTION, -1, flags, Summing(Arc::clone(progress)))?;
    let sql = format!("SELECT {FUNCTION}({}) FROM {from}", columns.join(", "));
    connection.query_row(&sql, [], |row| Digest::from_bytes(row.get_ref(0)?.as_blob()?))
}

fn one_by_one(
    connection: &Connection,
    columns: &[String],
    from: &str,
    progress: &Progress,
) -> rusqlite::Result<Digest> {
    let mut statement = connection.prepare(&format!("SELECT {} FROM {from}", columns.join(", ")))?;
    let mut rows = statement.query([])?;
    let mut running = Running::default();
    while let Some(row) = rows.next()? {
        let hash = of_row(row, 0..columns.len(), &mut running.bytes)?;
        running.add(hash, progress);
    }
    Ok(running.finish(progress))
}

/// The SQL function that digests rows.
struct Summing(Arc<Progress>);

/// A digest on its way.
#[derive(Default)]
struct Running {
    digest: Digest,
    bytes: Vec<u8>,
}

impl Running {
    fn add(&mut self, hash: u128, progress: &Progress) {
        self.digest.add(hash);
        if self.digest.rows.is_multiple_of(ROWS_PER_LOOK) {
            progress.add_rows(ROWS_PER_LOOK);
        }
    }

    fn finish(self, progress: &Progress) -> Digest {
        progress.add_rows(self.digest.rows % ROWS_PER_LOOK);
        self.digest
    }
}

impl Aggregate<Running, Vec<u8>> for Summing {
    fn init(&self, _context: &mut Context<'_>) -> rusqlite::Result<Running> {
        Ok(Running::default())
    }

    fn step(&self, context: &mut Context<'_>, running: &mut Running) -> rusqlite::Result<()> {
        running.bytes.clear();
        for at in 0..context.len() {
            push(&mut running.bytes, context.get_raw(at));
        }
        running.add(XxHash3_128::oneshot(&running.bytes), &self.0);
        Ok(())
    }

    fn finalize(&self, _context: &mut Context<'_>, running: Option<Running>) -> rusqlite::Result<Vec<u8>> {
        Ok(running.unwrap_or_default().finish(&self.0).to_bytes())
    }
}

/// The file that a connection was opened with, for messages.
fn place(connection: &Connection) -> String {
    connection.path().unwrap_or_default().trim_end_matches(".db").to_owned()
}

/// Hashes some columns of a row; `bytes` is only there to be used again.
pub(super) fn of_row(
    row: &Row<'_>,
    columns: std::ops::Range<usize>,
    bytes: &mut Vec<u8>,
) -> rusqlite::Result<u128> {
    bytes.clear();
    for column in columns {
        push(bytes, row.get_ref(column)?);
    }
    Ok(XxHash3_128::oneshot(bytes))
}

/// Writes a value so that no two values, and no two rows, come to the same bytes.
fn push(bytes: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => bytes.push(0),
        ValueRef::Integer(integer) => {
            bytes.push(1);
            bytes.extend_from_slice(&integer.to_le_bytes());
        }
        ValueRef::Real(real) => {
            bytes.push(2);
            bytes.extend_from_slice(&real.to_bits().to_le_bytes());
        }
        ValueRef::Text(text) => push_long(bytes, 3, text),
        ValueRef::Blob(blob) => push_long(bytes, 4, blob),
    }
}

/// Length first, so that no two rows run together to the same bytes.
fn push_long(bytes: &mut Vec<u8>, class: u8, value: &[u8]) {
    bytes.push(class);
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    if value.len() <= INLINE_BYTES_MAX {
        bytes.extend_from_slice(value);
    } else {
        bytes.extend_from_slice(&XxHash3_128::oneshot(value).to_le_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    /// Of `VALUES ...`, in both ways.
    fn digest(values: &str) -> Digest {
        let connection = Connection::open_in_memory().unwrap();
        let from = format!("(VALUES {values})");
        let columns = connection.prepare(&format!("SELECT * FROM {from}")).unwrap().column_count();
        let columns: Vec<String> = (1..=columns).map(|at| format!("column{at}")).collect();
        let progress = Arc::default();
        let digest = of_rows(&connection, &columns, &from, &progress).unwrap();
        assert_eq!(digest, one_by_one(&connection, &columns, &from, &progress).unwrap());
        digest
    }

    #[test]
    fn no_row_and_more_columns_than_a_function_takes_are_digested_too() {
        let connection = Connection::open_in_memory().unwrap();
        let progress = Arc::default();
        let none = of_rows(&connection, &["1".into()], "(SELECT 1) WHERE 0", &progress).unwrap();
        assert_eq!(none, Digest::default());
        let many: Vec<String> = (0..1500).map(|at| at.to_string()).collect();
        let digest = |columns: &[String]| of_rows(&connection, columns, "(SELECT 1)", &progress).unwrap();
        assert_eq!(digest(&many), digest(&many));
        assert_ne!(digest(&many), digest(&many[..1499]));
        assert_eq!(
            digest(&many[..900]),
            one_by_one(&connection, &many[..900], "(SELECT 1)", &progress).unwrap()
        );
    }

    #[test]
    fn the_order_of_rows_means_nothing_and_their_number_does() {
        assert_eq!(digest("(1, 'a'), (2, 'b'), (3, NULL)"), digest("(3, NULL), (1, 'a'), (2, 'b')"));
        assert_ne!(digest("(1), (1)"), digest("(1)"));
        assert_ne!(digest("(1), (1)"), digest("(2), (2)"));
        assert_ne!(digest("(NULL)"), digest("(NULL), (NULL)"));
    }

    #[test]
    fn a_value_in_another_storage_class_is_another_value() {
        let values = [
            "(1)",
            "(1.0)",
            "('1')",
            "(x'31')",
            "(NULL)",
            "('')",
            "(x'')",
            "(0)",
            "(-0.0)",
            "('1' || char(0))",
        ];
        for (at, one) in values.iter().enumerate() {
            for other in &values[..at] {
                assert_ne!(digest(one), digest(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn values_do_not_run_into_their_neighbours() {
        assert_ne!(digest("('ab', 'c')"), digest("('a', 'bc')"));
        assert_ne!(digest("(x'00', NULL)"), digest("(NULL, x'00')"));
        assert_ne!(digest("(1, 2), (3, 4)"), digest("(1, 4), (3, 2)"));
    }

    #[test]
    fn one_bit_of_a_long_value_counts() {
        let long = |last: &str| digest(&format!("(hex(zeroblob(100000)) || '{last}')"));
        assert_eq!(long("a"), long("a"));
        assert_ne!(long("a"), long("b"));
    }
}

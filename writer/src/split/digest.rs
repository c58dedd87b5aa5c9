//! A digest of a table's rows that does not depend on their order.
//!
//! Every row becomes bytes that tell values and storage classes apart, the bytes a 128-bit hash, and the hashes a sum:
//! a row more, a row less, or one bit changed anywhere gives another sum.

use std::fmt;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde::{Serialize, Serializer};
use twox_hash::XxHash3_128;

use super::progress::Progress;
use crate::Error;

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

/// Digests what a query returns.
pub(super) fn of_query(connection: &Connection, sql: &str, progress: &Progress) -> Result<Digest, Error> {
    let place = place(connection);
    let failed = || Error::sqlite("digest a table of", &place);
    let mut statement = connection.prepare(sql).map_err(failed())?;
    let columns = statement.column_count();
    let mut rows = statement.query([]).map_err(failed())?;
    let (mut digest, mut bytes) = (Digest::default(), Vec::new());
    let mut told = 0;
    while let Some(row) = rows.next().map_err(failed())? {
        digest.add(of_row(row, 0..columns, &mut bytes).map_err(failed())?);
        if digest.rows - told == ROWS_PER_LOOK {
            told = digest.rows;
            progress.add_rows(ROWS_PER_LOOK);
            progress.check()?;
        }
    }
    progress.add_rows(digest.rows - told);
    Ok(digest)
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
        match row.get_ref(column)? {
            ValueRef::Null => bytes.push(0),
            ValueRef::Integer(integer) => {
                bytes.push(1);
                bytes.extend_from_slice(&integer.to_le_bytes());
            }
            ValueRef::Real(real) => {
                bytes.push(2);
                bytes.extend_from_slice(&real.to_bits().to_le_bytes());
            }
            ValueRef::Text(text) => push(bytes, 3, text),
            ValueRef::Blob(blob) => push(bytes, 4, blob),
        }
    }
    Ok(XxHash3_128::oneshot(bytes))
}

/// Length first, so that no two rows run together to the same bytes.
fn push(bytes: &mut Vec<u8>, class: u8, value: &[u8]) {
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

    fn digest(values: &str) -> Digest {
        let connection = Connection::open_in_memory().unwrap();
        of_query(&connection, &format!("VALUES {values}"), &Progress::default()).unwrap()
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

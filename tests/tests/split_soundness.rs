//! Old data that breaks the rules of its own schema, or is damaged, is refused by the name of its table.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

mod split_common;

use std::sync::Arc;

use penholder::split::{Progress, Side, check};
use rusqlite::Connection;

use crate::split_common::{Legacy, refusal, split_ok};

/// A sound table beside one that is not.
fn legacy(sql: &str, forged: &str) -> Legacy {
    let legacy = Legacy::new(&format!("CREATE TABLE fine(a); INSERT INTO fine VALUES (1); {sql}"));
    let connection = Connection::open(legacy.path()).unwrap();
    connection.execute_batch(&format!("PRAGMA writable_schema = ON; {forged}")).unwrap();
    legacy
}

/// Refused with these words; left behind, the table stands in nobody's way.
fn is_refused(legacy: &Legacy, table: &str, words: &[&str]) {
    let mut request = legacy.request(&[]);
    let message = refusal(&request);
    for word in words {
        assert!(message.contains(word), "no {word} in {message}");
    }
    assert!(message.contains(&format!("table {table} is not sound in the old database")), "{message}");
    assert!(!message.contains("fine"), "{message}");
    assert!(!legacy.store().exists(), "something was left behind");
    request.choices.flags.retain(|(name, _)| name != table);
    request.choices.flags.push((table.into(), Side::Drop));
    assert_eq!(check(&request, &Arc::<Progress>::default()).unwrap().refusals, [""; 0]);
    split_ok(&request);
}

#[test]
fn a_row_that_breaks_a_constraint_is_found_before_anything_is_written() {
    let check = legacy(
        "CREATE TABLE k(x CHECK (x > 0)); PRAGMA ignore_check_constraints = 1; INSERT INTO k VALUES (-1)",
        "",
    );
    is_refused(&check, "k", &["1 row breaks CHECK (x > 0)", "correct these rows", "nothing was written"]);
    let null = legacy(
        "CREATE TABLE n(x); INSERT INTO n VALUES (NULL), (1), (NULL), (NULL), (NULL)",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE n(x NOT NULL)' WHERE name = 'n'",
    );
    is_refused(&null, "n", &["NULL value in n.x", "and 1 more", "nothing was written"]);
    let strict = legacy(
        "CREATE TABLE s(x); INSERT INTO s VALUES ('text')",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE s(x INT) STRICT' WHERE name = 's'",
    );
    is_refused(&strict, "s", &["value in s.x", "correct these rows", "nothing was written"]);
    let affinity = legacy(
        "CREATE TABLE f(x); INSERT INTO f VALUES ('12')",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE f(x INT)' WHERE name = 'f'",
    );
    is_refused(&affinity, "f", &["TEXT value in f.x", "nothing was written"]);
}

#[test]
fn a_double_under_a_unique_index_is_told_of_the_old_data_and_not_of_the_copy() {
    let legacy = legacy(
        "CREATE TABLE u(x, y); CREATE INDEX i ON u(x); INSERT INTO u VALUES (1, 2), (1, 3)",
        "UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX i ON u(x)' WHERE name = 'i'",
    );
    is_refused(&legacy, "u", &["non-unique entry in index i", "remove the doubles"]);
}

#[test]
fn an_index_that_does_not_fit_its_table_is_told_with_what_mends_it() {
    let legacy =
        legacy("CREATE TABLE a(x); CREATE INDEX i ON a(x); INSERT INTO a VALUES ('needle'), ('other')", "");
    let mut bytes = std::fs::read(legacy.path()).unwrap();
    // The table's page comes before the index's: the row changes, the entry does not.
    let at = bytes.windows(6).position(|window| window == b"needle").unwrap();
    bytes[at] = b'N';
    std::fs::write(legacy.path(), bytes).unwrap();
    is_refused(&legacy, "a", &["missing from index i", "REINDEX \"a\""]);
}

#[test]
fn damaged_pages_are_told_by_the_table_that_they_belong_to() {
    let legacy = legacy(
        "CREATE TABLE d(id INTEGER PRIMARY KEY, x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO d SELECT i, printf('row %d of the damaged', i) FROM n",
        "",
    );
    let mut bytes = std::fs::read(legacy.path()).unwrap();
    let at = bytes.windows(11).position(|window| window == b"row 2500 of").unwrap() / 4096 * 4096;
    bytes[at..at + 4096].fill(0xa5);
    std::fs::write(legacy.path(), bytes).unwrap();
    let message = refusal(&legacy.request(&[]));
    for word in ["table d is not sound", "legacy.db", "sqlite3 FILE .recover", "nothing was written"] {
        assert!(message.contains(word), "no {word} in {message}");
    }
    assert!(!message.contains("table fine") && !legacy.store().exists(), "{message}");
}

#[test]
fn a_name_that_is_no_text_is_refused_by_name() {
    let legacy = legacy(
        "CREATE TABLE odd(x)",
        "UPDATE sqlite_schema SET name = CAST(x'6f64ff' AS TEXT), tbl_name = CAST(x'6f64ff' AS TEXT), sql = CAST(x'435245415445205441424c45206f64ff287829' AS TEXT) WHERE name = 'odd'",
    );
    let mut request = Legacy::new("CREATE TABLE fine(a)").request(&[]);
    (request.source, request.store) = (legacy.path(), legacy.store());
    let message = refusal(&request);
    assert!(message.contains("table od\u{fffd} in") && message.contains("is not UTF-8"), "{message}");
    assert!(!message.contains(".db.db"), "{message}");
}

//! Everything that an SQLite database can hold arrives as it was, or is refused by name before anything is written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

mod split_common;

use rusqlite::Connection;

use crate::split_common::{Legacy, Maker, open, refusal};

/// Splits the same database made by every SQLite that is there, and compares all rows, their rowids, the texts of the
/// schema and what the header says.
fn arrives(sql: &str) -> Vec<Legacy> {
    let split = |maker| {
        let legacy = Legacy::made_by(maker, sql);
        let report = legacy.split(&legacy.request(&[]));
        assert_eq!(report.left_behind.len(), 0, "{:?}", report.left_behind);
        same_schema(&legacy);
        legacy
    };
    Maker::all().into_iter().map(split).collect()
}

/// Every text of the old schema is in the new one, letter by letter.
fn same_schema(legacy: &Legacy) {
    let texts = |connection: &Connection| {
        let sql = "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || sql FROM sqlite_schema
                   WHERE sql IS NOT NULL AND tbl_name NOT LIKE '\\_penholder\\_%' ESCAPE '\\' ORDER BY 1";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(texts(&legacy.open()), texts(&open(&legacy.store().join("activity.db"))));
}

/// Values of every storage class, at their limits, whatever the column was declared as.
const VALUES: &str = "
    CREATE TABLE v(i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC, x);
    INSERT INTO v VALUES
        (9223372036854775807, 1e308, 'ä€😀', x'00ff00', 1.5, NULL),
        (-9223372036854775808, -1e308, '', x'', -0.0, 5e-324),
        ('text in an integer column', 'and in a real one', 7, 7, 'n', 7),
        (9e999, -9e999, 9e999, 9e999, 9e999, 9e999),
        (9e999 - 9e999, NULL, NULL, NULL, NULL, 9e999 - 9e999),
        (1.5, 3, x'00', 'a' || char(0) || 'b', '12', char(0)),
        (4503599627370497.5, 9007199254740993, '1', x'31', 1e0, 1.0);
    DELETE FROM v WHERE rowid = 2;
    INSERT INTO v(rowid, i) VALUES (-9223372036854775808, 1), (9223372036854775807, 2);";

#[test]
fn every_value_keeps_its_storage_class_and_its_bits() {
    for legacy in arrives(VALUES) {
        let new = open(&legacy.store().join("activity.db"));
        let classes = "SELECT group_concat(typeof(i) || ' ' || typeof(r) || ' ' || typeof(t)) FROM v WHERE rowid IN (3, 5)";
        let classes: String = new.query_row(classes, [], |row| row.get(0)).unwrap();
        assert_eq!(classes, "text text text,null null null");
    }
}

#[test]
fn every_encoding_and_page_size_is_kept() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        for page_size in [512, 1024, 4096, 65536] {
            arrives(&format!("PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page_size}; {VALUES}"));
        }
    }
}

#[test]
fn what_the_header_says_is_kept() {
    for auto_vacuum in ["NONE", "FULL", "INCREMENTAL"] {
        arrives(&format!(
            "PRAGMA auto_vacuum = {auto_vacuum}; PRAGMA user_version = -7; PRAGMA application_id = 2147483647; {VALUES}"
        ));
    }
}

#[test]
fn tables_of_every_kind_arrive() {
    arrives(
        "CREATE TABLE wr(a TEXT COLLATE NOCASE, b, c REAL, PRIMARY KEY (b DESC, a)) WITHOUT ROWID;
         INSERT INTO wr VALUES ('x', 1, 1), ('Y', x'00', 2.5), ('z', 'k', NULL);
         CREATE TABLE st(a INTEGER PRIMARY KEY, b ANY, c TEXT, d BLOB, e REAL, f INT) STRICT;
         INSERT INTO st VALUES (1, '007', 'x', x'00', 1, 2), (5, 7, NULL, NULL, NULL, NULL);
         CREATE TABLE desc_key(a INTEGER PRIMARY KEY DESC, b);
         INSERT INTO desc_key VALUES (7, 'x'), (NULL, 'y');
         CREATE TABLE int_key(a INT PRIMARY KEY, b UNIQUE); INSERT INTO int_key VALUES (7, 'x'), (NULL, 'y');
         CREATE TABLE empty(a, b);
         CREATE TABLE \"we ird\"\"name\"(\"a b\", [c d], `e\"f`, 'g', \"select\");
         INSERT INTO \"we ird\"\"name\" VALUES (1, 2, 3, 4, 5);
         CREATE TABLE größe(länge); INSERT INTO größe VALUES ('ü');
         CREATE TABLE hidden(rowid, oid, _rowid_); INSERT INTO hidden VALUES (5, 6, 7), (5, 6, 7);
         CREATE TABLE half(rowid TEXT, b); INSERT INTO half VALUES ('x', 1), ('y', 2); DELETE FROM half WHERE b = 1;
         CREATE TABLE quoted(a DEFAULT \"text\", b CHECK (b <> \"never\")); INSERT INTO quoted(b) VALUES (1);",
    );
}

#[test]
fn rowids_are_kept_where_nothing_but_a_query_for_them_shows_them() {
    arrives(
        "CREATE TABLE bare(a TEXT); INSERT INTO bare VALUES ('a'), ('b'), ('c'), ('d'); DELETE FROM bare WHERE rowid IN (1, 3);
         CREATE TABLE whole(a); INSERT INTO whole VALUES ('a'), ('b');
         CREATE TABLE negative(a); INSERT INTO negative(rowid, a) VALUES (-5, 'x'), (0, 'y'), (9, 'z');
         CREATE TABLE indexed(a); CREATE INDEX i ON indexed(a); INSERT INTO indexed(rowid, a) VALUES (7, 1), (9, 2);",
    );
}

#[test]
fn generated_columns_arrive() {
    let legacies = arrives(
        "CREATE TABLE g(a INTEGER PRIMARY KEY, b, c AS (b * 2) STORED, d TEXT AS (b || 'x') VIRTUAL, UNIQUE (b), UNIQUE (d));
         INSERT INTO g(b) VALUES (3), (4), (NULL);
         CREATE TABLE h(b, c AS (b + 1)); INSERT INTO h(b) VALUES (1), (2), (3); DELETE FROM h WHERE b = 2;
         CREATE INDEX on_generated ON h(c);",
    );
    for legacy in legacies {
        let new = open(&legacy.store().join("activity.db"));
        let sum: i64 = new.query_row("SELECT sum(c) FROM g", [], |row| row.get(0)).unwrap();
        assert_eq!(sum, 14);
    }
}

#[test]
fn autoincrement_goes_on_where_it_was() {
    let legacies = arrives(
        "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, x); INSERT INTO a(x) VALUES (1), (2), (3); DELETE FROM a WHERE id = 3;
         CREATE TABLE emptied(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO emptied VALUES (41); DELETE FROM emptied;
         CREATE TABLE unused(id INTEGER PRIMARY KEY AUTOINCREMENT);",
    );
    for legacy in legacies {
        let new = open(&legacy.store().join("activity.db"));
        let sequence =
            "SELECT group_concat(name || seq, ' ') FROM (SELECT * FROM sqlite_sequence ORDER BY name)";
        let sequence: String = new.query_row(sequence, [], |row| row.get(0)).unwrap();
        assert_eq!(sequence, "a3 emptied41");
    }
}

#[test]
fn each_side_gets_the_counters_and_statistics_of_its_own_tables() {
    let legacy = Legacy::new(
        "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, x); INSERT INTO a(x) VALUES (1), (2);
         CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, x); INSERT INTO c(x) VALUES (1);
         CREATE INDEX ai ON a(x); CREATE INDEX ci ON c(x); ANALYZE;",
    );
    legacy.split(&legacy.request(&["c"]));
    for (side, table, sequence) in [("activity", "a", 2), ("config", "c", 1)] {
        let new = open(&legacy.store().join(format!("{side}.db")));
        let one = |sql: &str| {
            new.query_row(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))).unwrap()
        };
        assert_eq!(one("SELECT max(name), max(seq) FROM sqlite_sequence"), (table.into(), sequence));
        assert_eq!(one("SELECT max(tbl), count(*) FROM sqlite_stat1"), (table.into(), 1));
    }
}

#[test]
fn indexes_of_every_kind_arrive() {
    arrives(
        "CREATE TABLE t(a, b TEXT COLLATE RTRIM, c); INSERT INTO t VALUES (1, 'x ', 'Y'), (NULL, 'X', 'y'), (-1, NULL, 3);
         CREATE INDEX part ON t(a) WHERE a > 0; CREATE INDEX expr ON t(lower(c), a + 1); CREATE INDEX down ON t(a DESC, b);
         CREATE UNIQUE INDEX coll ON t(c COLLATE NOCASE) WHERE a IS NOT NULL; CREATE INDEX \"od d\" ON t(c COLLATE BINARY);",
    );
}

#[test]
fn views_and_triggers_of_one_side_arrive_and_work() {
    let sql = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE log(what);
         CREATE VIEW big AS SELECT * FROM t WHERE b > 1; CREATE VIEW of_view(n) AS SELECT count(*) FROM big;
         CREATE VIEW constant AS SELECT 1 AS one;
         CREATE TRIGGER note AFTER INSERT ON t WHEN new.b > 0 BEGIN INSERT INTO log VALUES ('t' || new.a); END;
         CREATE TRIGGER through INSTEAD OF INSERT ON big BEGIN INSERT INTO t(b) VALUES (new.b); END;
         CREATE TRIGGER some_columns AFTER UPDATE OF b ON t BEGIN DELETE FROM log; END;
         INSERT INTO t VALUES (1, 1), (2, 2);";
    for maker in Maker::all() {
        let legacy = Legacy::made_by(maker, sql);
        let report = legacy.split(&legacy.request(&[]));
        assert_eq!(report.left_behind.len(), 0, "{:?}", report.left_behind);
        assert!(legacy.text("config", "constant").is_some(), "a view of nothing goes to config");
        let new = Connection::open(legacy.store().join("activity.db")).unwrap();
        new.execute("INSERT INTO big(b) VALUES (9)", []).unwrap();
        let seen: String = new
            .query_row("SELECT n || (SELECT group_concat(what) FROM log) FROM of_view", [], |row| row.get(0))
            .unwrap();
        assert_eq!(seen, "2t1,t2,t3");
    }
}

#[test]
fn full_text_and_spatial_tables_arrive_and_can_be_searched() {
    let legacies = arrives(
        "CREATE VIRTUAL TABLE ft USING fts5(title, body, tokenize = 'porter');
         INSERT INTO ft VALUES ('one', 'running horses'), ('two', 'a horse ran'); DELETE FROM ft WHERE title = 'one';
         CREATE TABLE doc(id INTEGER PRIMARY KEY, text); INSERT INTO doc VALUES (3, 'external words');
         CREATE VIRTUAL TABLE ext USING fts5(text, content = 'doc', content_rowid = 'id');
         INSERT INTO ext(rowid, text) SELECT id, text FROM doc;
         CREATE VIRTUAL TABLE contentless USING fts5(a, content = ''); INSERT INTO contentless(rowid, a) VALUES (1, 'gone');
         CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, y0, y1, +label);
         INSERT INTO box VALUES (1, 0, 1, 0, 1, 'near'), (2, 5, 6, 5, 6, 'far');",
    );
    for legacy in legacies {
        let new = open(&legacy.store().join("activity.db"));
        let one = |sql: &str| new.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(one("SELECT title FROM ft WHERE ft MATCH 'horse'"), "two");
        assert_eq!(one("SELECT text FROM ext WHERE ext MATCH 'words'"), "external words");
        assert_eq!(one("SELECT label FROM box WHERE x0 > 4"), "far");
        assert_eq!(one("SELECT rowid || '' FROM contentless WHERE contentless MATCH 'gone'"), "1");
    }
}

#[test]
fn what_this_sqlite_cannot_work_with_is_refused_by_name() {
    let legacy = Legacy::new("CREATE TABLE fine(a);");
    let forge = |sql: &str| {
        let connection = Connection::open(legacy.path()).unwrap();
        connection.execute_batch(&format!("PRAGMA writable_schema = ON; {sql}")).unwrap();
    };
    forge(
        "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES
            ('table', 'geo', 'geo', 0, 'CREATE VIRTUAL TABLE geo USING spellfix1');",
    );
    let message = refusal(&legacy.request(&[]));
    assert!(message.contains("geo") && message.contains("no such module: spellfix1"), "{message}");
    forge("DELETE FROM sqlite_schema WHERE name = 'geo'");
    forge("CREATE TABLE names(n TEXT); CREATE INDEX by_name ON names(n);");
    forge(
        "UPDATE sqlite_schema SET sql = 'CREATE INDEX by_name ON names(n COLLATE swedish)' WHERE name = 'by_name'",
    );
    let message = refusal(&legacy.request(&[]));
    assert!(message.contains("by_name") && message.contains("swedish"), "{message}");
}

#[test]
fn a_row_that_the_writer_could_not_read_is_refused_by_name() {
    let legacy = Legacy::new(
        "CREATE TABLE small(a); CREATE TABLE huge(a); INSERT INTO huge VALUES (zeroblob(17000000));",
    );
    let mut request = legacy.request(&[]);
    let message = refusal(&request);
    assert!(message.contains("huge") && message.contains("--drop huge"), "{message}");
    request.choices.flags.retain(|(table, _)| table != "huge");
    request.choices.flags.push(("huge".into(), penholder::split::Side::Drop));
    legacy.split(&request);
}

#[test]
fn a_database_of_a_store_is_not_split_again() {
    let legacy = Legacy::new("CREATE TABLE t(a);");
    legacy.split(&legacy.request(&[]));
    std::fs::copy(legacy.store().join("activity.db"), legacy.directory.path().join("again.db")).unwrap();
    let again = Legacy::new("CREATE TABLE t(a);");
    std::fs::rename(legacy.directory.path().join("again.db"), again.path()).unwrap();
    let mut request = again.request(&[]);
    request.choices.flags = vec![("t".into(), penholder::split::Side::Activity)];
    assert!(refusal(&request).contains("_penholder_meta"));
}

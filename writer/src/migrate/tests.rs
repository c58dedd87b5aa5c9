#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::*;

/// A database, and the directory that it goes away with.
struct Database {
    connection: Connection,
    _directory: tempfile::TempDir,
}

impl std::ops::Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// A database as the writer opens it, as far as migrations care.
fn database() -> Database {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("a.db")).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    let table = "CREATE TABLE _penholder_migration(number INTEGER PRIMARY KEY, name TEXT NOT NULL,
                 checksum INTEGER NOT NULL, tick INTEGER NOT NULL)";
    connection.execute_batch(table).unwrap();
    Database { connection, _directory: directory }
}

/// A directory with migrations of the database `a`.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("a")).unwrap();
    for (name, sql) in files {
        fs::write(directory.path().join("a").join(name), sql).unwrap();
    }
    directory
}

fn apply_from(connection: &Connection, directory: &tempfile::TempDir) -> Result<usize, Error> {
    apply(connection, "a", &Schema::Directory(directory.path().into()), Tick(7))
}

/// The message with which the migrations are refused; nothing may be left of them.
fn refusal(connection: &Connection, files: &[(&str, &str)]) -> String {
    let before = contents(connection);
    let error = apply_from(connection, &directory(files)).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(contents(connection), before);
    assert!(connection.is_autocommit());
    error.to_string()
}

fn contents(connection: &Connection) -> (Vec<String>, i64) {
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let count =
        connection.query_row("SELECT count(*) FROM _penholder_migration", [], |row| row.get(0)).unwrap();
    (names, count)
}

#[test]
fn each_migration_is_applied_once_in_order_and_recorded_with_its_tick() {
    let (connection, files) = (database(), directory(&[("001_t.sql", "CREATE TABLE t(x);")]));
    assert_eq!(apply_from(&connection, &files).unwrap(), 1);
    assert_eq!(apply_from(&connection, &files).unwrap(), 0);
    fs::write(files.path().join("a/002_u.sql"), "ALTER TABLE t ADD y; INSERT INTO t VALUES (1, 2);").unwrap();
    fs::write(files.path().join("a/003_v.sql"), "-- nothing but a comment").unwrap();
    assert_eq!(apply_from(&connection, &files).unwrap(), 2);
    let last = connection
        .query_row("SELECT name, tick FROM _penholder_migration WHERE number = 3", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })
        .unwrap();
    assert_eq!(last, ("v".to_owned(), 7));
}

#[test]
fn the_built_in_schema_makes_its_tables_and_is_applied_once() {
    for name in ["config", "activity"] {
        let connection = database();
        assert!(apply(&connection, name, &Schema::Builtin, Tick(1)).unwrap() > 0);
        assert_eq!(apply(&connection, name, &Schema::Builtin, Tick(2)).unwrap(), 0);
        assert!(contents(&connection).0.len() > 3);
    }
    assert_eq!(apply(&database(), "other", &Schema::Builtin, Tick(1)).unwrap(), 0);
}

#[test]
fn a_store_of_a_custom_schema_takes_nothing_without_it() {
    let connection = database();
    apply_from(&connection, &directory(&[("001_t.sql", "CREATE TABLE t(x)")])).unwrap();
    assert_eq!(apply(&connection, "a", &Schema::None, Tick(8)).unwrap(), 0);
}

#[test]
fn a_migration_that_fails_leaves_nothing_and_says_where() {
    let connection = database();
    let text = refusal(&connection, &[("001_t.sql", "CREATE TABLE t(x);\n\nCREATE TABLE u(\n  x,, y);")]);
    assert!(text.contains("a/001_t.sql: line 4: near"), "{text}");
    let text = refusal(
        &connection,
        &[("001_t.sql", "CREATE TABLE t(x CHECK (x > 0));\n-- why\nINSERT INTO t VALUES (0)")],
    );
    assert!(
        text.contains("CHECK constraint failed") && text.contains("`INSERT INTO t VALUES (0)`"),
        "{text}"
    );
    let text = refusal(&connection, &[("001_t.sql", "CREATE TABLE t(x); INSERT INTO t VALUES (?1)")]);
    assert!(text.contains("001_t.sql"), "{text}");
}

#[test]
fn a_text_that_ends_its_transaction_is_refused_and_leaves_nothing() {
    for end in ["COMMIT", "END TRANSACTION", "/* x */ rollback", ";;commit", "SAVEPOINT s", "BEGIN", "VACUUM"]
    {
        let sql = format!("CREATE TABLE t(x); {end}; CREATE TABLE u(x)");
        assert!(refusal(&database(), &[("001_t.sql", &sql)]).contains("one transaction"), "{end}");
    }
    let sql =
        "CREATE TABLE t(x UNIQUE ON CONFLICT ROLLBACK); INSERT INTO t VALUES (1), (1); CREATE TABLE u(x)";
    refusal(&database(), &[("001_t.sql", sql)]);
}

#[test]
fn a_pragma_that_would_change_the_writer_is_refused() {
    let text = refusal(&database(), &[("001_t.sql", "PRAGMA locking_mode = exclusive; CREATE TABLE t(x)")]);
    assert!(text.contains("LOCKING_MODE"), "{text}");
}

#[test]
fn earlier_migrations_stay_when_a_later_one_fails() {
    let connection = database();
    let files = directory(&[("001_t.sql", "CREATE TABLE t(x)"), ("002_u.sql", "CREATE TABLE t(x)")]);
    let text = apply_from(&connection, &files).unwrap_err().to_string();
    assert!(text.contains("002_u.sql") && text.contains("already exists"), "{text}");
    assert_eq!(contents(&connection).1, 1);
    fs::write(files.path().join("a/002_u.sql"), "CREATE TABLE u(x)").unwrap();
    assert_eq!(apply_from(&connection, &files).unwrap(), 1);
}

#[test]
fn a_table_that_others_refer_to_may_be_rebuilt() {
    let connection = database();
    let first = "CREATE TABLE p(id INTEGER PRIMARY KEY, n);
                 CREATE TABLE c(p REFERENCES p(id) ON DELETE CASCADE);
                 INSERT INTO p VALUES (1, 2); INSERT INTO c VALUES (1);";
    let rebuild = "CREATE TABLE p2(id INTEGER PRIMARY KEY, n NOT NULL); INSERT INTO p2 SELECT * FROM p;
                   DROP TABLE p; ALTER TABLE p2 RENAME TO p;";
    let files = directory(&[("001_t.sql", first), ("002_rebuild.sql", rebuild)]);
    assert_eq!(apply_from(&connection, &files).unwrap(), 2);
    assert_eq!(connection.query_row("SELECT count(*) FROM c", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    let enforced: bool = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).unwrap();
    assert!(enforced, "foreign keys must be enforced again");
}

#[test]
fn a_migration_that_breaks_a_foreign_key_is_refused() {
    let sql = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id)); INSERT INTO c VALUES (1)";
    let connection = database();
    let text = refusal(&connection, &[("001_t.sql", sql)]);
    assert!(text.contains("rows in c that refer to rows that p"), "{text}");
    let enforced: bool = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).unwrap();
    assert!(enforced, "foreign keys must be enforced again");
}

#[test]
fn a_text_longer_than_a_statement_may_be_is_applied() {
    let connection = database();
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, 10_000).unwrap();
    let mut sql = String::from("CREATE TABLE t(x);\n");
    for number in 0..2_000 {
        writeln!(sql, "INSERT INTO t VALUES ({number});").unwrap();
    }
    assert_eq!(apply_from(&connection, &directory(&[("001_t.sql", &sql)])).unwrap(), 1);
    assert_eq!(connection.limit(Limit::SQLITE_LIMIT_SQL_LENGTH).unwrap(), 10_000);
}

#[test]
fn a_changed_or_missing_text_of_an_applied_migration_is_refused() {
    let connection = database();
    apply_from(&connection, &directory(&[("001_t.sql", "CREATE TABLE t(x)")])).unwrap();
    let text = refusal(&connection, &[("001_t.sql", "CREATE TABLE t(x, y)")]);
    assert!(text.contains("001_t.sql was changed after") && text.contains("next migration"), "{text}");
    let text = refusal(&connection, &[]);
    assert!(text.contains("a.db has migration 001_t"), "{text}");
    let builtin = apply(&connection, "a", &Schema::Builtin, Tick(1)).unwrap_err().to_string();
    assert!(builtin.contains("--schema"), "{builtin}");
}

#[test]
fn a_record_that_lacks_an_earlier_migration_is_refused() {
    let connection = database();
    let files = [("001_t.sql", "CREATE TABLE t(x)"), ("002_u.sql", "CREATE TABLE u(x)")];
    apply_from(&connection, &directory(&files)).unwrap();
    connection.execute("DELETE FROM _penholder_migration WHERE number = 1", []).unwrap();
    let text = refusal(&connection, &files);
    assert!(text.contains("has migration 002 and lacks") && text.contains("001_t.sql"), "{text}");
}

#[test]
fn numbers_with_gaps_or_twice_and_bad_names_are_refused() {
    let connection = database();
    let text = refusal(&connection, &[("001_a.sql", ""), ("003_c.sql", "")]);
    assert!(text.contains("002 is missing before") && text.contains("003_c.sql"), "{text}");
    let text = refusal(&connection, &[("001_a.sql", ""), ("001_b.sql", "")]);
    assert!(text.contains("001_b.sql"), "{text}");
    assert!(refusal(&connection, &[("1_a.sql", "")]).contains("1_a.sql"));
    assert!(refusal(&connection, &[("001_a.txt", "")]).contains("001_a.txt"));
    apply_from(&connection, &directory(&[("001_a.sql", ""), (".001_a.sql.swp", "")])).unwrap();
}

#[test]
fn a_directory_is_checked_against_the_list_of_databases() {
    let names = ["a".to_owned(), "b".to_owned()];
    let refusal = |directory: &Path| check_directory(directory, &names).unwrap_err().to_string();
    let files = directory(&[("001_t.sql", "CREATE TABLE t(x)")]);
    check_directory(files.path(), &names).unwrap();
    fs::create_dir(files.path().join("c")).unwrap();
    assert!(refusal(files.path()).contains("/c is no database"));
    fs::remove_dir(files.path().join("c")).unwrap();
    fs::write(files.path().join("README.md"), "notes").unwrap();
    check_directory(files.path(), &names).unwrap();
    fs::write(files.path().join("001_x.sql"), "").unwrap();
    assert!(refusal(files.path()).contains("belongs to no database"));
    assert!(refusal(directory(&[]).path()).contains("no migrations"));
    assert!(refusal(&files.path().join("missing")).contains("missing"));
    let nowhere = Schema::Directory(files.path().join("missing"));
    assert!(matches!(apply(&database(), "a", &nowhere, Tick(1)), Err(Error::Refused { .. })));
}

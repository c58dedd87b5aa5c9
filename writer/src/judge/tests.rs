//! Tests of the judge, one way to get around it after the other.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use rusqlite::Connection;

use super::*;
use crate::Config;

/// Every kind of thing by which a schema does more than a statement says.
pub(super) const SCHEMA: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, x, y);
    CREATE TABLE b (id INTEGER PRIMARY KEY, x REFERENCES a (id) ON DELETE CASCADE ON UPDATE CASCADE, y);
    CREATE TABLE c (id INTEGER PRIMARY KEY, x UNIQUE ON CONFLICT REPLACE, y);
    CREATE TABLE d (id INTEGER PRIMARY KEY, x, y);
    CREATE TABLE e (id PRIMARY KEY, x UNIQUE, y, z GENERATED ALWAYS AS (x || y)) WITHOUT ROWID;
    CREATE INDEX e_by_y ON e (y) WHERE y > 0;
    CREATE VIEW v (id, x, y) AS SELECT id, x, y FROM a;
    CREATE TRIGGER on_d AFTER INSERT ON d BEGIN INSERT INTO e (id, x) SELECT new.id, max(x) FROM a; END;
    CREATE TRIGGER on_v INSTEAD OF INSERT ON v BEGIN INSERT INTO a (x) VALUES (new.x); END;
    CREATE TRIGGER off_v INSTEAD OF DELETE ON v BEGIN DELETE FROM a WHERE id = old.id; END;
    CREATE TRIGGER in_v INSTEAD OF UPDATE ON v BEGIN UPDATE a SET x = new.x WHERE id = old.id; END;
    CREATE TABLE _penholder_rejected (stream, sequence);
    CREATE TABLE _penholder_meta (key, value);
";

/// A database with the schema, and a judge for one client whose role has the given verbs.
pub(super) fn judge(schema: &str, verbs: &[(&str, &str)]) -> (Connection, Judge, Roles) {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema).unwrap();
    let mut config = Config::new("store");
    let tables = config.roles.entry("clerk".into()).or_default();
    for (table, verbs) in verbs {
        tables.insert(format!("activity.{table}"), verbs.split_whitespace().map(str::to_owned).collect());
    }
    config.grants.insert("user:4711".into(), "clerk".into());
    let grants = Grants::look_up(&config, 0).unwrap();
    let judge = Judge::new("activity", &connection, &grants).unwrap();
    (connection, judge, grants.roles_of(4711))
}

/// Why the statement is denied; empty if it is allowed. It must prepare on the database itself.
fn denial(verbs: &[(&str, &str)], sql: &str) -> String {
    let (connection, judge, roles) = judge(SCHEMA, verbs);
    connection.prepare(sql).unwrap();
    match judge.judge(sql, roles) {
        (Ok(()), None) => String::new(),
        (Err(_), Some(denied)) => denied,
        other => panic!("{sql}: {other:?}"),
    }
}

fn assert_allowed(verbs: &[(&str, &str)], sql: &str) {
    assert_eq!(denial(verbs, sql), "", "{sql}");
}

fn assert_lacks(verbs: &[(&str, &str)], sql: &str, verb: &str, table: &str) {
    assert_eq!(denial(verbs, sql), format!("role clerk has no {verb} on activity.{table}"), "{sql}");
}

#[test]
fn what_is_not_granted_is_denied() {
    for (sql, verb) in [
        ("SELECT x FROM a", "select"),
        ("SELECT count(*) FROM a", "select"),
        ("INSERT INTO a (x) VALUES (1)", "insert"),
        ("UPDATE a SET x = 1", "update"),
        ("DELETE FROM a", "delete"),
        ("WITH a (x) AS (SELECT x FROM main.a) SELECT x FROM a", "select"),
    ] {
        assert_lacks(&[], sql, verb, "a");
        assert_allowed(&[("a", verb)], sql);
        assert_allowed(&[("*", verb)], sql);
    }
}

#[test]
fn what_is_read_on_the_way_needs_select() {
    for sql in [
        "UPDATE a SET x = x + 1",
        "UPDATE a SET x = 1 WHERE id = 1",
        "DELETE FROM a WHERE x = 1",
        "INSERT INTO a (x) VALUES (1) RETURNING id",
        "INSERT INTO a (x) VALUES (1) RETURNING rowid",
        "INSERT INTO a (id, x) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET x = excluded.x",
    ] {
        assert_lacks(&[("a", "insert update delete")], sql, "select", "a");
        assert_allowed(&[("a", "insert update delete select")], sql);
    }
    for sql in [
        "INSERT INTO a (x) SELECT x FROM b",
        "INSERT INTO a (x) VALUES ((SELECT max(x) FROM b))",
        "INSERT INTO a (x) VALUES (1) RETURNING (SELECT max(x) FROM b)",
        "UPDATE a SET x = b.x FROM b",
        "DELETE FROM a WHERE EXISTS (SELECT 1 FROM b)",
        "WITH x AS (SELECT x FROM b) SELECT * FROM x",
    ] {
        assert_lacks(&[("a", "insert update delete select")], sql, "select", "b");
    }
    assert_allowed(&[("a", "insert")], "INSERT INTO a (x) VALUES (1) RETURNING 1");
}

#[test]
fn a_row_id_that_a_view_does_not_have_is_that_of_the_table_around_it() {
    assert_lacks(
        &[("v", "select"), ("a", "update")],
        "UPDATE a SET x = (SELECT rowid FROM v)",
        "select",
        "a",
    );
}

#[test]
fn what_the_schema_does_is_not_the_clients_doing() {
    assert_allowed(&[("a", "delete")], "DELETE FROM a");
    assert_allowed(&[("a", "update")], "UPDATE a SET id = 1");
    assert_allowed(&[("b", "insert")], "INSERT INTO b (x) VALUES (1)");
    assert_allowed(&[("d", "insert")], "INSERT INTO d (x) VALUES (1)");
    assert_allowed(&[("v", "select")], "SELECT x FROM v");
    assert_allowed(&[("v", "insert")], "INSERT INTO v (x) VALUES (1)");
    assert_allowed(&[("v", "select delete")], "DELETE FROM v WHERE x = 1");
    assert_allowed(&[("v", "select update")], "UPDATE v SET x = 2 WHERE x = 1");
}

#[test]
fn a_table_expression_does_not_borrow_the_name_of_a_view_or_trigger() {
    for name in ["v", "on_d", "_penholder_removal_c", "e_by_y", "c"] {
        let sql = format!("WITH {name} AS (SELECT x FROM a) SELECT x FROM {name}");
        assert_lacks(&[("v", "select"), ("c", "select delete")], &sql, "select", "a");
        let sql = format!("WITH {name} AS (SELECT x FROM a) SELECT count(*) FROM {name}");
        assert_lacks(&[("v", "select"), ("c", "select delete")], &sql, "select", "a");
    }
}

#[test]
fn replace_counts_as_delete() {
    let all_but_delete =
        [("a", "insert update select"), ("c", "insert update select"), ("e", "insert update select")];
    for (sql, table) in [
        ("REPLACE INTO a VALUES (1, 2, 3)", "a"),
        ("INSERT OR REPLACE INTO a (x) VALUES (1)", "a"),
        ("insert or/**/replace into a (x) select x from e", "a"),
        ("UPDATE OR REPLACE a SET id = 1", "a"),
        ("UPDATE OR REPLACE a SET x = 1", "a"),
        ("UPDATE OR REPLACE e SET y = 1", "e"),
        ("REPLACE INTO e (id, x) VALUES (1, 2)", "e"),
        ("INSERT INTO c (x) VALUES (1)", "c"),
        ("UPDATE c SET x = 1", "c"),
    ] {
        assert_lacks(&all_but_delete, sql, "delete", table);
        assert_allowed(
            &all_but_delete
                .map(|(table, verbs)| (table, [verbs, "delete"].join(" ")))
                .each_ref()
                .map(|(table, verbs)| (*table, verbs.as_str())),
            sql,
        );
    }
    for sql in [
        "INSERT OR IGNORE INTO c (x) VALUES (1)",
        "UPDATE c SET y = 1",
        "INSERT INTO a (x) VALUES (replace('a', 'b', 'c'))",
        "INSERT INTO e (id, x) VALUES (1, 2) ON CONFLICT DO UPDATE SET y = 3",
    ] {
        assert_allowed(&all_but_delete, sql);
    }
}

#[test]
fn replace_does_not_reach_through_a_trigger() {
    for sql in
        ["REPLACE INTO d (x) VALUES (1)", "UPDATE OR REPLACE d SET x = 1", "REPLACE INTO v (x) VALUES (1)"]
    {
        let denial = denial(&[("*", "insert update select delete")], sql);
        assert!(denial.contains("REPLACE") && denial.contains("triggers"), "{sql}: {denial}");
    }
    assert_allowed(&[("d", "delete")], "DELETE FROM d");
    assert_allowed(&[("v", "delete")], "DELETE FROM v");
}

#[test]
fn tables_that_are_not_the_users_need_a_grant_of_their_own() {
    let all = [("*", "select insert update delete")];
    for (table, column) in
        [("_penholder_rejected", "stream"), ("_penholder_meta", "key"), ("sqlite_schema", "sql")]
    {
        assert!(denial(&all, &format!("SELECT {column} FROM {table}")).contains("has no select"), "{table}");
        assert!(denial(&all, &format!("SELECT count(*) FROM {table}")).contains("has no select"), "{table}");
    }
    assert_allowed(
        &[("_penholder_rejected", "select delete")],
        "DELETE FROM _penholder_rejected WHERE sequence = 1",
    );
    for sql in [
        "SELECT * FROM pragma_table_list",
        "SELECT count(*) FROM pragma_table_list",
        "SELECT count(*) FROM dbstat",
    ] {
        let (_, judge, roles) = judge(SCHEMA, &all);
        assert!(judge.judge(sql, roles).1.is_some(), "{sql}");
    }
    assert_allowed(&[], "SELECT value FROM json_each('[1, 2]')");
    assert_allowed(&[], "SELECT count(*) FROM json_tree('[1, 2]')");
    assert_allowed(
        &[],
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT count(*) FROM n",
    );
}

#[test]
fn names_are_the_same_in_any_case_and_quotes() {
    assert_allowed(&[("A", "insert")], "INSERT INTO \"a\" (x) VALUES (1)");
    assert_lacks(&[], "SELECT count(*) FROM [A]", "select", "A");
}

#[test]
fn a_statement_that_is_wrong_is_not_called_denied() {
    let (_, judge, roles) = judge(SCHEMA, &[("a", "select")]);
    let (prepared, denied) = judge.judge("SELECT z FROM a", roles);
    assert!(denied.is_none() && prepared.unwrap_err().to_string().contains("no such column"));
    let (prepared, denied) = judge.judge("SELECT x FROM a; SELECT x FROM a", roles);
    assert!(denied.is_none() && prepared.is_err());
}

#[test]
fn virtual_tables_are_judged_by_their_own_name() {
    let schema = "CREATE VIRTUAL TABLE notes USING fts5(body); CREATE TABLE a (x);";
    let (connection, judge, roles) = judge(schema, &[("notes", "select insert")]);
    for (sql, allowed) in [
        ("SELECT body FROM notes WHERE notes MATCH 'x' ORDER BY rank", true),
        ("INSERT INTO notes (body) VALUES ('x')", false),
        ("SELECT id FROM notes_data", false),
    ] {
        connection.prepare(sql).unwrap();
        assert_eq!(judge.judge(sql, roles).1.is_none(), allowed, "{sql}");
    }
}

#[test]
fn several_roles_may_what_any_of_them_may() {
    let mut config = Config::new("store");
    for (role, verb) in [("reader", "select"), ("writer", "insert")] {
        config.roles.entry(role.into()).or_default().insert("activity.a".into(), vec![verb.into()]);
    }
    config.grants.extend([("user:4711".into(), "reader".into()), ("user:4712".into(), "writer".into())]);
    let grants = Grants::look_up(&config, 0).unwrap();
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    let judge = Judge::new("activity", &connection, &grants).unwrap();
    let both = grants.roles_of(4711).and(grants.roles_of(4712));
    assert_eq!(judge.judge("INSERT INTO a (x) VALUES (1) RETURNING x", both).1, None);
    let denied = judge.judge("DELETE FROM a", both).1;
    assert_eq!(denied.as_deref(), Some("roles reader and writer has no delete on activity.a"));
}

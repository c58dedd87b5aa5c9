//! Tests of the references as an operator declares them.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use super::*;

fn reference(from: &str, to: &str) -> Reference {
    Reference { from: from.into(), to: to.into(), on_delete: OnDelete::Restrict }
}

#[test]
fn a_reference_names_two_columns_and_goes_to_a_database_that_commits_before() {
    let databases = ["config".to_owned(), "activity".to_owned()];
    let (from, to) = reference("activity.a.b", "config.c.d").ends(&databases).unwrap();
    assert_eq!((from.to_string(), to.to_string()), ("activity.a.b".into(), "config.c.d".into()));
    for (from, to, said) in [
        ("activity.a", "config.c.d", "\"activity.a\" is not DATABASE.TABLE.COLUMN"),
        ("activity.a.b.c", "config.c.d", "is not DATABASE.TABLE.COLUMN"),
        ("activity..b", "config.c.d", "is not DATABASE.TABLE.COLUMN"),
        ("activ.a.b", "config.c.d", "there is no database \"activ\"; there are config, activity"),
        ("config.c.d", "activity.a.b", "the order is config, activity"),
        ("config.c.d", "config.a.b", "SQLite's own REFERENCES"),
    ] {
        let text = reference(from, to).ends(&databases).unwrap_err().to_string();
        assert!(text.contains(said) && text.contains("[[references]]"), "{text}");
    }
}

#[test]
fn a_command_touches_along_what_refers_to_its_database_also_by_detours() {
    let mut config = Config::new("store");
    config.databases = ["a", "b", "c", "d"].map(str::to_owned).into();
    let touches = |indexes: &[usize]| indexes.iter().copied().fold(Touches::default(), Touches::with);
    assert_eq!(Along::new(&config).unwrap().of(touches(&[0])), touches(&[0]), "no reference");
    config.references = vec![reference("c.t.x", "b.t.x"), reference("b.t.x", "a.t.x")];
    let along = Along::new(&config).unwrap();
    for (named, all) in [(&[0][..], &[0, 1, 2][..]), (&[1], &[1, 2]), (&[2], &[2]), (&[0, 3], &[0, 1, 2, 3])]
    {
        assert_eq!(along.of(touches(named)), touches(all), "{named:?}");
    }
    for reference in &mut config.references {
        reference.on_delete = OnDelete::Keep;
    }
    assert_eq!(Along::new(&config).unwrap().of(touches(&[0])), touches(&[0]), "nothing is enforced");
}

#[test]
fn ends_that_the_schema_does_not_have_are_refused() {
    let open = |sql: &str| {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    };
    let child = open("CREATE TABLE t (id INTEGER PRIMARY KEY, x); CREATE VIEW v AS SELECT x FROM t");
    let parent = open(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, u UNIQUE, x, y, z, UNIQUE (x, y)); CREATE UNIQUE INDEX i ON p (z) WHERE z > 0;
         CREATE TABLE q (a, b, PRIMARY KEY (a, b));",
    );
    for (from, to, said) in [
        ("t.x", "p.id", ""),
        ("T.X", "P.U", ""),
        ("t.y", "p.id", "t has no column \"y\""),
        ("s.x", "p.id", "activity.db has no table \"s\""),
        ("v.x", "p.id", "activity.db has no table \"v\""),
        ("t.x", "p.x", "config.p.x is neither the primary key nor UNIQUE"),
        ("t.x", "p.z", "neither"),
        ("t.x", "q.a", "neither"),
    ] {
        let reference = reference(&format!("activity.{from}"), &format!("config.{to}"));
        let (from, to) = reference.ends(&["config".to_owned(), "activity".to_owned()]).unwrap();
        let checked = reference.check_columns((&from, &child), (&to, &parent));
        let text = checked.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(text.contains(said) && text.is_empty() == said.is_empty(), "{said}: {text}");
    }
}

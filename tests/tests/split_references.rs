//! Foreign keys over the cut, their orphans, and what can no longer work once there are two databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

mod split_common;

use std::sync::Arc;

use penholder::split::{OrphanPolicy, Progress, Side, check};

use crate::split_common::{Legacy, open, refusal, rows, split_ok};

const PARENT: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, code TEXT UNIQUE COLLATE NOCASE, n);
    INSERT INTO p VALUES (1, 'one', 10), (2, 'two', 20);";

fn settings(legacy: &Legacy) -> toml::Table {
    std::fs::read_to_string(legacy.store().join("penholder.toml")).unwrap().parse().unwrap()
}

/// `from -> to (on_delete)` of every reference in `penholder.toml`.
fn declared(legacy: &Legacy) -> Vec<String> {
    let settings = settings(legacy);
    let Some(references) = settings.get("references") else { return Vec::new() };
    let word = |reference: &toml::Value, key: &str| reference[key].as_str().unwrap().to_owned();
    let references = references.as_array().unwrap().iter();
    references
        .map(|r| format!("{} -> {} ({})", word(r, "from"), word(r, "to"), word(r, "on_delete")))
        .collect()
}

#[test]
fn a_foreign_key_over_the_cut_becomes_a_declared_reference_and_one_inside_stays() {
    let legacy = Legacy::new(&format!(
        "{PARENT} CREATE TABLE a(id INTEGER PRIMARY KEY, p1 INT REFERENCES p ON DELETE CASCADE,
            p2 INT CONSTRAINT two REFERENCES p(id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED, code TEXT,
            own INT REFERENCES a(id) ON DELETE CASCADE, /* REFERENCES p */
            CONSTRAINT by_code FOREIGN KEY (code) REFERENCES \"p\"(code), CHECK (id > 0));
         CREATE INDEX by_p ON a(p1);
         CREATE TABLE s(id INTEGER PRIMARY KEY, p INT REFERENCES p(id) ON DELETE NO ACTION);
         INSERT INTO a VALUES (1, 1, 2, 'ONE', NULL), (2, NULL, NULL, NULL, 1); INSERT INTO s VALUES (1, 2);"
    ));
    let report = legacy.split(&legacy.request(&["p", "s"]));
    assert_eq!(
        declared(&legacy),
        [
            "activity.a.p1 -> config.p.id (cascade)",
            "activity.a.p2 -> config.p.id (set null)",
            "activity.a.code -> config.p.code (restrict)"
        ]
    );
    assert_eq!(
        legacy.text("activity", "a").unwrap(),
        "CREATE TABLE a(id INTEGER PRIMARY KEY, p1 INT ,
            p2 INT , code TEXT,
            own INT REFERENCES a(id) ON DELETE CASCADE /* REFERENCES p */
            , CHECK (id > 0))"
    );
    assert_eq!(
        legacy.text("config", "s").unwrap(),
        "CREATE TABLE s(id INTEGER PRIMARY KEY, p INT REFERENCES p(id) ON DELETE NO ACTION)"
    );
    assert!(report.references.iter().all(|reference| reference.orphans == 0));
}

#[test]
fn actions_that_cannot_be_declared_are_told() {
    let legacy = Legacy::new(&format!(
        "{PARENT} CREATE TABLE a(p INT DEFAULT 1 REFERENCES p(id) ON UPDATE CASCADE ON DELETE SET DEFAULT);"
    ));
    let report = legacy.split(&legacy.request(&["p"]));
    assert_eq!(declared(&legacy), ["activity.a.p -> config.p.id (keep)"]);
    let warnings = report.warnings.join("\n");
    assert!(warnings.contains("SET DEFAULT") && warnings.contains("ON UPDATE CASCADE"), "{warnings}");
}

const ORPHANS: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1);
    CREATE TABLE a(id INTEGER PRIMARY KEY, p INT REFERENCES p(id), up INT REFERENCES a(id));
    INSERT INTO a VALUES (1, 1, NULL), (2, 7, 1), (3, 8, 9), (4, NULL, NULL), (5, '1', NULL), (6, 'x', NULL);";

#[test]
fn orphans_stop_the_split_until_somebody_decides() {
    let legacy = Legacy::new(ORPHANS);
    let message = refusal(&legacy.request(&["p"]));
    for part in
        ["3 rows of a refer by a(p) -> p(id)", "2, 3, 6", "1 row of a refers by a(up) -> a(id)", "--orphans"]
    {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

#[test]
fn orphans_are_kept_counted_and_named() {
    for policy in [OrphanPolicy::Keep, OrphanPolicy::ReportOnly] {
        let legacy = Legacy::new(ORPHANS);
        let mut request = legacy.request(&["p"]);
        request.orphans = policy;
        let report = legacy.split(&request);
        let of = |from: &str| report.references.iter().find(|reference| reference.from == from).unwrap();
        assert_eq!(
            (of("activity.a.p").orphans, of("activity.a.p").orphan_keys.join(" ")),
            (3, "2 3 6".into())
        );
        assert_eq!((of("activity.a.up").orphans, of("activity.a.up").crosses), (1, false));
        let violations: Vec<u64> =
            report.databases.iter().map(|database| database.foreign_key_violations).collect();
        assert_eq!(violations, [0, 1], "the one inside activity stays as it was");
        let expected: &[&str] =
            if policy == OrphanPolicy::Keep { &["activity.a.p -> config.p.id (restrict)"] } else { &[] };
        assert_eq!(declared(&legacy), expected, "{policy:?}");
    }
}

#[test]
fn orphans_are_set_to_null_and_nothing_else_changes() {
    let legacy = Legacy::new(ORPHANS);
    let mut request = legacy.request(&["p"]);
    request.orphans = OrphanPolicy::Null;
    let report = split_ok(&request);
    let new = open(&legacy.store().join("activity.db"));
    let values = |sql: &str| new.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(
        values("SELECT group_concat(id || ':' || ifnull(p, '-') || ':' || ifnull(up, '-'), ' ') FROM a"),
        "1:1:- 2:-:1 3:-:- 4:-:- 5:1:- 6:-:-"
    );
    assert!(report.databases.iter().all(|database| database.foreign_key_violations == 0));
    assert_eq!(declared(&legacy), ["activity.a.p -> config.p.id (restrict)"]);
}

#[test]
fn orphans_that_may_not_be_null_are_refused_by_name() {
    let legacy = Legacy::new(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE a(p INT NOT NULL REFERENCES p(id)); INSERT INTO a VALUES (7);",
    );
    let mut request = legacy.request(&["p"]);
    request.orphans = OrphanPolicy::Null;
    let message = refusal(&request);
    assert!(message.contains("a(p) -> p(id)") && message.contains("p may not be NULL"), "{message}");
}

#[test]
fn orphans_are_found_as_sqlite_finds_them() {
    // Affinity and collation of the parent's column decide, whatever the child was declared as.
    let legacy = Legacy::new(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, code TEXT UNIQUE COLLATE NOCASE, x UNIQUE);
         INSERT INTO p VALUES (1, 'one', 5), (2, '07', '6');
         CREATE TABLE a(k INTEGER PRIMARY KEY, t TEXT REFERENCES p(id), code INT REFERENCES p(code), x TEXT REFERENCES p(x));
         INSERT INTO a VALUES (1, '1', 'ONE', NULL), (2, '01', 7, '5'), (3, 'x', '07', '6'), (4, NULL, NULL, 5);
         CREATE TABLE w(k TEXT PRIMARY KEY, p BLOB REFERENCES p(id)) WITHOUT ROWID;
         INSERT INTO w VALUES ('a', '1'), ('b', x'31'), ('c', 1.0), ('d', 1.5);",
    );
    let connection = legacy.open();
    let sql = "SELECT \"table\" || fkid, count(*) FROM pragma_foreign_key_check GROUP BY 1 ORDER BY 1";
    let mut statement = connection.prepare(sql).unwrap();
    let theirs: Vec<(String, u64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let plan = check(&legacy.request(&["p"]), &Arc::new(Progress::default())).unwrap();
    let of = |from: &str| {
        plan.references
            .iter()
            .find(|reference| reference.from == from)
            .map_or(0, |reference| reference.orphans)
    };
    let ours = [
        ("a0", of("activity.a.x")),
        ("a1", of("activity.a.code")),
        ("a2", of("activity.a.t")),
        ("w0", of("activity.w.p")),
    ];
    let ours: Vec<(String, u64)> =
        ours.into_iter().filter(|(_, count)| *count > 0).map(|(key, count)| (key.into(), count)).collect();
    assert_eq!(ours, theirs);
    let keys = |from: &str| {
        plan.references.iter().find(|reference| reference.from == from).unwrap().orphan_keys.join(" ")
    };
    assert_eq!(keys("activity.w.p"), "'b' 'd'");
}

#[test]
fn keys_that_cannot_lead_to_another_database_are_refused_by_name() {
    let composite = Legacy::new(
        "CREATE TABLE p(x, y, PRIMARY KEY (x, y)); CREATE TABLE a(x, y, FOREIGN KEY (x, y) REFERENCES p(x, y));",
    );
    let message = refusal(&composite.request(&["p"]));
    assert!(message.contains("a(x, y) -> p(x, y)") && message.contains("several columns"), "{message}");
    composite.split(&composite.request(&["p", "a"]));
    let backwards =
        Legacy::new("CREATE TABLE a(id INTEGER PRIMARY KEY); CREATE TABLE c(a REFERENCES a(id));");
    let message = refusal(&backwards.request(&["c"]));
    assert!(message.contains("c(a) -> a(id)") && message.contains("from config to activity"), "{message}");
    let dotted =
        Legacy::new("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE \"a.b\"(p REFERENCES p(id));");
    assert!(refusal(&dotted.request(&["p"])).contains("has a dot"));
}

#[test]
fn a_key_that_can_never_hold_is_dropped_and_told() {
    let legacy = Legacy::new(&format!(
        "{PARENT} CREATE TABLE gone(id INTEGER PRIMARY KEY);
         CREATE TABLE a(x REFERENCES nowhere(id), y REFERENCES p(n), z INT REFERENCES gone(id), w INT REFERENCES p(id));
         INSERT INTO a VALUES (1, 2, 3, 1);"
    ));
    let mut request = legacy.request(&["p"]);
    request.choices.flags.retain(|(table, _)| table != "gone");
    request.choices.flags.push(("gone".into(), Side::Drop));
    let report = legacy.split(&request);
    assert_eq!(legacy.text("activity", "a").unwrap(), "CREATE TABLE a(x , y , z INT , w INT )");
    assert_eq!(declared(&legacy), ["activity.a.w -> config.p.id (restrict)"]);
    let told: Vec<_> = report
        .left_behind
        .iter()
        .map(|left| format!("{} {}: {}", left.kind, left.name, left.reason))
        .collect();
    assert_eq!(
        told,
        [
            "foreign key a(x) -> nowhere(id): there is no table nowhere",
            "foreign key a(y) -> p(n): it never worked: foreign key mismatch - \"a\" referencing \"p\"",
            "foreign key a(z) -> gone(id): the table gone is left behind",
            "table gone: --drop, or the map, says so"
        ]
    );
}

#[test]
fn triggers_and_views_over_both_sides_are_left_behind_with_their_text_and_the_reason() {
    let legacy = Legacy::new(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, n); CREATE TABLE a(id INTEGER PRIMARY KEY, p INT);
         CREATE VIEW joined AS SELECT a.id, p.n FROM a JOIN p ON p.id = a.p;
         CREATE VIEW of_joined AS SELECT count(*) FROM joined; CREATE VIEW alone AS SELECT n FROM p;
         CREATE VIEW broken AS SELECT * FROM nowhere;
         CREATE TRIGGER over AFTER INSERT ON a BEGIN UPDATE p SET n = n + 1 WHERE id = new.p; END;
         CREATE TRIGGER when_over BEFORE DELETE ON p WHEN (SELECT count(*) FROM a) > 0 BEGIN SELECT 1; END;
         CREATE TRIGGER in_view INSTEAD OF DELETE ON joined BEGIN DELETE FROM a WHERE id = old.id; END;
         CREATE TRIGGER within AFTER UPDATE ON a BEGIN DELETE FROM a WHERE id < 0; END;",
    );
    let report = legacy.split(&legacy.request(&["p"]));
    let mut left: Vec<_> =
        report.left_behind.iter().map(|left| format!("{} {}", left.kind, left.name)).collect();
    left.sort();
    assert_eq!(
        left,
        [
            "trigger in_view",
            "trigger over",
            "trigger when_over",
            "view broken",
            "view joined",
            "view of_joined"
        ]
    );
    let joined = report.left_behind.iter().find(|left| left.name == "joined").unwrap();
    assert!(
        joined.sql.starts_with("CREATE VIEW joined AS SELECT")
            && joined.reason.contains("a in activity, p in config")
    );
    assert!(legacy.text("config", "alone").is_some() && legacy.text("activity", "within").is_some());
}

#[test]
fn a_full_text_table_stays_with_its_content() {
    let sql = "CREATE TABLE doc(id INTEGER PRIMARY KEY, text); INSERT INTO doc VALUES (1, 'words');
        CREATE VIRTUAL TABLE ft USING fts5(text, content = 'doc', content_rowid = 'id');";
    let legacy = Legacy::new(sql);
    let message = refusal(&legacy.request(&["doc"]));
    assert!(message.contains("virtual table ft") && message.contains("doc in config"), "{message}");
    legacy.split(&legacy.request(&["doc", "ft"]));
    assert_eq!(rows(&open(&legacy.store().join("config.db")), "ft_docsize").len(), 0, "nothing was indexed");
}

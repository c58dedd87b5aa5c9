//! `penholder split` on databases that other software wrote: sql.js, SQLite's own shell, Python.
//!
//! What went in and what came out is compared by SQLite's shell, value by value, not by anything of ours. A test
//! without the software that it needs says so and skips.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cli_common::{Run, Store};
use serde_json::Value;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign");
/// What both the example `legacy-race` and these tests need of npm.
const RACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/legacy-race");
/// What its `install.sh` exits with where sql.js cannot be had.
const UNAVAILABLE: i32 = 77;

/// The tables of `legacy.sql`, by the database that they go to.
const TABLES: [(&str, &[&str]); 2] = [
    ("activity", &["visits", "raw", "odd \"table\"", "Über"]),
    ("config", &["owners", "pages", "strict_settings", "audit"]),
];
/// What of their definitions cannot stay, because it leads from one database into the other.
const CROSSING: &str = "REFERENCES pages (id) ON DELETE CASCADE";
/// Those of `search.sql`.
const SEARCH: [(&str, &[&str]); 2] = [("activity", &["search"]), ("config", &["boxes"])];

/// Whether there is such a program; says so if not.
fn has(program: &str, version: &str) -> bool {
    let found = Command::new(program).arg(version).output().is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED: there is no {program}");
    }
    found
}

/// The directory of sql.js, if it can be had.
fn sql_js() -> Option<String> {
    let output = Command::new("sh")
        .arg(format!("{RACE}/install.sh"))
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(UNAVAILABLE) {
        println!("SKIPPED: no sql.js: {why}");
        return None;
    }
    assert!(output.status.success(), "{why}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn script(name: &str) -> String {
    format!("{SCRIPTS}/{name}")
}

fn node(node_path: &str, arguments: &[&str], file: &Path) {
    let status = Command::new("node").args(arguments).arg(file).env("NODE_PATH", node_path).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

/// What SQLite's shell prints for `sql`.
fn shell(file: &Path, flag: &str, sql: &str) -> String {
    let mut child = Command::new("sqlite3")
        .args(["-bail", "-batch", flag])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {sql}", file.display());
    String::from_utf8(output.stdout).unwrap()
}

fn ask(file: &Path, sql: &str) -> String {
    shell(file, "-readonly", sql)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Every row of a table, one line each: the rowid if there is one, then each value with its storage class.
fn rows(file: &Path, table: &str) -> String {
    let text = table.replace('\'', "''");
    let columns =
        ask(file, &format!("SELECT name FROM pragma_table_xinfo('{text}') WHERE hidden <> 1 ORDER BY cid"));
    let without =
        ask(file, &format!("SELECT wr FROM pragma_table_list WHERE name = '{text}' AND schema = 'main'"));
    let mut wanted: Vec<String> = columns.lines().map(quoted).collect();
    assert!(!wanted.is_empty(), "{} has no table {table}", file.display());
    if without.trim() == "0" {
        wanted.insert(0, "_rowid_".into());
    }
    // `quote` ends a text at its first NUL.
    let exactly = |name: &String| {
        format!(
            "CASE typeof({name}) WHEN 'text' THEN 'text ' || hex(CAST({name} AS BLOB)) \
             WHEN 'blob' THEN 'blob ' || hex({name}) ELSE typeof({name}) || ' ' || quote({name}) END"
        )
    };
    let values: Vec<String> = wanted.iter().map(exactly).collect();
    ask(file, &format!("SELECT {} FROM {} ORDER BY 1, 2", values.join(", "), quoted(table)))
}

/// The text of a table, and of the indexes and triggers on it.
fn definition(file: &Path, table: &str) -> String {
    let text = table.replace('\'', "''");
    ask(file, &format!("SELECT type, name, sql FROM sqlite_schema WHERE tbl_name = '{text}' ORDER BY 1, 2"))
}

/// Its columns, with types, defaults and keys.
fn columns(file: &Path, table: &str) -> String {
    ask(file, &format!("SELECT * FROM pragma_table_xinfo('{}')", table.replace('\'', "''")))
}

/// A database that somebody else wrote, and the store that it is to become.
struct Legacy {
    store: Store,
    file: PathBuf,
    /// The scripts that made it.
    search: bool,
}

impl Legacy {
    fn new(search: bool) -> Self {
        let store = Store::empty();
        let file = store.beside("legacy.db");
        Self { store, file, search }
    }

    fn tables(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let more: &[_] = if self.search { &SEARCH } else { &[] };
        let of = |(database, tables): &(&'static str, &'static [&'static str])| {
            let database = *database;
            tables.iter().map(move |table| (database, *table))
        };
        TABLES.iter().chain(more).flat_map(of).collect::<Vec<_>>().into_iter()
    }

    /// Splits it with every table assigned by a flag.
    fn split(&self, more: &[&str]) -> Run {
        let mut command = self.store.command(&["split"]);
        command.arg(&self.file).arg("--into").arg(self.store.path()).args(more);
        for (database, table) in self.tables() {
            command.arg(format!("--{database}")).arg(table);
        }
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn database(&self, name: &str) -> PathBuf {
        self.store.path().join(format!("{name}.db"))
    }

    /// Splits it, and compares every row and definition; then serves the store, and applies a command to each database.
    fn goes_over_whole(&self) {
        let (bytes, modified) =
            (fs::read(&self.file).unwrap(), fs::metadata(&self.file).unwrap().modified().unwrap());
        let said = self.split(&["--orphans", "keep"]).expect(0).stdout;
        for left_behind in ["CREATE VIEW visited AS SELECT", "CREATE TRIGGER visits_audited AFTER DELETE"] {
            assert!(said.contains(left_behind), "{said}");
        }
        assert!(fs::read(&self.file).unwrap() == bytes, "the source is not what it was");
        assert_eq!(fs::metadata(&self.file).unwrap().modified().unwrap(), modified);
        self.is_the_same();
        self.works();
    }

    fn is_the_same(&self) {
        for (database, table) in self.tables() {
            let (old, new) = (&self.file, &self.database(database));
            let before = rows(old, table);
            assert!(
                before.lines().count() > 0 || table == "audit",
                "there is something to compare in {table}"
            );
            assert_eq!(before, rows(new, table), "rows of {table}");
            let of_old = definition(old, table).replace(CROSSING, "");
            let stays = |line: &&str| !line.starts_with("trigger|visits_audited|");
            let stays: Vec<&str> = of_old.lines().filter(stays).collect();
            assert_eq!(stays, definition(new, table).lines().collect::<Vec<_>>(), "definition of {table}");
            assert_eq!(columns(old, table), columns(new, table), "columns of {table}");
        }
        for (database, _) in TABLES {
            let new = self.database(database);
            assert_eq!(ask(&new, "PRAGMA integrity_check"), "ok\n", "{database}");
            for pragma in ["encoding", "page_size", "auto_vacuum", "user_version", "application_id"] {
                let of = |file: &Path| ask(file, &format!("PRAGMA {pragma}"));
                assert_eq!(of(&self.file), of(&new), "{pragma} of {database}");
            }
        }
        for (database, sequence) in [("activity", "visits|3002\n"), ("config", "audit|1\n")] {
            assert_eq!(ask(&self.database(database), "SELECT * FROM sqlite_sequence"), sequence);
            let left_behind = "SELECT name FROM sqlite_schema WHERE name IN ('visited', 'visits_audited')";
            assert_eq!(ask(&self.database(database), left_behind), "");
        }
        let same = |database: &str, sql: &str| {
            let before = ask(&self.file, sql);
            assert!(!before.is_empty(), "there is something to compare: {sql}");
            assert_eq!(before, ask(&self.database(database), sql), "{sql}");
        };
        same("activity", "SELECT * FROM long_visits");
        same("config", "SELECT * FROM owned");
        // What crosses the cut is taken out, and nothing else.
        let but_pages =
            "SELECT \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list";
        same("activity", &format!("{but_pages}('visits') WHERE \"table\" <> 'pages'"));
        same("config", &format!("{but_pages}('pages')"));
        let keys = "SELECT count(*) FROM pragma_foreign_key_list('visits')";
        assert_eq!(ask(&self.database("activity"), keys), "1\n");
    }

    fn works(&self) {
        let writer = self.store.serve();
        assert!(!writer.ready.is_empty(), "the writer did not start");
        let tick = |database: &str, sql: &str| {
            let run = self.store.run(&["exec", "STORE", "--json", "--db", database, sql]).expect(0);
            assert_eq!(run.json()[0]["status"], Value::from("applied"), "{run:?}");
        };
        tick("activity", "INSERT INTO visits (page_id, seconds) VALUES (1, 1.5)");
        tick("config", "INSERT INTO owners VALUES ('Grace', 1)");
        assert_eq!(writer.stop(), 0);
        // AUTOINCREMENT goes on where the old file stood: 3002 was the last.
        assert_eq!(ask(&self.database("activity"), "SELECT max(id) FROM visits"), "3003\n");
        assert_eq!(ask(&self.database("config"), "SELECT quota FROM owners WHERE name = 'grace'"), "1\n");
    }
}

#[test]
fn what_sql_js_wrote_goes_over_value_by_value() {
    let Some(node_path) = sql_js().filter(|_| has("sqlite3", "--version")) else { return };
    let legacy = Legacy::new(false);
    node(&node_path, &[&script("sqljs.js"), &script("legacy.sql")], &legacy.file);
    legacy.goes_over_whole();
}

#[test]
fn what_python_wrote_in_wal_mode_goes_over_value_by_value() {
    if !has("python3", "--version") || !has("sqlite3", "--version") {
        return;
    }
    let legacy = Legacy::new(true);
    let scripts = [script("legacy.sql"), script("search.sql")];
    let wrote = Command::new("python3").arg(script("python.py")).arg(&legacy.file).args(scripts).status();
    assert!(wrote.unwrap().success());
    legacy.goes_over_whole();
    let swimmers = "SELECT rowid, title FROM search WHERE search MATCH 'swimming'";
    assert_eq!(ask(&legacy.database("activity"), swimmers), "71|Ducks\n");
    assert_eq!(ask(&legacy.database("config"), "SELECT id FROM boxes WHERE x0 < 0 AND x1 > 2"), "1\n");
}

#[test]
fn what_the_shell_wrote_goes_over_value_by_value_in_every_encoding() {
    if !has("sqlite3", "--version") {
        return;
    }
    for settings in [
        "PRAGMA encoding = 'UTF-16be'; PRAGMA page_size = 1024; PRAGMA auto_vacuum = INCREMENTAL;",
        "PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 65536; PRAGMA auto_vacuum = FULL;",
        "PRAGMA page_size = 512;",
    ] {
        let legacy = Legacy::new(false);
        let sql = fs::read_to_string(script("legacy.sql")).unwrap();
        shell(&legacy.file, "-batch", &format!("{settings}\n{sql}"));
        legacy.goes_over_whole();
    }
}

/// The tracker's file, in which three of twelve projects were deleted and nothing that belonged to them.
fn tracker(file: &Path) -> bool {
    let Some(node_path) = sql_js().filter(|_| has("sqlite3", "--version")) else { return false };
    node(&node_path, &[&format!("{RACE}/years.js")], file);
    let orphans = ask(file, "SELECT \"table\", count(*) FROM pragma_foreign_key_check GROUP BY 1 ORDER BY 1");
    assert_eq!(orphans, "activity_sessions|498\nproject_domains|3\n");
    true
}

#[test]
fn the_tracker_file_needs_no_map_and_its_orphans_go_where_they_are_told() {
    for (policy, projects, domains) in [("keep", "498\n", "3\n"), ("null", "0\n", "")] {
        let store = Store::empty();
        let file = store.beside("legacy.db");
        if !tracker(&file) {
            return;
        }
        let words = ["split", file.to_str().unwrap(), "--into", "STORE", "--orphans", policy];
        let run = store.run(&words);
        let database = |name: &str| store.path().join(format!("{name}.db"));
        if domains.is_empty() {
            // A column that is NOT NULL cannot be set to NULL, and is said to be in the way.
            assert!(run.code == 1 && run.stderr.contains("project_domains"), "{run:?}");
            assert!(!store.path().exists());
            continue;
        }
        run.expect(0);
        let sessions = "SELECT count(*) FROM activity_sessions WHERE project_id > 9";
        assert_eq!(ask(&database("activity"), sessions), projects);
        assert_eq!(ask(&database("config"), "SELECT count(*) FROM pragma_foreign_key_check"), domains);
        let writer = store.serve();
        let insert = "INSERT INTO activity_sessions (started_at, app, project_id) VALUES (1, 'x', 1)";
        store.run(&["exec", "STORE", "--db", "activity", insert]).expect(0);
        assert_eq!(writer.stop(), 0);
    }
}

//! The migration of a legacy database beside `VACUUM INTO` of the same file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use penholder::split::{Choices, Ended, OrphanPolicy, Progress, Request, split};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::effort::Effort;
use crate::peer::Peer;
use crate::results::{Results, Subject};

/// One of the two, in a process of its own: its memory is counted too.
#[derive(Args, Clone)]
pub(crate) struct Migration {
    /// vacuum or split.
    name: String,
    source: PathBuf,
    target: PathBuf,
}

/// Does it, and says how long it took.
pub(crate) fn run(migration: &Migration) {
    let begun = Instant::now();
    match migration.name.as_str() {
        "vacuum" => vacuum(&migration.source, &migration.target),
        _ => split_whole(&migration.source, &migration.target),
    }
    let seconds = begun.elapsed().as_secs_f64();
    let peak_kib = crate::writer::field("/proc/self/status", "VmHWM:");
    println!("{}", json!({"seconds": seconds, "peak_kib": peak_kib}));
}

fn vacuum(source: &Path, target: &Path) {
    let connection = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.execute("VACUUM INTO ?1", [target.to_str().unwrap()]).unwrap();
}

fn split_whole(source: &Path, store: &Path) {
    let request = Request {
        source: source.to_owned(),
        store: store.to_owned(),
        choices: Choices::default(),
        orphans: OrphanPolicy::Fail,
        force: false,
        retire: false,
    };
    let Ended::Split(report) = split(&request, &Arc::new(Progress::default())).unwrap() else {
        panic!("{} is there already", store.display())
    };
    assert!(
        report.ok && report.tables.iter().all(|table| table.ok && table.rows > 0),
        "{:?}",
        report.differences
    );
}

/// Splits and vacuums a legacy database, in turns.
pub(crate) fn measure(effort: &Effort, scratch: &Path, results: &mut Results) {
    let (megabytes, rounds) = (effort.legacy_megabytes, effort.rounds);
    let place = tempfile::Builder::new().prefix("split-").tempdir_in(scratch).unwrap();
    let source = place.path().join("legacy.db");
    make_legacy(&source, megabytes);
    for round in 0..rounds {
        for turn in 0..2 {
            let (name, target, peer) =
                [("vacuum", "copy.db", Peer::Sqlite), ("split", "store", Peer::Penholder)]
                    [(round + turn) % 2];
            eprintln!("round {}/{rounds}: {name} of {megabytes} MB", round + 1);
            let target = place.path().join(target);
            let (seconds, peak_kib) = in_child(name, &source, &target);
            results.number(Subject::Split, peer, megabytes, seconds);
            if peer == Peer::Penholder {
                results.number(Subject::SplitMemory, peer, megabytes, peak_kib as f64 / 1024.0);
            }
            if target.is_dir() { std::fs::remove_dir_all(&target) } else { std::fs::remove_file(&target) }
                .unwrap();
        }
    }
}

fn in_child(name: &str, source: &Path, target: &Path) -> (f64, u64) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["__migrate", name]).args([source, target]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    (line["seconds"].as_f64().unwrap(), line["peak_kib"].as_u64().unwrap())
}

/// What an activity tracker leaves behind: sessions and events with their indexes, and a few projects.
fn make_legacy(path: &Path, megabytes: u64) {
    eprintln!("making a legacy database of {megabytes} MB");
    let connection = Connection::open(path).unwrap();
    let sessions = megabytes * 720;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA foreign_keys = off; BEGIN;
             CREATE TABLE projects(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
             CREATE TABLE activity_sessions(id INTEGER PRIMARY KEY, started_at INTEGER NOT NULL, ended_at INTEGER,
                 app TEXT NOT NULL, title TEXT, domain TEXT, project_id INTEGER REFERENCES projects(id));
             CREATE TABLE activity_events(id INTEGER PRIMARY KEY,
                 session_id INTEGER REFERENCES activity_sessions(id) ON DELETE CASCADE,
                 at INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                 INSERT INTO projects SELECT i, 'project ' || i FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {sessions})
                 INSERT INTO activity_sessions SELECT i, 1700000000000 + i * 30000, 1700000000000 + i * 30000 + 29000,
                 'program ' || (i % 37), 'A window title that is about as long as titles are, number ' || i,
                 iif(i % 3 = 0, 'host' || (i % 500) || '.example.com', NULL), iif(i % 2, i % 200 + 1, NULL) FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {sessions} * 6)
                 INSERT INTO activity_events SELECT i, (i - 1) / 6 + 1, 1700000000000 + i * 5000,
                 iif(i % 2, 'focus', 'idle'), '{{\"window\":\"' || hex(i * 7919) || '\",\"path\":\"/home/somebody/work/file'
                 || (i % 997) || '.rs\",\"detail\":\"' || hex(randomblob(36)) || '\"}}' FROM n;
             CREATE INDEX sessions_by_end ON activity_sessions(ended_at, started_at);
             CREATE INDEX sessions_by_start ON activity_sessions(started_at);
             CREATE INDEX events_by_time ON activity_events(at);
             CREATE INDEX events_by_session ON activity_events(session_id);
             COMMIT;"
        ))
        .unwrap();
}

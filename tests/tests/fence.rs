//! Nobody but the writer writes, whatever other programs do with the databases while it runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use penholder::{Config, Stop};
use penholder_client::{Client, Durability};
use penholder_protocol::{Command as Order, Outcome, Statement};
use penholder_tests::foreign::{self, Foreign};
use penholder_tests::{Mix, Store};
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(30);

const DATABASES: [&str; 2] = ["activity", "config"];

/// What a foreign program tries to write: a row that no client of the ledger ever submits, so that it is found.
const FOREIGN_ROW: &str = "INSERT INTO ledger (client, sequence, nonce) VALUES (99, 1, 0)";

fn insert(sequence: i64) -> Order {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    Statement::new("activity", sql).bind(sequence).into()
}

fn over_both(sequence: i64) -> Order {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    let statement = |database| Statement::new(database, sql).bind(sequence);
    Order::new().and(statement("config")).and(statement("activity"))
}

fn is_applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

fn foreign_rows(store: &Store) -> i64 {
    let sql = "SELECT count(*) FROM ledger WHERE client = 99";
    DATABASES.iter().map(|database| store.number(database, sql)).sum()
}

/// Two processes spin for the locks of both databases while clients write.
fn spin_beside_load(time: Duration) {
    let mut store = Store::started();
    let workers = [Mix::All, Mix::Activity, Mix::Both].map(|mix| store.start_worker(mix, u64::MAX));
    let spinners = DATABASES.map(|name| Foreign::spin(&store.layout().database(name), FOREIGN_ROW));
    std::thread::sleep(time);
    let spun = spinners.map(Foreign::stop);
    store.tell_workers_to_stop();
    workers.into_iter().for_each(penholder_tests::Process::finish);
    println!("{spun:?}");
    assert!(spun.iter().all(|spun| spun.tries > 100 && spun.writes == 0), "{spun:?}");
    assert_eq!(store.control().unwrap().foreign_writes, 0);
    assert_eq!(foreign_rows(&store), 0);
    let verdict = store.settle_and_verify();
    println!("{verdict}");
    verdict.expect_clean();
}

#[test]
fn a_program_that_spins_for_the_lock_gets_no_write_in() {
    if foreign::is_installed("python3") {
        spin_beside_load(Duration::from_secs(2));
    }
}

#[test]
#[ignore = "takes ten seconds: `cargo test -p penholder-tests --test fence -- --ignored`"]
fn a_program_that_spins_for_ten_seconds_gets_no_write_in() {
    if foreign::is_installed("python3") {
        spin_beside_load(Duration::from_secs(10));
    }
}

/// What a foreign program may ask for; whether it must be told that the database is locked.
const REQUESTS: [(&[&str], bool); 19] = [
    (&[FOREIGN_ROW], true),
    (&["BEGIN IMMEDIATE"], true),
    (&["BEGIN EXCLUSIVE"], true),
    (&["BEGIN", "SELECT count(*) FROM ledger", FOREIGN_ROW], true),
    (&["CREATE TABLE intruder (a)"], true),
    (&["DROP TABLE ledger"], true),
    (&["DELETE FROM _penholder_progress"], true),
    (&["PRAGMA user_version = 7"], true),
    (&["PRAGMA journal_mode = delete"], true),
    (&["PRAGMA journal_mode = truncate"], true),
    (&["PRAGMA journal_mode = off"], true),
    (&["VACUUM"], true),
    (&["PRAGMA page_size = 8192", "VACUUM"], true),
    (&["REINDEX"], true),
    (&["PRAGMA locking_mode = exclusive", "SELECT count(*) FROM ledger", FOREIGN_ROW], true),
    (&["PRAGMA locking_mode = exclusive", "SELECT count(*) FROM ledger"], true),
    (&["PRAGMA wal_autocheckpoint = 1", "PRAGMA journal_size_limit = 0", "SELECT * FROM counter"], false),
    (&["PRAGMA synchronous = off", "PRAGMA mmap_size = 1000000", "SELECT * FROM counter"], false),
    (&["PRAGMA integrity_check"], false),
];

/// Runs every request against both databases, each in a process of its own, while a client writes.
fn requests_are_refused_or_harmless(run: impl Fn(&Path, &[&str]) -> Output) {
    let mut store = Store::started();
    let mut client = store.client();
    for (sequence, (texts, refused)) in (1..).zip(REQUESTS) {
        for database in DATABASES {
            let output = run(&store.layout().database(database), texts);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(said.contains("locked"), refused, "{texts:?} on {database}: {output:?}");
            assert_eq!(output.status.success(), !refused, "{texts:?} on {database}: {output:?}");
        }
        assert!(is_applied(&client.execute(over_both(sequence)).unwrap()), "{texts:?}");
    }
    for mode in ["passive", "full", "restart", "truncate"] {
        let output = run(&store.layout().database("activity"), &[&format!("PRAGMA wal_checkpoint({mode})")]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with("1|"), "{mode}: the first column is 1 when it could not: {output:?}");
        assert!(is_applied(&client.execute(insert(100)).unwrap()), "{mode}");
    }
    assert_eq!(store.control().unwrap().foreign_writes, 0);
    assert_eq!(foreign_rows(&store), 0);
    store.kill();
    assert!(store.once().success(), "and recovers");
    for database in DATABASES {
        let requests = i64::try_from(REQUESTS.len()).unwrap();
        let rows = store.number(database, "SELECT count(*) FROM ledger WHERE sequence < 100");
        assert_eq!(rows, requests, "{database}");
        let mode: String =
            store.database(database).pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}

#[test]
fn what_the_sqlite3_shell_asks_for_is_refused_or_harmless() {
    if foreign::is_installed("sqlite3") {
        requests_are_refused_or_harmless(|database, texts| foreign::shell(database, &texts.join("; ")));
    }
}

#[test]
fn what_python_asks_for_is_refused_or_harmless() {
    if foreign::is_installed("python3") {
        requests_are_refused_or_harmless(foreign::python);
    }
}

#[test]
fn the_log_is_overwritten_and_does_not_grow_beside_readers() {
    if !foreign::is_installed("sqlite3") {
        return;
    }
    let mut store = Store::new();
    store.settings("[wal]\nbytes_soft = 65536\nbytes_hard = 131072\n");
    store.start();
    let mut client = store.client();
    let log = store.path().join("activity.db-wal");
    let (mut longest, mut written) = (0, 0);
    let rows_per_command = 1000;
    for sequence in 1..=300 {
        let sql = "INSERT INTO ledger (client, sequence, nonce) \
                   WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT 7, i, i FROM n";
        assert!(is_applied(&client.execute(Statement::new("activity", sql).bind(rows_per_command)).unwrap()));
        longest = longest.max(log.metadata().unwrap().len());
        written += 16 * rows_per_command;
        if sequence % 50 == 0 {
            let output = foreign::shell(&store.layout().database("activity"), "SELECT count(*) FROM ledger");
            let rows = (sequence * rows_per_command).to_string();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), rows);
        }
    }
    println!("{written} bytes of rows were written, the log was at most {longest} bytes long");
    assert!(longest < 1 << 20, "{longest}");
}

#[test]
fn who_may_only_read_cannot_take_the_locks_either() {
    if !foreign::is_installed("python3") {
        return;
    }
    let store = Store::started();
    // With a descriptor that only reads, the bytes of the locks themselves: write, checkpoint, and all others.
    let script = "import fcntl, os, sys\n\
                  index = os.open(sys.argv[1], os.O_RDONLY)\n\
                  for byte in range(120, 128):\n    \
                      try: fcntl.lockf(index, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, byte)\n    \
                      except OSError: print(byte)\n\
                  print('held', flush=True)\n\
                  sys.stdin.read()";
    let mut holder = Command::new("python3")
        .args(["-c", script])
        .arg(store.path().join("activity.db-shm"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map(Result::unwrap);
    let refused: Vec<String> = lines.by_ref().take_while(|line| line != "held").collect();
    assert_eq!(refused, ["120", "121"]);
    let mut client = store.client();
    for sequence in 1..=20 {
        assert!(is_applied(&client.execute(over_both(sequence)).unwrap()), "{sequence}");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn the_locks_die_with_the_writer_and_a_clean_stop_gives_them_back() {
    if !foreign::is_installed("sqlite3") {
        return;
    }
    for kill in [true, false] {
        let mut store = Store::started();
        assert!(is_applied(&store.client().execute(over_both(1)).unwrap()));
        let write = |store: &Store, database| foreign::shell(&store.layout().database(database), FOREIGN_ROW);
        assert!(DATABASES.iter().all(|database| !write(&store, database).status.success()));
        if kill {
            store.kill();
        } else {
            assert!(store.stop().success());
            for database in DATABASES {
                let log = store.path().join(format!("{database}.db-wal"));
                assert_eq!(log.metadata().unwrap().len(), 0, "a clean stop leaves an empty log");
            }
        }
        for database in DATABASES {
            let output = write(&store, database);
            assert!(output.status.success(), "{database}: {output:?}");
        }
        store.start();
        assert!(is_applied(&store.client().execute(over_both(2)).unwrap()));
        assert!(DATABASES.iter().all(|database| !write(&store, database).status.success()));
        assert_eq!(foreign_rows(&store), 2);
    }
}

#[test]
fn the_locks_are_kept_while_the_databases_are_opened_anew() {
    if !foreign::is_installed("python3") {
        return;
    }
    let store = Store::started();
    let spinners = DATABASES.map(|name| Foreign::spin(&store.layout().database(name), FOREIGN_ROW));
    // Without its spool the writer closes the databases, waits, and opens them again, a few times.
    let (spool, aside) = (store.layout().spool(), store.scratch().join("aside"));
    std::fs::rename(&spool, &aside).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    std::fs::rename(&aside, &spool).unwrap();
    let mut client = store.client();
    assert!(is_applied(&client.execute(over_both(1)).unwrap()));
    let spun = spinners.map(Foreign::stop);
    assert!(spun.iter().all(|spun| spun.tries > 100 && spun.writes == 0), "{spun:?}");
    assert_eq!(foreign_rows(&store), 0);
}

/// A program whose locks do nothing, as on a broken file system or with a broken library.
fn write_without_locks(database: &Path) -> Output {
    let mut index = OsString::from(database);
    index.push("-shm");
    Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fcntl", "-P"])
        .arg(&index)
        // The first call asks whether somebody else is there, and must be told the truth.
        .args(["-e", "inject=fcntl:retval=0:when=2+", "sqlite3", "-batch"])
        .arg(database)
        .arg(FOREIGN_ROW)
        .output()
        .unwrap()
}

#[test]
fn a_commit_by_another_program_is_noticed_and_counted() {
    if !foreign::is_installed("strace") || !foreign::is_installed("sqlite3") {
        return;
    }
    let mut store = Store::started();
    let mut client = store.client();
    assert!(is_applied(&client.execute(insert(1)).unwrap()));
    let output = write_without_locks(&store.layout().database("activity"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(foreign_rows(&store), 1, "it got in");
    assert!(is_applied(&client.execute(insert(2)).unwrap()));
    store.wait_until("the count of foreign writes", |store| store.control().unwrap().foreign_writes == 1);
    assert!(store.stop().success());
    assert_eq!(foreign_rows(&store), 1, "and nothing was lost");
}

/// The files that a database consists of.
fn files_of(store: &Store, database: &str) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| store.path().join(format!("{database}.db{suffix}")))
}

#[test]
fn the_writer_stops_loudly_when_a_file_of_a_database_is_replaced() {
    for place in 0..3 {
        for replace in [true, false] {
            let mut store = Store::started();
            let mut client = store.client();
            assert!(is_applied(&client.execute(insert(1)).unwrap()));
            let file = &files_of(&store, "activity")[place];
            let aside = store.scratch().join("aside");
            std::fs::rename(file, &aside).unwrap();
            if replace {
                std::fs::write(file, "").unwrap();
            }
            let ticket = client.submit(insert(2), Durability::Queued).unwrap();
            store.wait_until("the writer's end", Store::writer_is_dead);
            assert!(!store.wait_writer().success(), "{}", file.display());
            std::fs::rename(&aside, file).unwrap();
            let count = "SELECT count(*) FROM ledger";
            assert_eq!(store.number("activity", count), 1, "{}: before the next commit", file.display());
            store.start();
            assert!(is_applied(&client.wait(ticket, PATIENCE).unwrap()), "{}", file.display());
            assert_eq!(store.number("activity", count), 2);
        }
    }
}

#[test]
fn an_idle_writer_notices_too() {
    let mut store = Store::started();
    let [_, log, _] = files_of(&store, "config");
    std::fs::rename(&log, store.scratch().join("aside")).unwrap();
    store.wait_until("the writer's end", Store::writer_is_dead);
    assert!(!store.wait_writer().success());
}

#[test]
fn connections_in_the_writers_own_process_read_and_do_not_write() {
    let store = Store::new();
    let mut config = Config::new(store.path());
    config.schema = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema"));
    let (config, stop) = (config.validate().unwrap(), Stop::new());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| penholder::run(&config, &stop, &mut ()));
        let begun = Instant::now();
        let mut client = loop {
            match Client::connect(store.path()) {
                Ok(client) => break client,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
        };
        let ticket = client.submit(insert(1), Durability::Queued).unwrap();
        assert!(is_applied(&client.wait(ticket, PATIENCE).unwrap()));
        let other = Connection::open(store.layout().database("activity")).unwrap();
        other.busy_timeout(Duration::ZERO).unwrap();
        let rows = || other.query_row("SELECT count(*) FROM ledger", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(rows(), 1);
        let error = other.execute(FOREIGN_ROW, []).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
        stop.request();
        writer.join().unwrap().unwrap();
        // The index stays mapped by this connection, and must not stay locked.
        assert_eq!(other.execute(FOREIGN_ROW, []).unwrap(), 1);
        assert_eq!(rows(), 2);
    });
}

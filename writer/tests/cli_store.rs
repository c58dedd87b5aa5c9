//! `penholder serve`, `status`, `rejected`, `check` and `backup`: a store and its care.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use cli_common::{INSERT, Run, Store};

#[test]
fn a_writer_says_when_it_is_ready_and_ends_with_0_when_asked_to() {
    let store = Store::empty();
    let writer = store.serve();
    let expected = format!("ready: store {}, epoch 1, pid {}\n", store.path().display(), writer.pid());
    assert_eq!(writer.ready, expected);
    let run = store.run(&["serve", "STORE"]).expect(4);
    assert!(run.stdout.is_empty() && run.stderr.contains("another writer"), "{run:?}");
    assert_eq!(writer.stop(), 0);
}

#[test]
fn systemd_hears_of_readiness_of_life_and_of_the_end() {
    let store = Store::empty();
    let socket = std::os::unix::net::UnixDatagram::bind(store.beside("notify")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut command = store.command(&["serve", "STORE"]);
    command.env("NOTIFY_SOCKET", store.beside("notify")).env("WATCHDOG_USEC", "300000");
    let mut child = command.spawn().unwrap();
    let mut heard = String::new();
    let mut listen_for = |word: &str| {
        let mut bytes = [0; 1000];
        while !heard.contains(word) {
            let length = socket.recv(&mut bytes).unwrap();
            heard.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
    };
    listen_for("READY=1");
    listen_for("WATCHDOG=1");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    listen_for("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn commands_that_wait_while_a_start_is_killed_are_no_finding() {
    // Between the two databases there is no cut over both, which is one.
    for (point, code) in [("after_floor", 0), ("during_recovery:1", 3), ("during_recovery:2", 0)] {
        let store = Store::new();
        for key in ["a", "b", "c"] {
            store.run(&["exec", "STORE", "--db", "config", INSERT, key, "v", "--level", "queued"]).expect(0);
        }
        let mut command = store.command(&["serve", "STORE", "--once"]);
        assert!(!command.env("PENHOLDER_CRASH_AT", point).output().unwrap().status.success());
        let said = store.run(&["check", "STORE"]).expect(code).stdout;
        assert!(said.contains("3 segments") && !said.contains(".live"), "{point}: {said}");
        assert_eq!(said.contains("start `penholder serve`, it recovers"), code == 3, "{point}: {said}");
        store.run(&["serve", "STORE", "--once"]).expect(0);
        assert_eq!(store.settings(), 3, "{point}");
    }
}

#[test]
fn status_shows_the_same_fields_with_and_without_a_writer() {
    let store = Store::new();
    store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v", "--level", "queued"]).expect(0);
    let idle = store.run(&["status", "STORE", "--json"]).expect(0).json().remove(0);
    assert_eq!((&idle["writer"]["running"], &idle["writer"]["state"]), (&false.into(), &"stopped".into()));
    assert!(idle["spool"]["pending_bytes"].as_u64().unwrap() > 0);
    assert!(idle["spool"]["oldest_pending_seconds"].as_f64().unwrap() < 60.0);
    let writer = store.serve();
    store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v"]).expect(6);
    let busy = store.run(&["status", "STORE", "--json"]).expect(0).json().remove(0);
    assert_eq!(busy["schema"], 1);
    assert_eq!((&busy["writer"]["running"], &busy["writer"]["pid"]), (&true.into(), &writer.pid().into()));
    assert_eq!((&busy["writer"]["epoch"], &busy["writer"]["state"]), (&2.into(), &"running".into()));
    assert_eq!(busy["spool"]["pending_bytes"], 0);
    assert_eq!((&busy["totals"]["applied"], &busy["totals"]["rejected"]), (&1.into(), &1.into()));
    for database in busy["databases"].as_array().unwrap() {
        assert!(database["page_count"].as_u64().unwrap() > 0 && database["wal_bytes"].is_u64(), "{database}");
    }
    let words = store.run(&["status", "STORE"]).expect(0);
    assert!(words.stdout.contains("running, pid"), "{words:?}");
}

#[test]
fn rejected_commands_are_listed_shown_retried_and_dropped() {
    let store = Store::new();
    let _writer = store.serve();
    let insert = |key: &str| store.run(&["exec", "STORE", "--db", "config", INSERT, key, "v"]);
    insert("k").expect(0);
    insert("k").expect(6);
    insert("k").expect(6);
    let list = || store.run(&["rejected", "STORE", "list", "--json"]).expect(0).json();
    let ids: Vec<String> = list().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    let shown = store.run(&["rejected", "STORE", "show", &ids[0], "--json"]).expect(0).json().remove(0);
    assert_eq!(shown["command"]["sql"], INSERT);
    assert_eq!(shown["code"], "constraint");
    let again = store.run(&["rejected", "STORE", "retry", &ids[0]]).expect(6);
    assert!(again.stderr.contains(&format!("{} stays listed", ids[0])), "{again:?}");
    assert_eq!(list().len(), 2, "a retry that is rejected again is listed once, as it was");
    store.run(&["exec", "STORE", "--db", "config", "DELETE FROM settings"]).expect(0);
    store.run(&["rejected", "STORE", "retry", &ids[0]]).expect(0);
    assert_eq!(store.settings(), 1);
    store.run(&["rejected", "STORE", "drop", &ids[1]]).expect(0);
    assert!(list().is_empty());
    store.run(&["rejected", "STORE", "drop", &ids[1]]).expect(1);
    store.run(&["rejected", "STORE", "show", "nonsense"]).expect(2);
}

#[test]
fn a_sound_store_passes_the_check_while_it_is_written_and_after_a_crash() {
    let store = Store::new();
    let writer = store.serve();
    store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v"]).expect(0);
    let report = store.run(&["check", "STORE", "--json"]).expect(0).json().remove(0);
    assert_eq!((&report["ok"], &report["findings"]), (&true.into(), &serde_json::json!([])));
    writer.kill();
    store.run(&["check", "STORE"]).expect(0);
}

#[test]
fn the_check_finds_a_broken_reference_a_damaged_segment_and_an_older_database() {
    let store = Store::new();
    let writer = store.serve();
    store.run(&["backup", "STORE", "--to", store.beside("old").to_str().unwrap()]).expect(0);
    store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v"]).expect(0);
    assert_eq!(writer.stop(), 0);
    store.run(&["exec", "STORE", "--db", "config", INSERT, "x", "v", "--level", "queued"]).expect(0);
    let spool = std::fs::read_dir(store.path().join("spool")).unwrap();
    let segment = spool.map(|item| item.unwrap().path()).find(|path| path.is_file()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() - 10;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let database = store.path().join("config.db");
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", database.display())).ok();
    }
    std::fs::copy(store.beside("old").join("config.db"), &database).unwrap();
    let connection = rusqlite::Connection::open(store.path().join("activity.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA foreign_keys = OFF; INSERT INTO activity_events(session_id, at, kind) VALUES (7, 1, 'x')",
        )
        .unwrap();
    drop(connection);
    let report = store.run(&["check", "STORE", "--json"]).expect(3).json().remove(0);
    let checks: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|f| f["check"].as_str().unwrap()).collect();
    for check in ["foreign_keys", "spool"] {
        assert!(checks.contains(&check), "{check} is not among {report}");
    }
    // By what was reclaimed since, or by the receipt if nothing was.
    assert!(checks.contains(&"clock") || checks.contains(&"receipts"), "{report}");
}

#[test]
fn a_backup_is_a_whole_copy_and_never_overwrites_anything() {
    let store = Store::new();
    let _writer = store.serve();
    store.run(&["exec", "STORE", "--db", "config", INSERT, "k", "v"]).expect(0);
    let copy = store.beside("copy");
    let words = ["backup", "STORE", "--to", copy.to_str().unwrap(), "--json"];
    let printed = store.run(&words).expect(0).json().remove(0);
    let names: Vec<_> = std::fs::read_dir(&copy).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(copy.join("MANIFEST.json")).unwrap()).unwrap();
    assert_eq!(manifest, printed);
    let connection = rusqlite::Connection::open(copy.join("config.db")).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM settings", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    store.run(&words).expect(2);
    let inside = store.path().join("backup");
    let run = store.run(&["backup", "STORE", "--to", inside.to_str().unwrap()]).expect(2);
    assert!(run.stderr.contains("is inside the store") && !inside.exists(), "{run:?}");
    let left: Vec<_> =
        std::fs::read_dir(store.beside("")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing is left beside the store and its copy: {left:?}");
}

#[test]
fn a_control_file_that_is_deleted_under_a_writer_comes_back() {
    let store = Store::new();
    let writer = store.serve();
    let insert = |key: &str| store.run(&["exec", "STORE", "--db", "config", INSERT, key, "v"]).expect(0);
    insert("a");
    let control = store.path().join("control");
    let id = || penholder_protocol::Control::read(&control).map(|content| (content.store, content.epoch));
    let before = id().unwrap();
    std::fs::remove_file(&control).unwrap();
    let mut looks = (0..1000).map(|_| std::thread::sleep(std::time::Duration::from_millis(20)));
    assert!(looks.any(|()| control.exists()), "it did not come back");
    assert_eq!(id().unwrap(), before);
    insert("b");
    let status = store.run(&["status", "STORE", "--json"]).expect(0).json().remove(0);
    assert_eq!(status["writer"]["running"], true);
    assert_eq!(writer.stop(), 0);
    store.run(&["serve", "STORE", "--once"]).expect(0);
    assert_eq!(store.settings(), 2);
}

#[test]
fn where_no_store_is_every_command_says_so() {
    let store = Store::empty();
    let tasks: [&[&str]; 6] = [
        &["exec", "STORE", "--db", "config", "SELECT 1"],
        &["query", "STORE", "--db", "config", "SELECT 1"],
        &["status", "STORE"],
        &["rejected", "STORE"],
        &["check", "STORE"],
        &["grants", "STORE"],
    ];
    let expect = |all: &[&[&str]], said: &str| {
        for words in all {
            let run = store.run(words).expect(1);
            assert!(run.stdout.is_empty() && run.stderr.contains(said), "{run:?}");
        }
    };
    expect(&tasks, &format!("`penholder serve {}`", store.path().display()));
    std::fs::write(store.path(), "a file").unwrap();
    expect(&tasks, &format!("{}/control: Not a directory", store.path().display()));
    expect(&tasks, "name the directory of a store");
    expect(&[&["serve", "STORE", "--once"]], "name the directory of a store");
}

#[test]
fn a_ready_line_that_nobody_takes_is_said_in_words() {
    let store = Store::empty();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = Run::of(&store.command(&["serve", "STORE", "--once"]).stdout(full).output().unwrap()).expect(1);
    assert!(run.stderr.contains("takes the ready line: cannot write the output: "), "{run:?}");
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let store = Store::empty();
    store.run(&["nonsense"]).expect(2);
    store.run(&["exec", "STORE"]).expect(2);
    store.run(&["exec", "STORE", "--db", "config", "SELECT 1", "--window", "4"]).expect(2);
    store.run(&["exec", "STORE", "--db", "config", "SQL", "99999999999999999999"]).expect(2);
    assert!(store.run(&["exec", "--help"]).expect(0).stdout.starts_with("Examples:"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(store.run(&["completions", shell]).expect(0).stdout.contains("penholder"));
    }
    assert!(store.run(&["man"]).expect(0).stdout.contains(".TH penholder"));
    let colored = store.run(&["--color", "always", "--help"]).expect(0).stdout.contains('\u{1b}');
    let plain = !store.run(&["--color=never", "--help"]).expect(0).stdout.contains('\u{1b}');
    assert!(colored && plain);
}

#[test]
fn status_says_who_has_how_much_in_the_spool() {
    use std::os::unix::fs::{MetadataExt, chown};
    let store = Store::new();
    let queue = |key: &str| {
        let insert = cli_common::INSERT;
        store.run(&["exec", "STORE", "--db", "config", insert, key, "v", "--level", "queued"]).expect(0);
    };
    (0..3).for_each(|number| queue(&number.to_string()));
    let spool = store.path().join("spool");
    let own = std::fs::metadata(&spool).unwrap().uid();
    let users = || store.run(&["status", "STORE", "--json"]).expect(0).json()[0]["spool"]["users"].clone();
    let of = |users: &serde_json::Value, at: usize| {
        let user = &users[at];
        assert!(user["pending_bytes"].as_u64().unwrap() > 0, "{users}");
        (user["uid"].as_u64().unwrap(), user["streams"].as_u64().unwrap(), user["segments"].as_u64().unwrap())
    };
    assert_eq!(of(&users(), 0), (own.into(), 3, 3));
    let one = std::fs::read_dir(&spool).unwrap().map(|item| item.unwrap().path()).find(|path| path.is_file());
    if let Err(error) = chown(one.unwrap(), Some(4242), None) {
        println!("SKIPPED in part: giving a file away is not permitted here: {error}");
        return;
    }
    let several = users();
    assert_eq!((of(&several, 0), of(&several, 1)), ((own.into(), 2, 2), (4242, 1, 1)));
    let text = store.run(&["status", "STORE"]).expect(0).stdout;
    assert!(text.contains("uid 4242 1 segment in 1 stream"), "{text}");
}

#[test]
fn serve_refuses_a_store_with_unsafe_modes_and_says_how_to_mend_it() {
    use std::os::unix::fs::PermissionsExt;
    let store = Store::new();
    for (name, bad, mend) in
        [("spool", 0o777, "chmod 1777"), ("", 0o777, "chmod 0750"), ("config.db", 0o666, "chmod 0640")]
    {
        let path = if name.is_empty() { store.path() } else { store.path().join(name) };
        let good = std::fs::metadata(&path).unwrap().permissions();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(bad)).unwrap();
        let refused = store.run(&["serve", "STORE", "--once"]).expect(1).stderr;
        assert!(refused.contains(&format!("{mend} {}", path.display())), "{refused}");
        std::fs::set_permissions(&path, good).unwrap();
    }
    store.run(&["serve", "STORE", "--once"]).expect(0);
}

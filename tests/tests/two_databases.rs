//! Commands over both databases: in both or in neither, whatever dies between the two commits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::time::Duration;

use penholder_client::Durability;
use penholder_client::read::Reader;
use penholder_protocol::{Code, Command, Key, Outcome, Rejection, Statement, limits};
use penholder_tests::{Mix, Plan, SealedSegment, Store, watcher};

const PATIENCE: Duration = Duration::from_secs(20);

fn over_both(sequence: i64) -> Command {
    let sql = "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (7, ?1, 0, 1)";
    let statement = |database| Statement::new(database, sql).bind(sequence);
    Command::new().and(statement("config")).and(statement("activity"))
}

fn rows(store: &Store) -> (i64, i64) {
    let count = |database| store.number(database, "SELECT count(*) FROM ledger");
    (count("config"), count("activity"))
}

/// A store whose writer died after it committed commands 1 to 5 to config, and before it did so to activity.
fn torn_store() -> Store {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    client.submit_batch(&[1, 2, 3, 4, 5].map(over_both), Durability::Queued).unwrap();
    drop(client);
    die_between_commits(&mut store);
    store
}

/// Starts a writer that dies once config has more rows than activity.
fn die_between_commits(store: &mut Store) {
    // Recovery commits as well, and how often is its own affair: try the passes in turn.
    for pass in 1..10 {
        store.set("PENHOLDER_CRASH_AT", &format!("after_commit:{pass}"));
        if store.try_start().is_ok() {
            store.wait_until("the writer's death", Store::writer_is_dead);
            store.forget_writer();
        }
        store.unset("PENHOLDER_CRASH_AT");
        let (config, activity) = rows(store);
        if config > activity {
            return;
        }
    }
    panic!("the writer never died between the commits: {:?}", rows(store));
}

#[test]
fn a_death_between_the_commits_is_mended_at_the_next_start() {
    let mut store = torn_store();
    assert_eq!(rows(&store), (5, 0));
    store.start();
    assert_eq!(rows(&store), (5, 5));
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    assert_eq!(rows(&store), (5, 5));
    store.kill();
    store.start();
    assert_eq!(rows(&store), (5, 5), "what was mended once is void");
}

#[test]
fn the_missing_half_does_not_come_from_the_spool() {
    let mut store = torn_store();
    // What a power cut does to commands that were only queued.
    for segment in store.segments() {
        std::fs::remove_file(store.layout().spool().join(segment)).unwrap();
    }
    store.start();
    assert_eq!(rows(&store), (5, 5));
    let mut client = store.client();
    let outcome = client.execute(over_both(6)).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    assert_eq!(rows(&store), (6, 6));
}

#[test]
fn a_death_while_mending_is_mended_too() {
    let mut store = torn_store();
    for point in ["before_commit", "after_commit", "after_floor", "during_recovery"] {
        store.set("PENHOLDER_CRASH_AT", point);
        match store.try_start() {
            Ok(()) => store.kill(),
            Err(status) => println!("{point}: {status}"),
        }
        let (config, activity) = rows(&store);
        assert!(config == 5 && (activity == 0 || activity == 5), "half of a batch: {activity} of 5");
    }
    store.unset("PENHOLDER_CRASH_AT");
    store.start();
    assert_eq!(rows(&store), (5, 5));
}

#[test]
fn between_the_commits_no_cut_is_given_and_each_database_alone_stays_readable() {
    let mut store = torn_store();
    let mut reader = Reader::open(store.path()).unwrap();
    let error = reader.snapshot().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("writer"), "the error says what to do: {error}");
    for (name, rows) in [("config", 5), ("activity", 0)] {
        let snapshot = reader.single(name).unwrap();
        let count: i64 = snapshot
            .database(name)
            .unwrap()
            .query_row("SELECT count(*) FROM ledger", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, rows, "{name}");
    }
    store.start();
    let snapshot = reader.snapshot().unwrap();
    let count: i64 = snapshot
        .database("activity")
        .unwrap()
        .query_row("SELECT count(*) FROM ledger", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 5);
}

#[test]
fn a_waiting_client_hears_of_it_after_the_mending() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    let failing = Command::new()
        .and(over_both(2).statements.remove(0))
        .and(Statement::new("activity", "INSERT INTO ledger (client, sequence, nonce) VALUES (7, 2, -1)"));
    let tickets = client.submit_batch(&[over_both(1), failing, over_both(3)], Durability::Queued).unwrap();
    die_between_commits(&mut store);
    store.start();
    let outcomes: Vec<_> = tickets.iter().map(|ticket| client.wait(ticket, PATIENCE).unwrap()).collect();
    assert!(
        matches!(outcomes[..], [Outcome::Applied(_), Outcome::Rejected(_), Outcome::Applied(_)]),
        "the recorded outcomes decide: {outcomes:?}"
    );
    assert_eq!(rows(&store), (2, 2));
    for database in ["config", "activity"] {
        assert_eq!(store.number(database, "SELECT count(*) FROM _penholder_rejected"), 1, "{database}");
    }
}

#[test]
fn a_command_may_count_on_what_the_one_before_it_did_in_the_other_kind() {
    let store = Store::started();
    let mut client = store.client();
    let mut commands = Vec::new();
    for sequence in 1..=200 {
        let sql = "INSERT INTO ledger (client, sequence, nonce) VALUES (8, ?1, 0)";
        commands.push(Statement::new("activity", sql).bind(sequence).into());
        let update = "UPDATE ledger SET nonce = nonce + 1 WHERE client = 8 AND sequence = ?1";
        let needs = Statement::new("activity", update).bind(sequence).expect(1);
        commands.push(over_both(sequence).and(needs));
    }
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    for ticket in tickets.iter() {
        let outcome = client.wait(ticket, PATIENCE).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }
    assert_eq!(rows(&store), (200, 400));
}

#[test]
fn rounds_of_kill_9_leave_every_command_in_both_or_in_neither() {
    let mut random = penholder_tests::Random::new(u64::from(std::process::id()));
    let mut store = Store::started();
    let workers = [store.start_worker(Mix::Both, 3000), store.start_worker(Mix::Both, 3000)];
    for _ in 0..25 {
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        store.kill();
        store.start();
        watcher::look_once(&store.path()).unwrap();
    }
    workers.into_iter().for_each(penholder_tests::Process::finish);
    let verdict = store.settle_and_verify();
    println!("{verdict}");
    verdict.expect_clean();
}

#[test]
fn a_sealed_segment_over_both_survives_the_death_too() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let plan = Plan::new(3, Mix::Both);
    let segment = SealedSegment::new(&store.path()).frame((1..=50).map(|sequence| plan.command(sequence)));
    segment.drop_into(&store.path());
    die_between_commits(&mut store);
    store.start();
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    let expected = (1..=50).filter(|sequence| plan.kind(*sequence).writes("config")).count();
    let expected = i64::try_from(expected).unwrap();
    assert_eq!(rows(&store), (expected, expected));
}

/// A command over both databases that repeats one of the longest texts and one of the shortest: few bytes in the spool.
fn repeated(long: usize, short: usize) -> Command {
    let change = "DELETE FROM ledger";
    let padded = format!("{change} --{}", "x".repeat(limits::SQL_BYTES_MAX - change.len() - 3));
    let on = |database, sql: &str, count| vec![Statement::new(database, sql); count];
    let statements =
        [on("config", change, 1), on("activity", &padded, long), on("activity", change, short)].concat();
    Command { key: None, statements }
}

fn is_over_limit(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected(Rejection { code: Code::Limit, .. }))
}

#[test]
fn a_command_that_is_too_large_for_a_row_is_rejected_alone() {
    let store = Store::started();
    let mut client = store.client();
    let commands = [over_both(1), repeated(70, 0), repeated(70, 0), over_both(2)];
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    let outcomes: Vec<_> = tickets.iter().map(|ticket| client.wait(ticket, PATIENCE).unwrap()).collect();
    assert!(matches!(outcomes[..], [Outcome::Applied(_), _, _, Outcome::Applied(_)]), "{outcomes:?}");
    assert!(outcomes[1..3].iter().all(is_over_limit), "{outcomes:?}");
    assert_eq!(rows(&store), (2, 2));
}

#[test]
fn legal_commands_that_do_not_fit_into_one_row_together_are_all_applied() {
    let mut store = Store::new();
    store.settings("[batch]\nbytes_max = 8388608\nturn_bytes = 8388608\ntime_max_ms = 20000\n");
    store.start();
    assert!(store.stop().success());
    let mut client = store.client();
    // Just below the bound of a batch by the bytes in the spool and of SQL, well above it as they are stored.
    let mut commands = vec![repeated(14, 0)];
    commands.extend(vec![repeated(0, 4000); 30]);
    commands.push(repeated(31, 2000));
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    store.start();
    for ticket in tickets.iter() {
        let outcome = client.wait(ticket, PATIENCE).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }
}

#[test]
fn what_was_rejected_before_the_death_is_the_same_in_both_after_the_mending() {
    let mut store = Store::started();
    assert!(store.stop().success());
    let mut client = store.client();
    let failing = |sequence: i64| {
        let sql = "INSERT INTO ledger (client, sequence, nonce) VALUES (7, ?1, -1)";
        over_both(sequence).and(Statement::new("activity", sql).bind(sequence))
    };
    let [failed, reused] = [(); 2].map(|()| Key::random().unwrap());
    let commands = [
        over_both(1),
        repeated(70, 0),
        failing(2).with_key(failed),
        failing(2).with_key(failed),
        repeated(70, 0).with_key(reused),
        over_both(3).with_key(reused),
        over_both(3).with_key(reused),
        over_both(4).with_key(reused),
    ];
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    die_between_commits(&mut store);
    store.start();
    for (place, ticket) in tickets.iter().enumerate() {
        let outcome = client.wait(ticket, PATIENCE).unwrap();
        assert_eq!(
            matches!(outcome, Outcome::Applied(_)),
            [0, 5, 6].contains(&place),
            "{place}: {outcome:?}"
        );
    }
    assert_eq!(rows(&store), (2, 2));
    for table in ["_penholder_rejected", "_penholder_key"] {
        let [config, activity] = ["config", "activity"].map(|database| contents(&store, database, table));
        assert_eq!(config, activity, "{table}");
        assert!(!config.is_empty(), "{table}");
    }
}

#[test]
fn of_three_databases_the_first_of_a_batch_knows_what_the_others_have_to_follow() {
    let mut store = Store::new();
    store.settings("databases = [\"config\", \"activity\", \"archive\"]\n");
    store.add_migration("activity", "CREATE TABLE more (a)");
    let schema = store.scratch().join("schema");
    std::fs::create_dir(schema.join("archive")).unwrap();
    std::fs::copy(schema.join("config/001_ledger.sql"), schema.join("archive/001_ledger.sql")).unwrap();
    store.start();
    assert!(store.stop().success());
    let mut client = store.client();
    let sql = "INSERT INTO ledger (client, sequence, nonce) VALUES (7, 2, ?1)";
    let into = |database, nonce: i64| Statement::new(database, sql).bind(nonce);
    let failing = Command::new().and(into("activity", 0)).and(into("archive", -1));
    let commands = [over_both(1), failing.with_key(Key::random().unwrap()), over_both(3)];
    let tickets = client.submit_batch(&commands, Durability::Queued).unwrap();
    die_between_commits(&mut store);
    store.start();
    let outcomes: Vec<_> = tickets.iter().map(|ticket| client.wait(ticket, PATIENCE).unwrap()).collect();
    assert!(
        matches!(outcomes[..], [Outcome::Applied(_), Outcome::Rejected(_), Outcome::Applied(_)]),
        "{outcomes:?}"
    );
    assert_eq!(rows(&store), (2, 2));
    for table in ["_penholder_rejected", "_penholder_key"] {
        let [activity, archive] = ["activity", "archive"].map(|database| contents(&store, database, table));
        assert_eq!(activity, archive, "{table}");
        assert_eq!(activity.len(), 1, "{table}");
    }
}

/// All that a table holds, as text.
fn contents(store: &Store, database: &str, table: &str) -> Vec<String> {
    let database = store.database(database);
    let mut statement = database.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        Ok((0..columns)
            .map(|column| format!("{:?}", row.get_ref_unwrap(column)))
            .collect::<Vec<_>>()
            .concat())
    };
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

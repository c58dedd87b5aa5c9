//! The system's sqlite3 on the writer's databases: whatever it does, no commit is lost.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use penholder_tests::{Process, Store};

use crate::arena::Arena;
use crate::crew::Crew;
use crate::machine;
use crate::scenario::Skip;

/// Rounds in the life of one store.
const ROUNDS_PER_STORE: u64 = 60;

/// What a neighbour may want to write to.
const TABLE: &str = "CREATE TABLE neighbour (word TEXT) STRICT;";

/// What a neighbour does, and as what it counts.
const DEEDS: [(&str, &str); 9] = [
    ("foreign reads", "SELECT count(*) FROM ledger;"),
    ("foreign reads", "BEGIN; SELECT count(*) FROM ledger; SELECT max(id) FROM ledger; COMMIT;"),
    ("foreign checkpoints", "PRAGMA wal_checkpoint(PASSIVE);"),
    ("foreign checkpoints", "PRAGMA wal_checkpoint(RESTART);"),
    ("foreign checkpoints", "PRAGMA wal_checkpoint(TRUNCATE);"),
    ("foreign changes of the journal mode", "PRAGMA journal_mode = DELETE;"),
    ("foreign vacuums", "VACUUM;"),
    ("foreign writes", "INSERT INTO neighbour VALUES ('hello');"),
    ("foreign writes", "BEGIN IMMEDIATE; INSERT INTO neighbour VALUES ('held');\n.shell sleep 0.1\nCOMMIT;"),
];

pub(crate) fn run(arena: &mut Arena) -> Result<(), Skip> {
    machine::need("sqlite3")?;
    let mut going = arena.next_round();
    while going {
        let mut store = store_with_table(arena);
        store.start();
        let mut crew = Crew::start(&mut store);
        for round in 0..ROUNDS_PER_STORE {
            arena.nap(Duration::from_millis(40));
            let spinner = (round % 10 == 5).then(|| spin(&store, &store.layout().database("activity")));
            visit(arena, &store);
            if arena.chance(8) {
                // What is left is then opened by the neighbour first.
                store.kill();
                arena.count("writers killed");
                visit(arena, &store);
                store.start();
            }
            if arena.chance(8) {
                crew.kill_one(&mut store, &mut arena.random);
                arena.count("clients killed");
            }
            if spinner.is_some() {
                arena.count("spinners for the lock");
            }
            going = arena.next_round();
            if !going {
                break;
            }
        }
        crew.finish(&store);
        let got_in: i64 = ["activity", "config"]
            .iter()
            .map(|name| store.number(name, "SELECT count(*) FROM neighbour"))
            .sum();
        arena.count_many("foreign rows that got in", got_in.unsigned_abs());
        arena.verify(&mut store);
    }
    Ok(())
}

fn store_with_table(arena: &Arena) -> Store {
    let mut store = arena.store();
    store.add_migration("activity", TABLE);
    store.add_migration("config", TABLE);
    store
}

/// One random deed of a neighbour, to its end.
pub(crate) fn visit(arena: &mut Arena, store: &Store) {
    let (kind, deed) = DEEDS[usize::try_from(arena.random.below(DEEDS.len() as u64)).unwrap()];
    let database = if arena.chance(2) { "activity" } else { "config" };
    let patience = if arena.chance(2) { ".timeout 0" } else { ".timeout 200" };
    // Whether it was let in or not is the same to us; that it does not harm is what is verified.
    let neighbour = neighbour(store, &store.layout().database(database), &format!("{patience}\n{deed}\n"));
    neighbour.wait();
    arena.count(kind);
}

/// Tries to write as fast as it can, for a while or until dropped.
fn spin(store: &Store, database: &Path) -> Process {
    neighbour(store, database, &"INSERT INTO neighbour VALUES ('spun');\n".repeat(3000))
}

fn neighbour(store: &Store, database: &Path, script: &str) -> Process {
    let file = store.scratch().join("deed.sql");
    std::fs::write(&file, script).unwrap();
    let mut command = Command::new("sqlite3");
    command.arg(database).stdin(File::open(file).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
    Process::start(&mut command)
}

//! A store made by hand, and somebody who plays its writer: what a reader can be tested with alone.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use penholder_client::read::{Reader, ReaderConfig};
use penholder_protocol::{Control, DatabaseSlot, Epoch, Layout, StoreId, Tick, WriterState};
use rusqlite::Connection;

pub(crate) const DATABASES: [&str; 2] = ["config", "activity"];

/// A store in a directory of its own, with the built-in schema and clocks at tick 1.
pub(crate) struct Store {
    pub(crate) directory: tempfile::TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        let store = Self { directory: tempfile::tempdir().unwrap() };
        store.write_control(&DATABASES);
        for (name, connection) in DATABASES.iter().zip(&mut store.connections()) {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../writer/schema/{name}/001_{name}.sql"));
            connection.execute_batch(&std::fs::read_to_string(path).unwrap()).unwrap();
            connection
                .execute_batch(
                    "CREATE TABLE _penholder_clock(database TEXT PRIMARY KEY, tick INTEGER, previous INTEGER, applied INTEGER, \
                     rejected INTEGER);
                     INSERT INTO _penholder_clock VALUES ('config', 1, 0, 0, 0), ('activity', 1, 0, 0, 0)",
                )
                .unwrap();
        }
        store
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.path())
    }

    pub(crate) fn write_control(&self, databases: &[&str]) {
        let slot = |name: &&str| DatabaseSlot { name: (*name).to_owned(), reclaimed: Tick(0) };
        let mut control = Control {
            store: StoreId::random().unwrap(),
            generation: 0,
            epoch: Epoch(1),
            floor: Epoch(0),
            state: WriterState::Running,
            pid: 0,
            torn: 0,
            quarantined: 0,
            foreign_writes: 0,
            quota_stream_bytes: 1 << 30,
            free_bytes_min: 0,
            suspect: None,
            fruitless_starts: 0,
            databases: databases.iter().map(slot).collect(),
        };
        let path = self.layout().control();
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
        control.write_to(&file, false).unwrap();
    }

    fn connections(&self) -> Vec<Connection> {
        DATABASES.iter().map(|name| connect(self.layout().database(name))).collect()
    }

    pub(crate) fn writer(&self) -> Writer {
        Writer { connections: self.connections(), ticks: [1, 1] }
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader::open(self.path()).unwrap()
    }

    /// A reader that gives up after a few milliseconds.
    pub(crate) fn hasty_reader(&self) -> Reader {
        let config = ReaderConfig::new(self.path());
        let config =
            ReaderConfig { tries_count_max: 5, catch_up: std::time::Duration::from_millis(5), ..config };
        Reader::with_config(config).unwrap()
    }

    /// Holds the lock that tells a running writer, until the file is dropped.
    pub(crate) fn look_running(&self) -> File {
        let control = File::open(self.layout().control()).unwrap();
        fs2::FileExt::lock_exclusive(&control).unwrap();
        control
    }
}

fn connect(path: PathBuf) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF").unwrap();
    connection
}

/// Commits as the writer does: in order, each commit with the clock rows of all databases.
pub(crate) struct Writer {
    connections: Vec<Connection>,
    ticks: [u64; 2],
}

impl Writer {
    /// Begins a batch over the databases whose SQL is not empty; commit its parts with [`Batch::commit_next`].
    pub(crate) fn batch<'w>(&'w mut self, config: &'w str, activity: &'w str) -> Batch<'w> {
        let tick = self.ticks.iter().max().unwrap() + 1;
        let sql = [config, activity];
        for (last, sql) in self.ticks.iter_mut().zip(sql) {
            if !sql.is_empty() {
                *last = tick;
            }
        }
        Batch { writer: self, sql, next: 0, tick: Tick(tick) }
    }

    /// Commits a whole batch and returns its tick.
    pub(crate) fn commit(&mut self, config: &str, activity: &str) -> Tick {
        let mut batch = self.batch(config, activity);
        while batch.commit_next() {}
        batch.tick
    }
}

pub(crate) struct Batch<'w> {
    writer: &'w mut Writer,
    sql: [&'w str; 2],
    next: usize,
    pub(crate) tick: Tick,
}

impl Batch<'_> {
    /// Commits in the next database that the batch touches; false: there is none left.
    pub(crate) fn commit_next(&mut self) -> bool {
        while let Some(sql) = self.sql.get(self.next) {
            let connection = &self.writer.connections[self.next];
            self.next += 1;
            if sql.is_empty() {
                continue;
            }
            let row = |(name, tick)| {
                format!(
                    "UPDATE _penholder_clock SET previous=tick, tick={tick} WHERE database='{name}' AND tick<{tick};"
                )
            };
            let clock = DATABASES.iter().zip(self.writer.ticks).map(row).collect::<Vec<_>>().concat();
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {sql}; {clock} COMMIT")).unwrap();
            return true;
        }
        false
    }
}

/// Random numbers from a seed that is printed, and taken from `PENHOLDER_SEED` if that is set.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let given = std::env::var("PENHOLDER_SEED").ok().and_then(|seed| seed.parse().ok());
        let drawn = || u64::from(std::process::id());
        let seed = given.unwrap_or_else(drawn);
        println!("seed: PENHOLDER_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound` (splitmix64).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
    /// The same as a signed number.
    pub(crate) fn signed_below(&mut self, bound: u32) -> i64 {
        i64::try_from(self.below(u64::from(bound))).unwrap()
    }
}

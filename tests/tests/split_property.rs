//! Random schemas with random rows: whatever can be stored arrives, and the digests say so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

mod split_common;

use std::fmt::Write;

use penholder::split::OrphanPolicy;
use penholder_tests::Random;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::split_common::Legacy;

const TYPES: [&str; 8] =
    ["", "INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC", "VARCHAR(10) COLLATE NOCASE", "INT"];

/// A whole legacy database, drawn from one number.
struct Drawn {
    random: Random,
    sql: String,
    tables: Vec<Table>,
}

struct Table {
    name: String,
    columns: usize,
    in_config: bool,
    has_rowid_key: bool,
    has_unique: bool,
}

impl Drawn {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), sql: String::new(), tables: Vec::new() }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap()
    }

    fn schema(&mut self) {
        let encoding = ["UTF-8", "UTF-16le", "UTF-16be"][self.below(3)];
        let (page, vacuum) = (512 << self.below(8), self.below(3));
        self.sql = format!(
            "PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page}; PRAGMA auto_vacuum = {vacuum};\n"
        );
        for number in 0..=self.below(4) {
            self.table(number);
        }
    }

    fn table(&mut self, number: usize) {
        let name = format!("t {number}");
        let columns = 1 + self.below(5);
        let mut parts: Vec<String> =
            (0..columns).map(|at| format!("c{at} {}", TYPES[self.below(TYPES.len())])).collect();
        let in_config = self.below(3) == 0;
        let kind = self.below(6);
        let mut tail = "";
        match kind {
            0 => parts.insert(0, "id INTEGER PRIMARY KEY".into()),
            1 => parts.insert(0, "id INTEGER PRIMARY KEY AUTOINCREMENT".into()),
            2 => {
                parts.push("PRIMARY KEY (c0)".into());
                tail = " WITHOUT ROWID";
            }
            3 => parts.push("UNIQUE (c0)".into()),
            _ => {}
        }
        if self.below(4) == 0 {
            parts.insert(parts.len().min(columns), "g AS (typeof(c0) || quote(c0))".into());
        }
        let parents: Vec<String> = self
            .tables
            .iter()
            .filter(|parent| parent.has_rowid_key && (!in_config || parent.in_config))
            .map(|parent| parent.name.clone())
            .collect();
        if !parents.is_empty() && self.below(2) == 0 {
            let parent = &parents[self.below(parents.len())];
            let action = ["", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON DELETE RESTRICT"][self.below(4)];
            parts.push(format!("FOREIGN KEY (c{}) REFERENCES \"{parent}\"(id) {action}", columns - 1));
        }
        writeln!(self.sql, "CREATE TABLE \"{name}\"({}){tail};", parts.join(", ")).unwrap();
        for index in 0..self.below(3) {
            let column = self.below(columns);
            let over = [format!("c{column}"), format!("c{column} DESC"), format!("typeof(c{column})")]
                [self.below(3)]
            .clone();
            let part =
                if self.below(2) == 0 { format!(" WHERE c{column} IS NOT NULL") } else { String::new() };
            writeln!(self.sql, "CREATE INDEX \"i {number} {index}\" ON \"{name}\"({over}){part};").unwrap();
        }
        let table =
            Table { name, columns, in_config, has_rowid_key: kind < 2, has_unique: kind == 2 || kind == 3 };
        self.tables.push(table);
    }

    fn value(&mut self) -> Value {
        const INTEGERS: [i64; 7] = [0, 1, -1, i64::MAX, i64::MIN, 1 << 53, 127];
        const REALS: [f64; 8] =
            [0.0, -0.0, 1.0, 0.1, f64::MAX, f64::INFINITY, f64::NAN, 9_007_199_254_740_993.0];
        const TEXTS: [&str; 8] = ["", "1", "01", "1.0", "ä€😀", "a\0b", "x'00'", "9223372036854775808"];
        match self.below(7) {
            0 => Value::Null,
            1 => Value::Integer(INTEGERS[self.below(INTEGERS.len())]),
            2 => Value::Real(REALS[self.below(REALS.len())]),
            3 => Value::Text(TEXTS[self.below(TEXTS.len())].into()),
            4 => Value::Text(format!("{:x}", self.random.bits()).repeat(self.below(400))),
            5 => Value::Blob((0..self.below(3000)).map(|_| self.random.bits().to_le_bytes()[0]).collect()),
            _ => Value::Integer(self.random.bits().cast_signed() >> self.below(64)),
        }
    }

    fn rows(&mut self, connection: &Connection) {
        for at in 0..self.tables.len() {
            let (name, columns) = (self.tables[at].name.clone(), self.tables[at].columns);
            let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
            let places = vec!["?"; columns].join(", ");
            // A key that is there already is passed over.
            let or = if self.tables[at].has_unique { "OR IGNORE " } else { "" };
            let sql = format!("INSERT {or}INTO \"{name}\"({}) VALUES ({places})", names.join(", "));
            let mut insert = connection.prepare(&sql).unwrap();
            for _ in 0..self.below(80) {
                let values: Vec<Value> = (0..columns).map(|_| self.value()).collect();
                insert.execute(rusqlite::params_from_iter(values)).unwrap();
            }
            let gaps = 2 + self.below(5);
            connection
                .execute(
                    &format!(
                        "DELETE FROM \"{name}\" WHERE (abs(random()) % {gaps}) = 0 OR typeof(c0) = 'real'"
                    ),
                    [],
                )
                .unwrap();
        }
    }
}

#[test]
fn a_random_database_arrives_as_it_was() {
    let given = std::env::var("PENHOLDER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let cases = if given.is_some() { 1 } else { 60 };
    let strategy = given.map_or_else(|| any::<u64>().boxed(), |seed: u64| Just(seed).boxed());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let run = |seed: u64| {
        println!("seed {seed}: PENHOLDER_TEST_SEED={seed} runs it alone");
        let mut drawn = Drawn::new(seed);
        drawn.schema();
        let legacy = Legacy::new(&drawn.sql);
        let connection = Connection::open(legacy.path()).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection.execute_batch("BEGIN").unwrap();
        drawn.rows(&connection);
        connection.execute_batch("COMMIT").unwrap();
        drop(connection);
        let in_config: Vec<&str> =
            drawn.tables.iter().filter(|table| table.in_config).map(|table| table.name.as_str()).collect();
        let mut request = legacy.request(&in_config);
        request.orphans = OrphanPolicy::Keep;
        let report = legacy.split(&request);
        assert_eq!(report.tables.len(), drawn.tables.len());
        Ok(())
    };
    TestRunner::new(config).run(&strategy, run).unwrap();
}

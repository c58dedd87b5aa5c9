//! This program as several processes: each gets ready, waits for the start signal, works, and reports one JSON line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::workload::{Progress, histogram};
use crate::{client, direct, fence, writer};

/// What a child process is to do.
#[derive(Args, Clone)]
pub(crate) struct Role {
    /// writer, applied, bulk, direct, direct-bulk, idle or spin.
    pub(crate) name: String,
    /// The store, or the directory of the database.
    pub(crate) place: PathBuf,
    /// Number of the client, from 1.
    #[arg(default_value_t = 0)]
    pub(crate) client: u64,
    /// How long to work, in seconds.
    #[arg(default_value_t = 0.0)]
    pub(crate) seconds: f64,
    /// How many rows to write.
    #[arg(default_value_t = 0)]
    pub(crate) rows: u64,
}

impl Role {
    fn new(name: &str, place: &Path, client: usize, seconds: f64, rows: u64) -> Self {
        Self { name: name.into(), place: place.to_owned(), client: client as u64, seconds, rows }
    }

    pub(crate) fn writer(place: &Path) -> Self {
        Self::new("writer", place, 0, 0.0, 0)
    }

    pub(crate) fn applied(place: &Path, client: usize, seconds: f64) -> Self {
        Self::new("applied", place, client, seconds, 0)
    }

    pub(crate) fn bulk(place: &Path, client: usize, rows: u64) -> Self {
        Self::new("bulk", place, client, 0.0, rows)
    }

    pub(crate) fn direct(place: &Path, client: usize, seconds: f64) -> Self {
        Self::new("direct", place, client, seconds, 0)
    }

    pub(crate) fn direct_bulk(place: &Path, client: usize, rows: u64) -> Self {
        Self::new("direct-bulk", place, client, 0.0, rows)
    }

    pub(crate) fn idle(place: &Path, client: usize) -> Self {
        Self::new("idle", place, client, 0.0, 1)
    }

    pub(crate) fn spin(place: &Path, client: usize, seconds: f64) -> Self {
        Self::new("spin", place, client, seconds, 0)
    }

    /// The command line that starts this role.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("__child").arg(&self.name).arg(&self.place);
        command.arg(self.client.to_string()).arg(self.seconds.to_string()).arg(self.rows.to_string());
        command
    }
}

/// Runs as a child process.
pub(crate) fn run(role: &Role) {
    match role.name.as_str() {
        "writer" => writer::run(&role.place),
        "applied" => client::applied(role),
        "bulk" => client::bulk(role),
        "idle" => client::idle(role),
        "direct" => direct::one_by_one(role),
        "direct-bulk" => direct::bulk(role),
        "spin" => fence::spin(role),
        other => panic!("no such role: {other}"),
    }
}

/// In a child: tells the parent that everything is open, and waits for the start signal.
pub(crate) fn wait_for_start() -> Instant {
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n", "the parent process is gone");
    Instant::now()
}

/// In a child: reports what was done.
pub(crate) fn report(client: u64, count: u64, latency: &hdrhistogram::Histogram<u64>) {
    let buckets: Vec<(u64, u64)> =
        latency.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
    println!("{}", json!({ "client": client, "count": count, "latency": buckets }));
}

/// A running child process.
pub(crate) struct Worker {
    process: std::process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn start(role: &Role) -> Self {
        let mut process = role
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts itself");
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, stdin, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "a child process ended early: {:?}", self.process.wait());
        line
    }
}

/// The child processes of one measurement.
pub(crate) struct Fleet {
    workers: Vec<Worker>,
}

impl Fleet {
    /// Starts them and waits until all are ready.
    pub(crate) fn start(roles: impl Iterator<Item = Role>) -> Self {
        let mut workers: Vec<Worker> = roles.map(|role| Worker::start(&role)).collect();
        for worker in &mut workers {
            assert_eq!(worker.line(), "ready\n");
        }
        Self { workers }
    }

    /// Gives the start signal, and collects what they did.
    pub(crate) fn run(mut self) -> Progress {
        let start = Instant::now();
        self.signal();
        let mut progress =
            Progress { counts: vec![0; self.workers.len()], elapsed: Duration::ZERO, latency: histogram() };
        for (worker, count) in self.workers.iter_mut().zip(&mut progress.counts) {
            let report: Value = serde_json::from_str(&worker.line()).unwrap();
            *count = report["count"].as_u64().unwrap();
            for bucket in report["latency"].as_array().unwrap() {
                let (value, count) = (bucket[0].as_u64().unwrap(), bucket[1].as_u64().unwrap());
                progress.latency.record_n(value, count).unwrap();
            }
            progress.elapsed = start.elapsed();
        }
        self.join();
        progress
    }

    /// Gives the start signal.
    pub(crate) fn signal(&mut self) {
        for worker in &mut self.workers {
            worker.stdin.write_all(b"go\n").unwrap();
        }
    }

    /// Waits for the end of every process.
    pub(crate) fn join(self) {
        for worker in self.workers {
            drop(worker.stdin);
            let mut process = worker.process;
            assert!(process.wait().unwrap().success(), "a child process failed");
        }
    }
}

//! This program as several processes: each gets ready, waits for the start signal, works, and reports one JSON line.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::workload::{Progress, histogram};
use crate::{client, direct, fence, files, postgres_client, socket, writer};

/// What a child process is to do.
#[derive(Args, Clone)]
pub(crate) struct Role {
    #[arg(value_enum)]
    job: Job,
    /// The store, or the directory of the database.
    pub(crate) place: PathBuf,
    /// Number of the client, from 1.
    pub(crate) client: u64,
    /// How long to work, in seconds.
    pub(crate) seconds: f64,
    /// How many rows to write.
    pub(crate) rows: u64,
}

/// What child processes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Job {
    Writer,
    Applied,
    Bulk,
    Idle,
    Sqlite,
    SqliteNormal,
    Connection,
    Postgres,
    Files,
    FilesWriter,
    Socket,
    SocketWriter,
    Spin,
}

impl Role {
    /// A process that others are served by.
    pub(crate) fn server(job: Job, place: &Path) -> Self {
        Self { job, place: place.to_owned(), client: 0, seconds: 0.0, rows: 0 }
    }

    /// A client that works until the time is over.
    pub(crate) fn timed(job: Job, place: &Path, client: usize, seconds: f64) -> Self {
        Self { job, place: place.to_owned(), client: client as u64, seconds, rows: 0 }
    }

    /// A client that writes so many rows.
    pub(crate) fn counted(job: Job, place: &Path, client: usize, rows: u64) -> Self {
        Self { job, place: place.to_owned(), client: client as u64, seconds: 0.0, rows }
    }

    /// The command line that starts this role.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("__child").arg(self.job.to_possible_value().unwrap().get_name()).arg(&self.place);
        command.arg(self.client.to_string()).arg(self.seconds.to_string()).arg(self.rows.to_string());
        command
    }
}

/// Runs as a child process.
pub(crate) fn run(role: &Role) {
    match role.job {
        Job::Writer => writer::run(&role.place),
        Job::Applied => client::applied(role),
        Job::Bulk => client::bulk(role),
        Job::Idle => client::idle(role),
        Job::Sqlite => direct::one_by_one(role, "full"),
        Job::SqliteNormal => direct::one_by_one(role, "normal"),
        Job::Connection => direct::bulk(role),
        Job::Postgres => postgres_client::one_by_one(role),
        Job::Files => files::one_by_one(role),
        Job::FilesWriter => files::write(&role.place),
        Job::Socket => socket::one_by_one(role),
        Job::SocketWriter => socket::write(&role.place),
        Job::Spin => fence::spin(role),
    }
}

/// In a child: one command after the other until the time is over, each timed until `apply` knows that it is committed.
pub(crate) fn one_by_one(role: &Role, mut apply: impl FnMut(u64)) {
    let mut latency = histogram();
    let start = wait_for_start();
    let mut count = 0;
    while start.elapsed().as_secs_f64() < role.seconds {
        let begun = Instant::now();
        apply(count + 1);
        latency.saturating_record(begun.elapsed().as_micros() as u64);
        count += 1;
    }
    report(role.client, count, &latency);
}

/// In the parent: waits until a child says that everything is open.
pub(crate) fn wait_until_ready(stdout: impl Read) {
    let mut line = String::new();
    BufReader::with_capacity(READY.len(), stdout).read_line(&mut line).unwrap();
    assert_eq!(line, READY, "a child process failed as it started");
}

/// What a child says once everything is open.
const READY: &str = "ready\n";

/// In a child: tells the parent that everything is open, and waits for the start signal.
pub(crate) fn wait_for_start() -> Instant {
    tell_ready();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n", "the parent process is gone");
    Instant::now()
}

/// In a child: tells the parent that everything is open.
pub(crate) fn tell_ready() {
    print!("{READY}");
    std::io::stdout().flush().unwrap();
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
            assert_eq!(worker.line(), READY);
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

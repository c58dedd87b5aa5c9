//! Drives the app server through HTTP, from several connections at once, with what this machine has installed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use penholder_client::Key;
use serde_json::{Value, json};
use ureq::Agent;

use crate::Result;
use crate::processes::{domain_of, now_ms};

/// Connections to the app server; each waits for its answer before it asks again.
pub(crate) const CONNECTIONS: usize = 8;
/// How often a request is repeated that the app server could not finish in time.
const TRIES: u32 = 5;

/// What the user would set up: a project for every directory of programs, and a domain for every program in it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    projects: Vec<Value>,
    domains: Vec<Value>,
}

impl Plan {
    /// Looks at the directories on the search path, then at those whose programs run now.
    pub(crate) fn of_this_machine() -> Self {
        let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let mut directories: Vec<PathBuf> = std::env::split_paths(&search).collect();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let program = std::fs::read_link(process.path().join("exe"));
            directories.extend(program.ok().and_then(|program| Some(program.parent()?.to_owned())));
        }
        let (mut plan, mut seen) = (Self::default(), BTreeSet::new());
        for directory in directories {
            if let Ok(real) = directory.canonicalize()
                && seen.insert(real.clone())
            {
                plan.add(&real, &mut seen);
            }
        }
        plan
    }

    /// Adds a directory as a project. A program with several names counts once, under its real one.
    fn add(&mut self, directory: &Path, seen: &mut BTreeSet<PathBuf>) {
        let project = directory.display().to_string();
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let programs = entries.filter_map(|entry| entry.path().canonicalize().ok());
        let new: Vec<PathBuf> = programs.filter(|path| path.is_file() && seen.insert(path.clone())).collect();
        let domains =
            std::iter::once(directory).chain(new.iter().map(PathBuf::as_path)).filter_map(domain_of);
        self.domains
            .extend(domains.map(|domain| json!({ "domain": { "domain": domain, "project": project } })));
        let project = json!({ "name": project, "client": "this machine", "at": now_ms() });
        self.projects.push(json!({ "project": project }));
    }

    fn names(&self) -> Vec<&str> {
        self.projects.iter().filter_map(|project| project.pointer("/project/name")?.as_str()).collect()
    }
}

/// What came of it, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Writes that the app server confirmed.
    pub(crate) confirmed: AtomicU64,
    /// Writes that it refused, such as a second project of the same name.
    pub(crate) refused: AtomicU64,
    /// Requests that had to be repeated.
    pub(crate) repeated: AtomicU64,
    /// The slowest request, in microseconds.
    pub(crate) slowest_us: AtomicU64,
    next_domain: AtomicUsize,
}

/// A connection to the app server, kept open between requests.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    number: usize,
    url: String,
    agent: Agent,
}

impl Connection {
    pub(crate) fn new(number: usize, url: &str) -> Self {
        let agent = Agent::config_builder().http_status_as_error(false).build().into();
        Self { number, url: url.to_owned(), agent }
    }
}

/// Gives the programs to their projects, then changes settings and notes focuses until it is asked to stop.
pub(crate) fn drive(connection: &Connection, plan: &Plan, tally: &Tally, stop: &AtomicBool) -> Result<()> {
    let names = plan.names();
    let mut round: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let next = tally.next_domain.fetch_add(1, Ordering::Relaxed);
        let change = match (plan.domains.get(next), names.get(next % names.len().max(1))) {
            (Some(domain), _) => domain.clone(),
            (None, Some(project)) if round.is_multiple_of(4) => {
                json!({ "focus": { "project": project, "at": now_ms() } })
            }
            (None, _) => {
                let key = format!("connection.{}.round", connection.number);
                json!({ "setting": { "key": key, "value": round.to_string() } })
            }
        };
        post(connection, &change, tally)?;
    }
    Ok(())
}

/// Creates the projects, and tries each name a second time, as users do. All connections take turns, so that each is
/// open before they all speak at once: the server's pool of threads grows for one newcomer at a time.
pub(crate) fn create_projects(connections: &[Connection], plan: &Plan, tally: &Tally) -> Result<()> {
    let projects = plan.projects.iter().chain(&plan.projects);
    projects
        .zip(connections.iter().cycle())
        .try_for_each(|(project, connection)| post(connection, project, tally))
}

/// Enters an appointment.
pub(crate) fn note(url: &str, title: &str, starts_at: i64, ends_at: i64, tally: &Tally) -> Result<()> {
    let change = json!({ "appointment": { "title": title, "starts_at": starts_at, "ends_at": ends_at } });
    post(&Connection::new(0, url), &change, tally)
}

/// Posts one change until there is an answer: with one key for all tries, it happens once.
fn post(connection: &Connection, change: &Value, tally: &Tally) -> Result<()> {
    let key = Key::random()?.to_string();
    for _ in 0..TRIES {
        let started = Instant::now();
        let response = connection
            .agent
            .post(format!("{}/changes", connection.url))
            .header("Idempotency-Key", &key)
            .send_json(change)?;
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        tally.slowest_us.fetch_max(took, Ordering::Relaxed);
        let counter = match response.status().as_u16() {
            201 => &tally.confirmed,
            404 | 409 => &tally.refused,
            503 => {
                tally.repeated.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            status => {
                let body = response.into_body().read_to_string()?;
                return Err(format!("{change}: HTTP {status}: {body}").into());
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // Read to its end, so that the connection serves the next request too.
        response.into_body().read_to_string()?;
        return Ok(());
    }
    Err(format!("{change}: no answer after {TRIES} tries").into())
}

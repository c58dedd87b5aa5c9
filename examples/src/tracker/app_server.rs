//! The app server: answers HTTP on loopback. Every write it confirms is applied in the store before it says so.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use penholder_client::read::{Reader, Tracker};
use penholder_client::{Client, Code, Command, Key, Outcome, Rejection, Statement};
use serde::Deserialize;
use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use crate::Result;
use crate::promises::{Promise, PromiseLog};
use crate::report::{self, Report};

/// Requests that are worked on at once. Each worker has a client of its own: a stream has one writer.
const WORKERS: usize = 8;
/// How often a worker without requests looks whether it should stop.
const POLL: Duration = Duration::from_millis(100);
/// Longest request body, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 10;

/// What all workers share.
struct Shared {
    store: PathBuf,
    server: Server,
    promises: Mutex<PromiseLog>,
}

/// A write, as the API takes it. It brings its own times, so that a repeated request makes the same command again.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Change {
    Project { name: String, client: Option<String>, at: i64 },
    Domain { domain: String, project: String },
    Setting { key: String, value: String },
    Focus { project: String, at: i64 },
    Appointment { title: String, starts_at: i64, ends_at: i64 },
}

/// A status code and a JSON body.
type Answer = (u16, Value);

/// Answers until it is asked to stop; says on stdout where.
pub(crate) fn run(store: &Path, promises: &Path, stop: &AtomicBool) -> Result<()> {
    let shared = Shared {
        store: store.to_owned(),
        server: Server::http("127.0.0.1:0")?,
        promises: Mutex::new(PromiseLog::create(promises)?),
    };
    println!("{}", shared.server.server_addr());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&shared, stop))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })
}

fn work(shared: &Shared, stop: &AtomicBool) -> Result<()> {
    let mut client = Client::connect(&shared.store)?;
    while !stop.load(Ordering::Relaxed) {
        let Some(mut request) = shared.server.recv_timeout(POLL)? else { continue };
        if let (Method::Get, "/") = (request.method(), request.url()) {
            let html =
                Header::from_bytes("Content-Type", "text/html; charset=utf-8").map_err(|()| "header")?;
            request.respond(Response::from_string(report::page(&read_report(shared)?)).with_header(html))?;
            continue;
        }
        let (status, body) = route(shared, &mut client, &mut request)
            .unwrap_or_else(|error| (503, json!({ "error": error.to_string() })));
        request.respond(Response::from_string(body.to_string()).with_status_code(status))?;
    }
    Ok(())
}

fn route(shared: &Shared, client: &mut Client, request: &mut Request) -> Result<Answer> {
    match (request.method(), request.url()) {
        (Method::Get, "/report") => Ok((200, serde_json::to_value(read_report(shared)?)?)),
        (Method::Post, "/changes") => {
            let key = idempotency_key(request)?;
            let mut body = String::new();
            request.as_reader().take(BODY_BYTES_MAX).read_to_string(&mut body)?;
            match serde_json::from_str(&body) {
                Ok(change) => apply(shared, client, change, key),
                Err(error) => Ok((400, json!({ "error": error.to_string() }))),
            }
        }
        _ => Ok((404, json!({ "error": "GET /, GET /report or POST /changes" }))),
    }
}

/// The caller's own name for its request: repeating it is harmless, whatever became of the answer.
fn idempotency_key(request: &Request) -> Result<Key> {
    let header = request.headers().iter().find(|header| header.field.equiv("Idempotency-Key"));
    header.map_or_else(|| Ok(Key::random()?), |header| Ok(header.value.as_str().parse()?))
}

/// Submits a change, waits until it is applied or rejected, and notes what was promised.
fn apply(shared: &Shared, client: &mut Client, change: Change, key: Key) -> Result<Answer> {
    let (command, promise) = command_for(change, key);
    let outcome = client.execute(command.with_key(key))?;
    let (promise, answer) = match outcome {
        Outcome::Applied(applied) => (promise, (201, json!({ "tick": applied.tick.0 }))),
        Outcome::Rejected(rejection) => {
            let answer = (status_for(&rejection), json!({ "error": rejection.message }));
            (Promise::Rejected(rejection.message), answer)
        }
    };
    shared.promises.lock().unwrap_or_else(PoisonError::into_inner).keep(&[promise])?;
    Ok(answer)
}

fn command_for(change: Change, key: Key) -> (Command, Promise) {
    let config = |sql: &str| Statement::new("config", sql);
    match change {
        Change::Project { name, client, at } => {
            let insert = config("INSERT INTO projects (name, client, created_at) VALUES (?1, ?2, ?3)");
            let insert = insert.bind(name.as_str()).bind(client).bind(at);
            (insert.into(), Promise::Project(name))
        }
        Change::Domain { domain, project } => {
            let insert = "INSERT INTO project_domains (domain, project_id) SELECT ?1, id FROM projects WHERE name = ?2";
            let insert = config(insert).bind(domain.as_str()).bind(project).expect(1);
            (insert.into(), Promise::Domain(domain))
        }
        Change::Setting { key, value } => {
            let set = "INSERT INTO settings (key, value) VALUES (?1, ?2) \
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            let set = config(set).bind(key.as_str()).bind(value.as_str());
            (Command::from(set).and(count("tracker.changes")), Promise::Setting(key, value))
        }
        Change::Focus { project, at } => {
            let id = event_id(key);
            let event = "INSERT INTO activity_events (id, at, kind, data) VALUES (?1, ?2, 'focus', ?3)";
            let event = Statement::new("activity", event).bind(id).bind(at).bind(project);
            (Command::from(count("tracker.focuses")).and(event), Promise::Focus(id))
        }
        Change::Appointment { title, starts_at, ends_at } => {
            let insert =
                config("INSERT INTO calendar_events (title, starts_at, ends_at) VALUES (?1, ?2, ?3)");
            let insert = insert.bind(title.as_str()).bind(starts_at).bind(ends_at);
            (insert.into(), Promise::Appointment(title))
        }
    }
}

/// An id that no other role chooses: the daemon counts from 2^40, these begin at 2^62.
fn event_id(key: Key) -> i64 {
    let random = key.0.iter().take(8).fold(0, |bits, byte| bits << 8 | i64::from(*byte));
    (random & (i64::MAX >> 1)) | 1 << 62
}

/// Adds one to a counter among the settings: a command that was applied twice would show.
fn count(key: &str) -> Statement {
    let add = "INSERT INTO settings (key, value) VALUES (?1, '1') \
               ON CONFLICT (key) DO UPDATE SET value = CAST(value + 1 AS TEXT)";
    Statement::new("config", add).bind(key)
}

/// What a rejection is in the words of HTTP.
fn status_for(rejection: &Rejection) -> u16 {
    match rejection.code {
        Code::Constraint | Code::Key => 409,
        Code::Expectation => 404,
        Code::Grant => 403,
        Code::Limit => 413,
        Code::Sql | Code::Poison | Code::Corrupt => 500,
    }
}

fn read_report(shared: &Shared) -> Result<Report> {
    Report::read(&mut Reader::open(&shared.store)?, &mut Tracker::new())
}

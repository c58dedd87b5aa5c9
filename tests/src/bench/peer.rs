//! Who is compared: how each is started in a directory of its own, what its client processes run, and its proof.

use std::fmt;
use std::path::Path;
use std::process::{Child, Stdio};

use clap::ValueEnum;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::postgres::{self, Cluster};
use crate::process::{Fleet, Job, Role, wait_until_ready};
use crate::workload::{self, Progress};
use crate::writer::Writer;
use crate::{client, direct};

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// Clients of a Penholder writer.
    Penholder,
    /// Processes that open the database themselves.
    Sqlite,
    /// The same with `synchronous=NORMAL`, which a power cut may take commits from.
    SqliteNormal,
    /// Sessions of a PostgreSQL server, over its Unix socket.
    Postgres,
    /// What if: a file per command, and a writer that commits whatever lies in the directory.
    Files,
    /// What if: requests and answers over a Unix socket, and a writer that commits whatever has arrived.
    Socket,
    /// One connection in one process, many rows per transaction: the limit.
    #[value(skip)]
    Connection,
    /// SQLite's own join over two files.
    #[value(skip)]
    Attach,
}

impl Peer {
    /// Those that serve any number of client processes.
    pub(crate) const SERVING: [Self; 6] =
        [Self::Penholder, Self::Sqlite, Self::SqliteNormal, Self::Postgres, Self::Files, Self::Socket];

    /// What a client process of it runs.
    fn job(self) -> Job {
        match self {
            Self::Penholder => Job::Applied,
            Self::Sqlite => Job::Sqlite,
            Self::SqliteNormal => Job::SqliteNormal,
            Self::Postgres => Job::Postgres,
            Self::Files => Job::Files,
            Self::Socket => Job::Socket,
            Self::Connection | Self::Attach => panic!("{self} serves nobody"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Penholder => "Penholder",
            Self::Sqlite => "SQLite, directly",
            Self::SqliteNormal => "SQLite, NORMAL",
            Self::Postgres => "PostgreSQL",
            Self::Files => "what if: files",
            Self::Socket => "what if: socket",
            Self::Connection => "one connection",
            Self::Attach => "SQLite, ATTACH",
        })
    }
}

/// Rows that are there before anything is timed: enough for a write-ahead log to have the length that it keeps. While it
/// grows, every commit writes the file system's journal too.
pub(crate) const WARM_ROWS: u64 = 50_000;

/// A peer that is ready for clients; client 1 has written [`WARM_ROWS`] already.
pub(crate) struct Stand<'a> {
    peer: Peer,
    place: TempDir,
    server: Server<'a>,
    /// Plain SQLite deletes its write-ahead log with the last connection.
    _open: Option<Connection>,
}

/// What runs beside the clients.
enum Server<'a> {
    Nothing,
    Writer(Writer),
    Helper(Child),
    Postgres(postgres::Running<'a>),
}

impl<'a> Stand<'a> {
    /// Starts it; `cluster` is needed for PostgreSQL only.
    pub(crate) fn start(peer: Peer, scratch: &Path, cluster: Option<&'a Cluster>) -> Self {
        let place = tempfile::Builder::new().prefix("round-").tempdir_in(scratch).unwrap();
        let on_sqlite = !matches!(peer, Peer::Penholder | Peer::Postgres);
        let open = on_sqlite.then(|| direct::create_warm(place.path()));
        let server = match peer {
            Peer::Penholder => {
                let writer = Writer::start(place.path());
                client::warm(place.path());
                Server::Writer(writer)
            }
            Peer::Postgres => Server::Postgres(cluster.unwrap().start()),
            Peer::Sqlite | Peer::SqliteNormal => Server::Nothing,
            Peer::Files => Server::Helper(helper(Job::FilesWriter, place.path())),
            Peer::Socket => Server::Helper(helper(Job::SocketWriter, place.path())),
            Peer::Connection | Peer::Attach => panic!("{peer} serves nobody"),
        };
        Self { peer, place, server, _open: open }
    }

    /// Lets `processes` clients work, one command at a time.
    pub(crate) fn work(&self, processes: usize, seconds: f64) -> Progress {
        let place = match &self.server {
            Server::Postgres(running) => running.socket_directory(),
            Server::Nothing | Server::Writer(_) | Server::Helper(_) => self.place.path(),
        };
        let role = |client| Role::timed(self.peer.job(), place, client, seconds);
        Fleet::start((2..2 + processes).map(role)).run()
    }

    /// Ends it, and proves that exactly what was promised is there.
    pub(crate) fn finish(self, counts: &[u64]) {
        let counts = &[&[WARM_ROWS], counts].concat();
        match self.server {
            Server::Nothing => {}
            Server::Writer(writer) => {
                writer.stop();
            }
            // Killed: what it answered must be there all the same.
            Server::Helper(mut process) => {
                process.kill().unwrap();
                process.wait().unwrap();
            }
            Server::Postgres(running) => {
                return running.verify(counts);
            }
        }
        workload::verify(self.place.path(), counts);
    }
}

/// Starts this program as the writer of a what-if.
fn helper(job: Job, place: &Path) -> Child {
    let mut process = Role::server(job, place).command().stdout(Stdio::piped()).spawn().unwrap();
    wait_until_ready(process.stdout.as_mut().unwrap());
    process
}

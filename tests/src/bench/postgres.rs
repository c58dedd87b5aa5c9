//! PostgreSQL: a private cluster on the same disk, as durable as SQLite is here, that runs only while it is measured.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::peer::WARM_ROWS;
use crate::postgres_client::{Session, USER};
use crate::workload::Proof;

/// No unique key but the row's own, as in SQLite's table.
const TABLE: &str = "
    DROP TABLE IF EXISTS event;
    CREATE TABLE event (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        client bigint NOT NULL,
        sequence bigint NOT NULL,
        at bigint NOT NULL,
        data text NOT NULL
    )";
/// The rows that are there before anything is timed, as client 1.
const WARM: &str = "INSERT INTO event (client, sequence, at, data)
    SELECT 1, n, 1700000000000 + n, repeat('x', 60) FROM generate_series(1, {rows}) n";
/// The settings that matter, each with what it is: the durability of `synchronous=FULL`, and room between checkpoints.
const SETTINGS: [&str; 6] = [
    "listen_addresses=''",
    "unix_socket_directories='.'",
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
];
/// Who runs the server if we are root: it refuses to be.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A cluster that does not run.
pub(crate) struct Cluster {
    programs: PathBuf,
    data: PathBuf,
    user: Option<User>,
}

impl Cluster {
    /// Makes one in `scratch`; the error says why there is none.
    pub(crate) fn create(scratch: &Path) -> Result<Self, String> {
        let programs =
            find_programs().ok_or("it is not installed: no initdb on the path or where packages put it")?;
        let user = if geteuid().is_root() { Some(server_user()?) } else { None };
        let data = scratch.join("postgres");
        let made = std::fs::create_dir(&data).and_then(|()| match &user {
            Some(user) => chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
            None => Ok(()),
        });
        made.map_err(|error| format!("{}: {error}", data.display()))?;
        let cluster = Self { programs, data, user };
        let trusting = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"];
        cluster.run("initdb", &[&["--username", USER], trusting.as_slice(), &["--pgdata", "."]].concat())?;
        Ok(cluster)
    }

    /// What is measured, and how it is set.
    pub(crate) fn describe(&self) -> String {
        let version = self.run("postgres", &["--version"]).unwrap_or_else(|why| why);
        format!("{}, Unix socket, prepared statements, {}", version.trim(), SETTINGS[2..].join(", "))
    }

    /// Starts the server with an empty table.
    pub(crate) fn start(&self) -> Running<'_> {
        let settings = SETTINGS.map(|setting| format!("-c {setting}")).join(" ");
        let log = ["--log", "log", "--options", &settings];
        self.control("start", &log).unwrap_or_else(|why| {
            let log = std::fs::read_to_string(self.data.join("log")).unwrap_or_default();
            panic!("PostgreSQL does not start: {why}\n{log}")
        });
        let running = Running { cluster: self };
        let mut session = Session::open(&self.data);
        let warm = WARM.replace("{rows}", &WARM_ROWS.to_string());
        for sql in [TABLE, &warm, "CHECKPOINT"] {
            session.query(sql, |_| {});
        }
        running
    }

    fn control(&self, action: &str, more: &[&str]) -> Result<String, String> {
        self.run("pg_ctl", &[&[action, "--wait", "--silent", "--pgdata", "."], more].concat())
    }

    /// Runs a program of the server in the directory of its data, as its user.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(&self.data);
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let failed = |error: io::Error| {
            let who = self.user.as_ref().map_or_else(String::new, |user| format!(", as user {}", user.name));
            format!("{program} in {}{who}: {error}", self.data.display())
        };
        let output = command.output().map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// A server that runs.
pub(crate) struct Running<'a> {
    cluster: &'a Cluster,
}

impl Running<'_> {
    /// Where its socket is.
    pub(crate) fn socket_directory(&self) -> &Path {
        &self.cluster.data
    }

    /// Stops the run unless every client's rows are there exactly once and in order.
    pub(crate) fn verify(&self, counts: &[u64]) {
        let mut proof = Proof::new(counts);
        let stored = "COPY (SELECT client, sequence FROM event ORDER BY id) TO STDOUT";
        Session::open(&self.cluster.data).query(stored, |line| {
            let (client, sequence) = line.split_once('\t').unwrap();
            proof.row(client.parse().unwrap(), sequence.parse().unwrap());
        });
        proof.finish();
    }
}

impl Drop for Running<'_> {
    /// Also when the run ends early: nobody else knows of this server.
    fn drop(&mut self) {
        if let Err(why) = self.cluster.control("stop", &["--mode", "fast"]) {
            eprintln!("PostgreSQL in {} does not stop: {why}", self.cluster.data.display());
        }
    }
}

fn server_user() -> Result<User, String> {
    let found = USERS.iter().find_map(|name| User::from_name(name).ok().flatten());
    found.ok_or_else(|| "it must not be run by root, and there is no other user for it".to_owned())
}

/// The directory of the newest version's programs.
fn find_programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("initdb"));
    let mut packaged: Vec<PathBuf> = ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/postgresql"]
        .iter()
        .filter_map(|root| std::fs::read_dir(root).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        .map(|entry| entry.path().join("bin/initdb"))
        .collect();
    packaged.sort();
    // What stands on the path may be a link; the other programs are beside what it leads to.
    let program = on_path.chain(packaged.into_iter().rev()).find_map(|initdb| initdb.canonicalize().ok())?;
    program.parent().map(Path::to_owned)
}

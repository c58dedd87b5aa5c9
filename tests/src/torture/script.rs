//! What a process does while a fault is put at each of its system calls: the same every time, and short.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use penholder_tests::promises::Log;
use penholder_tests::{Mix, Plan, SealedSegment, Store};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::arena::Arena;
use crate::machine;

/// Longest time a process may take under one fault: SQLite asks for a lock for ten seconds before it gives up, and the
/// writer tries five times.
const PATIENCE: Duration = Duration::from_secs(90);

/// Time after which a process is killed for which nothing ever gets better: on a full disk it stalls, as it should.
const PATIENCE_FOR_EVER: Duration = Duration::from_secs(5);

/// Commands of the client's script.
const CLIENT_COMMANDS: u64 = 40;

/// A fixed piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// A writer that makes a new store, and ends.
    First,
    /// A writer that recovers a store, applies a backlog in several batches over both databases, reclaims, and ends.
    Backlog,
    /// A client that submits in every way, beside a writer that nothing happens to.
    Client,
}

/// How a process under a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself.
    Exit(i32),
    /// By a signal, its own or the fault's.
    Signal,
    /// It went on and on, and was killed.
    Endless,
}

/// A store that the backlog's script starts from.
pub(crate) struct Template {
    store: PathBuf,
    logs: PathBuf,
}

impl Template {
    /// Makes a store with a backlog of three clients in four segments.
    pub(crate) fn make(arena: &Arena) -> Self {
        let mut store = arena.store();
        store.settings("[batch]\ncommands_count_max = 24\n[space]\nballast_bytes = 65536\n");
        store.start();
        assert!(store.stop().success());
        for (client, mix) in [(1, Mix::All), (2, Mix::Both), (3, Mix::Activity)] {
            let plan = Plan::new(client, mix);
            let commands = |numbers: std::ops::Range<u64>| numbers.map(|number| plan.command(number));
            let first = SealedSegment::new(&store.path()).frame(commands(1..9)).frame(commands(9..21));
            let mut log = Log::create(&store.logs(), client, mix, first.header.stream);
            first.drop_into(&store.path());
            let last = if client == 1 {
                first.next().frame(commands(21..41)).drop_into(&store.path());
                40
            } else {
                20
            };
            log.submitting(&(1..=last));
            log.promised(&(1..=last));
        }
        let kept =
            Self { store: arena.directory.join("template"), logs: arena.directory.join("template-logs") };
        copy(&store.path(), &kept.store);
        copy(&store.logs(), &kept.logs);
        kept
    }

    /// Lays the template out for one round.
    fn lay_out(&self, store: &Store) {
        copy(&self.store, &store.path());
        copy(&self.logs, &store.logs());
    }
}

/// Copies a store that nobody uses, with a program: this one must never open a database but through SQLite.
fn copy(from: &Path, to: &Path) {
    machine::run("cp", &["-a", &from.to_string_lossy(), &to.to_string_lossy()]).unwrap();
}

impl Script {
    pub(crate) const ALL: [Self; 3] = [Self::First, Self::Backlog, Self::Client];

    /// A store on which the script can run once.
    pub(crate) fn prepare(self, arena_directory: &Path, template: &Template) -> Store {
        let mut store = Store::within(arena_directory).quiet();
        match self {
            Self::First => store.settings("[space]\nballast_bytes = 65536\n"),
            Self::Backlog => template.lay_out(&store),
            Self::Client => store.start(),
        }
        store
    }

    /// The process that does the script's work.
    pub(crate) fn command(self, store: &mut Store) -> Command {
        match self {
            Self::First | Self::Backlog => store.writer_command(true),
            Self::Client => store.worker_command(Mix::All, CLIENT_COMMANDS),
        }
    }

    /// Whether one store serves many runs.
    pub(crate) fn reuses_store(self) -> bool {
        self == Self::Client
    }
}

/// Runs a process under a fault, and says how it ended.
pub(crate) fn endure(mut command: Command, for_ever: bool) -> Ending {
    // A group of its own: what runs under strace survives it.
    let mut process = command.process_group(0).spawn().unwrap();
    let group = Pid::from_child(&process);
    let until = Instant::now() + if for_ever { PATIENCE_FOR_EVER } else { PATIENCE };
    while Instant::now() < until {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code().map_or(Ending::Signal, Ending::Exit);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process_group(group, Signal::KILL).unwrap();
    process.wait().unwrap();
    while test_kill_process_group(group).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ending::Endless
}

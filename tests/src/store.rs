//! A store in a temporary directory, and the writer process on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use penholder::{Config, Stop};
use penholder_client::Client;
use penholder_protocol::{Control, Layout, WriterState};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::{Process, wait_for};
use crate::worker::{STOP_FILE, Work};
use crate::{Mix, Verdict, verify};

/// Longest time that starting or ending a writer may take; a healthy one needs milliseconds.
const WRITER_PATIENCE: Duration = Duration::from_secs(30);

/// Longest time for something that a healthy writer does within its safety poll.
const CONDITION_PATIENCE: Duration = Duration::from_secs(20);

/// The program that runs as writer, client or reader.
#[must_use]
pub fn roles_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("penholder-tests-roles"))
        .find(|candidate| candidate.exists());
    program.expect(
        "penholder-tests-roles lies beside the tests; build it with `cargo build -p penholder-tests`, \
         and `--release` if they are",
    )
}

/// A store that goes away with this value, and so does its writer; after a panic its files stay, to be looked at.
#[derive(Debug)]
pub struct Store {
    directory: TempDir,
    /// The store itself.
    root: PathBuf,
    schema: PathBuf,
    writer: Option<Child>,
    environment: Vec<(String, String)>,
    /// Where its processes complain; the terminal if none.
    complaints: Option<File>,
    next_client: u64,
}

impl Store {
    /// A store with the ledger's schema and no writer yet; it is created by the first start.
    #[must_use]
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// A store with the migrations of `schema`.
    #[must_use]
    pub fn with_schema(schema: PathBuf) -> Self {
        let mut store = Self::new();
        store.schema = schema;
        store
    }

    /// A store with the ledger's schema in a new directory of `parent`.
    #[must_use]
    pub fn within(parent: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("penholder-test-").tempdir_in(parent).unwrap();
        let root = directory.path().join("store");
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
        Self {
            directory,
            root,
            schema,
            writer: None,
            environment: Vec::new(),
            complaints: None,
            next_client: 1,
        }
    }

    /// Puts the store itself elsewhere, and leaves the clients' logs where no fault of its disk reaches them.
    #[must_use]
    pub fn placed_at(mut self, root: PathBuf) -> Self {
        self.root = root;
        self
    }

    /// Lets the processes of the store complain into a file beside it instead of on the terminal.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.complaints = Some(File::create(self.directory.path().join("stderr")).unwrap());
        self
    }

    /// What the processes of a [`quiet`](Self::quiet) store complained about.
    #[must_use]
    pub fn complaints(&self) -> String {
        let bytes = std::fs::read(self.directory.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn dressed(&self, mut command: Command) -> Command {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(file) = &self.complaints {
            command.stderr(file.try_clone().unwrap());
        }
        command
    }

    /// Adds one more migration to a store that was not started yet.
    pub fn add_migration(&mut self, database: &str, sql: &str) {
        let schema = self.directory.path().join("schema");
        if self.schema != schema {
            for database in ["activity", "config"] {
                let (from, to) = (self.schema.join(database), schema.join(database));
                std::fs::create_dir_all(&to).unwrap();
                std::fs::copy(from.join("001_ledger.sql"), to.join("001_ledger.sql")).unwrap();
            }
            self.schema = schema;
        }
        std::fs::write(self.schema.join(database).join("002_more.sql"), sql).unwrap();
    }

    /// Writes `penholder.toml`.
    pub fn settings(&self, toml: &str) {
        std::fs::create_dir_all(self.path()).unwrap();
        std::fs::write(self.layout().settings(), toml).unwrap();
    }

    /// A store with a running writer.
    #[must_use]
    pub fn started() -> Self {
        let mut store = Self::new();
        store.start();
        store
    }

    /// The store's directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.clone()
    }

    /// The paths inside the store.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(self.path())
    }

    /// Where the clients' logs are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.directory.path().join("logs")
    }

    /// A place for other files of the test.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Sets a variable in the environment of processes that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
    }

    /// Takes it out again.
    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// The command line of a writer.
    #[must_use]
    pub fn writer_command(&self, once: bool) -> Command {
        let mut command = Command::new(roles_program());
        command.arg("serve").arg(self.path()).arg(&self.schema).args(once.then_some("--once"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.dressed(command)
    }

    /// Starts a writer and waits until it is ready.
    pub fn start(&mut self) {
        if let Err(status) = self.try_start() {
            panic!("the writer ended before it was ready: {status}");
        }
    }

    /// Starts a writer; an error is how it ended instead of getting ready.
    pub fn try_start(&mut self) -> Result<(), ExitStatus> {
        assert!(self.writer.is_none(), "a writer is running");
        let begun = Instant::now();
        let mut writer = self.writer_command(false).spawn().unwrap();
        loop {
            if let Some(status) = writer.try_wait().unwrap() {
                return Err(status);
            }
            if self.control().is_some_and(|c| c.pid == writer.id() && c.state == WriterState::Running) {
                self.writer = Some(writer);
                return Ok(());
            }
            if begun.elapsed() > WRITER_PATIENCE {
                writer.kill().unwrap();
                panic!("the writer does not get ready");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the writer last published, if it ever did.
    #[must_use]
    pub fn control(&self) -> Option<Control> {
        Control::read(&self.layout().control()).ok()
    }

    /// Process id of the running writer.
    #[must_use]
    pub fn writer_pid(&self) -> u32 {
        self.writer.as_ref().expect("a writer is running").id()
    }

    /// Kills the writer: `kill -9`.
    pub fn kill(&mut self) {
        let mut writer = self.writer.take().expect("a writer is running");
        // It may just have died by itself.
        writer.kill().ok();
        writer.wait().unwrap();
    }

    /// Kills the writer if there is one.
    pub fn kill_if_running(&mut self) {
        if self.writer.is_some() {
            self.kill();
        }
    }

    /// Sends a signal to the writer.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.writer.as_ref().expect("a writer is running")), signal).unwrap();
    }

    /// Asks the writer to end, and waits until it has: the exit status of a clean stop is a success.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_writer()
    }

    /// Waits for the writer's own end.
    pub fn wait_writer(&mut self) -> ExitStatus {
        let mut writer = self.writer.take().expect("a writer is running");
        wait_for(&mut writer, WRITER_PATIENCE).expect("the writer does not end")
    }

    /// Whether the writer process has ended.
    #[must_use]
    pub fn writer_is_dead(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.writer_pid())).unwrap_or_default();
        // Behind the name in parentheses stands the state; a process that was not waited for yet is a zombie.
        status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    /// Buries a writer that died by itself.
    pub fn forget_writer(&mut self) {
        self.wait_writer();
    }

    /// Waits for a condition, and stops the test if it does not come.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < CONDITION_PATIENCE, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a writer that applies what is in the spool and ends.
    pub fn once(&mut self) -> ExitStatus {
        assert!(self.writer.is_none(), "a writer is running");
        let mut writer = self.writer_command(true).spawn().unwrap();
        wait_for(&mut writer, WRITER_PATIENCE * 2).expect("`serve --once` does not end")
    }

    /// A client of the store in this process.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(self.path()).unwrap()
    }

    /// What a ledger client process is to do on this store; its number is new.
    #[must_use]
    pub fn work(&mut self, mix: Mix, commands: u64) -> Work {
        let client = self.next_client;
        self.next_client += 1;
        let patience = Duration::from_mins(1);
        Work { store: self.path(), logs: self.logs(), client, mix, commands, patience }
    }

    /// Starts a ledger client process.
    #[must_use]
    pub fn start_worker(&mut self, mix: Mix, commands: u64) -> Process {
        Process::start(&mut self.worker_command(mix, commands))
    }

    /// The command line of a ledger client whose number is new.
    #[must_use]
    pub fn worker_command(&mut self, mix: Mix, commands: u64) -> Command {
        let work = self.work(mix, commands);
        let mut command = Command::new(roles_program());
        command.arg("client").arg(&work.store).arg(&work.logs);
        command.args([work.client.to_string(), work.mix.to_string(), work.commands.to_string()]);
        self.dressed(command)
    }

    /// Starts a process that looks at one cut after the other.
    #[must_use]
    pub fn start_watcher(&self) -> Process {
        std::fs::create_dir_all(self.logs()).unwrap();
        let mut command = Command::new(roles_program());
        command.arg("reader").arg(self.path()).arg(self.logs());
        Process::start(&mut self.dressed(command))
    }

    /// Tells all client and reader processes to come to their end.
    pub fn tell_workers_to_stop(&self) {
        std::fs::create_dir_all(self.logs()).unwrap();
        std::fs::write(self.logs().join(STOP_FILE), "").unwrap();
    }

    /// Lets new workers start again after [`tell_workers_to_stop`](Self::tell_workers_to_stop).
    pub fn let_workers_start(&self) {
        std::fs::remove_file(self.logs().join(STOP_FILE)).unwrap();
    }

    /// Applies what is left with a writer in this process, which is faster, and verifies the ledger.
    pub fn settle_here_and_verify(&self) -> Verdict {
        assert!(self.writer.is_none(), "a writer is running");
        let mut config = Config::load(self.path()).unwrap();
        config.schema = Some(self.schema.clone());
        config.once = true;
        let ended = penholder::run(&config.validate().unwrap(), &Stop::new(), &mut ());
        if let Err(error) = ended {
            panic!("a writer that is to end: {error}");
        }
        verify(self)
    }

    /// Ends the writer if one runs, applies what is left, and verifies the ledger.
    pub fn settle_and_verify(&mut self) -> Verdict {
        if self.writer.is_some() {
            let status = self.stop();
            assert!(status.success(), "a clean stop: {status}");
        }
        let status = self.once();
        assert!(status.success(), "serve --once: {status}");
        verify(self)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(writer) = &mut self.writer {
            // Already gone is as good.
            writer.kill().ok();
            writer.wait().ok();
        }
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("the store is kept in {}", self.directory.path().display());
        }
    }
}

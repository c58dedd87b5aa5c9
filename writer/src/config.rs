//! What an operator can set: `penholder.toml`, the environment over it, flags over that.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use penholder_protocol::limits::{DATABASE_NAME_BYTES_MAX, DATABASES_COUNT_MAX, FRAME_BYTES_SOFT};

use crate::migrate::check_directory;
use crate::{Error, Reference};

mod settings;

/// Most bytes that a batch may be set to. The redo row of a batch is one value, and it also carries the frame that
/// overran the bound.
const BATCH_BYTES_LIMIT: usize = 8 << 20;

/// What SQLite needs beside its page caches, in bytes: some copies of the largest value, and prepared statements.
const HEAP_BYTES_BESIDE_CACHES: u64 = 80 << 20;

/// Longest time that any setting may be, so that sums of them never overflow.
const TIME_MAX: Duration = Duration::from_hours(24);

/// How the writer runs; may differ from start to start, except for `databases`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own that an operator turns")]
pub struct Config {
    /// The store's directory.
    pub store: PathBuf,
    /// The databases in commit order: the first stores the redo row of a batch over several. Fixed once the store exists.
    pub databases: Vec<String>,
    /// Directory of migrations, `<database>/NNN_name.sql`; `None` is the built-in schema.
    pub schema: Option<PathBuf>,
    /// Apply what is in the spool, then end.
    pub once: bool,
    /// Run on a file system that is not known to keep SQLite's locks.
    pub allow_filesystem: bool,
    /// Start although a database is older than what was already reclaimed: it was restored from a backup.
    pub accept_rollback: bool,
    /// Watch the spool; without it the writer looks once per `safety_poll`.
    pub notify: bool,
    /// Longest time between two looks at the spool: bounds the delay when a notification is lost, and costs one wakeup.
    pub safety_poll: Duration,
    /// Bytes of commands in one batch: bounds the redo row, and what is lost when a batch is rolled back.
    pub batch_bytes_max: usize,
    /// Commands in one batch: bounds the time until the first of them is answered.
    pub batch_commands_count_max: usize,
    /// Time to spend on one batch before it is committed: bounds latency when statements are slow.
    pub batch_time_max: Duration,
    /// Bytes of one stream per turn: its fair share while other streams wait.
    pub turn_bytes: usize,
    /// Time one command may take before it is rejected: bounds how long it holds up the others.
    pub command_deadline: Duration,
    /// Unapplied bytes of one stream at which its client stops submitting.
    pub quota_stream_bytes: u64,
    /// Streams of one user that are followed at once; more of them wait until others are over.
    pub streams_user_max: usize,
    /// Free bytes of the file system below which clients stop submitting: the writer needs some to commit.
    pub free_bytes_min: u64,
    /// Bytes of WAL above which an idle writer checkpoints.
    pub wal_bytes_soft: u64,
    /// Bytes of WAL above which the writer checkpoints at once; the file itself is cut back above eight times this.
    pub wal_bytes_hard: u64,
    /// Bytes held back on the disk, to be given up when it is full; 0 = none.
    pub ballast_bytes: u64,
    /// Idempotency keys kept per database; the oldest beyond it are forgotten at the next start.
    pub keys_count_max: u64,
    /// Time between two rounds of deleting what was applied.
    pub reclaim_interval: Duration,
    /// Time to wait for more commands before committing a small batch: several clients share one fsync; 0 = never.
    pub gather: Duration,
    /// Time to watch busy streams before sleeping: a wakeup costs more than that; 0 = never.
    pub spin: Duration,
    /// Bytes of SQLite's page cache, per database.
    pub cache_bytes: u64,
    /// Bytes that SQLite may take in all: bounds what a command can cost. Counts for the whole process.
    pub heap_bytes_max: u64,
    /// Who has which role: `user:NAME`, `user:UID`, `group:NAME` or `group:GID` to the name of a role.
    pub grants: BTreeMap<String, String>,
    /// What a role may do: `DATABASE.TABLE` or `DATABASE.*` to verbs.
    pub roles: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// References between databases, which the writer keeps.
    pub references: Vec<Reference>,
}

impl Config {
    /// The defaults for the store in the directory `store`.
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            databases: vec!["config".into(), "activity".into()],
            schema: None,
            once: false,
            allow_filesystem: false,
            accept_rollback: false,
            notify: true,
            safety_poll: Duration::from_secs(1),
            batch_bytes_max: 4 << 20,
            batch_commands_count_max: 8192,
            batch_time_max: Duration::from_millis(50),
            turn_bytes: 128 << 10,
            command_deadline: Duration::from_secs(5),
            quota_stream_bytes: 64 << 20,
            streams_user_max: 4096,
            free_bytes_min: 64 << 20,
            wal_bytes_soft: 1 << 20,
            wal_bytes_hard: 4 << 20,
            ballast_bytes: 8 << 20,
            keys_count_max: 1_000_000,
            reclaim_interval: Duration::from_secs(1),
            gather: Duration::from_micros(60),
            spin: Duration::from_micros(50),
            cache_bytes: 8 << 20,
            heap_bytes_max: 256 << 20,
            grants: BTreeMap::new(),
            roles: BTreeMap::new(),
            references: Vec::new(),
        }
    }

    /// Checks every setting; nothing below checks them again.
    pub fn validate(self) -> Result<Self, Error> {
        self.check_databases()?;
        self.check_times()?;
        self.check_sizes()?;
        self.references.iter().try_for_each(|reference| reference.ends(&self.databases).map(drop))?;
        Ok(self)
    }

    /// Refuses a directory of migrations that the databases cannot be made from.
    pub fn check_schema(&self) -> Result<(), Error> {
        self.schema.as_deref().map_or(Ok(()), |directory| check_directory(directory, &self.databases))
    }

    fn check_databases(&self) -> Result<(), Error> {
        let hint = "correct `databases`";
        if self.databases.is_empty() || self.databases.len() > DATABASES_COUNT_MAX {
            let count = self.databases.len();
            let what = format!("{count} databases are listed; a store has 1 to {DATABASES_COUNT_MAX}");
            return Err(Error::refused(what, hint));
        }
        let mut seen = HashSet::new();
        for name in &self.databases {
            if !is_database_name(name) {
                let what = format!(
                    "{name:?} cannot be the name of a database: it takes 1 to {DATABASE_NAME_BYTES_MAX} characters \
                     a-z, 0-9 and _, begins with a letter, and not with penholder"
                );
                return Err(Error::refused(what, hint));
            }
            if !seen.insert(name) {
                return Err(Error::refused(format!("database {name} is listed twice"), hint));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), Error> {
        let none = Duration::ZERO;
        let least = Duration::from_nanos(1);
        let times = [
            ("wake.safety_poll_ms", self.safety_poll, least),
            ("batch.time_max_ms", self.batch_time_max, least),
            ("batch.command_deadline_ms", self.command_deadline, least),
            ("reclaim.interval_ms", self.reclaim_interval, least),
            ("wake.gather_us", self.gather, none),
            ("wake.spin_us", self.spin, none),
        ];
        for (key, time, min) in times {
            if time < min {
                return Err(Error::refused(format!("{key} is zero"), "set it to a time above zero"));
            }
            if time > TIME_MAX {
                return Err(Error::refused(format!("{key} is {time:?}"), "set it to at most one day"));
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let quota_min = FRAME_BYTES_SOFT as u64;
        let caches = self.cache_bytes.saturating_mul(self.databases.len() as u64);
        let heap_min = caches.saturating_add(HEAP_BYTES_BESIDE_CACHES);
        let bounds = [
            ("batch.turn_bytes", self.turn_bytes as u64, 1, self.batch_bytes_max as u64, "batch.bytes_max"),
            (
                "batch.bytes_max",
                self.batch_bytes_max as u64,
                1,
                BATCH_BYTES_LIMIT as u64,
                "what a redo row holds",
            ),
            ("batch.commands_count_max", self.batch_commands_count_max as u64, 1, 1 << 20, "a million"),
            ("space.quota_stream_bytes", self.quota_stream_bytes, quota_min, 1 << 50, "a pebibyte"),
            ("space.streams_user_max", self.streams_user_max as u64, 1, 1 << 20, "a million"),
            ("space.free_bytes_min", self.free_bytes_min, 0, 1 << 50, "a pebibyte"),
            ("space.ballast_bytes", self.ballast_bytes, 0, 1 << 40, "a tebibyte"),
            ("wal.bytes_soft", self.wal_bytes_soft, 1, self.wal_bytes_hard, "wal.bytes_hard"),
            ("wal.bytes_hard", self.wal_bytes_hard, 1, 1 << 40, "a tebibyte"),
            ("keys.count_max", self.keys_count_max, 1, 1 << 40, "a tebi"),
            ("sqlite.cache_bytes", self.cache_bytes, 1 << 16, 1 << 40, "a tebibyte"),
            ("sqlite.heap_bytes_max", self.heap_bytes_max, heap_min, 1 << 50, "a pebibyte"),
        ];
        for (key, value, min, max, name) in bounds {
            if value < min {
                let what = format!("{key} is {value}, and must be at least {min}");
                return Err(Error::refused(what, "raise it"));
            }
            if value > max {
                let what = format!("{key} is {value}, and must be at most {max} ({name})");
                return Err(Error::refused(what, "lower it"));
            }
        }
        Ok(())
    }
}

/// Whether a database may be called `name`: it becomes a file name, and a word on the command line.
fn is_database_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.len() <= DATABASE_NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(plain)
        && !name.starts_with("penholder")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    /// The message with which `change` to the defaults is refused.
    fn refusal(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::new("store");
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::new("store");
        assert_eq!(config.clone().validate().unwrap(), config);
    }

    #[test]
    fn a_database_name_is_a_plain_word() {
        let names = ["", "A", "1a", "_a", "a-b", "a.b", "../a", "é", "penholder", "penholder_x"];
        for name in names.into_iter().map(String::from).chain(["a".repeat(25)]) {
            let text = refusal(|config| config.databases = vec![name.clone()]);
            assert!(text.contains(&format!("{name:?}")), "{text}");
        }
        for name in ["a".to_owned(), "pen_2".to_owned(), "a".repeat(24)] {
            assert!(Config { databases: vec![name], ..Config::new("store") }.validate().is_ok());
        }
    }

    #[test]
    fn a_store_has_one_to_eight_databases_each_listed_once() {
        assert!(refusal(|config| config.databases.clear()).contains("0 databases"));
        let nine: Vec<_> = (0..9).map(|n| format!("d{n}")).collect();
        assert!(refusal(|config| config.databases = nine).contains("9 databases"));
        assert!(
            refusal(|config| config.databases = vec!["a".into(), "a".into()]).contains("a is listed twice")
        );
    }

    #[test]
    fn a_time_of_zero_is_refused_unless_it_switches_something_off() {
        assert!(refusal(|config| config.safety_poll = Duration::ZERO).contains("wake.safety_poll_ms"));
        assert!(refusal(|config| config.command_deadline = Duration::MAX).contains("one day"));
        let config = Config { gather: Duration::ZERO, spin: Duration::ZERO, ..Config::new("store") };
        assert!(config.validate().is_ok());
    }

    #[test]
    fn sizes_that_contradict_each_other_are_refused_with_both_names() {
        let text = refusal(|config| config.wal_bytes_soft = config.wal_bytes_hard + 1);
        assert!(text.contains("wal.bytes_soft") && text.contains("wal.bytes_hard"), "{text}");
        let text = refusal(|config| config.turn_bytes = config.batch_bytes_max + 1);
        assert!(text.contains("batch.turn_bytes") && text.contains("batch.bytes_max"), "{text}");
        assert!(refusal(|config| config.batch_bytes_max = BATCH_BYTES_LIMIT + 1).contains("redo row"));
        assert!(refusal(|config| config.quota_stream_bytes = 1).contains("at least 262144"));
        let text = refusal(|config| config.cache_bytes = config.heap_bytes_max);
        assert!(text.contains("sqlite.heap_bytes_max") && text.contains("at least"), "{text}");
    }
}

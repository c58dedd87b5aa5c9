//! What SQL from a client may do: decided by SQLite's authorizer when a statement is prepared.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use rusqlite::Connection;

use crate::grants::Roles;
use crate::rewrite::{FRAME_HEADER_BYTES, WAL_HEADER_BYTES};
use crate::{Error, functions, references};

/// On whose behalf the connection prepares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// The writer's own statements and migrations: everything.
    Engine,
    /// A command over one database.
    Client(Roles),
    /// A command over several databases: its second half may run again after a crash, so nothing in it may depend on
    /// time, randomness or earlier commands.
    ClientReplayable(Roles),
}

impl Mode {
    const CLIENT: u64 = 1 << 63;
    const REPLAYABLE: u64 = 1 << 62;

    /// Whose roles must be asked; `None` for those who may do everything.
    pub(crate) fn limited(self) -> Option<Roles> {
        match self {
            Self::Engine => None,
            Self::Client(roles) | Self::ClientReplayable(roles) => {
                Some(roles).filter(|roles| !roles.is_owner())
            }
        }
    }

    const fn to_bits(self) -> u64 {
        match self {
            Self::Engine => 0,
            Self::Client(roles) => Self::CLIENT | roles.to_bits(),
            Self::ClientReplayable(roles) => Self::CLIENT | Self::REPLAYABLE | roles.to_bits(),
        }
    }
}

const _: () = assert!(Roles::BITS <= 62);

/// SQLite calls the progress handler every so many virtual machine steps; some 10 microseconds of work.
const PROGRESS_STEPS: i32 = 5_000;

/// The state that the hooks of one connection look at.
#[derive(Debug)]
pub(crate) struct Guard {
    mode: AtomicU64,
    denied: Mutex<Option<String>>,
    /// Nanoseconds that the running command may take; 0 = as long as it takes.
    allowed: AtomicU64,
    /// Nanoseconds from `origin` at which it has had its time; 0 = it has been too short to ask.
    deadline: AtomicU64,
    origin: Instant,
    /// Pages in the WAL after the last commit.
    wal_pages: AtomicU64,
    page_bytes: u64,
    /// Tables at one end of a reference to or from another database.
    watched: Mutex<Vec<String>>,
    saw_watched: AtomicBool,
}

impl Guard {
    /// Installs the hooks on a connection; they live as long as it does.
    pub(crate) fn install(connection: &mut Connection, database: &str) -> Result<Arc<Self>, Error> {
        let page_bytes = connection
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(Error::sqlite("guard", database))?;
        let guard = Arc::new(Self {
            mode: AtomicU64::new(Mode::Engine.to_bits()),
            denied: Mutex::new(None),
            allowed: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            origin: Instant::now(),
            wal_pages: AtomicU64::new(0),
            page_bytes,
            watched: Mutex::default(),
            saw_watched: AtomicBool::new(false),
        });
        let authorizer = Arc::clone(&guard);
        connection
            .authorizer(Some(move |context: AuthContext<'_>| authorizer.decide(&context)))
            .map_err(Error::sqlite("guard", database))?;
        let clock = Arc::clone(&guard);
        connection
            .progress_handler(PROGRESS_STEPS, Some(move || clock.overdue()))
            .map_err(Error::sqlite("guard", database))?;
        let pages = Arc::clone(&guard);
        connection
            .wal_hook(Some(move |_: &mut _, count| {
                pages.wal_pages.store(u64::from(u32::try_from(count).unwrap_or_default()), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(Error::sqlite("guard", database))?;
        Ok(guard)
    }

    /// Pages in the WAL after the last commit.
    pub(crate) fn wal_pages(&self) -> u64 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    /// Bytes that the WAL has at least since the last commit; 0 before the first.
    pub(crate) fn wal_bytes(&self) -> u64 {
        match self.wal_pages() {
            0 => 0,
            pages => WAL_HEADER_BYTES as u64 + pages * (FRAME_HEADER_BYTES as u64 + self.page_bytes),
        }
    }

    /// Looks out for statements that write to a table.
    pub(crate) fn watch(&self, table: &str) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(table.to_ascii_lowercase());
    }

    /// Looks out anew.
    pub(crate) fn forget_watched(&self) {
        self.saw_watched.store(false, Ordering::Relaxed);
    }

    /// Whether a statement that was prepared since writes to such a table, by itself or through the schema.
    pub(crate) fn saw_watched(&self) -> bool {
        self.saw_watched.load(Ordering::Relaxed)
    }

    /// Prepares and steps on behalf of `mode` from now on.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode.to_bits(), Ordering::Relaxed);
    }

    /// Interrupts what runs longer than `time`, counted from the first time that SQLite asks: most commands are over
    /// before, and reading a clock for each would cost them a tenth.
    pub(crate) fn start_clock(&self, time: Duration) {
        self.deadline.store(0, Ordering::Relaxed);
        self.allowed.store(nanoseconds(time), Ordering::Relaxed);
    }

    /// Whether the command before ran long enough to be asked for the time.
    pub(crate) fn took_long(&self) -> bool {
        self.deadline.load(Ordering::Relaxed) != 0
    }

    /// Lets the writer's own work take as long as it takes.
    pub(crate) fn stop_clock(&self) {
        self.allowed.store(0, Ordering::Relaxed);
    }

    /// Says no in the authorizer's place.
    pub(crate) fn deny(&self, reason: String) {
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Why the authorizer last said no.
    pub(crate) fn take_denied(&self) -> Option<String> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn overdue(&self) -> bool {
        let allowed = self.allowed.load(Ordering::Relaxed);
        if allowed == 0 {
            return false;
        }
        let now = nanoseconds(self.origin.elapsed());
        match self.deadline.load(Ordering::Relaxed) {
            0 => {
                self.deadline.store(now.saturating_add(allowed), Ordering::Relaxed);
                false
            }
            deadline => now > deadline,
        }
    }

    fn look_out(&self, action: &AuthAction<'_>) {
        let (AuthAction::Insert { table_name: table }
        | AuthAction::Update { table_name: table, .. }
        | AuthAction::Delete { table_name: table }) = action
        else {
            return;
        };
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.iter().any(|known| known.eq_ignore_ascii_case(table)) {
            self.saw_watched.store(true, Ordering::Relaxed);
        }
    }

    fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        let mode = self.mode.load(Ordering::Relaxed);
        if mode & Mode::CLIENT == 0 {
            return Authorization::Allow;
        }
        if let AuthAction::Function { function_name } = context.action
            && references::is_own_trigger(function_name, context.accessor)
        {
            return Authorization::Allow;
        }
        self.look_out(&context.action);
        match refusal(&context.action, mode & Mode::REPLAYABLE != 0) {
            None => Authorization::Allow,
            Some(reason) => {
                self.deny(reason);
                Authorization::Deny
            }
        }
    }
}

/// Why a client's statement may not do this; `None` if it may.
#[expect(clippy::wildcard_enum_match_arm, reason = "default deny: an action that is not listed is refused")]
pub(crate) fn refusal(action: &AuthAction<'_>, replayable: bool) -> Option<String> {
    match action {
        // FTS5 asks for `data_version` before it writes. It is a number that nobody but the client gets to see.
        AuthAction::Select
        | AuthAction::Recursive
        | AuthAction::Pragma { pragma_name: "data_version", pragma_value: None } => None,
        // SQLite names it as it was written.
        AuthAction::Read { table_name, .. } if table_name.eq_ignore_ascii_case("pragma_data_version") => {
            Some("may not read pragma_data_version: what it says depends on the moment".into())
        }
        AuthAction::Read { table_name, .. } => own_table(table_name, "read", true),
        AuthAction::Delete { table_name } => own_table(table_name, "delete from", true),
        AuthAction::Insert { table_name } => own_table(table_name, "insert into", false),
        AuthAction::Update { table_name, .. } => own_table(table_name, "update", false),
        AuthAction::Function { function_name } => functions::objection(function_name, replayable),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("ATTACH, DETACH and VACUUM are not allowed in a command".into())
        }
        AuthAction::Pragma { pragma_name, .. } => {
            Some(format!("PRAGMA {} is not allowed in a command", pragma_name.escape_default()))
        }
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some(
            "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are not allowed: a command is a transaction of its own"
                .into(),
        ),
        _ => Some(
            "changing the schema and temporary objects are not allowed in a command; use a migration".into(),
        ),
    }
}

/// Penholder's own tables are closed, but for dropping rejected commands.
fn own_table(table: &str, verb: &str, rejected_allowed: bool) -> Option<String> {
    let lower = table.to_ascii_lowercase();
    if lower.starts_with("_penholder_") && !(rejected_allowed && lower == "_penholder_rejected") {
        return Some(format!("may not {verb} {lower}: the table is Penholder's own"));
    }
    (lower.starts_with("sqlite_") && verb != "read")
        .then(|| format!("may not {verb} {lower}: the table is SQLite's own"))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

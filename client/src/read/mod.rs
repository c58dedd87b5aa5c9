//! Reading: every database of a store in one consistent cut, and joins across them in application code.
//!
//! ```no_run
//! use penholder_client::read::Reader;
//!
//! let mut reader = Reader::open("store")?;
//! let snapshot = reader.snapshot()?;
//! let projects: i64 = snapshot.database("config")?.query_row("SELECT count(*) FROM projects", [], |row| row.get(0))?;
//! let sessions: i64 =
//!     snapshot.database("activity")?.query_row("SELECT count(*) FROM activity_sessions", [], |row| row.get(0))?;
//! println!("{projects} projects, {sessions} sessions as of tick {}", snapshot.newest());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A reader never writes, takes no lock that the writer waits for, and never attaches one database to another.
//! [`Lookup`] joins a small table of one database with a large one of another; [`Tracker`] shows it on the
//! built-in schema.

mod reader;
mod snapshot;
mod join;
mod queries;
mod error;

pub use error::ReadError;
pub use join::{Large, Lookup};
pub use queries::{
    CalendarEntry, Day, EntryEvent, EntryEvents, LocalTime, Project, ProjectDay, Session, Span, Tracker,
};
pub use reader::{Reader, ReaderConfig};
pub use snapshot::Snapshot;

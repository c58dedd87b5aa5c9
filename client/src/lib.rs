//! The submit side and the read side of a Penholder store.
//!
//! A [`Client`] appends commands to its own stream in the spool, with one `write` per submit, and learns from a receipt
//! file what became of them. It works while no writer runs: commands wait. With the feature `read`, on by default,
//! [`read`] opens the databases too.
//!
//! ```no_run
//! use penholder_client::{Client, Durability, Outcome, Statement, values};
//!
//! let mut client = Client::connect("store")?;
//! let insert = Statement::new("config", "INSERT INTO settings(key, value) VALUES (?1, ?2)").bind("theme").bind("dark");
//! match client.execute(insert)? {
//!     Outcome::Applied(applied) => println!("applied at tick {}", applied.tick),
//!     Outcome::Rejected(rejection) => println!("rejected: {}", rejection.message),
//! }
//! client
//!     .transaction()
//!     .statement("config", "UPDATE projects SET name = ?2 WHERE id = ?1", values![7, "Garden"])
//!     .expect(1)
//!     .statement("activity", "UPDATE activity_sessions SET title = ?2 WHERE project_id = ?1", values![7, "Garden"])
//!     .submit(Durability::Durable)?;
//! # Ok::<(), penholder_client::ClientError>(())
//! ```

mod config;
mod error;
mod liveness;
mod client;
mod transaction;
mod ticket;
mod quota;
mod stream;
mod segment_file;
mod receipts;
mod unread;
#[cfg(feature = "read")]
pub mod read;
#[cfg(test)]
#[path = "../tests/fake_store/mod.rs"]
#[allow(dead_code, reason = "the integration tests share it and use all of it")]
mod fake_store;

pub use client::Client;
pub use config::{ClientConfig, Durability, WhenFull};
pub use error::ClientError;
pub use liveness::writer_running;
#[cfg(feature = "read")]
pub use read::{Lookup, ReadError, Reader, ReaderConfig, Snapshot};
pub use ticket::{Ticket, Tickets};
pub use transaction::Transaction;

pub use penholder_protocol::{
    Applied, Code, Command, EncodeError, Key, Outcome, Rejection, Sequence, Statement, StatementResult,
    StreamId, Text, Tick, Value, WriterState,
};

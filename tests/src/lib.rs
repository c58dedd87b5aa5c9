//! The ledger oracle: clients that write down what was promised to them, and the proof that every promise was kept.
//!
//! A [`Store`] runs a real writer process that tests start, stop and kill. [`worker`] processes submit the commands
//! of a [`Plan`] and keep a [`promises`] log; [`verify()`] reads databases and logs, and reports everything that the
//! store should not have done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "test support: it stops at the first thing that goes wrong"
)]

pub mod foreign;
mod plan;
pub mod promises;
mod serve;
mod process;
mod store;
mod inspect;
mod shim;
pub mod worker;
pub mod watcher;
pub mod sealed;
pub mod users;
pub mod linked;
pub mod disk;
mod verify;

pub use plan::{Kind, Mix, Plan, Random};
pub use process::{Process, wait_for};
pub use sealed::SealedSegment;
pub use serve::{Serve, serve};
pub use shim::shim;
pub use store::{Store, roles_program};
pub use verify::{Verdict, verify};

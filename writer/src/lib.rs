//! The writer: the one process that writes the databases of a store.
//!
//! [`run`] is the whole life of it. The modules stand in the order in which data flows through them.

mod error;
mod config;
mod observer;
mod filesystem;
mod access;
mod lock;
mod control;
mod ballast;
mod leftovers;
mod fence;
mod pin;
mod keeper;
mod place;
mod grants;
mod functions;
mod guard;
mod costly;
mod judge;
mod references;
mod rewrite;
mod database;
mod migrate;
mod clock;
mod redo;
mod restored;
mod recover;
mod doorbell;
mod segment;
mod stream;
mod quarantine;
mod arrivals;
mod turns;
mod paced;
mod intake;
mod batch;
mod suspect;
mod keys;
mod apply;
mod watermark;
mod rejected;
mod commit;
mod receipts;
mod reclaim;
mod checkpoint;
mod crash;
mod run;
pub mod split;

pub use config::Config;
pub use doorbell::Stop;
pub use error::Error;
pub use grants::{Grants, OWNER, Verb, Verbs};
pub use observer::{Observer, Ready};
pub use references::{Column, OnDelete, Reference};
pub use run::run;

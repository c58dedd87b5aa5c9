//! The writer: the one process that writes the databases of a store.

mod error;

pub use error::Error;

#[cfg(feature = "read")]
pub mod read;

//! Places at which a test may ask a debug build to die.

/// Aborts the process if `PENHOLDER_CRASH_AT` names this point: `NAME`, or `NAME:n` for the n-th time it is passed.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let Ok(wanted) = std::env::var("PENHOLDER_CRASH_AT") else { return };
    let (point, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if point == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == count.parse().unwrap_or(1) {
        log::error!("dying at {name}, as asked");
        std::process::abort();
    }
}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &str) {}

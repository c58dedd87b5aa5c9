//! Settings and flags: when they take effect, and which of them goes over which.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it stands"
)]

mod cli_common;

use cli_common::{INSERT, Run, Store};
use penholder_protocol::Control;

/// The bounds that clients keep to: the quota of a stream and the free space.
fn bounds(store: &Store) -> (u64, u64) {
    let control = Control::read(&store.path().join("control")).unwrap();
    (control.quota_stream_bytes, control.free_bytes_min)
}

fn set(store: &Store, text: &str) {
    std::fs::write(store.path().join("penholder.toml"), text).unwrap();
}

#[test]
fn the_bounds_that_clients_keep_to_are_those_of_the_last_start() {
    let store = Store::new();
    let restart = |variables: &[(&str, &str)]| {
        let mut command = store.command(&["serve", "STORE", "--once"]);
        Run::of(&command.envs(variables.iter().copied()).output().unwrap()).expect(0);
    };
    let insert = |key: &str| {
        store.run(&[
            "exec",
            "STORE",
            "--db",
            "config",
            INSERT,
            key,
            "v",
            "--level",
            "queued",
            "--timeout",
            "50ms",
        ])
    };
    set(&store, "[space]\nquota_stream_bytes = 1000000\nfree_bytes_min = 1125899906842624\n");
    restart(&[]);
    assert_eq!(bounds(&store), (1_000_000, 1 << 50));
    assert!(insert("a").expect(1).stderr.contains("demands 1125899906842624"));
    restart(&[("PENHOLDER_SPACE_FREE_BYTES_MIN", "8192")]);
    assert_eq!(bounds(&store), (1_000_000, 8192));
    insert("b").expect(0);
    set(&store, "");
    restart(&[]);
    assert_eq!(bounds(&store), (64 << 20, 64 << 20));
}

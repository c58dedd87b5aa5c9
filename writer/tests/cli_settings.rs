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

#[test]
fn a_flag_goes_over_its_variable_and_that_over_the_default() {
    let store = Store::new();
    let run = |variables: &[(&str, &str)], words: &[&str]| {
        let words = [&["exec", "STORE", "--db", "config", INSERT, "k", "v", "--json"], words].concat();
        Run::of(&store.command(&words).envs(variables.iter().copied()).output().unwrap())
    };
    let said = run(&[("PENHOLDER_TIMEOUT", "70ms")], &[]).expect(5).stderr;
    assert!(said.contains("within 70ms"), "{said}");
    let said = run(&[("PENHOLDER_TIMEOUT", "1h")], &["--timeout", "80ms"]).expect(5).stderr;
    assert!(said.contains("within 80ms"), "{said}");
    // No writer runs: only what is not waited for succeeds.
    run(&[("PENHOLDER_LEVEL", "queued"), ("PENHOLDER_WINDOW", "9")], &[]).expect(0);
    run(&[("PENHOLDER_LEVEL", "queued")], &["--level", "applied", "--timeout", "50ms"]).expect(5);
    for (variable, flag, wrong) in [
        ("PENHOLDER_LEVEL", "--level", "sometimes"),
        ("PENHOLDER_TIMEOUT", "--timeout", "10"),
        ("PENHOLDER_WINDOW", "--window", "0"),
        ("PENHOLDER_COLOR", "--color", "pink"),
    ] {
        let said = run(&[(variable, wrong)], &[]).expect(2).stderr;
        assert!(said.contains(&format!("the value is that of the variable {variable}")), "{said}");
        let said = run(&[(variable, wrong)], &[&format!("{flag}={wrong}")]).expect(2).stderr;
        assert!(!said.contains(variable), "{said}");
    }
    let said = run(&[("PENHOLDER_COLOR", "always"), ("PENHOLDER_TIMEOUT", "0s")], &[]).expect(5).stderr;
    assert!(said.contains('\u{1b}'), "{said}");
    let said = run(&[("PENHOLDER_COLOR", "always"), ("PENHOLDER_TIMEOUT", "0s")], &["--color=never"])
        .expect(5)
        .stderr;
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn the_variables_of_commands_and_those_of_the_writer_do_not_disturb_each_other() {
    let store = Store::empty();
    let variables = [
        ("PENHOLDER_COLOR", "never"),
        ("PENHOLDER_LEVEL", "durable"),
        ("PENHOLDER_TIMEOUT", "1s"),
        ("PENHOLDER_WINDOW", "9"),
        ("PENHOLDER_WAKE_NOTIFY", "off"),
        ("PENHOLDER_DATABASES", "one,two"),
    ];
    for words in
        [&["serve", "STORE", "--once"][..], &["grants", "STORE"], &["check", "STORE"], &["status", "STORE"]]
    {
        Run::of(&store.command(words).envs(variables).output().unwrap()).expect(0);
    }
    let mut child = store.command(&["exec", "STORE", "--stdin"]);
    Run::of(&child.envs(variables).output().unwrap()).expect(0);
}

#[test]
fn help_names_the_variable_of_a_flag() {
    let store = Store::empty();
    for (words, flags) in [
        (&["exec", "--help"][..], &["COLOR", "LEVEL", "TIMEOUT", "WINDOW"][..]),
        (&["rejected", "STORE", "retry", "--help"], &["TIMEOUT"]),
        (&["rejected", "STORE", "drop", "--help"], &["TIMEOUT"]),
    ] {
        let help = store.run(words).expect(0).stdout;
        for flag in flags {
            assert!(help.contains(&format!("[env: PENHOLDER_{flag}=]")), "{flag} is not in {help}");
        }
    }
}

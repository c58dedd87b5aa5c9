//! The README's first program does what the README says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use penholder::{Config, Observer, Ready, Stop};

fn hello(store: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hello")).arg(store).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Tells the test that the writer is ready.
struct Announce(Sender<()>);

impl Observer for Announce {
    fn ready(&mut self, _: &Ready) {
        self.0.send(()).unwrap();
    }

    fn beat(&mut self) {}
}

/// Runs the writer in a thread of this process while `act` runs.
fn with_writer<T>(store: &Path, act: impl FnOnce() -> T) -> T {
    let config = Config::new(store).validate().unwrap();
    let (stop, (announce, ready)) = (Stop::new(), channel());
    let asked = stop.clone();
    let writer = thread::spawn(move || penholder::run(&config, &asked, &mut Announce(announce)));
    ready.recv_timeout(Duration::from_secs(30)).unwrap();
    let done = act();
    stop.request();
    writer.join().unwrap().unwrap();
    done
}

#[test]
fn hello_writes_reads_back_and_says_the_same_the_second_time() {
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("store");
    with_writer(&store, || {
        for _ in 0..2 {
            let output = hello(&store);
            assert!(output.status.success(), "{}", text(&output.stderr));
            let said = text(&output.stdout);
            assert!(said.contains("Applied") && said.ends_with("1 projects\n"), "{said}");
        }
    });
}

#[test]
fn hello_without_a_store_says_what_to_start() {
    let place = tempfile::tempdir().unwrap();
    let output = hello(&place.path().join("store"));
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("no store") && said.contains("penholder serve"), "{said}");
}

#[test]
fn hello_without_a_writer_says_that_its_command_stays_queued_and_a_later_writer_applies_it() {
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("store");
    with_writer(&store, || ());
    let output = hello(&store);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("stays queued") && said.contains("penholder serve"), "{said}");
    with_writer(&store, || {
        let said = text(&hello(&store).stdout);
        assert!(said.ends_with("1 projects\n"), "{said}");
    });
}

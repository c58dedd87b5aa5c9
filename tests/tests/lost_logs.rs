//! The WAL of a database, or its index, goes away, is cut or exchanged while no writer runs: nothing is lost, or the next
//! start says so and refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::fs::File;
use std::path::{Path, PathBuf};

use penholder_tests::{Mix, Store};

/// What happens to a file; the path behind it is an older copy.
type Deed = fn(&Path, &Path);

const DEEDS: [(&str, Deed); 4] = [
    ("removed", |file, _| std::fs::remove_file(file).unwrap()),
    ("emptied", |file, _| drop(File::create(file).unwrap())),
    ("cut in half", |file, _| {
        let length = file.metadata().unwrap().len();
        File::options().write(true).open(file).unwrap().set_len(length / 2).unwrap();
    }),
    ("exchanged for an older one", |file, older| assert!(std::fs::copy(older, file).is_ok())),
];

fn beside(store: &Store, database: &str, suffix: &str) -> PathBuf {
    store.path().join(format!("{database}.db-{suffix}"))
}

/// Gives whether the next start refused, having made sure that it lost nothing if it did not.
fn is_refused(database: &str, suffix: &str, deed: Deed, clean: bool) -> bool {
    let mut store = Store::new().quiet();
    // The first WAL is given up in the middle, so that the older copy is of another one.
    store.settings("[wal]\nbytes_soft = 65536\n");
    store.start();
    store.start_worker(Mix::All, 60).finish();
    assert!(store.stop().success());
    let (file, older) = (beside(&store, database, suffix), store.scratch().join("older"));
    std::fs::copy(&file, &older).unwrap();
    store.start();
    store.start_worker(Mix::All, 60).finish();
    store.start_worker(Mix::Both, 40).finish();
    store.wait_until("an empty spool", |store| store.segments().is_empty());
    if clean {
        assert!(store.stop().success());
    } else {
        store.kill();
    }
    // No process has the database open: this one may.
    deed(&file, &older);
    if store.once().success() {
        store.settle_and_verify().expect_clean();
        return false;
    }
    let complaints = store.complaints();
    assert!(complaints.contains("--accept-rollback"), "{complaints}");
    true
}

#[test]
fn a_log_that_is_gone_cut_or_exchanged_is_never_silently_accepted() {
    let mut refused = 0;
    for database in ["activity", "config"] {
        for (what, deed) in DEEDS {
            println!("the WAL of {database} is {what} after a kill");
            refused += u32::from(is_refused(database, "wal", deed, false));
        }
    }
    assert!(refused > 0, "not one start was refused: were the commits in the WAL?");
    let (what, deed) = DEEDS[3];
    println!("the WAL is {what} after a stop");
    is_refused("activity", "wal", deed, true);
}

#[test]
fn an_index_that_is_gone_cut_or_exchanged_changes_nothing() {
    for (what, deed) in DEEDS {
        println!("the index is {what}");
        assert!(!is_refused("activity", "shm", deed, false));
    }
}

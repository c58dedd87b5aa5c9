//! Tests of what the spool tells when the writer starts.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use penholder_protocol::{SegmentKind, Sequence};

use super::*;

/// A spool, and the name of a good segment in it, of epoch 3.
fn bench() -> (tempfile::TempDir, Layout, SegmentName) {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path());
    std::fs::create_dir(layout.spool()).unwrap();
    std::fs::create_dir(layout.quarantine()).unwrap();
    let name = SegmentName { stream: StreamId([2; 16]), number: 1, kind: SegmentKind::Sealed };
    put(&layout, name);
    (directory, layout, name)
}

fn put(layout: &Layout, name: SegmentName) {
    let header = SegmentHeader {
        store: StoreId([1; 16]),
        stream: name.stream,
        number: name.number,
        epoch: Epoch(3),
        first_sequence: Sequence(1),
        salt: 7,
        boot: penholder_protocol::boot_id(),
        inode: 0,
    };
    std::fs::write(layout.segment(name), header.encode()).unwrap();
}

/// A process that holds a lease on `path`; `None` where no Python is, or no lease is given.
fn lease(path: &Path) -> Option<Child> {
    let program = "import fcntl, os, signal, sys, time\n\
                   signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                   fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
                   os.write(1, b'held')\n\
                   time.sleep(60)";
    let mut command = Command::new("python3");
    let holder = command.args(["-c", program]).arg(path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut holder = holder.ok()?;
    let is_held = holder.stdout.take().unwrap().read_exact(&mut [0; 4]).is_ok();
    if !is_held {
        holder.wait().unwrap();
    }
    is_held.then_some(holder)
}

#[test]
fn a_lease_on_a_segment_neither_stops_the_start_nor_hides_its_stream() {
    let (_directory, layout, name) = bench();
    let Some(mut holder) = lease(&layout.segment(name)) else {
        println!("SKIPPED: no lease can be taken here");
        return;
    };
    let found = scan(&layout, StoreId([1; 16]), Epoch(9));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(found.unwrap()[&name.stream].epoch, Epoch(9), "by its name, as it cannot be read");
    let found = scan(&layout, StoreId([1; 16]), Epoch(9)).unwrap();
    assert_eq!(found[&name.stream].epoch, Epoch(3));
}

#[test]
fn a_stream_is_the_one_users_who_made_its_first_file_whatever_others_put_there() {
    let (_directory, layout, name) = bench();
    let live = SegmentName { kind: SegmentKind::Live, ..name };
    let own = std::fs::metadata(layout.segment(name)).unwrap().uid();
    // File systems keep time in ticks of the kernel.
    std::thread::sleep(Duration::from_millis(20));
    put(&layout, live);
    if std::os::unix::fs::chown(layout.segment(live), Some(own + 1), None).is_err() {
        println!("SKIPPED: not allowed to give a file away");
        return;
    }
    let uid = |name| if name == live { own + 1 } else { own };
    let found = || scan(&layout, StoreId([1; 16]), Epoch(9)).unwrap()[&name.stream].uid;
    let arrived = || arrivals::first_owner(&layout, &[live, name].map(|name| (uid(name), name)));
    assert_eq!((found(), arrived()), (own, Some(own)));
    // The same with the other one first, which the directory may list before or behind it as well.
    std::fs::remove_file(layout.segment(name)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    put(&layout, name);
    assert_eq!((found(), arrived()), (own + 1, Some(own + 1)));
}

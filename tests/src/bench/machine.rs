//! Names what the numbers were measured on.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::Instant;

const BLOCK: usize = 4096;
const PROBES: usize = 100;

const SYNC: &str = "fdatasync of 4 KiB";

/// The same after the run: if somebody else used the disk meanwhile, whoever reads the numbers should see.
pub(crate) fn describe_end(place: &Path) -> (String, String) {
    (format!("{SYNC}, at the end"), sync(place))
}

fn sync(place: &Path) -> String {
    format!("{:.0} us, appended {:.0} us", sync_us(place, false), sync_us(place, true))
}

/// One line each: what, and its value.
pub(crate) fn describe(place: &Path, postgres: String) -> Vec<(String, String)> {
    let cpu = first_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = first_field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let build = if cfg!(debug_assertions) { "debug: do not quote these numbers" } else { "release" };
    [
        ("processor", format!("{cpu}, {cores} cores")),
        ("memory", memory),
        ("system", format!("{} {}", std::env::consts::OS, kernel.trim())),
        ("file system", file_system(place)),
        (SYNC, sync(place)),
        ("SQLite", format!("{}, the same build everywhere", rusqlite::version())),
        (
            "durability",
            "WAL, synchronous=FULL: a commit that was told survives a power cut; but for SQLite, NORMAL"
                .into(),
        ),
        ("SQLite, directly", "BEGIN IMMEDIATE, busy timeout 30 s, statements prepared once".into()),
        ("PostgreSQL", postgres),
        ("build", build.into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn first_field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Type and device of the file system that holds `place`.
fn file_system(place: &Path) -> String {
    let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        place.starts_with(point).then_some((point.len(), right))
    });
    let Some((_, right)) = mounted.max_by_key(|(length, _)| *length) else { return "unknown".into() };
    right.split(' ').take(2).collect::<Vec<_>>().join(" on ")
}

/// What one synced write costs here, the median: without it, a latency cannot be judged. One that appends also waits for
/// the file system's journal.
fn sync_us(place: &Path, append: bool) -> f64 {
    let path = place.join("sync-probe");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![0; BLOCK * PROBES]).unwrap();
    file.sync_all().unwrap();
    if !append {
        file.rewind().unwrap();
    }
    let mut times = [(); PROBES].map(|()| {
        let begun = Instant::now();
        file.write_all(&[0x55; BLOCK]).unwrap();
        file.sync_data().unwrap();
        begun.elapsed().as_secs_f64() * 1e6
    });
    std::fs::remove_file(&path).unwrap();
    times.sort_by(f64::total_cmp);
    times[PROBES / 2]
}

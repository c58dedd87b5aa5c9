//! Names what the numbers were measured on.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// One line each: what, and its value.
pub(crate) fn describe(place: &Path) -> Vec<(&'static str, String)> {
    let cpu = first_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = first_field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let build = if cfg!(debug_assertions) { "debug: do not quote these numbers" } else { "release" };
    vec![
        ("processor", format!("{cpu}, {cores} cores")),
        ("memory", memory),
        ("system", format!("{} {}", std::env::consts::OS, kernel.trim())),
        ("file system", file_system(place)),
        ("fdatasync of 4 KiB, median", format!("{:.0} us", sync_us(place))),
        ("SQLite", format!("{}, the same build on both sides", rusqlite::version())),
        (
            "durability",
            "WAL, synchronous=FULL on both sides: a commit that was told survives a power cut".into(),
        ),
        ("directly", "BEGIN IMMEDIATE, busy timeout 30 s, statements prepared once".into()),
        ("build", build.into()),
    ]
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

/// What one synced append costs here: without it, a latency cannot be judged.
fn sync_us(place: &Path) -> f64 {
    let mut file = File::create(place.join("sync-probe")).unwrap();
    let mut times: Vec<f64> = (0..200)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[0x55; 4096]).unwrap();
            file.sync_data().unwrap();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    std::fs::remove_file(place.join("sync-probe")).unwrap();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

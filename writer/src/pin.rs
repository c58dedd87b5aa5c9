//! Who stands in the way: the processes that hold a lock on the index of a WAL, or on a database.

use std::ops::RangeInclusive;
use std::path::Path;

/// The bytes of a `-shm` file that SQLite's readers lock, one per read mark.
#[cfg(target_os = "linux")]
const READ_LOCKS: RangeInclusive<u64> = 123..=127;

/// The bytes of a `-shm` file that whoever writes, checkpoints or recovers locks.
#[cfg(target_os = "linux")]
const WRITE_LOCKS: RangeInclusive<u64> = 120..=122;

/// The bytes of a database that SQLite locks.
#[cfg(target_os = "linux")]
const DATABASE_LOCKS: RangeInclusive<u64> = 0x4000_0000..=0x4000_01ff;

/// How often to look before saying that there is nobody.
#[cfg(target_os = "linux")]
const LOOKS_COUNT: usize = 3;

/// Process ids of the readers of a database, our own left out; empty where the system does not tell.
///
/// Only a hint for people: readers in other containers do not show, and ids are reused.
pub(crate) fn readers_of(database: &Path) -> Vec<u32> {
    others(database, "-shm", &READ_LOCKS, Some("READ"))
}

/// Who keeps the writer out of a database, in words; a hint, as above.
pub(crate) fn holder_of(database: &Path) -> String {
    // A lock of any kind on these keeps a writer out; on the database itself, readers share theirs with it.
    let mut pids = others(database, "-shm", &WRITE_LOCKS, None);
    pids.extend(others(database, "", &DATABASE_LOCKS, Some("WRITE")));
    if pids.is_empty() {
        // What remains are readers, which only stand in the way of a change to WAL mode.
        pids = others(database, "", &DATABASE_LOCKS, None);
    }
    pids.sort_unstable();
    pids.dedup();
    if pids.is_empty() {
        return "a process that /proc/locks does not show".into();
    }
    let named = pids.iter().map(|pid| format!("process {pid} ({})", program(*pid)));
    named.collect::<Vec<_>>().join(" and ")
}

/// The name of the program that a process runs.
fn program(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => "unknown".into(),
        name => name.escape_debug().to_string(),
    }
}

/// The other processes that hold a lock on some bytes of a file of a database.
#[cfg(target_os = "linux")]
fn others(database: &Path, suffix: &str, bytes: &RangeInclusive<u64>, kind: Option<&str>) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    // By path, never through a descriptor: closing one would cancel SQLite's own locks.
    let Ok(metadata) = std::fs::metadata(Path::new(&path)) else { return Vec::new() };
    look(metadata.ino(), bytes, kind, Some(std::process::id()))
}

/// Other systems do not list their locks.
#[cfg(not(target_os = "linux"))]
fn others(_database: &Path, _suffix: &str, _bytes: &RangeInclusive<u64>, _kind: Option<&str>) -> Vec<u32> {
    Vec::new()
}

/// Reads `/proc/locks`, again if nobody is there: the kernel hands it out in pages, and an entry is passed over when
/// a lock before it is released between two of them.
#[cfg(target_os = "linux")]
fn look(inode: u64, bytes: &RangeInclusive<u64>, kind: Option<&str>, except: Option<u32>) -> Vec<u32> {
    for _ in 0..LOOKS_COUNT {
        let Ok(locks) = std::fs::read_to_string("/proc/locks") else { break };
        let mut pids = holders(&locks, inode, bytes, kind);
        pids.retain(|&pid| Some(pid) != except);
        if !pids.is_empty() {
            return pids;
        }
    }
    Vec::new()
}

/// The processes that hold a POSIX lock on some bytes of the file with this inode, according to the text of
/// `/proc/locks`. The device is not compared: some file systems show another one there than `stat` does.
#[cfg(target_os = "linux")]
fn holders(locks: &str, inode: u64, bytes: &RangeInclusive<u64>, kind: Option<&str>) -> Vec<u32> {
    let mut pids: Vec<u32> = locks.lines().filter_map(|line| holder(line, inode, bytes, kind)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// `1: POSIX  ADVISORY  READ 4711 08:01:1234 123 123`; a `->` after the number is somebody who still waits.
#[cfg(target_os = "linux")]
fn holder(line: &str, inode: u64, bytes: &RangeInclusive<u64>, kind: Option<&str>) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let posix = fields.next()? == "POSIX";
    let found = fields.nth(1)?;
    if !posix || kind.is_some_and(|kind| kind != found) {
        return None;
    }
    // 0 is a process of another container.
    let pid = fields.next()?.parse().ok().filter(|&pid| pid != 0)?;
    let file = fields.next()?.rsplit(':').next()?;
    let first: u64 = fields.next()?.parse().ok()?;
    let last = match fields.next()? {
        "EOF" => u64::MAX,
        last => last.parse().ok()?,
    };
    let ours = file.parse() == Ok(inode);
    (ours && first <= *bytes.end() && last >= *bytes.start()).then_some(pid)
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 10 08:01:77 120 120
2: POSIX  ADVISORY  READ 30 08:01:77 124 124
3: POSIX  ADVISORY  READ 20 00:2c:77 123 127
3: -> POSIX  ADVISORY  READ 40 08:01:77 124 124
4: POSIX  ADVISORY  READ 50 08:01:77 128 128
5: POSIX  ADVISORY  READ 60 08:01:78 124 124
6: FLOCK  ADVISORY  WRITE 70 08:01:77 0 EOF
7: OFDLCK ADVISORY  READ -1 08:01:77 124 124
8: POSIX  ADVISORY  READ 0 08:01:77 124 124
9: POSIX  ADVISORY  READ 80 08:01:77 0 EOF
10: POSIX  ADVISORY  READ 20 08:01:77 125 125
11: POSIX  ADVISORY  WRITE 90 08:01:77 124 124
12: POSIX
";

    #[test]
    fn only_readers_that_hold_a_read_mark_of_this_file_are_named() {
        let readers = |locks, inode| holders(locks, inode, &READ_LOCKS, Some("READ"));
        assert_eq!(readers(LOCKS, 77), [20, 30, 80]);
        assert_eq!(readers(LOCKS, 79), [0; 0]);
        assert_eq!(readers("", 77), [0; 0]);
    }

    #[test]
    fn any_lock_on_the_first_slots_names_who_keeps_a_writer_out() {
        assert_eq!(holders(LOCKS, 77, &WRITE_LOCKS, None), [10, 80]);
    }

    #[test]
    fn a_database_without_an_index_has_no_readers() {
        assert_eq!(readers_of(Path::new("/nowhere/activity.db")), [0; 0]);
    }

    #[test]
    fn our_own_read_transaction_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a); BEGIN; SELECT * FROM t")
            .unwrap();
        assert_eq!(readers_of(&path), [0; 0]);
        let inode = std::os::unix::fs::MetadataExt::ino(&path.with_file_name("a.db-shm").metadata().unwrap());
        assert_eq!(look(inode, &READ_LOCKS, Some("READ"), None), [std::process::id()]);
    }
}

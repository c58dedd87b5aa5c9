//! Which file systems keep what SQLite's WAL needs, shared memory and locks that every process sees; and what is free.

#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::statvfs;

use crate::Error;

/// Local file systems with POSIX locks, coherent shared mappings and an fsync that means it.
///
/// A list of what is known to work, not of what is known to fail: on a network or FUSE file system two processes may
/// not see each other's locks, and the database is corrupted without a word.
#[cfg(target_os = "linux")]
const LOCAL: [&str; 18] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "ramfs", "rootfs", "overlay",
    "aufs", "jfs", "reiserfs", "nilfs2", "ubifs", "ecryptfs",
];

/// Refuses a store on a file system that is not known to be local; with `allow` it only warns.
#[cfg(target_os = "linux")]
pub(crate) fn check(store: &Path, allow: bool) -> Result<(), Error> {
    let store = std::fs::canonicalize(store).map_err(Error::io("find", store))?;
    let kind = match std::fs::read("/proc/self/mountinfo") {
        Ok(mountinfo) => kind_of(&mountinfo, &store),
        Err(error) => {
            log::warn!(
                "cannot tell what file system {} is on: /proc/self/mountinfo: {error}",
                store.display()
            );
            return Ok(());
        }
    };
    let kind = kind.unwrap_or_else(|| "of unknown type".into());
    if LOCAL.contains(&kind.as_str()) {
        return Ok(());
    }
    let what =
        format!("{} is on a file system ({kind}) that is not known to keep SQLite's locks", store.display());
    if allow {
        log::warn!("{what}; going on as told");
        return Ok(());
    }
    Err(Error::refused(
        what,
        "move the store to a local file system, or pass --allow-filesystem if all processes run on this machine \
         and you know that its locks and shared memory work",
    ))
}

/// Nothing is known about file systems elsewhere.
#[cfg(not(target_os = "linux"))]
pub(crate) fn check(_store: &Path, _allow: bool) -> Result<(), Error> {
    Ok(())
}

/// Bytes that an ordinary user may still write to the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let free = statvfs(path)?;
    Ok(free.f_bavail.saturating_mul(free.f_frsize))
}

/// The type of the file system that `path` is on, according to the text of `/proc/self/mountinfo`: that of the longest
/// mount point above it; of two mounts at one place the later one hides the other.
#[cfg(target_os = "linux")]
fn kind_of(mountinfo: &[u8], path: &Path) -> Option<String> {
    let mut found: Option<(usize, &[u8])> = None;
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ');
        // Id, parent, device, root within the file system; then the mount point, options and any number of tags.
        let Some(point) = fields.nth(4).map(unescape) else { continue };
        let Some(kind) = fields.skip_while(|&field| field != b"-").nth(1) else { continue };
        let point = Path::new(OsStr::from_bytes(&point));
        let depth = point.components().count();
        if path.starts_with(point) && found.is_none_or(|(deepest, _)| depth >= deepest) {
            found = Some((depth, kind));
        }
    }
    found.map(|(_, kind)| String::from_utf8_lossy(kind).into_owned())
}

/// Undoes the kernel's `\040` for bytes that would break the line apart.
#[cfg(target_os = "linux")]
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    const MOUNTS: &str = r"22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,relatime shared:1 master:2 - nfs4 server:/home rw
31 30 8:1 / /home/ann rw,relatime shared:3 - xfs /dev/sda1 rw
32 27 0:41 / /mnt/two\040words\134 rw - fuse.sshfs a:/b rw
33 27 0:42 / /over rw - tmpfs none rw
34 33 0:43 / /over rw - 9p share rw
broken line
35 27 0:44 / /cut rw
";

    fn kind(path: &str) -> String {
        kind_of(MOUNTS.as_bytes(), Path::new(path)).unwrap()
    }

    #[test]
    fn the_deepest_mount_point_above_the_store_decides() {
        assert_eq!(kind("/var/store"), "ext4");
        assert_eq!(kind("/home/bob/store"), "nfs4");
        assert_eq!(kind("/home/ann/store"), "xfs");
        assert_eq!(kind("/home/annabel"), "nfs4");
        assert_eq!(kind("/homestead"), "ext4");
    }

    #[test]
    fn the_later_of_two_mounts_at_one_place_decides() {
        assert_eq!(kind("/over/store"), "9p");
    }

    #[test]
    fn escaped_bytes_in_a_mount_point_are_read() {
        assert_eq!(kind(r"/mnt/two words\/store"), "fuse.sshfs");
        assert_eq!(unescape(br"\011a\"), b"\ta\\");
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        assert_eq!(kind("/cut/store"), "ext4");
        assert_eq!(kind_of(b"", Path::new("/store")), None);
    }

    #[test]
    fn a_store_in_process_memory_is_refused_by_type_unless_allowed() {
        let message = check(Path::new("/proc"), false).unwrap_err().to_string();
        assert!(message.contains("(proc)") && message.contains("--allow-filesystem"), "{message}");
        check(Path::new("/proc"), true).unwrap();
    }

    #[test]
    fn the_directory_of_temporary_files_is_local() {
        check(tempfile::tempdir().unwrap().path(), false).unwrap();
    }
}

//! Disks of our own: small, thin, and with a plug that can be pulled.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::machine::{self, run};
use crate::scenario::Skip;

/// What a power cut is to a mounted file system: nothing more reaches the disk, and nothing that was not synced has
/// (`FS_IOC_SHUTDOWN` without flushing the journal). Prints how long the logs are just before.
const CUT: &str = r#"open F, "<", $ARGV[0] or die $!; $how = pack "L", 2;
    @logs = glob "$ARGV[1]/*.log"; @lengths = map { -s } @logs;
    ioctl F, 0x8004587d, $how or die $!;
    print "$logs[$_]\t$lengths[$_]\n" for 0..$#logs"#;

/// Space for the journal, the bitmaps and the inodes of a disk, in MiB.
const METADATA_MEBIBYTES: u64 = 12;

/// A file system on a loop device; unmounted when dropped.
pub(crate) struct Disk {
    image: PathBuf,
    mountpoint: PathBuf,
    /// Whether each request to the device is of one block.
    by_the_block: bool,
}

impl Disk {
    /// An ext4 of this many MiB, its image in `directory`.
    pub(crate) fn ext4(directory: &Path, name: &str, mebibytes: u64) -> Result<Self, Skip> {
        Self::make(directory, name, mebibytes, false)
    }

    /// An ext4 whose device has less space than it says, and tells no lies: see `docs/testing.md`.
    ///
    /// A loop device reports a write as done of which its file took only a part, so that a sync succeeds and the data
    /// is gone. Of a request of one block the file takes all or nothing.
    pub(crate) fn thin_ext4(directory: &Path, name: &str, mebibytes: u64) -> Result<Self, Skip> {
        Self::make(directory, name, mebibytes, true)
    }

    fn make(directory: &Path, name: &str, mebibytes: u64, by_the_block: bool) -> Result<Self, Skip> {
        machine::need_private_mounts()?;
        for program in ["mkfs.ext4", "fallocate", "mount", "umount", "perl"] {
            machine::need(program)?;
        }
        let image = directory.join(name).with_extension("img");
        File::create(&image)
            .and_then(|file| file.set_len(mebibytes << 20))
            .map_err(|error| error.to_string())?;
        let options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard,packed_meta_blocks=1";
        let path = image.to_string_lossy();
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-J", "size=4", "-E", options, &path])?;
        // What the file system needs for itself stands at the beginning, and has its space in any case.
        let length = format!("{METADATA_MEBIBYTES}MiB");
        run("fallocate", &["--keep-size", "--offset", "0", "--length", &length, &path])?;
        let disk = Self { image, mountpoint: directory.join(name), by_the_block };
        std::fs::create_dir_all(&disk.mountpoint).map_err(|error| error.to_string())?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Pulls the plug; every process on it must be killed then. Gives the lengths of the logs in a directory just
    /// before: an fsync that is under way while ext4 is shut down may report success, which after a real power cut
    /// nobody would be there to hear.
    pub(crate) fn cut_power(&self, logs: &Path) -> BTreeMap<PathBuf, u64> {
        let output = Command::new("perl").args(["-e", CUT]).arg(&self.mountpoint).arg(logs).output().unwrap();
        assert!(output.status.success(), "cannot cut the power: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| line.split_once('\t').unwrap());
        lines.map(|(path, length)| (PathBuf::from(path), length.parse().unwrap())).collect()
    }

    /// What a boot does after a power cut.
    pub(crate) fn mount_again(&self) {
        self.unmount().unwrap();
        self.mount().unwrap();
    }

    pub(crate) fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.mountpoint.to_string_lossy()])?;
        let number = std::fs::metadata(&self.mountpoint).map_err(|error| error.to_string())?.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        // What is set outlives the file system; 0 is what the kernel chooses.
        let setting = format!("/sys/dev/block/{major}:{minor}/queue/max_sectors_kb");
        let limit = if self.by_the_block { "4" } else { "0" };
        std::fs::write(&setting, limit).map_err(|error| format!("{setting}: {error}"))
    }

    pub(crate) fn unmount(&self) -> Result<(), String> {
        unmount(&self.mountpoint)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            keep(&self.mountpoint);
        }
        // What cannot be unmounted goes with the namespace.
        self.unmount().ok();
    }
}

/// A file system in memory; unmounted when dropped.
pub(crate) struct Memory {
    mountpoint: PathBuf,
}

impl Memory {
    /// One of this many MiB.
    pub(crate) fn of(directory: &Path, name: &str, mebibytes: u64) -> Result<Self, Skip> {
        machine::need_private_mounts()?;
        let mountpoint = directory.join(name);
        std::fs::create_dir_all(&mountpoint).map_err(|error| error.to_string())?;
        let size = format!("size={mebibytes}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &mountpoint.to_string_lossy()])?;
        Ok(Self { mountpoint })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, mebibytes: u64) {
        let options = format!("remount,size={mebibytes}m");
        run("mount", &["-o", &options, &self.mountpoint.to_string_lossy()]).unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            keep(&self.mountpoint);
        }
        unmount(&self.mountpoint).ok();
    }
}

/// Saves what is on a disk that goes away, to be looked at.
fn keep(mountpoint: &Path) {
    let kept = mountpoint.with_extension("kept");
    if let Err(error) = run("cp", &["-a", &mountpoint.to_string_lossy(), &kept.to_string_lossy()]) {
        eprintln!("cannot keep what is on {}: {error}", mountpoint.display());
    }
}

/// A process that was just killed may hold files for a moment more.
fn unmount(mountpoint: &Path) -> Result<(), String> {
    let mut result = Ok(());
    for _ in 0..200 {
        result = run("umount", &[&mountpoint.to_string_lossy()]);
        if result.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    result
}

/// The boot id that every process of this program sees; a power cut gives a new one.
pub(crate) struct Boot {
    file: PathBuf,
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Boot {
    /// Takes the place of the system's, for the mount namespace of this program only.
    pub(crate) fn begin(directory: &Path) -> Result<Self, Skip> {
        machine::need_private_mounts()?;
        let boot = Self { file: directory.join("boot_id") };
        boot.again(1);
        run("mount", &["--bind", &boot.file.to_string_lossy(), BOOT_ID])?;
        Ok(boot)
    }

    /// The machine has started again.
    pub(crate) fn again(&self, count: u64) {
        std::fs::write(&self.file, format!("0b007000-0000-4000-8000-{count:012x}\n")).unwrap();
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        run("umount", &[BOOT_ID]).ok();
    }
}

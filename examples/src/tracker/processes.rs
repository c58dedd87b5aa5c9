//! What runs on this machine right now, as `/proc` tells it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One look at one process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Identifies the process among all that ran since the machine started: pids are reused, pairs with a start are not.
    pub(crate) session: i64,
    /// When it started, in milliseconds of Unix time.
    pub(crate) started_at: i64,
    /// Its name, at most 15 bytes, as the kernel keeps it.
    pub(crate) name: String,
    /// Scheduler state: `R` runs, `S` sleeps, `D` waits for a disk, and so on.
    pub(crate) state: char,
    /// Processor time used so far, in milliseconds.
    pub(crate) cpu_ms: u64,
    pid: u32,
}

/// Looks at processes; knows what never changes while the machine is up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observer {
    booted_at_ms: i64,
    ticks_per_second: u64,
}

impl Observer {
    pub(crate) fn new() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let booted_at = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
        let booted_at = booted_at.ok_or_else(|| io::Error::other("/proc/stat has no boot time"))?;
        Ok(Self {
            booted_at_ms: booted_at * 1000,
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
        })
    }

    /// Every process there is. One that ends while we look is left out, like one that ended before.
    pub(crate) fn look(&self) -> io::Result<Vec<Process>> {
        let mut seen = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
                seen.extend(self.parse(pid, &stat));
            }
        }
        Ok(seen)
    }

    /// Reads `/proc/<pid>/stat`, see `man 5 proc_pid_stat`. The name stands in parentheses and may itself hold some.
    fn parse(&self, pid: u32, stat: &str) -> Option<Process> {
        let (head, tail) = stat.rsplit_once(") ")?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let start_ticks = number(19)?;
        let start_ms = i64::try_from(start_ticks * 1000 / self.ticks_per_second).ok()?;
        Some(Process {
            // A pid has at most 22 bits on Linux.
            session: i64::try_from(start_ticks << 22 | u64::from(pid)).ok()?,
            started_at: self.booted_at_ms + start_ms,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            cpu_ms: (number(11)? + number(12)?) * 1000 / self.ticks_per_second,
            pid,
        })
    }
}

impl Process {
    /// The host name that stands for its program, or none: the kernel's own threads have no file.
    pub(crate) fn domain(&self) -> Option<String> {
        domain_of(&fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?)
    }
}

/// Turns a path into a host name with the same nesting: `/usr/bin/ls` is `ls.bin.usr.localhost`, so that a project that
/// owns the domain `usr.localhost` owns everything below `/usr`.
pub(crate) fn domain_of(path: &Path) -> Option<String> {
    let mut labels: Vec<String> = path
        .to_str()?
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            part.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
        })
        .collect();
    labels.reverse();
    labels.push("localhost".to_owned());
    Some(labels.join("."))
}

/// Milliseconds of Unix time.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_below_a_directory_is_a_subdomain_of_it() {
        assert_eq!(domain_of(Path::new("/usr/bin/ls")).as_deref(), Some("ls.bin.usr.localhost"));
        assert_eq!(domain_of(Path::new("/usr/bin")).as_deref(), Some("bin.usr.localhost"));
        assert_eq!(domain_of(Path::new("/opt/A B/.x")).as_deref(), Some("x.a-b.opt.localhost"));
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let observer = Observer { booted_at_ms: 1_000_000, ticks_per_second: 100 };
        let stat = "7 (a) b (c) S 1 7 7 0 -1 64 0 0 0 0 30 12 0 0 20 0 1 0 250 4096 1 0";
        let seen = observer.parse(7, stat).map(|p| (p.name, p.state, p.cpu_ms, p.started_at));
        assert_eq!(seen, Some(("a) b (c".to_owned(), 'S', 420, 1_002_500)));
        assert!(observer.parse(7, "7 (cut").is_none());
    }
}

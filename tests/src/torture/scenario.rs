//! What there is to play, and how a scenario ends.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::arena::{Arena, Bound};
use crate::{crowd, full, kill, neighbours, power, readers, simulated, soak, stopped, sweep, waking};

/// Why a scenario cannot run on this machine.
pub(crate) type Skip = String;

/// One kind of fault.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Seconds that it plays if nobody says how long.
    seconds: u64,
    plays: Plays,
}

/// Where a scenario can run.
enum Plays {
    Anywhere(fn(&mut Arena)),
    IfPossible(fn(&mut Arena) -> Result<(), Skip>),
}

use Plays::{Anywhere, IfPossible};

const fn scenario(name: &'static str, seconds: u64, plays: Plays, about: &'static str) -> Scenario {
    Scenario { name, about, seconds, plays }
}

/// Everything that can be played, in the order in which it is.
pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario(
        "kill",
        20,
        Anywhere(kill::at_random),
        "kill -9 of the writer and of clients at random moments, under load",
    ),
    scenario(
        "recovery",
        15,
        Anywhere(kill::during_recovery),
        "kill -9 of the writer while it starts, again and again",
    ),
    scenario("twins", 8, Anywhere(kill::twins), "several writers started at the same instant, and killed"),
    scenario("stopped", 12, Anywhere(stopped::run), "SIGSTOP of the writer, clients and readers"),
    scenario(
        "sweep-kill",
        30,
        IfPossible(sweep::kill),
        "kill at every system call of a writer's and a client's script",
    ),
    scenario(
        "sweep-once",
        30,
        IfPossible(sweep::error_once),
        "EIO, ENOSPC and EINTR at every system call, once",
    ),
    scenario(
        "sweep-ever",
        30,
        IfPossible(sweep::error_for_ever),
        "EIO, ENOSPC and EINTR at every system call, from there on",
    ),
    scenario(
        "sweep-short",
        15,
        IfPossible(sweep::short_writes),
        "short writes at every write, once and from there on",
    ),
    scenario("power", 20, IfPossible(power::run), "power cuts on a loop-mounted ext4"),
    scenario(
        "simulated",
        15,
        IfPossible(simulated::run),
        "power cuts on a simulated disk, with every state they may leave",
    ),
    scenario(
        "full",
        15,
        IfPossible(full::small_disk),
        "a file system that is full, and freed again, under load",
    ),
    scenario(
        "thin",
        12,
        IfPossible(full::thin_device),
        "EIO from fsync, on a device that has less space than it says, and what is on it then",
    ),
    scenario(
        "neighbours",
        12,
        IfPossible(neighbours::run),
        "sqlite3 next door: reads, writes, checkpoints, spins for the lock",
    ),
    scenario(
        "readers",
        12,
        Anywhere(readers::run),
        "readers that overlap, stop in the middle of a snapshot, and die",
    ),
    scenario(
        "crowd",
        15,
        Anywhere(crowd::run),
        "short-lived clients: files, rows and descriptors return to where they were",
    ),
    scenario("deaf", 10, Anywhere(waking::deaf), "kill -9 with notifications switched off"),
    scenario(
        "overflow",
        8,
        IfPossible(waking::overflow),
        "a queue of notifications that overflows while the writer stands still",
    ),
    scenario(
        "clock",
        10,
        IfPossible(waking::clock_set_back),
        "a clock that jumps by ten years, back and forth",
    ),
    scenario("soak", 25, IfPossible(soak::run), "all of the above, one fault every few seconds"),
];

/// How a scenario ended.
pub(crate) enum End {
    Passed,
    Skipped(Skip),
    Failed(String),
}

/// What one scenario did.
pub(crate) struct Report {
    name: &'static str,
    pub(crate) end: End,
    took: Duration,
    faults: BTreeMap<&'static str, u64>,
    commands: u64,
    notes: Vec<String>,
    kept: Option<PathBuf>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.end {
            End::Passed => "passed",
            End::Skipped(_) => "skipped",
            End::Failed(_) => "FAILED",
        };
        write!(f, "{:12} {word:8} {:4} s ", self.name, self.took.as_secs())?;
        for (what, count) in &self.faults {
            write!(f, " {count} {what},")?;
        }
        write!(f, " {} commands verified", self.commands)?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))?;
        match &self.end {
            End::Passed => {}
            End::Skipped(reason) => write!(f, "; {reason}")?,
            End::Failed(reason) => write!(f, "\n{:12} {reason}", "")?,
        }
        match &self.kept {
            Some(kept) => write!(f, "\n{:12} kept: {}", "", kept.display()),
            None => Ok(()),
        }
    }
}

/// Plays one scenario; what goes wrong in it is a panic there and a failure here.
pub(crate) fn play(scenario: &Scenario, seed: u64, bound: Bound, directory: &Path) -> Report {
    let bound =
        if bound == Bound::Usual { Bound::Time(Duration::from_secs(scenario.seconds)) } else { bound };
    let mut arena = Arena::new(scenario.name, seed, bound, directory);
    let played = catch_unwind(AssertUnwindSafe(|| match scenario.plays {
        Anywhere(run) => {
            run(&mut arena);
            Ok(())
        }
        IfPossible(run) => run(&mut arena),
    }));
    let end = match played {
        Ok(Ok(())) if arena.faults.values().sum::<u64>() == 0 => {
            End::Failed("not one fault happened: nothing was tried".into())
        }
        Ok(Ok(())) => End::Passed,
        Ok(Err(reason)) => End::Skipped(reason),
        Err(panic) => End::Failed(words_of(panic.as_ref())),
    };
    let kept = if matches!(end, End::Failed(_)) { Some(arena.directory.clone()) } else { None };
    if kept.is_none() {
        std::fs::remove_dir_all(&arena.directory).unwrap();
    }
    Report {
        name: scenario.name,
        end,
        took: arena.begun.elapsed(),
        faults: arena.faults,
        commands: arena.commands,
        notes: arena.notes,
        kept,
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

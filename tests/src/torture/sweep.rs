//! A fault at every system call of a script, one after the other, until the script is over.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use penholder_tests::{Store, shim};

use crate::arena::Arena;
use crate::machine;
use crate::scenario::Skip;
use crate::script::{Ending, Script, Template, endure};
use crate::strace::{Fault, Injection, calls_of, trace_beside};

/// Runs on one store of a script that can share one.
const RUNS_PER_STORE: usize = 40;

/// Processes at a time: most of them wait for a disk, or stall.
const THREADS: usize = 12;

/// Calls that a disk can make fail. Not `close`: a local file system never fails it, and Rust's library panics if it
/// does for a directory.
const OF_FILES: [&str; 29] = [
    "access",
    "chmod",
    "fallocate",
    "fchmod",
    "fcntl",
    "fdatasync",
    "flock",
    "fstat",
    "fsync",
    "ftruncate",
    "getdents64",
    "inotify_add_watch",
    "inotify_init1",
    "inotify_rm_watch",
    "lseek",
    "lstat",
    "mkdir",
    "newfstatat",
    "openat",
    "pread64",
    "pwrite64",
    "read",
    "readlink",
    "rename",
    "stat",
    "statfs",
    "statx",
    "unlink",
    "write",
];

/// Calls that only wait: a signal can interrupt them. Not `futex`: it also wakes others, which nothing interrupts.
const THAT_WAIT: [&str; 5] = ["epoll_wait", "nanosleep", "clock_nanosleep", "poll", "recvfrom"];

const ERRORS: [Fault; 3] = [Fault::Error("EIO"), Fault::Error("ENOSPC"), Fault::Error("EINTR")];

pub(crate) fn kill(arena: &mut Arena) -> Result<(), Skip> {
    by_strace(arena, &[Fault::Kill], false)
}

pub(crate) fn error_once(arena: &mut Arena) -> Result<(), Skip> {
    by_strace(arena, &ERRORS, false)
}

pub(crate) fn error_for_ever(arena: &mut Arena) -> Result<(), Skip> {
    by_strace(arena, &ERRORS, true)
}

/// A fault in one run of a script.
#[derive(Clone, Debug)]
enum Trial {
    Strace(Injection),
    /// Every write from this one on takes only a part of its bytes; counted from 1.
    Short {
        nth: u64,
        for_ever: bool,
    },
}

#[derive(Clone, Debug)]
struct Point {
    script: Script,
    trial: Trial,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trial {
            Trial::Strace(injection) => write!(f, "{:?} with strace -f -e {injection}", self.script),
            Trial::Short { nth, for_ever } => {
                write!(
                    f,
                    "{:?} with short write {nth}{}",
                    self.script,
                    if *for_ever { " and all later" } else { "" }
                )
            }
        }
    }
}

fn by_strace(arena: &mut Arena, faults: &[Fault], for_ever: bool) -> Result<(), Skip> {
    machine::need("strace")?;
    let template = Template::make(arena);
    let mut points = Vec::new();
    for script in Script::ALL {
        let mut store = script.prepare(&arena.directory, &template);
        let command = script.command(&mut store);
        let calls = calls_of(&command, &trace_beside(&store.path()));
        for (call, count) in &calls {
            for fault in faults.iter().filter(|fault| makes_sense(call, **fault)) {
                points.extend((1..=*count).map(|nth| {
                    let injection = Injection { call: call.clone(), fault: *fault, nth, for_ever };
                    Point { script, trial: Trial::Strace(injection) }
                }));
            }
        }
    }
    visit(arena, points, &template);
    Ok(())
}

fn makes_sense(call: &str, fault: Fault) -> bool {
    match fault {
        Fault::Kill => true,
        // Locks fail for no disk; once is enough to see that a writer that cannot unlock gives up, a minute each.
        Fault::Error("EINTR" | "ENOSPC") if call == "fcntl" => false,
        Fault::Error("EINTR") => OF_FILES.contains(&call) || THAT_WAIT.contains(&call),
        Fault::Error(_) => OF_FILES.contains(&call),
    }
}

/// More writes than any script makes.
const SHORT_WRITES_MAX: u64 = 400;

pub(crate) fn short_writes(arena: &mut Arena) -> Result<(), Skip> {
    machine::need("cc")?;
    let template = Template::make(arena);
    let mut points = Vec::new();
    for script in Script::ALL {
        for for_ever in [false, true] {
            let trial = |nth| Trial::Short { nth, for_ever };
            points.extend((1..=SHORT_WRITES_MAX).map(|nth| Point { script, trial: trial(nth) }));
        }
    }
    visit(arena, points, &template);
    Ok(())
}

/// What the threads share.
struct Sweep<'a> {
    arena: Mutex<&'a mut Arena>,
    jobs: Vec<Vec<Point>>,
    next: AtomicUsize,
    /// Per script and fault, the first number that the script is over before.
    ends: Mutex<HashMap<String, u64>>,
    template: &'a Template,
    directory: &'a Path,
}

/// Plays the points in a random order, so that a bounded run is a sample of everything.
fn visit(arena: &mut Arena, mut points: Vec<Point>, template: &Template) {
    arena.random.shuffle(&mut points);
    let mut jobs: Vec<Vec<Point>> = Vec::new();
    for script in Script::ALL {
        let of_script: Vec<_> = points.iter().filter(|point| point.script == script).cloned().collect();
        let size = if script.reuses_store() { RUNS_PER_STORE } else { 1 };
        jobs.extend(of_script.chunks(size).map(<[Point]>::to_vec));
    }
    arena.random.shuffle(&mut jobs);
    let directory = arena.directory.clone();
    let sweep = Sweep {
        arena: Mutex::new(arena),
        jobs,
        next: AtomicUsize::new(0),
        ends: Mutex::new(HashMap::new()),
        template,
        directory: &directory,
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| sweep.work())).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let all = sweep.next.load(Ordering::SeqCst) > sweep.jobs.len();
    let note = if all { "complete" } else { "a random part of all points" };
    sweep.lock().note(note.into());
}

impl<'a> Sweep<'a> {
    fn lock(&self) -> MutexGuard<'_, &'a mut Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            if !self.lock().next_round() {
                return;
            }
            let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::SeqCst)) else { return };
            let Some(first) = job.iter().find(|point| !self.is_over(point)) else { continue };
            let mut store = first.script.prepare(self.directory, self.template);
            for point in job {
                if self.is_over(point) {
                    continue;
                }
                let _named = Named(point, &self.next);
                self.play(point, &mut store);
            }
            let _named = Named(first, &self.next);
            let verdict = store.settle_and_verify();
            verdict.expect_clean();
            self.lock().commands += verdict.applied + verdict.rejected;
        }
    }

    fn play(&self, point: &Point, store: &mut Store) {
        let mut command = point.script.command(store);
        let trace = trace_beside(&store.path());
        let (ending, happened) = match &point.trial {
            Trial::Strace(injection) => {
                let ending = endure(injection.around(&command, &trace), injection.for_ever);
                (ending, injection.happened(ending, &trace))
            }
            Trial::Short { nth, for_ever } => {
                command.env("LD_PRELOAD", shim("short")).env("PENHOLDER_SHORT_LOG", &trace);
                command.env("PENHOLDER_SHORT", format!("{nth}{}", if *for_ever { "+" } else { "" }));
                let ending = endure(command, *for_ever);
                (ending, trace.exists())
            }
        };
        if trace.exists() {
            std::fs::remove_file(&trace).unwrap();
        }
        if !happened {
            self.note_end(point);
            return;
        }
        judge(point, ending, store);
        let mut arena = self.lock();
        arena.count(match &point.trial {
            Trial::Strace(Injection { fault: Fault::Kill, .. }) => "kills",
            Trial::Strace(Injection { fault: Fault::Error(error), .. }) => error,
            Trial::Short { .. } => "short writes",
        });
        if ending == Ending::Endless {
            arena.count("stalls, ended by kill -9");
        }
    }

    fn is_over(&self, point: &Point) -> bool {
        let (row, nth) = row_of(point);
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(&row).is_some_and(|end| nth >= *end)
    }

    fn note_end(&self, point: &Point) {
        let (row, nth) = row_of(point);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.entry(row).or_insert(nth);
        *end = nth.min(*end);
    }
}

/// The points that differ in nothing but their number, and this one's number.
fn row_of(point: &Point) -> (String, u64) {
    match &point.trial {
        Trial::Strace(injection) => {
            (format!("{:?} {} {:?}", point.script, injection.call, injection.fault), injection.nth)
        }
        Trial::Short { nth, for_ever } => (format!("{:?} {for_ever}", point.script), *nth),
    }
}

/// The library that watches the spool panics if it cannot ring its own thread, which no system ever refuses: as good
/// as a kill.
fn is_of_notify(line: &str) -> bool {
    line.contains("/notify-")
}

fn is_every_write(point: &Point) -> bool {
    matches!(&point.trial, Trial::Strace(Injection { call, for_ever: true, .. }) if call == "write")
}

/// What no process may do, whatever happens to it.
fn judge(point: &Point, ending: Ending, store: &Store) {
    let killed = matches!(&point.trial, Trial::Strace(Injection { fault: Fault::Kill, .. }));
    let for_ever = match &point.trial {
        Trial::Strace(injection) => injection.for_ever,
        Trial::Short { for_ever, .. } => *for_ever,
    };
    match ending {
        // The library that watches the spool panics a second time while it is dropped.
        Ending::Signal => assert!(killed || is_every_write(point), "{point}: died by a signal of its own"),
        // The client is a test program, which stops where it cannot write its log.
        Ending::Exit(101) if point.script != Script::Client => {
            let complaints = store.complaints();
            let foreign = complaints.lines().filter(|line| line.contains("panicked at")).all(is_of_notify);
            assert!(foreign, "{point}: a panic");
        }
        Ending::Exit(_) => {}
        Ending::Endless => {
            assert!(for_ever || point.script == Script::Client, "{point}: hangs after one failure");
        }
    }
}

/// Names the point at which a panic happened, and lets the other threads come to their end.
struct Named<'a>(&'a Point, &'a AtomicUsize);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed at: {}", self.0);
            self.1.store(usize::MAX / 2, Ordering::SeqCst);
        }
    }
}

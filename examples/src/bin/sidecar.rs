//! Keeps a writer running next to an application: starts both, restarts the writer when it dies, stops both together.
//!
//! ```text
//! sidecar STORE [-- APPLICATION [ARGUMENT...]]
//! ```
//!
//! What the application submits while no writer runs waits in the spool. So there is no order of start to keep, and
//! the death of the writer is no reason to stop the application. It is the first process of a container, or a model
//! for one; on a machine with systemd, use the unit that lies beside this example instead.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How often the two are looked at.
const POLL: Duration = Duration::from_millis(50);
/// First pause before the writer is started again; doubles with every death in a row.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a writer that cannot start says why in its log, and need not say it more often.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A writer that lived this long was well: the next pause is the shortest again.
const LIFE_GOOD: Duration = Duration::from_secs(30);
/// What `penholder serve` exits with when a restart would not help: a wrong command line, another writer.
const EXITS_FOR_PEOPLE: [i32; 2] = [2, 4];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (store, application) = match arguments.as_slice() {
        [store] => (store, None),
        [store, dashes, program, rest @ ..] if dashes == "--" => {
            let mut application = Command::new(program);
            application.args(rest);
            (store, Some(application))
        }
        _ => {
            eprintln!("usage: sidecar STORE [-- APPLICATION [ARGUMENT...]]");
            return ExitCode::from(2);
        }
    };
    supervise(store, application).map_or_else(
        |error| {
            eprintln!("sidecar: {error}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

/// Runs both until the application ends or a signal asks to stop; returns the exit code to pass on.
fn supervise(store: &str, application: Option<Command>) -> io::Result<u8> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&stop))?;
    signal_hook::flag::register(SIGINT, Arc::clone(&stop))?;

    let mut writer = Writer::new(store);
    let mut application = application.map(|mut command| command.spawn()).transpose()?;
    let code = loop {
        if stop.load(Ordering::Relaxed) {
            break 0;
        }
        if let Some(code) = writer.tend()? {
            break code;
        }
        if let Some(status) = application.as_mut().map(Child::try_wait).transpose()?.flatten() {
            application = None;
            break exit_code(status);
        }
        sleep(POLL);
    };
    // The application first: what it still submits on its way out is applied before the writer goes.
    let of_application = application.as_mut().map(end).transpose()?.unwrap_or(0);
    let of_writer = writer.running.as_mut().map(end).transpose()?.unwrap_or(0);
    Ok(code.max(of_application).max(of_writer))
}

/// The writer as a child process, dead or alive.
struct Writer<'a> {
    store: &'a str,
    running: Option<Child>,
    started: Instant,
    start_at: Instant,
    pause: Duration,
}

impl<'a> Writer<'a> {
    fn new(store: &'a str) -> Self {
        let now = Instant::now();
        Self { store, running: None, started: now, start_at: now, pause: PAUSE_MIN }
    }

    /// Starts it if it is due, notices its death; an exit code is a reason to give up.
    fn tend(&mut self) -> io::Result<Option<u8>> {
        let now = Instant::now();
        let Some(child) = &mut self.running else {
            if now >= self.start_at {
                let program = std::env::var_os("PENHOLDER").unwrap_or_else(|| "penholder".into());
                self.running = Some(Command::new(program).arg("serve").arg(self.store).spawn()?);
                self.started = now;
            }
            return Ok(None);
        };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        if status.code().is_some_and(|code| EXITS_FOR_PEOPLE.contains(&code)) {
            self.running = None;
            return Ok(Some(exit_code(status)));
        }
        self.pause =
            if now - self.started >= LIFE_GOOD { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        eprintln!("sidecar: the writer ended ({status}); starting it again in {:?}", self.pause);
        self.running = None;
        self.start_at = now + self.pause;
        Ok(None)
    }
}

/// Asks a child to end, and waits until it has; a clean end on a signal is 0.
fn end(child: &mut Child) -> io::Result<u8> {
    if let Some(status) = child.try_wait()? {
        return Ok(exit_code(status));
    }
    kill_process(Pid::from_child(child), Signal::TERM)?;
    let status = child.wait()?;
    Ok(if status.signal() == Some(SIGTERM) { 0 } else { exit_code(status) })
}

/// The exit code as shells see it: 128 and the signal for a killed process.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

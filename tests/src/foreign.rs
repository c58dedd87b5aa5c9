//! Programs that know nothing of Penholder and open a database themselves: the `sqlite3` shell, Python.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Tries to write as fast as it can, without a busy timeout, until it is told to stop.
const SPIN: &str = r#"
import signal, sqlite3, sys
database, sql = sys.argv[1:]
going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
connection = sqlite3.connect(database, timeout=0, isolation_level=None)
tries = writes = 0
while going:
    tries += 1
    try:
        connection.execute(sql)
        writes += 1
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
    if tries == 1:
        print("ready", flush=True)
print(tries, writes)
"#;

/// Runs statements, says so, and keeps what they lock until it is told to stop, or for some seconds.
const HOLD: &str = r#"
import signal, sqlite3, sys, time
database, seconds, *texts = sys.argv[1:]
connection = sqlite3.connect(database, timeout=5, isolation_level=None)
for text in texts:
    connection.execute(text).fetchall()
print("ready", flush=True)
time.sleep(float(seconds))
print("0 0", flush=True)
connection.close()
"#;

/// Whether a program can be run here; says so if it cannot, for a test that then has nothing to show.
pub fn is_installed(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let installed = asked.is_ok_and(|status| status.success());
    if !installed {
        eprintln!("skipped: {program} is not installed");
    }
    installed
}

/// Runs SQL with the `sqlite3` shell, without a busy timeout.
pub fn shell(database: &Path, sql: &str) -> Output {
    Command::new("sqlite3").arg("-batch").arg(database).arg(sql).stdin(Stdio::null()).output().unwrap()
}

/// Runs SQL with Python's `sqlite3`, one statement per text, without a busy timeout.
pub fn python(database: &Path, texts: &[&str]) -> Output {
    let script = "import sqlite3, sys\n\
                  connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n\
                  for text in sys.argv[2:]:\n    \
                      for row in connection.execute(text): print(*row, sep='|')\n";
    Command::new("python3").args(["-c", script]).arg(database).args(texts).output().unwrap()
}

/// A foreign process at work; killed when dropped.
#[derive(Debug)]
pub struct Foreign {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

/// What a spinning process did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spun {
    /// Writes that it tried.
    pub tries: u64,
    /// Writes that got in.
    pub writes: u64,
}

impl Foreign {
    /// Starts a Python process that repeats one statement without pause, and waits for its first try.
    pub fn spin(database: &Path, sql: &str) -> Self {
        Self::start(Command::new("python3").args(["-c", SPIN]).arg(database).arg(sql))
    }

    /// Starts a Python process that runs `texts` and then does nothing for some seconds, with what it locked.
    pub fn hold(database: &Path, seconds: f64, texts: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(database).arg(seconds.to_string()).args(texts);
        Self::start(&mut command)
    }

    fn start(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the foreign process is at work");
        Self { process, said }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends a spinning process and gives its counts.
    pub fn stop(mut self) -> Spun {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let mut text = String::new();
        self.said.read_to_string(&mut text).unwrap();
        assert!(self.process.wait().unwrap().success(), "the foreign process met another error: {text}");
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap());
        Spun { tries: numbers.next().unwrap(), writes: numbers.next().unwrap() }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Already gone is as good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

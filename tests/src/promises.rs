//! The log in which a client writes down what it submits and what it was promised.
//!
//! One line per event, one `write` per line: what was written survives the death of the process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use penholder_protocol::{Outcome, StreamId};

use crate::Mix;

/// The writing side.
#[derive(Debug)]
pub struct Log {
    file: File,
}

impl Log {
    /// Begins the log of a client.
    #[must_use]
    pub fn create(directory: &Path, client: u64, mix: Mix, stream: StreamId) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let path = directory.join(format!("{client}.log"));
        let mut log = Self { file: OpenOptions::new().append(true).create_new(true).open(path).unwrap() };
        log.line(&format!("client {client} {mix} {stream}"));
        log
    }

    /// Before the submit: from now on these may be applied.
    pub fn submitting(&mut self, sequences: &RangeInclusive<u64>) {
        self.line(&format!("submitting {} {}", sequences.start(), sequences.end()));
    }

    /// After the submit: from now on these must be applied, unless the machine loses power.
    pub fn promised(&mut self, sequences: &RangeInclusive<u64>) {
        self.line(&format!("promised {} {}", sequences.start(), sequences.end()));
    }

    /// After a durable submit: from now on these and all before them must be applied, whatever happens.
    pub fn durable(&mut self, sequences: &RangeInclusive<u64>) {
        self.line(&format!("durable {} {}", sequences.start(), sequences.end()));
    }

    /// The client began over with another stream: the writer was restarted before its first command.
    pub fn stream(&mut self, stream: StreamId) {
        self.line(&format!("stream {stream}"));
    }

    /// The final outcome.
    pub fn outcome(&mut self, sequence: u64, outcome: &Outcome) {
        match outcome {
            Outcome::Applied(applied) => self.line(&format!("applied {sequence} {}", applied.tick)),
            Outcome::Rejected(rejection) => self.line(&format!("rejected {sequence} {}", rejection.code)),
        }
    }

    /// The client got an outcome for everything, and ends.
    pub fn done(&mut self) {
        self.line("done");
    }

    fn line(&mut self, line: &str) {
        self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Notes in every log of a directory that the machine lost power: what was only queued need not have survived, and
/// nobody heard what was promised later. `lengths` are those of the logs just before; the clients must be dead.
pub fn note_power_loss(directory: &Path, lengths: &BTreeMap<PathBuf, u64>) {
    for path in logs_in(directory) {
        let text = std::fs::read_to_string(&path).unwrap();
        let heard = usize::try_from(lengths.get(&path).copied().unwrap_or(0)).unwrap().min(text.len());
        let (heard, unheard) = text.split_at(whole_lines(&text[..heard]).len());
        // What was submitted in the last moment may all the same have reached the disk.
        let intents =
            |line: &&str| ["client ", "stream ", "submitting "].iter().any(|word| line.starts_with(word));
        let kept: String = whole_lines(unheard).split_inclusive('\n').filter(intents).collect();
        // Without its first line it is the log of a client that never began.
        if !heard.is_empty() || !kept.is_empty() {
            std::fs::write(path, format!("{heard}{kept}power\n")).unwrap();
        }
    }
}

/// All but a last line that its client died of writing.
fn whole_lines(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..=end])
}

fn logs_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// What one client was told, read back.
#[derive(Debug)]
pub struct Promises {
    /// Number of the client.
    pub client: u64,
    /// What it submitted.
    pub mix: Mix,
    /// Its stream.
    pub stream: StreamId,
    /// Highest number it tried to submit.
    pub submitted: u64,
    /// Highest number that a submit promised, as far as the promise still stands.
    pub promised: u64,
    /// Highest number that was promised to survive power loss.
    pub durable: u64,
    /// Whether the machine lost power after the client began.
    pub lost_power: bool,
    /// The outcomes it saw: `None` is applied, a word is the code of a rejection.
    pub outcomes: BTreeMap<u64, Option<String>>,
    /// Whether it ended by itself.
    pub done: bool,
}

impl Promises {
    /// Reads every log of a directory.
    #[must_use]
    pub fn read_all(directory: &Path) -> Vec<Self> {
        let paths = logs_in(directory);
        paths.iter().filter_map(|path| Self::parse(&std::fs::read_to_string(path).unwrap())).collect()
    }

    /// `None` if the client died before its first line.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = whole_lines(text).lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let first = lines.next()?;
        let mut log = Self {
            client: first[1].parse().unwrap(),
            mix: first[2].parse().unwrap(),
            stream: first[3].parse().unwrap(),
            submitted: 0,
            promised: 0,
            durable: 0,
            lost_power: false,
            outcomes: BTreeMap::new(),
            done: false,
        };
        for words in lines {
            match words[..] {
                ["submitting", _, last] => log.submitted = last.parse().unwrap(),
                ["promised", _, last] => log.promised = last.parse().unwrap(),
                ["durable", _, last] => {
                    log.durable = last.parse().unwrap();
                    log.promised = log.durable;
                }
                ["applied", sequence, _] => {
                    log.outcomes.insert(sequence.parse().unwrap(), None);
                }
                ["rejected", sequence, code] => {
                    log.outcomes.insert(sequence.parse().unwrap(), Some(code.to_owned()));
                }
                ["stream", stream] => log.stream = stream.parse().unwrap(),
                ["done"] => log.done = true,
                ["power"] => {
                    log.lost_power = true;
                    let told = log.outcomes.keys().next_back().copied().unwrap_or(0);
                    log.promised = log.durable.max(told);
                }
                _ => panic!("a line that no client writes: {words:?}"),
            }
        }
        Some(log)
    }
}

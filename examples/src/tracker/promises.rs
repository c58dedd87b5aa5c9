//! What was promised to a role: one line per acknowledged write, written before anybody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A write that the store acknowledged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Promise {
    /// A session was recorded, by id.
    Session(i64),
    /// An event was recorded, by id.
    Event(i64),
    /// A project was created, by name.
    Project(String),
    /// A domain was given to a project.
    Domain(String),
    /// A setting was changed, and the counter of changes with it.
    Setting(String, String),
    /// A focus was noted: an event in one database and a counter in the other, by the event's id.
    Focus(i64),
    /// An appointment was entered, by title.
    Appointment(String),
    /// A write was refused, with the reason.
    Rejected(String),
}

/// A role's log of promises.
#[derive(Debug)]
pub(crate) struct PromiseLog {
    file: BufWriter<File>,
}

impl PromiseLog {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create_new(path)?) })
    }

    /// Notes promises; they are in the file, though not on the medium, when this returns.
    pub(crate) fn keep(&mut self, promises: &[Promise]) -> io::Result<()> {
        for promise in promises {
            serde_json::to_writer(&mut self.file, promise)?;
            self.file.write_all(b"\n")?;
        }
        self.file.flush()
    }
}

/// Everything that was promised, by all roles.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    pub(crate) sessions: BTreeSet<i64>,
    pub(crate) events: BTreeSet<i64>,
    pub(crate) projects: BTreeSet<String>,
    pub(crate) domains: BTreeSet<String>,
    /// The last value of each setting: every setting has one writer, so its changes are in order.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) setting_changes: u64,
    pub(crate) focuses: BTreeSet<i64>,
    pub(crate) appointments: BTreeSet<String>,
    pub(crate) rejected: u64,
}

impl Promised {
    /// Adds what stands in a role's log.
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<()> {
        for line in BufReader::new(File::open(path)?).lines() {
            self.add(serde_json::from_str(&line?)?);
        }
        Ok(())
    }

    fn add(&mut self, promise: Promise) {
        match promise {
            Promise::Session(id) => drop(self.sessions.insert(id)),
            Promise::Event(id) => drop(self.events.insert(id)),
            Promise::Project(name) => drop(self.projects.insert(name)),
            Promise::Domain(domain) => drop(self.domains.insert(domain)),
            Promise::Setting(key, value) => {
                self.settings.insert(key, value);
                self.setting_changes += 1;
            }
            Promise::Focus(event) => drop(self.focuses.insert(event)),
            Promise::Appointment(title) => drop(self.appointments.insert(title)),
            Promise::Rejected(_) => self.rejected += 1,
        }
    }
}

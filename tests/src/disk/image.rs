//! The files of a disk at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{Change, FileId, NameChange, Pending};

/// Directories, names, and the content of files; a file that has no name is still there for who gives it one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    directories: BTreeSet<String>,
    names: BTreeMap<String, FileId>,
    contents: BTreeMap<FileId, Vec<u8>>,
}

impl Image {
    pub(super) fn apply(&mut self, pending: &Pending) {
        match pending {
            Pending::Content(file, change) => change.apply(self.contents.entry(*file).or_default()),
            Pending::Name(change) => self.rename(change),
        }
    }

    fn rename(&mut self, change: &NameChange) {
        match change {
            NameChange::Create { path, file } => {
                self.names.insert(path.clone(), *file);
            }
            NameChange::Rename { from, to, file } => {
                // The name it had need not have reached the medium before.
                if self.names.get(from) == Some(file) {
                    self.names.remove(from);
                }
                self.names.insert(to.clone(), *file);
            }
            NameChange::Unlink { path } => {
                self.names.remove(path);
            }
            NameChange::MakeDirectory { path } => {
                self.directories.insert(path.clone());
            }
        }
    }

    pub(super) fn names_of_files(&self) -> BTreeMap<FileId, &str> {
        self.names.iter().map(|(name, file)| (*file, name.as_str())).collect()
    }

    pub(super) fn file(&self, path: &str) -> Option<FileId> {
        self.names.get(path).copied()
    }

    /// Those of the files and directories whose path passes `counts`, and files without a name.
    pub(super) fn only(&self, counts: impl Fn(&str) -> bool) -> Self {
        let names: BTreeMap<_, _> = self
            .names
            .iter()
            .filter(|(name, _)| counts(name))
            .map(|(name, file)| (name.clone(), *file))
            .collect();
        let elsewhere: BTreeSet<_> =
            self.names.iter().filter(|(name, _)| !counts(name)).map(|(_, file)| *file).collect();
        let contents = self.contents.iter().filter(|(file, _)| !elsewhere.contains(file));
        Self {
            directories: self.directories.iter().filter(|path| counts(path)).cloned().collect(),
            names,
            contents: contents.map(|(file, content)| (*file, content.clone())).collect(),
        }
    }

    /// Hashes what a process would find: directories, names, and what is in the files that have one.
    pub(super) fn hash_named(&self, hasher: &mut impl Hasher) {
        self.directories.hash(hasher);
        for (name, file) in &self.names {
            (name, self.contents.get(file)).hash(hasher);
        }
    }

    /// Writes the files whose path begins with `from` below `to`, for nobody but us to see, as a writer demands.
    pub fn lay_out(&self, from: &str, to: &Path) {
        let below = |path: &str| path.strip_prefix(from).map(|rest| to.join(rest.trim_start_matches('/')));
        let private = |place: &Path| DirBuilder::new().recursive(true).mode(0o700).create(place).unwrap();
        for place in self.directories.iter().filter_map(|path| below(path)) {
            private(&place);
        }
        for (path, file) in &self.names {
            let Some(place) = below(path) else { continue };
            private(place.parent().unwrap());
            let content = self.contents.get(file).map(Vec::as_slice).unwrap_or_default();
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place);
            file.unwrap().write_all(content).unwrap();
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                if content.len() < offset + bytes.len() {
                    content.resize(offset + bytes.len(), 0);
                }
                content[*offset..*offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate { length } => content.resize(*length, 0),
        }
    }
}

//! Where the store appears: built aside on the same file system, and there for others only once it is complete.
//!
//! The control file is what makes a directory a store, for clients and for readers, and it comes last. A split that was
//! interrupted leaves its directory [`ASIDE`] and no control file: no writer starts there, and the next split removes
//! what is left and starts over.

use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use penholder_protocol::{Layout, StoreId, publish, sync_directory};
use rustix::fs::Access;
use serde::Deserialize;

use crate::control::ControlFile;
use crate::keeper::beside;
use crate::lock::StoreLock;
use crate::recover::FIRST_TICK;
use crate::restored::Origin;
use crate::{Config, Error, access, crash, filesystem};

/// The directory within the store in which a split builds.
pub(super) const ASIDE: &str = ".split";

/// The report of the split that made the store.
const RECORD: &str = "split.json";

/// A store's directory, held against writers and other splits.
pub(super) struct Place {
    layout: Layout,
    /// The new files, under a layout of their own.
    pub(super) aside: Layout,
    replaces: bool,
    /// What was not there before: taken away again if there is no store in the end.
    made: Made,
    _lock: StoreLock,
}

/// What taking a directory made.
struct Made {
    directory: bool,
    lock: bool,
}

/// The split that made a store.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// The store's id.
    pub store_id: String,
    /// The file that was split.
    pub source: RecordedSource,
    /// Its BLAKE3.
    pub source_blake3: String,
}

/// The old database, as it was.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedSource {
    /// Without links.
    pub path: PathBuf,
    /// Size.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
}

/// What is in a directory before a split.
pub(super) enum Found {
    /// Nothing, or what an interrupted split left.
    Room,
    /// A store that a split made.
    Split(Box<Record>),
    /// Another store.
    Taken(Error),
    /// Files that belong to no store: nobody may replace them.
    Foreign(Error),
}

/// Looks at a directory without changing anything.
pub(super) fn look(store: &Path) -> Result<Found, Error> {
    let layout = Layout::new(store);
    let hint = "choose another directory, or pass --force to replace what is there";
    if layout.control().exists() {
        return Ok(match std::fs::read(store.join(RECORD)) {
            Ok(text) => {
                let record = serde_json::from_slice(&text).map_err(|error| {
                    Error::refused(format!("{}: {error}", store.join(RECORD).display()), hint)
                })?;
                Found::Split(Box::new(record))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Found::Taken(Error::refused(format!("{} is a store already", store.display()), hint))
            }
            Err(error) => return Err(Error::io("read", &store.join(RECORD))(error)),
        });
    }
    if store.join(ASIDE).exists() {
        return Ok(Found::Room);
    }
    Ok(stranger(store)?.map_or(Found::Room, |path| {
        let what = format!("{} is there, and belongs to no store", path.display());
        Found::Foreign(Error::refused(what, "choose an empty directory, or one that does not exist"))
    }))
}

/// Something in a directory without a store, or in its place: from here on a split takes all that is there for its own.
fn stranger(store: &Path) -> Result<Option<PathBuf>, Error> {
    let entries = match std::fs::read_dir(store) {
        Ok(entries) => entries,
        Err(_) if store.symlink_metadata().is_ok_and(|there| !there.is_dir()) => {
            return Ok(Some(store.to_owned()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("list", store)(error)),
    };
    let lock = Layout::new(store).writer_lock();
    let paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(Error::io("list", store))?;
    Ok(paths.into_iter().find(|path| *path != lock))
}

/// Refuses a store that a split has not finished, and removes what one that died at its very end left; to be called
/// with the writer's lock.
pub(crate) fn settle_unfinished(layout: &Layout) -> Result<(), Error> {
    let aside = layout.root().join(ASIDE);
    if layout.control().exists() || !aside.exists() {
        return remove_directory(&aside);
    }
    let what = format!("a split into {} was interrupted", layout.root().display());
    Err(Error::refused(what, "run the same `penholder split` again: it starts over by itself"))
}

/// The same for a store that a split finds finished; a writer that runs there has done it when it started.
pub(super) fn clear_finished(store: &Path) -> Result<(), Error> {
    let layout = Layout::new(store);
    if !store.join(ASIDE).exists() {
        return Ok(());
    }
    match StoreLock::acquire(&layout) {
        Ok(_lock) => settle_unfinished(&layout),
        Err(Error::Locked { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses where a split could not build or publish, as far as can be told without changing anything.
pub(super) fn check_place(config: &Config, force: bool) -> Result<(), Error> {
    let store = &config.store;
    let absolute = std::path::absolute(store).map_err(Error::io("find", store))?;
    let there = absolute.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/"));
    filesystem::check(there, config.allow_filesystem)?;
    rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| Error::io("write to", there)(error.into()))?;
    if !force || !Layout::new(store).control().exists() {
        return Ok(());
    }
    if penholder_client::writer_running(store).map_err(Error::io("look for a writer in", store))? {
        let what = format!("a writer serves {}", store.display());
        return Err(Error::refused(what, "end it, then split with --force"));
    }
    refuse_waiting(&Layout::new(store))
}

/// Everything that a split gives a name in the store, but for the control file.
fn names(layout: &Layout, databases: &[String]) -> Vec<PathBuf> {
    let of_database = |name: &String| {
        let path = layout.database(name);
        [beside(&path, "-wal"), beside(&path, "-shm"), beside(&path, "-journal"), path]
    };
    let mut names: Vec<PathBuf> = databases.iter().flat_map(of_database).collect();
    names.extend([layout.settings(), layout.root().join(RECORD)]);
    names
}

impl Place {
    /// Takes the directory: makes it if it is not there, keeps everybody else out, and clears what a crash left.
    pub(super) fn take(config: &Config, force: bool) -> Result<Self, Error> {
        let layout = Layout::new(&config.store);
        let root = layout.root();
        let made = Made { directory: !root.exists(), lock: !layout.writer_lock().exists() };
        make_directory(root, 0o750)?;
        filesystem::check(root, config.allow_filesystem)?;
        let lock = StoreLock::acquire(&layout)?;
        // Looked at again, now that nobody else can change it.
        let replaces = match look(root)? {
            Found::Room => false,
            Found::Foreign(error) => return Err(error),
            _ if force => true,
            Found::Taken(error) => return Err(error),
            Found::Split(_) => {
                return Err(Error::refused(
                    format!("{} is a store already", root.display()),
                    "nothing is to be done",
                ));
            }
        };
        if replaces {
            refuse_waiting(&layout)?;
        }
        let place = Self { aside: Layout::new(root.join(ASIDE)), layout, replaces, made, _lock: lock };
        place.clear()?;
        make_directory(place.aside.root(), 0o700)?;
        sync_directory(place.layout.root()).map_err(Error::io("sync", place.layout.root()))?;
        crash::point("split_begun");
        Ok(place)
    }

    /// Removes what an interrupted split left; without a control file, everything with a name of ours is that.
    fn clear(&self) -> Result<(), Error> {
        let left = self.aside.root().exists();
        if left && !self.layout.control().exists() {
            self.remove_old()?;
        }
        remove_directory(self.aside.root())
    }

    /// Gives up: nothing of the split stays.
    pub(super) fn abandon(self) -> Result<(), Error> {
        remove_directory(self.aside.root())?;
        // While the lock is held: whoever opened the file before, and gets its lock after, sees that it is gone.
        if self.made.lock {
            remove_file(&self.layout.writer_lock())?;
        }
        if self.made.directory {
            std::fs::remove_dir(self.layout.root()).map_err(Error::io("remove", self.layout.root()))?;
        }
        Ok(())
    }

    /// Makes the databases that were built aside a store; `record` and `settings` are the texts that go with them.
    pub(super) fn publish(
        self,
        config: &Config,
        store: StoreId,
        settings: &[u8],
        record: &[u8],
    ) -> Result<(), Error> {
        let root = self.layout.root().to_owned();
        let failed = || Error::io("publish", &root);
        crash::point("split_verified");
        if self.replaces {
            // Clients went on submitting while the new databases were made.
            if let Err(waiting) = refuse_waiting(&self.layout) {
                self.abandon()?;
                return Err(waiting);
            }
            remove_file(&self.layout.control())?;
            sync_directory(&root).map_err(failed())?;
            crash::point("split_replacing");
            self.remove_old()?;
        }
        for name in &config.databases {
            std::fs::rename(self.aside.database(name), self.layout.database(name)).map_err(failed())?;
            crash::point("split_renamed");
        }
        publish(self.aside.root(), &root, "penholder.toml", settings, 0o640).map_err(failed())?;
        publish(self.aside.root(), &root, RECORD, record, 0o640).map_err(failed())?;
        access::make_directories(&self.layout)?;
        access::keep_segments_private(&self.layout);
        crash::point("split_before_control");
        let origin = Origin { tick: FIRST_TICK, ..Origin::new(store) };
        ControlFile::create(&self.layout, config, origin)?;
        crash::point("split_published");
        remove_directory(self.aside.root())
    }

    /// Removes databases, settings, segments and receipts; locks and quarantine stay.
    fn remove_old(&self) -> Result<(), Error> {
        let databases = ["config".to_owned(), "activity".to_owned()];
        names(&self.layout, &databases).iter().try_for_each(|path| remove_file(path))?;
        remove_directory(&self.layout.spool())?;
        remove_directory(&self.layout.receipts())
    }
}

/// Refuses to replace a store while commands wait in it: they were promised.
fn refuse_waiting(layout: &Layout) -> Result<(), Error> {
    let spool = layout.spool();
    let entries = match std::fs::read_dir(&spool) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", &spool)(error)),
    };
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "live" || kind == "seg");
    let waiting = entries.filter_map(Result::ok).map(|entry| entry.path()).find(is_segment);
    let Some(segment) = waiting else { return Ok(()) };
    let what = format!("{} may hold commands that were not applied yet", segment.display());
    Err(Error::refused(
        what,
        "end the clients, run `penholder serve STORE --once`, then split again with --force",
    ))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::io("create", path))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where the old file goes when it is retired.
pub(super) fn retired(source: &Path) -> PathBuf {
    beside(source, ".retired")
}

/// Takes the old file out of the way of the old program, readable and no longer writable.
pub(super) fn retire(source: &Path) -> Result<PathBuf, Error> {
    let target = retired(source);
    if target.symlink_metadata().is_ok() {
        return Err(Error::refused(format!("{} is there already", target.display()), "move it away"));
    }
    std::fs::set_permissions(source, Permissions::from_mode(0o440))
        .map_err(Error::io("set the mode of", source))?;
    std::fs::rename(source, &target).map_err(Error::io("rename", source))?;
    let parent = target.parent().unwrap_or(Path::new("."));
    sync_directory(parent).map_err(Error::io("sync", parent))?;
    Ok(target)
}

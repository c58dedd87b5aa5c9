//! The control file as the writer holds it: created with the store, locked as a sign of life.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::Duration;

use penholder_protocol::{Control, DatabaseSlot, Epoch, Layout, StoreId, WriterState, publish};

use crate::restored::Origin;
use crate::{Config, Error, restored};

/// The open control file and what stands in it.
#[derive(Debug)]
pub(crate) struct ControlFile {
    file: File,
    layout: Layout,
    /// Nobody has run on this store before: its first epoch is not used yet.
    pub(crate) is_new: bool,
    /// Change it, then call [`write`](Self::write).
    pub(crate) content: Control,
}

impl ControlFile {
    /// Opens the store's control file, or makes the one of a new store.
    pub(crate) fn open(layout: &Layout, config: &Config) -> Result<Self, Error> {
        let path = layout.control();
        // Not `exists`, which takes every error for no: a second identity would lock the store's databases out.
        let is_new = !path.try_exists().map_err(Error::io("look for", &path))?;
        if is_new {
            Self::create(layout, config, Self::origin(layout, config)?)?;
        }
        let file = open(layout)?;
        let mut content = Control::read_from(&file).map_err(Error::io("read", &path))?;
        let names: Vec<_> = content.databases.iter().map(|slot| &slot.name).collect();
        if !names.iter().copied().eq(&config.databases) {
            return Err(Error::refused(
                format!(
                    "{} was made for the databases {names:?}, not {:?}",
                    path.display(),
                    config.databases
                ),
                "put the old list back into PENHOLDER_DATABASES or penholder.toml, whichever has this one",
            ));
        }
        content.databases.iter().try_for_each(|slot| refuse_missing(layout, slot))?;
        // Clients learn the settings that bind them from here; the first write of the start tells them.
        content.quota_stream_bytes = config.quota_stream_bytes;
        content.free_bytes_min = config.free_bytes_min;
        Ok(Self { file, layout: layout.clone(), is_new, content })
    }

    /// The store that the databases are of, if that is asked for; a new one if there are none.
    fn origin(layout: &Layout, config: &Config) -> Result<Origin, Error> {
        match restored::find(layout, config)? {
            Some(origin) if config.accept_rollback => Ok(origin),
            Some(Origin { store, .. }) => Err(Error::refused(
                format!(
                    "{} is missing, and the databases are of the store {store}",
                    layout.control().display()
                ),
                "put it back; or, if they were restored from a backup, start with --accept-rollback",
            )),
            None => StoreId::random().map(Origin::new).map_err(Error::io("draw an id for", &config.store)),
        }
    }

    /// Publishes the control file of a new store: clients may connect from this moment on. Built where only the writer
    /// can write.
    pub(crate) fn create(layout: &Layout, config: &Config, origin: Origin) -> Result<(), Error> {
        publish_whole(layout, &mut new_content(config, origin))
    }

    /// Writes the file again if somebody deleted it under the writer: clients find the store by it, and nobody else
    /// knows what stood there.
    pub(crate) fn keep(&mut self) -> Result<(), Error> {
        let path = self.layout.control();
        let ours = self.file.metadata().map_err(Error::io("look at", &path))?;
        match std::fs::symlink_metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            Ok(_) => Err(Error::Intruder { what: format!("{} was replaced", path.display()) }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                log::warn!("{} was deleted: writing it again", path.display());
                publish_whole(&self.layout, &mut self.content)?;
                self.file = open(&self.layout)?;
                Ok(())
            }
            Err(error) => Err(Error::io("look at", &path)(error)),
        }
    }

    /// Writes the content; with `durable`, it is on the medium when this returns.
    pub(crate) fn write(&mut self, durable: bool) -> Result<(), Error> {
        let path = self.layout.control();
        self.content.write_to(&self.file, durable).map_err(Error::io("write", &path))
    }

    /// Says what the writer is doing; a hint, not synced.
    pub(crate) fn set_state(&mut self, state: WriterState) -> Result<(), Error> {
        self.content.state = state;
        self.write(false)
    }
}

/// Opens the file, with the sign of life in it.
fn open(layout: &Layout) -> Result<File, Error> {
    let path = layout.control();
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
    show_life(&file);
    Ok(file)
}

/// Makes the file appear with this content.
fn publish_whole(layout: &Layout, content: &mut Control) -> Result<(), Error> {
    let aside = layout.root().join("control.tmp");
    let failed = || Error::io("create", &aside);
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed()(error)),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&aside).map_err(failed())?;
    content.write_to(&file, false).map_err(failed())?;
    drop(file);
    let bytes = std::fs::read(&aside).map_err(failed())?;
    std::fs::remove_file(&aside).map_err(failed())?;
    publish(layout.root(), layout.root(), "control", &bytes, 0o644)
        .map_err(Error::io("create", &layout.control()))
}

/// Refuses to make a database anew that was there: what it held would be gone, and nobody told.
fn refuse_missing(layout: &Layout, slot: &DatabaseSlot) -> Result<(), Error> {
    let path = layout.database(&slot.name);
    if slot.is_to_be_made() || path.try_exists().map_err(Error::io("look for", &path))? {
        return Ok(());
    }
    Err(Error::refused(
        format!("{} is missing", path.display()),
        "put it back, or put all databases of one backup there and start with --accept-rollback",
    ))
}

fn new_content(config: &Config, Origin { store, epoch, tick }: Origin) -> Control {
    let slot = |name: &String| DatabaseSlot { name: name.clone(), reclaimed: tick };
    Control {
        store,
        generation: 0,
        // Above the floor: clients may submit before the first writer has recovered.
        epoch,
        floor: Epoch(epoch.0 - 1),
        state: WriterState::Stopped,
        pid: 0,
        torn: 0,
        quarantined: 0,
        foreign_writes: 0,
        quota_stream_bytes: config.quota_stream_bytes,
        free_bytes_min: config.free_bytes_min,
        suspect: None,
        fruitless_starts: 0,
        databases: config.databases.iter().map(slot).collect(),
    }
}

/// Holds the lock that clients probe to learn whether a writer runs. A probe holds it for a moment, so try again; a
/// hostile client that never lets go only hides the sign of life.
fn show_life(file: &File) {
    for _ in 0..100 {
        match fs2::FileExt::try_lock_exclusive(file) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(()) | Err(_) => return,
        }
    }
    log::warn!("a process keeps the control file locked: clients will not see that a writer runs");
}

//! Who may do what with the files of a store: the modes the writer gives them, and those it refuses to start with.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use penholder_protocol::Layout;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::{Config, Error};

/// The store and the receipts: the group looks, the writer writes.
const LOOK_MODE: u32 = 0o750;
/// The spool: everybody in the group creates, nobody removes or renames what is another's, and whatever is created gets
/// the group of the store, so that a writer that is not root can read it.
const SPOOL_MODE: u32 = 0o3770;
/// The quarantine: bytes of all users.
const PRIVATE_MODE: u32 = 0o700;
/// What one user alone reads, as far as modes can say it.
const OWNER_MODE: u32 = 0o600;
/// Where there are no access lists.
const GROUP_MODE: u32 = 0o640;

/// The group writes, or others do.
const ANYBODY_WRITES: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Makes the directories that are missing, with their modes whatever the umask, and gives them their access lists.
pub(crate) fn make_directories(layout: &Layout) -> Result<(), Error> {
    let directories = [
        (layout.root().to_owned(), LOOK_MODE),
        (layout.spool(), SPOOL_MODE),
        (layout.spool_tmp(), SPOOL_MODE),
        (layout.receipts(), LOOK_MODE),
        (layout.quarantine(), PRIVATE_MODE),
    ];
    for (path, mode) in directories {
        if let Some(parent) = path.parent().filter(|_| path == layout.root()) {
            DirBuilder::new()
                .recursive(true)
                .mode(LOOK_MODE)
                .create(parent)
                .map_err(Error::io("create", parent))?;
        }
        match DirBuilder::new().mode(mode).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            made => made.map_err(Error::io("create", &path))?,
        }
        // A group that the parent hands down stays.
        let inherited = std::fs::metadata(&path).map_err(Error::io("look at", &path))?.mode() & 0o2000;
        std::fs::set_permissions(&path, Permissions::from_mode(mode | inherited))
            .map_err(Error::io("set the mode of", &path))?;
    }
    Ok(())
}

/// Lets segments be read by their owner and the writer alone, where the file system has access lists: whoever can open
/// a segment can hold its lock, and so pretend that its owner lives.
pub(crate) fn keep_segments_private(layout: &Layout) {
    for path in [layout.spool(), layout.spool_tmp()] {
        let list = access_list(OWNER_MODE >> 6, own_uid());
        match rustix::fs::setxattr(&path, "system.posix_acl_default", &list, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => {
                log::info!(
                    "no access lists on this file system: segments and receipts are readable by the group"
                );
                return;
            }
            Err(error) => log::warn!("cannot set the access list of {}: {error}", path.display()),
        }
    }
}

/// Lets one user read a file of the writer's, and nobody else: a user who owned it could truncate it under the writer.
pub(crate) fn let_read(file: &File, uid: u32) -> io::Result<()> {
    if uid == own_uid() {
        return Ok(());
    }
    match rustix::fs::fsetxattr(file, "system.posix_acl_access", &access_list(6, uid), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => file.set_permissions(Permissions::from_mode(GROUP_MODE)),
        set => Ok(set?),
    }
}

/// The user that the writer runs as.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A POSIX access list as the kernel takes it: `owner` rights for the owner, reading for `reader`, nothing for others.
fn access_list(owner: u32, reader: u32) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    let entries = [
        (0x01_u16, owner, NOBODY), // the owner
        (0x02, 4, reader),         // a named user
        (0x04, 0, NOBODY),         // the owning group
        (0x10, 4, NOBODY),         // the most that the two before can have
        (0x20, 0, NOBODY),         // others
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(u16::try_from(rights).unwrap_or(0).to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// What is asked of a path of the store.
#[derive(Clone, Copy)]
struct Rule {
    directory: bool,
    /// Mode to be had after mending.
    mode: u32,
    /// Bits of the mode that must not be set.
    forbidden: u32,
}

/// Refuses a store in which others could change what only the writer may, and says how to mend it.
pub(crate) fn check(layout: &Layout, config: &Config) -> Result<(), Error> {
    let directory = |mode, forbidden| Rule { directory: true, mode, forbidden };
    look(layout.root(), directory(LOOK_MODE, ANYBODY_WRITES))?;
    look(&layout.receipts(), directory(LOOK_MODE, ANYBODY_WRITES))?;
    look(&layout.quarantine(), directory(PRIVATE_MODE, 0o077))?;
    for path in [layout.spool(), layout.spool_tmp()] {
        let Some(metadata) = look(&path, directory(SPOOL_MODE, 0))? else { continue };
        let mode = metadata.mode();
        if mode & ANYBODY_WRITES != 0 && mode & STICKY == 0 {
            let wanted = (mode & 0o7777) | STICKY;
            return Err(unsafe_mode(&path, mode, "lets one user remove the files of another", wanted));
        }
    }
    let file = |mode, forbidden| Rule { directory: false, mode, forbidden };
    look(&layout.settings(), file(GROUP_MODE, ANYBODY_WRITES))?;
    look(&layout.writer_lock(), file(OWNER_MODE, 0o077))?;
    look(&layout.control(), file(0o644, ANYBODY_WRITES))?;
    look(&layout.ballast(), file(OWNER_MODE, ANYBODY_WRITES))?;
    for name in &config.databases {
        for suffix in ["", "-wal", "-shm"] {
            let path = layout.root().join(format!("{name}.db{suffix}"));
            look(&path, file(GROUP_MODE, ANYBODY_WRITES))?;
        }
    }
    Ok(())
}

/// Looks at a path without opening it or following a link: the databases are SQLite's alone. A missing file is as good.
fn look(path: &Path, rule: Rule) -> Result<Option<Metadata>, Error> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if !rule.directory && error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(Error::io("look at", path))?,
    };
    // The store itself may be reached through a link that the operator made.
    let metadata = if rule.directory && metadata.is_symlink() {
        std::fs::metadata(path).map_err(Error::io("look at", path))?
    } else {
        metadata
    };
    let (uid, mode, place) = (metadata.uid(), metadata.mode(), path.display());
    let is_right = if rule.directory { metadata.is_dir() } else { metadata.is_file() };
    if !is_right {
        let kind = if rule.directory { "a directory" } else { "a regular file" };
        return Err(Error::refused(
            format!("{place} is not {kind}"),
            format!("move it away: mv {place} {place}.odd"),
        ));
    }
    if !rule.directory && metadata.nlink() > 1 {
        let what =
            format!("{place} has {} names, and whoever has another can reach it there", metadata.nlink());
        return Err(Error::refused(what, format!("find them: find / -xdev -samefile {place}")));
    }
    // Settings may be root's: an operator wrote them.
    if uid != own_uid() && !(uid == 0 && path.ends_with("penholder.toml")) {
        let what = format!("{place} belongs to uid {uid}, and the writer is uid {}", own_uid());
        return Err(Error::refused(
            what,
            format!("chown {} {place}, or run the writer as uid {uid}", own_uid()),
        ));
    }
    if mode & rule.forbidden != 0 {
        let how = if mode & rule.forbidden & ANYBODY_WRITES != 0 {
            "lets others change what only the writer may"
        } else {
            "lets others see what is the writer's own"
        };
        return Err(unsafe_mode(path, mode, how, rule.mode));
    }
    Ok(Some(metadata))
}

fn unsafe_mode(path: &Path, mode: u32, how: &str, wanted: u32) -> Error {
    let place = path.display();
    Error::refused(
        format!("{place} has mode {:04o}, which {how}", mode & 0o7777),
        format!("chmod {wanted:04o} {place}"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests;

//! Who a grant is for: a user or a group of this machine.

use std::fmt;

use nix::unistd::{Gid, Group, Uid, User};

/// A user or a group, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    /// One user, by number: it needs no name on this machine.
    User(u32),
    /// Everybody whose primary group it is, and everybody it lists.
    Group {
        /// Its number.
        gid: u32,
        /// The names that it listed at the writer's start.
        members: Vec<String>,
    },
}

impl Principal {
    /// Looks up `user:NAME`, `user:UID`, `group:NAME` or `group:GID`; an error says what is wrong with it.
    pub(crate) fn look_up(text: &str) -> Result<Self, String> {
        let unreadable = |error: nix::Error| format!("the users of this machine cannot be read: {error}");
        match text.split_once(':') {
            Some(("user", name)) if !name.is_empty() => {
                if let Ok(uid) = name.parse() {
                    return Ok(Self::User(uid));
                }
                let user = User::from_name(name).map_err(unreadable)?;
                user.map(|user| Self::User(user.uid.as_raw()))
                    .ok_or_else(|| format!("this machine has no user {name:?}"))
            }
            Some(("group", name)) if !name.is_empty() => {
                let number = name.parse().ok();
                let found = match number {
                    Some(gid) => Group::from_gid(Gid::from_raw(gid)),
                    None => Group::from_name(name),
                };
                match (found.map_err(unreadable)?, number) {
                    (Some(group), _) => Ok(Self::Group { gid: group.gid.as_raw(), members: group.mem }),
                    // As in a container: a number that some user has as its primary group.
                    (None, Some(gid)) => Ok(Self::Group { gid, members: Vec::new() }),
                    (None, None) => Err(format!("this machine has no group {name:?}")),
                }
            }
            Some(_) | None => Err("it is not user:NAME, user:UID, group:NAME or group:GID".into()),
        }
    }

    /// Whether both mean the same user or group.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::User(one), Self::User(other))
            | (Self::Group { gid: one, .. }, Self::Group { gid: other, .. }) => one == other,
            (Self::User(_), Self::Group { .. }) | (Self::Group { .. }, Self::User(_)) => false,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Group { gid, .. } => write!(f, "gid {gid}"),
        }
    }
}

/// A user as the groups know it: its name and its primary group; `None` if this machine does not know the number.
pub(crate) fn user(uid: u32) -> Option<(String, u32)> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(user) => user.map(|user| (user.name, user.gid.as_raw())),
        Err(error) => {
            log::warn!("cannot look up the groups of uid {uid}: {error}; it gets no role from a group");
            None
        }
    }
}

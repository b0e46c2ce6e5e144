//! What lies at the paths of a host in memory.

use std::path::Path;

use crate::api::types::{Attributes, Entry, EntryKind, Owner};

/// A file, directory, link or something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: EntryKind,
    pub(super) attributes: Attributes,
    /// Empty for all but files.
    pub(super) content: Vec<u8>,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
}

impl Node {
    pub(super) fn file(content: Vec<u8>, attributes: Attributes, now: i64) -> Self {
        Self { kind: EntryKind::File, attributes, content, mtime: now, ctime: now }
    }

    pub(super) fn directory(mode: u32, now: i64) -> Self {
        Self::bare(EntryKind::Directory, mode, now)
    }

    pub(super) fn link(target: &Path, now: i64) -> Self {
        Self::bare(EntryKind::Symlink(target.to_owned()), 0o777, now)
    }

    pub(super) fn other(now: i64) -> Self {
        Self::bare(EntryKind::Other, 0o600, now)
    }

    fn bare(kind: EntryKind, mode: u32, now: i64) -> Self {
        let attributes = Attributes { mode, owner: Owner::Id(0), group: Owner::Id(0) };
        Self { kind, attributes, content: Vec::new(), mtime: now, ctime: now }
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            kind: self.kind.clone(),
            attributes: self.attributes.clone(),
            size: self.content.len() as u64,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    /// Returns the node as one line.
    pub(super) fn shown(&self) -> String {
        let owner = |owner: &Owner| match owner {
            Owner::Id(id) => id.to_string(),
            Owner::Named(name) => name.clone(),
        };
        let Attributes { mode, owner: user, group } = &self.attributes;
        let content = match &self.kind {
            EntryKind::File => format!("{:?}", String::from_utf8_lossy(&self.content)),
            EntryKind::Symlink(target) => format!("-> {}", target.display()),
            EntryKind::Directory | EntryKind::Other => String::new(),
        };
        format!("{} {mode:04o} {}:{} {content}", self.kind.word(), owner(user), owner(group)).trim_end().to_owned()
    }
}

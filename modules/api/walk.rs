//! Walks over a host's files as modules see them: what lies below a folder, where a path leads.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::ModuleError;
use super::inspect::Inspect;
use super::resolve::resolve;
use super::types::{Entry, EntryKind};

/// Returns the files that `named` stands for: itself, or all below it when it is or leads to a folder. Links to folders
/// below it are not entered.
pub fn files(host: &dyn Inspect, named: &[PathBuf]) -> Result<BTreeSet<PathBuf>, ModuleError> {
    let mut files = BTreeSet::new();
    let mut folders = Vec::new();
    for path in named {
        match host.target(path)? {
            Some(entry) if entry.kind == EntryKind::Directory => folders.push(path.clone()),
            _ => {
                files.insert(path.clone());
            }
        }
    }
    while let Some(folder) = folders.pop() {
        for name in host.list(&folder)? {
            let path = folder.join(name);
            match host.entry(&path)?.map(|entry| entry.kind) {
                Some(EntryKind::Directory) => folders.push(path),
                Some(EntryKind::File | EntryKind::Symlink(_)) => {
                    files.insert(path);
                }
                Some(EntryKind::Other) | None => {}
            }
        }
    }
    Ok(files)
}

/// Where a path leads.
pub struct Followed {
    /// The path without any link in it; as it was given when nothing is there.
    pub path: PathBuf,
    /// The latest change of what it leads to and of every link on the way there, nanoseconds since 1970; 0 when nothing is there.
    pub changed: i64,
}

/// Follows `path` link by link.
pub fn follow(host: &dyn Inspect, path: &Path) -> Result<Followed, ModuleError> {
    let links = Cell::new(0);
    let look = |step: &Path| {
        let entry = host.entry(step)?;
        if let Some(Entry { kind: EntryKind::Symlink(_), ctime, .. }) = &entry {
            links.set(links.get().max(*ctime));
        }
        Ok(entry.map(|entry| entry.kind))
    };
    match resolve(path, true, &look)? {
        Some(place) => {
            let changed = host.entry(&place)?.map_or(0, |entry| entry.ctime.max(links.get()));
            Ok(Followed { path: place, changed })
        }
        None => Ok(Followed { path: path.to_owned(), changed: 0 }),
    }
}

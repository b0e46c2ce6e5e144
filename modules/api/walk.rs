//! Walks over a host's files as modules see them: what lies below a folder, where a path leads.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::error::ModuleError;
use super::inspect::Inspect;
use super::types::EntryKind;

/// How many links a path may lead through, as the kernel has it.
const LINKS: usize = 40;

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
    /// The path without any link in it.
    pub path: PathBuf,
    /// The latest change of what it leads to and of every link on the way there, nanoseconds since 1970; 0 when nothing is there.
    pub changed: i64,
}

/// Follows `path` link by link. What does not exist is left as it is written.
pub fn follow(host: &dyn Inspect, path: &Path) -> Result<Followed, ModuleError> {
    let mut rest: Vec<PathBuf> = parts(path);
    let mut here = PathBuf::from("/");
    let (mut changed, mut links) = (0, 0);
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        let Some(entry) = host.entry(&next)? else {
            here = next;
            continue;
        };
        match entry.kind {
            EntryKind::Symlink(target) if links < LINKS => {
                links += 1;
                changed = changed.max(entry.ctime);
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                rest.extend(parts(&target));
            }
            _ => {
                if rest.is_empty() {
                    changed = changed.max(entry.ctime);
                }
                here = next;
            }
        }
    }
    Ok(Followed { path: here, changed })
}

/// Returns the components of a path, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| PathBuf::from(component.as_os_str()))
        .rev()
        .collect()
}

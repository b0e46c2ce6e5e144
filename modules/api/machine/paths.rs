//! Where a path of the host lies on this machine: the same place, or below a root that links cannot lead out of.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::api::error::ModuleError;

/// As many links as the kernel follows in one path.
const LINKS: usize = 40;

/// Returns where `path` lies below `root`. Links on the way are followed as if `root` were `/`: an absolute target begins at
/// `root`, and `..` ends there. A link at the end is followed only when `follow` is set.
pub(super) fn below(root: &Path, path: &Path, follow: bool) -> Result<PathBuf, ModuleError> {
    let mut names = names_of(path)?;
    let mut reached: Vec<OsString> = Vec::new();
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let mut candidate = root.to_owned();
        candidate.extend(&reached);
        candidate.push(&name);
        let target = if names.is_empty() && !follow { None } else { std::fs::read_link(&candidate).ok() };
        let Some(target) = target else {
            reached.push(name);
            continue;
        };
        links += 1;
        if links > LINKS {
            return Err(ModuleError::host(format!("cannot follow `{}`: too many links", path.display())));
        }
        if target.is_absolute() {
            reached.clear();
        }
        for component in target.components().rev() {
            match component {
                Component::Normal(name) => names.push_front(name.to_owned()),
                Component::ParentDir => names.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }
    let mut found = root.to_owned();
    found.extend(reached);
    Ok(found)
}

/// Refuses a path that is not absolute: what it means would depend on where the agent was started.
pub(super) fn absolute(path: &Path) -> Result<(), ModuleError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(ModuleError::argument(format!("`{}` is not an absolute path", path.display())).hint("write it from `/` on"))
}

fn names_of(path: &Path) -> Result<VecDeque<OsString>, ModuleError> {
    absolute(path)?;
    Ok(path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect())
}

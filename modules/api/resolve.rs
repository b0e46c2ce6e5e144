//! Path resolution by the kernel's rules, over any source of entries: the host in memory and forecasts share it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::error::ModuleError;
use super::types::EntryKind;

/// Links that the kernel follows before it gives up.
const LINKS: usize = 40;

/// Returns where `path` lies once the links among its parents (and, with `follow`, at its end) are followed; `None` when a
/// parent is missing or no directory. What the returned path holds, if anything, is `look`'s to say.
///
/// `look` is asked only for paths whose parents are known to be directories.
pub fn resolve(
    path: &Path,
    follow: bool,
    look: &dyn Fn(&Path) -> Result<Option<EntryKind>, ModuleError>,
) -> Result<Option<PathBuf>, ModuleError> {
    let mut rest = VecDeque::new();
    prepend(&mut rest, path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(step) = rest.pop_front() {
        if step == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&step);
        let last = rest.is_empty();
        if last && !follow {
            return Ok(Some(next));
        }
        match look(&next)? {
            Some(EntryKind::Symlink(target)) => {
                links += 1;
                if links > LINKS {
                    return Err(ModuleError::host(format!("`{}` leads through too many links", path.display()))
                        .hint("two links point at each other: look at them with `namei -l`"));
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                prepend(&mut rest, &target);
            }
            Some(EntryKind::Directory) => at = next,
            _ if last => return Ok(Some(next)),
            _ => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Puts the components of `path` before what is still to be walked.
fn prepend(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &Path) -> Result<Option<EntryKind>, ModuleError> {
        Ok(match path.to_str() {
            Some("/etc" | "/usr" | "/usr/lib" | "/usr/lib/x") => Some(EntryKind::Directory),
            Some("/lib") => Some(EntryKind::Symlink("usr/lib".into())),
            Some("/etc/x") => Some(EntryKind::Symlink("../lib/x".into())),
            Some("/etc/loop") => Some(EntryKind::Symlink("/etc/loop".into())),
            Some("/etc/file") => Some(EntryKind::File),
            _ => None,
        })
    }

    #[test]
    fn links_among_parents_and_at_the_end() {
        let cases = [
            ("/etc/x", false, Some("/etc/x")),
            ("/etc/x", true, Some("/usr/lib/x")),
            ("/etc/x/new", false, Some("/usr/lib/x/new")),
            ("/lib/../file", false, Some("/usr/file")),
            ("/etc/missing", true, Some("/etc/missing")),
            ("/etc/missing/below", true, None),
            ("/etc/file/below", true, None),
            ("/", true, Some("/")),
            ("/etc/./x/..", true, Some("/usr/lib")),
        ];
        for (path, follow, expected) in cases {
            assert_eq!(resolve(Path::new(path), follow, &look), Ok(expected.map(PathBuf::from)), "{path} {follow}");
        }
    }

    #[test]
    fn a_loop_ends() {
        let error = resolve(Path::new("/etc/loop/x"), true, &look).unwrap_err();
        assert_eq!(error.message, "`/etc/loop/x` leads through too many links");
    }
}

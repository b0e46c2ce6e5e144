//! Manages a file's attributes, a directory, a symbolic link, or that nothing is there.
//!
//! `state` says what shall be at `path`:
//!
//! - `"file"` (the default): a regular file that is there already; only its mode and owners are managed. To give it content,
//!   use `copy`, `template` or `download`.
//! - `"directory"`: a directory, made if it is missing. With `recursive = true`, `mode`, `owner` and `group` hold for all that
//!   is below it, too. Links below it are never followed: their own owners are set, what they point to is left alone. Write
//!   such a mode with `X` (`"u=rwX,go=rX"`), which gives directories and programs their `x` and plain files none.
//! - `"link"`: a symbolic link that holds `target`, word for word; a relative target starts at the link's folder. Whether the
//!   target exists is not looked at. `owner` and `group` are the link's own.
//! - `"absent"`: nothing. A directory goes with all that is below it; of a link, only the link goes.
//! - `"touch"`: a regular file, made empty if it is missing; its time is set to now. This changes something on every run.
//!
//! Links in the folders above `path` are followed. A link at `path` itself never is: `"link"` and `"absent"` work on the link,
//! the other states refuse it and name its target. What else is in the way is an error: a link replaces nothing but a link, a
//! directory replaces nothing. `force = true` lets both replace a file, a link or an empty directory; a directory that
//! holds something is never replaced.
//!
//! ```lua
//! host:file({ path = "/etc/kubernetes/ssl", state = "directory", mode = "0750", parents = true })
//! host:file({ path = "/opt/etcd", state = "link", target = "etcd-v3.5.16" })
//! host:file({ path = "/etc/kubernetes/old.conf", state = "absent" })
//! ```

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::inspect::{group_id, owner_id, wanted_attributes};
use crate::api::place::{self, Placement};
use crate::api::{Attributes, Change, Content, Controller, Entry, EntryKind, Inspect, Mode, Module, ModuleError, Owner, Proposal};

/// Arguments of `file`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The path, absolute.
    path: PathBuf,
    /// What shall be there: "file", "directory", "link", "absent" or "touch".
    #[serde(default)]
    state: State,
    /// Mode, as "0640" or "u+x,go-w"; X gives x to directories and to files that have one. Default: what it has, else 0644, for a directory 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Owning user, by name or number. Default: what it has, else the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Owning group, by name or number. Default: what it has, else that of the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// For a directory: mode, owner and group hold for all that is below it, too.
    #[serde(default)]
    recursive: bool,
    /// For a link: what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<PathBuf>,
    /// Make missing folders above the path, with mode 0755.
    #[serde(default)]
    parents: bool,
    /// For a link or directory: replace a file, a link or an empty directory that is in the way.
    #[serde(default)]
    force: bool,
}

/// What shall be at the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    /// A regular file that is there already.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Nothing.
    Absent,
    /// A regular file whose time is now.
    Touch,
}

impl Module for File {
    const NAME: &'static str = "file";

    fn prepare(&mut self, _: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute(&self.path, "path")?;
        self.refuse_unfit_arguments()?;
        if self.state == State::Absent && self.path == Path::new("/") {
            return Err(ModuleError::argument("`/` cannot be removed").at("path"));
        }
        match &self.target {
            None if self.state == State::Link => {
                return Err(ModuleError::argument("a link needs a `target`").hint("add `target = \"…\"`: what the link holds"));
            }
            Some(target) if target.as_os_str().is_empty() => return Err(ModuleError::argument("`target` is empty").at("target")),
            _ => {}
        }
        if let (true, Some(mode)) = (self.recursive, &self.mode)
            && mode.apply(0o777, true) & 0o100 == 0
        {
            return Err(ModuleError::argument("a `recursive` mode without `x` would close every directory below the path")
                .at("mode")
                .hint("write for instance \"u=rwX,go=rX\": X means x for directories, and for files that have one already"));
        }
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let now = host.entry(&self.path)?;
        match self.state {
            State::File => self.check_file(host, now.as_ref()).map(Proposal::new),
            State::Directory => self.check_directory(host, now).map(Proposal::new),
            State::Link => self.check_link(host, now).map(Proposal::new),
            State::Absent => Ok(Proposal::new(now.map(|before| Change::Remove { path: self.path.clone(), before }).into_iter().collect())),
            State::Touch => self.check_touch(host, now.as_ref()).map(|changes| Proposal::new(changes).repeating()),
        }
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}

impl File {
    /// Refuses arguments that mean nothing for the state.
    fn refuse_unfit_arguments(&self) -> Result<(), ModuleError> {
        use State::{Absent, Directory, File, Link, Touch};
        let rules: [(&str, bool, &[State]); 7] = [
            ("mode", self.mode.is_some(), &[File, Directory, Touch]),
            ("owner", self.owner.is_some(), &[File, Directory, Link, Touch]),
            ("group", self.group.is_some(), &[File, Directory, Link, Touch]),
            ("recursive", self.recursive, &[Directory]),
            ("target", self.target.is_some(), &[Link]),
            ("parents", self.parents, &[Directory, Link, Touch]),
            ("force", self.force, &[Directory, Link]),
        ];
        for (argument, given, states) in rules {
            if given && !states.contains(&self.state) {
                let error = ModuleError::argument(format!("`{argument}` means nothing with state \"{}\"", self.state.word())).at(argument);
                return Err(match (argument, self.state) {
                    ("target", File) => error.hint("add `state = \"link\"`"),
                    ("recursive" | "parents", File) => error.hint("add `state = \"directory\"`"),
                    ("mode", Link) => error.hint("a link has no mode of its own; manage its target"),
                    (_, Absent) => error.hint("leave it out"),
                    _ => error,
                });
            }
        }
        Ok(())
    }

    /// Returns the change of a file that has to be there.
    fn check_file(&self, host: &dyn Inspect, now: Option<&Entry>) -> Result<Vec<Change>, ModuleError> {
        match now {
            Some(entry) if entry.kind == EntryKind::File => {
                let after = wanted_attributes(host, Some(&entry.attributes), (&self.mode, &self.owner, &self.group), 0, false)?;
                Ok(place::attributes_change(&self.path, &entry.attributes, after).into_iter().collect())
            }
            Some(entry) if entry.kind == EntryKind::Directory => {
                Err(place::in_the_way(&self.path, now, "path").hint("add `state = \"directory\"`"))
            }
            Some(_) => Err(place::in_the_way(&self.path, now, "path")),
            None => Err(place::in_the_way(&self.path, None, "path")
                .hint("give it content with `copy` or `template`, or add `state = \"directory\"` or \"touch\"")),
        }
    }

    /// Returns the changes of a file whose time shall be now.
    fn check_touch(&self, host: &dyn Inspect, now: Option<&Entry>) -> Result<Vec<Change>, ModuleError> {
        match now {
            Some(Entry { kind: EntryKind::File, .. }) => {
                let mut changes = self.check_file(host, now)?;
                changes.push(Change::Touch { path: self.path.clone() });
                Ok(changes)
            }
            Some(_) => Err(place::in_the_way(&self.path, now, "path")),
            None => Placement {
                path: &self.path,
                argument: "path",
                content: Content::Inline(Vec::new()),
                asked: (&self.mode, &self.owner, &self.group),
                default_mode: place::FILE_MODE,
                validate: None,
                parents: self.parents,
                secret: false,
            }
            .changes(host),
        }
    }

    /// Returns the changes that lead to a directory.
    fn check_directory(&self, host: &dyn Inspect, now: Option<Entry>) -> Result<Vec<Change>, ModuleError> {
        let there = now.as_ref().filter(|entry| entry.kind == EntryKind::Directory).map(|entry| &entry.attributes);
        let after = wanted_attributes(host, there, (&self.mode, &self.owner, &self.group), place::DIRECTORY_MODE, true)?;
        if let Some(before) = there {
            let mut changes: Vec<Change> = place::attributes_change(&self.path, before, after).into_iter().collect();
            if self.recursive {
                self.check_below(host, &mut changes)?;
            }
            return Ok(changes);
        }
        let mut changes = match now {
            Some(before) if self.force => vec![Change::Remove { path: self.path.clone(), before }],
            Some(_) => return Err(self.needs_force(now.as_ref())),
            None => place::missing_parents(host, &self.path, self.parents, "path")?,
        };
        changes.push(Change::MakeDirectory { path: self.path.clone(), attributes: after });
        Ok(changes)
    }

    /// Adds the changes of all that is below the directory, each folder before what is in it.
    fn check_below(&self, host: &dyn Inspect, changes: &mut Vec<Change>) -> Result<(), ModuleError> {
        let owner = self.owner.as_ref().map(|name| owner_id(host, name)).transpose()?;
        let group = self.group.as_ref().map(|name| group_id(host, name)).transpose()?;
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            for name in host.list(&folder)? {
                let path = folder.join(name);
                let Some(entry) = host.entry(&path)? else { continue };
                let now = &entry.attributes;
                let mode = match (&self.mode, &entry.kind) {
                    (None, _) | (_, EntryKind::Symlink(_)) => now.mode,
                    (Some(mode), kind) => mode.apply(now.mode, *kind == EntryKind::Directory),
                };
                let or_kept = |wanted: &Option<Owner>, kept: &Owner| wanted.clone().unwrap_or_else(|| kept.clone());
                let after = Attributes { mode, owner: or_kept(&owner, &now.owner), group: or_kept(&group, &now.group) };
                changes.extend(place::attributes_change(&path, now, after));
                if entry.kind == EntryKind::Directory {
                    folders.push(path);
                }
            }
        }
        Ok(())
    }

    /// Returns the changes that lead to a link.
    fn check_link(&self, host: &dyn Inspect, now: Option<Entry>) -> Result<Vec<Change>, ModuleError> {
        let target = self.target.as_deref().unwrap_or(Path::new(""));
        let (mut changes, before) = match now.as_ref().map(|entry| &entry.kind) {
            None => (place::missing_parents(host, &self.path, self.parents, "path")?, None),
            Some(EntryKind::Symlink(_)) => (Vec::new(), now),
            Some(EntryKind::Directory) if !host.list(&self.path)?.is_empty() => {
                return Err(ModuleError::host(format!("`{}` is a directory that is not empty", self.path.display()))
                    .at("path")
                    .hint("a link never replaces what such a directory holds; move or remove it first"));
            }
            Some(_) if !self.force => return Err(self.needs_force(now.as_ref())),
            Some(EntryKind::File) => (Vec::new(), now),
            Some(EntryKind::Directory | EntryKind::Other) => {
                (now.map(|before| Change::Remove { path: self.path.clone(), before }).into_iter().collect(), None)
            }
        };
        changes.extend(place::link_changes(host, &self.path, target, before, (&self.owner, &self.group))?);
        Ok(changes)
    }

    fn needs_force(&self, now: Option<&Entry>) -> ModuleError {
        place::in_the_way(&self.path, now, "path").hint("remove it first, or add `force = true` to have it replaced")
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Absent => "absent",
            Self::Touch => "touch",
        }
    }
}

#[cfg(test)]
mod tests;

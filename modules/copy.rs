//! Puts a file, a folder with all that is in it, or a given text in place.
//!
//! `src` names a file or folder of the controller: absolute, or in the role's `files/` folder, else beside the playbook.
//! `content` is the text itself. `dest` is always the whole path of what is made; nothing depends on what happens to lie there:
//!
//! - A file goes to exactly `dest`. A slash at its end is refused, and so is a `dest` that is a directory.
//! - A folder's *contents* go into the folder `dest`, which is made if it is missing; whether `src` or `dest` end with a slash
//!   makes no difference. Files, folders and links below it are copied, links as links.
//!
//! Files are compared by content, owner and mode; only what differs is sent and written, beside its destination first, then
//! renamed over it. A link where a file belongs is replaced by the file, what it points to is left alone. Where a folder
//! belongs, a link is refused.
//!
//! In a folder, all entries have the modes they have on the controller, or `mode` for files and `directory_mode` for folders.
//! What the folder on the host holds beyond the source is left alone; with `delete = true` it is removed, and so is what is of
//! another kind than in the source and therefore in the way.
//!
//! With `validate`, a command judges a private copy of a file's new content before anything is written, in a forecast, too;
//! `%s` stands for that copy. A file that holds a private key or a value that is declared secret is never shown. Unless `mode`
//! says otherwise it gets mode 0600, and one that is there already is no longer open to everybody.
//!
//! ```lua
//! host:copy({ content = "net.ipv4.ip_forward = 1\n", dest = "/etc/sysctl.d/90-forward.conf", mode = "0644" })
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::change::MemberKind;
use crate::api::inspect::wanted_attributes;
use crate::api::place::{self, Placement};
use crate::api::{Blob, Change, Content, Controller, EntryKind, Inspect, Mode, Module, ModuleError, Proposal};

/// Files above this size, bytes, are not searched for secrets.
const SEARCHED: u64 = 4 << 20;

/// Arguments of `copy`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// A file or folder of the controller: absolute, or in the role's `files/` folder or beside the playbook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src: Option<String>,
    /// The text of the file, instead of `src`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// The file or folder on the host, absolute: its whole path.
    dest: PathBuf,
    /// Mode of the file, or of all files in a folder. Default: what the file has, else 0644 (0755 for a program, 0600 for a
    /// secret); in a folder, that of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Mode of all folders. Default: that of the source; for `dest` itself what it has, else 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory_mode: Option<Mode>,
    /// Owning user, by name or number. Default: what the entry has, else the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Owning group, by name or number. Default: what the entry has, else that of the user the task runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Command that must succeed on the new content of a file; %s stands for a private copy of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validate: Option<String>,
    /// Make missing folders above `dest`, with mode 0755.
    #[serde(default)]
    parents: bool,
    /// For a folder: remove what the source does not hold.
    #[serde(default)]
    delete: bool,
    /// Never show the content.
    #[serde(default)]
    secret: bool,
    /// What was found on the controller.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
}

/// What is to be copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Source {
    /// A file, and whether it is a program.
    File(Blob, bool),
    /// What is below a folder, parents first.
    Folder(Vec<Leaf>),
}

/// Something below the folder that is copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Leaf {
    /// Path relative to the folder.
    path: PathBuf,
    kind: LeafKind,
    /// Permission bits on the controller.
    mode: u32,
}

/// What a leaf is.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum LeafKind {
    File(Blob),
    Directory,
    Symlink(PathBuf),
}

impl Module for Copy {
    const NAME: &'static str = "copy";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        place::check_validate(self.validate.as_deref())?;
        let source = match (&self.src, self.content.take()) {
            (Some(_), Some(_)) => {
                return Err(ModuleError::argument("`src` and `content` exclude each other").at("content").hint("leave one of them out"));
            }
            (None, None) => {
                return Err(ModuleError::argument("nothing to copy: neither `src` nor `content` is given")
                    .hint("name a file or folder with `src`, or give the text with `content`"));
            }
            (None, Some(text)) => {
                self.secret = place::is_secret(controller, self.secret, text.as_bytes());
                Source::File(controller.blob(text.into_bytes(), self.secret), false)
            }
            (Some(src), None) => self.find_source(controller, src)?,
        };
        match &source {
            Source::File(blob, _) => {
                self.secret = blob.secret;
                self.dest = place::absolute_file(&self.dest, "dest")?;
                for (argument, given) in [("delete", self.delete), ("directory_mode", self.directory_mode.is_some())] {
                    if given {
                        return Err(ModuleError::argument(format!("`{argument}` means nothing for a single file")).at(argument));
                    }
                }
            }
            Source::Folder(_) => {
                self.dest = place::absolute(&self.dest, "dest")?;
                if self.validate.is_some() {
                    return Err(ModuleError::argument("`validate` judges a single file, and `src` is a folder").at("validate"));
                }
            }
        }
        self.source = Some(source);
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        match &self.source {
            None => Err(ModuleError::argument("the source was not looked up")),
            Some(Source::File(blob, program)) => Placement {
                path: &self.dest,
                argument: "dest",
                content: Content::Blob(blob.clone()),
                asked: (&self.mode, &self.owner, &self.group),
                default_mode: if *program && !blob.secret { 0o755 } else { place::default_mode(blob.secret) },
                validate: self.validate.as_deref(),
                parents: self.parents,
                secret: blob.secret,
            }
            .changes(host)
            .map(Proposal::new),
            Some(Source::Folder(leaves)) => self.check_folder(host, leaves).map(Proposal::new),
        }
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.dest.clone()]
    }
}

impl Copy {
    /// Looks up what `src` names.
    fn find_source(&self, controller: &dyn Controller, src: &str) -> Result<Source, ModuleError> {
        let path = controller.find(src, "files").map_err(|error| error.at("src"))?;
        let missing = || ModuleError::argument(format!("there is no `{}` on the controller", path.display())).at("src");
        let found = controller.entry(&path)?.ok_or_else(missing)?;
        match found.kind {
            MemberKind::File(..) if src.ends_with('/') => {
                Err(ModuleError::argument(format!("`src` ends with a slash, but `{}` is a file", path.display())).at("src"))
            }
            MemberKind::File(_, size) => Ok(Source::File(self.blob(controller, &path, size)?, found.mode & 0o100 != 0)),
            MemberKind::Directory => {
                let entries = controller.tree(&path)?.into_iter().map(|entry| {
                    if entry.path.to_str().is_none() {
                        return Err(ModuleError::argument(format!("`{}` has a name that is not UTF-8", entry.path.display())).at("src"));
                    }
                    let kind = match entry.kind {
                        MemberKind::File(_, size) => LeafKind::File(self.blob(controller, &path.join(&entry.path), size)?),
                        MemberKind::Directory => LeafKind::Directory,
                        MemberKind::Symlink(target) => LeafKind::Symlink(target),
                    };
                    Ok(Leaf { path: entry.path, kind, mode: entry.mode & 0o7777 })
                });
                Ok(Source::Folder(entries.collect::<Result<_, _>>()?))
            }
            MemberKind::Symlink(_) => Err(ModuleError::argument(format!("`{}` is a link that leads nowhere", path.display())).at("src")),
        }
    }

    /// Registers a file of the controller, as a secret if it is one.
    fn blob(&self, controller: &dyn Controller, path: &Path, size: u64) -> Result<Blob, ModuleError> {
        let secret = self.secret || size <= SEARCHED && controller.is_secret_file(path)?;
        controller.blob_of_file(path, secret)
    }

    /// Returns the changes that give the folder `dest` all that the source holds.
    fn check_folder(&self, host: &dyn Inspect, leaves: &[Leaf]) -> Result<Vec<Change>, ModuleError> {
        let now = host.entry(&self.dest)?;
        let there = now.as_ref().filter(|entry| entry.kind == EntryKind::Directory);
        let before = there.map(|entry| &entry.attributes);
        let after = wanted_attributes(host, before, (&self.directory_mode, &self.owner, &self.group), place::DIRECTORY_MODE, true)?;
        let mut changes = match (before, &now) {
            (Some(before), _) => place::attributes_change(&self.dest, before, after.clone()).into_iter().collect(),
            (None, Some(_)) => return Err(place::in_the_way(&self.dest, now.as_ref(), "dest")),
            (None, None) => {
                let mut changes = place::missing_parents(host, &self.dest, self.parents, "dest")?;
                changes.push(Change::MakeDirectory { path: self.dest.clone(), attributes: after.clone() });
                changes
            }
        };
        let mut folders = vec![(self.dest.clone(), before.cloned(), after)];
        let mut cleared = BTreeSet::new();
        for leaf in leaves {
            folders.extend(self.check_leaf(host, leaf, &mut cleared, &mut changes)?);
        }
        if self.delete && there.is_some() {
            self.check_surplus(host, leaves, &cleared, &mut changes)?;
        }
        Ok(place::opened(changes, &folders))
    }

    /// Adds the changes of one entry; returns it when it is a folder. `cleared` holds the paths that earlier changes remove.
    fn check_leaf(
        &self,
        host: &dyn Inspect,
        leaf: &Leaf,
        cleared: &mut BTreeSet<PathBuf>,
        changes: &mut Vec<Change>,
    ) -> Result<Option<place::Folder>, ModuleError> {
        let path = self.dest.join(&leaf.path);
        let gone = path.ancestors().any(|folder| cleared.contains(folder));
        let mut now = if gone { None } else { host.entry(&path)? };
        if let Some(entry) = now.take_if(|entry| !leaf.kind.fits(&entry.kind)) {
            if !self.delete {
                let error = place::in_the_way(&path, Some(&entry), "dest");
                return Err(error.hint(format!("the source holds a {} here; add `delete = true` to have it replaced", leaf.kind.word())));
            }
            changes.push(Change::Remove { path: path.clone(), before: entry });
            cleared.insert(path.clone());
        }
        let directory = matches!(leaf.kind, LeafKind::Directory);
        let asked = if directory { &self.directory_mode } else { &self.mode };
        // A symbolic mode starts from the source's, so that what comes out does not depend on what was there.
        let bits = asked.as_ref().map_or(leaf.mode, |mode| mode.apply(leaf.mode, directory));
        let mode = Mode::parse(&format!("{bits:04o}")).ok();
        match &leaf.kind {
            LeafKind::File(blob) => changes.extend(
                Placement {
                    path: &path,
                    argument: "dest",
                    content: Content::Blob(blob.clone()),
                    asked: (&mode, &self.owner, &self.group),
                    default_mode: bits,
                    validate: None,
                    parents: false,
                    secret: blob.secret,
                }
                .change_from(host, now)?,
            ),
            LeafKind::Directory => {
                let before = now.as_ref().map(|entry| &entry.attributes);
                let after = wanted_attributes(host, before, (&mode, &self.owner, &self.group), bits, true)?;
                match before {
                    Some(before) => changes.extend(place::attributes_change(&path, before, after.clone())),
                    None => changes.push(Change::MakeDirectory { path: path.clone(), attributes: after.clone() }),
                }
                return Ok(Some((path, before.cloned(), after)));
            }
            LeafKind::Symlink(target) => {
                changes.extend(place::link_changes(host, &path, target, now, (&self.owner, &self.group))?);
            }
        }
        Ok(None)
    }

    /// Adds the removal of all that the source does not hold.
    fn check_surplus(
        &self,
        host: &dyn Inspect,
        leaves: &[Leaf],
        cleared: &BTreeSet<PathBuf>,
        changes: &mut Vec<Change>,
    ) -> Result<(), ModuleError> {
        let kept: BTreeSet<PathBuf> = leaves.iter().map(|leaf| self.dest.join(&leaf.path)).collect();
        let mut folders = vec![self.dest.clone()];
        while let Some(folder) = folders.pop() {
            for name in host.list(&folder)? {
                let path = folder.join(name);
                let Some(before) = host.entry(&path)?.filter(|_| !cleared.contains(&path)) else { continue };
                if !kept.contains(&path) {
                    changes.push(Change::Remove { path, before });
                } else if before.kind == EntryKind::Directory {
                    folders.push(path);
                }
            }
        }
        Ok(())
    }
}

impl LeafKind {
    /// Returns whether an entry may be there: it is of the same kind, or a link in the place of a file.
    fn fits(&self, found: &EntryKind) -> bool {
        matches!(
            (self, found),
            (Self::File(_), EntryKind::File | EntryKind::Symlink(_))
                | (Self::Directory, EntryKind::Directory)
                | (Self::Symlink(_), EntryKind::Symlink(_))
        )
    }

    fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory => "directory",
            Self::Symlink(_) => "link",
        }
    }
}

#[cfg(test)]
mod tests;

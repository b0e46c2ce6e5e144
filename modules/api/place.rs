//! How a task's file gets to its place: paths, missing parents, attributes, validation, and the one rule about links.
//!
//! The rule, for all modules: links in the folders above a path are followed, a link at its end never is. Who puts a whole
//! file there replaces the link and leaves alone what it points to; who works on what is there (attributes, a directory,
//! lines) refuses and names the target.

use std::path::{Component, Path, PathBuf};

use super::change::{Change, WriteFile};
use super::error::ModuleError;
use super::inspect::{CommandOutput, Fingerprint, Inspect, wanted_attributes};
use super::module::{Asked, Controller};
use super::types::{Attributes, Content, Entry, EntryKind};

/// Mode of a new file that names none.
pub const FILE_MODE: u32 = 0o644;
/// Mode of a new file with secret content that names none.
pub const SECRET_MODE: u32 = 0o600;
/// Mode of a new directory that names none.
pub const DIRECTORY_MODE: u32 = 0o755;
/// Largest text that is edited or compared line by line, bytes.
pub const TEXT_LIMIT: u64 = 64 << 20;
/// Mode of every link, which the kernel neither changes nor looks at.
const LINK_MODE: u32 = 0o777;

/// A file as a task wants it.
pub struct Placement<'a> {
    /// Where.
    pub path: &'a Path,
    /// The argument that named it, for errors.
    pub argument: &'a str,
    /// What it shall contain.
    pub content: Content,
    /// Mode and owners that were asked for.
    pub asked: Asked<'a>,
    /// Mode of a file that is not there yet, when none was asked for.
    pub default_mode: u32,
    /// Command that judges the content before it is put in place.
    pub validate: Option<&'a str>,
    /// Whether missing parents are made.
    pub parents: bool,
    /// Whether the content must never be shown.
    pub secret: bool,
}

impl Placement<'_> {
    /// Returns the changes that put the file in place: parents, then content with attributes, or attributes alone.
    ///
    /// # Errors
    /// When something other than a file or a link is in the way, an owner does not exist, a parent is missing and may not be
    /// made, or the validation refuses the content.
    pub fn changes(&self, host: &dyn Inspect) -> Result<Vec<Change>, ModuleError> {
        let mut changes = missing_parents(host, self.path, self.parents, self.argument)?;
        changes.extend(self.change_from(host, host.entry(self.path)?)?);
        Ok(changes)
    }

    /// Returns the one change that puts the file in place of `before`, in a folder that is there or is made by an earlier change.
    pub fn change_from(&self, host: &dyn Inspect, before: Option<Entry>) -> Result<Option<Change>, ModuleError> {
        let file = match before.as_ref().map(|entry| &entry.kind) {
            Some(EntryKind::Directory | EntryKind::Other) => return Err(in_the_way(self.path, before.as_ref(), self.argument)),
            Some(EntryKind::File) => before.as_ref(),
            Some(EntryKind::Symlink(_)) | None => None,
        };
        let mut after = wanted_attributes(host, file.map(|entry| &entry.attributes), self.asked, self.default_mode, false)?;
        if self.secret && self.asked.0.is_none() {
            // A file that was there may have been everybody's.
            after.mode &= !0o007;
        }
        let before_digest = match file {
            Some(_) => host.fingerprint(self.path)?.and_then(|fingerprint| match fingerprint {
                Fingerprint::Known(digest) => Some(digest),
                Fingerprint::New => None,
            }),
            None => None,
        };
        if let (Some(entry), Some(digest)) = (file, before_digest)
            && digest == self.content.digest()
        {
            return Ok(attributes_change(self.path, &entry.attributes, after));
        }
        if let Some(command) = self.validate {
            let output = host.validate(command, self.path, &self.content)?;
            if !output.success() {
                return Err(refused(command, self.path, &output));
            }
        }
        Ok(Some(Change::WriteFile(WriteFile {
            path: self.path.to_owned(),
            content: self.content.clone(),
            attributes: after,
            before,
            before_digest,
            secret: self.secret,
        })))
    }
}

/// Returns `path` without `.` and doubled slashes.
///
/// # Errors
/// When it is not absolute or holds `..`: a forecast, an undo and a restart compare paths by their names.
pub fn absolute(path: &Path, argument: &str) -> Result<PathBuf, ModuleError> {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        return Err(ModuleError::argument(format!("`{argument}` is empty")).at(argument));
    }
    if !path.is_absolute() {
        let error = ModuleError::argument(format!("`{argument}` is not an absolute path: `{shown}`")).at(argument);
        return Err(if path.starts_with("~") { error.hint("`~` is not expanded; write `host.facts.home .. \"/…\"`") } else { error });
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(ModuleError::argument(format!("`{argument}` holds `..`: `{shown}`")).at(argument).hint("write the path without it"));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(ModuleError::argument(format!("`{argument}` holds a zero byte")).at(argument));
    }
    Ok(path.components().collect())
}

/// Like [`absolute`], for a path that must name a file: a slash at its end is refused.
pub fn absolute_file(path: &Path, argument: &str) -> Result<PathBuf, ModuleError> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(ModuleError::argument(format!("`{argument}` ends with a slash, but names a file: `{}`", path.display()))
            .at(argument)
            .hint("write the whole path with the file's name"));
    }
    absolute(path, argument)
}

/// Refuses a validation command that does not say where the file goes.
pub fn check_validate(command: Option<&str>) -> Result<(), ModuleError> {
    match command {
        Some(command) if !command.contains("%s") => {
            Err(ModuleError::argument(format!("`validate` has no `%s` in `{command}`: it stands for the file to be judged"))
                .at("validate")
                .hint("write for instance \"nginx -t -c %s\""))
        }
        _ => Ok(()),
    }
}

/// Returns whether a content must never be shown: it is declared so, holds a declared secret, or is a private key.
pub fn is_secret(controller: &dyn Controller, declared: bool, content: &[u8]) -> bool {
    declared || looks_like_key(content) || controller.is_secret(content)
}

/// Returns whether a text holds a private key in PEM form.
pub fn looks_like_key(content: &[u8]) -> bool {
    // Only where the tail stands is its line looked at: contents may be large, and one line.
    memchr::memmem::find_iter(content, b"PRIVATE KEY-----").map(|at| &content[..at]).any(|before| {
        let line = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        before[line..].starts_with(b"-----BEGIN ")
    })
}

/// Returns the mode of a new file that names none.
pub fn default_mode(secret: bool) -> u32 {
    if secret { SECRET_MODE } else { FILE_MODE }
}

/// Returns the change from one set of attributes to another, or nothing when they are equal.
pub fn attributes_change(path: &Path, before: &Attributes, after: Attributes) -> Option<Change> {
    (*before != after).then(|| Change::SetAttributes { path: path.to_owned(), before: before.clone(), after })
}

/// Returns the changes that put a link in place of `before` (nothing, a link or a file) and give it its own owners, in a folder
/// that is there or is made by an earlier change.
pub fn link_changes(
    host: &dyn Inspect,
    path: &Path,
    target: &Path,
    before: Option<Entry>,
    (owner, group): (&Option<String>, &Option<String>),
) -> Result<Vec<Change>, ModuleError> {
    if let Some(Entry { kind: EntryKind::Symlink(held), attributes, .. }) = &before
        && held == target
    {
        let after = wanted_attributes(host, Some(attributes), (&None, owner, group), LINK_MODE, false)?;
        return Ok(attributes_change(path, attributes, after).into_iter().collect());
    }
    let mut made = wanted_attributes(host, None, (&None, &None, &None), LINK_MODE, false)?;
    // A folder with the setgid bit passes its group on to what is made in it.
    if let Some(folder) = path.parent()
        && let Some(folder) = host.target(folder)?
        && folder.attributes.mode & 0o2000 != 0
    {
        made.group = folder.attributes.group;
    }
    let after = wanted_attributes(host, Some(&made), (&None, owner, group), LINK_MODE, false)?;
    let link = Change::Symlink { path: path.to_owned(), target: target.to_owned(), before };
    Ok(std::iter::once(link).chain(attributes_change(path, &made, after)).collect())
}

/// Returns the changes that make the missing folders above `path`, the uppermost first, each with mode 0755.
///
/// # Errors
/// When folders are missing and `make` is false, or when something on the way is not a folder.
pub fn missing_parents(host: &dyn Inspect, path: &Path, make: bool, argument: &str) -> Result<Vec<Change>, ModuleError> {
    let mut missing = Vec::new();
    for folder in path.ancestors().skip(1) {
        match host.target(folder)? {
            Some(Entry { kind: EntryKind::Directory, .. }) => break,
            Some(_) => return Err(ModuleError::host(format!("`{}` is not a directory", folder.display())).at(argument)),
            None => {
                if let Some(Entry { kind: EntryKind::Symlink(target), .. }) = host.entry(folder)? {
                    let message = format!("`{}` is a link to `{}`, which does not exist", folder.display(), target.display());
                    return Err(ModuleError::host(message).at(argument));
                }
                missing.push(folder);
            }
        }
    }
    match missing.first() {
        Some(_) if !make && missing.contains(&Path::new("/")) => {
            let message = "the folder that stands for this host, `root` in the inventory, is not there";
            Err(ModuleError::host(message).hint("make it on that machine, or add `parents = true`"))
        }
        Some(folder) if !make => Err(ModuleError::host(format!("there is no directory `{}`", folder.display()))
            .at(argument)
            .hint("make it with the `file` module, or add `parents = true`")),
        Some(_) => {
            let attributes = wanted_attributes(host, None, (&None, &None, &None), DIRECTORY_MODE, true)?;
            let make = |folder: &&Path| Change::MakeDirectory { path: folder.to_path_buf(), attributes: attributes.clone() };
            Ok(missing.iter().rev().map(make).collect())
        }
        None => Ok(Vec::new()),
    }
}

/// Returns the error about something that is in the way of what a task wants at `path`.
pub fn in_the_way(path: &Path, found: Option<&Entry>, argument: &str) -> ModuleError {
    let shown = path.display();
    match found.map(|entry| &entry.kind) {
        Some(EntryKind::Symlink(target)) => ModuleError::host(format!("`{shown}` is a link to `{}`", target.display()))
            .hint("name the path that it points to, or remove the link first"),
        Some(EntryKind::Directory) => {
            ModuleError::host(format!("`{shown}` is a directory")).hint("name a path inside it, or remove it first")
        }
        Some(kind) => ModuleError::host(format!("`{shown}` is a {}", kind.word())).hint("remove it first"),
        None => ModuleError::host(format!("`{shown}` does not exist")),
    }
    .at(argument)
}

/// Returns the error about a content that its validation refuses, with what the command said.
fn refused(command: &str, path: &Path, output: &CommandOutput) -> ModuleError {
    let said = output.stdout.lines().chain(output.stderr.lines()).map(str::to_owned);
    ModuleError::host(format!("`{command}` refuses the new content of `{}`: {}", path.display(), output.ending()))
        .at("validate")
        .hint("nothing was written; `%s` stood for a private copy of the file")
        .details(said)
}

/// A folder, the attributes it has, and those it shall have.
pub type Folder = (PathBuf, Option<Attributes>, Attributes);

/// Lets users who are not root change what is in folders that nobody but root may write: they are opened for that, and closed when
/// all that belongs into them is there. Root does the same, so that a playbook does not depend on who runs it.
pub fn opened(mut changes: Vec<Change>, folders: &[Folder]) -> Vec<Change> {
    let mut closing = Vec::new();
    for (folder, now, after) in folders {
        let closed = is_closed(after) || now.as_ref().is_some_and(is_closed);
        let Some(first) = changes.iter().position(|change| enters(change, folder)).filter(|_| closed) else { continue };
        let open = Attributes { mode: after.mode | 0o700, ..after.clone() };
        let own = changes
            .iter()
            .position(|change| matches!(change, Change::MakeDirectory { path, .. } | Change::SetAttributes { path, .. } if path == folder));
        match (own, now) {
            (Some(own), None) => changes[own] = Change::MakeDirectory { path: folder.clone(), attributes: open.clone() },
            (own, Some(now)) => {
                own.map(|own| changes.remove(own));
                let first = first - usize::from(own.is_some_and(|own| own < first));
                changes.insert(first, Change::SetAttributes { path: folder.clone(), before: now.clone(), after: open.clone() });
            }
            (None, None) => continue,
        }
        if open != *after {
            closing.push(Change::SetAttributes { path: folder.clone(), before: open, after: after.clone() });
        }
    }
    changes.extend(closing.into_iter().rev());
    changes
}

/// Returns whether a folder's own user may change nothing in it.
pub fn is_closed(folder: &Attributes) -> bool {
    folder.mode & 0o300 != 0o300
}

/// Returns whether a change makes or removes a name in a folder.
fn enters(change: &Change, folder: &Path) -> bool {
    match change {
        Change::WriteFile(WriteFile { path, .. })
        | Change::MakeDirectory { path, .. }
        | Change::Symlink { path, .. }
        | Change::Remove { path, .. } => path.parent() == Some(folder),
        // What is unpacked is put together in `dest` first.
        Change::Unpack(unpack) => {
            unpack.dest == folder || unpack.members.iter().any(|member| unpack.dest.join(&member.path).parent() == Some(folder))
        }
        _ => false,
    }
}

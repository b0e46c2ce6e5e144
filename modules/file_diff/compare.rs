//! How files and folders are compared, and how differences are put into words.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use similar::TextDiff;

use super::TEXT;
use crate::api::glob::Globs;
use crate::api::{Digest, Entry, EntryKind, Fingerprint, Inspect, ModuleError, place};

/// A file of the controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileHere {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Its content, if that is text, short enough and not secret.
    pub(super) text: Option<String>,
}

/// Something below a folder of the controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Leaf {
    pub(super) path: PathBuf,
    pub(super) kind: LeafKind,
}

/// What a leaf is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum LeafKind {
    File(FileHere),
    Directory,
    Symlink(PathBuf),
}

/// A comparison under way.
pub(super) struct Comparison<'a> {
    host: &'a dyn Inspect,
    /// What the controller's side is called.
    source: &'a str,
    pub(super) differences: Vec<Value>,
    pub(super) diff: String,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(host: &'a dyn Inspect, source: &'a str) -> Self {
        Self { host, source, differences: Vec::new(), diff: String::new() }
    }

    /// Compares a file at `path`; `name` is its path below the folder that is compared, empty for a file alone.
    pub(super) fn file(&mut self, path: &Path, name: &Path, here: &FileHere) -> Result<(), ModuleError> {
        match self.host.target(path)? {
            None => self.note(path, name, "only on the controller"),
            Some(Entry { kind: EntryKind::File, size, .. }) => self.contents(path, name, size, here)?,
            Some(entry) => self.note(path, name, &format!("a {} on the host, a file on the controller", entry.kind.word())),
        }
        Ok(())
    }

    /// Compares all that is below the folder at `root`.
    pub(super) fn folder(&mut self, root: &Path, leaves: &[Leaf], ignore: &Globs) -> Result<(), ModuleError> {
        match self.host.target(root)? {
            None => {
                self.note(root, Path::new(""), "only on the controller");
                return Ok(());
            }
            Some(Entry { kind: EntryKind::Directory, .. }) => {}
            Some(entry) => {
                self.note(root, Path::new(""), &format!("a {} on the host, a directory on the controller", entry.kind.word()));
                return Ok(());
            }
        }
        let mut missing: BTreeSet<&Path> = BTreeSet::new();
        for leaf in leaves.iter().filter(|leaf| !ignore.matches(&leaf.path)) {
            if leaf.path.ancestors().any(|folder| missing.contains(folder)) {
                continue;
            }
            let path = root.join(&leaf.path);
            let Some(entry) = self.host.entry(&path)? else {
                missing.insert(&leaf.path);
                self.note(&path, &leaf.path, "only on the controller");
                continue;
            };
            match (&leaf.kind, &entry.kind) {
                (LeafKind::File(here), EntryKind::File) => self.contents(&path, &leaf.path, entry.size, here)?,
                (LeafKind::Directory, EntryKind::Directory) => {}
                (LeafKind::Symlink(target), EntryKind::Symlink(held)) if target == held => {}
                (LeafKind::Symlink(target), EntryKind::Symlink(held)) => {
                    let difference = format!("a link to `{}` on the host, to `{}` on the controller", held.display(), target.display());
                    self.note(&path, &leaf.path, &difference);
                }
                (kind, found) => {
                    missing.insert(&leaf.path);
                    self.note(&path, &leaf.path, &format!("a {} on the host, a {} on the controller", found.word(), kind.word()));
                }
            }
        }
        self.surplus(root, leaves, ignore)
    }

    /// Notes what the host alone has; of a folder, the folder alone.
    fn surplus(&mut self, root: &Path, leaves: &[Leaf], ignore: &Globs) -> Result<(), ModuleError> {
        let known: BTreeSet<&Path> = leaves.iter().map(|leaf| leaf.path.as_path()).collect();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for name in self.host.list(&root.join(&folder))? {
                let name = folder.join(name);
                let path = root.join(&name);
                if ignore.matches(&name) {
                    continue;
                }
                if !known.contains(name.as_path()) {
                    self.note(&path, &name, "only on the host");
                } else if self.host.entry(&path)?.is_some_and(|entry| entry.kind == EntryKind::Directory) {
                    folders.push(name);
                }
            }
        }
        Ok(())
    }

    /// Compares two files' contents.
    fn contents(&mut self, path: &Path, name: &Path, size: u64, here: &FileHere) -> Result<(), ModuleError> {
        let digest = match self.host.fingerprint(path)? {
            Some(Fingerprint::Known(digest)) if digest == here.digest => return Ok(()),
            Some(Fingerprint::Known(digest)) => digest,
            Some(Fingerprint::New) | None => {
                return Err(ModuleError::unknown(format!("`{}` is made anew by an earlier task", path.display())));
            }
        };
        let there = if here.text.is_some() && size <= TEXT {
            let content = self.host.read(path, TEXT)?;
            if place::looks_like_key(&content) { None } else { as_text(content) }
        } else {
            None
        };
        self.record(path, name, "another content");
        let (shown, source) = (path.display(), Path::new(self.source).join(name));
        let source = source.display().to_string();
        let source = source.trim_end_matches('/');
        if let (Some(there), Some(text)) = (there, &here.text) {
            let diff = TextDiff::from_lines(there.as_str(), text.as_str());
            let (old, new) = (format!("{shown} (host)"), format!("{source} (controller)"));
            self.diff.push_str(&diff.unified_diff().context_radius(3).header(&old, &new).to_string());
        } else {
            let (old, new) = (digest.hex(), here.digest.hex());
            self.diff.push_str(&format!("--- {shown} (host)\n+++ {source} (controller)\n"));
            self.diff.push_str(&format!("-{size} bytes, sha256 {old}\n+{} bytes, sha256 {new}\n", here.size));
        }
        Ok(())
    }

    /// Records a difference that a line says all about.
    fn note(&mut self, path: &Path, name: &Path, difference: &str) {
        self.record(path, name, difference);
        self.diff.push_str(&format!("{}: {difference}\n", path.display()));
    }

    fn record(&mut self, path: &Path, name: &Path, difference: &str) {
        let shown = if name.as_os_str().is_empty() { path } else { name };
        self.differences.push(json!({ "path": shown.display().to_string(), "difference": difference }));
    }
}

impl LeafKind {
    fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory => "directory",
            Self::Symlink(_) => "link",
        }
    }
}

/// Returns a content as text; `None` when it is none.
pub(super) fn as_text(content: Vec<u8>) -> Option<String> {
    String::from_utf8(content).ok().filter(|text| !text.contains('\0'))
}

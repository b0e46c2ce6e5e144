//! What lies at paths that changes have touched, seen through links of the base and of the forecast alike.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Certainty, Forecast};
use crate::api::error::ModuleError;
use crate::api::inspect::Fingerprint;
use crate::api::resolve::resolve;
use crate::api::types::{Attributes, Content, Digest, Entry, EntryKind, Owner};

/// What a change has left at a path.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// `None` when nothing is left.
    pub(super) what: Option<Present>,
    /// Which fold put it there.
    pub(super) at: u64,
    /// On which condition, when the task that put it there was not sure itself.
    pub(super) assumed: Option<Rc<str>>,
}

/// A file, directory or link that would be there.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) entry: Entry,
    pub(super) text: Text,
}

/// What is known of a file's content.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// It is no file.
    None,
    /// What the base has at this path.
    Base(PathBuf),
    /// This.
    Known(Content),
    /// Nothing but its digest: it would be downloaded or unpacked.
    Digest(Digest),
    /// It would be made new. The digest stands for it once a start of a unit is on record with it.
    New { stand_in: Digest, recorded: bool },
    /// Only that there is something.
    Unknown,
}

/// What was found at a path.
pub(super) struct Found {
    /// The path without links among its parents; as asked when there is no such place.
    pub(super) place: PathBuf,
    pub(super) what: Option<Present>,
}

impl Forecast<'_> {
    /// Returns what is at `path`, and lowers the certainty as far as that is not sure.
    pub(super) fn find(&self, path: &Path, follow: bool) -> Result<Found, ModuleError> {
        let place = resolve(path, follow, &|place| self.kind_at(place))?;
        let Some(place) = place else {
            self.judge_path(path, 0, false);
            return Ok(Found { place: path.to_owned(), what: None });
        };
        let (what, since) = self.present(&place)?;
        if what.is_none() && self.may_be_parent(path, &place) && self.silently(|forecast| forecast.judge_path(&place, since, false)) {
            self.judge_path(&place, since, false);
            return Ok(Found { place, what: Some(self.directory_to_come()) });
        }
        self.judge_path(&place, since, what.is_some());
        if let Some(because) = self.nodes.get(&place).and_then(|node| node.assumed.as_ref()) {
            self.lower(Certainty::Assumed, because);
        }
        Ok(Found { place, what })
    }

    /// Returns where `path` lies or would lie, as far as its parents exist.
    pub(super) fn settle(&self, path: &Path) -> PathBuf {
        resolve(path, false, &|place| self.kind_at(place)).ok().flatten().unwrap_or_else(|| path.to_owned())
    }

    /// Returns what lies at a place, and since which fold that is known.
    pub(super) fn present(&self, place: &Path) -> Result<(Option<Present>, u64), ModuleError> {
        if let Some(node) = self.nodes.get(place) {
            return Ok((node.what.clone(), node.at));
        }
        if self.is_hidden(place) {
            return Ok((None, 0));
        }
        let found = self.base.entry(place)?.map(|entry| {
            let text = if entry.kind == EntryKind::File { Text::Base(place.to_owned()) } else { Text::None };
            Present { entry, text }
        });
        Ok((found, 0))
    }

    /// Returns the kind of what lies at a place that a path leads through. The base is asked once: it does not change.
    fn kind_at(&self, place: &Path) -> Result<Option<EntryKind>, ModuleError> {
        if let Some(node) = self.nodes.get(place) {
            return Ok(node.what.as_ref().map(|present| present.entry.kind.clone()));
        }
        if self.is_hidden(place) {
            return Ok(None);
        }
        if let Some(kind) = self.walked.borrow().get(place) {
            return Ok(kind.clone());
        }
        let kind = self.base.entry(place)?.map(|entry| entry.kind);
        let passed = matches!(kind, Some(EntryKind::Directory | EntryKind::Symlink(_)));
        if passed {
            self.walked.borrow_mut().insert(place.to_owned(), kind.clone());
        }
        // A folder that a package or command may bring can be walked through: what is in it is in its cloud as well.
        let comes = kind.is_none() && self.may_be_parent(place, place) && self.silently(|forecast| forecast.judge_path(place, 0, false));
        Ok(if comes { Some(EntryKind::Directory) } else { kind })
    }

    fn is_hidden(&self, place: &Path) -> bool {
        !self.hidden.is_empty() && place.ancestors().any(|folder| self.hidden.contains(folder))
    }

    /// Returns whether a path is a parent of what the asking module manages: where it may come with a package, the module is
    /// to go on and say what it wants, rather than to complain of a missing folder.
    fn may_be_parent(&self, path: &Path, place: &Path) -> bool {
        !self.clouds.is_empty()
            && self
                .managed
                .borrow()
                .iter()
                .any(|managed| [path, place].iter().any(|parent| managed != parent && managed.starts_with(parent)))
    }

    fn directory_to_come(&self) -> Present {
        let attributes = Attributes { mode: 0o755, owner: Owner::Id(0), group: Owner::Id(0) };
        let now = self.clock();
        Present { entry: Entry { kind: EntryKind::Directory, attributes, size: 0, mtime: now, ctime: now }, text: Text::None }
    }

    /// Returns a file's content.
    pub(super) fn content(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ModuleError> {
        let found = self.find(path, true)?;
        let Some(present) = found.what else {
            return Err(ModuleError::host(format!("cannot read `{}`: no such file or directory", path.display())));
        };
        if present.entry.kind != EntryKind::File {
            return Err(ModuleError::host(format!("cannot read `{}`: it is a {}", path.display(), present.entry.kind.word())));
        }
        if !matches!(present.text, Text::Base(_)) && present.entry.size > limit {
            return Err(ModuleError::host(format!("`{}` is larger than {limit} bytes", path.display())));
        }
        match present.text {
            Text::Base(place) => self.base.read(&place, limit),
            Text::Known(Content::Inline(bytes)) => Ok(bytes),
            Text::Known(Content::Blob(blob)) => self.support.content(&blob),
            Text::Digest(_) => Err(ModuleError::unknown(format!("the content of `{}` is not on the host yet", path.display()))),
            Text::New { .. } => Err(ModuleError::unknown(format!("`{}` is not issued yet", path.display()))),
            Text::Unknown | Text::None => Err(ModuleError::unknown(self.reason_of(&found.place))),
        }
    }

    /// Returns a file's digest.
    pub(super) fn digest(&self, path: &Path) -> Result<Option<Fingerprint>, ModuleError> {
        let found = self.find(path, true)?;
        let Some(present) = found.what else { return Ok(None) };
        match present.text {
            Text::Base(place) => self.base.fingerprint(&place),
            Text::Known(content) => Ok(Some(Fingerprint::Known(content.digest()))),
            Text::Digest(digest) | Text::New { stand_in: digest, recorded: true } => Ok(Some(Fingerprint::Known(digest))),
            Text::New { recorded: false, .. } => Ok(Some(Fingerprint::New)),
            Text::Unknown => Err(ModuleError::unknown(self.reason_of(&found.place))),
            Text::None => Ok(None),
        }
    }

    /// Returns why nothing but its existence is known of what lies at a place.
    pub(super) fn reason_of(&self, place: &Path) -> String {
        let assumed = self.nodes.get(place).and_then(|node| node.assumed.as_deref());
        assumed.unwrap_or("an earlier task would have changed it").to_owned()
    }

    /// Returns the names in a directory.
    pub(super) fn names(&self, path: &Path) -> Result<Vec<String>, ModuleError> {
        let found = self.find(path, true)?;
        if !found.what.as_ref().is_some_and(|present| present.entry.kind == EntryKind::Directory) {
            return Err(ModuleError::host(format!("cannot list `{}`: no such directory", path.display())));
        }
        self.judge_names(&found.place);
        let known_to_base =
            !self.is_hidden(&found.place) && self.base.entry(&found.place)?.is_some_and(|entry| entry.kind == EntryKind::Directory);
        let mut names = if known_to_base { self.base.list(&found.place)? } else { Vec::new() };
        names.retain(|name| !self.nodes.contains_key(&found.place.join(name)));
        for (place, node) in self.nodes.range(found.place.clone()..) {
            if !place.starts_with(&found.place) {
                break;
            }
            if place.parent() == Some(&found.place) && node.what.is_some() {
                names.extend(place.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }
}

//! Compares a file or folder of the host with one of the controller or with a given text, changing nothing.
//!
//! `src` names a file or folder of the controller, as for `copy`; `content` is the text itself. Contents, kinds and links' targets
//! are compared; modes and owners are not. `path` may be a link to what is compared; below a folder, links are compared as links.
//! `ignore` holds patterns of what is left out of a folder: `*` stands for any part of a name, `**` for any folders, and a
//! pattern without a slash matches a name at any depth.
//!
//! Results: `same`; `differences`, a list with the `path` and the `difference` of each entry that differs; and `diff`, the whole as
//! text: `-` are lines that the host has, `+` are lines that the controller has, as if the difference were to be mended. Of what is
//! no text, is large or secret, `diff` says sizes and checksums alone.
//!
//! With `expect = "same"`, a difference fails the task and the error shows it: a check of a state that something else has to keep.
//!
//! ```lua
//! local motd = host:file_diff({ path = "/etc/motd", content = "welcome\n" })
//! if not motd.same then
//!   host:copy({ content = motd.diff, dest = "/root/motd.diff" })
//! end
//! ```

mod compare;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::change::MemberKind;
use crate::api::glob::Globs;
use crate::api::{Controller, Digest, Inspect, Module, ModuleError, OneOrMany, Proposal, place};
use compare::{Comparison, FileHere, Leaf, LeafKind};

/// Largest file, bytes, whose text is compared line by line; larger ones are compared by digest.
const TEXT: u64 = 256 << 10;
/// Largest sum of texts that a task sends, bytes.
const TEXTS: u64 = 4 << 20;
/// Most lines of a difference that an error shows.
const SHOWN: usize = 200;

/// Arguments of `file_diff`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileDiff {
    /// The file or folder on the host, absolute.
    path: PathBuf,
    /// A file or folder of the controller: absolute, or in the role's `files/` folder or beside the playbook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src: Option<String>,
    /// The text to compare with, instead of `src`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// "same" makes a difference a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect: Option<Expect>,
    /// For a folder: patterns of what is left out.
    #[serde(default, skip_serializing_if = "is_empty")]
    ignore: OneOrMany,
    /// Never show a content.
    #[serde(default)]
    secret: bool,
    /// What is on the controller.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
}

/// What a comparison has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Expect {
    /// No difference.
    Same,
}

/// What is compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Source {
    File(FileHere),
    Folder(Vec<Leaf>),
}

fn is_empty(list: &OneOrMany) -> bool {
    list.0.is_empty()
}

impl Module for FileDiff {
    const NAME: &'static str = "file_diff";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute(&self.path, "path")?;
        let mut room = TEXTS;
        let source = match (&self.src, self.content.take()) {
            (Some(_), Some(_)) => return Err(ModuleError::argument("`src` and `content` exclude each other").at("content")),
            (None, None) => return Err(ModuleError::argument("nothing to compare with: neither `src` nor `content` is given")),
            (None, Some(text)) => Source::File(self.file_here(controller, text.into_bytes(), &mut room)),
            (Some(src), None) => self.find_source(controller, src, &mut room)?,
        };
        Globs::parse(&self.ignore.0, "ignore")?;
        if matches!(source, Source::File(_)) && !is_empty(&self.ignore) {
            return Err(ModuleError::argument("`ignore` means nothing for a single file").at("ignore"));
        }
        self.source = Some(source);
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let mut comparison = Comparison::new(host, self.src.as_deref().unwrap_or("content"));
        match &self.source {
            None => return Err(ModuleError::argument("the source was not looked up")),
            Some(Source::File(file)) => comparison.file(&self.path, Path::new(""), file)?,
            Some(Source::Folder(leaves)) => comparison.folder(&self.path, leaves, &Globs::parse(&self.ignore.0, "ignore")?)?,
        }
        let count = comparison.differences.len();
        if self.expect == Some(Expect::Same) && count > 0 {
            let source = self.src.as_ref().map_or_else(|| "the given text".to_owned(), |src| format!("`{src}`"));
            let places = if count == 1 { String::new() } else { format!(" in {count} places") };
            let mut lines: Vec<String> = comparison.diff.split_terminator('\n').take(SHOWN).map(str::to_owned).collect();
            let more = comparison.diff.split_terminator('\n').count() - lines.len();
            if more > 0 {
                lines.push(format!("… and {more} more lines"));
            }
            return Err(ModuleError::host(format!("`{}` differs from {source}{places}", self.path.display())).at("path").details(lines));
        }
        Ok(Proposal::default().with("same", count == 0).with("differences", comparison.differences).with("diff", comparison.diff))
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }
}

impl FileDiff {
    fn find_source(&self, controller: &dyn Controller, src: &str, room: &mut u64) -> Result<Source, ModuleError> {
        let path = controller.find(src, "files").map_err(|error| error.at("src"))?;
        match controller.entry(&path)?.map(|entry| entry.kind) {
            Some(MemberKind::File(digest, size)) => Ok(Source::File(self.file_of(controller, &path, digest, size, room)?)),
            Some(MemberKind::Directory) => {
                let leaves = controller.tree(&path)?.into_iter().map(|entry| {
                    if entry.path.to_str().is_none() {
                        return Err(ModuleError::argument(format!("`{}` has a name that is not UTF-8", entry.path.display())).at("src"));
                    }
                    let kind = match entry.kind {
                        MemberKind::File(digest, size) => {
                            LeafKind::File(self.file_of(controller, &path.join(&entry.path), digest, size, room)?)
                        }
                        MemberKind::Directory => LeafKind::Directory,
                        MemberKind::Symlink(target) => LeafKind::Symlink(target),
                    };
                    Ok(Leaf { path: entry.path, kind })
                });
                Ok(Source::Folder(leaves.collect::<Result<_, _>>()?))
            }
            Some(MemberKind::Symlink(_)) | None => {
                Err(ModuleError::argument(format!("there is no `{}` on the controller", path.display())).at("src"))
            }
        }
    }

    /// Describes a local file; its text goes along if it is short enough.
    fn file_of(
        &self,
        controller: &dyn Controller,
        path: &Path,
        digest: Digest,
        size: u64,
        room: &mut u64,
    ) -> Result<FileHere, ModuleError> {
        if size > TEXT { Ok(FileHere { digest, size, text: None }) } else { Ok(self.file_here(controller, controller.read(path)?, room)) }
    }

    fn file_here(&self, controller: &dyn Controller, content: Vec<u8>, room: &mut u64) -> FileHere {
        let (digest, size) = (Digest::of(&content), content.len() as u64);
        let secret = place::is_secret(controller, self.secret, &content);
        let text = if secret || size > TEXT || size > *room { None } else { compare::as_text(content) };
        *room -= text.as_ref().map_or(0, |_| size);
        FileHere { digest, size, text }
    }
}

#[cfg(test)]
mod tests;

//! Unpacks an archive of the controller, member by member, so that only what is missing or differs is touched.
//!
//! The archive is a tar file, plain or compressed with gzip, xz or zstd, whatever its name: a local file (`src`: absolute, or in the
//! role's `files/` folder, else beside the playbook), or a download (`url`), which the controller makes once and keeps. The
//! controller reads it once and makes a manifest with every member's size, mode and SHA-256. A host is compared with the manifest
//! alone: the archive is sent only to a host that lacks something.
//!
//! What comes out in `dest` is what `tar -x --strip-components=STRIP` makes there, but for times: files, directories, links, hard
//! links (as files of their own), with the archive's modes and, when the task runs as root, the archive's numeric owners. `mode`,
//! `directory_mode`, `owner` and `group` override them; a symbolic mode starts from the archive's. As another user the files are
//! that user's, and group and others cannot write them. `strip` counts folders: a `./` at the head of names, which tar takes for one,
//! is none.
//!
//! `include` and `exclude` are patterns of member names as `tar -t` shows them. `*` stands for any part of a name, `?` for a
//! character, `[a-z]` for one of a set, `**` for any folders; a pattern without a slash matches a name at any depth, and a folder
//! that matches takes along all that is below. With `include`, only members that match are unpacked. An excluded member is
//! not merely left out: it is *absent*, and if the host has it, it is removed.
//!
//! `dest` is made if it is missing, and may be a link to a folder. Its own mode and owner are not the archive's, whatever that says of
//! `./`: another archive unpacked into the same folder would say something else. Inside it no link is followed: one that lies where a file
//! belongs is replaced, one where a folder belongs is an error, and so is a folder where a file belongs. What `dest` holds beyond
//! the archive is left alone. Members that lead out of `dest` and archives with device files are refused.
//!
//! With `checksum`, an archive that is not the one that was meant is refused before any host is touched.
//!
//! ```lua
//! host:archive({
//!   src = "kubernetes-server-linux-amd64.tar.gz",
//!   dest = "/opt/kubernetes-v1.31.0",
//!   strip = 1,
//!   exclude = { "kubernetes-src.tar.gz", "*.tar", "*_tag" },
//! })
//! ```

mod manifest;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::change::{Member, MemberKind, Unpack};
use crate::api::inspect::{group_id, owner_id, wanted_attributes};
use crate::api::{
    Attributes, Blob, Change, Checksum, Controller, Digest, Entry, EntryKind, Fingerprint, Inspect, Mode, Module, ModuleError, OneOrMany,
    Owner, Proposal, place,
};
use manifest::{Selected, Wish};

/// Arguments of `archive`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The archive on the controller: absolute, or in the role's `files/` folder or beside the playbook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src: Option<String>,
    /// Where the controller downloads the archive, instead of `src`; `checksum` is needed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The folder on the host to unpack into, absolute; made if it is missing.
    dest: PathBuf,
    /// What the archive has to be: a SHA-256 or SHA-512 in hexadecimal digits, with or without "sha256:" or "sha512:" before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    /// How many leading folders are dropped from members' names.
    #[serde(default)]
    strip: u32,
    /// Patterns of the members to unpack; all by default.
    #[serde(default, skip_serializing_if = "is_empty")]
    include: OneOrMany,
    /// Patterns of members that shall be absent.
    #[serde(default, skip_serializing_if = "is_empty")]
    exclude: OneOrMany,
    /// Mode of all files, as "0640" or "u+x,go-w". Default: the archive's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Mode of all folders. Default: the archive's; of those that it does not list, 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory_mode: Option<Mode>,
    /// Owning user of all that is unpacked, by name or number. Default: the archive's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Owning group of all that is unpacked, by name or number. Default: the archive's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Make missing folders above `dest`, with mode 0755.
    #[serde(default)]
    parents: bool,
    /// What the archive holds.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prepared: Option<Prepared>,
}

/// What `prepare` found out.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Prepared {
    archive: Blob,
    /// File name of the archive.
    name: String,
    /// What shall be there, parents first.
    wishes: Vec<Wish>,
    /// What shall not be there, parents first.
    absent: Vec<PathBuf>,
}

fn is_empty(list: &OneOrMany) -> bool {
    list.0.is_empty()
}

impl Module for Archive {
    const NAME: &'static str = "archive";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        self.dest = place::absolute(&self.dest, "dest")?;
        let checksum = self.checksum.as_deref().map(manifest::parse_checksum).transpose()?;
        let (path, name) = self.find_archive(controller, checksum.as_ref())?;
        let archive = controller.blob_of_file(&path, false)?;
        let manifest = manifest::of(controller, &path, &name, archive.digest)?;
        if let Some(checksum) = checksum {
            manifest::verify(&checksum, &name, archive.digest, &manifest.sha512)?;
        }
        let Selected { wishes, absent } = manifest.select(&name, self.strip, &self.include.0, &self.exclude.0)?;
        self.prepared = Some(Prepared { archive, name, wishes, absent });
        (self.include, self.exclude) = (OneOrMany::default(), OneOrMany::default());
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let prepared = self.prepared.as_ref().ok_or_else(|| ModuleError::argument("the archive was not looked into"))?;
        let owners = Owners::of(self, host)?;
        let mut changes = self.check_dest(host, &owners)?;
        self.check_absent(host, &prepared.absent, &mut changes)?;
        let (mut members, mut dressed, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(dest) = host.entry(&self.dest)?.filter(|entry| entry.kind == EntryKind::Directory) {
            folders.push((self.dest.clone(), Some(dest.attributes.clone()), dest.attributes));
        }
        for wish in &prepared.wishes {
            let path = self.dest.join(&wish.path);
            let now = host.entry(&path)?;
            let attributes = self.attributes(wish, &owners);
            if let (MemberKind::Directory, Some(now)) = (&wish.kind, &now) {
                let after = if wish.implied { now.attributes.clone() } else { attributes.clone() };
                folders.push((path.clone(), Some(now.attributes.clone()), after));
            }
            match Found::of(host, &path, wish, now.as_ref())? {
                Found::Same(_) if wish.implied => {}
                Found::Same(now) => dressed.extend(place::attributes_change(&path, now, attributes)),
                Found::Different => members.push(Member { path: wish.path.clone(), kind: wish.kind.clone(), attributes, before: now }),
            }
        }
        if !members.is_empty() {
            changes.push(Change::Unpack(Unpack {
                archive: prepared.archive.clone(),
                name: prepared.name.clone(),
                dest: self.dest.clone(),
                strip: self.strip,
                members,
            }));
        }
        // A folder may lose the permission to write only after what belongs into it is there.
        changes.extend(dressed);
        Ok(Proposal::new(place::opened(changes, &folders)))
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.dest.clone()]
    }
}

impl Archive {
    /// Returns the archive's place on the controller and its file name.
    fn find_archive(&self, controller: &dyn Controller, checksum: Option<&Checksum>) -> Result<(PathBuf, String), ModuleError> {
        match (&self.src, &self.url) {
            (Some(_), Some(_)) => Err(ModuleError::argument("`src` and `url` exclude each other").at("url")),
            (None, None) => Err(ModuleError::argument("nothing to unpack: neither `src` nor `url` is given")),
            (Some(src), None) => {
                if src.contains("://") {
                    return Err(ModuleError::argument("`src` is a file of the controller").at("src").hint("name an address with `url`"));
                }
                let path = controller.find(src, "files").map_err(|error| error.at("src"))?;
                match controller.entry(&path)?.map(|entry| entry.kind) {
                    Some(MemberKind::File(..)) => {}
                    Some(_) => return Err(ModuleError::argument(format!("`{}` is no file", path.display())).at("src")),
                    None => return Err(ModuleError::argument(format!("there is no `{}` on the controller", path.display())).at("src")),
                }
                let name = path.file_name().map_or_else(|| src.clone(), |name| name.to_string_lossy().into_owned());
                Ok((path, name))
            }
            (None, Some(url)) => {
                crate::download::check_url(url)?;
                let Some(checksum) = checksum else {
                    return Err(ModuleError::argument("`url` needs a `checksum`, which tells whether the download is what was meant")
                        .at("url")
                        .hint("publishers give it beside the file; `sha256sum FILE` and `sha512sum FILE` print it"));
                };
                let path = controller.download(url, checksum, None, 600).map_err(|mut error| {
                    // The argument of module `download` has another name.
                    error.argument = error.argument.map(|argument| if argument == "sha256" { "checksum".to_owned() } else { argument });
                    error
                })?;
                let name = url.rsplit('/').next().unwrap_or(url);
                Ok((path, name.split(['?', '#']).next().unwrap_or(name).to_owned()))
            }
        }
    }

    /// Returns the changes that lead to the folder to unpack into.
    fn check_dest(&self, host: &dyn Inspect, owners: &Owners) -> Result<Vec<Change>, ModuleError> {
        match host.target(&self.dest)? {
            Some(Entry { kind: EntryKind::Directory, .. }) => Ok(Vec::new()),
            Some(found) => {
                Err(ModuleError::host(format!("`{}` is a {}, not a directory", self.dest.display(), found.kind.word())).at("dest"))
            }
            None => {
                if let Some(found) = host.entry(&self.dest)? {
                    return Err(place::in_the_way(&self.dest, Some(&found), "dest").hint("its target does not exist: make it first"));
                }
                let mut changes = place::missing_parents(host, &self.dest, self.parents, "dest")?;
                let mode = self.directory_mode.as_ref().map_or(place::DIRECTORY_MODE, |mode| mode.apply(place::DIRECTORY_MODE, true));
                changes.push(Change::MakeDirectory { path: self.dest.clone(), attributes: owners.own(mode) });
                Ok(changes)
            }
        }
    }

    /// Adds the removal of what is excluded; a folder goes as a whole when nothing else is in it.
    fn check_absent(&self, host: &dyn Inspect, absent: &[PathBuf], changes: &mut Vec<Change>) -> Result<(), ModuleError> {
        let known: BTreeSet<PathBuf> = absent.iter().map(|path| self.dest.join(path)).collect();
        let mut gone: BTreeSet<PathBuf> = BTreeSet::new();
        for path in &known {
            if path.ancestors().any(|folder| gone.contains(folder)) || !self.lies_inside(host, path)? {
                continue;
            }
            let Some(before) = host.entry(path)? else { continue };
            if before.kind != EntryKind::Directory || holds_only(host, path, &known)? {
                changes.push(Change::Remove { path: path.clone(), before });
                gone.insert(path.clone());
            }
        }
        Ok(())
    }

    /// Returns whether the way from `dest` to `path` leads through folders alone: what a link leads to is not the archive's.
    fn lies_inside(&self, host: &dyn Inspect, path: &Path) -> Result<bool, ModuleError> {
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.dest && folder.starts_with(&self.dest)) {
            if host.entry(folder)?.is_none_or(|entry| entry.kind != EntryKind::Directory) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the attributes that a member shall have.
    fn attributes(&self, wish: &Wish, owners: &Owners) -> Attributes {
        let directory = wish.kind == MemberKind::Directory;
        let asked = match wish.kind {
            MemberKind::File(..) => self.mode.as_ref(),
            MemberKind::Directory => self.directory_mode.as_ref(),
            MemberKind::Symlink(_) => return owners.given(wish, 0o777),
        };
        let archived = if owners.root { wish.mode } else { wish.mode & 0o755 };
        let mode = asked.map_or(archived, |mode| mode.apply(wish.mode, directory));
        if wish.implied { owners.own(mode) } else { owners.given(wish, mode) }
    }
}

/// Who owns what is unpacked.
struct Owners {
    /// Whether the archive's owners can be given.
    root: bool,
    owner: Option<Owner>,
    group: Option<Owner>,
    /// The user the task runs as.
    me: Attributes,
}

impl Owners {
    fn of(archive: &Archive, host: &dyn Inspect) -> Result<Self, ModuleError> {
        Ok(Self {
            root: host.facts().user == "root",
            owner: archive.owner.as_ref().map(|name| owner_id(host, name)).transpose()?,
            group: archive.group.as_ref().map(|name| group_id(host, name)).transpose()?,
            me: wanted_attributes(host, None, (&None, &None, &None), place::DIRECTORY_MODE, true)?,
        })
    }

    /// Returns attributes with the owners that were asked for, else those of the user the task runs as.
    fn own(&self, mode: u32) -> Attributes {
        let or_me = |asked: &Option<Owner>, me: &Owner| asked.clone().unwrap_or_else(|| me.clone());
        Attributes { mode, owner: or_me(&self.owner, &self.me.owner), group: or_me(&self.group, &self.me.group) }
    }

    /// Returns attributes with the owners that were asked for, else those of the archive.
    fn given(&self, wish: &Wish, mode: u32) -> Attributes {
        if !self.root {
            return self.own(mode);
        }
        Attributes {
            mode,
            owner: self.owner.clone().unwrap_or(Owner::Id(wish.uid)),
            group: self.group.clone().unwrap_or(Owner::Id(wish.gid)),
        }
    }
}

/// What lies where a member belongs.
enum Found<'a> {
    /// What belongs there, with these attributes.
    Same(&'a Attributes),
    /// Nothing, or something that may be replaced.
    Different,
}

impl<'a> Found<'a> {
    fn of(host: &dyn Inspect, path: &Path, wish: &Wish, now: Option<&'a Entry>) -> Result<Self, ModuleError> {
        let Some(entry) = now else { return Ok(Self::Different) };
        let same = match (&wish.kind, &entry.kind) {
            (MemberKind::File(digest, size), EntryKind::File) => entry.size == *size && has_digest(host, path, digest)?,
            (MemberKind::Directory, EntryKind::Directory) => true,
            (MemberKind::Symlink(target), EntryKind::Symlink(held)) => target == held,
            (MemberKind::File(..), EntryKind::Symlink(_)) | (MemberKind::Symlink(_), EntryKind::File) => false,
            _ => {
                let word = match wish.kind {
                    MemberKind::File(..) => "file",
                    MemberKind::Directory => "directory",
                    MemberKind::Symlink(_) => "link",
                };
                return Err(place::in_the_way(path, now, "dest").hint(format!("the archive has a {word} here; remove it first")));
            }
        };
        Ok(if same { Self::Same(&entry.attributes) } else { Self::Different })
    }
}

fn has_digest(host: &dyn Inspect, path: &Path, digest: &Digest) -> Result<bool, ModuleError> {
    Ok(host.fingerprint(path)? == Some(Fingerprint::Known(*digest)))
}

/// Returns whether a folder holds nothing but what is in `known`, at any depth.
fn holds_only(host: &dyn Inspect, folder: &Path, known: &BTreeSet<PathBuf>) -> Result<bool, ModuleError> {
    for name in host.list(folder)? {
        let path = folder.join(name);
        let directory = host.entry(&path)?.is_some_and(|entry| entry.kind == EntryKind::Directory);
        if !known.contains(&path) || directory && !holds_only(host, &path, known)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;

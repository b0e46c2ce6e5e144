//! What brings back the state before a change. Asked just before the change is made; old contents are kept in the journal.
//!
//! An inverse is made from what is on the host now, not from what the change expected there. The changes of one group are
//! inverted before the first of them is performed; undone newest first, each brings its path closer to that one state.

use std::path::{Path, PathBuf};

use super::Machine;
use super::records::private_folder;
use super::staged::Staged;
use crate::api::change::{Change, GroupSpec, MemberKind, Packages, UnitAction, UserSpec, WriteFile};
use crate::api::error::ModuleError;
use crate::api::inspect::Fingerprint;
use crate::api::journal::{content_path, folder_of};
use crate::api::perform::Irreversible;
use crate::api::types::{Attributes, Blob, Content, Digest, Entry, EntryKind, Owner};

/// Files up to this size are copied into the journal; larger ones get a second name there where they can, bytes.
const COPIED: u64 = 1 << 20;
/// The largest tree that is kept when it is removed, bytes and entries.
const TREE_BYTES: u64 = 1 << 30;
const TREE_ENTRIES: usize = 50_000;

type Inverse = Result<Vec<Change>, Irreversible>;

/// What a change is about to put at a path.
struct Coming {
    kind: Option<EntryKind>,
    attributes: Attributes,
    digest: Option<Digest>,
    size: u64,
    secret: bool,
}

impl Machine {
    pub(super) fn inverse(&self, change: &Change) -> Inverse {
        match change {
            Change::WriteFile(write) => {
                self.file_back(&write.path, &write.attributes, (Some(write.content.digest()), write.content.size()), write.secret)
            }
            Change::Download(download) => self.file_back(&download.path, &download.attributes, (Some(download.digest), 0), false),
            Change::IssueCertificate(issue) => {
                let mut back = self.file_back(&issue.certificate, &issue.certificate_attributes, (None, 0), false)?;
                back.extend(self.file_back(&issue.key, &issue.key_attributes, (None, 0), true)?);
                Ok(back)
            }
            Change::SetAttributes { path, after, .. } => match self.now_at(path)? {
                Some(entry) => Ok(vec![Change::SetAttributes { path: path.clone(), before: after.clone(), after: entry.attributes }]),
                // An earlier change of the group makes it, and its inverse takes it away.
                None => Ok(Vec::new()),
            },
            Change::MakeDirectory { path, attributes } => self.back(path, &Coming::of(EntryKind::Directory, attributes)),
            Change::Symlink { path, target, .. } => self.back(path, &Coming::of(EntryKind::Symlink(target.clone()), &superuser())),
            Change::Remove { path, .. } => self.back(path, &Coming { kind: None, ..Coming::of(EntryKind::Other, &superuser()) }),
            Change::Unpack(unpack) => {
                let mut all = Vec::new();
                for member in unpack.members.iter().rev() {
                    let (kind, digest, size) = match &member.kind {
                        MemberKind::File(digest, size) => (EntryKind::File, Some(*digest), *size),
                        MemberKind::Directory => (EntryKind::Directory, None, 0),
                        MemberKind::Symlink(target) => (EntryKind::Symlink(target.clone()), None, 0),
                    };
                    let coming = Coming { digest, size, ..Coming::of(kind, &member.attributes) };
                    all.extend(self.back(&unpack.dest.join(&member.path), &coming)?);
                }
                Ok(all)
            }
            Change::Touch { .. } | Change::Fetch { .. } => Ok(Vec::new()),
            Change::Unit { unit, action, timeout, .. } => self.unit_back(unit, *action, *timeout),
            Change::ReloadDaemon { .. } => Ok(vec![Change::ReloadDaemon { reason: "unit files were brought back".to_owned() }]),
            Change::SetKernelParameter { key, after, .. } => match self.find_parameter(key).map_err(because)? {
                Some(now) => Ok(vec![Change::SetKernelParameter { key: key.clone(), before: after.clone(), after: now }]),
                None => Ok(Vec::new()),
            },
            Change::Packages(packages) => self.packages_back(packages),
            Change::User { name, after, remove_home, .. } => self.user_back(name, after.as_ref(), *remove_home),
            Change::Group { name, after, .. } => self.group_back(name, after.as_ref()),
            Change::Run(_) => Err(Irreversible("what a command did cannot be undone".to_owned())),
        }
    }

    fn file_back(&self, path: &Path, attributes: &Attributes, (digest, size): (Option<Digest>, u64), secret: bool) -> Inverse {
        self.back(path, &Coming { digest, size, secret, ..Coming::of(EntryKind::File, attributes) })
    }

    /// Returns the changes that bring back what is at `path` now, from what is about to come there.
    fn back(&self, path: &Path, coming: &Coming) -> Inverse {
        let mut changes = Vec::new();
        let Some(now) = self.now_at(path)? else {
            if let Some(entry) = coming.entry() {
                changes.push(Change::Remove { path: path.to_owned(), before: entry });
            }
            return Ok(changes);
        };
        let to_directory = now.kind == EntryKind::Directory;
        let from_directory = coming.kind == Some(EntryKind::Directory);
        if to_directory && from_directory {
            return Ok(vec![Change::SetAttributes { path: path.to_owned(), before: coming.attributes.clone(), after: now.attributes }]);
        }
        if let Some(entry) = coming.entry().filter(|_| to_directory != from_directory) {
            changes.push(Change::Remove { path: path.to_owned(), before: entry });
        }
        if to_directory {
            changes.extend(self.tree_back(path, now)?);
        } else {
            changes.push(self.leaf_back(path, now, coming)?);
        }
        Ok(changes)
    }

    /// Keeps what a file or link holds, and returns the change that brings it back.
    fn leaf_back(&self, path: &Path, now: Entry, coming: &Coming) -> Result<Change, Irreversible> {
        match now.kind {
            EntryKind::Symlink(target) => Ok(Change::Symlink { path: path.to_owned(), target, before: coming.entry() }),
            EntryKind::File => {
                let secret = coming.secret || now.attributes.mode & 0o044 == 0;
                Ok(Change::WriteFile(WriteFile {
                    content: Content::Blob(self.keep(path, secret)?),
                    path: path.to_owned(),
                    attributes: now.attributes,
                    before: coming.entry(),
                    before_digest: coming.digest,
                    secret,
                }))
            }
            EntryKind::Directory | EntryKind::Other => {
                Err(Irreversible(format!("`{}` is a {}, which cannot be kept", path.display(), now.kind.word())))
            }
        }
    }

    fn tree_back(&self, top: &Path, now: Entry) -> Inverse {
        let nothing = Coming { kind: None, ..Coming::of(EntryKind::Other, &superuser()) };
        let mut changes = Vec::new();
        let mut bytes = 0;
        let mut folders: Vec<(PathBuf, Entry)> = vec![(top.to_owned(), now)];
        while let Some((folder, entry)) = folders.pop() {
            changes.push(Change::MakeDirectory { path: folder.clone(), attributes: entry.attributes });
            for name in self.names(&folder).map_err(because)? {
                let path = folder.join(name);
                let Some(entry) = self.now_at(&path)? else { continue };
                bytes += entry.size;
                if bytes > TREE_BYTES || changes.len() > TREE_ENTRIES {
                    return Err(Irreversible(format!("`{}` is too large to be kept", top.display())));
                }
                match entry.kind {
                    EntryKind::Directory => folders.push((path, entry)),
                    // Sockets and pipes come and go with the programs that made them.
                    EntryKind::Other => {}
                    EntryKind::File | EntryKind::Symlink(_) => changes.push(self.leaf_back(&path, entry, &nothing)?),
                }
            }
        }
        Ok(changes)
    }

    /// Keeps the content of a file that is about to be replaced or removed.
    fn keep(&self, path: &Path, secret: bool) -> Result<Blob, Irreversible> {
        let kept = || -> Result<Blob, ModuleError> {
            let place = self.place(path, false)?;
            let size = std::fs::metadata(&place).map_err(|error| ModuleError::io("look at", path, &error))?.len();
            let Some(Fingerprint::Known(digest)) = self.digest(path)? else {
                return Err(ModuleError::host(format!("`{}` has just gone", path.display())));
            };
            let blob = Blob { digest, size, secret };
            let target = content_path(&folder_of(&self.state, &self.run)?, &digest);
            if target.exists() {
                return Ok(blob);
            }
            if let Some(folder) = target.parent() {
                private_folder(folder)?;
            }
            if size > COPIED && std::fs::hard_link(&place, &target).is_ok() {
                return Ok(blob);
            }
            let failed = |error: std::io::Error| ModuleError::io("keep the content of", path, &error);
            let mut staged = Staged::beside(&target).map_err(failed)?;
            let (found, _) = staged.fill(&mut self.open_file(path)?).map_err(failed)?;
            if found != digest {
                return Err(ModuleError::host(format!("`{}` changes while it is being read", path.display())));
            }
            staged.put().map_err(failed)?;
            Ok(blob)
        };
        kept().map_err(because)
    }

    fn now_at(&self, path: &Path) -> Result<Option<Entry>, Irreversible> {
        self.look(path, false).map_err(because)
    }

    fn unit_back(&self, name: &str, action: UnitAction, timeout: u64) -> Inverse {
        let now = self.find_unit(name).map_err(because)?;
        let enabled = now.unit_file_state == "enabled" || now.unit_file_state == "enabled-runtime";
        let back = match action {
            UnitAction::Start if !now.is_up() => UnitAction::Stop,
            UnitAction::Stop if now.is_up() => UnitAction::Start,
            // Once the files are back.
            UnitAction::Restart => UnitAction::Restart,
            UnitAction::Reload => UnitAction::Reload,
            UnitAction::Enable if !enabled => UnitAction::Disable,
            UnitAction::Disable if enabled => UnitAction::Enable,
            UnitAction::Mask if now.load_state != "masked" => UnitAction::Unmask,
            UnitAction::Unmask if now.load_state == "masked" => UnitAction::Mask,
            _ => return Ok(Vec::new()),
        };
        Ok(vec![Change::Unit { unit: name.to_owned(), action: back, reason: String::new(), record: None, timeout }])
    }

    fn packages_back(&self, packages: &Packages) -> Inverse {
        let names: Vec<String> = packages.install.iter().chain(&packages.remove).map(|wish| name_of(wish).to_owned()).collect();
        let now = self.find_packages(&names).map_err(because)?;
        let pinned = |name: &str| now.get(name).map(|version| format!("{name}={version}"));
        let install = names.iter().filter_map(|name| pinned(name)).collect();
        let remove = packages.install.iter().map(|wish| name_of(wish)).filter(|name| !now.contains_key(*name)).map(str::to_owned).collect();
        Ok(vec![Change::Packages(Packages {
            install,
            remove,
            purge: false,
            update: false,
            before: packages.install.iter().map(|wish| (name_of(wish).to_owned(), String::new())).collect(),
            ..packages.clone()
        })])
    }

    fn user_back(&self, name: &str, after: Option<&UserSpec>, remove_home: bool) -> Inverse {
        let now = self.find_user(name).map_err(because)?;
        let Some(now) = now else {
            let Some(spec) = after else { return Ok(Vec::new()) };
            let remove_home = spec.create_home;
            return Ok(vec![Change::User { name: name.to_owned(), before: after.cloned(), after: None, remove_home }]);
        };
        let group = match now.group {
            Owner::Id(number) => self.find_group(&number.to_string()).map_err(because)?.map(|group| group.name),
            Owner::Named(name) => Some(name),
        };
        let spec = UserSpec {
            uid: if let Owner::Id(number) = now.id { Some(number) } else { None },
            group,
            groups: Some(now.groups),
            home: Some(now.home.clone()),
            shell: Some(now.shell),
            comment: Some(now.comment),
            system: false,
            create_home: false,
            password_hash: self.password_hash(name),
        };
        let mut changes = vec![Change::User { name: name.to_owned(), before: after.cloned(), after: Some(spec), remove_home: false }];
        if after.is_none() && remove_home {
            changes.extend(self.back(&now.home, &Coming { kind: None, ..Coming::of(EntryKind::Other, &superuser()) })?);
        }
        Ok(changes)
    }

    fn group_back(&self, name: &str, after: Option<&GroupSpec>) -> Inverse {
        let number = |owner: &Owner| if let Owner::Id(number) = owner { Some(*number) } else { None };
        let now = self.find_group(name).map_err(because)?;
        let gid = now.as_ref().and_then(|group| number(&group.id));
        match (now, after) {
            (None, None) => Ok(Vec::new()),
            (None, Some(spec)) => Ok(vec![Change::Group { name: name.to_owned(), before: spec.gid.or(Some(0)), after: None }]),
            (Some(group), after) => {
                let spec = GroupSpec { gid, system: false };
                let mut changes = vec![Change::Group { name: name.to_owned(), before: after.and_then(|spec| spec.gid), after: Some(spec) }];
                // Removing a group forgets its members.
                if after.is_none() {
                    for member in group.members {
                        changes.extend(self.user_back(&member, Some(&UserSpec::default()), false)?);
                    }
                }
                Ok(changes)
            }
        }
    }
}

impl Coming {
    fn of(kind: EntryKind, attributes: &Attributes) -> Self {
        Self { kind: Some(kind), attributes: attributes.clone(), digest: None, size: 0, secret: false }
    }

    fn entry(&self) -> Option<Entry> {
        let kind = self.kind.clone()?;
        Some(Entry { kind, attributes: self.attributes.clone(), size: self.size, mtime: 0, ctime: 0 })
    }
}

fn superuser() -> Attributes {
    Attributes { mode: 0o777, owner: Owner::Id(0), group: Owner::Id(0) }
}

/// Returns the name in `name` or `name=version`.
fn name_of(wish: &str) -> &str {
    wish.split('=').next().unwrap_or(wish)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn because(error: ModuleError) -> Irreversible {
    Irreversible(error.message)
}

//! Changing files: written beside their target and renamed, links never followed, nothing left behind by a failure.

use std::fs::Permissions;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};

use super::Machine;
use super::staged::{self, Staged};
use crate::api::change::WriteFile;
use crate::api::error::ModuleError;
use crate::api::perform::{Supplied, Upstream};
use crate::api::types::{Attributes, Content, Digest, Owner};

impl Machine {
    pub(super) fn write_file(&self, write: &WriteFile, upstream: &mut dyn Upstream) -> Result<(), ModuleError> {
        match &write.content {
            Content::Inline(bytes) => self.put(&write.path, &mut bytes.as_slice(), Digest::of(bytes), &write.attributes),
            Content::Blob(blob) => match upstream.supply(blob)? {
                Supplied::Stream(mut reader) => self.put(&write.path, &mut *reader, blob.digest, &write.attributes),
                Supplied::File(aside) => {
                    let (staged, ()) = self.staged(&write.path, &write.attributes, |place| Ok((Staged::of(&aside, place)?, ())))?;
                    self.put_staged(&write.path, staged, &write.attributes)?;
                    self.remember(&write.path, blob.digest)
                }
            },
        }
    }

    /// Puts a file with the content of `reader` at `path`, or nothing when it is not the content that was promised.
    pub(super) fn put(&self, path: &Path, reader: &mut dyn Read, digest: Digest, attributes: &Attributes) -> Result<(), ModuleError> {
        let (staged, found) = self.stage(path, reader, attributes)?;
        if found != digest {
            return Err(ModuleError::host(format!("the content that arrived for `{}` is not the one announced", path.display()))
                .hint("run again; if it happens again, the source is being changed while it is read"));
        }
        self.put_staged(path, staged, attributes)
    }

    /// Writes a file that only lacks its name, with everything that can fail done.
    pub(super) fn stage(&self, path: &Path, reader: &mut dyn Read, attributes: &Attributes) -> Result<(Staged, Digest), ModuleError> {
        self.staged(path, attributes, |place| {
            let mut staged = Staged::beside(place)?;
            let (found, _) = staged.fill(reader)?;
            Ok((staged, found))
        })
    }

    /// Has a file made for `path`, and gives it everything but its name.
    fn staged<T>(
        &self,
        path: &Path,
        attributes: &Attributes,
        make: impl FnOnce(&Path) -> std::io::Result<(Staged, T)>,
    ) -> Result<(Staged, T), ModuleError> {
        let place = self.place(path, false)?;
        let (owner, group) = self.numbers(attributes)?;
        let old = std::fs::symlink_metadata(&place).ok();
        if old.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(ModuleError::host(format!("cannot write `{}`: it is a directory", path.display())));
        }
        let (staged, made) = make(&place).map_err(|error| without_folder(ModuleError::io("write", path, &error), path, &error))?;
        if old.is_some_and(|old| old.is_file()) {
            staged.labels_of(&place);
        }
        if let Err(error) = staged.own(owner, group)
            && !self.may_assume(&error)
        {
            return Err(ModuleError::io("change the owner of", path, &error));
        }
        staged.mode(attributes.mode).map_err(|error| ModuleError::io("change the mode of", path, &error))?;
        Ok((staged, made))
    }

    /// Gives a staged file its name.
    pub(super) fn put_staged(&self, path: &Path, staged: Staged, attributes: &Attributes) -> Result<(), ModuleError> {
        let place = self.place(path, false)?;
        let owners = self.numbers(attributes)?;
        staged.put().map_err(|error| ModuleError::io("write", path, &error))?;
        self.assume_owners(&place, owners)?;
        self.unsynced.borrow_mut().push(place);
        Ok(())
    }

    pub(super) fn make_directory(&self, path: &Path, attributes: &Attributes) -> Result<(), ModuleError> {
        let place = self.place(path, false)?;
        let owners = self.numbers(attributes)?;
        // Nobody else may enter before it has its owner.
        let made = match std::fs::DirBuilder::new().mode(0o700).create(&place) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_directory(&place) => false,
            Err(error) => return Err(without_folder(ModuleError::io("make the directory", path, &error), path, &error)),
        };
        self.give(path, &place, owners, attributes.mode).inspect_err(|_| {
            if made {
                let _ = std::fs::remove_dir(&place);
            }
        })
    }

    pub(super) fn set_attributes(&self, path: &Path, after: &Attributes) -> Result<(), ModuleError> {
        let owners = self.numbers(after)?;
        self.give(path, &self.place(path, false)?, owners, after.mode)
    }

    pub(super) fn make_link(&self, path: &Path, target: &Path) -> Result<(), ModuleError> {
        let place = self.place(path, false)?;
        if is_directory(&place) {
            return Err(ModuleError::host(format!("cannot put a link at `{}`: it is a directory", path.display()))
                .hint("remove the directory first, if that is what you want"));
        }
        staged::link(&place, target).map_err(|error| without_folder(ModuleError::io("make the link", path, &error), path, &error))?;
        self.forget_owners(&place)
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), ModuleError> {
        let place = self.place(path, false)?;
        let metadata = match std::fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if super::files::is_missing(&error) => return Ok(()),
            Err(error) => return Err(ModuleError::io("remove", path, &error)),
        };
        let removed = if metadata.is_dir() {
            refuse_mounts(path, &place, metadata.dev())?;
            std::fs::remove_dir_all(&place)
        } else {
            std::fs::remove_file(&place)
        };
        removed.map_err(|error| ModuleError::io("remove", path, &error))?;
        self.forget_owners(&place)
    }

    pub(super) fn touch(&self, path: &Path) -> Result<(), ModuleError> {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        rustix::fs::utimensat(CWD, self.place(path, true)?, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty())
            .map_err(|error| ModuleError::io("touch", path, &error.into()))
    }

    pub(super) fn fetch(&self, path: &Path, upstream: &mut dyn Upstream) -> Result<(), ModuleError> {
        upstream.deliver(&mut self.open_file(path)?)
    }

    /// Writes to disk what was written since the last time, together: one file after the other costs milliseconds each.
    pub fn sync(&self) -> Result<(), ModuleError> {
        /// From here on one call for the whole file system is cheaper.
        const MANY: usize = 16;
        let places = std::mem::take(&mut *self.unsynced.borrow_mut());
        if places.len() < MANY {
            // What has been replaced or removed meanwhile needs no care.
            for file in places.iter().filter_map(|place| std::fs::File::open(place).ok()) {
                file.sync_data().map_err(|error| ModuleError::io("write to disk", &self.state, &error))?;
            }
            return Ok(());
        }
        let mut devices = std::collections::BTreeSet::new();
        for place in places {
            let Ok(file) = std::fs::File::open(&place) else { continue };
            if file.metadata().is_ok_and(|metadata| devices.insert(metadata.dev())) {
                rustix::fs::syncfs(&file).map_err(|error| ModuleError::io("write to disk", &place, &error.into()))?;
            }
        }
        Ok(())
    }

    /// Returns the numbers of the owners, looking up names that an earlier change of the run has made.
    pub(super) fn numbers(&self, attributes: &Attributes) -> Result<(u32, u32), ModuleError> {
        let owner = match &attributes.owner {
            Owner::Id(number) => *number,
            Owner::Named(name) => match self.find_user(name)?.map(|user| user.id) {
                Some(Owner::Id(number)) => number,
                _ => return Err(ModuleError::host(format!("there is no user `{name}` on this host")).at("owner")),
            },
        };
        let group = match &attributes.group {
            Owner::Id(number) => *number,
            Owner::Named(name) => match self.find_group(name)?.map(|group| group.id) {
                Some(Owner::Id(number)) => number,
                _ => return Err(ModuleError::host(format!("there is no group `{name}` on this host")).at("group")),
            },
        };
        Ok((owner, group))
    }

    fn give(&self, path: &Path, place: &Path, owners: (u32, u32), mode: u32) -> Result<(), ModuleError> {
        self.give_really(path, place, owners, mode)?;
        self.assume_owners(place, owners)?;
        Ok(())
    }

    /// Makes a file that was put aside ready to take the place of what is at `path`.
    pub(super) fn dress(&self, path: &Path, aside: &Path, attributes: &Attributes) -> Result<(), ModuleError> {
        let old = self.place(path, false)?;
        if std::fs::symlink_metadata(&old).is_ok_and(|metadata| metadata.is_file())
            && let Ok(file) = std::fs::File::open(aside)
        {
            staged::copy_labels(&old, &file);
        }
        self.give_really(path, aside, self.numbers(attributes)?, attributes.mode)
    }

    /// Gives owners and mode to what is at `place`, through a handle that no link can stand in for.
    fn give_really(&self, path: &Path, place: &Path, owners: (u32, u32), mode: u32) -> Result<(), ModuleError> {
        let handle = rustix::fs::open(place, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| ModuleError::io("open", path, &error.into()))?;
        let failed = |error: rustix::io::Errno| ModuleError::io("look at", path, &error.into());
        let metadata = rustix::fs::fstat(&handle).map_err(failed)?;
        let mut given = false;
        if (metadata.st_uid, metadata.st_gid) != owners {
            let (owner, group) = (rustix::fs::Uid::from_raw(owners.0), rustix::fs::Gid::from_raw(owners.1));
            match rustix::fs::chownat(&handle, c"", Some(owner), Some(group), AtFlags::EMPTY_PATH) {
                Ok(()) => given = true,
                Err(error) if self.may_assume(&error.into()) => {}
                Err(error) => return Err(ModuleError::io("change the owner of", path, &error.into())),
            }
        }
        let is_link = rustix::fs::FileType::from_raw_mode(metadata.st_mode) == rustix::fs::FileType::Symlink;
        // The kernel drops setuid bits when an owner changes, so that the mode is set whenever one did.
        if !is_link && (given || metadata.st_mode & 0o7777 != mode) {
            let by_handle = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
            let reach = if by_handle.exists() { by_handle.as_path() } else { place };
            std::fs::set_permissions(reach, Permissions::from_mode(mode))
                .map_err(|error| ModuleError::io("change the mode of", path, &error))?;
        }
        Ok(())
    }

    /// Returns whether a refused change of owner is to be written down instead; see `assumed.rs`.
    fn may_assume(&self, error: &std::io::Error) -> bool {
        error.kind() == ErrorKind::PermissionDenied && self.root.is_some() && !self.privileged()
    }
}

fn is_directory(place: &Path) -> bool {
    std::fs::symlink_metadata(place).is_ok_and(|metadata| metadata.is_dir())
}

/// Fails when another file system is mounted below `place`: removing its content would be a disaster nobody asked for.
fn refuse_mounts(path: &Path, place: &Path, device: u64) -> Result<(), ModuleError> {
    let mut folders = vec![place.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| ModuleError::io("remove", path, &error))?.flatten() {
            // The entry's own type costs nothing; only folders can be mount points worth the look.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.metadata().is_ok_and(|metadata| metadata.dev() != device) {
                return Err(ModuleError::host(format!(
                    "cannot remove `{}`: another file system is mounted at `{}`",
                    path.display(),
                    entry.path().display()
                ))
                .hint("unmount it first"));
            }
            folders.push(entry.path());
        }
    }
    Ok(())
}

/// Says that the folder is missing, rather than the file that is about to be made.
fn without_folder(error: ModuleError, path: &Path, cause: &std::io::Error) -> ModuleError {
    match path.parent() {
        Some(parent) if cause.kind() == ErrorKind::NotFound => {
            error.hint(format!("the folder `{}` does not exist: make it first with the `file` module", parent.display()))
        }
        _ => error,
    }
}

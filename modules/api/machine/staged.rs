//! A file that is made beside its target and renamed over it, so that readers see the old content or the new, nothing between.

use std::fs::{File, Metadata, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, RenameFlags};
use sha2::{Digest as _, Sha256};

use crate::api::types::Digest;

/// What names of files that are being made begin with.
pub(super) const PREFIX: &str = ".kplay-";

/// A new file without its name. Until [`Staged::put`] it is gone when dropped; where the file system allows, it has no name
/// at all, so that not even a killed agent leaves anything behind.
pub(super) struct Staged {
    file: File,
    /// Its name for the time being, where it needs one.
    name: Option<PathBuf>,
    target: PathBuf,
}

impl Staged {
    /// Creates an empty file on the file system of `target`, for its owner's eyes only.
    pub(super) fn beside(target: &Path) -> io::Result<Self> {
        let folder = target.parent().unwrap_or(Path::new("/"));
        let nameless = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::TMPFILE.bits().cast_signed())
            .open(folder)
            .ok()
            .filter(|file| descriptor(file).exists());
        if let Some(file) = nameless {
            return Ok(Self { file, name: None, target: target.to_owned() });
        }
        let (file, name) =
            unique(target, |name| std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(name))?;
        Ok(Self { file, name: Some(name), target: target.to_owned() })
    }

    /// Takes a file that lies elsewhere for the one with the content of `target`: moves it beside that, or copies it where it could not
    /// be moved, or would not have there what a file has that is made there.
    pub(super) fn of(aside: &Path, target: &Path) -> io::Result<Self> {
        if !is_labelled(aside) && !hands_down(target.parent().unwrap_or(Path::new("/"))) {
            let moved = unique(target, |name| Ok(rustix::fs::renameat_with(CWD, aside, CWD, name, RenameFlags::NOREPLACE)?));
            if let Ok(((), name)) = moved {
                let file = File::open(&name).inspect_err(|_| {
                    let _ = std::fs::remove_file(&name);
                })?;
                return Ok(Self { file, name: Some(name), target: target.to_owned() });
            }
        }
        let mut staged = Self::beside(target)?;
        io::copy(&mut File::open(aside)?, &mut staged.file)?;
        Ok(staged)
    }

    /// Copies everything that `reader` yields, 64 KiB at a time, and returns its digest and size.
    pub(super) fn fill(&mut self, reader: &mut dyn Read) -> io::Result<(Digest, u64)> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut size = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok((Digest(hasher.finalize().into()), size)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let part = buffer.get(..count).unwrap_or_default();
            hasher.update(part);
            self.file.write_all(part)?;
            size += count as u64;
        }
    }

    /// Takes over the security labels and access lists of the file that will be replaced.
    pub(super) fn labels_of(&self, old: &Path) {
        copy_labels(old, &self.file);
    }

    /// Gives the file away. The mode has to be set after this, since the kernel drops the setuid bits.
    pub(super) fn own(&self, owner: u32, group: u32) -> io::Result<()> {
        let metadata = self.metadata()?;
        if (metadata.uid(), metadata.gid()) == (owner, group) {
            return Ok(());
        }
        std::os::unix::fs::fchown(&self.file, Some(owner), Some(group))
    }

    /// Sets the permission bits.
    pub(super) fn mode(&self, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))
    }

    /// Puts the file in its place, over whatever file or link is there.
    pub(super) fn put(mut self) -> io::Result<()> {
        let name = match self.name.take() {
            Some(name) => name,
            None => {
                let source = descriptor(&self.file);
                let ((), name) = unique(&self.target, |name| Ok(rustix::fs::linkat(CWD, &source, CWD, name, AtFlags::SYMLINK_FOLLOW)?))?;
                name
            }
        };
        // From here on there is a name to clean up.
        self.name = Some(name.clone());
        std::fs::rename(&name, &self.target)?;
        self.name = None;
        Ok(())
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = std::fs::remove_file(name);
        }
    }
}

/// Makes a symbolic link beside `path` and renames it over what is there.
pub(super) fn link(path: &Path, target: &Path) -> io::Result<()> {
    let ((), name) = unique(path, |name| std::os::unix::fs::symlink(target, name))?;
    std::fs::rename(&name, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&name);
    })
}

/// Calls `make` with free names in the folder of `target` until it does not find one taken.
pub(super) fn unique<T>(target: &Path, mut make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    let mut tries = 0;
    loop {
        let random = RandomState::new().build_hasher().finish() as u32;
        let name = target.with_file_name(format!("{PREFIX}{random:08x}"));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
            result => return result.map(|made| (made, name)),
        }
    }
}

/// Returns whether a file has a security label: that of the folder it was made in.
fn is_labelled(path: &Path) -> bool {
    rustix::fs::lgetxattr(path, "security.selinux", &mut [0; 1][..0]).is_ok()
}

/// Returns whether a folder gives access lists to what is made in it.
fn hands_down(folder: &Path) -> bool {
    rustix::fs::getxattr(folder, "system.posix_acl_default", &mut [0; 1][..0]).is_ok()
}

/// Returns the path by which the kernel lets one name an open file again.
fn descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Copies security labels, access lists and user attributes. Without the privilege to label, a file keeps what the system
/// gives to new ones.
pub(super) fn copy_labels(old: &Path, file: &File) {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::llistxattr(old, names.as_mut_slice()) else { return };
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| carries_over(name)) {
        let mut value = vec![0; 4096];
        if let Ok(length) = rustix::fs::lgetxattr(old, name, value.as_mut_slice()) {
            let _ = rustix::fs::fsetxattr(file, name, value.get(..length).unwrap_or_default(), rustix::fs::XattrFlags::empty());
        }
    }
}

/// Capabilities and integrity hashes belong to the old content; everything else to the name.
fn carries_over(name: &[u8]) -> bool {
    let of_content: [&[u8]; 3] = [b"security.capability", b"security.ima", b"security.evm"];
    (name.starts_with(b"security.") || name.starts_with(b"user.") || name == b"system.posix_acl_access") && !of_content.contains(&name)
}

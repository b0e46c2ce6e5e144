//! Looking at files: what a path is, what it holds, what its digest is.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Machine;
use crate::api::error::ModuleError;
use crate::api::inspect::Fingerprint;
use crate::api::types::{Attributes, Digest, Entry, EntryKind, Owner};

/// What tells one state of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    mtime: i64,
    ctime: i64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file that changed less than this ago may change again without its times moving on, since kernels stamp them coarsely.
const SETTLED: Duration = Duration::from_secs(2);

impl Machine {
    pub(super) fn look(&self, path: &Path, follow: bool) -> Result<Option<Entry>, ModuleError> {
        let place = self.place(path, follow)?;
        let found = if follow { std::fs::metadata(&place) } else { std::fs::symlink_metadata(&place) };
        let metadata = match found {
            Ok(metadata) => metadata,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(ModuleError::io("look at", path, &error)),
        };
        let kind = if metadata.is_symlink() {
            let target = std::fs::read_link(&place).map_err(|error| ModuleError::io("read the link", path, &error))?;
            if target.to_str().is_none() {
                let error = format!("the link `{}` leads to `{}`, a name that is not UTF-8", path.display(), target.display());
                return Err(ModuleError::host(error).hint("kplay neither keeps nor replaces such links: remove it by hand"));
            }
            EntryKind::Symlink(target)
        } else {
            kind_of(&metadata)
        };
        Ok(Some(Entry {
            kind,
            attributes: self.attributes_of(&place, &metadata),
            size: if metadata.is_file() { metadata.len() } else { 0 },
            mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }))
    }

    /// Returns mode and owners of what lies at `place`, as the host would see them.
    pub(super) fn attributes_of(&self, place: &Path, metadata: &Metadata) -> Attributes {
        let (owner, group) = self.owners_of(place, metadata);
        Attributes { mode: metadata.permissions().mode() & 0o7777, owner: Owner::Id(owner), group: Owner::Id(group) }
    }

    pub(super) fn content(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ModuleError> {
        let file = self.open_file(path)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| ModuleError::io("read", path, &error))?;
        if bytes.len() as u64 > limit {
            return Err(ModuleError::host(format!("`{}` is larger than the limit of {limit} bytes", path.display())));
        }
        Ok(bytes)
    }

    pub(super) fn digest(&self, path: &Path) -> Result<Option<Fingerprint>, ModuleError> {
        let place = self.place(path, true)?;
        match std::fs::metadata(&place) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(ModuleError::io("look at", path, &error)),
        }
        let mut file = File::open(&place).map_err(|error| ModuleError::io("read", path, &error))?;
        let metadata = file.metadata().map_err(|error| ModuleError::io("look at", path, &error))?;
        let identity = Identity::of(&metadata);
        if let Some(known) = self.hashes.borrow().get(&identity) {
            return Ok(Some(Fingerprint::Known(*known)));
        }
        let (digest, _) = Digest::of_reader(&mut file).map_err(|error| ModuleError::io("read", path, &error))?;
        if is_settled(identity.ctime.max(identity.mtime)) {
            self.hashes.borrow_mut().insert(identity, digest);
        }
        Ok(Some(Fingerprint::Known(digest)))
    }

    /// Takes a digest for that of a file which has just been put in its place, and was hashed while it arrived. To read some hundred
    /// megabytes again would prove little: whoever changes them has to do so in the very tick of the clock in which we did.
    pub(super) fn remember(&self, path: &Path, digest: Digest) -> Result<(), ModuleError> {
        let metadata = std::fs::metadata(self.place(path, false)?).map_err(|error| ModuleError::io("look at", path, &error))?;
        self.hashes.borrow_mut().insert(Identity::of(&metadata), digest);
        Ok(())
    }

    pub(super) fn names(&self, path: &Path) -> Result<Vec<String>, ModuleError> {
        let failed = |error: std::io::Error| ModuleError::io("list", path, &error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.place(path, true)?).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.into_string().map_err(|name| {
                ModuleError::host(format!("`{}` holds a name that is not UTF-8: `{}`", path.display(), name.to_string_lossy()))
            })?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// Opens a regular file for reading, following links. Anything else is refused: opening a pipe would wait for ever.
    pub(super) fn open_file(&self, path: &Path) -> Result<File, ModuleError> {
        let place = self.place(path, true)?;
        let metadata = std::fs::metadata(&place).map_err(|error| ModuleError::io("read", path, &error))?;
        if !metadata.is_file() {
            return Err(ModuleError::host(format!("cannot read `{}`: it is a {}, not a file", path.display(), kind_of(&metadata).word())));
        }
        File::open(&place).map_err(|error| ModuleError::io("read", path, &error))
    }
}

/// Returns whether the error only says that there is nothing.
pub(super) fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn kind_of(metadata: &Metadata) -> EntryKind {
    match metadata {
        _ if metadata.is_file() => EntryKind::File,
        _ if metadata.is_dir() => EntryKind::Directory,
        _ => EntryKind::Other,
    }
}

fn is_settled(changed: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from((now.saturating_sub(SETTLED)).as_nanos()).is_ok_and(|limit| changed < limit)
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

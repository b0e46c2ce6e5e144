//! What is known of the controller's own files: each is read once, however many hosts get it, and again when it has changed.
#![expect(clippy::disallowed_methods, reason = "tasks are about to copy what is read here")]

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use kplay_modules::api::{Digest, place};

use crate::secrets::Secrets;

/// Up to this size, bytes, a file is read whole, and searched for secrets while it is there.
const WHOLE: u64 = 4 << 20;

/// What a look into a file has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Digest of its content.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Whether it must never be shown: it holds a private key or a declared secret. Not known of large files.
    pub secret: Option<bool>,
}

/// All files that were looked into during a run. Threads share it.
#[derive(Debug, Default)]
pub struct Files {
    secrets: Secrets,
    /// With how many secrets each was searched for.
    known: Mutex<HashMap<FileKey, (usize, Look)>>,
}

/// What tells a file from a changed one without reading it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FileKey {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Files {
    /// Creates it; what is in `secrets`, then or later, is what files are searched for.
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets, known: Mutex::default() }
    }

    /// Looks into a file whose `meta` was just read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn look(&self, path: &Path, meta: &Metadata) -> io::Result<Look> {
        let key = FileKey { path: path.to_owned(), size: meta.len(), modified: meta.modified().ok(), inode: meta.ino() };
        let count = self.secrets.count();
        let known = self.lock().get(&key).copied();
        // Secrets are only ever added: what holds one goes on holding it.
        if let Some((_, look)) = known.filter(|(searched_for, look)| *searched_for == count || look.secret != Some(false)) {
            return Ok(look);
        }
        let look = self.read(path, meta.len())?;
        self.lock().insert(key, (count, look));
        Ok(look)
    }

    fn read(&self, path: &Path, size: u64) -> io::Result<Look> {
        let mut file = File::open(path)?;
        if size > WHOLE {
            let (digest, size) = Digest::of_reader(&mut file)?;
            return Ok(Look { digest, size, secret: None });
        }
        let mut content = Vec::with_capacity(usize::try_from(size + 1).unwrap_or_default());
        // Of a bare file the standard library would ask once more how long it is, and where we stand in it.
        file.take(u64::MAX).read_to_end(&mut content)?;
        let secret = place::looks_like_key(&content) || self.secrets.are_in(&content);
        Ok(Look { digest: Digest::of(&content), size: content.len() as u64, secret: Some(secret) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FileKey, (usize, Look)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_or_what_is_searched_for_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let secrets = Secrets::default();
        let files = Files::new(secrets.clone());
        let look = |content: &str| {
            std::fs::write(&path, content).unwrap();
            files.look(&path, &std::fs::metadata(&path).unwrap()).unwrap()
        };
        assert_eq!(look("hunter2"), Look { digest: Digest::of(b"hunter2"), size: 7, secret: Some(false) });
        assert_eq!(look("three").digest, Digest::of(b"three"));
        let meta = std::fs::metadata(&path).unwrap();
        secrets.add(["three"]);
        assert_eq!(files.look(&path, &meta).unwrap().secret, Some(true));
        assert_eq!(look("-----BEGIN PRIVATE KEY-----\n").secret, Some(true));
        let large = "x".repeat(5 << 20);
        assert_eq!(look(&large), Look { digest: Digest::of(large.as_bytes()), size: 5 << 20, secret: None });
    }
}

//! Contents that tasks refer to by digest: kept here on the controller until a host asks for them.
#![expect(clippy::disallowed_methods, reason = "the store reads what tasks are about to copy")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use kplay_modules::api::error::plain;
use kplay_modules::api::{Blob, Digest, ModuleError};

/// A content that is being read.
pub trait Content: Read + Seek + Send {}
impl<T: Read + Seek + Send> Content for T {}

/// All contents of a run. Shared by the planner, which fills it, and by whatever serves hosts.
#[derive(Debug, Default)]
pub struct Blobs {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    contents: HashMap<Digest, (Source, Blob)>,
    /// Digests of local files, so that each file is read once however many hosts get it.
    files: HashMap<FileKey, (Digest, u64)>,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

/// What tells a file from a changed one without reading it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl FileKey {
    pub(crate) fn of(path: &Path, meta: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { path: path.to_owned(), size: meta.len(), modified: meta.modified().ok(), inode: meta.ino() }
    }
}

impl Blobs {
    /// Keeps bytes in memory.
    pub fn add_bytes(&self, bytes: Vec<u8>, secret: bool) -> Blob {
        let blob = Blob { digest: Digest::of(&bytes), size: bytes.len() as u64, secret };
        self.add(Source::Bytes(bytes.into()), &blob);
        blob
    }

    /// Remembers a local file, which is read again when a host asks for it.
    pub fn add_file(&self, path: &Path, secret: bool) -> Result<Blob, ModuleError> {
        let failed = |error: std::io::Error| ModuleError::argument(format!("cannot read `{}`: {}", path.display(), plain(&error)));
        let meta = std::fs::metadata(path).map_err(failed)?;
        let key = FileKey::of(path, &meta);
        let known = self.lock().files.get(&key).copied();
        let (digest, size) = match known {
            Some(known) => known,
            None => {
                let taken = Digest::of_reader(&mut File::open(path).map_err(failed)?).map_err(failed)?;
                self.lock().files.insert(key, taken);
                taken
            }
        };
        let blob = Blob { digest, size, secret };
        self.add(Source::File(path.to_owned()), &blob);
        Ok(blob)
    }

    /// Opens a content for streaming; `None` when there is none with that digest. A file may have changed since: who reads
    /// to the end checks the digest.
    pub fn open(&self, digest: &Digest) -> Option<std::io::Result<Box<dyn Content>>> {
        let (source, _) = self.lock().contents.get(digest).cloned()?;
        Some(match source {
            Source::Bytes(bytes) => Ok(Box::new(Cursor::new(bytes))),
            Source::File(path) => File::open(path).map(|file| Box::new(file) as Box<dyn Content>),
        })
    }

    /// Returns a content whole, for diffs: `None` when there is none with that digest, it is secret, larger than `limit`, or cannot be read.
    pub fn text(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let blob = self.blob(digest).filter(|blob| !blob.secret && blob.size <= limit)?;
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).ok()?);
        self.open(digest)?.ok()?.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Returns size and secrecy of a content.
    pub fn blob(&self, digest: &Digest) -> Option<Blob> {
        self.lock().contents.get(digest).map(|(_, blob)| blob.clone())
    }

    /// Adds a content; one that was secret once stays secret.
    fn add(&self, source: Source, blob: &Blob) {
        let mut known = self.lock();
        let kept = known.contents.entry(blob.digest).or_insert((source, blob.clone()));
        kept.1.secret |= blob.secret;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_gets_a_new_digest_and_secrecy_sticks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let blobs = Blobs::default();
        let first = blobs.add_file(&path, true).unwrap();
        assert_eq!(first.digest, Digest::of(b"one"));
        std::fs::write(&path, "three").unwrap();
        assert_eq!(blobs.add_file(&path, false).unwrap().digest, Digest::of(b"three"));
        blobs.add_bytes(b"one".to_vec(), false);
        assert_eq!(blobs.text(&first.digest, 100), None, "secret contents are not for diffs");
        assert_eq!(blobs.text(&Digest::of(b"three"), 100).as_deref(), Some(b"three".as_slice()));
        assert!(blobs.open(&Digest::of(b"never seen")).is_none());
    }
}

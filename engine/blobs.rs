//! Contents that tasks refer to by digest: kept here on the controller until a host asks for them.
#![expect(clippy::disallowed_methods, reason = "the store reads what tasks are about to copy")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kplay_modules::api::{Blob, Digest};

use crate::files::Look;

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
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

impl Blobs {
    /// Keeps bytes in memory.
    pub fn add_bytes(&self, bytes: Vec<u8>, secret: bool) -> Blob {
        let blob = Blob { digest: Digest::of(&bytes), size: bytes.len() as u64, secret };
        self.add(Source::Bytes(bytes.into()), &blob);
        blob
    }

    /// Remembers a local file, which is read again when a host asks for it.
    pub fn add_file(&self, path: &Path, look: &Look, secret: bool) -> Blob {
        let blob = Blob { digest: look.digest, size: look.size, secret };
        self.add(Source::File(path.to_owned()), &blob);
        blob
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
    fn secrecy_sticks_to_a_content() {
        let blobs = Blobs::default();
        let look = Look { digest: Digest::of(b"one"), size: 3, secret: Some(true) };
        let first = blobs.add_file(Path::new("/never/read"), &look, true);
        blobs.add_bytes(b"three".to_vec(), false);
        blobs.add_bytes(b"one".to_vec(), false);
        assert_eq!(blobs.text(&first.digest, 100), None, "secret contents are not for diffs");
        assert_eq!(blobs.text(&Digest::of(b"three"), 100).as_deref(), Some(b"three".as_slice()));
        assert!(blobs.open(&Digest::of(b"never seen")).is_none());
    }
}

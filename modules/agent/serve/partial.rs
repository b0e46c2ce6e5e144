//! Large contents as they arrive: kept in files named by their digests, so that what a cut connection has brought is not sent again.
#![expect(clippy::disallowed_methods, reason = "they are files below the agent's state folder")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use crate::agent::wire::Beginning;
use crate::api::{Blob, Digest};

/// Contents above this size are kept; to send a smaller one again is cheaper than the file.
const LARGE: u64 = 4 << 20;
/// What nobody has come back for after this time goes away.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long to wait for another session to let go of a file.
const PATIENCE: Duration = Duration::from_secs(2);

/// The folder of all contents that are on their way.
pub struct Partials {
    folder: PathBuf,
    /// Files that are complete: another task of this session may want the same content. A task may have moved its file away.
    whole: RefCell<HashMap<Digest, Partial>>,
}

/// A content on its way.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    size: u64,
    hasher: Sha256,
}

impl Partials {
    /// Names the folder; it is made when something large arrives.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("partial"), whole: RefCell::default() }
    }

    /// Opens the file of a content and looks what is in it. `None` when the content is not to be kept, or cannot be: that is no
    /// reason not to go on without.
    pub(super) fn open(&self, blob: &Blob) -> Option<Partial> {
        if blob.size <= LARGE || blob.secret {
            return None;
        }
        if let Some(partial) = self.whole.borrow_mut().remove(&blob.digest)
            && let Some(partial) = partial.again(blob)
        {
            return Some(partial);
        }
        if !self.folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).ok()?;
        }
        self.tidy();
        let path = self.folder.join(blob.digest.hex());
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).ok()?;
        lock(&file)?;
        let (mut hasher, mut size) = hash(&mut file).ok()?;
        if size > blob.size || size == blob.size && Digest(hasher.clone().finalize().into()) != blob.digest {
            file.set_len(0).ok()?;
            file.rewind().ok()?;
            (hasher, size) = (Sha256::new(), 0);
        }
        Some(Partial { file, path, size, hasher })
    }

    /// Remembers that a content is complete. Returns its path, if nobody has moved it away.
    pub(super) fn complete(&self, digest: Digest, partial: Partial) -> Option<PathBuf> {
        let path = partial.is_in_place().then(|| partial.path.clone());
        self.whole.borrow_mut().insert(digest, partial);
        path
    }

    fn tidy(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age > OLD)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Partials {
    /// What has arrived in full has been used.
    fn drop(&mut self) {
        for partial in self.whole.get_mut().values().filter(|partial| partial.is_in_place()) {
            let _ = std::fs::remove_file(&partial.path);
        }
    }
}

/// Waits for the end of a session whose connection has been cut; does without when another one is taking in the same content.
fn lock(file: &File) -> Option<()> {
    let until = Instant::now() + PATIENCE;
    while rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(())
}

fn hash(file: &mut File) -> io::Result<(Sha256, u64)> {
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher, size)),
            count => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                size += count as u64;
            }
        }
    }
}

impl Partial {
    /// Looks again at what was complete: what has been moved away may have been changed there.
    fn again(mut self, blob: &Blob) -> Option<Self> {
        self.file.rewind().ok()?;
        let (hasher, size) = hash(&mut self.file).ok()?;
        (Digest(hasher.clone().finalize().into()) == blob.digest).then_some(Self { size, hasher, ..self })
    }

    /// Returns whether the file still lies where it arrived.
    fn is_in_place(&self) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), std::fs::symlink_metadata(&self.path)) else { return false };
        (own.dev(), own.ino()) == (there.dev(), there.ino())
    }

    /// Returns what is there, for the controller to compare; `None` when that is nothing.
    pub(super) fn beginning(&self) -> Option<Beginning> {
        (self.size > 0).then(|| Beginning { size: self.size, digest: Digest(self.hasher.clone().finalize().into()) })
    }

    /// Returns how many bytes are there.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Forgets what is there: it was not the content's beginning.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.size = 0;
        self.file.rewind()
    }

    /// Returns the digest so far, to be gone on with.
    pub(super) fn hasher(&self) -> Sha256 {
        self.hasher.clone()
    }

    /// Returns a reader of what is there, wherever that is by now.
    pub(super) fn reader(&self) -> io::Result<impl Read + use<>> {
        let file = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).or_else(|_| File::open(&self.path))?;
        Ok(file.take(self.size))
    }

    /// Adds what has arrived.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Removes the file, since the content is not what was announced.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

//! Answers what agents ask back: contents, signatures, places for fetched files. A host gets only what its own tasks name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use kplay_modules::agent::wire::{self, ToAgent};
use kplay_modules::api::Digest;
use kplay_modules::api::error::plain;
use kplay_modules::api::module::SignatureRequest;
use tempfile::NamedTempFile;

use super::session::HostId;
use crate::blobs::Blobs;
use crate::diagnostic::{Diagnostic, Result};
use crate::transport::PollLoop;

/// Bytes of a content that travel in one message.
const PART: usize = 256 << 10;
/// Bytes that may wait for one host before its sender pauses: enough to keep a fast link busy, little enough for a thousand hosts.
const QUEUE: usize = 2 << 20;
/// Contents up to this size are sent from the thread that schedules; larger ones get a thread of their own.
const SMALL: u64 = 256 << 10;

/// Signs a certification request (DER) as a pending task says; returns PEM.
pub type Signer = dyn Fn(&SignatureRequest, &[u8]) -> Result<String> + Send + Sync;

/// What the controller holds for its hosts.
pub struct Supply {
    blobs: Arc<Blobs>,
    signer: Arc<Signer>,
    arriving: HashMap<(HostId, u32), (NamedTempFile, PathBuf)>,
}

impl Supply {
    /// Creates a supply of these contents; `signer` signs.
    pub fn new(blobs: Arc<Blobs>, signer: Arc<Signer>) -> Self {
        Self { blobs, signer, arriving: HashMap::new() }
    }

    /// Sends a content from `offset` on. The caller has made sure that the host may have it.
    pub fn send_blob(&self, outbox: &Arc<PollLoop>, host: HostId, digest: Digest, offset: u64) {
        let (blobs, outbox) = (Arc::clone(&self.blobs), Arc::clone(outbox));
        let small = blobs.blob(&digest).is_none_or(|blob| blob.size.saturating_sub(offset) <= SMALL);
        let work = move || {
            if let Err(message) = stream(&blobs, &outbox, host, digest, offset) {
                say(&outbox, host, &ToAgent::NoBlob { digest, message });
            }
        };
        if small {
            work();
        } else {
            std::thread::spawn(work);
        }
    }

    /// Refuses a content that the host's own tasks do not name.
    pub fn refuse_blob(outbox: &PollLoop, host: HostId, digest: Digest) {
        say(outbox, host, &ToAgent::NoBlob { digest, message: "no task of this host names that content".to_owned() });
    }

    /// Signs on a thread of the pool and sends the certificate, or why there is none.
    pub fn sign(
        &self,
        pool: &rayon::ThreadPool,
        outbox: &Arc<PollLoop>,
        host: HostId,
        task: u32,
        wanted: std::result::Result<SignatureRequest, String>,
        request: Vec<u8>,
    ) {
        let (signer, outbox) = (Arc::clone(&self.signer), Arc::clone(outbox));
        pool.spawn(move || {
            let certificate = wanted.and_then(|wanted| signer(&wanted, &request).map_err(|error| error.message));
            say(&outbox, host, &ToAgent::Signed { task, certificate });
        });
    }

    /// Takes a part of a file that a task delivers to `dest`; the last part puts it in place. Returns whether it was the last.
    pub fn receive(&mut self, host: HostId, task: u32, dest: &Path, bytes: &[u8], last: bool) -> Result<()> {
        let failed = |action: &str, error: &std::io::Error| {
            Diagnostic::host(format!("cannot {action} `{}` on the controller: {}", dest.display(), plain(error)))
        };
        let mut arriving = match self.arriving.entry((host, task)) {
            Entry::Occupied(begun) => begun,
            Entry::Vacant(new) => {
                let folder = dest.parent().unwrap_or(Path::new("."));
                create_folder(folder).map_err(|error| failed("make the folder of", &error))?;
                let file = NamedTempFile::new_in(folder).map_err(|error| failed("write beside", &error))?;
                new.insert_entry((file, dest.to_owned()))
            }
        };
        arriving.get_mut().0.write_all(bytes).map_err(|error| failed("write", &error))?;
        if last {
            let (file, dest) = arriving.remove();
            file.persist(&dest).map_err(|error| failed("write", &error.error))?;
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "fetched files are written where the playbook's author said")]
fn create_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// Sends a content part by part, deflated where that pays, and waits whenever the host's queue is full.
fn stream(blobs: &Blobs, outbox: &PollLoop, host: HostId, digest: Digest, offset: u64) -> std::result::Result<(), String> {
    let mut reader = match blobs.open(&digest) {
        None => return Err("the controller does not hold that content".to_owned()),
        Some(Err(error)) => return Err(format!("the controller cannot read that content: {}", plain(&error))),
        Some(Ok(reader)) => reader,
    };
    let describe = |error: std::io::Error| format!("the controller cannot read that content: {}", plain(&error));
    std::io::copy(&mut reader.by_ref().take(offset), &mut std::io::sink()).map_err(describe)?;
    let mut worthwhile = None;
    let mut part = read_part(&mut *reader).map_err(describe)?;
    loop {
        let next = if part.len() < PART { Vec::new() } else { read_part(&mut *reader).map_err(describe)? };
        let last = next.is_empty();
        let deflated = if worthwhile == Some(false) { None } else { deflate(&part) };
        // What the first part does not gain from compression (archives, binaries packed already), the others will not either.
        worthwhile.get_or_insert(deflated.is_some());
        let (bytes, deflated) = deflated.map_or((part, false), |bytes| (bytes, true));
        outbox.wait_for_room(host, QUEUE);
        say(outbox, host, &ToAgent::Blob { digest, bytes, deflated, last });
        if last {
            return Ok(());
        }
        part = next;
    }
}

fn read_part(reader: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(PART);
    reader.take(PART as u64).read_to_end(&mut part)?;
    Ok(part)
}

/// Returns the part deflated, when that saves at least a tenth of it.
fn deflate(part: &[u8]) -> Option<Vec<u8>> {
    if part.len() < 512 {
        return None;
    }
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(part.len() / 2), Compression::fast());
    encoder.write_all(part).ok()?;
    encoder.finish().ok().filter(|bytes| bytes.len() < part.len() / 10 * 9)
}

fn say(outbox: &PollLoop, host: HostId, message: &ToAgent) {
    // A message that is too large for the protocol cannot arise here: parts are bounded.
    if let Ok(bytes) = wire::encode(message) {
        outbox.send(host, bytes);
    }
}

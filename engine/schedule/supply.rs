//! Answers what agents ask back: contents, signatures, places for fetched files. A host gets only what its own tasks name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kplay_modules::agent::wire::{self, Beginning, ToAgent};
use kplay_modules::api::Digest;
use kplay_modules::api::error::plain;
use kplay_modules::api::module::SignatureRequest;
use tempfile::NamedTempFile;

use super::send::Senders;
use super::session::HostId;
use super::workers::Workers;
use crate::blobs::Blobs;
use crate::diagnostic::{Diagnostic, Result};
use crate::transport::PollLoop;

/// Signs a certification request (DER) as a pending task says; returns PEM.
pub type Signer = dyn Fn(&SignatureRequest, &[u8]) -> Result<String> + Send + Sync;

/// What the controller holds for its hosts.
pub struct Supply {
    blobs: Arc<Blobs>,
    signer: Arc<Signer>,
    senders: Senders,
    arriving: HashMap<(HostId, u32), (NamedTempFile, PathBuf)>,
}

impl Supply {
    /// Creates a supply of these contents; `signer` signs.
    pub fn new(blobs: Arc<Blobs>, signer: Arc<Signer>) -> Self {
        Self { blobs, signer, senders: Senders::default(), arriving: HashMap::new() }
    }

    /// Sends a content, or what follows the beginning that the host says it has. The caller has made sure that it may have it.
    pub fn send_blob(&self, outbox: &Arc<PollLoop>, host: HostId, digest: Digest, kept: Option<Beginning>) {
        self.senders.send(&self.blobs, outbox, host, digest, kept);
    }

    /// Refuses a content that the host's own tasks do not name.
    pub fn refuse_blob(outbox: &PollLoop, host: HostId, digest: Digest) {
        say(outbox, host, &ToAgent::NoBlob { digest, message: "no task of this host names that content".to_owned() });
    }

    /// Signs on another thread and sends the certificate, or why there is none.
    pub fn sign(
        &self,
        workers: &Workers,
        outbox: &Arc<PollLoop>,
        host: HostId,
        task: u32,
        wanted: std::result::Result<SignatureRequest, String>,
        request: Vec<u8>,
    ) {
        let (signer, outbox) = (Arc::clone(&self.signer), Arc::clone(outbox));
        workers.spawn(move || {
            // The host waits for an answer, whatever happens here.
            let signed = |wanted| catch_unwind(AssertUnwindSafe(|| signer(&wanted, &request).map_err(|error| error.message)));
            let certificate = wanted.and_then(|wanted| signed(wanted).unwrap_or_else(|_| Err("kplay itself failed at it".to_owned())));
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

pub(super) fn say(outbox: &PollLoop, host: HostId, message: &ToAgent) {
    // A message that is too large for the protocol cannot arise here: parts are bounded.
    if let Ok(bytes) = wire::encode(message) {
        outbox.send(host, bytes);
    }
}

//! Keeping what a change is about to replace, in the journal of the run, so that its inverse can bring it back.

use std::path::Path;

use super::Machine;
use super::records::private_folder;
use super::staged::Staged;
use crate::api::change::Change;
use crate::api::error::ModuleError;
use crate::api::inspect::Fingerprint;
use crate::api::inverse::inverse;
use crate::api::journal::{content_path, folder_of};
use crate::api::perform::Irreversible;
use crate::api::types::{Blob, Content};

/// Files up to this size are copied into the journal; larger ones get a second name there where they can, bytes.
const COPIED: u64 = 1 << 20;
/// How much may be kept for one change, bytes and files.
const BYTES: u64 = 2 << 30;
const FILES: u32 = 50_000;

impl Machine {
    /// Returns what undoes a change. Contents that will be needed are kept under their digests; see `journal.rs`.
    pub(super) fn inverse(&self, change: &Change) -> Result<Vec<Change>, Irreversible> {
        let (mut bytes, mut files) = (0, 0);
        let mut changes = inverse(self, change, &mut |path| {
            let blob = self.keep(path)?;
            bytes += blob.size;
            files += 1;
            if bytes > BYTES || files > FILES {
                return Err(ModuleError::host(format!("too much would have to be kept ({} MiB, {files} files)", bytes >> 20)));
            }
            Ok(Content::Blob(blob))
        })?;
        // Passwords are changed by their owners, too: only what this very change touches is put back.
        if let Change::User { after: wanted, .. } = change
            && wanted.as_ref().is_none_or(|wanted| wanted.password_hash.is_some())
        {
            for change in &mut changes {
                if let Change::User { name, after: Some(spec), .. } = change {
                    let shadow = self.shadow(name);
                    spec.aging = shadow.as_ref().map(|(_, aging)| aging.clone());
                    spec.password_hash = shadow.map(|(hash, _)| hash);
                }
            }
        }
        Ok(changes)
    }

    /// Keeps the content of a file that is about to be replaced or removed.
    fn keep(&self, path: &Path) -> Result<Blob, ModuleError> {
        let failed = |error: std::io::Error| ModuleError::io("keep the content of", path, &error);
        let place = self.place(path, false)?;
        let metadata = std::fs::symlink_metadata(&place).map_err(failed)?;
        let Some(Fingerprint::Known(digest)) = self.digest(path)? else {
            return Err(ModuleError::host(format!("`{}` has just gone", path.display())));
        };
        // What its owner alone may read is not shown when it comes back, either.
        let secret = self.attributes_of(&place, &metadata).mode & 0o077 == 0;
        let blob = Blob { digest, size: metadata.len(), secret };
        let target = content_path(&folder_of(&self.state, &self.run)?, &digest);
        if target.exists() {
            return Ok(blob);
        }
        if let Some(folder) = target.parent() {
            private_folder(folder)?;
        }
        // The file will lose its name in a moment, so that nobody goes on writing to it under this one.
        if blob.size > COPIED && std::fs::hard_link(&place, &target).is_ok() {
            return Ok(blob);
        }
        let mut staged = Staged::beside(&target).map_err(failed)?;
        let (found, _) = staged.fill(&mut self.open_file(path)?).map_err(failed)?;
        if found != digest {
            return Err(ModuleError::host(format!("`{}` changes while it is being read", path.display())));
        }
        staged.put().map_err(failed)?;
        Ok(blob)
    }
}

//! Certificate authorities that the controller keeps, and what it signs with them.
//!
//! An authority is a folder: `ca.pem` and `ca-key.pem`, the latter encrypted as `ca-key.pem.age` when a passphrase was given.
//! It is made on first use, or it is one that was put there (PKCS#8, PKCS#1 or SEC1).

mod authority;
mod certificate;
mod store;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kplay_modules::api::issue::KeyType;
use kplay_modules::api::module::SignatureRequest;

use crate::diagnostic::{Diagnostic, Result};

pub use authority::{Authority, AuthorityOptions};

/// The authorities of a run, each read once, however many hosts ask for it at the same time.
#[derive(Default)]
pub struct Authorities {
    options: AuthorityOptions,
    opened: Mutex<HashMap<PathBuf, Arc<Authority>>>,
}

impl Authorities {
    /// Creates an empty set; authorities that do not exist yet are made with `options`.
    pub fn new(options: AuthorityOptions) -> Self {
        Self { options, opened: Mutex::default() }
    }

    /// Returns the authority in `folder`. When it is not there it is made, in memory until [`Self::save`].
    pub fn open_or_make(&self, folder: &Path) -> Result<Arc<Authority>> {
        self.get(folder, |options| Authority::open_or_make(folder, options).map(Some))?
            .ok_or_else(|| Diagnostic::internal(format!("the authority `{}` was not made", folder.display())))
    }

    /// Writes the authorities that are new, and returns their folders.
    pub fn save(&self) -> Result<Vec<PathBuf>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut saved = Vec::new();
        for (folder, authority) in opened.iter() {
            if authority.save(self.options.passphrase.as_deref())? {
                saved.push(folder.clone());
            }
        }
        saved.sort();
        Ok(saved)
    }

    /// Returns the authority in `folder`, or `None` when there is none: what a forecast asks for.
    pub fn open(&self, folder: &Path) -> Result<Option<Arc<Authority>>> {
        self.get(folder, |options| Authority::open(folder, options.passphrase.as_deref()))
    }

    /// Signs a certification request (DER) by the specification that the host's task has announced; returns PEM.
    pub fn sign(&self, wanted: &SignatureRequest, request: &[u8]) -> Result<String> {
        let spec = serde_json::from_value(wanted.specification.clone())
            .map_err(|error| Diagnostic::internal(format!("the specification of a certificate cannot be read: {error}")))?;
        self.open_or_make(&wanted.authority)?.sign(&spec, request)
    }

    fn get(&self, folder: &Path, open: impl FnOnce(&AuthorityOptions) -> Result<Option<Authority>>) -> Result<Option<Arc<Authority>>> {
        // Held while one is opened, so that a hundred hosts that need it at once read it once.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = opened.get(folder) {
            return Ok(Some(Arc::clone(authority)));
        }
        let Some(authority) = open(&self.options)?.map(Arc::new) else { return Ok(None) };
        opened.insert(folder.to_owned(), Arc::clone(&authority));
        Ok(Some(authority))
    }
}

/// Type of an authority's own key when nothing else is asked for.
const AUTHORITY_KEY: KeyType = KeyType::Rsa(2048);

//! Downloads on the host itself, by HTTP(S) or from a file, verified before they get their name.

use std::path::Path;

use ureq::tls::RootCerts;

use super::Machine;
use crate::api::change::Download;
use crate::api::checksum::Checksum;
use crate::api::error::ModuleError;
use crate::api::http::{self, Transfer};

impl Machine {
    pub(super) fn download(&self, download: &Download) -> Result<(), ModuleError> {
        let mut content = self.open_url(download)?;
        let staged = self.stage(&download.path, &mut content, &download.attributes);
        let (staged, found) = staged.map_err(|error| content.broken().unwrap_or(error))?;
        if found != download.digest {
            return Err(http::mismatch(&download.url, &Checksum::Sha256(download.digest), &Checksum::Sha256(found)));
        }
        self.put_staged(&download.path, staged, &download.attributes)
    }

    fn open_url<'a>(&self, download: &'a Download) -> Result<Transfer<'a>, ModuleError> {
        if let Some(path) = download.url.strip_prefix("file://") {
            return Ok(Transfer::new(&download.url, Box::new(self.open_file(Path::new(path))?)));
        }
        http::get(&download.url, self.authorities(download.ca.as_deref())?, download.timeout)
    }

    /// Returns the authorities to trust: those of `ca`, else the host's, else Mozilla's as they were built in.
    fn authorities(&self, ca: Option<&Path>) -> Result<RootCerts, ModuleError> {
        if let Some(ca) = ca {
            return http::authorities(&self.content(ca, 16 << 20)?)
                .ok_or_else(|| ModuleError::host(format!("`{}` holds no certificate in PEM form", ca.display())).at("ca"));
        }
        let bundles = http::BUNDLES.iter().filter_map(|path| self.content(Path::new(path), 16 << 20).ok());
        Ok(bundles.filter_map(|pem| http::authorities(&pem)).next().unwrap_or(RootCerts::WebPki))
    }
}

#[cfg(test)]
mod tests;

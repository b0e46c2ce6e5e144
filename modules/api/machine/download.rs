//! Downloads on the host itself, by HTTP(S) or from a file, verified before they get their name.

use std::io::Read;
use std::path::Path;

use ureq::tls::RootCerts;

use super::Machine;
use crate::api::change::Download;
use crate::api::error::ModuleError;
use crate::api::http;

impl Machine {
    pub(super) fn download(&self, download: &Download) -> Result<(), ModuleError> {
        let mut content = self.open_url(download)?;
        let (staged, found) = self.stage(&download.path, &mut content, &download.attributes)?;
        if found != download.digest {
            return Err(http::mismatch(&download.url, &download.digest, &found));
        }
        self.put_staged(&download.path, staged, &download.attributes)
    }

    fn open_url(&self, download: &Download) -> Result<Box<dyn Read>, ModuleError> {
        if let Some(path) = download.url.strip_prefix("file://") {
            return Ok(Box::new(self.open_file(Path::new(path))?));
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

//! Downloads on the host itself, by HTTP(S) or from a file, verified before they get their name.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::Machine;
use crate::api::change::Download;
use crate::api::error::{ModuleError, plain};

/// Where distributions keep the authorities that they trust.
const BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

impl Machine {
    pub(super) fn download(&self, download: &Download) -> Result<(), ModuleError> {
        let mut content = self.open_url(download)?;
        let (staged, found) = self.stage(&download.path, &mut content, &download.attributes)?;
        if found != download.digest {
            return Err(ModuleError::host(format!("what `{}` yields is not what was expected", download.url))
                .at("sha256")
                .details([format!("expected sha256 {}", download.digest.hex()), format!("found    sha256 {}", found.hex())]));
        }
        self.put_staged(&download.path, staged, &download.attributes)
    }

    fn open_url(&self, download: &Download) -> Result<Box<dyn Read>, ModuleError> {
        if let Some(path) = download.url.strip_prefix("file://") {
            return Ok(Box::new(self.open_file(Path::new(path))?));
        }
        let failed = |error: &ureq::Error| {
            let made = ModuleError::host(format!("cannot download `{}`: {}", download.url, reason(error))).at("url");
            match error {
                ureq::Error::Io(cause) if cause.to_string().contains("UnknownIssuer") => {
                    made.hint("name the authority that issued the server's certificate with `ca`")
                }
                ureq::Error::HostNotFound => made.hint("see /etc/resolv.conf on the host, or download with `on = \"controller\"`"),
                _ => made,
            }
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(self.authorities(download.ca.as_deref())?)
            .build();
        let limit = Duration::from_secs(if download.timeout == 0 { 600 } else { download.timeout });
        let agent = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(limit)).build().new_agent();
        let response = agent.get(&download.url).call().map_err(|error| failed(&error))?;
        Ok(Box::new(response.into_body().into_reader()))
    }

    /// Returns the authorities to trust: those of `ca`, else the host's, else Mozilla's as they were built in.
    fn authorities(&self, ca: Option<&Path>) -> Result<RootCerts, ModuleError> {
        if let Some(ca) = ca {
            let pem = self.content(ca, 16 << 20)?;
            let found = certificates(&pem);
            if found.is_empty() {
                return Err(ModuleError::host(format!("`{}` holds no certificate in PEM form", ca.display())).at("ca"));
            }
            return Ok(RootCerts::new_with_certs(&found));
        }
        let bundles = BUNDLES.iter().filter_map(|path| self.content(Path::new(path), 16 << 20).ok());
        let found = bundles.map(|pem| certificates(&pem)).find(|found| !found.is_empty());
        Ok(found.map_or(RootCerts::WebPki, |found| RootCerts::new_with_certs(&found)))
    }
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = ureq::tls::parse_pem(pem);
    items.filter_map(|item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None }).collect()
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("the server answers with status {code}"),
        ureq::Error::HostNotFound => "its host name cannot be resolved".to_owned(),
        ureq::Error::Timeout(_) => "it takes too long".to_owned(),
        ureq::Error::Io(error) => plain(error),
        other => other.to_string(),
    }
}

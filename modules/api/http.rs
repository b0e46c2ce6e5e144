//! Reads what a URL yields, over HTTP or HTTPS, on the host and on the controller alike.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::checksum::Checksum;
use super::error::{ModuleError, plain};

/// Where distributions keep the authorities that they trust.
pub const BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];
/// Seconds that a download may take when nothing else is said.
const PATIENCE: u64 = 600;

/// A download under way. Who copies it somewhere can tell by it whether the source or the destination failed.
pub struct Transfer<'a> {
    url: &'a str,
    content: Box<dyn Read>,
    size: u64,
    broken: Option<ModuleError>,
}

impl<'a> Transfer<'a> {
    /// Begins with what `url` yields.
    pub fn new(url: &'a str, content: Box<dyn Read>) -> Self {
        Self { url, content, size: 0, broken: None }
    }

    /// Returns why reading failed, if it did.
    pub fn broken(self) -> Option<ModuleError> {
        self.broken
    }
}

impl Read for Transfer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.content.read(buffer);
        match &read {
            Ok(count) => self.size += *count as u64,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let text = error.to_string();
                let why = match error.kind() {
                    _ if text.contains("timeout") => "it takes too long".to_owned(),
                    std::io::ErrorKind::UnexpectedEof => "the server ended it early".to_owned(),
                    _ if text.contains("disconnected") => "the server ended it early".to_owned(),
                    _ => plain(error),
                };
                let message = format!("the download of `{}` broke off after {} bytes: {why}", self.url, self.size);
                self.broken = Some(ModuleError::host(message).at("url").hint("run it again"));
            }
        }
        read
    }
}

/// Opens `url` (`https://` or `http://`) for reading. `timeout` is in seconds; 0 means ten minutes.
///
/// # Errors
/// What the server or the connection says, at the argument `url`.
pub fn get(url: &str, authorities: RootCerts, timeout: u64) -> Result<Transfer<'_>, ModuleError> {
    let failed = |error: &ureq::Error| {
        let made = ModuleError::host(format!("cannot download `{url}`: {}", reason(error))).at("url");
        match error {
            ureq::Error::Io(cause) if cause.to_string().contains("UnknownIssuer") => {
                made.hint("name the authority that issued the server's certificate with `ca`")
            }
            ureq::Error::HostNotFound => made.hint("see /etc/resolv.conf, or download with `on = \"controller\"`"),
            _ => made,
        }
    };
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(authorities)
        .build();
    let limit = Duration::from_secs(if timeout == 0 { PATIENCE } else { timeout });
    let agent = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(limit)).build().new_agent();
    let response = agent.get(url).call().map_err(|error| failed(&error))?;
    Ok(Transfer::new(url, Box::new(response.into_body().into_reader())))
}

/// Returns the certificates of a PEM text as authorities to trust; `None` when there are none in it.
pub fn authorities(pem: &[u8]) -> Option<RootCerts> {
    let items = ureq::tls::parse_pem(pem);
    let found: Vec<Certificate<'static>> =
        items.filter_map(|item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None }).collect();
    (!found.is_empty()).then(|| RootCerts::new_with_certs(&found))
}

/// Returns the error about a content that is not what its digest says.
pub fn mismatch(url: &str, expected: &Checksum, found: &Checksum) -> ModuleError {
    ModuleError::host(format!("what `{url}` yields is not what was expected"))
        .at("sha256")
        .details([format!("expected {expected}"), format!("found    {found}")])
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

//! Certificates: the key is made here and stays here; a request goes to the controller, the signed certificate comes back.

use rcgen::PublicKeyData as _;
use x509_parser::pem::Pem;

use super::Machine;
use crate::api::change::IssueCertificate;
use crate::api::error::ModuleError;
use crate::api::issue::{make_request, read_key};
use crate::api::perform::Upstream;

/// The largest key file worth reading, bytes.
const LIMIT: u64 = 64 << 10;

impl Machine {
    pub(super) fn issue_certificate(&self, issue: &IssueCertificate, upstream: &mut dyn Upstream) -> Result<(), ModuleError> {
        let old_key = if issue.new_key { None } else { Some(self.key_text(issue)?) };
        let (key, request) = make_request(old_key.as_deref(), &issue.key_type)?;
        let certificate = upstream.sign(&request)?;
        verify(&certificate, &key, &issue.common_name)?;

        // Both are written whole before either gets its name.
        let (certificate, _) = self.stage(&issue.certificate, &mut certificate.as_bytes(), &issue.certificate_attributes)?;
        if issue.new_key {
            let (staged, _) = self.stage(&issue.key, &mut key.as_bytes(), &issue.key_attributes)?;
            self.put_staged(&issue.key, staged, &issue.key_attributes)?;
        } else {
            self.set_attributes(&issue.key, &issue.key_attributes)?;
        }
        self.put_staged(&issue.certificate, certificate, &issue.certificate_attributes)
    }

    fn key_text(&self, issue: &IssueCertificate) -> Result<String, ModuleError> {
        Ok(String::from_utf8_lossy(&self.content(&issue.key, LIMIT)?).into_owned())
    }
}

/// Makes sure that what came back is a certificate for the key at hand before it replaces anything.
fn verify(pem: &str, key: &str, name: &str) -> Result<(), ModuleError> {
    let wrong = |what: &str| ModuleError::host(format!("the certificate that the controller signed for `{name}` {what}"));
    let block = Pem::iter_from_buffer(pem.as_bytes()).next().and_then(Result::ok).ok_or_else(|| wrong("is not in PEM form"))?;
    let certificate = block.parse_x509().map_err(|_| wrong("cannot be read"))?;
    if certificate.public_key().raw != read_key(key)?.subject_public_key_info() {
        return Err(wrong("is for another key"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

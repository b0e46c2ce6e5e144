//! Certificates: the key is made here and stays here; a request goes to the controller, the signed certificate comes back.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, RsaKeySize};
use x509_parser::pem::Pem;

use super::Machine;
use crate::api::change::IssueCertificate;
use crate::api::error::ModuleError;
use crate::api::perform::Upstream;

/// The largest key file worth reading, bytes.
const LIMIT: u64 = 64 << 10;

impl Machine {
    pub(super) fn issue_certificate(&self, issue: &IssueCertificate, upstream: &mut dyn Upstream) -> Result<(), ModuleError> {
        let key = if issue.new_key { make_key(&issue.key_type)? } else { self.read_key(issue)? };
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, issue.common_name.as_str());
        let request = parameters
            .serialize_request(&key)
            .map_err(|error| ModuleError::host(format!("cannot make a certification request for `{}`: {error}", issue.common_name)))?;
        let certificate = upstream.sign(request.der())?;
        verify(&certificate, &key, &issue.common_name)?;

        // Both are written whole before either gets its name.
        let (certificate, _) = self.stage(&issue.certificate, &mut certificate.as_bytes(), &issue.certificate_attributes)?;
        if issue.new_key {
            let (staged, _) = self.stage(&issue.key, &mut key.serialize_pem().as_bytes(), &issue.key_attributes)?;
            self.put_staged(&issue.key, staged, &issue.key_attributes)?;
        } else {
            self.set_attributes(&issue.key, &issue.key_attributes)?;
        }
        self.put_staged(&issue.certificate, certificate, &issue.certificate_attributes)
    }

    fn read_key(&self, issue: &IssueCertificate) -> Result<KeyPair, ModuleError> {
        let text = String::from_utf8_lossy(&self.content(&issue.key, LIMIT)?).into_owned();
        // OpenSSL puts the parameters of a curve before the key itself.
        let start = ["-----BEGIN PRIVATE KEY", "-----BEGIN RSA PRIVATE KEY", "-----BEGIN EC PRIVATE KEY"]
            .iter()
            .find_map(|head| text.find(head))
            .ok_or_else(|| {
                ModuleError::host(format!("`{}` holds no private key in PEM form that is not encrypted", issue.key.display())).at("key")
            })?;
        KeyPair::from_pem(&text[start..])
            .map_err(|error| ModuleError::host(format!("cannot read the private key `{}`: {error}", issue.key.display())).at("key"))
    }
}

fn make_key(kind: &str) -> Result<KeyPair, ModuleError> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    let made = match kind {
        "rsa:2048" => rsa(RsaKeySize::_2048),
        "rsa:3072" => rsa(RsaKeySize::_3072),
        "rsa:4096" => rsa(RsaKeySize::_4096),
        "ecdsa:p256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        "ecdsa:p384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        "ed25519" => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        _ => {
            return Err(ModuleError::argument(format!("`{kind}` is not a kind of key"))
                .at("key_type")
                .hint("one of rsa:2048, rsa:3072, rsa:4096, ecdsa:p256, ecdsa:p384, ed25519"));
        }
    };
    made.map_err(|error| ModuleError::host(format!("cannot make a `{kind}` key: {error}")))
}

/// Makes sure that what came back is a certificate for the key at hand before it replaces anything.
fn verify(pem: &str, key: &KeyPair, name: &str) -> Result<(), ModuleError> {
    let wrong = |what: &str| ModuleError::host(format!("the certificate that the controller signed for `{name}` {what}"));
    let block = Pem::iter_from_buffer(pem.as_bytes()).next().and_then(Result::ok).ok_or_else(|| wrong("is not in PEM form"))?;
    let certificate = block.parse_x509().map_err(|_| wrong("cannot be read"))?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err(wrong("is for another key"));
    }
    Ok(())
}

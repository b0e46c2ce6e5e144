//! One authority: opened or made, then signing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kplay_modules::api::issue::{KeyType, read_key};
use kplay_modules::cert::spec::CertificateSpec;
use rcgen::{Issuer, KeyPair, PublicKeyData as _, SubjectPublicKeyInfo};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::FromDer as _;

use super::certificate;
use super::store::{self, Folder};
use crate::diagnostic::{Diagnostic, Result};

/// How an authority is made; all of it is only looked at on first use, but the passphrase.
#[derive(Debug, Clone)]
pub struct AuthorityOptions {
    /// Its common name; the folder's name when there is none.
    pub common_name: Option<String>,
    /// Its organization.
    pub organization: Option<String>,
    /// Type of its key.
    pub key_type: KeyType,
    /// Seconds it is valid.
    pub lifetime: u64,
    /// Encrypts and decrypts its key.
    pub passphrase: Option<String>,
}

impl Default for AuthorityOptions {
    /// Ten years, without a passphrase.
    fn default() -> Self {
        Self { common_name: None, organization: None, key_type: super::AUTHORITY_KEY, lifetime: 3650 * 86_400, passphrase: None }
    }
}

/// An authority whose certificate and key have been read and belong together.
pub struct Authority {
    folder: PathBuf,
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    /// The key (PEM) of an authority that has not been written yet.
    unsaved: Mutex<Option<String>>,
}

impl Authority {
    /// Opens the authority in `folder`, or makes a root of its own that is in memory alone until it is saved.
    pub fn open_or_make(folder: &Path, options: &AuthorityOptions) -> Result<Self> {
        if let Some(authority) = Self::open(folder, options.passphrase.as_deref())? {
            return Ok(authority);
        }
        let name = options.common_name.clone().or_else(|| Some(folder.file_name()?.to_string_lossy().into_owned()));
        let key = options.key_type.generate()?;
        let pem = certificate::root(&name.unwrap_or_else(|| "kplay".to_owned()), options.organization.as_deref(), options.lifetime, &key)?;
        let unsaved = key.serialize_pem();
        Ok(Self { unsaved: Mutex::new(Some(unsaved)), ..Self::assemble(folder, pem, key)? })
    }

    /// Writes a new authority: `ca.pem` (mode 0644) and `ca-key.pem` (0600) in a folder of mode 0700. Returns whether there was
    /// something to write. Any number of processes may do so at once; the first one makes the authority, the others fail.
    pub fn save(&self, passphrase: Option<&str>) -> Result<bool> {
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = unsaved.as_ref() else { return Ok(false) };
        let store = Folder::create(&self.folder)?;
        let _lock = store.lock()?;
        if Self::load(&self.folder, passphrase)?.is_some() {
            return Err(Diagnostic::user(format!("another kplay has just made the authority `{}`", self.folder.display()))
                .hint("run it again: this one was planned with an authority of its own"));
        }
        store.write_authority(&self.pem, key, passphrase)?;
        *unsaved = None;
        Ok(true)
    }

    /// Opens the authority in `folder`; `None` when there is neither certificate nor key.
    pub fn open(folder: &Path, passphrase: Option<&str>) -> Result<Option<Self>> {
        match Self::load(folder, passphrase) {
            // It may just be being made.
            Err(_) => {
                store::wait(folder)?;
                Self::load(folder, passphrase)
            }
            loaded => loaded,
        }
    }

    fn load(folder: &Path, passphrase: Option<&str>) -> Result<Option<Self>> {
        let Some((pem, key)) = store::read_authority(folder, passphrase)? else { return Ok(None) };
        let key = read_key(&key).map_err(|error| explain(folder, &error.message, error.hint))?;
        Self::assemble(folder, pem, key).map(Some)
    }

    /// Returns the authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certification request (DER); returns the certificate as PEM. From the request come the public key and the proof
    /// that the other side has the private one, and nothing else.
    ///
    /// # Errors
    /// When the proof fails, the key is not of the type that `spec` asks for, or the authority has expired.
    pub fn sign(&self, spec: &CertificateSpec, request: &[u8]) -> Result<String> {
        let refused =
            |message: &str| Diagnostic::host(format!("the request for the certificate `{}` is refused: {message}", spec.common_name));
        let (rest, parsed) = X509CertificationRequest::from_der(request).map_err(|_| refused("it is not a certification request"))?;
        if !rest.is_empty() {
            return Err(refused("something follows it"));
        }
        parsed.verify_signature().map_err(|_| refused("its signature does not prove that the host has the key"))?;
        let info = parsed.certification_request_info.subject_pki.raw;
        let found = KeyType::of_public_key(info).map_or_else(|| "unknown".to_owned(), |found| found.to_string());
        if found != spec.key_type {
            return Err(refused(&format!("its key is of the type {found}, and {} was asked for", spec.key_type)));
        }
        let key = SubjectPublicKeyInfo::from_der(info).map_err(|error| refused(&format!("its key cannot be read: {error}")))?;
        let present = self.parse()?;
        if present.validity().not_after.timestamp() <= certificate::now() {
            return Err(Diagnostic::user(format!("the authority `{}` has expired", self.folder.display()))
                .hint("move its folder away to have a new one made; every certificate of it is then issued again"));
        }
        let signed = certificate::leaf(spec, &key, &self.issuer)?;
        self.examine(signed.der(), &present)?;
        Ok(signed.pem())
    }

    /// Puts certificate and key together and makes sure that they are an authority's.
    fn assemble(folder: &Path, pem: String, key: KeyPair) -> Result<Self> {
        let wrong = |what: &str, hint: &str| explain(folder, what, Some(hint.to_owned()));
        let block = block(&pem)
            .ok_or_else(|| wrong("its certificate is not one in PEM form", "look at it with `openssl x509 -text -in ca.pem`"))?;
        let parsed =
            block.parse_x509().map_err(|_| wrong("its certificate cannot be read", "look at it with `openssl x509 -text -in ca.pem`"))?;
        if !parsed.is_ca() {
            return Err(wrong(
                "its certificate is not an authority's",
                "an authority's certificate says `CA:TRUE`; see `openssl x509 -text -in ca.pem`",
            ));
        }
        if parsed.key_usage().ok().flatten().is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(wrong(
                "its certificate may not sign certificates",
                "an authority's certificate has the key usage `Certificate Sign`",
            ));
        }
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(wrong(
                "its certificate and its key do not belong together",
                "compare `openssl x509 -pubkey -noout -in ca.pem` with `openssl pkey -pubout -in ca-key.pem`",
            ));
        }
        let der = block.contents.clone();
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), key)
            .map_err(|error| wrong(&format!("its certificate cannot be used: {error}"), "see `openssl x509 -text -in ca.pem`"))?;
        Ok(Self { folder: folder.to_owned(), pem, der, issuer, unsaved: Mutex::new(None) })
    }

    fn parse(&self) -> Result<X509Certificate<'_>> {
        let unreadable = |_| Diagnostic::internal(format!("the certificate of `{}` cannot be read any more", self.folder.display()));
        X509Certificate::from_der(&self.der).map(|(_, parsed)| parsed).map_err(unreadable)
    }

    /// Makes sure that what was signed leads back to the authority. A subject with several values of one kind, for instance,
    /// cannot be written as an issuer by the library.
    fn examine(&self, signed: &[u8], authority: &X509Certificate<'_>) -> Result<()> {
        let (_, signed) = X509Certificate::from_der(signed).map_err(|_| Diagnostic::internal("the signed certificate cannot be read"))?;
        if signed.issuer().as_raw() != authority.subject().as_raw() || signed.verify_signature(Some(authority.public_key())).is_err() {
            return Err(explain(
                &self.folder,
                "certificates cannot be signed by an authority with such a subject",
                Some("a subject has one value of each kind here".to_owned()),
            ));
        }
        Ok(())
    }
}

/// Returns the first certificate of a PEM text.
fn block(text: &str) -> Option<Pem> {
    parse_x509_pem(text.as_bytes()).ok().map(|(_, pem)| pem).filter(|pem| pem.label == "CERTIFICATE")
}

fn explain(path: &Path, what: &str, hint: Option<String>) -> Box<Diagnostic> {
    let error = Diagnostic::user(format!("the authority `{}` cannot be used: {what}", path.display()));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

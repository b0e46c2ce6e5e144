//! Private keys as hosts and authorities hold them: kinds, PEM files, and certification requests that carry the public key alone.

use std::fmt;
use std::str::FromStr;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _, RsaKeySize};
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;

use super::error::ModuleError;

/// Kind and size of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// RSA with that many bits.
    Rsa(u32),
    /// ECDSA on the NIST curve P-256.
    EcdsaP256,
    /// ECDSA on the NIST curve P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
}

impl KeyType {
    /// Returns the type of a public key (DER, SubjectPublicKeyInfo); `None` for kinds that kplay does not make.
    pub fn of_public_key(info: &[u8]) -> Option<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(info).ok()?;
        match info.parsed() {
            Ok(PublicKey::RSA(key)) => u32::try_from(key.key_size()).ok().map(Self::Rsa),
            // A point that is not compressed: one byte, then two coordinates of the curve's size.
            Ok(PublicKey::EC(point)) => match point.data().len() {
                65 => Some(Self::EcdsaP256),
                97 => Some(Self::EcdsaP384),
                _ => None,
            },
            _ => (info.algorithm.algorithm.to_id_string() == "1.3.101.112").then_some(Self::Ed25519),
        }
    }

    /// Makes a new key.
    pub fn generate(self) -> Result<KeyPair, ModuleError> {
        let made = match self {
            Self::Rsa(bits) => {
                let size = match bits {
                    2048 => RsaKeySize::_2048,
                    3072 => RsaKeySize::_3072,
                    4096 => RsaKeySize::_4096,
                    _ => return Err(ModuleError::argument(format!("cannot make a key of the type `{self}`")).at("key_type")),
                };
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
            }
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519).and_then(|key| plain_ed25519(&key)),
        };
        made.map_err(|error| ModuleError::host(format!("cannot make a key of the type `{self}`: {error}")))
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "rsa:{bits}"),
            Self::EcdsaP256 => f.write_str("ecdsa:p256"),
            Self::EcdsaP384 => f.write_str("ecdsa:p384"),
            Self::Ed25519 => f.write_str("ed25519"),
        }
    }
}

impl FromStr for KeyType {
    type Err = ModuleError;

    fn from_str(text: &str) -> Result<Self, ModuleError> {
        match text {
            "rsa" | "rsa:2048" => Ok(Self::Rsa(2048)),
            "rsa:3072" => Ok(Self::Rsa(3072)),
            "rsa:4096" => Ok(Self::Rsa(4096)),
            "ecdsa" | "ecdsa:p256" => Ok(Self::EcdsaP256),
            "ecdsa:p384" => Ok(Self::EcdsaP384),
            "ed25519" => Ok(Self::Ed25519),
            _ => Err(ModuleError::argument(format!("`{text}` is not a type of key that kplay makes"))
                .at("key_type")
                .hint("it makes rsa:2048, rsa:3072, rsa:4096, ecdsa:p256, ecdsa:p384 and ed25519")),
        }
    }
}

/// Reads the first private key of a PEM text: PKCS#8, PKCS#1 or SEC1, without a passphrase.
pub fn read_key(pem: &str) -> Result<KeyPair, ModuleError> {
    let block = private_key_block(pem)?;
    KeyPair::from_pem(block).map_err(|error| ModuleError::host(format!("not a private key that kplay can read: {error}")))
}

/// Returns the public half of a private key (DER, SubjectPublicKeyInfo).
pub fn public_key(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}

/// Returns the type of a private key.
pub fn type_of(key: &KeyPair) -> Option<KeyType> {
    KeyType::of_public_key(&key.subject_public_key_info())
}

/// Makes a certification request that holds a public key and the proof that its private key is there, and nothing else: what
/// the certificate says is for the controller to know. With `key_pem` that key is used, which must be of `key_type`, else a
/// new one is made.
///
/// Returns the key (PEM, as it was given or as PKCS#8) and the request (DER).
///
/// # Errors
/// When the key cannot be read or is of another type.
pub fn make_request(key_pem: Option<&str>, key_type: &str) -> Result<(String, Vec<u8>), ModuleError> {
    let wanted: KeyType = key_type.parse()?;
    let key = match key_pem {
        Some(pem) => read_key(pem)?,
        None => wanted.generate()?,
    };
    let found = type_of(&key);
    if found != Some(wanted) {
        let found = found.map_or_else(|| "unknown".to_owned(), |found| found.to_string());
        return Err(ModuleError::host(format!("the key is of the type {found}, not {wanted}")));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request =
        params.serialize_request(&key).map_err(|error| ModuleError::host(format!("cannot make a certification request: {error}")))?;
    let pem = key_pem.map_or_else(|| key.serialize_pem(), str::to_owned);
    Ok((pem, request.der().to_vec()))
}

/// Returns the same key in the first version of PKCS#8: OpenSSL 3 does not read the second, in which the library makes it.
fn plain_ed25519(key: &KeyPair) -> Result<KeyPair, rcgen::Error> {
    const HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = key.serialized_der();
    // Both versions have the 32 bytes of the secret behind the same four bytes.
    let secret = der.windows(36).find(|window| window.starts_with(&HEAD[12..])).ok_or(rcgen::Error::CouldNotParseKeyPair)?;
    KeyPair::try_from([&HEAD, &secret[4..]].concat())
}

/// Returns the first block that holds a private key: OpenSSL puts a block with the curve's parameters before an EC key.
fn private_key_block(pem: &str) -> Result<&str, ModuleError> {
    const BEGIN: &str = "-----BEGIN ";
    for (start, _) in pem.match_indices(BEGIN) {
        let Some(label) = pem[start + BEGIN.len()..].split_once("-----").map(|(label, _)| label) else { continue };
        if !label.ends_with("PRIVATE KEY") {
            continue;
        }
        let end_line = format!("-----END {label}-----");
        let Some(end) = pem[start..].find(&end_line) else { continue };
        let block = &pem[start..start + end + end_line.len()];
        if label.starts_with("ENCRYPTED") || block.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(ModuleError::host("the private key is encrypted")
                .hint("take the passphrase off with `openssl pkey -in KEY -out KEY`, and protect the file by its mode"));
        }
        return Ok(block);
    }
    Err(ModuleError::host("there is no private key in PEM form in it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::X509CertificationRequest;

    #[test]
    fn every_type_makes_a_request_that_proves_its_key_and_tells_nothing_else() {
        for name in ["rsa:2048", "ecdsa:p256", "ecdsa:p384", "ed25519"] {
            let (pem, der) = make_request(None, name).unwrap();
            assert_eq!(type_of(&read_key(&pem).unwrap()).unwrap().to_string(), name);
            let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
            request.verify_signature().unwrap();
            assert_eq!(request.certification_request_info.subject.iter().count(), 0, "{name}");
            assert!(request.requested_extensions().is_none(), "{name}");
            let (again, other) = make_request(Some(&pem), name).unwrap();
            assert_eq!(again, pem);
            let (_, other) = X509CertificationRequest::from_der(&other).unwrap();
            assert_eq!(other.certification_request_info.subject_pki, request.certification_request_info.subject_pki);
        }
    }

    #[test]
    fn keys_that_do_not_serve_are_refused() {
        let said = |pem: Option<&str>, name: &str| make_request(pem, name).unwrap_err().message;
        assert_eq!(said(None, "dsa"), "`dsa` is not a type of key that kplay makes");
        assert_eq!(said(None, "rsa:1024"), "`rsa:1024` is not a type of key that kplay makes");
        assert_eq!(said(Some(""), "rsa"), "there is no private key in PEM form in it");
        assert_eq!(
            said(Some("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), "rsa"),
            "there is no private key in PEM form in it"
        );
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(said(Some(encrypted), "rsa"), "the private key is encrypted");
        assert!(
            said(Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "rsa")
                .starts_with("not a private key that kplay can read")
        );
        let (pem, _) = make_request(None, "ecdsa:p256").unwrap();
        assert_eq!(said(Some(&pem), "ecdsa:p384"), "the key is of the type ecdsa:p256, not ecdsa:p384");
        let with_parameters = format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}");
        assert!(make_request(Some(&with_parameters), "ecdsa").is_ok());
    }
}

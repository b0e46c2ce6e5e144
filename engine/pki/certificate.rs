//! What stands in the certificates that the controller signs: the fields cfssl writes for the same specification.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use kplay_modules::cert::spec::{BACKDATED, CertificateSpec, San, Usage};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, string::PrintableString,
};
use x509_parser::time::ASN1Time;

use crate::diagnostic::{Diagnostic, Result};

/// Makes a certificate for a host's key.
pub(super) fn leaf(spec: &CertificateSpec, key: &impl PublicKeyData, issuer: &Issuer<'_, KeyPair>) -> Result<Certificate> {
    let mut params = params(spec.lifetime)?;
    params.distinguished_name = subject(spec.subject());
    params.subject_alt_names = spec.sans.iter().map(alternative_name).collect::<Result<_>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    for usage in &spec.usages {
        match purpose(*usage) {
            Purpose::Key(usage) => params.key_usages.push(usage),
            Purpose::Extended(usage) => params.extended_key_usages.push(usage),
        }
    }
    params.signed_by(key, issuer).map_err(|error| Diagnostic::internal(format!("cannot sign a certificate: {error}")))
}

/// Makes a root certificate; returns PEM.
pub(super) fn root(common_name: &str, organization: Option<&str>, lifetime: u64, key: &KeyPair) -> Result<String> {
    let mut params = params(lifetime)?;
    params.distinguished_name = subject(organization.map(|value| ("O", value)).into_iter().chain([("CN", common_name)]).collect());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signed = params.self_signed(key).map_err(|error| Diagnostic::internal(format!("cannot make an authority: {error}")))?;
    Ok(signed.pem())
}

/// Returns the controller's clock, seconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// Returns what all certificates have in common: a random serial number and the time of validity.
fn params(lifetime: u64) -> Result<CertificateParams> {
    let start = now() - BACKDATED;
    let end = i64::try_from(lifetime).ok().and_then(|lifetime| start.checked_add(lifetime));
    let time = |seconds: i64| {
        let time = ASN1Time::from_timestamp(seconds).ok().filter(|_| seconds < LATEST);
        time.map(|time| time.to_datetime()).ok_or_else(|| Diagnostic::user("the lifetime reaches beyond the year 9999"))
    };
    let mut params = CertificateParams::default();
    params.not_before = time(start)?;
    params.not_after = time(end.unwrap_or(i64::MAX))?;
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// The end of the year 9999, seconds since 1970: what a certificate can say.
const LATEST: i64 = 253_402_300_800;

/// Returns 159 random bits, as many as twenty bytes of a positive number hold.
fn serial() -> Result<SerialNumber> {
    let mut bytes = [0; 20];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Diagnostic::internal("the system gives no random numbers"))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn subject(attributes: Vec<(&str, &str)>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (label, text) in attributes {
        let kind = match label {
            "C" => DnType::CountryName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "L" => DnType::LocalityName,
            "ST" => DnType::StateOrProvinceName,
            _ => DnType::CommonName,
        };
        let value = PrintableString::try_from(text).map_or_else(|_| DnValue::Utf8String(text.to_owned()), DnValue::PrintableString);
        name.push(kind, value);
    }
    name
}

fn alternative_name(san: &San) -> Result<SanType> {
    match san {
        San::Ip(IpAddr::V4(address)) => Ok(SanType::IpAddress(IpAddr::V4(*address))),
        San::Ip(IpAddr::V6(address)) => Ok(SanType::IpAddress(IpAddr::V6(*address))),
        San::Dns(name) => name
            .as_str()
            .try_into()
            .map(SanType::DnsName)
            .map_err(|_| Diagnostic::user(format!("`{name}` cannot stand in a certificate as a DNS name"))),
    }
}

enum Purpose {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

fn purpose(usage: Usage) -> Purpose {
    match usage {
        Usage::DigitalSignature => Purpose::Key(KeyUsagePurpose::DigitalSignature),
        Usage::ContentCommitment => Purpose::Key(KeyUsagePurpose::ContentCommitment),
        Usage::KeyEncipherment => Purpose::Key(KeyUsagePurpose::KeyEncipherment),
        Usage::DataEncipherment => Purpose::Key(KeyUsagePurpose::DataEncipherment),
        Usage::KeyAgreement => Purpose::Key(KeyUsagePurpose::KeyAgreement),
        Usage::CertSign => Purpose::Key(KeyUsagePurpose::KeyCertSign),
        Usage::CrlSign => Purpose::Key(KeyUsagePurpose::CrlSign),
        Usage::Any => Purpose::Extended(ExtendedKeyUsagePurpose::Any),
        Usage::ServerAuth => Purpose::Extended(ExtendedKeyUsagePurpose::ServerAuth),
        Usage::ClientAuth => Purpose::Extended(ExtendedKeyUsagePurpose::ClientAuth),
        Usage::CodeSigning => Purpose::Extended(ExtendedKeyUsagePurpose::CodeSigning),
        Usage::EmailProtection => Purpose::Extended(ExtendedKeyUsagePurpose::EmailProtection),
        Usage::TimeStamping => Purpose::Extended(ExtendedKeyUsagePurpose::TimeStamping),
        Usage::OcspSigning => Purpose::Extended(ExtendedKeyUsagePurpose::OcspSigning),
    }
}

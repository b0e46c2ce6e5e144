//! In what a certificate on a host is not what it shall be.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::PublicKeyData as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::{Pem, parse_x509_pem};

use super::Dues;
use super::spec::{BACKDATED, CertificateSpec, San, Usage, timestamp};
use crate::api::ModuleError;
use crate::api::issue::{read_key, type_of};

/// What lies where a file belongs.
pub(super) enum Found<'a> {
    /// Nothing.
    Nothing,
    /// A link, which is replaced.
    Link,
    /// A file's text; empty when it is none.
    Text(&'a str),
}

/// What was found out.
pub(super) struct Findings {
    /// Why the certificate has to be issued, a few words each; empty when it has not.
    pub reasons: Vec<String>,
    /// Whether the key on the host cannot serve.
    pub new_key: bool,
}

/// Compares certificate and key with what they shall be.
///
/// # Errors
/// When the authority's certificate cannot be read, or the certificate is not valid yet: issuing it again would not help.
pub(super) fn compare(dues: &Dues<'_>, certificate: &Found<'_>, key: &Found<'_>) -> Result<Findings, ModuleError> {
    let Dues { authority, spec, renew_before, issued_after, now } = *dues;
    let mut reasons = Vec::new();
    let pem = match certificate {
        Found::Nothing => Err("not there"),
        Found::Link => Err("a link in its place"),
        Found::Text(text) => certificate_block(text).ok_or("not a certificate"),
    };
    let parsed = match &pem {
        Ok(pem) => pem.parse_x509().map_err(|_| "not a certificate"),
        Err(reason) => Err(*reason),
    };
    let mut new_key = false;
    let public_key = match key {
        Found::Nothing | Found::Link => {
            new_key = true;
            // Where nothing is there yet, one reason says it all.
            if !matches!((certificate, key), (Found::Nothing, Found::Nothing)) {
                reasons.push(if matches!(key, Found::Link) { "a link in place of the key" } else { "the key is not there" }.to_owned());
            }
            None
        }
        Found::Text(text) => match read_key(text) {
            Ok(key) => {
                let found = type_of(&key).map_or_else(|| "unknown".to_owned(), |found| found.to_string());
                if found != spec.key_type {
                    new_key = true;
                    reasons.push(format!("key {found} -> {}", spec.key_type));
                }
                Some(key.der_bytes().to_vec())
            }
            Err(_) => {
                new_key = true;
                reasons.push("the key cannot be read".to_owned());
                None
            }
        },
    };
    let certificate = match parsed {
        Ok(certificate) => certificate,
        Err(reason) => {
            reasons.insert(0, reason.to_owned());
            return Ok(Findings { reasons, new_key });
        }
    };
    if public_key.is_some_and(|key| key != *certificate.public_key().subject_public_key.data) && !new_key {
        new_key = true;
        reasons.push("key does not match".to_owned());
    }
    reasons.extend(other_authority(authority, &certificate)?);
    reasons.extend(names(spec, &certificate));
    reasons.extend(usages(spec, &certificate));
    reasons.extend(validity(spec, renew_before, &certificate, now)?);
    if certificate.validity().not_before.timestamp() + BACKDATED < issued_after {
        reasons.push(format!("issued before {}", timestamp(issued_after)));
    }
    Ok(Findings { reasons, new_key })
}

/// Returns the first certificate in a PEM text.
fn certificate_block(text: &str) -> Option<Pem> {
    parse_x509_pem(text.as_bytes()).ok().map(|(_, pem)| pem).filter(|pem| pem.label == "CERTIFICATE")
}

/// Tells whether another authority than the present one has signed.
fn other_authority(authority: Option<&str>, certificate: &X509Certificate<'_>) -> Result<Option<String>, ModuleError> {
    let changed = || Some("the authority changed".to_owned());
    // An authority that is yet to be made has signed nothing.
    let Some(text) = authority else { return Ok(changed()) };
    let wrong = || ModuleError::argument("the authority's certificate cannot be read");
    let pem = certificate_block(text).ok_or_else(wrong)?;
    let authority = pem.parse_x509().map_err(|_| wrong())?;
    let signed =
        certificate.issuer().as_raw() == authority.subject().as_raw() && certificate.verify_signature(Some(authority.public_key())).is_ok();
    Ok(if signed { None } else { changed() })
}

/// Compares subject and alternative names.
fn names(spec: &CertificateSpec, certificate: &X509Certificate<'_>) -> Vec<String> {
    const LABELS: [(&str, &str); 6] =
        [("CN", "2.5.4.3"), ("O", "2.5.4.10"), ("OU", "2.5.4.11"), ("C", "2.5.4.6"), ("ST", "2.5.4.8"), ("L", "2.5.4.7")];
    let present: Vec<(String, String)> = certificate
        .subject()
        .iter_attributes()
        .map(|attribute| (attribute.attr_type().to_id_string(), attribute.as_str().unwrap_or_default().to_owned()))
        .collect();
    let wanted = spec.subject();
    let mut reasons = Vec::new();
    for (label, oid) in LABELS {
        let now: Vec<&str> = present.iter().filter(|(found, _)| found == oid).map(|(_, value)| value.as_str()).collect();
        let after: Vec<&str> = wanted.iter().filter(|(name, _)| *name == label).map(|(_, value)| *value).collect();
        let shown = |values: &[&str]| if values.is_empty() { "(none)".to_owned() } else { values.join("+") };
        if now != after {
            reasons.push(format!("{label} {} -> {}", shown(&now), shown(&after)));
        }
    }
    for (oid, value) in present.iter().filter(|(found, _)| LABELS.iter().all(|(_, oid)| found != oid)) {
        reasons.push(format!("{oid} {value} -> (none)"));
    }

    let wanted: BTreeSet<String> = spec.sans.iter().map(San::to_string).collect();
    let present = alternative_names(certificate);
    reasons.extend(wanted.difference(&present).map(|name| format!("+SAN {name}")));
    reasons.extend(present.difference(&wanted).map(|name| format!("-SAN {name}")));
    reasons
}

fn alternative_names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let shown = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => name.to_ascii_lowercase(),
        GeneralName::IPAddress(bytes) => address(bytes).map_or_else(|| format!("{bytes:02x?}"), |address| address.to_string()),
        GeneralName::RFC822Name(text) | GeneralName::URI(text) => (*text).to_owned(),
        other => other.to_string(),
    };
    extension.value.general_names.iter().map(shown).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))).ok()
}

/// Compares what the certificate may be used for.
fn usages(spec: &CertificateSpec, certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut present = BTreeSet::new();
    let mut unknown = Vec::new();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => present.extend(
                [
                    (usage.digital_signature(), Usage::DigitalSignature),
                    (usage.non_repudiation(), Usage::ContentCommitment),
                    (usage.key_encipherment(), Usage::KeyEncipherment),
                    (usage.data_encipherment(), Usage::DataEncipherment),
                    (usage.key_agreement(), Usage::KeyAgreement),
                    (usage.key_cert_sign(), Usage::CertSign),
                    (usage.crl_sign(), Usage::CrlSign),
                ]
                .into_iter()
                .filter_map(|(set, usage)| set.then_some(usage)),
            ),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                present.extend(
                    [
                        (usage.any, Usage::Any),
                        (usage.server_auth, Usage::ServerAuth),
                        (usage.client_auth, Usage::ClientAuth),
                        (usage.code_signing, Usage::CodeSigning),
                        (usage.email_protection, Usage::EmailProtection),
                        (usage.time_stamping, Usage::TimeStamping),
                        (usage.ocsp_signing, Usage::OcspSigning),
                    ]
                    .into_iter()
                    .filter_map(|(set, usage)| set.then_some(usage)),
                );
                unknown.extend(usage.other.iter().map(|oid| format!("-usage {oid}")));
            }
            _ => {}
        }
    }
    let wanted: BTreeSet<Usage> = spec.usages.iter().copied().collect();
    let mut reasons: Vec<String> = wanted.difference(&present).map(|usage| format!("+usage {usage}")).collect();
    reasons.extend(present.difference(&wanted).map(|usage| format!("-usage {usage}")));
    reasons.extend(unknown);
    if certificate.is_ca() {
        reasons.push("it is an authority's".to_owned());
    }
    reasons
}

/// Compares how long the certificate is valid, and for how much longer.
fn validity(spec: &CertificateSpec, renew_before: u64, certificate: &X509Certificate<'_>, now: i64) -> Result<Vec<String>, ModuleError> {
    let (start, end) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    if start > now {
        return Err(ModuleError::host(format!(
            "the certificate is not valid before {}, and the host's clock says {}",
            timestamp(start),
            timestamp(now)
        ))
        .hint("set the clocks of host and controller right"));
    }
    let mut reasons = Vec::new();
    let lifetime = u64::try_from(end - start).unwrap_or_default();
    if lifetime != spec.lifetime {
        let (now, after) = (span(lifetime), span(spec.lifetime));
        let same = now == after;
        reasons.push(if same { format!("lifetime {lifetime} s -> {} s", spec.lifetime) } else { format!("lifetime {now} -> {after}") });
    }
    let left = end - now;
    if left <= 0 {
        reasons.push(format!("expired {} ago", span(left.unsigned_abs())));
    } else if left.unsigned_abs() <= renew_before {
        reasons.push(format!("expires in {}", span(left.unsigned_abs())));
    }
    Ok(reasons)
}

/// Returns a length of time in the largest unit that it has more than one of.
fn span(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{} d", seconds / 86_400),
        7200.. => format!("{} h", seconds / 3600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

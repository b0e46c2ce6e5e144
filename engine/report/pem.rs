//! Keys and certificates in texts: each is replaced by one line that says which it is. A private key is never shown.

use kplay_modules::api::{Digest, base64};
use x509_parser::pem::parse_x509_pem;

const BEGIN: &str = "-----BEGIN ";
/// How every PEM block begins once it is base64 itself, as in kubeconfig files.
const ENCODED: &str = "LS0tLS1CRUdJTi";

/// Returns the text with each PEM block, plain or base64, replaced by a description in one line.
pub fn described(text: &str) -> String {
    if !text.contains(BEGIN) && !text.contains(ENCODED) {
        return text.to_owned();
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(start);
        let Some((label, length)) = block_end(block) else { break };
        result += before;
        result += &describe(label, &block[..length]);
        rest = &block[length..];
    }
    // A block that never ends may still be a key.
    match rest.find(BEGIN).filter(|start| rest[*start..].contains("PRIVATE KEY")) {
        Some(start) => result = result + &rest[..start] + "<an unfinished private key>\n",
        None => result += rest,
    }
    encoded(&result)
}

/// Returns the label of the block that `text` begins with, and the length up to the end of its last line's dashes.
fn block_end(text: &str) -> Option<(&str, usize)> {
    let label = text.strip_prefix(BEGIN)?.split("-----").next().filter(|label| !label.contains('\n'))?;
    let end = format!("-----END {label}-----");
    Some((label, text.find(&end)? + end.len()))
}

fn describe(label: &str, block: &str) -> String {
    if label.ends_with("PRIVATE KEY") {
        return format!("<{} sha256 {}>", label.to_lowercase(), fingerprint(block));
    }
    if label == "CERTIFICATE"
        && let Some(certificate) = certificate(block)
    {
        return certificate;
    }
    format!("<{} sha256 {}>", label.to_lowercase(), fingerprint(block))
}

/// Describes a certificate by what people compare: name, alternative names, issuer, end, fingerprint.
fn certificate(block: &str) -> Option<String> {
    let (_, pem) = parse_x509_pem(block.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    let names = parsed.subject_alternative_name().ok().flatten().map(|extension| {
        let names: Vec<_> = extension.value.general_names.iter().map(name).collect();
        format!(", SAN {}", names.join(" "))
    });
    let digest = Digest::of(&pem.contents).hex();
    Some(format!(
        "<certificate {}{}, issued by {}, until {}, sha256 {}>",
        parsed.subject(),
        names.unwrap_or_default(),
        parsed.issuer(),
        parsed.validity().not_after,
        &digest[..12]
    ))
}

fn name(name: &x509_parser::extensions::GeneralName<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(address), _) => std::net::Ipv4Addr::from(address).to_string(),
            (_, Ok(address)) => std::net::Ipv6Addr::from(address).to_string(),
            _ => "?".to_owned(),
        },
        other => other.to_string(),
    }
}

/// Replaces base64 of PEM blocks.
fn encoded(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(ENCODED) {
        let (before, block) = rest.split_at(start);
        let is_base64 = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/' | '=');
        let length = block.find(|letter| !is_base64(letter)).unwrap_or(block.len());
        result += before;
        let inner = base64::decode(&block[..length]).and_then(|bytes| String::from_utf8(bytes).ok());
        result += &match inner {
            Some(inner) => format!("base64 of {}", described(&inner).trim_end().replace('\n', ", ")),
            None => format!("<base64 sha256 {}>", fingerprint(&block[..length])),
        };
        rest = &block[length..];
    }
    result + rest
}

fn fingerprint(block: &str) -> String {
    Digest::of(block.trim().as_bytes()).hex()[..12].to_owned()
}

//! What a certificate shall say: the one description that the module compares with and the controller signs by.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::api::ModuleError;

/// Seconds that certificates are valid before they are issued: the hosts' clocks may be behind.
pub const BACKDATED: i64 = 300;

/// Every field of a certificate that is not the key's, the authority's or chance's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSpec {
    /// CN; may be empty when there are `sans`.
    pub common_name: String,
    /// O
    pub organization: Option<String>,
    /// OU
    pub organizational_unit: Option<String>,
    /// C
    pub country: Option<String>,
    /// ST
    pub state: Option<String>,
    /// L
    pub locality: Option<String>,
    /// Names and addresses that the certificate is for, each once.
    pub sans: Vec<San>,
    /// Key usages and extended key usages.
    pub usages: Vec<Usage>,
    /// What the key has to be: `rsa:2048` …
    pub key_type: String,
    /// Seconds from the start of its validity to the end.
    pub lifetime: u64,
}

impl CertificateSpec {
    /// Returns the subject's attributes that are there, by their short names, in the order in which cfssl writes them.
    pub fn subject(&self) -> Vec<(&'static str, &str)> {
        let optional = [
            ("C", &self.country),
            ("ST", &self.state),
            ("L", &self.locality),
            ("O", &self.organization),
            ("OU", &self.organizational_unit),
        ];
        let present = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        present.chain((!self.common_name.is_empty()).then_some(("CN", self.common_name.as_str()))).collect()
    }

    /// Refuses what no certificate can say.
    pub(super) fn validate(&self) -> Result<(), ModuleError> {
        if self.common_name.is_empty() && self.sans.is_empty() {
            return Err(ModuleError::argument("the certificate has neither a common name nor other names").at("common_name"));
        }
        if let Some((name, value)) = self.subject().into_iter().find(|(_, value)| value.chars().any(char::is_control)) {
            return Err(ModuleError::argument(format!("{name} holds a control character: `{}`", value.escape_debug())));
        }
        if self.country.as_ref().is_some_and(|country| country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_alphabetic())) {
            return Err(ModuleError::argument("a country is written with two letters").at("country").hint("for instance \"CN\" or \"DE\""));
        }
        if self.lifetime == 0 || self.lifetime > 100 * 366 * 86_400 {
            return Err(ModuleError::argument("a lifetime is between one second and a hundred years").at("lifetime"));
        }
        if self.usages.iter().any(|usage| matches!(usage, Usage::CertSign | Usage::CrlSign)) {
            return Err(ModuleError::argument("a certificate that signs others is an authority, which `cert` does not issue"));
        }
        Ok(())
    }
}

/// A name that a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum San {
    /// A DNS name, in lower case.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

impl FromStr for San {
    type Err = ModuleError;

    fn from_str(text: &str) -> Result<Self, ModuleError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let wrong = |what: &str| ModuleError::argument(format!("`{text}` is no {what}"));
        if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || text.contains([':', '/']) {
            return Err(wrong("DNS name and no IP address"));
        }
        let label = |label: &str| {
            !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let rest = text.strip_prefix("*.").unwrap_or(text);
        if text.len() > 253 || !rest.split('.').all(label) {
            return Err(wrong("DNS name"));
        }
        Ok(Self::Dns(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

impl Serialize for San {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for San {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Returns each name once, in the order given.
pub(super) fn distinct(sans: Vec<San>) -> Vec<San> {
    let mut seen = BTreeSet::new();
    sans.into_iter().filter(|san| seen.insert(san.clone())).collect()
}

/// What a certificate's key may be used for, in cfssl's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Usage {
    /// Key usage: signatures.
    #[serde(rename = "digital signature", alias = "signing")]
    DigitalSignature,
    /// Key usage: signatures that cannot be denied.
    #[serde(rename = "content commitment", alias = "content committment")]
    ContentCommitment,
    /// Key usage: encrypting keys.
    #[serde(rename = "key encipherment")]
    KeyEncipherment,
    /// Key usage: encrypting data.
    #[serde(rename = "data encipherment")]
    DataEncipherment,
    /// Key usage: agreeing on keys.
    #[serde(rename = "key agreement")]
    KeyAgreement,
    /// Key usage: signing certificates.
    #[serde(rename = "cert sign")]
    CertSign,
    /// Key usage: signing revocation lists.
    #[serde(rename = "crl sign")]
    CrlSign,
    /// Extended: anything.
    #[serde(rename = "any")]
    Any,
    /// Extended: a TLS server.
    #[serde(rename = "server auth")]
    ServerAuth,
    /// Extended: a TLS client.
    #[serde(rename = "client auth")]
    ClientAuth,
    /// Extended: signing programs.
    #[serde(rename = "code signing")]
    CodeSigning,
    /// Extended: mail.
    #[serde(rename = "email protection", alias = "s/mime")]
    EmailProtection,
    /// Extended: time stamps.
    #[serde(rename = "timestamping")]
    TimeStamping,
    /// Extended: answering for certificates.
    #[serde(rename = "ocsp signing")]
    OcspSigning,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Serialize::serialize(self, f)
    }
}

/// Reads a length of time, `8760h`, `365d`, `1h30m`, in seconds. A year has 365 days.
pub fn duration(text: &str) -> Result<u64, ModuleError> {
    let wrong = || {
        ModuleError::argument(format!("`{text}` is not a length of time"))
            .hint("write for instance \"365d\" or \"8760h\"; units are s, m, h, d, w, y")
    };
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes().get(digits) {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            Some(b'w') => 7 * 86_400,
            Some(b'y') => 365 * 86_400,
            _ => return Err(wrong()),
        };
        total = count.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Returns a time as RFC 3339 has it (`2027-11-22T05:46:01Z`).
pub fn timestamp(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March here, so that the leap day is the last of its year; eras are 400 years long.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let (month, date) =
        (if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 }, of_year - (153 * shifted_month + 2) / 5 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_addresses() {
        let cases = [
            ("10.4.7.21", Some("10.4.7.21")),
            ("::1", Some("::1")),
            ("0:0:0:0:0:0:0:1", Some("::1")),
            ("Kubernetes.Default.SVC", Some("kubernetes.default.svc")),
            ("*.example.com", Some("*.example.com")),
            ("node_1", Some("node_1")),
            ("10.4.7.300", None),
            ("10.4.7", None),
            ("192.168.0.0/16", None),
            ("host:6443", None),
            ("a..b", None),
            ("a b", None),
            ("", None),
            ("mail@example.com", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<San>().ok().map(|san| san.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn lengths_of_time() {
        let cases = [
            ("365d", Some(31_536_000)),
            ("8760h", Some(31_536_000)),
            ("8760h0m0s", Some(31_536_000)),
            ("1h30m", Some(5400)),
            ("1y", Some(31_536_000)),
            ("2w", Some(1_209_600)),
            ("0s", Some(0)),
            ("", None),
            ("365", None),
            ("d", None),
            ("-1d", None),
            ("1.5h", None),
            ("99999999999999999999d", None),
            ("18446744073709551615y", None),
            ("3é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn times_are_written_out() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(timestamp(1_827_380_761), "2027-11-28T05:46:01Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59Z");
        assert_eq!(timestamp(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}

//! Reads the JSON files that cfssl reads: certification requests and signing profiles.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::spec::{San, Usage, duration};
use crate::api::ModuleError;

/// What a request file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub common_name: Option<String>,
    pub organization: Option<String>,
    pub organizational_unit: Option<String>,
    pub country: Option<String>,
    pub state: Option<String>,
    pub locality: Option<String>,
    pub sans: Vec<San>,
    pub key_type: Option<String>,
}

/// What a profile says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub usages: Vec<Usage>,
    /// Seconds.
    pub lifetime: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFile {
    #[serde(rename = "CN", default)]
    common_name: String,
    #[serde(default)]
    hosts: Vec<String>,
    key: Option<Key>,
    #[serde(default)]
    names: Vec<Name>,
    /// Says how an authority is made, which this is not.
    #[serde(rename = "ca")]
    _ca: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    algo: String,
    #[serde(default)]
    size: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    #[serde(rename = "C", default)]
    country: String,
    #[serde(rename = "ST", default)]
    state: String,
    #[serde(rename = "L", default)]
    locality: String,
    #[serde(rename = "O", default)]
    organization: String,
    #[serde(rename = "OU", default)]
    organizational_unit: String,
}

#[derive(Deserialize)]
struct ConfigFile {
    signing: Signing,
}

#[derive(Deserialize)]
struct Signing {
    default: Option<ProfileFile>,
    #[serde(default)]
    profiles: std::collections::BTreeMap<String, ProfileFile>,
}

/// The parts of a profile that say what a certificate is; others say how cfssl's server hands it out.
#[derive(Deserialize)]
struct ProfileFile {
    #[serde(default)]
    usages: Vec<String>,
    #[serde(default)]
    expiry: String,
    ca_constraint: Option<CaConstraint>,
}

#[derive(Deserialize)]
struct CaConstraint {
    #[serde(default)]
    is_ca: bool,
}

/// Reads a request file.
pub(super) fn request(text: &str) -> Result<Request, ModuleError> {
    let file: RequestFile = serde_json::from_str(text).map_err(not_json)?;
    let single = |attribute: &str, value: fn(&Name) -> &String| {
        let mut values: Vec<&String> = file.names.iter().map(value).filter(|value| !value.is_empty()).collect();
        values.dedup();
        match values.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            _ => Err(ModuleError::argument(format!("`names` gives more than one {attribute}; a subject has one of each here"))),
        }
    };
    let key_type = match &file.key {
        None => None,
        Some(Key { algo, size: 0 }) => Some(algo.clone()),
        Some(Key { algo, size }) if algo == "ecdsa" => Some(format!("ecdsa:p{size}")),
        Some(Key { algo, .. }) if algo == "ed25519" => Some(algo.clone()),
        Some(Key { algo, size }) => Some(format!("{algo}:{size}")),
    };
    Ok(Request {
        common_name: Some(file.common_name.clone()).filter(|name| !name.is_empty()),
        organization: single("O", |name| &name.organization)?,
        organizational_unit: single("OU", |name| &name.organizational_unit)?,
        country: single("C", |name| &name.country)?,
        state: single("ST", |name| &name.state)?,
        locality: single("L", |name| &name.locality)?,
        sans: file.hosts.iter().filter(|host| !host.is_empty()).map(|host| host.parse()).collect::<Result<_, _>>()?,
        key_type,
    })
}

/// Reads a profile out of a configuration file.
pub(super) fn profile(text: &str, name: &str) -> Result<Profile, ModuleError> {
    let file: ConfigFile = serde_json::from_str(text).map_err(not_json)?;
    let Some(profile) = file.signing.profiles.get(name).or(file.signing.default.as_ref().filter(|_| name == "default")) else {
        let known: Vec<String> = file.signing.profiles.keys().map(|known| format!("`{known}`")).collect();
        let error = ModuleError::argument(format!("there is no profile `{name}`"));
        return Err(if known.is_empty() { error } else { error.hint(format!("there are {}", known.join(", "))) });
    };
    if profile.ca_constraint.as_ref().is_some_and(|constraint| constraint.is_ca) {
        return Err(ModuleError::argument(format!("the profile `{name}` makes authorities, which `cert` does not issue")));
    }
    let mut usages = Vec::new();
    for word in &profile.usages {
        let usage = serde_json::from_value(word.clone().into())
            .map_err(|_| ModuleError::argument(format!("the profile `{name}` has the usage `{word}`, which kplay does not know")))?;
        if !usages.contains(&usage) {
            usages.push(usage);
        }
    }
    if usages.is_empty() {
        return Err(ModuleError::argument(format!("the profile `{name}` has no usages")));
    }
    let fallback = file.signing.default.as_ref().map(|profile| profile.expiry.as_str()).unwrap_or_default();
    let expiry = [profile.expiry.as_str(), fallback].into_iter().find(|expiry| !expiry.is_empty());
    Ok(Profile { usages, lifetime: expiry.map(duration).transpose()? })
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn not_json(error: serde_json::Error) -> ModuleError {
    ModuleError::argument(error.to_string()).hint("cfssl's files are JSON, without comments and without a comma after the last entry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read() {
        let text = r#"{ "CN": "k8s-apiserver", "hosts": ["127.0.0.1", "kubernetes.default", ""],
            "key": { "algo": "rsa", "size": 2048 },
            "names": [{ "C": "CN", "ST": "beijing", "L": "beijing", "O": "organizational", "OU": "organizational units" }] }"#;
        let read = request(text).unwrap();
        assert_eq!(read.common_name.as_deref(), Some("k8s-apiserver"));
        assert_eq!(read.sans, ["127.0.0.1".parse().unwrap(), "kubernetes.default".parse().unwrap()]);
        assert_eq!(
            (read.country.as_deref(), read.state.as_deref(), read.locality.as_deref()),
            (Some("CN"), Some("beijing"), Some("beijing"))
        );
        assert_eq!(
            (read.organization.as_deref(), read.organizational_unit.as_deref()),
            (Some("organizational"), Some("organizational units"))
        );
        assert_eq!(read.key_type.as_deref(), Some("rsa:2048"));
        assert_eq!(request("{}").unwrap(), Request::default());
        let algorithm = |text: &str| request(&format!(r#"{{ "key": {text} }}"#)).unwrap().key_type.unwrap();
        assert_eq!(algorithm(r#"{ "algo": "ecdsa", "size": 384 }"#), "ecdsa:p384");
        assert_eq!(algorithm(r#"{ "algo": "ed25519" }"#), "ed25519");
    }

    #[test]
    fn what_cannot_be_taken_over_is_refused() {
        let said = |text: &str| request(text).unwrap_err().message;
        assert!(said("{ // a comment\n}").contains("line 1 column 3"));
        assert!(said(r#"{ "hots": [] }"#).contains("unknown field `hots`"));
        assert_eq!(said(r#"{ "names": [{ "O": "a" }, { "O": "b" }] }"#), "`names` gives more than one O; a subject has one of each here");
        assert_eq!(said(r#"{ "hosts": ["a@b"] }"#), "`a@b` is no DNS name");
    }

    #[test]
    fn a_profile_is_read() {
        let text = r#"{ "signing": { "default": { "expiry": "8760h" }, "profiles": {
            "peer": { "expiry": "175200h", "usages": ["signing", "digital signature", "key encipherment", "server auth", "client auth"] },
            "short": { "usages": ["client auth"] }, "none": {}, "odd": { "usages": ["flying"] },
            "ca": { "usages": ["cert sign"], "ca_constraint": { "is_ca": true } } } } }"#;
        let peer = profile(text, "peer").unwrap();
        assert_eq!(peer.usages, [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth]);
        assert_eq!(peer.lifetime, Some(175_200 * 3600));
        assert_eq!(profile(text, "short").unwrap(), Profile { usages: vec![Usage::ClientAuth], lifetime: Some(8760 * 3600) });
        let said = |name: &str| profile(text, name).unwrap_err().message;
        assert_eq!(said("none"), "the profile `none` has no usages");
        assert_eq!(said("odd"), "the profile `odd` has the usage `flying`, which kplay does not know");
        assert_eq!(said("ca"), "the profile `ca` makes authorities, which `cert` does not issue");
        let missing = profile(text, "server").unwrap_err();
        assert_eq!(missing.message, "there is no profile `server`");
        assert_eq!(missing.hint.as_deref(), Some("there are `ca`, `none`, `odd`, `peer`, `short`"));
    }
}

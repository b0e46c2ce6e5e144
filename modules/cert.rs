//! Keeps a certificate and its private key on a host, signed by an authority of the controller.
//!
//! ```lua
//! host:cert({
//!   authority = "pki/demo", path = "/etc/ssl/app.pem", key = "/etc/ssl/app-key.pem",
//!   common_name = "app", sans = { "app.example.com", "10.4.7.21" }, usages = "server",
//! })
//! ```
//!
//! The key is made on the host and never leaves it: the host sends a request that holds the public key and the proof that it
//! has the private one; every other field of the certificate comes from this task's arguments. The authority is a folder on the
//! controller (`ca.pem`, `ca-key.pem`) that is made on first use, or holds an authority of yours. With `KPLAY_CA_PASSPHRASE`
//! in the controller's environment, the key of a new authority is encrypted with that passphrase (`ca-key.pem.age`), and one
//! that is encrypted is opened with it.
//!
//! The certificate is issued again exactly when it is not what the arguments say (names are compared as sets), when it
//! is about to expire (`renew_before`), when the authority is another one, or when it does not belong to the key. The reason
//! stands in the forecast in one line: `+SAN 10.4.7.23`, `expires in 12 d`. The key is kept, unless it is missing, of another
//! type, or not the certificate's.
//!
//! `issued_after` renews what is not due yet: a certificate that was issued before that moment is issued again.
//!
//! `csr` takes a JSON file as cfssl reads them as the specification (`CN`, `hosts`, `key`, `names`); arguments given here win.
//! `profiles_file` is a `ca-config.json`, from which `profile` takes usages and lifetime.
//!
//! Certificate and key are replaced together, each atomically. Hand the result to `restart_on` to restart what uses them.
//!
//! Results: `not_after` (`2027-11-22T05:46:01Z`), `days_left`, `serial`, `fingerprint` (SHA-256); null as long as nobody can
//! know, which is in a forecast that would issue the certificate.

mod cfssl;
mod compare;
pub mod spec;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;

use crate::api::change::IssueCertificate;
#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::inspect::wanted_attributes;
use crate::api::issue::KeyType;
use crate::api::module::SignatureRequest;
use crate::api::place;
use crate::api::types::Attributes;
use crate::api::{Change, Controller, Digest, Entry, EntryKind, Inspect, Mode, Module, ModuleError, OneOrMany, Proposal};

use spec::{BACKDATED, CertificateSpec, San, Usage, duration};

/// Largest certificate or key that is read, bytes.
const LIMIT: u64 = 1 << 20;

/// Arguments of `cert`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cert {
    /// Folder of the authority on the controller; a relative one lies below the working directory.
    authority: String,
    /// The certificate on the host.
    path: PathBuf,
    /// Its private key on the host.
    key: PathBuf,
    /// Common name (CN) of the subject.
    #[serde(default)]
    common_name: Option<String>,
    /// Organization (O): the group of a Kubernetes client.
    #[serde(default)]
    organization: Option<String>,
    /// Organizational unit (OU).
    #[serde(default)]
    organizational_unit: Option<String>,
    /// Country (C), two letters.
    #[serde(default)]
    country: Option<String>,
    /// State or province (ST).
    #[serde(default)]
    state: Option<String>,
    /// Locality (L).
    #[serde(default)]
    locality: Option<String>,
    /// DNS names and IP addresses that the certificate is for, in any order.
    #[serde(default)]
    sans: Option<OneOrMany>,
    /// What the certificate is for: `server`, `client` or `both`.
    #[serde(default)]
    usages: Option<Usages>,
    /// Name of a profile in `profiles_file`, instead of `usages`.
    #[serde(default)]
    profile: Option<String>,
    /// A `ca-config.json` as cfssl reads it: absolute, or in the role's `files/` folder or beside the playbook.
    #[serde(default)]
    profiles_file: Option<String>,
    /// A certification request as cfssl reads it (JSON): absolute, or in the role's `files/` folder or beside the playbook.
    #[serde(default)]
    csr: Option<String>,
    /// `rsa:2048` (the default), `rsa:3072`, `rsa:4096`, `ecdsa:p256`, `ecdsa:p384` or `ed25519`.
    #[serde(default)]
    key_type: Option<String>,
    /// How long it is valid, `365d` when nothing says otherwise; in units of s, m, h, d, w, y.
    #[serde(default)]
    lifetime: Option<String>,
    /// How long before its end it is issued again; `30d`, or a third of a shorter lifetime.
    #[serde(default)]
    renew_before: Option<String>,
    /// A moment, in seconds since 1970: a certificate that was issued before it is issued again.
    #[serde(default)]
    issued_after: i64,
    /// Mode of the certificate.
    #[serde(default = "certificate_mode")]
    mode: Option<Mode>,
    /// Mode of the key.
    #[serde(default = "key_mode")]
    key_mode: Option<Mode>,
    /// Owning user of both, by name or number. Default: what the files have, else the user the task runs as.
    #[serde(default)]
    owner: Option<String>,
    /// Owning group of both, by name or number. Default: what the files have, else that of the user the task runs as.
    #[serde(default)]
    group: Option<String>,
    /// Make missing folders above both files, with mode 0755.
    #[serde(default)]
    parents: bool,
    /// What all this comes to.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prepared: Option<Prepared>,
}

/// What `usages` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Usages {
    Server,
    Client,
    Both,
}

/// What the controller found out.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Prepared {
    /// The authority's certificate (PEM); `None` in a forecast that would make the authority.
    authority: Option<String>,
    /// What the certificate shall say.
    spec: CertificateSpec,
    /// Seconds.
    renew_before: u64,
}

impl Module for Cert {
    const NAME: &'static str = "cert";

    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute_file(&self.path, "path")?;
        self.key = place::absolute_file(&self.key, "key")?;
        if self.path == self.key {
            return Err(ModuleError::argument("certificate and key cannot be the same file").at("key"));
        }
        if self.authority.is_empty() {
            return Err(ModuleError::argument("`authority` is empty").at("authority"));
        }
        let spec = self.specification(controller)?;
        let renew_before = self.renewal(&spec)?;
        let folder = controller.destination(&self.authority);
        let authority = controller.authority(&folder).map_err(|error| error.at("authority"))?;
        let specification = serde_json::to_value(&spec).map_err(|error| ModuleError::argument(error.to_string()))?;
        controller.expect_signature(SignatureRequest { authority: folder, specification });
        self.prepared = Some(Prepared { authority, spec, renew_before });
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let prepared = self.prepared.as_ref().ok_or_else(|| ModuleError::argument("the specification was not read"))?;
        let mut changes = place::missing_parents(host, &self.path, self.parents, "path")?;
        for change in place::missing_parents(host, &self.key, self.parents, "key")? {
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
        let certificate = Pem::look(host, &self.path, "path")?;
        let key = Pem::look(host, &self.key, "key")?;
        let (certificate_after, key_after) = self.attributes(host, &certificate, &key)?;

        let (authority, now) = (prepared.authority.as_deref(), host.now());
        if self.issued_after > now + BACKDATED {
            return Err(ModuleError::host(format!(
                "`issued_after` is {}, which the host's clock, at {}, has not reached: the certificate would be issued each time",
                spec::timestamp(self.issued_after),
                spec::timestamp(now)
            ))
            .at("issued_after")
            .hint("name a moment that has passed, in seconds since 1970"));
        }
        let dues = Dues { authority, spec: &prepared.spec, renew_before: prepared.renew_before, issued_after: self.issued_after, now };
        let findings = compare::compare(&dues, &certificate.state(), &key.state()).map_err(|error| error.at("path"))?;
        let known = certificate.text().filter(|_| findings.reasons.is_empty());
        if !findings.reasons.is_empty() {
            changes.push(Change::IssueCertificate(IssueCertificate {
                certificate: self.path.clone(),
                key: self.key.clone(),
                key_type: prepared.spec.key_type.clone(),
                new_key: findings.new_key,
                common_name: prepared.spec.common_name.clone(),
                reason: findings.reasons.join(", "),
                certificate_attributes: certificate_after,
                key_attributes: key_after.clone(),
                certificate_before: certificate.entry.clone(),
                key_before: key.entry.clone(),
            }));
            if let (Some(entry), false) = (key.file(), findings.new_key) {
                changes.extend(place::attributes_change(&self.key, &entry.attributes, key_after));
            }
        } else if let (Some(certificate), Some(key)) = (certificate.file(), key.file()) {
            changes.extend(place::attributes_change(&self.path, &certificate.attributes, certificate_after));
            changes.extend(place::attributes_change(&self.key, &key.attributes, key_after));
        }
        Ok(described(Proposal::new(changes), known, now))
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone(), self.key.clone()]
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        tests::examples()
    }
}

impl Cert {
    /// Puts together what the arguments, the request file and the profile say, in this order of rank.
    fn specification(&self, controller: &dyn Controller) -> Result<CertificateSpec, ModuleError> {
        let file = match &self.csr {
            Some(name) => cfssl::request(&read_text(controller, name, "csr")?).map_err(|error| in_file(error, name, "csr"))?,
            None => cfssl::Request::default(),
        };
        let profile = self.profile(controller)?;
        let sans = match &self.sans {
            Some(given) => given.0.iter().map(|san| san.parse()).collect::<Result<Vec<San>, _>>().map_err(|error| error.at("sans"))?,
            None => file.sans,
        };
        let argument = |given: &Option<String>, name: &str, file: Option<String>| match given {
            Some(text) if text.trim().is_empty() => Err(ModuleError::argument(format!("`{name}` is empty")).at(name).hint("leave it out")),
            Some(text) => Ok(Some(text.clone())),
            None => Ok(file),
        };
        let key_type = argument(&self.key_type, "key_type", file.key_type)?.unwrap_or_else(|| "rsa:2048".to_owned());
        let key_type: KeyType = key_type.parse()?;
        let lifetime = match (&self.lifetime, profile.lifetime) {
            (Some(given), _) => duration(given).map_err(|error| error.at("lifetime"))?,
            (None, Some(seconds)) => seconds,
            (None, None) => 365 * 86_400,
        };
        let spec = CertificateSpec {
            common_name: argument(&self.common_name, "common_name", file.common_name)?.unwrap_or_default(),
            organization: argument(&self.organization, "organization", file.organization)?,
            organizational_unit: argument(&self.organizational_unit, "organizational_unit", file.organizational_unit)?,
            country: argument(&self.country, "country", file.country)?,
            state: argument(&self.state, "state", file.state)?,
            locality: argument(&self.locality, "locality", file.locality)?,
            sans: spec::distinct(sans),
            usages: profile.usages,
            key_type: key_type.to_string(),
            lifetime,
        };
        spec.validate()?;
        Ok(spec)
    }

    fn profile(&self, controller: &dyn Controller) -> Result<cfssl::Profile, ModuleError> {
        match (&self.usages, &self.profile, &self.profiles_file) {
            (Some(_), Some(_), _) => Err(ModuleError::argument("`usages` and `profile` exclude each other").at("profile")),
            (Some(usages), None, None) => Ok(cfssl::Profile { usages: usages.list(), lifetime: None }),
            (None, Some(profile), Some(name)) => {
                let text = read_text(controller, name, "profiles_file")?;
                cfssl::profile(&text, profile).map_err(|error| in_file(error, name, "profile"))
            }
            (None, Some(_), None) => {
                Err(ModuleError::argument("`profile` names a profile of `profiles_file`, which is not given").at("profile"))
            }
            (_, None, Some(_)) => Err(ModuleError::argument("`profiles_file` is given, but no `profile` of it").at("profiles_file")),
            (None, None, None) => Err(ModuleError::argument("it is not said what the certificate is for")
                .hint("add `usages = \"server\"`, \"client\" or \"both\", or a `profile`")),
        }
    }

    /// Returns how long before its end the certificate is issued again, seconds.
    fn renewal(&self, spec: &CertificateSpec) -> Result<u64, ModuleError> {
        let seconds = match &self.renew_before {
            Some(given) => duration(given).map_err(|error| error.at("renew_before"))?,
            None => (30 * 86_400).min(spec.lifetime / 3),
        };
        if self.renew_before.is_some() && seconds >= spec.lifetime {
            return Err(ModuleError::argument(
                "`renew_before` is not shorter than the lifetime: the certificate would be issued each time",
            )
            .at("renew_before"));
        }
        // It begins a while before it is issued.
        let used = BACKDATED.unsigned_abs();
        if spec.lifetime <= seconds + used {
            return Err(ModuleError::argument(format!(
                "a certificate for {} s would be due at once: it begins {used} s before it is issued, and is issued again {seconds} s before its end",
                spec.lifetime
            ))
            .at("lifetime")
            .hint("make `lifetime` longer, or `renew_before` shorter"));
        }
        Ok(seconds)
    }

    /// Returns the attributes that certificate and key shall have.
    fn attributes(&self, host: &dyn Inspect, certificate: &Pem, key: &Pem) -> Result<(Attributes, Attributes), ModuleError> {
        let wanted = |now: Option<&Entry>, mode: &Option<Mode>, default| {
            wanted_attributes(host, now.map(|entry| &entry.attributes), (mode, &self.owner, &self.group), default, false)
        };
        Ok((wanted(certificate.file(), &self.mode, 0o644)?, wanted(key.file(), &self.key_mode, 0o600)?))
    }
}

impl Usages {
    /// Returns what cfssl's profiles of the same names give.
    fn list(self) -> Vec<Usage> {
        let mut usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment];
        usages.extend(matches!(self, Self::Server | Self::Both).then_some(Usage::ServerAuth));
        usages.extend(matches!(self, Self::Client | Self::Both).then_some(Usage::ClientAuth));
        usages
    }
}

/// What a certificate is compared with.
pub struct Dues<'a> {
    /// The authority's certificate (PEM); `None` when it is yet to be made.
    pub authority: Option<&'a str>,
    /// What the certificate shall say.
    pub spec: &'a CertificateSpec,
    /// How long before its end it is issued again, seconds.
    pub renew_before: u64,
    /// It is issued again when it was issued before this moment, seconds since 1970.
    pub issued_after: i64,
    /// The present, seconds since 1970.
    pub now: i64,
}

/// Returns why a certificate (PEM) has to be issued again for a key (PEM); nothing when it has not.
pub fn outdated(dues: &Dues<'_>, certificate: Option<&str>, key: Option<&str>) -> Result<Vec<String>, ModuleError> {
    fn found(text: Option<&str>) -> compare::Found<'_> {
        text.map_or(compare::Found::Nothing, compare::Found::Text)
    }
    Ok(compare::compare(dues, &found(certificate), &found(key))?.reasons)
}

/// What lies where a certificate or key belongs.
struct Pem {
    entry: Option<Entry>,
    content: Option<Vec<u8>>,
}

impl Pem {
    fn look(host: &dyn Inspect, path: &Path, argument: &str) -> Result<Self, ModuleError> {
        let entry = host.entry(path)?;
        let content = match entry.as_ref().map(|entry| &entry.kind) {
            Some(EntryKind::File) => Some(host.read(path, LIMIT)?),
            Some(EntryKind::Directory | EntryKind::Other) => return Err(place::in_the_way(path, entry.as_ref(), argument)),
            Some(EntryKind::Symlink(_)) | None => None,
        };
        Ok(Self { entry, content })
    }

    /// Returns the file's entry; a link is no file, and is replaced.
    fn file(&self) -> Option<&Entry> {
        self.entry.as_ref().filter(|_| self.content.is_some())
    }

    fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.content.as_ref()?).ok()
    }

    fn state(&self) -> compare::Found<'_> {
        match (&self.entry, &self.content) {
            (None, _) => compare::Found::Nothing,
            (Some(_), None) => compare::Found::Link,
            (Some(_), Some(_)) => compare::Found::Text(self.text().unwrap_or_default()),
        }
    }
}

/// Adds what a playbook may read of the certificate.
fn described(proposal: Proposal, certificate: Option<&str>, now: i64) -> Proposal {
    let pem = certificate.and_then(|text| parse_x509_pem(text.as_bytes()).ok());
    let parsed: Option<(X509Certificate<'_>, Digest)> =
        pem.as_ref().and_then(|(_, pem)| Some((pem.parse_x509().ok()?, Digest::of(&pem.contents))));
    let Some((certificate, digest)) = parsed else {
        return ["not_after", "days_left", "serial", "fingerprint"]
            .iter()
            .fold(proposal, |proposal, field| proposal.with(field, Value::Null));
    };
    let end = certificate.validity().not_after.timestamp();
    let serial: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    proposal
        .with("not_after", spec::timestamp(end))
        .with("days_left", (end - now).div_euclid(86_400))
        .with("serial", serial)
        .with("fingerprint", digest.hex())
}

fn read_text(controller: &dyn Controller, name: &str, argument: &str) -> Result<String, ModuleError> {
    let path = controller.find(name, "files").map_err(|error| error.at(argument))?;
    String::from_utf8(controller.read(&path)?).map_err(|_| ModuleError::argument(format!("`{}` is not UTF-8", path.display())).at(argument))
}

fn in_file(mut error: ModuleError, name: &str, argument: &str) -> ModuleError {
    error.message = format!("`{name}`: {}", error.message);
    error.at(argument)
}

fn certificate_mode() -> Option<Mode> {
    Mode::parse("0644").ok()
}

fn key_mode() -> Option<Mode> {
    Mode::parse("0600").ok()
}

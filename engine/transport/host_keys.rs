//! Host keys: reads known_hosts files as OpenSSH does, judges a host's key by them, and writes down new ones.
#![expect(clippy::disallowed_methods, reason = "known host keys are a file")]

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use rustix::fs::{FlockOperation, flock};
use ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use ssh_key::{HashAlg, PublicKey};

use super::HostKeyPolicy;
use crate::diagnostic::{Diagnostic, Place, Result};

/// The lines of some known_hosts files that may speak of one host.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
    /// Lines that could not be read, in words.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
struct Line {
    file: PathBuf,
    number: u32,
    marker: Option<Marker>,
    hosts: HostPatterns,
    key: PublicKey,
}

/// What is known about a key of a host.
#[derive(Debug)]
enum Verdict<'a> {
    /// It is the host's.
    Known,
    /// Nothing is known of the host.
    Unknown,
    /// The host is known by another key.
    Changed(&'a Line),
    /// The key is marked as revoked.
    Revoked(&'a Line),
}

impl KnownHosts {
    /// Reads what `files` may say of the host called `name`, leaving out those that are not there and lines that make no sense.
    pub fn read(files: &[PathBuf], name: &str) -> Self {
        let mut known = Self::default();
        for file in files {
            match std::fs::read(file) {
                Ok(bytes) => known.parse(file, &String::from_utf8_lossy(&bytes), name),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => known.warnings.push(format!("cannot read `{}`: {error}", file.display())),
            }
        }
        known
    }

    fn parse(&mut self, file: &Path, text: &str, name: &str) {
        for (number, line) in (1..).zip(text.lines()) {
            if !may_concern(line, name) {
                continue;
            }
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some(first) = fields.first().filter(|first| !first.starts_with('#')) else { continue };
            // Comments are cut off: they may hold what the parser takes for something else.
            let wanted = if first.starts_with('@') { 4 } else { 3 };
            let entry = fields.get(..wanted).and_then(|fields| fields.join(" ").parse::<Entry>().ok());
            let Some(entry) = entry else {
                self.warnings.push(format!("{}:{number}: not a line of known_hosts that kplay understands; left out", file.display()));
                continue;
            };
            let (marker, hosts, key) = (entry.marker().cloned(), entry.host_patterns().clone(), entry.public_key().clone());
            self.lines.push(Line { file: file.to_owned(), number, marker, hosts, key });
        }
    }

    /// Returns the key types (`ssh-ed25519`) by which `name` is known, in the order of the lines.
    pub fn types_of(&self, name: &str) -> Vec<String> {
        let mut types = Vec::new();
        for line in self.lines.iter().filter(|line| line.marker.is_none() && line.matches(name)) {
            let kind = line.key.algorithm().as_str().to_owned();
            if !types.contains(&kind) {
                types.push(kind);
            }
        }
        types
    }

    /// Judges `key` of the host called `name`.
    fn judge(&self, name: &str, key: &PublicKey) -> Verdict<'_> {
        let same = |line: &&Line| line.key.key_data() == key.key_data();
        let of_host = || self.lines.iter().filter(|line| line.matches(name));
        if let Some(line) = of_host().filter(|line| line.marker == Some(Marker::Revoked)).find(same) {
            return Verdict::Revoked(line);
        }
        // A line of a certificate authority says nothing about a plain key.
        let mut plain = of_host().filter(|line| line.marker.is_none());
        if plain.clone().any(|line| same(&line)) {
            return Verdict::Known;
        }
        // A host that is known by keys of other types only has not become unknown by that: whoever wants to be taken for it
        // would just offer another type. A line of the same type is the better one to show.
        let of_type = plain.clone().find(|line| line.key.algorithm() == key.algorithm());
        of_type.or_else(|| plain.next()).map_or(Verdict::Unknown, Verdict::Changed)
    }

    /// Returns whether a certificate authority is trusted for `name`, which is no help without host certificates.
    fn has_authority(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.marker == Some(Marker::CertAuthority) && line.matches(name))
    }
}

/// Returns whether a line may speak of the host called `name`, or of nobody knows whom. With a thousand hosts in the file, and so many connections
/// that read it, keys are not decoded to find out.
fn may_concern(line: &str, name: &str) -> bool {
    let line = line.trim_start();
    let hosts = match line.strip_prefix('@') {
        Some(marked) => marked.split_ascii_whitespace().nth(1),
        None => line.split_ascii_whitespace().next(),
    };
    let incomplete = line.split_ascii_whitespace().nth(2).is_none();
    hosts.is_none_or(|hosts| {
        incomplete
            || hosts.starts_with('|')
            || hosts.contains(['*', '?', '!'])
            || hosts.split(',').any(|host| host.eq_ignore_ascii_case(name))
    })
}

impl Line {
    fn matches(&self, name: &str) -> bool {
        match &self.hosts {
            HostPatterns::HashedName { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::sign(&key, name.as_bytes()).as_ref() == hash
            }
            HostPatterns::Patterns(patterns) => {
                let hit = |pattern: &str| matches_glob(&pattern.to_ascii_lowercase(), name);
                let (negated, plain): (Vec<&String>, Vec<&String>) = patterns.iter().partition(|pattern| pattern.starts_with('!'));
                plain.iter().any(|pattern| hit(pattern)) && !negated.iter().any(|pattern| hit(&pattern[1..]))
            }
        }
    }

    fn place(&self) -> Place {
        Place::line(&self.file, self.number)
    }
}

/// Returns the name that known_hosts files give a host: with its port, unless that is 22.
pub(super) fn known_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// Returns `SHA256:…`, as ssh and ssh-keygen print it.
fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A host's key as it was shown, and what known_hosts files say about it.
#[derive(Debug)]
pub struct SeenKey {
    /// The host, as known_hosts files name it.
    pub name: String,
    /// Type and SHA-256 fingerprint, as ssh prints them.
    pub shown: String,
    /// The file that a new key is written to.
    pub file: PathBuf,
    /// Whether it was known already.
    pub known: bool,
    key: PublicKey,
    hashed: bool,
}

impl SeenKey {
    /// Judges a key. Fails when another one is known for the host, or this one is revoked.
    pub(super) fn judge(known: &KnownHosts, name: &str, key: &[u8], file: &Path, hashed: bool) -> Result<Self> {
        let key = parse_key(name, key)?;
        let is_known = match known.judge(name, &key) {
            Verdict::Known => true,
            Verdict::Unknown => false,
            Verdict::Changed(line) => return Err(changed(name, line, &key)),
            Verdict::Revoked(line) => return Err(revoked(name, line, &key)),
        };
        Ok(Self { name: name.to_owned(), shown: shown(&key), file: file.to_owned(), known: is_known, key, hashed })
    }

    /// Writes the key down, unless it is known.
    pub fn remember(&self) -> Result<()> {
        if self.known { Ok(()) } else { append(&self.file, &self.name, &self.key, self.hashed) }
    }
}

/// Accepts or refuses the key (as it came over the wire) of the host called `name`. A new one is written to `file` where
/// the policy says so, its name hashed when `hashed`.
pub(super) fn check(known: &KnownHosts, name: &str, key: &[u8], policy: HostKeyPolicy, file: &Path, hashed: bool) -> Result<()> {
    if policy == HostKeyPolicy::Off {
        return Ok(());
    }
    let key = parse_key(name, key)?;
    match known.judge(name, &key) {
        Verdict::Known => Ok(()),
        Verdict::Revoked(line) => Err(revoked(name, line, &key)),
        Verdict::Changed(line) => Err(changed(name, line, &key)),
        Verdict::Unknown if policy == HostKeyPolicy::AcceptNew => append(file, name, &key, hashed),
        Verdict::Unknown => {
            let mut error = Diagnostic::unreachable(format!("the host key of `{name}` is not known"))
                .details([format!("the host shows {}", shown(&key))]);
            if known.has_authority(name) {
                error = error.hint("a `@cert-authority` vouches for it, but only `connection: openssh` reads host certificates");
            }
            error = error.details(known.warnings.iter().cloned());
            Err(error
                .hint(format!("compare it with `ssh-keygen -lf /etc/ssh/ssh_host_{}_key.pub` on the host", type_in_file_name(&key)))
                .hint("then take it in with `kplay host-keys scan`, or set `host_keys: accept-new` in the inventory"))
        }
    }
}

fn parse_key(name: &str, key: &[u8]) -> Result<PublicKey> {
    PublicKey::from_bytes(key).map_err(|error| Diagnostic::unreachable(format!("the host key of `{name}` cannot be read: {error}")))
}

/// Returns type and fingerprint of a key.
fn shown(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), fingerprint(key))
}

fn revoked(name: &str, line: &Line, key: &PublicKey) -> Box<Diagnostic> {
    Diagnostic::unreachable(format!("the host key of `{name}` has been revoked"))
        .at(line.place())
        .details([format!("the host shows {}", shown(key))])
        .hint("do not connect: give the host a new key, or find out who answers in its place")
}

fn changed(name: &str, line: &Line, key: &PublicKey) -> Box<Diagnostic> {
    let mut error = Diagnostic::unreachable(format!("the host key of `{name}` is not the one that is known"))
        .at(line.place())
        .details([format!("known: {}", shown(&line.key)), format!("shown: {}", shown(key))]);
    if line.key.algorithm() != key.algorithm() {
        error = error.hint("the host no longer has a key of the known type");
    }
    error
        .hint("somebody may be listening in, or the host was installed anew; ask it for its fingerprint another way")
        .hint(format!("if the new key is right: `ssh-keygen -f {} -R '{name}'`, then `kplay host-keys scan`", line.file.display()))
}

/// The part of `/etc/ssh/ssh_host_*_key` for a key.
fn type_in_file_name(key: &PublicKey) -> &'static str {
    match key.key_data() {
        ssh_key::public::KeyData::Ed25519(_) => "ed25519",
        ssh_key::public::KeyData::Ecdsa(_) => "ecdsa",
        _ => "rsa",
    }
}

/// Writes a key down, unless another connection has done so meanwhile; the file is locked for that long.
fn append(file: &Path, name: &str, key: &PublicKey, hashed: bool) -> Result<()> {
    let failed =
        |error: std::io::Error| Diagnostic::user(format!("cannot write the host key of `{name}` to `{}`: {error}", file.display()));
    if let Some(folder) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file).map_err(failed)?;
    flock(&opened, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let mut bytes = Vec::new();
    opened.seek(SeekFrom::Start(0)).and_then(|_| opened.read_to_end(&mut bytes)).map_err(failed)?;
    let mut known = KnownHosts::default();
    known.parse(file, &String::from_utf8_lossy(&bytes), name);
    match known.judge(name, key) {
        Verdict::Unknown => {}
        Verdict::Known => return Ok(()),
        Verdict::Changed(line) | Verdict::Revoked(line) => {
            return Err(Diagnostic::unreachable(format!("two different host keys were shown for `{name}`")).at(line.place()));
        }
    }
    let written = if hashed { hash_name(name)? } else { name.to_owned() };
    let mut plain = key.clone();
    plain.set_comment("");
    let key = plain.to_openssh().map_err(|error| Diagnostic::internal(format!("cannot write a host key: {error}")))?;
    let newline = if bytes.last().is_none_or(|byte| *byte == b'\n') { "" } else { "\n" };
    // One write, so that a reader never sees half a line.
    opened.write_all(format!("{newline}{written} {}\n", key.trim_end()).as_bytes()).map_err(failed)
}

/// Returns `|1|SALT|HASH`, which hides which hosts somebody connects to.
fn hash_name(name: &str) -> Result<String> {
    let mut salt = vec![0; 20];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Diagnostic::internal("the system gives no random numbers"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    let hash = hmac::sign(&key, name.as_bytes()).as_ref().try_into().map_err(|_| Diagnostic::internal("SHA-1 has another length"))?;
    Ok(HostPatterns::HashedName { salt, hash }.to_string())
}

/// Returns whether `text` matches a pattern with `*` and `?`. Takes time in proportion to the product of their lengths.
pub(super) fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where to go on when the text after the last star turns out to be the wrong one.
    let mut retry: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at, seen));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                at = star + 1;
                seen = from + 1;
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests;

//! Which algorithms kplay offers, and, when a host has none of them, which ones it offers itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ssh2::{MethodType, Session};

use super::ssh_config::Settings;

/// Key exchanges, the cheapest first.
const KEY_EXCHANGES: &[&str] = &[
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
];
/// Types of host keys. None with `-cert-`: libssh2 would take one without looking at who signed it.
const HOST_KEYS: &[&str] =
    &["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256"];
/// Ciphers, the fastest first.
const CIPHERS: &[&str] =
    &["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr"];

/// Tells libssh2 what to offer: our lists without what ssh_config does not allow, and host keys of the types that are
/// `known` for the host first, so that a host with several keys shows the one we know.
pub(super) fn prefer(session: &Session, settings: &Settings, known: &[String]) -> Result<(), ssh2::Error> {
    let allowed = |ours: &[&'static str], theirs: &[String]| -> Vec<&'static str> {
        let both: Vec<&str> = ours.iter().copied().filter(|name| theirs.iter().any(|other| other == name)).collect();
        if both.is_empty() { ours.to_vec() } else { both }
    };
    let mut host_keys = allowed(HOST_KEYS, &settings.host_key_algorithms);
    host_keys.sort_by_key(|name| !known.iter().any(|kind| kind == key_type(name)));
    let ciphers = allowed(CIPHERS, &settings.ciphers).join(",");
    session.method_pref(MethodType::Kex, &allowed(KEY_EXCHANGES, &settings.key_exchanges).join(","))?;
    session.method_pref(MethodType::HostKey, &host_keys.join(","))?;
    session.method_pref(MethodType::CryptCs, &ciphers)?;
    session.method_pref(MethodType::CryptSc, &ciphers)
}

/// Returns the key type that a signature algorithm belongs to.
fn key_type(algorithm: &str) -> &str {
    if algorithm.starts_with("rsa-sha2-") { "ssh-rsa" } else { algorithm }
}

/// Returns lines that say for which purpose host and kplay have no algorithm in common; the host is asked on a new
/// connection, since libssh2 does not tell what it heard.
pub(super) fn compare(stream: &TcpStream, timeout: Duration) -> Vec<String> {
    let Some(lists) = ask(stream, Instant::now() + timeout) else { return Vec::new() };
    let ours = [("key exchange", KEY_EXCHANGES), ("host key", HOST_KEYS), ("cipher", CIPHERS)];
    let mut lines = Vec::new();
    for ((purpose, ours), theirs) in ours.into_iter().zip(&lists) {
        if !theirs.iter().any(|name| ours.contains(&name.as_str())) {
            lines.push(format!("no {purpose} in common: the host offers {}", theirs.join(", ")));
            lines.push(format!("kplay offers {}", ours.join(", ")));
        }
    }
    lines
}

/// Reads the host's version and its first packet: the lists for key exchange, host keys and ciphers.
fn ask(mut stream: &TcpStream, deadline: Instant) -> Option<[Vec<String>; 3]> {
    stream.set_read_timeout(Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))).ok()?;
    stream.write_all(b"SSH-2.0-kplay\r\n").ok()?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(lists) = parse(&seen) {
            return Some(lists);
        }
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0 && seen.len() < 64 << 10)?;
        seen.extend_from_slice(&buffer[..count]);
    }
}

/// Finds the lists in what a host says first. Fails, too, while that is not complete.
fn parse(bytes: &[u8]) -> Option<[Vec<String>; 3]> {
    let version = bytes.windows(4).position(|window| window == b"SSH-")?;
    let end = version + bytes[version..].iter().position(|byte| *byte == b'\n')? + 1;
    // Packet length (4), padding length (1), message number (1), cookie (16), then the lists.
    let mut rest = bytes.get(end + 22..)?;
    let mut list = || -> Option<Vec<String>> {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let text = after.get(..u32::from_be_bytes(*length) as usize)?;
        rest = &after[text.len()..];
        Some(String::from_utf8_lossy(text).split(',').map(str::to_owned).collect())
    };
    Some([list()?, list()?, list()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_behind_a_banner() {
        let mut bytes = b"Authorized use only\r\nSSH-2.0-Old_1.0\r\n".to_vec();
        bytes.extend([0; 22]);
        for list in ["diffie-hellman-group1-sha1", "ssh-rsa,ssh-dss", "3des-cbc"] {
            assert_eq!(parse(&bytes), None);
            bytes.extend((list.len() as u32).to_be_bytes());
            bytes.extend(list.as_bytes());
        }
        let [kex, keys, ciphers] = parse(&bytes).unwrap();
        assert_eq!((kex.len(), keys.len(), ciphers[0].as_str()), (1, 2, "3des-cbc"));
    }

    #[test]
    fn libssh2_knows_all_that_we_offer() {
        let session = Session::new().unwrap();
        for (method, names) in [(MethodType::Kex, KEY_EXCHANGES), (MethodType::HostKey, HOST_KEYS), (MethodType::CryptCs, CIPHERS)] {
            let known = session.supported_algs(method).unwrap();
            for name in names {
                assert!(known.contains(name), "{name} is not in {known:?}");
            }
        }
    }
}

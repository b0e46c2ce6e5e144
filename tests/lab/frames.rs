//! What crosses the wire, written down at its far end: of all private keys, only the pair that is meant to be shared.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::DeflateDecoder;
use kplay_modules::agent::wire::{self, FRAME, ToAgent, ToController};
use memchr::memmem;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::shared::sshd::executable;
use crate::support::{KPLAY, Lab, build_agent, run};

/// Where a host keeps what its agents have heard and said.
const RECORDS: &str = "/srv/recorded";
/// An agent that writes down both directions: this script, and behind it the agent itself.
const RECORDER: &str = "#!/bin/sh
records=RECORDS
if [ ! -x $records/agent ]; then
  mkdir -p -m 0700 $records
  tail -c SIZE \"$0\" > $records/agent.$$ && chmod 0700 $records/agent.$$ && mv $records/agent.$$ $records/agent
fi
tee $records/$$.heard | $records/agent \"$@\" | tee $records/$$.said
exit
";
/// Digits of base64 in a row, from which on they are worth decoding: an Ed25519 key has 43.
const WORTH_DECODING: usize = 40;
const MASTERS: [&str; 2] = ["hdss7-21", "hdss7-22"];
const HOSTS: [&str; 3] = ["hdss7-12", "hdss7-21", "hdss7-22"];

/// Makes a folder with an agent that records.
pub fn recording_agents(base: &Path) -> PathBuf {
    build_agent();
    let folder = base.join("recording-agents");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("kplay-agent-x86_64-unknown-linux-musl");
    let built = Path::new(KPLAY).ancestors().nth(2).unwrap().join("x86_64-unknown-linux-musl/debug/kplay-agent");
    run(Command::new("strip").arg("-o").arg(&program).arg(built));
    let agent = fs::read(&program).unwrap();
    let script = RECORDER.replace("RECORDS", RECORDS).replace("SIZE", &agent.len().to_string());
    fs::write(&program, [script.as_bytes(), &agent].concat()).unwrap();
    executable(&program);
    // What this machine does for itself crosses no wire, and is not to leave records on it.
    let own = folder.join("kplay-agent");
    fs::write(&own, &agent).unwrap();
    executable(&own);
    folder
}

/// Searches all that has crossed the wire for the private keys of all hosts and of the authority. That the search finds what is
/// there is shown by what had to cross: certificates, and the key pair of the service accounts.
pub fn private_keys_stay_where_they_were_made(lab: &Lab) {
    let mut crossed = Crossed::default();
    HOSTS.iter().for_each(|host| crossed.add_host(lab, host));
    assert!(crossed.requests > 0 && crossed.signed > 0, "{} requests, {} certificates", crossed.requests, crossed.signed);
    crossed.decode();

    let mut searched = 0;
    for host in HOSTS {
        let find = "find / -xdev -type f -size -64k -exec grep -lIE -- '-----BEGIN ((RSA|EC) )?PRIVATE KEY-----' {} + ; true";
        for file in lab.sh(host, find).success().lines() {
            let shared = file.ends_with("/sa-key.pem");
            for (name, number) in secret_numbers(lab, &lab.sh(host, &format!("cat {file}")).success()) {
                assert_eq!(crossed.holds(&number), shared, "{name} of {file} of {host}");
            }
            searched += usize::from(!shared);
        }
    }
    assert_eq!(searched, 3 + 3 * MASTERS.len(), "each member's, and each master's client, apiserver, and admin");
    let key = fs::read_to_string(lab.folder().join("pki/hdss7/ca-key.pem")).unwrap();
    for (name, number) in secret_numbers(lab, &key) {
        assert!(!crossed.holds(&number), "{name} of the authority's key");
    }
    for host in MASTERS {
        let certificate = lab.sh(host, "cat /etc/kubernetes/server/ssl/apiserver.pem").success();
        assert!(crossed.holds(&der(&certificate)), "the certificate of {host} is not found");
    }
}

/// The numbers that make a key private, in the notation of each: whatever file format a key is in, they are in it.
fn secret_numbers(lab: &Lab, pem: &str) -> Vec<(String, Vec<u8>)> {
    let file = lab.folder().join("searched-key.pem");
    fs::write(&file, pem).unwrap();
    let text = run(Command::new("openssl").args(["pkey", "-noout", "-text", "-in"]).arg(&file));
    fs::remove_file(&file).unwrap();
    let mut numbers: Vec<(String, Vec<u8>)> = Vec::new();
    let mut secret = false;
    for line in text.lines() {
        if let Some(digits) = line.strip_prefix("    ") {
            let bytes = digits.split(':').filter(|digits| !digits.is_empty()).map(|digits| u8::from_str_radix(digits, 16).unwrap());
            numbers.last_mut().filter(|_| secret).into_iter().for_each(|(_, number)| number.extend(bytes.clone()));
        } else {
            let name = line.trim_end_matches(':');
            secret = ["privateExponent", "prime1", "prime2", "priv"].contains(&name);
            numbers.extend(secret.then(|| (name.to_owned(), Vec::new())));
        }
    }
    for (name, number) in &mut numbers {
        // A leading zero belongs to the notation.
        number.drain(..usize::from(number.first() == Some(&0)));
        assert!(number.len() >= 32, "{name} has {} bytes", number.len());
    }
    assert!(!numbers.is_empty(), "{text}");
    numbers
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().skip(1).take_while(|line| !line.starts_with("-----")).collect();
    kplay_modules::api::base64::decode(&body).unwrap()
}

/// All that crossed the wire, contents in the clear.
#[derive(Default)]
struct Crossed {
    pieces: Vec<Vec<u8>>,
    /// Contents by digest: hosts that got the same are searched once.
    contents: HashMap<kplay_modules::api::Digest, Vec<u8>>,
    requests: usize,
    signed: usize,
}

impl Crossed {
    /// Reads what one host's agents have heard and said.
    fn add_host(&mut self, lab: &Lab, host: &str) {
        // The host's file system, seen from outside: its first process is the child of its container.
        let container = lab.boot(host).split(' ').next().unwrap().to_owned();
        let children = fs::read_to_string(format!("/proc/{container}/task/{container}/children")).unwrap();
        let folder = children.split_ascii_whitespace().map(|child| PathBuf::from(format!("/proc/{child}/root{RECORDS}")));
        let folder = folder.into_iter().find(|folder| folder.exists()).unwrap_or_else(|| panic!("{host} has recorded nothing"));
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            files.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        }
        assert!(files.len() > 4, "{host} has recorded hardly anything: {:?}", files.keys());
        for (name, bytes) in files {
            if name.ends_with(".heard") {
                let mut begun: HashMap<_, Vec<u8>> = HashMap::new();
                self.messages(&bytes, |crossed, message: ToAgent| match message {
                    ToAgent::Blob { digest, bytes, deflated, last, .. } => {
                        let content = begun.entry(digest).or_default();
                        if deflated {
                            DeflateDecoder::new(bytes.as_slice()).read_to_end(content).unwrap();
                        } else {
                            content.extend(bytes);
                        }
                        if last {
                            crossed.contents.insert(digest, begun.remove(&digest).unwrap_or_default());
                        }
                    }
                    message => {
                        crossed.requests += usize::from(matches!(message, ToAgent::Request(_)));
                        crossed.signed += usize::from(matches!(message, ToAgent::Signed { certificate: Ok(_), .. }));
                        crossed.pieces.push(payload(&message));
                    }
                });
                self.pieces.extend(begun.into_values());
            } else if name.ends_with(".said") {
                // Frames begin after the marker, the agent's first line.
                let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
                self.messages(&bytes[begin..], |crossed, message: ToController| crossed.pieces.push(payload(&message)));
            }
        }
    }

    /// Takes a stream apart. What is no whole message, since its run was killed, is kept as it is.
    fn messages<M: DeserializeOwned>(&mut self, stream: &[u8], mut take: impl FnMut(&mut Self, M)) {
        let mut rest = Cursor::new(stream);
        loop {
            let begin = usize::try_from(rest.position()).unwrap();
            match wire::read(&mut rest) {
                Ok(Some(message)) => take(self, message),
                Ok(None) => return,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
                    return self.pieces.push(stream[begin..].to_vec());
                }
            }
        }
    }

    /// Adds what is base64 in what there is, and what is base64 in that: a key in a PEM file in a kubeconfig.
    fn decode(&mut self) {
        self.pieces.extend(std::mem::take(&mut self.contents).into_values());
        let once: Vec<Vec<u8>> = self.pieces.iter().flat_map(|piece| decoded(piece)).collect();
        let twice: Vec<Vec<u8>> = once.iter().flat_map(|piece| decoded(piece)).collect();
        self.pieces.extend(once);
        self.pieces.extend(twice);
    }

    fn holds(&self, needle: &[u8]) -> bool {
        let finder = memmem::Finder::new(needle);
        self.pieces.iter().any(|piece| finder.find(piece).is_some())
    }
}

/// A message without the heads of its frames, which would cut in two what is searched for.
fn payload<M: Serialize>(message: &M) -> Vec<u8> {
    wire::encode(message).unwrap().chunks(4 + FRAME).flat_map(|frame| &frame[4..]).copied().collect()
}

/// Decodes all base64 in a text or a binary, over line breaks, plain or written as in JSON. Where a run of digits really begins is
/// not known, so it is decoded from each of the first four.
fn decoded(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut digits: Vec<u8> = Vec::new();
    let mut escaped = false;
    for byte in bytes.iter().copied().chain([0]) {
        let value = match byte {
            b'n' | b'r' if std::mem::take(&mut escaped) => continue,
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'\\' => {
                escaped = true;
                continue;
            }
            b' ' | b'\n' | b'\r' => continue,
            _ => {
                if digits.len() >= WORTH_DECODING {
                    let pack = |four: &[u8]| {
                        let word = four.iter().fold(0, |word, digit| word << 6 | u32::from(*digit)) << (6 * (4 - four.len()));
                        word.to_be_bytes()[1..].to_vec()
                    };
                    found.extend((0..4).map(|begin| digits[begin..].chunks(4).flat_map(pack).collect::<Vec<u8>>()));
                }
                digits.clear();
                continue;
            }
        };
        escaped = false;
        digits.push(value);
    }
    found
}

#[test]
fn keys_are_found_in_whatever_they_are_wrapped() {
    let secret: Vec<u8> = (0..48).map(|number| number * 5 + 3).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", kplay_modules::api::base64::encode(&secret));
    let lines = pem.replacen("KEY-----\n", "KEY-----\nMII\n", 1);
    let json = serde_json::json!({ "content": lines }).to_string();
    let config = format!("key data: {}\n", kplay_modules::api::base64::encode(pem.as_bytes()));
    for wrapped in [secret.clone(), lines.into_bytes(), json.into_bytes(), config.into_bytes()] {
        let mut crossed = Crossed { pieces: vec![wrapped], ..Crossed::default() };
        crossed.decode();
        assert!(crossed.holds(&secret));
        assert!(!crossed.holds(b"what is not there"));
    }
}

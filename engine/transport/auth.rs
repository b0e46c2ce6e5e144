//! Authentication: key files, the ssh-agent's keys, the usual files, a password, in that order, and what was tried.
#![expect(clippy::disallowed_methods, reason = "keys are files of the user's")]

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ssh_key::{HashAlg, PrivateKey, PublicKey};
use ssh2::{ErrorCode, KeyboardInteractivePrompt, Prompt};

use super::Target;
use super::ssh::Client;
use super::ssh_config::Settings;
use crate::diagnostic::{Diagnostic, Result};

/// Refusals after which we stop by ourselves: sshd ends the connection at the sixth.
const TRIES: usize = 5;
/// Variable with the passphrase of encrypted private keys.
const PASSPHRASE: &str = "KPLAY_KEY_PASSPHRASE";
/// libssh2: the host refused this.
const REFUSED: [i32; 2] = [-18, -19];
/// libssh2: the host is gone.
const GONE: [i32; 3] = [-7, -13, -43];

/// Asks the operator for the passphrase of a key; `None` when there is nobody to ask.
pub type AskPassphrase = dyn Fn(&Path) -> Option<String> + Send + Sync;

static ASK: OnceLock<Box<AskPassphrase>> = OnceLock::new();

/// Sets how passphrases of encrypted keys are asked for, once for the process. Each key is asked for once, and never two at
/// the same time. Without it only `KPLAY_KEY_PASSPHRASE` is looked at.
pub fn ask_passphrases_with(ask: Box<AskPassphrase>) {
    let _ = ASK.set(ask);
}

/// Makes the host accept us as `user`, or says all that was tried.
pub(super) fn authenticate(client: &Client, user: &str, target: &Target, settings: &Settings) -> Result<()> {
    let mut login = Login { client, user, tried: Vec::new(), refused: 0, methods: None, hints: Vec::new(), log: Vec::new() };
    if target.password.is_some() {
        // Asked first, this is no attempt that counts.
        login.methods = login.methods();
    }
    let limit = if target.password.is_some() { TRIES - 1 } else { TRIES };
    let outcome = login.keys(target, settings, limit).and_then(|done| if done { Ok(true) } else { login.password(target) });
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err(login.refusal()),
        Err(error) => Err(login.broken(&error)),
    }
}

/// One attempt to get in.
struct Login<'a> {
    client: &'a Client,
    user: &'a str,
    /// Public keys that were shown already.
    tried: Vec<Vec<u8>>,
    refused: usize,
    /// What the host says it would accept.
    methods: Option<String>,
    hints: Vec<String>,
    log: Vec<String>,
}

impl Login<'_> {
    /// Tries keys; returns whether one was accepted. Fails when the connection does.
    fn keys(&mut self, target: &Target, settings: &Settings, limit: usize) -> std::result::Result<bool, ssh2::Error> {
        let mut agent = KeyAgent::open(self.client, settings, &mut self.log);
        // Keys that were named come first, then whatever the agent has, then the usual files.
        for file in &target.private_keys {
            if self.refused < limit && self.file(file, agent.as_mut(), true)? {
                return Ok(true);
            }
        }
        let wanted = |key: &ssh2::PublicKey| {
            let mut files = target.private_keys.iter().chain(&settings.identity_files);
            !settings.identities_only || files.any(|file| public_key(file).is_some_and(|public| public == key.blob()))
        };
        if let Some(agent) = agent.as_mut() {
            for number in 0..agent.keys.len() {
                if self.refused < limit && wanted(&agent.keys[number]) && self.agent_key(agent, number)? {
                    return Ok(true);
                }
            }
        }
        for file in settings.identity_files.iter().filter(|file| file.is_file()) {
            if self.refused < limit && self.file(file, agent.as_mut(), false)? {
                return Ok(true);
            }
        }
        if self.refused >= limit {
            self.hints.push(format!(
                "kplay stopped after {limit} keys, since hosts end the connection soon after; name the right one with `--private-key`"
            ));
        }
        Ok(false)
    }

    /// Tries a key file, by way of the agent if that holds the key.
    fn file(&mut self, file: &Path, agent: Option<&mut KeyAgent>, named: bool) -> std::result::Result<bool, ssh2::Error> {
        let shown = format!("key `{}`", file.display());
        let public = public_key(file);
        if let Some(public) = &public {
            if self.tried.contains(public) {
                return Ok(false);
            }
            if let Some(agent) = agent
                && let Some(number) = agent.keys.iter().position(|key| key.blob() == public)
            {
                return self.agent_key(agent, number);
            }
        }
        let text = match std::fs::read(file) {
            Ok(text) => text,
            Err(error) if named || error.kind() != io::ErrorKind::NotFound => {
                self.log.push(format!("{shown}: {error}"));
                return Ok(false);
            }
            Err(_) => return Ok(false),
        };
        let passphrase = if is_encrypted(&text) {
            let Some(passphrase) = passphrase(file) else {
                self.log.push(format!("{shown}: encrypted, and there is no passphrase"));
                self.hints.push(format!("add the key to ssh-agent, or put its passphrase into `{PASSPHRASE}`"));
                return Ok(false);
            };
            Some(passphrase)
        } else {
            None
        };
        self.tried.extend(public);
        let result = self.client.block(|session| session.userauth_pubkey_file(self.user, None, file, passphrase.as_deref()));
        self.judge(&shown, result)
    }

    /// Tries a key that the agent holds.
    fn agent_key(&mut self, agent: &mut KeyAgent, number: usize) -> std::result::Result<bool, ssh2::Error> {
        let key = &agent.keys[number];
        if self.tried.iter().any(|tried| tried == key.blob()) {
            return Ok(false);
        }
        self.tried.push(key.blob().to_vec());
        let print =
            PublicKey::from_bytes(key.blob()).map_or_else(|_| String::new(), |key| format!(" {}", key.fingerprint(HashAlg::Sha256)));
        let shown = format!("key `{}`{print} of ssh-agent", key.comment());
        let result = self.client.block(|_| agent.agent.userauth(self.user, key));
        self.judge(&shown, result)
    }

    /// Tries the password, the plain way and then by answering what the host asks.
    fn password(&mut self, target: &Target) -> std::result::Result<bool, ssh2::Error> {
        let Some(password) = &target.password else {
            self.log.push("password: none is configured".to_owned());
            return Ok(false);
        };
        let methods = self.methods.clone();
        let has = |method: &str| methods.as_ref().is_none_or(|methods| methods.split(',').any(|name| name == method));
        if has("password") {
            let result = self.client.block(|session| session.userauth_password(self.user, password));
            if self.judge("password", result)? {
                return Ok(true);
            }
        }
        if has("keyboard-interactive") {
            let mut answer = Answer { password, asked: 0 };
            let result = self.client.block(|session| session.userauth_keyboard_interactive(self.user, &mut answer));
            return self.judge("password, interactively", result);
        }
        Ok(false)
    }

    /// Turns the result of an attempt into whether we are in, and keeps what is to be told.
    fn judge(&mut self, what: &str, result: std::result::Result<(), ssh2::Error>) -> std::result::Result<bool, ssh2::Error> {
        match result {
            Ok(()) if self.client.authenticated() => Ok(true),
            Ok(()) => {
                self.log.push(format!("{what}: accepted, but the host wants more than one proof"));
                Ok(false)
            }
            Err(error) => match error.code() {
                ErrorCode::Session(code) if REFUSED.contains(&code) => {
                    self.refused += 1;
                    self.log.push(format!("{what}: refused"));
                    Ok(false)
                }
                ErrorCode::Session(code) if GONE.contains(&code) || code == super::ssh::TIMED_OUT => Err(error),
                _ => {
                    self.log.push(format!("{what}: {}", error.message()));
                    Ok(false)
                }
            },
        }
    }

    /// Returns the methods that the host would accept, as far as it tells.
    fn methods(&self) -> Option<String> {
        // The binding takes for granted that a host says this in UTF-8; one that does not shall cost its own connection only.
        let asked = || self.client.block(|session| session.auth_methods(self.user).map(str::to_owned));
        catch_unwind(AssertUnwindSafe(asked)).ok()?.ok().filter(|methods| !methods.is_empty())
    }

    fn refusal(mut self) -> Box<Diagnostic> {
        // Asked now, this counts as an attempt, and sshd ends the connection at the sixth.
        let accepts = self.methods.take().or_else(|| (self.refused < TRIES).then(|| self.methods()).flatten());
        self.log.extend(accepts.map(|methods| format!("the host accepts: {}", methods.replace(',', ", "))));
        if self.refused == 0 && self.hints.is_empty() {
            self.hints.push("name a key with `--private-key` or `private_key` in the inventory, or start ssh-agent".to_owned());
        }
        if self.log.iter().any(|line| line.starts_with("password") && line.ends_with(": refused")) {
            self.hints.push(format!("is the password of `{}` right? it is the inventory's `ansible_password`", self.user));
        }
        if self.log.iter().any(|line| line.starts_with("key `")) {
            self.hints.push(format!("is the key in `authorized_keys` of `{0}`? `ssh -v {0}@HOST` shows the host's side of it", self.user));
        }
        let error = Diagnostic::unreachable(format!("the host accepts no login as `{}`", self.user)).details(self.log);
        self.hints.into_iter().fold(error, Diagnostic::hint)
    }

    fn broken(self, error: &ssh2::Error) -> Box<Diagnostic> {
        let message = format!("the connection ended while logging in as `{}`: {}", self.user, error.message());
        let error = Diagnostic::unreachable(message).details(self.log);
        if self.refused > 0 {
            return error
                .hint("hosts end a connection after too many refused keys (`MaxAuthTries`); name the right one with `--private-key`");
        }
        error.hint("a host ends it for a blocked account, too many connections at once (`MaxStartups`), or an address it does not like")
    }
}

/// A connection to the ssh-agent.
struct KeyAgent {
    agent: ssh2::Agent,
    keys: Vec<ssh2::PublicKey>,
}

impl KeyAgent {
    /// Opens the agent that the user has, if any.
    fn open(client: &Client, settings: &Settings, log: &mut Vec<String>) -> Option<Self> {
        let socket = match settings.identity_agent.as_deref() {
            Some("none") => return None,
            Some("SSH_AUTH_SOCK") | None => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
            Some(variable) if variable.starts_with('$') => std::env::var_os(&variable[1..]).map(PathBuf::from),
            Some(path) => Some(PathBuf::from(path)),
        };
        let Some(socket) = socket.filter(|socket| !socket.as_os_str().as_bytes().is_empty()) else {
            log.push("ssh-agent: none (`SSH_AUTH_SOCK` is not set)".to_owned());
            return None;
        };
        let open = || -> std::result::Result<Self, ssh2::Error> {
            let mut agent = client.session().agent()?;
            agent.set_identity_path(&socket)?;
            agent.connect()?;
            agent.list_identities()?;
            let keys = agent.identities()?;
            Ok(Self { agent, keys })
        };
        match open() {
            Ok(agent) => {
                if agent.keys.is_empty() {
                    log.push("ssh-agent: holds no keys".to_owned());
                }
                Some(agent)
            }
            Err(error) => {
                log.push(format!("ssh-agent at `{}`: {}", socket.display(), error.message()));
                None
            }
        }
    }
}

/// Gives the password to every question whose answer is not to be seen.
struct Answer<'a> {
    password: &'a str,
    asked: usize,
}

impl KeyboardInteractivePrompt for Answer<'_> {
    fn prompt<'a>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        self.asked += 1;
        // A host that asks again does not like the answer.
        let answer = |prompt: &Prompt<'_>| if prompt.echo || self.asked > 3 { String::new() } else { self.password.to_owned() };
        prompts.iter().map(answer).collect()
    }
}

/// Returns the public half of a private key file, as it goes over the wire, when that can be had without a passphrase.
fn public_key(file: &Path) -> Option<Vec<u8>> {
    let private = std::fs::read(file).ok().and_then(|text| PrivateKey::from_openssh(text).ok()).map(|key| key.public_key().clone());
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    private.or_else(|| PublicKey::from_openssh(&std::fs::read_to_string(beside).ok()?).ok())?.to_bytes().ok()
}

/// Returns whether a private key needs a passphrase.
fn is_encrypted(text: &[u8]) -> bool {
    match PrivateKey::from_openssh(text) {
        Ok(key) => key.is_encrypted(),
        Err(_) => String::from_utf8_lossy(text).lines().any(|line| line.contains("ENCRYPTED")),
    }
}

/// Returns the passphrase for a key; the operator is asked once a key and run.
fn passphrase(file: &Path) -> Option<String> {
    static KNOWN: OnceLock<Mutex<HashMap<PathBuf, Option<String>>>> = OnceLock::new();
    if let Ok(passphrase) = std::env::var(PASSPHRASE) {
        return Some(passphrase);
    }
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(file.to_owned()).or_insert_with(|| ASK.get().and_then(|ask| ask(file))).clone()
}

//! ssh_config: what the user has set for a host, asked of `ssh -G` where that is there, else read by ourselves.
#![expect(clippy::disallowed_methods, reason = "the configuration of ssh is files, and may ask programs")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::host_keys::matches_glob;
use super::{HostKeyPolicy, Target};

/// The system's file.
const SYSTEM: &str = "/etc/ssh/ssh_config";
/// Settings in a file that change nothing for us; a file with only these needs no process to be understood.
const IRRELEVANT: &[&str] =
    &["sendenv", "setenv", "forwardx11trusted", "gssapiauthentication", "gssapidelegatecredentials", "visualhostkey", "xauthlocation"];

/// What ssh_config says about a host. Unset means that neither the user nor ssh has an opinion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub host_name: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub identity_files: Vec<PathBuf>,
    pub identities_only: bool,
    /// Socket of the ssh-agent; `none` forbids it.
    pub identity_agent: Option<String>,
    pub proxy_jump: Option<String>,
    pub proxy_command: Option<String>,
    pub user_known_hosts: Vec<PathBuf>,
    pub global_known_hosts: Vec<PathBuf>,
    pub hash_known_hosts: bool,
    /// The name under which the host's key is known.
    pub host_key_alias: Option<String>,
    pub host_keys: Option<HostKeyPolicy>,
    pub ciphers: Vec<String>,
    pub key_exchanges: Vec<String>,
    pub host_key_algorithms: Vec<String>,
}

/// Returns the settings for a target. Asked once for each name, user and port of a run.
pub(super) fn lookup(target: &Target) -> Arc<Settings> {
    type Key = (String, Option<String>, Option<u16>);
    static CACHE: OnceLock<Mutex<HashMap<Key, Arc<Settings>>>> = OnceLock::new();
    let cache = CACHE.get_or_init(Mutex::default);
    let key = (target.address.clone(), target.user.clone(), target.port);
    if let Some(settings) = cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Arc::clone(settings);
    }
    let settings = Arc::new(read(target));
    cache.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&settings));
    settings
}

/// Returns the home folder of the local user.
pub(super) fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("/"))
}

/// Returns the name of the local user.
pub(super) fn local_user() -> String {
    account_name().unwrap_or_else(|| "root".to_owned())
}

/// Returns the name of this process's account, if it has one.
pub fn account_name() -> Option<String> {
    passwd_field(0).or_else(|| std::env::var("USER").ok())
}

/// Returns a field of the local user's line in `/etc/passwd`.
fn passwd_field(field: usize) -> Option<String> {
    let number = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.get(2) == Some(&number.as_str()))?.get(field).map(|value| (*value).to_owned())
}

fn read(target: &Target) -> Settings {
    let mine = home().join(".ssh/config");
    let files: Vec<&Path> = [mine.as_path(), Path::new(SYSTEM)].into_iter().filter(|file| has_content(file, 0)).collect();
    if files.is_empty() {
        return Settings::from_pairs(&[], target);
    }
    // The first value of a setting wins, so the user's file goes first.
    let own: Pairs = files.iter().flat_map(|file| read_file(file, &target.address, 0)).collect();
    // `ssh` looks for the user's file where the account's home is, whatever `$HOME` says.
    let asked = if passwd_field(5).is_some_and(|path| Path::new(&path) == home()) {
        let personal = files.iter().any(|file| has_match(file, 0)) || own.iter().any(|(key, value)| is_personal(key, value));
        if personal { ask_ssh(target, None) } else { ask_ssh_once(target, &own, None) }
    } else {
        None
    };
    Settings::from_pairs(&asked.unwrap_or(own), target)
}

/// Keys in lower case and their values, in order.
type Pairs = Vec<(String, String)>;

/// Returns whether what `ssh` makes of a setting may differ from host to host, though its text does not.
fn is_personal(key: &str, value: &str) -> bool {
    value.contains(['%', '$']) || key.starts_with("canonical")
}

/// Returns what `ssh -G` says, asked once for all hosts, users and ports for which the same lines apply: of all that it says,
/// only the host's name is another then.
fn ask_ssh_once(target: &Target, own: &Pairs, config: Option<&Path>) -> Option<Pairs> {
    type Key = (Pairs, Option<String>, Option<u16>);
    type Answer = Arc<OnceLock<Option<Pairs>>>;
    static ASKED: OnceLock<Mutex<HashMap<Key, Answer>>> = OnceLock::new();
    let key = (own.clone(), target.user.clone(), target.port);
    let answer = ASKED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
    let mut pairs = answer.get_or_init(|| ask_ssh(target, config)).clone()?;
    if !own.iter().any(|(key, _)| key == "hostname") {
        pairs.retain(|(key, _)| key != "hostname");
    }
    Some(pairs)
}

/// Returns whether a file has conditions that only `ssh` can judge.
fn has_match(file: &Path, depth: usize) -> bool {
    std::fs::read_to_string(file).unwrap_or_default().lines().filter_map(pair).any(|(key, value)| match key.as_str() {
        "match" => true,
        "include" => depth >= 8 || included(file, &value).iter().any(|file| has_match(file, depth + 1)),
        _ => false,
    })
}

/// Returns what `ssh -G` says; `None` where there is no `ssh` or it refuses its configuration.
fn ask_ssh(target: &Target, config: Option<&Path>) -> Option<Vec<(String, String)>> {
    let mut command = Command::new("ssh");
    if let Some(config) = config {
        command.arg("-F").arg(config);
    }
    command.arg("-G");
    if let Some(user) = &target.user {
        command.arg("-l").arg(user);
    }
    if let Some(port) = target.port {
        command.arg("-p").arg(port.to_string());
    }
    let output = command.arg("--").arg(&target.address).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).lines().filter_map(pair).collect())
}

/// Reads the settings for `host` from a file, in order. Knows `Host` and `Include`, but no `Match`, whose blocks it skips.
fn read_file(file: &Path, host: &str, depth: usize) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut applies = true;
    for (key, value) in std::fs::read_to_string(file).unwrap_or_default().lines().filter_map(pair) {
        match key.as_str() {
            "host" => applies = matches_hosts(&value, host),
            "match" => applies = value.eq_ignore_ascii_case("all"),
            "include" if applies && depth < 8 => {
                pairs.extend(included(file, &value).iter().flat_map(|file| read_file(file, host, depth + 1)));
            }
            _ if applies => pairs.push((key, value)),
            _ => {}
        }
    }
    pairs
}

/// Returns whether a file holds anything that could change how a host is reached.
fn has_content(file: &Path, depth: usize) -> bool {
    std::fs::read_to_string(file).unwrap_or_default().lines().filter_map(pair).any(|(key, value)| match key.as_str() {
        "host" => false,
        "include" => depth >= 8 || included(file, &value).iter().any(|file| has_content(file, depth + 1)),
        // Debian sets this for all; it matters only when a key is written down, and hashing then is a matter of taste.
        "hashknownhosts" => false,
        key => !IRRELEVANT.contains(&key),
    })
}

/// Returns the files that an `Include` in `file` names: relative to its folder, with a glob in the last component.
fn included(file: &Path, patterns: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for pattern in patterns.split_ascii_whitespace() {
        let pattern = expand_home(pattern.trim_matches('"'));
        let pattern = file.parent().unwrap_or(Path::new("/")).join(pattern);
        let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str())) else { continue };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_str().is_some_and(|file| matches_glob(name, file)))
            .map(|entry| entry.path())
            .collect();
        files.sort();
        found.extend(files);
    }
    found
}

/// Splits a line into its lower-case key and its value; `None` for comments and blank lines.
fn pair(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once(|letter: char| letter.is_ascii_whitespace() || letter == '=')?;
    let value = value.trim_start_matches(|letter: char| letter.is_ascii_whitespace() || letter == '=').trim_end();
    Some((key.to_ascii_lowercase(), value.trim_matches('"').to_owned()))
}

/// Returns whether the patterns of a `Host` line fit: any of them, and none that is negated.
fn matches_hosts(patterns: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let mut hit = false;
    for pattern in patterns.split_ascii_whitespace() {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches_glob(&pattern.to_ascii_lowercase(), &host) => return false,
            Some(_) => {}
            None => hit |= matches_glob(&pattern.to_ascii_lowercase(), &host),
        }
    }
    hit
}

fn expand_home(path: &str) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| home().join(rest))
}

impl Settings {
    fn from_pairs(pairs: &[(String, String)], target: &Target) -> Self {
        let first = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let set = |name: &str| first(name).filter(|value| !value.eq_ignore_ascii_case("none"));
        let yes = |name: &str| first(name).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        let list = |name: &str| -> Vec<String> { first(name).iter().flat_map(|value| value.split(',')).map(str::to_owned).collect() };
        let paths = |name: &str, usual: &[&str]| -> Vec<PathBuf> {
            let value = first(name).unwrap_or_else(|| usual.join(" "));
            value.split_ascii_whitespace().filter(|path| *path != "none").map(expand_home).collect()
        };
        let user = target.user.clone().or_else(|| set("user"));
        let host_name = set("hostname").map(|name| name.replace("%h", &target.address).replace("%%", "%"));
        let tokens = |path: &str| {
            let host = host_name.as_deref().unwrap_or(&target.address);
            let remote = user.clone().unwrap_or_else(local_user);
            path.replace("%d", &home().to_string_lossy()).replace("%h", host).replace("%r", &remote).replace("%u", &local_user())
        };
        let identity_files = match pairs.iter().filter(|(key, _)| key == "identityfile").collect::<Vec<_>>() {
            none if none.is_empty() => ["id_ed25519", "id_ecdsa", "id_rsa"].iter().map(|name| home().join(".ssh").join(name)).collect(),
            some => some.iter().filter(|(_, value)| value != "none").map(|(_, value)| expand_home(&tokens(value))).collect(),
        };
        Self {
            port: first("port").and_then(|port| port.parse().ok()),
            identity_files,
            identities_only: yes("identitiesonly"),
            identity_agent: first("identityagent"),
            proxy_jump: set("proxyjump"),
            proxy_command: set("proxycommand"),
            user_known_hosts: paths("userknownhostsfile", &["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]),
            global_known_hosts: paths("globalknownhostsfile", &["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]),
            hash_known_hosts: yes("hashknownhosts"),
            host_key_alias: set("hostkeyalias"),
            host_keys: first("stricthostkeychecking").and_then(|value| match value.to_ascii_lowercase().as_str() {
                "yes" | "true" => Some(HostKeyPolicy::Strict),
                "accept-new" => Some(HostKeyPolicy::AcceptNew),
                "no" | "off" | "false" => Some(HostKeyPolicy::Off),
                _ => None,
            }),
            ciphers: list("ciphers"),
            key_exchanges: list("kexalgorithms"),
            host_key_algorithms: list("hostkeyalgorithms"),
            user,
            host_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::target;

    const CONFIG: &str = "
        Host jumped !not.jumped
            ProxyJump hop@gate:2022
        Host *.lab
            HostName %h.example
            User=deploy
            Port 2200
            IdentityFile \"~/.ssh/lab\"
            IdentitiesOnly yes
        Host *
            User nobody
            StrictHostKeyChecking accept-new
            UserKnownHostsFile /tmp/known
    ";

    fn both_ways(host: &str) -> [Settings; 2] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, CONFIG).unwrap();
        let target = Target { address: host.to_owned(), user: None, port: None, ..target() };
        let asked = ask_ssh(&target, Some(&file)).expect("this test needs the `ssh` program: install openssh-client");
        [Settings::from_pairs(&asked, &target), Settings::from_pairs(&read_file(&file, host, 0), &target)]
    }

    #[test]
    fn our_reader_and_ssh_agree() {
        for settings in both_ways("a.lab") {
            assert_eq!(settings.host_name.as_deref(), Some("a.lab.example"));
            assert_eq!(settings.user.as_deref(), Some("deploy"));
            assert_eq!(settings.port, Some(2200));
            assert_eq!(settings.identity_files, [home().join(".ssh/lab")]);
            assert!(settings.identities_only);
            assert_eq!(settings.proxy_jump, None);
            assert_eq!(settings.host_keys, Some(HostKeyPolicy::AcceptNew));
            assert_eq!(settings.user_known_hosts, [Path::new("/tmp/known")]);
        }
        for settings in both_ways("jumped") {
            assert_eq!(settings.proxy_jump.as_deref(), Some("hop@gate:2022"));
            assert_eq!(settings.user.as_deref(), Some("nobody"));
        }
    }

    #[test]
    fn hosts_for_which_the_same_lines_apply_share_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, "Host *.lab\n  User shared\nHost *\n  Port 2201\n").unwrap();
        let settings = |host: &str, config: &Path| {
            let target = Target { address: host.to_owned(), user: None, port: None, ..target() };
            let own = read_file(&file, host, 0);
            assert!(!has_match(&file, 0) && !own.iter().any(|(key, value)| is_personal(key, value)));
            Settings::from_pairs(&ask_ssh_once(&target, &own, Some(config)).expect("an answer"), &target)
        };
        let first = settings("a.lab", &file);
        assert_eq!((first.user.as_deref(), first.port, first.host_name.as_deref()), (Some("shared"), Some(2201), None));
        // `ssh` would have no answer here, so it has not been asked.
        assert_eq!(settings("b.lab", Path::new("/nonexistent")), first);
        assert_ne!(settings("elsewhere", &file).user, first.user, "other lines apply");
        std::fs::write(&file, "Match host x\n  User y\n").unwrap();
        assert!(has_match(&file, 0) && is_personal("identityfile", "~/.ssh/%h") && is_personal("canonicalizehostname", "yes"));
    }

    #[test]
    fn a_file_that_changes_nothing_needs_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let (main, part) = (folder.path().join("config"), folder.path().join("part.conf"));
        std::fs::write(&main, "# hello\nInclude *.conf\nHost *\n  SendEnv LANG LC_*\n  HashKnownHosts yes\n").unwrap();
        assert!(!has_content(&main, 0));
        std::fs::write(&part, "Host x\nPort 23\n").unwrap();
        assert!(has_content(&main, 0));
        assert_eq!(read_file(&main, "x", 0)[0], ("port".to_owned(), "23".to_owned()));
    }
}

//! Ways through other hosts: `ProxyJump` by `ssh -W`, and `ProxyCommand`; each a child process on a socket pair.
//!
//! libssh2 needs a descriptor of its own. A nested session with a pump thread would give one, too, but costs a thread for
//! each host and repeats the checks and logins that the system's ssh does for the hops, with the user's own settings.
#![expect(clippy::disallowed_methods, reason = "proxies are programs")]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::dial::{self, Address};
use super::ssh_config::{Settings, local_user};
use super::{HostKeyPolicy, Target};
use crate::diagnostic::{Diagnostic, Result};

/// A way other than straight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Hops, `user@host:port`, in order.
    Jump(Vec<String>),
    /// A shell command that carries the connection.
    Command(String),
}

impl Route {
    /// Returns the way to a target: the inventory's before ssh_config's; `None` when it is straight.
    pub fn of(target: &Target, settings: &Settings) -> Option<Self> {
        let hops = |text: &str| Self::Jump(text.split(',').map(|hop| hop.trim().trim_start_matches("ssh://").to_owned()).collect());
        match target.jump.as_deref().map(str::trim) {
            Some("" | "none") => None,
            Some(jump) => Some(hops(jump)),
            None => settings.proxy_jump.as_deref().map(hops).or_else(|| settings.proxy_command.clone().map(Self::Command)),
        }
    }
}

/// Starts the process that carries the connection and returns our end of it.
pub(super) fn open(route: &Route, target: &Target, address: &Address, deadline: Instant) -> Result<(OwnedFd, Option<Child>)> {
    let mut command = match route {
        Route::Jump(hops) => jump_command(hops, target, address),
        Route::Command(line) => {
            let user = target.user.clone().unwrap_or_else(local_user);
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("exec {}", fill_in(line, address, &user)));
            command
        }
    };
    let shown = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| {
        let made = Diagnostic::unreachable(format!("cannot start `{shown}`, which carries the connection: {error}"));
        if error.kind() == std::io::ErrorKind::NotFound {
            made.hint("jumping over other hosts needs the `ssh` program (openssh-client)")
        } else {
            made
        }
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let input = theirs.try_clone().map_err(failed)?;
    command.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(theirs)).stderr(Stdio::piped()).process_group(0);
    // A child stays in the namespace of the thread that starts it.
    let child = match dial::within(target.namespace.as_deref(), deadline, move || command.spawn())? {
        Some(child) => child.map_err(failed)?,
        None => return Err(Diagnostic::unreachable(format!("`{shown}`, which carries the connection, did not start in time"))),
    };
    Ok((OwnedFd::from(ours), Some(child)))
}

/// Ends a carrier and takes it off the process table.
pub(super) fn end(carrier: &mut Child) {
    let _ = carrier.kill();
    let _ = carrier.wait();
}

/// Ends a carrier and returns what it has complained about.
pub(super) fn last_words(carrier: &mut Child) -> Vec<String> {
    end(carrier);
    let mut text = Vec::new();
    if let Some(errors) = carrier.stderr.take() {
        // A grandchild may hold the pipe open, so no more is read than a pipe holds.
        let _ = rustix::io::ioctl_fionbio(&errors, true);
        let _ = errors.take(64 << 10).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).lines().map(|line| format!("on the way: {}", line.trim_end())).collect()
}

/// Builds `ssh -W` through the last hop, which itself is reached through the one before it.
fn jump_command(hops: &[String], target: &Target, address: &Address) -> Command {
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let words =
        hops.split_last().map(|(last, before)| words(before, last, &format!("{host}:{}", address.port), target)).unwrap_or_default();
    let mut command = Command::new("ssh");
    command.args(words.iter().skip(1));
    command
}

/// Returns the words of the command that reaches `goal` through `before` and then `hop`.
fn words(before: &[String], hop: &str, goal: &str, target: &Target) -> Vec<String> {
    let mut words: Vec<String> = ["ssh", "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "LogLevel=ERROR"].map(str::to_owned).into();
    words.extend(options(target));
    words.extend(["-W".to_owned(), goal.to_owned()]);
    if let Some((last, rest)) = before.split_last() {
        let inner = self::words(rest, last, "[%h]:%p", target);
        // Each layer fills in percent signs; only this layer's own goal is meant for it.
        let escape = |word: &String| if word == "[%h]:%p" { quote(word) } else { quote(&word.replace('%', "%%")) };
        let inner: Vec<String> = inner.iter().map(escape).collect();
        words.extend(["-o".to_owned(), format!("ProxyCommand={}", inner.join(" "))]);
    }
    let (login, port) = split_port(hop);
    words.extend(port.into_iter().flat_map(|port| ["-p".to_owned(), port]));
    words.extend(["--".to_owned(), login]);
    words
}

/// The options that make the system's ssh treat keys as the target wants them.
pub(super) fn options(target: &Target) -> Vec<String> {
    let seconds = target.timeout.as_secs().max(1);
    let mut options = Vec::new();
    let mut set = |name: &str, value: &str| options.extend(["-o".to_owned(), format!("{name}={value}")]);
    set("ConnectTimeout", &seconds.to_string());
    // A host that has gone is noticed after a minute.
    set("ServerAliveInterval", "15");
    set("ServerAliveCountMax", "4");
    match target.host_keys {
        HostKeyPolicy::Strict => set("StrictHostKeyChecking", "yes"),
        HostKeyPolicy::AcceptNew => set("StrictHostKeyChecking", "accept-new"),
        HostKeyPolicy::Off => {
            set("StrictHostKeyChecking", "no");
            set("UserKnownHostsFile", "/dev/null");
        }
    }
    if let Some(file) = target.known_hosts.as_deref().filter(|_| target.host_keys != HostKeyPolicy::Off) {
        set("UserKnownHostsFile", &quote_path(file));
    }
    for file in &target.private_keys {
        options.extend(["-i".to_owned(), file.to_string_lossy().into_owned()]);
    }
    options
}

/// Splits `user@host:port` and `user@[::1]:port` into login and port.
fn split_port(hop: &str) -> (String, Option<String>) {
    let (user, host) = hop.rsplit_once('@').map_or((None, hop), |(user, host)| (Some(user), host));
    let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match host.split_once(':') {
            Some((name, port)) if !port.contains(':') => (name, Some(port)),
            _ => (host, None),
        },
    };
    (user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}")), port.map(str::to_owned))
}

/// Fills in what ssh fills in: host, port and user.
fn fill_in(line: &str, address: &Address, user: &str) -> String {
    let mut filled = String::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, if letter == '%' { letters.next() } else { None }) {
            ('%', Some('h' | 'n')) => filled.push_str(&address.host),
            ('%', Some('p')) => filled.push_str(&address.port.to_string()),
            ('%', Some('r')) => filled.push_str(user),
            ('%', Some('%')) => filled.push('%'),
            ('%', Some(other)) => filled.extend(['%', other]),
            (letter, _) => filled.push(letter),
        }
    }
    filled
}

/// Quotes a word for a POSIX shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Quotes a path for a list in ssh's own configuration language.
fn quote_path(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::target;

    fn address() -> Address {
        Address { host: "inner.example".to_owned(), port: 2200, namespace: None }
    }

    #[test]
    fn the_inventory_wins_over_ssh_config() {
        let settings = Settings { proxy_jump: Some("gate".to_owned()), ..Settings::default() };
        let with = |jump: Option<&str>| Route::of(&Target { jump: jump.map(str::to_owned), ..target() }, &settings);
        assert_eq!(with(None), Some(Route::Jump(vec!["gate".to_owned()])));
        assert_eq!(with(Some("a@b:1, c")), Some(Route::Jump(vec!["a@b:1".to_owned(), "c".to_owned()])));
        assert_eq!(with(Some("none")), None);
    }

    #[test]
    fn hops_are_nested() {
        let target = Target { host_keys: HostKeyPolicy::Strict, ..target() };
        let words = words(&["u@one:2022".to_owned()], "two", "inner:22", &target);
        let line = words.join(" ");
        assert!(line.contains("-W inner:22 "), "{line}");
        assert!(line.ends_with("-- two"), "{line}");
        assert!(line.contains("ProxyCommand='ssh'") && line.contains("'-W' '[%h]:%p' '-p' '2022' '--' 'u@one'"), "{line}");
    }

    #[test]
    fn hops_have_ports_and_addresses() {
        for (hop, login, port) in [
            ("gate", "gate", None),
            ("me@gate:2022", "me@gate", Some("2022")),
            ("me@[::1]:2022", "me@::1", Some("2022")),
            ("::1", "::1", None),
        ] {
            assert_eq!(split_port(hop), (login.to_owned(), port.map(str::to_owned)));
        }
    }

    #[test]
    fn proxy_commands_are_filled_in() {
        assert_eq!(fill_in("nc -X %% %h %p as %r", &address(), "me"), "nc -X % inner.example 2200 as me");
    }
}

//! How a host is reached, from its variables: kplay's own names and Ansible's.
//!
//! A host that has any of Ansible's connection variables is taken for one of Ansible's: there, `address`, `port`, `user`
//! and `connection` are variables like all others.

use std::path::PathBuf;
use std::time::Duration;

use kplay_modules::agent::wire::BecomeMethod;
use serde_json::Value;

use super::{Host, Inventory, LONGEST_TIME};
use crate::diagnostic::{Diagnostic, Result, nearest};
use crate::secrets::MASK;
use crate::transport::{ConnectionKind, HostKeyPolicy, Target};

/// How a host is reached and who tasks act as there, unless plays and tasks say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How it is reached.
    pub target: Target,
    /// Whom tasks become; `None` stays the login user.
    pub become_user: Option<String>,
    /// The `lab` mapping, for hosts of a lab.
    pub lab: Option<Value>,
}

/// What holds for hosts whose variables do not say otherwise; from the command line and the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Login user.
    pub user: Option<String>,
    /// Private key files, tried before the inventory's.
    pub private_keys: Vec<PathBuf>,
    /// How strictly host keys are checked.
    pub host_keys: HostKeyPolicy,
    /// Time to connect and authenticate.
    pub timeout: Duration,
    /// Whom tasks become.
    pub become_user: Option<String>,
    /// Password for that; wins over the inventory's, since somebody has just typed it.
    pub become_password: Option<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            user: None,
            private_keys: Vec::new(),
            host_keys: HostKeyPolicy::Strict,
            timeout: Duration::from_secs(15),
            become_user: None,
            become_password: None,
        }
    }
}

/// Reads a host's settings. Fails with the place of the variable that makes no sense.
pub fn settings(inventory: &Inventory, host: &Host, defaults: &Defaults) -> Result<Settings> {
    let read = Reader { inventory, host, ansible: ANSIBLE.iter().any(|key| host.variable(key).is_some()) };
    let connection = if host.implicit { ConnectionKind::Local } else { read.connection()? };
    let mut private_keys = defaults.private_keys.clone();
    private_keys.extend(read.paths(&["private_key", "ansible_ssh_private_key_file", "ansible_private_key_file"])?);
    let options = read.ssh_options()?;
    let wants = read.flag(&["become", "ansible_become"])?.unwrap_or(defaults.become_user.is_some());
    let user = read.text(&["become_user", "ansible_become_user"])?.or_else(|| defaults.become_user.clone());
    let target = Target {
        name: host.name.clone(),
        connection,
        address: read.text(&["address", "ansible_host", "ansible_ssh_host"])?.unwrap_or_else(|| host.name.clone()),
        port: read.port()?,
        user: read.text(&["user", "ansible_user", "ansible_ssh_user"])?.or_else(|| defaults.user.clone()),
        private_keys,
        password: read.text(&["ansible_password", "ansible_ssh_pass", "ansible_ssh_password"])?,
        jump: read.text(&["jump"])?.or(options.jump),
        host_keys: read.host_keys()?.or(options.host_keys).unwrap_or(defaults.host_keys),
        known_hosts: options.known_hosts,
        namespace: read.namespace()?,
        root: read.paths(&["root"])?.pop(),
        timeout: read.seconds(&["ansible_timeout", "ansible_ssh_timeout"])?.or(options.timeout).unwrap_or(defaults.timeout),
        become_method: read.become_method()?,
        become_password: match &defaults.become_password {
            Some(password) => Some(password.clone()),
            None => read.text(&["ansible_become_password", "ansible_become_pass"])?,
        },
        agent_folder: read.paths(&["agent_folder"])?.pop(),
    };
    let lab = inventory.value(host, "lab")?;
    Ok(Settings { target, become_user: wants.then(|| user.unwrap_or_else(|| "root".to_owned())), lab })
}

/// Reads `true`, `false` and the words that Ansible takes for them.
pub fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" | "y" | "t" | "1" => Some(true),
            "no" | "false" | "off" | "n" | "f" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Variables whose presence shows that a host is described in Ansible's words.
const ANSIBLE: [&str; 11] = [
    "ansible_host",
    "ansible_ssh_host",
    "ansible_port",
    "ansible_ssh_port",
    "ansible_user",
    "ansible_ssh_user",
    "ansible_connection",
    "ansible_password",
    "ansible_ssh_pass",
    "ansible_ssh_private_key_file",
    "ansible_ssh_common_args",
];

/// Words of kplay's that are everyday names of variables elsewhere.
const EVERYDAY: [&str; 4] = ["address", "port", "user", "connection"];

struct Reader<'i> {
    inventory: &'i Inventory,
    host: &'i Host,
    ansible: bool,
}

/// Options of ssh's that are understood in `ansible_ssh_common_args` and its siblings.
#[derive(Default)]
struct SshOptions {
    jump: Option<String>,
    host_keys: Option<HostKeyPolicy>,
    known_hosts: Option<PathBuf>,
    timeout: Option<Duration>,
}

impl Reader<'_> {
    /// Returns the first of `names` that is set to something, with its value.
    fn find<'n>(&self, names: &[&'n str]) -> Result<Option<(&'n str, Value)>> {
        for &name in names {
            if self.ansible && EVERYDAY.contains(&name) {
                continue;
            }
            match self.inventory.value(self.host, name)? {
                None | Some(Value::Null) => {}
                Some(value) => return Ok(Some((name, value))),
            }
        }
        Ok(None)
    }

    /// Returns a value as an error shows it.
    fn shown(&self, name: &str, value: &Value) -> String {
        if self.host.variable(name).is_some_and(|variable| variable.secret) { MASK.to_owned() } else { shown(value) }
    }

    fn wrong(&self, name: &str, message: String) -> Box<Diagnostic> {
        let error = Diagnostic::user(message).on(&self.host.name);
        match self.host.origin(name) {
            Some(place) => error.at(place),
            None => error,
        }
    }

    fn text(&self, names: &[&str]) -> Result<Option<String>> {
        match self.find(names)? {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text)),
            Some((_, Value::Number(number))) => Ok(Some(number.to_string())),
            Some((name, _)) => Err(self.wrong(name, format!("`{name}` has to be a string"))),
        }
    }

    fn flag(&self, names: &[&str]) -> Result<Option<bool>> {
        let Some((name, value)) = self.find(names)? else { return Ok(None) };
        boolean(&value)
            .map(Some)
            .ok_or_else(|| self.wrong(name, format!("`{name}` has to be `true` or `false`, not `{}`", self.shown(name, &value))))
    }

    fn seconds(&self, names: &[&str]) -> Result<Option<Duration>> {
        let Some((name, value)) = self.find(names)? else { return Ok(None) };
        let seconds = shown(&value).parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let wrong = || self.wrong(name, format!("`{name}` has to be a number of seconds, at most {}", LONGEST_TIME.as_secs()));
        seconds.filter(|time| *time <= LONGEST_TIME).map(Some).ok_or_else(wrong)
    }

    fn port(&self) -> Result<Option<u16>> {
        let Some((name, value)) = self.find(&["port", "ansible_port", "ansible_ssh_port"])? else { return Ok(None) };
        let port = shown(&value).parse().ok().filter(|port| *port > 0);
        port.map(Some).ok_or_else(|| self.wrong(name, format!("`{name}` has to be a port, not `{}`", self.shown(name, &value))))
    }

    /// Returns one path or several, `~` expanded. Relative ones start at the folder that kplay is run in.
    fn paths(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let Some((name, value)) = self.find(names)? else { return Ok(Vec::new()) };
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        items
            .iter()
            .map(|item| match item.as_str() {
                Some(text) if !text.is_empty() => Ok(home(text)),
                _ => Err(self.wrong(name, format!("`{name}` has to be a path"))),
            })
            .collect()
    }

    fn namespace(&self) -> Result<Option<PathBuf>> {
        let name = self.text(&["namespace"])?;
        Ok(name.map(|name| if name.contains('/') { PathBuf::from(name) } else { PathBuf::from("/run/netns").join(name) }))
    }

    /// Returns the meaning of a word out of a small set.
    fn word<T: Copy>(&self, names: &[&str], words: &[(&str, T)]) -> Result<Option<T>> {
        let Some((name, value)) = self.find(names)? else { return Ok(None) };
        let given = shown(&value);
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given) {
            return Ok(Some(*meaning));
        }
        let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let error = self.wrong(name, format!("`{name}` cannot be `{}`", self.shown(name, &value)));
        Err(match nearest(&given, words.iter().map(|(word, _)| *word)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("it is one of {}", known.join(", "))),
        })
    }

    fn connection(&self) -> Result<ConnectionKind> {
        use ConnectionKind::{Local, OpenSsh, Ssh};
        let words = [("ssh", Ssh), ("openssh", OpenSsh), ("local", Local), ("smart", Ssh), ("paramiko", Ssh), ("ansible.builtin.ssh", Ssh)];
        Ok(self.word(&["connection", "ansible_connection"], &words)?.unwrap_or(Ssh))
    }

    fn become_method(&self) -> Result<BecomeMethod> {
        let words = [("sudo", BecomeMethod::Sudo), ("doas", BecomeMethod::Doas), ("su", BecomeMethod::Su)];
        Ok(self.word(&["become_method", "ansible_become_method"], &words)?.unwrap_or_default())
    }

    fn host_keys(&self) -> Result<Option<HostKeyPolicy>> {
        use HostKeyPolicy::{AcceptNew, Off, Strict};
        let own = self.word(&["host_keys"], &[("strict", Strict), ("accept-new", AcceptNew), ("off", Off)])?;
        let checking = self.flag(&["ansible_host_key_checking", "ansible_ssh_host_key_checking"])?;
        Ok(own.or(checking.map(|on| if on { Strict } else { Off })))
    }

    /// Understands the usual options in Ansible's ssh arguments; refuses what it would have to ignore.
    fn ssh_options(&self) -> Result<SshOptions> {
        let mut options = SshOptions::default();
        for name in ["ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args"] {
            let Some(text) = self.text(&[name])? else { continue };
            let text = text.replace(['"', '\''], "");
            let mut words = text.split_whitespace();
            while let Some(word) = words.next() {
                let (flag, value) = match word.split_at_checked(2) {
                    Some((flag @ ("-o" | "-J"), "")) => (flag, words.next().unwrap_or_default()),
                    Some((flag @ ("-o" | "-J"), value)) => (flag, value),
                    _ => (word, ""),
                };
                let (key, value) = if flag == "-o" { value.split_once('=').unwrap_or((value, "")) } else { (flag, value) };
                let policy = match value.to_ascii_lowercase().as_str() {
                    "no" | "off" => Some(HostKeyPolicy::Off),
                    "accept-new" => Some(HostKeyPolicy::AcceptNew),
                    "yes" | "ask" => Some(HostKeyPolicy::Strict),
                    _ => None,
                };
                match key.to_ascii_lowercase().as_str() {
                    "-j" | "proxyjump" if !value.is_empty() => options.jump = Some(value.to_owned()),
                    "stricthostkeychecking" if policy.is_some() => options.host_keys = policy,
                    "userknownhostsfile" if !value.is_empty() => options.known_hosts = Some(home(value)),
                    "connecttimeout" => options.timeout = value.parse().ok().map(|seconds| Duration::from_secs(seconds).min(LONGEST_TIME)),
                    // How connections are kept, encrypted and logged is not what these arguments are needed for.
                    "controlmaster"
                    | "controlpersist"
                    | "controlpath"
                    | "compression"
                    | "loglevel"
                    | "-c"
                    | "-q"
                    | "-4"
                    | "-6"
                    | "serveraliveinterval"
                    | "serveralivecountmax"
                    | "preferredauthentications"
                    | "identitiesonly"
                    | "forwardagent" => {}
                    _ => {
                        let what = if flag == "-o" { format!("-o {key}") } else { flag.to_owned() };
                        return Err(self
                            .wrong(name, format!("`{name}` has `{what}`, which kplay does not understand"))
                            .hint("put it into ~/.ssh/config and set `ansible_connection: openssh`"));
                    }
                }
            }
        }
        Ok(options)
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Expands `~/`.
fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

//! What is waited for, and one look at it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex_lite::Regex;
use ureq::tls::{ClientCert, RootCerts};

use super::{Statuses, WaitFor};
use crate::api::probe::{self, Answer, Unconnected};
use crate::api::{Inspect, ModuleError, http, place};

/// Largest PEM file, or table of sockets, that is read, bytes.
const LIMIT: u64 = 16 << 20;
/// Lines of a body that a failure shows.
const SHOWN: usize = 20;

/// What is waited for.
pub(super) enum Goal<'a> {
    Port { host: &'a str, port: u16, open: bool },
    Listener { address: IpAddr, port: u16, open: bool },
    Path { path: &'a Path, present: bool },
    Url { url: &'a str, task: &'a WaitFor, statuses: Vec<u16>, body: Option<Regex> },
    Unit { name: &'a str, active: bool },
}

/// What one look found.
pub(super) enum Look {
    Met(Seen),
    NotYet(Unmet),
    /// Waiting will not help.
    Never(Unmet),
}

/// What was seen of what was waited for.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) answer: Option<Answer>,
    pub(super) addresses: Option<Vec<IpAddr>>,
}

/// What was seen instead.
pub(super) struct Unmet {
    pub(super) what: String,
    pub(super) details: Vec<String>,
    pub(super) hint: Option<String>,
}

impl Unmet {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), details: Vec::new(), hint: None }
    }
}

impl<'a> Goal<'a> {
    /// Reads a task's arguments, and refuses those that do not go together.
    pub(super) fn of(task: &'a WaitFor) -> Result<Self, ModuleError> {
        let named =
            [("port", task.port.is_some()), ("path", task.path.is_some()), ("url", task.url.is_some()), ("unit", task.unit.is_some())];
        let named: Vec<&str> = named.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
        let [kind] = named.as_slice() else {
            return Err(match named.as_slice() {
                [] => ModuleError::argument("nothing is waited for").hint("give one of `port`, `path`, `url` and `unit`"),
                [_, second, ..] => {
                    ModuleError::argument(format!("`{}` and `{second}` cannot be waited for by one task", named[0])).at(second)
                }
                [_] => ModuleError::argument("nothing is waited for"),
            });
        };
        let belonging = [
            ("host", "port", task.host.is_some()),
            ("address", "port", task.address.is_some()),
            ("ca", "url", task.ca.is_some()),
            ("cert", "url", task.cert.is_some()),
            ("key", "url", task.key.is_some()),
            ("status", "url", task.status.is_some()),
            ("body", "url", task.body.is_some()),
        ];
        if task.served_by.is_some() && !matches!(*kind, "port" | "url") {
            return Err(
                ModuleError::argument(format!("`served_by` means nothing for `{kind}`: ports and servers are served")).at("served_by")
            );
        }
        if let Some((argument, of, _)) = belonging.into_iter().find(|(_, of, given)| *given && of != kind) {
            return Err(ModuleError::argument(format!("`{argument}` belongs to `{of}` and means nothing for `{kind}`")).at(argument));
        }
        if let Some(port) = task.port {
            return Self::port(task, port);
        }
        if let Some(path) = &task.path {
            place::absolute(path, "path")?;
            return Ok(Self::Path { path, present: state(task, ["present", "absent"])? });
        }
        if let Some(url) = &task.url {
            return Self::url(task, url);
        }
        let name = task.unit.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(ModuleError::argument("`unit` is empty").at("unit"));
        }
        Ok(Self::Unit { name, active: state(task, ["active", "inactive"])? })
    }

    fn port(task: &'a WaitFor, port: u16) -> Result<Self, ModuleError> {
        let open = state(task, ["open", "closed"])?;
        if port == 0 {
            return Err(ModuleError::argument("0 is not a port").at("port"));
        }
        match (&task.address, &task.host) {
            (Some(_), Some(_)) => Err(ModuleError::argument("`address` is one of the host's own, and `host` names another").at("address")),
            (Some(address), None) => {
                let address =
                    address.parse().map_err(|_| ModuleError::argument(format!("`{address}` is not an IP address")).at("address"))?;
                Ok(Self::Listener { address, port, open })
            }
            (None, host) => Ok(Self::Port { host: host.as_deref().unwrap_or("127.0.0.1"), port, open }),
        }
    }

    fn url(task: &'a WaitFor, url: &'a str) -> Result<Self, ModuleError> {
        if task.state.is_some() {
            return Err(ModuleError::argument("a server is waited for by `status` and `body`, not by `state`").at("state"));
        }
        let secure = url.starts_with("https://");
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace)) {
            return Err(ModuleError::argument(format!("`{url}` is not the address of a server"))
                .at("url")
                .hint("it begins with `https://` or `http://`"));
        }
        for (argument, path) in [("ca", &task.ca), ("cert", &task.cert), ("key", &task.key)] {
            let Some(path) = path else { continue };
            place::absolute_file(path, argument)?;
            if !secure {
                return Err(ModuleError::argument(format!("`{argument}` means something for `https://` alone")).at(argument));
            }
        }
        match (&task.cert, &task.key) {
            (Some(_), None) => return Err(ModuleError::argument("`cert` is given, but not its `key`").at("cert")),
            (None, Some(_)) => return Err(ModuleError::argument("`key` is given, but not its `cert`").at("key")),
            _ => {}
        }
        let statuses = match &task.status {
            None => vec![200],
            Some(Statuses::One(status)) => vec![*status],
            Some(Statuses::Any(statuses)) => statuses.clone(),
        };
        if statuses.is_empty() || statuses.iter().any(|status| !(100..600).contains(status)) {
            return Err(ModuleError::argument("a status is between 100 and 599").at("status"));
        }
        let body = task.body.as_deref().map(Regex::new).transpose();
        let body = body.map_err(|error| ModuleError::argument(format!("`body` is not a regular expression: {error}")).at("body"))?;
        Ok(Self::Url { url, task, statuses, body })
    }

    /// Returns the argument that names the goal.
    pub(super) fn argument(&self) -> &'static str {
        match self {
            Self::Port { .. } | Self::Listener { .. } => "port",
            Self::Path { .. } => "path",
            Self::Url { .. } => "url",
            Self::Unit { .. } => "unit",
        }
    }

    /// Looks once. Fails with `unknown` where earlier tasks of a forecast would have changed what there is to see.
    pub(super) fn look(&self, host: &dyn Inspect, patience: Duration) -> Result<Look, ModuleError> {
        match self {
            Self::Port { host: name, port, open } => {
                host.live(&format!("port {port}"))?;
                Ok(match (probe::connect(name, *port, patience), open) {
                    (Ok(()), true) | (Err(Unconnected::Closed(_)), false) => Look::Met(Seen::default()),
                    (Err(Unconnected::Closed(met)), true) | (Err(Unconnected::Unresolved(met)), _) => Look::NotYet(Unmet::new(met)),
                    (Ok(()), false) => Look::NotYet(Unmet::new("connections are taken")),
                })
            }
            Self::Listener { address, port, open } => look_at_sockets(host, *address, *port, *open),
            Self::Path { path, present } => {
                if host.exists(path)? == *present {
                    return Ok(Look::Met(Seen::default()));
                }
                host.live(&format!("`{}`", path.display()))?;
                Ok(Look::NotYet(Unmet::new(if *present { "there is nothing" } else { "it is still there" })))
            }
            Self::Url { url, task, statuses, body } => {
                host.live(url)?;
                ask(host, url, task, statuses, body.as_ref(), patience)
            }
            Self::Unit { name, active } => look_at_unit(host, name, *active),
        }
    }
}

impl fmt::Display for Goal<'_> {
    /// Says what has not come about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port, open } => write!(f, "port {port} of {host} is not {}", if *open { "open" } else { "closed" }),
            Self::Listener { address, port, open: true } => write!(f, "port {port} is not listened on at {address}"),
            Self::Listener { address, port, open: false } => write!(f, "port {port} is not closed at {address}"),
            Self::Path { path, present } => write!(f, "`{}` is not {}", path.display(), if *present { "present" } else { "absent" }),
            Self::Url { url, .. } => write!(f, "`{url}` does not answer as expected"),
            Self::Unit { name, active } => write!(f, "the unit `{name}` is not {}", if *active { "active" } else { "inactive" }),
        }
    }
}

/// Reads `state`, which is one of two words; returns whether it is the first.
fn state(task: &WaitFor, words: [&str; 2]) -> Result<bool, ModuleError> {
    match task.state.as_deref() {
        None => Ok(true),
        Some(given) if given == words[0] => Ok(true),
        Some(given) if given == words[1] => Ok(false),
        Some(given) => Err(ModuleError::argument(format!("`{given}` is neither `{}` nor `{}`", words[0], words[1])).at("state")),
    }
}

fn look_at_sockets(host: &dyn Inspect, address: IpAddr, port: u16, open: bool) -> Result<Look, ModuleError> {
    host.live(&format!("port {port}"))?;
    let table = |path: &str| match host.target(Path::new(path))? {
        Some(_) => Ok(String::from_utf8_lossy(&host.read(Path::new(path), LIMIT)?).into_owned()),
        // A kernel without the newer protocol has no table for it.
        None => Ok(String::new()),
    };
    let addresses = probe::listeners(&[&table("/proc/net/tcp")?, &table("/proc/net/tcp6")?], port);
    if addresses.iter().any(|listening| probe::covers(*listening, address)) == open {
        return Ok(Look::Met(Seen { addresses: Some(addresses), ..Seen::default() }));
    }
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Ok(Look::NotYet(Unmet::new(if shown.is_empty() {
        "nothing listens on it".to_owned()
    } else {
        format!("it is listened on at {}", shown.join(", "))
    })))
}

fn look_at_unit(host: &dyn Inspect, name: &str, active: bool) -> Result<Look, ModuleError> {
    let unit = host.unit(name)?;
    let met = if active { unit.is_up() } else { matches!(unit.active_state.as_str(), "inactive" | "failed") };
    if met {
        return Ok(Look::Met(Seen::default()));
    }
    host.live(&format!("the unit `{name}`"))?;
    if unit.load_state == "not-found" {
        return Ok(Look::Never(Unmet::new("there is no such unit")));
    }
    let failed = unit.active_state == "failed";
    let result = if failed { format!(", result: {}", unit.result) } else { String::new() };
    let unmet = Unmet::new(format!("it is {} ({}){result}", unit.active_state, unit.sub_state));
    Ok(if failed { Look::Never(unmet) } else { Look::NotYet(unmet) })
}

fn ask(
    host: &dyn Inspect,
    url: &str,
    task: &WaitFor,
    statuses: &[u16],
    body: Option<&Regex>,
    patience: Duration,
) -> Result<Look, ModuleError> {
    // A file that is yet to come is waited for like the server.
    let authorities = match authorities(host, task.ca.as_deref()) {
        Ok(authorities) => authorities,
        Err(unmet) => return Ok(Look::NotYet(unmet)),
    };
    let client = match client(host, task.cert.as_ref(), task.key.as_ref()) {
        Ok(client) => client,
        Err(unmet) => return Ok(Look::NotYet(unmet)),
    };
    let answer = match probe::ask(probe::Request { url, authorities, client, patience }) {
        Ok(answer) => answer,
        Err(met) => {
            let hint = (met.contains("UnknownIssuer") && task.ca.is_none())
                .then(|| "name the authority of the server's certificate with `ca`".to_owned());
            return Ok(Look::NotYet(Unmet { hint, ..Unmet::new(met) }));
        }
    };
    let met = if !statuses.contains(&answer.status) {
        format!("status {}", answer.status)
    } else if body.is_some_and(|body| !body.is_match(&answer.body)) {
        format!("status {}, but the body does not match", answer.status)
    } else {
        return Ok(Look::Met(Seen { answer: Some(answer), ..Seen::default() }));
    };
    Ok(Look::NotYet(Unmet { details: answer.body.lines().take(SHOWN).map(str::to_owned).collect(), ..Unmet::new(met) }))
}

/// Returns the authorities to trust: those of `ca`, else the host's, else Mozilla's as they were built in.
fn authorities(host: &dyn Inspect, ca: Option<&Path>) -> Result<RootCerts, Unmet> {
    let read = |path: &Path| host.read(path, LIMIT);
    if let Some(ca) = ca {
        let pem = read(ca).map_err(|error| Unmet::new(error.message))?;
        return http::authorities(&pem).ok_or_else(|| Unmet::new(format!("`{}` holds no certificate in PEM form", ca.display())));
    }
    let known = http::BUNDLES.iter().filter_map(|path| http::authorities(&read(Path::new(path)).ok()?)).next();
    Ok(known.unwrap_or(RootCerts::WebPki))
}

fn client(host: &dyn Inspect, certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Result<Option<ClientCert>, Unmet> {
    let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
    let read = |path: &Path| host.read(path, LIMIT).map_err(|error| Unmet::new(error.message));
    probe::client(&read(certificate)?, &read(key)?).map(Some).map_err(|what| Unmet::new(format!("`{}`: {what}", certificate.display())))
}

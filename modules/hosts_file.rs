//! Makes sure that `/etc/hosts` gives addresses exactly these names, or does not know them.
//!
//! Each address has one line with exactly the names that are listed for it, in that order; the first is its canonical name.
//! A name that is given to an address is taken from lines of other addresses of the same family (Debian gives a host's own
//! name to 127.0.1.1), since a name must not lead to two machines by accident. All other lines, comments, blank lines and the
//! file's layout stay as they are. What is new goes to the end.
//!
//! With `state = "absent"` the names are taken from their address; an address that has none left, or for which none are listed,
//! loses its line.
//!
//! The loopback address never loses `localhost`: that is refused. A missing file is made. A link at `path` is refused: name the
//! file that it points to.
//!
//! ```lua
//! host:hosts_file({
//!   entries = {
//!     ["10.4.7.11"] = { "hdss7-11.host.com", "hdss7-11" },
//!     ["10.4.7.200"] = { "hdss7-200.host.com", "hdss7-200", "harbor.od.com" },
//!   },
//! })
//! host:hosts_file({ address = "10.4.7.99", state = "absent" })
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::place::{self, Placement};
use crate::api::text::Text;
use crate::api::{Content, Controller, EntryKind, Inspect, Module, ModuleError, OneOrMany, Proposal};

/// Arguments of `hosts_file`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostsFile {
    /// Names by address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entries: Option<BTreeMap<String, OneOrMany>>,
    /// A single address, instead of `entries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The names of `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<OneOrMany>,
    /// Whether the names shall be "present" or "absent".
    #[serde(default)]
    state: State,
    /// The file, absolute.
    #[serde(default = "etc_hosts")]
    path: PathBuf,
}

/// Whether the names shall be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    /// They shall be known.
    #[default]
    Present,
    /// They shall not be known.
    Absent,
}

fn etc_hosts() -> PathBuf {
    "/etc/hosts".into()
}

/// Names by address, as they were written.
type Wanted<'a> = BTreeMap<IpAddr, (&'a str, &'a [String])>;

impl Module for HostsFile {
    const NAME: &'static str = "hosts_file";

    fn prepare(&mut self, _: &dyn Controller) -> Result<(), ModuleError> {
        self.path = place::absolute_file(&self.path, "path")?;
        self.wanted().map(|_| ())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let wanted = self.wanted()?;
        let now = host.entry(&self.path)?;
        let before = match now.as_ref().map(|entry| &entry.kind) {
            Some(EntryKind::File) => host.read(&self.path, place::TEXT_LIMIT)?,
            Some(_) => return Err(place::in_the_way(&self.path, now.as_ref(), "path")),
            None if self.state == State::Absent || wanted.is_empty() => return Ok(Proposal::default()),
            None => Vec::new(),
        };
        Placement {
            path: &self.path,
            argument: "path",
            content: Content::Inline(self.edited(&before, &wanted)?),
            asked: (&None, &None, &None),
            default_mode: place::FILE_MODE,
            validate: None,
            parents: false,
            secret: false,
        }
        .changes(host)
        .map(Proposal::new)
    }

    #[cfg(test)]
    fn examples() -> Vec<crate::api::conformance::Example> {
        tests::examples()
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}

impl HostsFile {
    /// Returns what is asked for, with every address and name looked at.
    fn wanted(&self) -> Result<Wanted<'_>, ModuleError> {
        let single = self.names.as_ref().map_or(&[][..], |names| names.0.as_slice());
        let given: Vec<(&str, &[String], &str)> = match (&self.entries, &self.address) {
            (Some(_), Some(_)) => return Err(ModuleError::argument("`entries` and `address` exclude each other").at("address")),
            (None, None) => return Err(ModuleError::argument("neither `entries` nor `address` is given")),
            (Some(_), None) if self.names.is_some() => {
                return Err(ModuleError::argument("`names` belongs to `address`, and there is none").at("names"));
            }
            (Some(entries), None) => entries.iter().map(|(address, names)| (address.as_str(), names.0.as_slice(), "entries")).collect(),
            (None, Some(address)) => vec![(address, single, if single.is_empty() { "address" } else { "names" })],
        };
        let mut wanted = Wanted::new();
        for (text, names, argument) in given {
            let refuse = |message: String| ModuleError::argument(message).at(argument);
            let address: IpAddr = text.parse().map_err(|_| refuse(format!("`{text}` is no IP address")))?;
            if names.is_empty() && self.state == State::Present {
                return Err(refuse(format!("`{text}` has no names")).hint("list them, or add `state = \"absent\"`"));
            }
            if let Some(name) = names.iter().find(|name| !is_name(name)) {
                return Err(refuse(format!("`{name}` is no host name")).hint("letters, digits, `-`, `_` and dots make one"));
            }
            if wanted.insert(address, (text, names)).is_some() {
                return Err(refuse(format!("`{text}` is listed twice, written in two ways")));
            }
        }
        Ok(wanted)
    }

    /// Returns what becomes of the file's content.
    fn edited(&self, content: &[u8], wanted: &Wanted<'_>) -> Result<Vec<u8>, ModuleError> {
        let mut text = Text::parse(content);
        let mut missing = wanted.clone();
        // From the end, so that what is removed does not move what is still to come; the first line of an address is the one kept.
        let lines: Vec<Option<Line>> = text.iter().map(Line::parse).collect();
        let first = |address: &IpAddr| lines.iter().position(|line| line.as_ref().is_some_and(|line| line.address == *address));
        let mut gone = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let Some(line) = line else { continue };
            missing.remove(&line.address);
            let names = self.names_of(line, wanted, first(&line.address) == Some(at));
            if line.address.is_loopback()
                && !names.iter().any(|name| name == "localhost")
                && line.names.iter().any(|name| name == "localhost")
            {
                return Err(ModuleError::host(format!("`{}` would lose `localhost` in `{}`", line.address, self.path.display()))
                    .at(if self.entries.is_some() { "entries" } else { "names" })
                    .hint("list `localhost` among its names: much breaks without it"));
            }
            match (names == line.names, names.is_empty(), line.comment.is_empty()) {
                (true, _, _) => {}
                (false, true, true) => gone.push(at),
                (false, true, false) => text.replace(at, line.comment.trim_ascii_start()),
                (false, false, _) => text.replace(at, &line.with(&names)),
            }
        }
        text.retain(|at, _| !gone.contains(&at));
        if self.state == State::Present {
            for (address, names) in missing.values() {
                text.insert(text.len(), format!("{address}\t{}", names.join(" ")).as_bytes());
            }
        }
        Ok(text.to_bytes())
    }

    /// Returns the names that a line shall have; none when it shall go.
    fn names_of(&self, line: &Line, wanted: &Wanted<'_>, first: bool) -> Vec<String> {
        let is_one_of = |names: &[String], name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        let left = |taken: &dyn Fn(&str) -> bool| line.names.iter().filter(|name| !taken(name)).cloned().collect();
        match (self.state, wanted.get(&line.address)) {
            (State::Present, Some((_, names))) if first => names.to_vec(),
            (State::Present, Some(_)) => Vec::new(),
            (State::Present, None) => left(&|name| {
                let mut family = wanted.iter().filter(|(address, _)| address.is_ipv4() == line.address.is_ipv4());
                family.any(|(_, (_, names))| is_one_of(names, name))
            }),
            (State::Absent, Some((_, []))) => Vec::new(),
            (State::Absent, Some((_, names))) => left(&|name| is_one_of(names, name)),
            (State::Absent, None) => line.names.clone(),
        }
    }
}

/// A line that gives names to an address.
struct Line {
    address: IpAddr,
    /// All before the first name.
    head: String,
    names: Vec<String>,
    /// All from the white space before `#`, or empty; in whatever encoding.
    comment: Vec<u8>,
}

impl Line {
    /// Reads a line; `None` when it gives no name to an address.
    fn parse(text: &[u8]) -> Option<Self> {
        let body = &text[..text.iter().position(|byte| *byte == b'#').unwrap_or(text.len())];
        let trimmed = body.trim_ascii_end();
        let comment = if body.len() < text.len() { &text[trimmed.len()..] } else { &[] };
        // Resolvers read names in ASCII; what is something else is no line of theirs.
        let body = std::str::from_utf8(trimmed).ok()?;
        let mut words = body.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let names: Vec<String> = words.map(str::to_owned).collect();
        let after_address = body.trim_start().find(char::is_whitespace)? + (body.len() - body.trim_start().len());
        let head = after_address + (body[after_address..].len() - body[after_address..].trim_start().len());
        Some(Self { address, head: body[..head].to_owned(), names, comment: comment.to_vec() })
    }

    /// Returns the line with other names.
    fn with(&self, names: &[String]) -> Vec<u8> {
        [self.head.as_bytes(), names.join(" ").as_bytes(), &self.comment].concat()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests;

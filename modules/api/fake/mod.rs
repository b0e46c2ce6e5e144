//! A host in memory: what modules are tested on, in tables of cases, without touching anything.
//!
//! ```
//! use kplay_modules::api::fake::Fake;
//!
//! let host = Fake::new().file("/etc/motd", "welcome\n").user("app", 1000).unit("nginx.service", |unit| unit.active_state = "active".into());
//! assert!(host.state().contains_key("/etc/motd"));
//! ```
//!
//! `apply(&module, &mut host)` checks and performs; the host's `state()` before and after are compared as maps of lines.

mod controller;
mod inspect;
mod nodes;
mod perform;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::ModuleError;
use super::inspect::{CommandOutput, Facts, GroupEntry, Inspect, Unit, UserEntry};
use super::module::{AnyModule, Proposal};
use super::perform::{Perform, Upstream};
use super::types::{Attributes, Blob, Digest, Owner};

pub use controller::Desk;
use nodes::Node;
pub use perform::DIES;

/// What a package or command does to a host in memory.
type Effect = fn(Fake) -> Fake;

/// A host in memory. Built by chained calls; missing parents of files are made, owned by root, mode 0755.
#[derive(Clone)]
pub struct Fake {
    /// What lies at each path, no link among its parents.
    nodes: BTreeMap<PathBuf, Node>,
    users: BTreeMap<String, UserEntry>,
    groups: BTreeMap<String, GroupEntry>,
    units: BTreeMap<String, Unit>,
    /// What units say in their logs.
    said: BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
    /// Installed packages and their versions.
    installed: BTreeMap<String, String>,
    /// Packages that can be installed, their versions, and what they bring.
    offered: BTreeMap<String, (String, Effect)>,
    /// Commands by the head of their argument list, how they end, and what they do.
    commands: Vec<(Vec<String>, CommandOutput, Effect)>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    records: BTreeMap<String, Vec<u8>>,
    facts: Facts,
    /// Nanoseconds since 1970; each change takes one second.
    clock: i64,
    /// Whether `Inspect::forecasting` says so.
    forecast: bool,
    /// Command lines run and changes performed, in order.
    log: Vec<String>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// Creates a Debian host with root, `/etc`, `/root`, `/tmp`, `/var` and nothing else.
    pub fn new() -> Self {
        let facts = Facts {
            hostname: "fake".into(),
            architecture: "x86_64".into(),
            kernel: "6.1.0".into(),
            os: "debian".into(),
            os_version: "12".into(),
            os_codename: "bookworm".into(),
            os_family: "debian".into(),
            package_manager: "apt".into(),
            init: "systemd".into(),
            processors: 2,
            memory_mib: 4096,
            user: "root".into(),
            home: "/root".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            ..Facts::default()
        };
        let empty = Self {
            nodes: BTreeMap::from([(PathBuf::from("/"), Node::directory(0o755, 0))]),
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            units: BTreeMap::new(),
            said: BTreeMap::new(),
            parameters: BTreeMap::new(),
            installed: BTreeMap::new(),
            offered: BTreeMap::new(),
            commands: Vec::new(),
            blobs: BTreeMap::new(),
            records: BTreeMap::new(),
            facts,
            clock: 1_700_000_000_000_000_000,
            forecast: false,
            log: Vec::new(),
        };
        empty.user("root", 0).directory("/etc").directory("/root").directory("/tmp").directory("/var")
    }

    /// Adds a file owned by root, mode 0644.
    #[must_use]
    pub fn file(self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Self {
        self.file_with(path, content, 0o644, 0, 0)
    }

    /// Adds a file with mode and numeric owners.
    #[must_use]
    pub fn file_with(mut self, path: impl AsRef<Path>, content: impl AsRef<[u8]>, mode: u32, owner: u32, group: u32) -> Self {
        self.parents(path.as_ref());
        let now = self.clock;
        self.nodes.insert(path.as_ref().to_owned(), Node::file(content.as_ref().to_vec(), attributes(mode, owner, group), now));
        self
    }

    /// Adds a directory owned by root, mode 0755.
    #[must_use]
    pub fn directory(self, path: impl AsRef<Path>) -> Self {
        self.directory_with(path, 0o755, 0, 0)
    }

    /// Adds a directory with mode and numeric owners.
    #[must_use]
    pub fn directory_with(mut self, path: impl AsRef<Path>, mode: u32, owner: u32, group: u32) -> Self {
        self.parents(path.as_ref());
        let mut node = Node::directory(mode, self.clock);
        node.attributes = attributes(mode, owner, group);
        self.nodes.insert(path.as_ref().to_owned(), node);
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.parents(path.as_ref());
        let now = self.clock;
        self.nodes.insert(path.as_ref().to_owned(), Node::link(target.as_ref(), now));
        self
    }

    /// Adds a device, as a stand-in for everything that is neither file nor directory nor link.
    #[must_use]
    pub fn special(mut self, path: impl AsRef<Path>) -> Self {
        self.parents(path.as_ref());
        let now = self.clock;
        self.nodes.insert(path.as_ref().to_owned(), Node::other(now));
        self
    }

    /// Adds a user with a group of the same name and number, home `/home/NAME` (root's is `/root`), shell `/bin/sh`.
    #[must_use]
    pub fn user(self, name: &str, id: u32) -> Self {
        let home = if id == 0 { "/root".to_owned() } else { format!("/home/{name}") };
        let entry = UserEntry {
            name: name.to_owned(),
            id: Owner::Id(id),
            group: Owner::Id(id),
            comment: String::new(),
            home: home.into(),
            shell: "/bin/sh".to_owned(),
            groups: Vec::new(),
            password: Some("$6$salt$hash".to_owned()),
        };
        let mut made = self.group(name, id);
        made.users.insert(name.to_owned(), entry);
        made
    }

    /// Gives a user a password, by its hash.
    #[must_use]
    pub fn password(mut self, name: &str, hash: &str) -> Self {
        if let Some(user) = self.users.get_mut(name) {
            user.password = Some(hash.to_owned());
        }
        self
    }

    /// Adds a group without members.
    #[must_use]
    pub fn group(mut self, name: &str, id: u32) -> Self {
        self.groups.insert(name.to_owned(), GroupEntry { name: name.to_owned(), id: Owner::Id(id), members: Vec::new() });
        self
    }

    /// Sets what a unit says in its log.
    #[must_use]
    pub fn unit_says(mut self, name: &str, text: &str) -> Self {
        self.said.insert(super::units::full_name(name), text.to_owned());
        self
    }

    /// Adds a unit that is loaded, inactive and disabled, as `change` alters it.
    #[must_use]
    pub fn unit(mut self, name: &str, change: impl FnOnce(&mut Unit)) -> Self {
        let mut unit = Unit {
            load_state: "loaded".into(),
            active_state: "inactive".into(),
            sub_state: "dead".into(),
            unit_file_state: "disabled".into(),
            kind: "simple".into(),
            result: "success".into(),
            ..Unit::default()
        };
        change(&mut unit);
        self.units.insert(super::units::full_name(name), unit);
        self
    }

    /// Adds a kernel parameter.
    #[must_use]
    pub fn sysctl(mut self, key: &str, value: &str) -> Self {
        self.parameters.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an installed package.
    #[must_use]
    pub fn package(mut self, name: &str, version: &str) -> Self {
        self.installed.insert(name.to_owned(), version.to_owned());
        self
    }

    /// Adds a package that can be installed; `brings` adds its files and units.
    #[must_use]
    pub fn offer(mut self, name: &str, version: &str, brings: fn(Fake) -> Fake) -> Self {
        self.offered.insert(name.to_owned(), (version.to_owned(), brings));
        self
    }

    /// Says how commands end whose argument list begins with these words; the longest such head counts, the latest of equals.
    #[must_use]
    pub fn command(self, head: &str, output: CommandOutput) -> Self {
        self.command_that(head, output, |host| host)
    }

    /// Says how commands end that begin with these words, and what they do to the host.
    #[must_use]
    pub fn command_that(mut self, head: &str, output: CommandOutput, effect: fn(Fake) -> Fake) -> Self {
        self.commands.push((head.split_whitespace().map(str::to_owned).collect(), output, effect));
        self
    }

    /// Adds what the agent recorded under `key`.
    #[must_use]
    pub fn recorded(mut self, key: &str, value: &super::change::Recorded) -> Self {
        self.records.insert(key.to_owned(), serde_json::to_vec(value).unwrap_or_default());
        self
    }

    /// Changes the facts.
    #[must_use]
    pub fn facts_with(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.facts);
        self
    }

    /// Makes `forecasting` answer as in check mode.
    #[must_use]
    pub fn forecasting(mut self) -> Self {
        self.forecast = true;
        self
    }

    /// Sets the clock, seconds since 1970.
    #[must_use]
    pub fn at(mut self, seconds: i64) -> Self {
        self.clock = seconds * 1_000_000_000;
        self
    }

    /// Makes content available by its digest, as the controller does with blobs.
    pub fn blob(&mut self, content: impl AsRef<[u8]>) -> Blob {
        let bytes = content.as_ref().to_vec();
        let blob = Blob { digest: Digest::of(&bytes), size: bytes.len() as u64, secret: false };
        self.blobs.insert(blob.digest, bytes);
        blob
    }

    /// Makes everything available that a controller in memory has registered while modules were prepared.
    pub fn take_blobs(&mut self, desk: &Desk) {
        self.blobs.extend(desk.blobs());
    }

    /// Returns a file's content as text, for assertions; `None` when there is no file.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        self.read(path.as_ref(), u64::MAX).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the commands run and changes performed, in order.
    pub fn log(&self) -> &[String] {
        &self.log
    }

    /// Returns everything that a change could alter, by name, as lines that make readable differences. Times, process numbers
    /// and invocations are left out.
    pub fn state(&self) -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        for (path, node) in &self.nodes {
            state.insert(path.display().to_string(), node.shown());
        }
        for (name, user) in &self.users {
            state.insert(
                format!("user {name}"),
                format!("{:?} {:?} {:?} {} {} {:?}", user.id, user.group, user.comment, user.home.display(), user.shell, user.groups),
            );
        }
        for (name, group) in &self.groups {
            state.insert(format!("group {name}"), format!("{:?} {:?}", group.id, group.members));
        }
        for (name, unit) in &self.units {
            state.insert(format!("unit {name}"), format!("{} {} {}", unit.load_state, unit.active_state, unit.unit_file_state));
        }
        state.extend(self.parameters.iter().map(|(key, value)| (format!("sysctl {key}"), value.clone())));
        state.extend(self.installed.iter().map(|(name, version)| (format!("package {name}"), version.clone())));
        state
    }

    fn parents(&mut self, path: &Path) {
        let now = self.clock;
        for parent in path.ancestors().skip(1) {
            self.nodes.entry(parent.to_owned()).or_insert_with(|| Node::directory(0o755, now));
        }
    }
}

/// Checks `module` and performs what it proposes, as the agent does; a command that ends badly is an error.
pub fn apply(module: &dyn AnyModule, host: &mut Fake) -> Result<Proposal, ModuleError> {
    let proposal = module.check(host)?;
    for change in &proposal.changes {
        let performed = host.perform(change, &mut Alone)?;
        if let (super::change::Change::Run(run), Some(output)) = (change, performed.command)
            && !output.code.is_some_and(|code| run.ok_codes.contains(&code) || run.ok_codes.is_empty() && code == 0)
        {
            return Err(ModuleError::host(format!("`{}` ended with {}", run.command.shown(), output.ending())));
        }
    }
    Ok(proposal)
}

/// Stands for a controller that is not there: a host in memory keeps its blobs itself.
pub struct Alone;

impl Upstream for Alone {
    fn blob(&mut self, blob: &Blob) -> Result<Box<dyn std::io::Read + '_>, ModuleError> {
        Err(ModuleError::host(format!("the controller has no content with the digest {}", blob.digest.hex())))
    }

    fn sign(&mut self, _request: &[u8]) -> Result<String, ModuleError> {
        Err(ModuleError::host("there is no controller that signs"))
    }

    fn deliver(&mut self, content: &mut dyn std::io::Read) -> Result<(), ModuleError> {
        std::io::copy(content, &mut std::io::sink()).map(|_| ()).map_err(|error| ModuleError::host(error.to_string()))
    }
}

fn attributes(mode: u32, owner: u32, group: u32) -> Attributes {
    Attributes { mode, owner: Owner::Id(owner), group: Owner::Id(group) }
}

#[cfg(test)]
mod tests;

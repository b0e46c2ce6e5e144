//! Installs and removes packages, with apt, dnf or yum.
//!
//! ```lua
//! host:package({ name = { "nginx-light", "libnginx-mod-stream" } })
//! host:package({ name = "etcd-server", state = "absent", purge = true })
//! ```
//!
//! All packages of a task are handled in one transaction; with dnf and yum, those that get a newer version in another one.
//! `NAME=VERSION` pins a version; a `*` at the end of the version stands for any rest. `state = "latest"` compares with the
//! package lists that the host has.
//!
//! On Debian, services start when their package is installed, before anything has configured them. Here they do not, unless
//! `start_services = true`: configure them first, then start them with `systemd`.
//!
//! For dnf and yum a name may also be what a package provides; `latest` needs the package's own.
//!
//! The package lists are fetched when a package is not in them. `update = true` fetches them whenever something is to be
//! installed; without a `name` it fetches them each time and does nothing else.
//!
//! Results: `versions`, the versions that are installed, by name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::change::Packages;
#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::inspect::Command;
use crate::api::{Change, Controller, Footprint, Inspect, Module, ModuleError, OneOrMany, Proposal};

/// Arguments of `package`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// A package or a list of them, by the names of the host's package manager, each `NAME` or `NAME=VERSION`.
    #[serde(default, alias = "names")]
    name: OneOrMany,
    /// `present`, `absent` or `latest`.
    #[serde(default)]
    state: State,
    /// Whether the package lists are fetched before something is installed.
    #[serde(default)]
    update: bool,
    /// Whether services may start when their package is installed.
    #[serde(default)]
    start_services: bool,
    /// Whether packages that are removed lose their configuration, too.
    #[serde(default)]
    purge: bool,
    /// Seconds the transaction may take; 0 means half an hour.
    #[serde(default)]
    timeout: u64,
}

/// What `state` may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Present,
    Absent,
    Latest,
}

impl Module for Package {
    const NAME: &'static str = "package";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        if self.name.0.is_empty() && (!self.update || self.state != State::Present) {
            return Err(ModuleError::argument("no package is named").at("name"));
        }
        let mut seen = BTreeMap::new();
        for wish in &self.name.0 {
            let (name, version) = parts(wish);
            let strange = |text: &str| {
                text.is_empty() || text.starts_with('-') || text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
            };
            if strange(name) || version.is_some_and(strange) || name.ends_with(['-', '+']) && !name.ends_with("++") {
                return Err(ModuleError::argument(format!("`{wish}` is not the name of a package"))
                    .at("name")
                    .hint("write \"nginx\" or \"nginx=1.22.1-9\", and several as a list"));
            }
            if version.is_some() && self.state != State::Present {
                return Err(ModuleError::argument(format!(
                    "`{wish}` pins a version, which means something for `state = \"present\"` alone"
                ))
                .at("name"));
            }
            if seen.insert(name, version).is_some_and(|earlier| earlier != version) {
                return Err(ModuleError::argument(format!("`{name}` is named twice with different versions")).at("name"));
            }
        }
        let useless =
            [("purge", self.purge && self.state != State::Absent), ("start_services", self.start_services && self.state == State::Absent)];
        match useless.into_iter().find(|(_, given)| *given) {
            Some((argument, _)) => Err(ModuleError::argument(format!("`{argument}` means nothing for this `state`")).at(argument)),
            None => Ok(()),
        }
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let names: Vec<String> = self.name.0.iter().map(|wish| parts(wish).0.to_owned()).collect();
        let installed = if names.is_empty() { BTreeMap::new() } else { host.packages(&names)? };
        let (install, remove) = match self.state {
            State::Absent => (Vec::new(), names.iter().filter(|name| installed.contains_key(*name)).cloned().collect()),
            State::Present => (self.name.0.iter().filter(|wish| !is_installed(wish, &installed)).cloned().collect(), Vec::new()),
            State::Latest => (self.outdated(host, &names, &installed)?, Vec::new()),
        };
        let versions: Map<String, Value> = installed.iter().map(|(name, version)| (name.clone(), version.clone().into())).collect();
        let fetches_only = names.is_empty();
        let mut changes = Vec::new();
        if !install.is_empty() || !remove.is_empty() || fetches_only {
            changes.push(Change::Packages(Packages {
                install: distinct(install),
                remove: distinct(remove),
                purge: self.purge,
                update: self.update,
                start_services: self.start_services,
                before: installed,
                timeout: self.timeout,
            }));
        }
        let proposal = Proposal::new(changes).with("versions", versions);
        Ok(if fetches_only { proposal.repeating() } else { proposal })
    }

    fn reach(&self) -> Footprint {
        Footprint::System
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        tests::examples()
    }
}

impl Package {
    /// Returns the packages that are missing or older than what the host's package lists offer.
    fn outdated(&self, host: &dyn Inspect, names: &[String], installed: &BTreeMap<String, String>) -> Result<Vec<String>, ModuleError> {
        let present: Vec<&String> = names.iter().filter(|name| installed.contains_key(*name)).collect();
        let newer = if present.is_empty() {
            Vec::new()
        } else if host.facts().package_manager == "apt" {
            let output =
                host.run(&Command::new(["apt-cache", "policy", "--"].into_iter().chain(present.iter().map(|name| name.as_str()))))?;
            if !output.success() {
                return Err(ModuleError::host(format!("`apt-cache policy` failed: {}", output.ending()))
                    .details(output.stderr.lines().map(str::to_owned)));
            }
            newer_by_policy(&output.stdout)
        } else {
            let manager = host.facts().package_manager.clone();
            let mut command =
                Command::new([manager.as_str(), "-q", "check-update", "--"].into_iter().chain(present.iter().map(|name| name.as_str())));
            command.timeout = 300;
            let output = host.run(&command)?;
            // 100 says that there are updates.
            match output.code {
                Some(0) => Vec::new(),
                Some(100) => newer_by_update_list(&output.stdout),
                _ => {
                    return Err(ModuleError::host(format!("`{manager} check-update` failed: {}", output.ending()))
                        .details(output.stderr.lines().map(str::to_owned)));
                }
            }
        };
        Ok(names.iter().filter(|name| !installed.contains_key(*name) || newer.contains(name)).cloned().collect())
    }
}

/// Splits `NAME=VERSION`.
fn parts(wish: &str) -> (&str, Option<&str>) {
    match wish.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (wish, None),
    }
}

fn is_installed(wish: &str, installed: &BTreeMap<String, String>) -> bool {
    let (name, version) = parts(wish);
    match (installed.get(name), version) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(now), Some(version)) => match version.strip_suffix('*') {
            Some(head) => now.starts_with(head),
            // rpm's release may be left out.
            None => now == version || now.strip_prefix(version).is_some_and(|rest| rest.starts_with('-') && !rest[1..].contains('-')),
        },
    }
}

/// Reads `apt-cache policy`: a name, then indented what is installed and what could be.
fn newer_by_policy(text: &str) -> Vec<String> {
    let mut newer = Vec::new();
    let (mut name, mut now) = ("", "");
    for line in text.lines() {
        if !line.starts_with(' ') {
            name = line.trim_end().trim_end_matches(':');
        } else if let Some(version) = line.trim().strip_prefix("Installed: ") {
            now = version;
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ")
            && version != now
            && version != "(none)"
        {
            newer.push(name.to_owned());
        }
    }
    newer
}

/// Reads `dnf check-update`: `NAME.ARCHITECTURE VERSION REPOSITORY`, up to the packages that would be replaced.
fn newer_by_update_list(text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| !line.starts_with("Obsoleting"));
    lines.filter_map(|line| Some(line.split_whitespace().next()?.rsplit_once('.')?.0.to_owned())).collect()
}

fn distinct(mut names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests;

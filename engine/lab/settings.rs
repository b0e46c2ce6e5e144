//! What an inventory says of a lab: the `lab:` settings of its hosts.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Result};

/// One host of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabHost {
    /// Name in the inventory; also its host name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The rest of its `lab:` settings.
    pub settings: LabSettings,
}

/// The `lab:` settings of a host; what is left out has a default, so that `lab: {}` is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabSettings {
    /// The host's address, when it differs from the one that the inventory connects to.
    pub address: Option<Ipv4Addr>,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Address of the lab's end of the network, to which the hosts' default routes lead; the highest free one by default.
    pub gateway: Option<Ipv4Addr>,
    /// Name of the network interface inside the host.
    pub interface: String,
    /// Debian packages that can be installed in the host, with what they depend on; nothing of them is installed.
    pub packages: Vec<String>,
    /// Debian packages that are there from the start.
    pub include: Vec<String>,
    /// Debian release.
    pub suite: String,
    /// Where Debian comes from.
    pub mirror: String,
    /// Whether the lab keeps a Kubernetes server archive in its cache, building it when there is none.
    pub kubernetes: bool,
}

impl Default for LabSettings {
    fn default() -> Self {
        Self {
            address: None,
            prefix: 24,
            gateway: None,
            interface: "ens32".to_owned(),
            packages: Vec::new(),
            include: Vec::new(),
            suite: "bookworm".to_owned(),
            mirror: "http://deb.debian.org/debian".to_owned(),
            kubernetes: false,
        }
    }
}

impl LabHost {
    /// Reads a host's `lab:` settings. `address` is the one that the inventory connects to.
    ///
    /// # Errors
    /// Settings that are unknown, of a wrong type, or cannot be: names and addresses end up in file names and commands.
    pub fn from_settings(name: &str, address: Option<&str>, settings: serde_json::Value) -> Result<Self> {
        // A list would be read as the settings in the order of their declaration.
        if !settings.is_object() {
            return Err(Diagnostic::user("wrong `lab` settings: not a mapping").on(name).hint("`lab: {}` takes the defaults"));
        }
        let settings: LabSettings = serde_json::from_value(settings)
            .map_err(|error| Diagnostic::user(format!("wrong `lab` settings: {error}")).on(name).hint("see `kplay lab --help`"))?;
        let found = settings.address.map(Ok).or_else(|| address.map(str::parse));
        let address = match found {
            Some(Ok(address)) => address,
            Some(Err(_)) => {
                let shown = address.unwrap_or_default();
                return Err(Diagnostic::user(format!("a lab host needs an IPv4 address, not `{shown}`"))
                    .on(name)
                    .hint("set `address:` in its `lab` settings"));
            }
            None => {
                return Err(Diagnostic::user("a lab host needs an address")
                    .on(name)
                    .hint("set `address: 10.0.0.2`, or `address:` in its `lab` settings"));
            }
        };
        let host = Self { name: name.to_owned(), address, settings };
        host.validate()?;
        Ok(host)
    }

    fn validate(&self) -> Result<()> {
        let wrong = |message: String| Err(Diagnostic::user(message).on(&self.name));
        let settings = &self.settings;
        if !is_label(&self.name) || self.name.len() > 63 {
            return wrong(format!("`{}` cannot be the name of a lab host", self.name))
                .map_err(|error| error.hint("use letters, digits, `-` and `.`, at most 63, beginning with a letter or digit"));
        }
        if !(8..=30).contains(&settings.prefix) {
            return wrong(format!("`prefix: {}` is not between 8 and 30", settings.prefix));
        }
        if !is_label(&settings.interface) || settings.interface.len() > 15 {
            return wrong(format!("`{}` cannot be the name of an interface", settings.interface))
                .map_err(|error| error.hint("at most 15 letters, digits and `-`"));
        }
        if !is_label(&settings.suite) {
            return wrong(format!("`{}` is not a Debian release", settings.suite));
        }
        match settings.packages.iter().chain(&settings.include).find(|package| !is_package(package)) {
            Some(package) => wrong(format!("`{package}` is not the name of a Debian package")),
            None => Ok(()),
        }
    }
}

/// Returns the network that all hosts share and the lab's own address in it.
///
/// # Errors
/// Hosts in different networks, two hosts with one address, or no address left for the lab.
pub fn network_of(hosts: &[LabHost]) -> Result<(Ipv4Addr, u8, Ipv4Addr)> {
    let Some(first) = hosts.first() else {
        return Err(Diagnostic::user("no host of this inventory has `lab` settings").hint("give hosts `lab: {}`; see inventory/hdss7.yaml"));
    };
    let prefix = first.settings.prefix;
    let mask = u32::MAX << (32 - u32::from(prefix));
    let network = u32::from(first.address) & mask;
    let shown = format!("{}/{prefix}", Ipv4Addr::from(network));
    for (index, host) in hosts.iter().enumerate() {
        if host.settings.prefix != prefix || u32::from(host.address) & mask != network {
            return Err(Diagnostic::user(format!("`{}` is outside the lab's network {shown}", host.address))
                .on(&host.name)
                .hint("all hosts of a lab share one network; set `prefix:` in their `lab` settings"));
        }
        if let Some(other) = hosts[..index].iter().find(|other| other.address == host.address) {
            return Err(Diagnostic::user(format!("`{}` is also the address of `{}`", host.address, other.name)).on(&host.name));
        }
        if let Some(other) = hosts[..index].iter().find(|other| other.name == host.name) {
            return Err(Diagnostic::user(format!("there are two hosts named `{}`", other.name)));
        }
    }
    let taken = |candidate: u32| hosts.iter().any(|host| u32::from(host.address) == candidate);
    let gateway =
        match hosts.iter().find_map(|host| host.settings.gateway) {
            Some(gateway) if u32::from(gateway) & mask != network || taken(gateway.into()) => {
                return Err(Diagnostic::user(format!("`gateway: {gateway}` is not a free address of the lab's network {shown}")));
            }
            Some(gateway) => gateway,
            None => (network + 1..network | !mask).rev().find(|candidate| !taken(*candidate)).map(Ipv4Addr::from).ok_or_else(|| {
                Diagnostic::user(format!("no address is left for the lab itself in {shown}")).hint("use a shorter `prefix:`")
            })?,
        };
    Ok((Ipv4Addr::from(network), prefix, gateway))
}

fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    text.bytes().next().is_some_and(plain) && text.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.')
}

fn is_package(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:~=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn host(name: &str, address: &str, settings: serde_json::Value) -> LabHost {
        LabHost::from_settings(name, Some(address), settings).unwrap()
    }

    #[test]
    fn empty_settings_are_enough() {
        let host = host("web1", "10.0.0.2", json!({}));
        assert_eq!(host.settings, LabSettings::default());
        assert_eq!(host.settings.interface, "ens32");
    }

    #[test]
    fn wrong_settings_name_the_host() {
        for (settings, needle) in [
            (json!({ "pakages": [] }), "pakages"),
            (json!({ "prefix": 31 }), "prefix"),
            (json!({ "interface": "eth0; reboot" }), "interface"),
            (json!({ "packages": ["--download"] }), "package"),
            (json!({ "address": "10.0.0" }), "address"),
            (json!([]), "settings"),
        ] {
            let error = LabHost::from_settings("web1", Some("10.0.0.2"), settings).unwrap_err();
            assert!(error.message.contains(needle), "{error}");
            assert_eq!(error.host.as_deref(), Some("web1"));
        }
        assert!(LabHost::from_settings("../etc", Some("10.0.0.2"), json!({})).is_err());
        assert!(LabHost::from_settings("web1", Some("web1.example"), json!({})).is_err());
        assert!(LabHost::from_settings("web1", None, json!({})).is_err());
    }

    #[test]
    fn the_lab_takes_the_highest_free_address() {
        let hosts = [host("a", "10.4.7.254", json!({})), host("b", "10.4.7.11", json!({}))];
        assert_eq!(network_of(&hosts).unwrap(), ("10.4.7.0".parse().unwrap(), 24, "10.4.7.253".parse().unwrap()));
        let hosts = [host("a", "10.4.7.11", json!({ "gateway": "10.4.7.1" }))];
        assert_eq!(network_of(&hosts).unwrap().2, Ipv4Addr::new(10, 4, 7, 1));
    }

    #[test]
    fn hosts_that_cannot_share_a_network_are_refused() {
        let a = host("a", "10.4.7.11", json!({}));
        for other in [
            host("b", "10.4.8.11", json!({})),
            host("b", "10.4.7.11", json!({})),
            host("b", "10.4.7.12", json!({ "gateway": "10.4.7.11" })),
        ] {
            assert!(network_of(&[a.clone(), other]).is_err());
        }
        assert!(network_of(&[]).is_err());
    }
}

//! The lab's memory: what it is made of, written before it is made.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layout::Lab;
use super::settings::LabHost;
use crate::diagnostic::{Diagnostic, Result};

/// Everything a lab is made of, as far as it could have been begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Network and gateway; `None` until the lab's namespace is complete.
    pub network: Option<Network>,
    /// Folder of the hosts' own files.
    pub folder: PathBuf,
    /// Whether /run/netns was not there before this lab.
    pub made_netns_folder: bool,
    /// The hosts by name.
    pub hosts: BTreeMap<String, HostState>,
}

/// The network that the hosts share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its first address.
    pub address: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// The lab's own address.
    pub gateway: Ipv4Addr,
}

/// What a host is made of. A running host stays as long as this stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// What the inventory says.
    pub host: LabHost,
    /// Number within the lab, which names the lab's end of the host's cable.
    pub number: u32,
    /// Name of its network namespace and of its container.
    pub namespace: String,
    /// Folder of its own files: `upper`, `work`, `root`.
    pub folder: PathBuf,
    /// The Debian tree below its own files.
    pub base: PathBuf,
    /// The folder with the packages that it can install.
    pub packages: Option<PathBuf>,
    /// Its control groups.
    pub cgroups: Vec<PathBuf>,
}

impl State {
    /// Reads a lab's state; `None` when there is no lab.
    ///
    /// # Errors
    /// The file cannot be read, or was written by another version.
    pub fn load(lab: &Lab) -> Result<Option<Self>> {
        let path = lab.state_file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Diagnostic::user(format!("cannot read `{}`: {error}", path.display()))),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Diagnostic::user(format!("cannot read `{}`: {error}", path.display()))
                .hint("it was written by another version of kplay; use that version to take the lab down")
        })
    }

    /// Writes the state down, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, lab: &Lab) -> Result<()> {
        let path = lab.state_file();
        let part = path.with_extension("json.part");
        let wrong = |error: std::io::Error| Diagnostic::user(format!("cannot write `{}`: {error}", path.display()));
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Diagnostic::internal(format!("cannot write the lab's state: {error}")))?;
        std::fs::create_dir_all(lab.state_folder()).map_err(wrong)?;
        std::fs::write(&part, text).map_err(wrong)?;
        std::fs::rename(&part, &path).map_err(wrong)
    }

    /// Returns the lowest number that no host has.
    pub fn free_number(&self) -> u32 {
        (0..).find(|number| self.hosts.values().all(|host| host.number != *number)).unwrap_or_default()
    }
}

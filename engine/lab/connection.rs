//! How the hosts of a lab are reached, for inventories whose lab is up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::layout::{Lab, default_cache, namespace_path};
use super::state::State;

/// What a connection to a host of a lab needs beyond its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabConnection {
    /// The namespace to connect from.
    pub namespace: PathBuf,
    /// The key that opens the hosts for root.
    pub private_key: PathBuf,
    /// The hosts' keys.
    pub known_hosts: PathBuf,
    /// Names of the lab's hosts. Other hosts of the inventory are not in the lab.
    pub hosts: BTreeSet<String>,
}

/// Returns how the lab of an inventory is reached; `None` when it has no lab, or the lab is down.
pub fn connection_settings(inventory: &Path) -> Option<LabConnection> {
    let lab = Lab::of(inventory, default_cache()).ok()?;
    let state = State::load(&lab).ok().flatten()?;
    let namespace = namespace_path(&lab.namespace());
    let up = state.network.is_some() && namespace.exists();
    up.then(|| LabConnection {
        namespace,
        private_key: lab.private_key(),
        known_hosts: lab.known_hosts(),
        hosts: state.hosts.into_keys().collect(),
    })
}

//! How the hosts of a lab are reached, for inventories whose lab is up.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::layout::{Lab, default_cache, namespace_path};
use super::state::State;
use crate::transport::{ConnectionKind, HostKeyPolicy, Target};

/// What a connection to a host of a lab needs beyond the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabConnection {
    /// The namespace to connect from.
    pub namespace: PathBuf,
    /// The key that opens the hosts for root.
    pub private_key: PathBuf,
    /// The hosts' keys.
    pub known_hosts: PathBuf,
    /// The lab's hosts and their addresses. Other hosts of the inventory are not in the lab.
    pub hosts: BTreeMap<String, Ipv4Addr>,
}

impl LabConnection {
    /// Points `target` at the lab, when its host is in there and the inventory itself names no namespace or other way.
    pub fn apply(&self, target: &mut Target) {
        let Some(address) = self.hosts.get(&target.name) else { return };
        if target.namespace.is_some() || target.connection == ConnectionKind::Local {
            return;
        }
        target.namespace = Some(self.namespace.clone());
        target.address = address.to_string();
        // The lab's sshd listens where every sshd does, whatever forwarding the inventory describes for the real hosts.
        target.port = Some(22);
        target.jump = None;
        target.user.get_or_insert_with(|| "root".to_owned());
        target.private_keys.insert(0, self.private_key.clone());
        target.known_hosts = Some(self.known_hosts.clone());
        target.host_keys = HostKeyPolicy::Strict;
    }
}

/// Returns how the lab of an inventory is reached; `None` when it has no lab, or the lab is down.
pub fn connection_settings(inventory: &Path) -> Option<LabConnection> {
    let lab = Lab::of(inventory, default_cache()).ok()?;
    let state = State::load(&lab).ok().flatten()?;
    let namespace = namespace_path(&lab.namespace());
    let up = state.network.is_some() && namespace.exists();
    let hosts = state.hosts.into_values().map(|plan| (plan.host.name, plan.host.address)).collect();
    up.then(|| LabConnection { namespace, private_key: lab.private_key(), known_hosts: lab.known_hosts(), hosts })
}

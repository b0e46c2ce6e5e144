//! What can be managed: the modules, the contract they keep, and the agent that carries them to a host.

pub mod agent;
pub mod api;

use api::module::Entry;

/// All modules, by name. `Host:NAME`, `kplay doc`, completions and the conformance tests are derived from this list.
pub const REGISTRY: &[Entry] = &[];

/// Returns the registry line of the module called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}

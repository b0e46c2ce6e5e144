//! What the tests of connections share.

use kplay_modules::agent::wire::BecomeMethod;

use super::*;

/// A target that leads nowhere, for tests to change.
pub(super) fn target() -> Target {
    Target {
        name: "test".to_owned(),
        connection: ConnectionKind::Ssh,
        address: "127.0.0.1".to_owned(),
        port: Some(1),
        user: Some("root".to_owned()),
        private_keys: Vec::new(),
        password: None,
        jump: None,
        host_keys: HostKeyPolicy::Strict,
        known_hosts: None,
        namespace: None,
        root: None,
        timeout: Duration::from_secs(10),
        become_method: BecomeMethod::Sudo,
        become_password: None,
        agent_folder: None,
    }
}

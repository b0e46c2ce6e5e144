//! Agents to send to hosts.

use std::fs;
use std::path::Path;

use kplay::transport::Agents;
use tempfile::TempDir;

use super::sshd::executable;

/// A stand-in for the agent that makes a link visible: it says the marker, then does the shell command in the first line of
/// its input, so that a test decides what flows.
const SHELL: &str = "#!/bin/sh\nprintf '\\001KPLAY:%s\\n' \"$2\"\nread -r line\neval \"$line\"\n";

/// Agents that run what they are told. The folder has to be kept for as long as they are used.
pub fn shell_agents() -> (TempDir, Agents) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_agent(folder.path(), SHELL);
    let agents = Agents::locate(Some(folder.path())).expect("agents");
    (folder, agents)
}

/// Writes an agent for all architectures, and for this machine, to a folder.
pub fn write_agent(folder: &Path, text: &str) {
    for name in ["kplay-agent", "kplay-agent-x86_64-unknown-linux-musl", "kplay-agent-aarch64-unknown-linux-musl"] {
        fs::write(folder.join(name), text).expect("an agent");
        executable(&folder.join(name));
    }
}

//! A host that is this machine: the agent as a child process, without ssh.
#![expect(clippy::disallowed_methods, reason = "the controller's own agent is a child process")]

use std::process::Command;

use super::agents::Agents;
use super::bootstrap::{self, Marker};
use super::stream::StreamLink;
use super::{Connected, Target};
use crate::diagnostic::{Diagnostic, Result};

/// Starts the agent that lies beside this program.
pub(super) fn connect(target: &Target, agents: &Agents) -> Result<Connected> {
    let program = agents.program()?;
    let marker = Marker::random();
    // The agent is left to end by itself: at the end of its input it lets package managers and file writes run to their end.
    let link = StreamLink::start(Command::new(&program).arg("serve").arg(marker.as_str()), false)
        .map_err(|error| Diagnostic::unreachable(format!("cannot start the agent `{}`: {error}", program.display())))?;
    bootstrap::run(Box::new(link), &marker, agents, target.timeout)
}

//! Connections by the system's ssh: post-quantum key exchange, host certificates, hardware keys, Kerberos, any option.
#![expect(clippy::disallowed_methods, reason = "the system's ssh is a program")]

use std::process::Command;
use std::time::{Duration, Instant};

use super::agents::Agents;
use super::bootstrap;
use super::stream::StreamLink;
use super::{Connected, Target, dial, proxy};
use crate::diagnostic::{Diagnostic, Result};

/// Starts `ssh`, which connects, checks and logs in by itself, with the way to the agent as its command.
pub(super) fn connect(target: &Target, agents: &Agents) -> Result<Connected> {
    if target.password.is_some() {
        return Err(Diagnostic::user("the system's ssh takes no password from a program")
            .hint("use a key, or `connection: ssh`, which can log in with a password"));
    }
    // `ssh` has a time limit of its own for connecting, whose message is the better one.
    let patience = target.timeout + Duration::from_secs(2);
    let connected = bootstrap::start(target, agents, patience, |command| Ok(Box::new(open(target, command)?)));
    connected.map_err(|error| if error.message.ends_with(": exit code 255") { explain(target, &error.details) } else { error })
}

/// Starts `ssh` with a command for the host.
fn open(target: &Target, on_host: &str) -> Result<StreamLink> {
    let mut command = Command::new("ssh");
    // No terminal, no escape character, no forwarding, no question; whatever else the user has configured stays.
    command.args(["-T", "-e", "none", "-a", "-x", "-o", "BatchMode=yes"]);
    command.args(proxy::options(target));
    if let Some(user) = &target.user {
        command.arg("-l").arg(user);
    }
    if let Some(port) = target.port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(jump) = &target.jump {
        command.arg("-o").arg(format!("ProxyJump={jump}"));
    }
    command.arg("--").arg(&target.address).arg(on_host);
    let start = move || StreamLink::start(&mut command, true);
    match dial::within(target.namespace.as_deref(), Instant::now() + target.timeout, start)? {
        Some(Ok(link)) => Ok(link),
        Some(Err(error)) => {
            Err(Diagnostic::unreachable(format!("cannot start `ssh`: {error}")).hint("install openssh-client, or use `connection: ssh`"))
        }
        None => Err(Diagnostic::unreachable("`ssh` did not start in time")),
    }
}

/// Says in a line of its own what ssh complained about last: 255 is its own failure, not the host's.
fn explain(target: &Target, details: &[String]) -> Box<Diagnostic> {
    let said: Vec<&str> = details.iter().filter_map(|line| line.strip_prefix("stderr: ")).collect();
    let (last, before) = said.split_last().map_or(("it does not say why", &[][..]), |(last, before)| (*last, before));
    let error = Diagnostic::unreachable(format!("`ssh` cannot reach `{}`: {last}", target.address))
        .details(before.iter().map(|line| format!("ssh: {line}")));
    if last.contains("Host key verification failed") {
        return error.hint("`kplay host-keys scan` shows the key of a new host and takes it in");
    }
    error.hint("try the same by hand: `ssh -v` shows each step")
}

//! Looks at a lab, and into its hosts.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt as _;

use super::layout::Lab;
use super::settings::LabHost;
use super::state::State;
use super::{host, requirements};
use crate::diagnostic::{Diagnostic, Result, nearest};

/// Returns a table of the hosts of an inventory and of those that its lab still has, and whether all of them are up.
///
/// # Errors
/// The lab's state cannot be read.
pub fn status(lab: &Lab, hosts: &[LabHost]) -> Result<(String, bool)> {
    let state = State::load(lab)?.unwrap_or_default();
    let gone = state.hosts.values().map(|plan| &plan.host).filter(|old| hosts.iter().all(|host| host.name != old.name));
    let rows: Vec<_> = hosts.iter().chain(gone).map(|host| (&host.name, host.address.to_string(), condition(lab, &state, host))).collect();
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max(4);
    let mut table = format!("{:width$}  {:15}  STATE\n", "HOST", "ADDRESS");
    for (name, address, condition) in &rows {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{name:width$}  {address:15}  {condition}");
    }
    if let Some(network) = state.network {
        let _ = write!(table, "\nnamespace {} ({}/{}, gateway {})\n", lab.namespace(), network.address, network.prefix, network.gateway);
        let _ = writeln!(
            table,
            "ssh       ip netns exec {} ssh -i {} -o UserKnownHostsFile={} root@ADDRESS",
            lab.namespace(),
            lab.private_key().display(),
            lab.known_hosts().display()
        );
    }
    Ok((table, rows.iter().all(|(.., condition)| *condition == "up")))
}

/// Runs a command in a host as root, with this process's streams, and returns its exit code.
///
/// # Errors
/// The host is unknown or down.
pub fn exec(lab: &Lab, name: &str, argv: &[String]) -> Result<u8> {
    requirements::check_root()?;
    let init = find(lab, name)?;
    let words: Vec<_> = argv.iter().map(String::as_str).collect();
    let status = host::enter(init, &words).status().map_err(|error| Diagnostic::user(format!("cannot run `nsenter`: {error}")))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Opens a shell in a host, and returns its exit code when it ends.
///
/// # Errors
/// The host is unknown or down.
pub fn attach(lab: &Lab, name: &str) -> Result<u8> {
    exec(lab, name, &["/bin/bash".to_owned(), "--login".to_owned()])
}

fn condition(lab: &Lab, state: &State, wanted: &LabHost) -> &'static str {
    match state.hosts.get(&wanted.name) {
        None => "down",
        Some(_) if host::init(lab, &wanted.name).is_none() => "down",
        Some(plan) if plan.host != *wanted => "up, with other settings",
        Some(plan) if host::answers_ssh(lab, plan) => "up",
        Some(_) => "no answer",
    }
}

fn find(lab: &Lab, name: &str) -> Result<i32> {
    let state = State::load(lab)?.unwrap_or_default();
    if !state.hosts.contains_key(name) {
        let error = Diagnostic::user(format!("the lab has no host `{name}`"));
        let names = state.hosts.keys().map(String::as_str);
        return Err(match (state.hosts.is_empty(), nearest(name, names)) {
            (true, _) => error.hint("bring it up first: `kplay lab up -i INVENTORY`"),
            (false, Some(near)) => error.hint(format!("did you mean `{near}`?")),
            (false, None) => error.hint(format!("its hosts are {}", state.hosts.keys().cloned().collect::<Vec<_>>().join(", "))),
        });
    }
    host::init(lab, name)
        .ok_or_else(|| Diagnostic::host("the host is down").on(name).hint("bring it up again: `kplay lab up -i INVENTORY`"))
}

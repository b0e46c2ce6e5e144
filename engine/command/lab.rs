//! `kplay lab`: throw-away real hosts for the hosts of an inventory that have `lab:` settings.
#![expect(clippy::disallowed_methods, reason = "the programs that `kplay lab` shows and runs are started here")]

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::cli::{self, LabCommand};
use crate::config::{Environment, Hosts};
use crate::diagnostic::{Diagnostic, Result, exit_code};
use crate::lab::{self, Lab, LabHost};

/// Reads the inventory and does what was asked for with its lab.
pub fn of_inventory(arguments: &cli::Lab, environment: &Environment) -> Result<u8> {
    let path = arguments.inventory.clone().or_else(|| environment.get("KPLAY_INVENTORY").map(PathBuf::from)).ok_or_else(|| {
        Diagnostic::user("no inventory is named").hint("`kplay lab … -i INVENTORY` takes a file or folder whose hosts have `lab:` settings")
    })?;
    // What exists is found by the inventory's path alone: it can be looked at and taken down however the inventory is now.
    let hosts = match arguments.action {
        LabCommand::Up | LabCommand::Status | LabCommand::Run { .. } => hosts_of(&path, environment)?,
        LabCommand::Down | LabCommand::Exec { .. } | LabCommand::Console { .. } => Vec::new(),
    };
    run(&path, &hosts, lab::default_cache(), &arguments.action, &mut std::io::stdout())
}

/// Reads the hosts that have `lab:` settings.
fn hosts_of(inventory: &Path, environment: &Environment) -> Result<Vec<LabHost>> {
    let options = cli::Hosts { inventory: vec![inventory.to_string_lossy().into_owned()], ..cli::Hosts::default() };
    let config = Hosts::new(&options, &cli::Connection::default(), environment)?;
    let inventory = config.read(None)?;
    let mut hosts = Vec::new();
    for host in inventory.hosts() {
        let settings = inventory.settings(host, &config.defaults)?;
        let Some(lab) = settings.lab else { continue };
        hosts.push(LabHost::from_settings(&host.name, Some(&settings.target.address), lab).map_err(|error| match host.origin("lab") {
            Some(place) => error.at(place),
            None => error,
        })?);
    }
    Ok(hosts)
}

/// Does what `command` says with the lab of `inventory`, and returns the exit code. `hosts` are those with `lab:` settings.
///
/// # Errors
/// Rights, programs or settings are missing, or a host does not do what it should.
pub fn run(inventory: &Path, hosts: &[LabHost], cache: PathBuf, command: &LabCommand, out: &mut (dyn Write + Send)) -> Result<u8> {
    let lab = Lab::of(inventory, cache)?;
    let out = Mutex::new(out);
    // Whoever reads this may have gone; the lab is made all the same.
    let say = |line: &str| drop(out.lock().map(|mut out| writeln!(out, "{line}")));
    match command {
        LabCommand::Up => lab::up(&lab, hosts, &say)?,
        LabCommand::Down if lab::down(&lab, &say)? => {}
        LabCommand::Down => say("there is no lab of this inventory"),
        LabCommand::Status => {
            let (table, all_up) = lab::status(&lab, hosts)?;
            say(table.trim_end());
            return Ok(if all_up { exit_code::DONE } else { exit_code::FAILED });
        }
        LabCommand::Exec { host, argv } => return lab::exec(&lab, host, argv),
        LabCommand::Console { host } => return lab::attach(&lab, host),
        LabCommand::Run { playbook, arguments } => {
            lab::up(&lab, hosts, &say)?;
            return play(playbook, inventory, arguments);
        }
    }
    Ok(exit_code::DONE)
}

/// Runs this very program on the playbook, so that a lab changes nothing about how a playbook is run.
fn play(playbook: &Path, inventory: &Path, arguments: &[OsString]) -> Result<u8> {
    let wrong = |error: std::io::Error| Diagnostic::internal(format!("cannot run kplay again: {error}"));
    let status = Command::new(std::env::current_exe().map_err(wrong)?)
        .arg(playbook)
        .arg("-i")
        .arg(inventory)
        .args(arguments)
        .status()
        .map_err(wrong)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit_code::FAILED))
}

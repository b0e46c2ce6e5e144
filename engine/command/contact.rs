//! What all commands that talk to hosts have in common: a name for the run, the agents, the conversations.

use std::sync::Arc;

use kplay_modules::api::Digest;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::config::{Hosts, Mode};
use crate::diagnostic::{Diagnostic, Result};
use crate::inventory::{Host, Inventory};
use crate::report::printer::Printer;
use crate::schedule::{Forks, Greeting, HostId, Sessions};
use crate::transport::{self, Agents, Target};
use crate::vault;

/// Prepares conversations with these hosts for a new run; returns them and its name. Ctrl-C is listened to from here on.
pub fn sessions<'a>(hosts: &Hosts, mode: Mode, targets: impl Iterator<Item = &'a Arc<Target>>) -> Result<(Sessions, String)> {
    // Without a terminal nobody is asked, and the key counts as one that cannot be used.
    transport::ask_passphrases_with(Box::new(|key| vault::ask(&format!("passphrase of `{}`: ", key.display())).ok()));
    let run = run_name()?;
    let agents = Agents::locate(hosts.agent_folder.as_deref())?.remembering_in(hosts.state.join("agents"));
    let greeting = Greeting { run: run.clone(), by: operator(), check: mode.check, diff: mode.diff };
    let sessions = Sessions::new(agents, greeting, Forks::decide(hosts.forks, targets)?)?;
    sessions.listen_for_interrupts()?;
    Ok((sessions, run))
}

/// A host by its number in the inventory, and how it is reached.
pub type Reached = (HostId, Arc<Target>);

/// Reads the inventory and returns it with the hosts of `pattern`, narrowed down by `--limit`, and how they are reached.
pub fn select(hosts: &Hosts, pattern: &str, printer: Printer) -> Result<(Inventory, Vec<Reached>)> {
    let inventory = hosts.read(None)?;
    inventory.warnings().iter().for_each(|warning| printer.warning(warning));
    let pattern = hosts.limit.as_ref().map_or_else(|| pattern.to_owned(), |limit| format!("{pattern}:&{limit}"));
    let chosen = inventory.select(&pattern)?;
    if chosen.is_empty() {
        return Err(Diagnostic::user(format!("the pattern `{pattern}` selects no host")));
    }
    let settings = hosts.settings(&inventory, chosen.iter().copied())?;
    let reached = chosen.iter().zip(settings).map(|(host, settings)| (host.number, Arc::new(settings.target))).collect();
    Ok((inventory, reached))
}

/// Returns how every host of the inventory is reached, by its number.
pub fn all_targets(hosts: &Hosts, inventory: &Inventory) -> Result<Vec<Arc<Target>>> {
    let every: Vec<&Host> = (0..).map_while(|number| inventory.host_at(number)).collect();
    Ok(hosts.settings(inventory, every)?.into_iter().map(|settings| Arc::new(settings.target)).collect())
}

/// Returns a new name: the time in UTC, and four digits that tell apart runs begun in the same second.
fn run_name() -> Result<String> {
    let now = OffsetDateTime::now_utc();
    let time = now
        .format(format_description!("[year][month][day]-[hour][minute][second]"))
        .map_err(|error| Diagnostic::internal(format!("cannot write the time: {error}")))?;
    let unique = Digest::of(format!("{} {}", now.nanosecond(), std::process::id()).as_bytes()).hex();
    Ok(format!("{time}-{}", &unique[..4]))
}

/// Returns who runs this and where, for the message of a lock that is held.
fn operator() -> String {
    let uname = rustix::system::uname();
    let user = transport::account_name().unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", uname.nodename().to_string_lossy())
}

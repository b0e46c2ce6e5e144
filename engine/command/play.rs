//! `kplay PLAYBOOK`: the whole pipeline, from what was typed to the recap.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{contact, list};
use crate::blobs::Blobs;
use crate::config::{Instead, Play};
use crate::diagnostic::{Diagnostic, Result, exit_code};
use crate::inventory::Inventory;
use crate::lua::{Options, Program};
use crate::outputs::Outputs;
use crate::pki::{Authorities, AuthorityOptions};
use crate::plan::Planner;
use crate::report::event::{Event, Reporter as _};
use crate::report::printer::Printer;
use crate::report::{self, Lookup, Reporters};
use crate::schedule::{Run, Settings, Supply};
use crate::services::Provided;

/// Largest content that is looked up for a diff, bytes.
const DIFF_LIMIT: u64 = 1 << 20;

/// Runs a playbook, or shows what is in it.
pub fn run(play: &Play, printer: Printer) -> Result<u8> {
    let events = play.events.as_deref().filter(|_| play.instead.is_none());
    perform(play, printer).inspect_err(|error| report::refused(events, play.mode.check, error))
}

fn perform(play: &Play, printer: Printer) -> Result<u8> {
    let inventory = play.hosts.read(Some(&play.playbook))?;
    inventory.warnings().iter().for_each(|warning| printer.warning(warning));
    let secrets = inventory.secrets().clone();
    secrets.add(&play.ca_passphrase);
    let blobs = Arc::new(Blobs::default());
    let authorities =
        Arc::new(Authorities::new(AuthorityOptions { passphrase: play.ca_passphrase.clone(), ..AuthorityOptions::default() }));
    let dry = play.mode.check || play.instead.is_some();
    let services = Provided::new(Arc::clone(&authorities), play.hosts.state.join("downloads"), dry);
    let options = options(play, &inventory, dry)?;
    let mut program = Program::load(&play.playbook, options, &inventory, Arc::clone(&blobs), Box::new(services), &secrets)
        .map_err(|error| secrets.mask_error(error))?;
    if let Some(limit) = play.hosts.limit.as_ref().filter(|_| program.plays().iter().all(|play| play.hosts.is_empty())) {
        let error = Diagnostic::user(format!("`--limit {limit}` leaves no host of the playbook"));
        return Err(error.hint("`--list-hosts` without it shows the hosts of each play"));
    }
    match play.instead {
        Some(Instead::SyntaxCheck) => return Ok(exit_code::DONE),
        Some(Instead::ListHosts) => return Ok(list::hosts(&program, &secrets, printer)),
        Some(Instead::ListTasks) => {
            let listed = list::tasks(&mut program, &secrets, printer);
            let listed = listed.and_then(|code| program.never_started().map_or(Ok(code), Err));
            return listed.map_err(|error| secrets.mask_error(error));
        }
        None => {}
    }

    let targets = contact::all_targets(&play.hosts, &inventory)?;
    let reached: BTreeSet<usize> = program.plays().iter().flat_map(|play| play.hosts.iter().copied()).collect();
    let reached = reached.into_iter().filter_map(|host| targets.get(host));
    let (sessions, run) = contact::sessions(&play.hosts, play.mode, reached)?;
    secrets.add(targets.iter().flat_map(|target| target.become_password.iter().chain(&target.password)));
    let contents = Arc::clone(&blobs);
    let lookup: Lookup = Arc::new(move |digest| contents.text(digest, DIFF_LIMIT));
    let mut reporters = Reporters::new(printer.screen(), play.mode.diff, play.events.as_deref(), &secrets, lookup)?;
    let supply = Supply::new(blobs, Arc::new(move |wanted, request| authorities.sign(wanted, request)));
    let playbook = play.playbook.display().to_string();
    let outputs = Some(Outputs::new(&play.hosts.state, &run, secrets.clone()));
    let settings = Settings { run: run.clone(), playbook, outputs, check: play.mode.check, exit_code: play.mode.exit_code, targets };
    match Run::new(&mut program, sessions, supply, &mut reporters, settings).go() {
        Ok(end) => {
            play.hosts.remember_failed(&end.failed);
            let missed = program.never_started().map(|error| (error, exit_code::REFUSED));
            let unwritten = reporters.failure().map(|error| (error, exit_code::FAILED));
            Ok(missed.into_iter().chain(unwritten).fold(end.code, |code, (error, worse)| {
                printer.error(&secrets.mask_error(error));
                if code == exit_code::DONE { worse } else { code }
            }))
        }
        Err(refused) => {
            reporters.report(&Event::Refused { run, check: play.mode.check, errors: refused.clone() });
            refused.into_iter().for_each(|error| printer.error(&secrets.mask_error(Box::new(error))));
            Ok(exit_code::REFUSED)
        }
    }
}

fn options(play: &Play, inventory: &Inventory, check: bool) -> Result<Options> {
    let limit = play.hosts.limit.as_deref().map(|limit| inventory.select(limit)).transpose()?;
    let mut become_users = std::collections::HashMap::new();
    for host in (0..).map_while(|number| inventory.host_at(number)) {
        let settings = inventory.settings(host, &play.hosts.defaults)?;
        if let Some(user) = settings.become_user {
            become_users.insert(host.number, user);
        }
    }
    Ok(Options {
        check,
        limit: limit.map(|hosts| hosts.iter().map(|host| host.number).collect()),
        tags: play.tags.clone(),
        skip_tags: play.skip_tags.clone(),
        start_at_task: play.start_at_task.clone(),
        become_user: play.hosts.defaults.become_user.clone(),
        become_users,
        time_limit: Duration::from_secs(60),
        ..Options::default()
    })
}

//! `kplay host-keys`: learns the keys of hosts, once somebody has looked at them.

use std::io::{BufRead, IsTerminal, Write};

use std::sync::Arc;

use rayon::prelude::*;

use crate::cli::{self, HostKeysAction};
use crate::config::{Environment, Hosts};
use crate::diagnostic::{Diagnostic, Kind, Result, exit_code};
use crate::report::printer::Printer;
use crate::schedule::Forks;
use crate::transport::{SeenKey, look_at_key};

/// Does what is asked; the exit code tells whether every host showed a key that is known now.
pub fn run(arguments: &cli::HostKeys, environment: &Environment, printer: Printer) -> Result<u8> {
    let HostKeysAction::Scan { pattern, hosts, connection, yes } = &arguments.action;
    let hosts = Hosts::new(hosts, connection, environment)?;
    let inventory = hosts.read(None)?;
    inventory.warnings().iter().for_each(|warning| printer.warning(warning));
    let chosen = inventory.select(pattern)?;
    if chosen.is_empty() {
        return Err(Diagnostic::user(format!("the pattern `{pattern}` selects no host")));
    }
    let targets: Vec<_> = hosts.settings(&inventory, chosen)?.into_iter().map(|settings| Arc::new(settings.target)).collect();
    let forks = Forks::decide(hosts.forks, targets.iter())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(forks.number(None)).build();
    let pool = pool.map_err(|error| Diagnostic::internal(format!("cannot start threads: {error}")))?;
    let answers: Vec<Result<Option<SeenKey>>> = pool.install(|| targets.par_iter().map(|target| look_at_key(target)).collect());

    let mut code = exit_code::DONE;
    let mut new = Vec::new();
    for (target, answer) in targets.iter().zip(answers) {
        match answer {
            Ok(Some(key)) => {
                let state = if key.known { "known" } else { "new" };
                printer.text(&format!("{}  {}  {}  {state}\n", target.name, key.name, key.shown));
                new.extend((!key.known).then_some(key));
            }
            Ok(None) => printer.text(&format!("{}  has no host key: it is this machine\n", target.name)),
            Err(error) => {
                let refused = if error.kind == Kind::Unreachable { exit_code::UNREACHABLE } else { exit_code::FAILED };
                code = if code == exit_code::DONE { refused } else { code.min(refused) };
                printer.error(&error);
            }
        }
    }
    if !new.is_empty() && (*yes || agreed(new.len(), printer)?) {
        new.iter().try_for_each(SeenKey::remember)?;
        let places: std::collections::BTreeSet<String> = new.iter().map(|key| format!("`{}`", key.file.display())).collect();
        printer.text(&format!("{} written to {}\n", count(new.len()), places.into_iter().collect::<Vec<_>>().join(", ")));
    }
    Ok(code)
}

/// Asks whether the keys are the right ones.
fn agreed(keys: usize, printer: Printer) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Diagnostic::user(format!("{} cannot be written down: there is no terminal to ask at", count(keys)))
            .hint("compare the fingerprints above with those of the hosts, then use `--yes`"));
    }
    printer.note(&format!("are these the fingerprints of your hosts? write {} down? [y/N] ", count(keys)));
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Diagnostic::user(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn count(keys: usize) -> String {
    if keys == 1 { "1 new key".to_owned() } else { format!("{keys} new keys") }
}

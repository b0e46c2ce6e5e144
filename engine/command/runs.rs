//! `kplay runs`: the runs that hosts remember, newest first.

use std::collections::BTreeMap;

use kplay_modules::agent::wire::{RunEntry, ToAgent, ToController};
use time::OffsetDateTime;
use time::macros::format_description;

use super::contact;
use crate::cli;
use crate::config::{Environment, Hosts, Mode};
use crate::diagnostic::{Result, exit_code};
use crate::report::printer::Printer;
use crate::schedule::{Answer, Next, ask};

/// Lists the runs, each with the hosts that remember it.
pub fn run(arguments: &cli::Runs, environment: &Environment, printer: Printer) -> Result<u8> {
    let hosts = Hosts::new(&arguments.hosts, &arguments.connection, environment)?;
    let (_, chosen) = contact::select(&hosts, &arguments.pattern, printer)?;
    let (mut sessions, _) = contact::sessions(&hosts, Mode { check: true, ..Mode::default() }, chosen.iter().map(|(_, target)| target))?;
    let names: BTreeMap<usize, &str> = chosen.iter().map(|(number, target)| (*number, target.name.as_str())).collect();
    let mut runs: BTreeMap<String, Vec<(String, RunEntry)>> = BTreeMap::new();
    let mut lost = false;
    let interrupted = ask(&mut sessions, &chosen, &ToAgent::ListRuns, &mut |answer| match answer {
        Answer::Said(host, ToController::Runs(entries)) => {
            let name = names.get(&host).copied().unwrap_or_default();
            for entry in entries {
                runs.entry(entry.run.clone()).or_default().push((name.to_owned(), entry));
            }
            Next::End
        }
        Answer::Said(..) => Next::Wait,
        Answer::Lost(_, error) => {
            lost = true;
            printer.error(&error);
            Next::End
        }
    });
    for (run, hosts) in runs.iter().rev() {
        printer.text(&shown(run, hosts));
    }
    Ok(match (interrupted, lost) {
        (true, _) => exit_code::INTERRUPTED,
        (false, true) => exit_code::UNREACHABLE,
        (false, false) => exit_code::DONE,
    })
}

fn shown(run: &str, hosts: &[(String, RunEntry)]) -> String {
    let Some((_, first)) = hosts.first() else { return String::new() };
    let begun = OffsetDateTime::from_unix_timestamp(first.started)
        .ok()
        .and_then(|time| time.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC")).ok())
        .unwrap_or_default();
    let mut text = format!("{run}  {begun}  by {}\n", first.by);
    for (host, entry) in hosts {
        let state = match (entry.undone, entry.finished) {
            (true, _) => "undone",
            (false, true) => "finished",
            (false, false) => "broken off",
        };
        let changes = if entry.changes == 1 { "1 change".to_owned() } else { format!("{} changes", entry.changes) };
        text += &format!("  {host}  {changes}, {state}\n");
    }
    text
}

//! `kplay undo`: takes back what a run changed, host by host, newest change first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use kplay_modules::agent::wire::{Outcome, ToAgent, ToController};

use super::contact;
use crate::cli;
use crate::config::{Environment, Hosts, Mode};
use crate::diagnostic::{Diagnostic, Kind, Result, exit_code};
use crate::report::event::{Counts, Event, Level, Recap, Reporter};
use crate::report::printer::Printer;
use crate::report::{Lookup, Reporters};
use crate::schedule::{Answer, Next, ask, left_behind, undo_step};

/// Takes a run back on all hosts of the inventory that took part in it.
pub fn run(arguments: &cli::Undo, environment: &Environment, printer: Printer) -> Result<u8> {
    let hosts = Hosts::new(&arguments.hosts, &arguments.connection, environment)?;
    let mode = Mode::new(&arguments.mode);
    let (inventory, chosen) = contact::select(&hosts, "all", printer)?;
    let names: BTreeMap<usize, String> = chosen.iter().map(|(number, target)| (*number, target.name.clone())).collect();
    let (mut sessions, run) = contact::sessions(&hosts, mode, chosen.iter().map(|(_, target)| target))?;
    let secrets = inventory.secrets().clone();
    // What comes back to a host lies on that host; the controller holds none of it.
    let lookup: Lookup = Arc::new(|_| None);
    let mut reporters = Reporters::new(printer.screen(), mode.diff, arguments.output.events.as_deref(), &secrets, lookup)?;
    let mut undo = Undo { of: arguments.run.clone(), names, counts: BTreeMap::new() };
    let started = Instant::now();
    let event = Event::RunStarted { run: run.clone(), playbook: format!("undo {}", arguments.run), check: mode.check, hosts: chosen.len() };
    reporters.report(&event);
    reporters.report(&Event::PlayStarted { play: format!("undo {}", arguments.run), hosts: undo.names.values().cloned().collect() });
    let interrupted = ask(&mut sessions, &chosen, &ToAgent::ListRuns, &mut |answer| undo.hear(answer, &mut reporters));
    if undo.counts.is_empty() && !interrupted {
        let error = Diagnostic::user(format!("no host of the inventory remembers a run `{}`", arguments.run));
        let error = error.hint("`kplay runs` lists the runs that hosts remember; each keeps its newest");
        reporters.report(&Event::Refused { run, check: mode.check, errors: vec![(*error).clone()] });
        return Err(error);
    }
    let code = undo.code(interrupted, mode);
    reporters.report(&Event::Recap(Recap {
        hosts: undo.counts,
        run,
        check: mode.check,
        interrupted,
        millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }));
    match reporters.failure() {
        Some(error) => {
            printer.error(&error);
            Ok(if code == exit_code::DONE { exit_code::FAILED } else { code })
        }
        None => Ok(code),
    }
}

struct Undo {
    of: String,
    names: BTreeMap<usize, String>,
    counts: BTreeMap<String, Counts>,
}

impl Undo {
    /// Asks hosts that remember the run to take it back, and reports what they say.
    fn hear(&mut self, answer: Answer, reporter: &mut dyn Reporter) -> Next {
        match answer {
            Answer::Said(host, ToController::Runs(entries)) => {
                if entries.iter().all(|entry| entry.run != self.of) {
                    return Next::End;
                }
                self.counts.entry(self.name(host)).or_default();
                Next::Ask(ToAgent::Undo { run: self.of.clone() })
            }
            Answer::Said(host, ToController::Outcome(outcome)) => {
                let event = self.finished(host, outcome);
                let left = left_behind(&event);
                reporter.report(&event);
                left.iter().for_each(|event| reporter.report(event));
                Next::Wait
            }
            Answer::Said(host, ToController::Waits(text)) => {
                reporter.report(&Event::Message { host: Some(self.name(host)), level: Level::Info, text });
                Next::Wait
            }
            Answer::Said(_, ToController::Done { .. }) => Next::End,
            Answer::Said(..) => Next::Wait,
            Answer::Lost(host, error) => {
                let host = self.name(host);
                let counts = self.counts.entry(host.clone()).or_default();
                if error.kind == Kind::Unreachable {
                    counts.unreachable = true;
                    reporter.report(&Event::HostUnreachable { host, error });
                } else {
                    counts.failed += 1;
                    reporter.report(&Event::HostFailed { host, error });
                }
                Next::End
            }
        }
    }

    fn finished(&mut self, host: usize, outcome: Outcome) -> Event {
        let name = self.name(host);
        let counts = self.counts.entry(name.clone()).or_default();
        let number = counts.ok + counts.changed + counts.failed + counts.skipped + counts.unknown + 1;
        undo_step(format!("undo {}", self.of), name, number, counts, outcome)
    }

    fn code(&self, interrupted: bool, mode: Mode) -> u8 {
        let any = |test: fn(&Counts) -> bool| self.counts.values().any(test);
        if interrupted {
            exit_code::INTERRUPTED
        } else if any(|counts| counts.failed > 0) {
            exit_code::FAILED
        } else if any(|counts| counts.unreachable) {
            exit_code::UNREACHABLE
        } else if mode.check && mode.exit_code && any(|counts| counts.changed > 0) {
            exit_code::WOULD_CHANGE
        } else {
            exit_code::DONE
        }
    }

    fn name(&self, host: usize) -> String {
        self.names.get(&host).cloned().unwrap_or_default()
    }
}

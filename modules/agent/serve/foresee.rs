//! Check mode: what each task would do, given what those before it would have done.

use std::collections::HashSet;
use std::time::Instant;

use super::report::report;
use super::session::{Host, NOT_WANTED, Session, Wanted};
use super::task::{Progress, constant, holds, judge_unchanged, looks_long, module_of, skipped};
use crate::agent::wire::{Foreseen, Outcome, Status, Task, ToController, UNKNOWN_FIELD};
use crate::api::forecast::{Certainty, Forecast, Sureness};
use crate::api::{AnyModule, Change, ErrorKind, Footprint, ModuleError, Perform, Proposal};

impl<H: Perform> Session<'_, H> {
    /// Foresees tasks in order. Returns whether those that follow would be done.
    pub(super) fn foresee(&mut self, tasks: &[Task]) -> bool {
        for task in tasks {
            if self.link.is_stopped() {
                return false;
            }
            let wanted = self.wanted(task, &HashSet::new());
            let outcome = if wanted == Wanted::No { skipped(task, NOT_WANTED) } else { self.foresee_one(task, wanted) };
            let failed = outcome.status == Status::Failed;
            self.tell(outcome);
            if failed && !task.ignore_errors {
                return false;
            }
        }
        true
    }

    fn foresee_one(&mut self, task: &Task, wanted: Wanted) -> Outcome {
        let since = Instant::now();
        let module = match module_of(task) {
            Ok(module) => module,
            Err(error) => return Progress::default().end(task, since.elapsed(), Status::Failed, Some(error)),
        };
        if looks_long(&task.module) {
            self.link.send(&ToController::Started { task: task.id });
        }
        self.link.limit(since, task.timeout);
        let manner = self.manner(task);
        let Host::Check(forecast) = &mut self.host else {
            return skipped(task, "this session applies");
        };
        forecast.begin(module.paths());
        let checked = module.check(&**forecast);
        let mut sureness = forecast.sureness();
        if wanted == Wanted::Perhaps {
            sureness.lower(Certainty::Unknown, "it is not known whether a task that it waits for would change anything");
        }
        let proposal = match checked {
            Ok(proposal) => proposal,
            Err(error) => return self.not_foreseen(task, &*module, error, sureness, since),
        };
        if let Err(error) = judge_what_was_seen(task, &proposal, &mut sureness) {
            if proposal.looked.is_some() && sureness.certainty != Certainty::Exact {
                return self.not_foreseen(task, &*module, error, sureness, since);
            }
            return Progress::of(&proposal, Vec::new()).end(task, since.elapsed(), Status::Failed, Some(error));
        }
        let reports = proposal.changes.iter().map(|change| report(&**forecast, change, manner)).collect();
        let mut progress = Progress::of(&proposal, reports);
        if proposal.changes.iter().any(|change| matches!(change, Change::Run(_))) {
            for field in ["code", "truncated", "stdout", "stderr"] {
                progress.output.insert(field.to_owned(), UNKNOWN_FIELD.into());
            }
        }
        progress.certainty = sureness.certainty;
        progress.because = (sureness.certainty != Certainty::Exact).then(|| sureness.because.clone());
        let status = match sureness.certainty {
            Certainty::Unknown => Status::Unknown,
            Certainty::Exact | Certainty::Assumed if would_change(task, &proposal) => Status::Changed,
            Certainty::Exact | Certainty::Assumed => Status::Ok,
        };
        let reach = if sureness.certainty == Certainty::Unknown { module.reach() } else { Footprint::Nothing };
        self.foreseen(task, proposal.changes, reach, sureness);
        progress.end(task, since.elapsed(), status, None)
    }

    /// Ends a task whose check failed: where the check could not see clearly, an apply may well succeed.
    fn not_foreseen(&mut self, task: &Task, module: &dyn AnyModule, error: ModuleError, mut sureness: Sureness, since: Instant) -> Outcome {
        let unknown = error.kind == ErrorKind::Unknown;
        if !unknown && sureness.certainty == Certainty::Exact {
            return Progress { attempts: 1, ..Progress::default() }.end(task, since.elapsed(), Status::Failed, Some(error));
        }
        let because = match unknown {
            true => error.message,
            false => format!("{} (as it is now: {})", sureness.because, error.message),
        };
        sureness.lower(Certainty::Unknown, &because);
        self.foreseen(task, Vec::new(), module.reach(), Sureness { certainty: Certainty::Unknown, because: because.clone() });
        let progress = Progress { because: Some(because), certainty: Certainty::Unknown, attempts: 1, ..Progress::default() };
        progress.end(task, since.elapsed(), Status::Unknown, None)
    }

    /// Takes in what a task would do, here and for agents of other identities.
    fn foreseen(&mut self, task: &Task, changes: Vec<Change>, reach: Footprint, sureness: Sureness) {
        if changes.is_empty() && reach == Footprint::Nothing {
            return;
        }
        let foreseen = Foreseen { task: task.name.clone(), changes, reach, certainty: sureness.certainty, because: sureness.because };
        if let Host::Check(forecast) = &mut self.host {
            take_in(forecast, &foreseen);
        }
        self.relays.note(None, foreseen);
    }

    /// Takes in what tasks of another identity would do.
    pub(super) fn fold(&mut self, foreseen: &[Foreseen]) {
        if let Host::Check(forecast) = &mut self.host {
            for one in foreseen {
                take_in(forecast, one);
            }
        }
    }
}

fn take_in(forecast: &mut Forecast<'_>, foreseen: &Foreseen) {
    let sureness = Sureness { certainty: foreseen.certainty, because: foreseen.because.clone() };
    for change in &foreseen.changes {
        // What cannot be foreseen has left a cloud.
        let _ = forecast.fold(change, &sureness, &foreseen.task);
    }
    forecast.cloud(&foreseen.reach, &foreseen.because);
}

/// Judges a task by its conditions as far as it has output already, and says where they wait for a command that has not run.
fn judge_what_was_seen(task: &Task, proposal: &Proposal, sureness: &mut Sureness) -> Result<(), ModuleError> {
    let runs = proposal.changes.iter().any(|change| matches!(change, Change::Run(_)));
    if !runs {
        return if proposal.changes.is_empty() { judge_unchanged(task, proposal) } else { Ok(()) };
    }
    if task.changed_if.as_ref().is_some_and(|condition| constant(condition).is_none()) {
        sureness.lower(Certainty::Unknown, "`changed_if` judges the output of a command that has not run");
    }
    Ok(())
}

fn would_change(task: &Task, proposal: &Proposal) -> bool {
    match &task.changed_if {
        Some(condition) => holds(condition, &proposal.output).unwrap_or(!proposal.changes.is_empty()),
        None => !proposal.changes.is_empty(),
    }
}

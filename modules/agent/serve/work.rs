//! Apply: tasks are foreseen in groups, then performed exactly as foreseen, then asked for proof.
//!
//! A group ends where what a change sets going has to be seen before the next task is checked (a command, a package, a unit),
//! where a check asks what only the real host can answer, and when it has grown large. Within a group each task's changes are
//! journaled, performed and proved before those of the next.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::report::{report, without_contents};
use super::session::{Fatal, Host, NOT_WANTED, Session, Wanted};
use super::supply::ForTask;
use super::task::{
    Progress, accepts, holds, judge, judge_unchanged, looks_long, module_of, named, skipped, stands_alone, take_output, takes_long,
};
use crate::agent::wire::{ChangeReport, Outcome, Status, Task, ToController};
use crate::api::change::{Run, UnitAction, WriteFile};
use crate::api::forecast::{Certainty, Forecast, Purpose};
use crate::api::journal::{Intended, Kept};
use crate::api::{AnyModule, Blob, Change, CommandOutput, Content, ErrorKind, ModuleError, Perform, Proposal};

/// Changes after which a group is performed at the latest, so that outcomes are not held back for long.
const GROUP: usize = 64;
/// Bytes of content that a group holds in memory at most, roughly.
const HELD: u64 = 8 << 20;

/// A task of a group.
struct Planned<'t> {
    task: &'t Task,
    /// Time its check took.
    spent: Duration,
    what: What,
}

enum What {
    Ended(Box<Outcome>),
    Changes { module: Box<dyn AnyModule>, proposal: Proposal, reports: Vec<ChangeReport> },
    Alone(Box<dyn AnyModule>),
}

/// A command that a task's changes have run, and how it ended.
type Ran<'c> = Option<(&'c Run, CommandOutput)>;

/// How a group ended.
enum Went {
    On,
    /// The task at this position failed and that is ignored: what follows has to be foreseen again.
    IgnoredAt(usize),
    Stopped,
}

impl<H: Perform> Session<'_, H> {
    /// Does tasks in order. Returns whether those that follow are to be done.
    pub(super) fn work(&mut self, tasks: &[Task]) -> Result<bool, Fatal> {
        let mut rest = tasks;
        while !rest.is_empty() {
            if self.link.is_stopped() {
                return Ok(false);
            }
            let group = self.plan(rest);
            let count = group.len();
            let done = match self.perform(group)? {
                Went::On => count,
                Went::IgnoredAt(position) => position + 1,
                Went::Stopped => return Ok(false),
            };
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(true)
    }

    /// Foresees tasks up to the end of a group. Changes nothing.
    fn plan<'t>(&self, tasks: &'t [Task]) -> Vec<Planned<'t>> {
        let mut group = Vec::new();
        let Host::Apply(host) = &self.host else { return group };
        let mut forecast = Forecast::new(&**host, self.link, Purpose::Apply);
        let mut pending = HashSet::new();
        let (mut changes, mut held) = (0, 0);
        for task in tasks {
            let alone = stands_alone(task);
            if self.link.is_stopped() || alone && !group.is_empty() {
                break;
            }
            let since = Instant::now();
            let mut push = |spent, what| group.push(Planned { task, spent, what });
            if self.wanted(task, &pending) == Wanted::No {
                push(Duration::ZERO, What::Ended(Box::new(skipped(task, NOT_WANTED))));
                continue;
            }
            let failed =
                |error| Box::new(Progress { attempts: 1, ..Progress::default() }.end(task, since.elapsed(), Status::Failed, Some(error)));
            let module = match module_of(task) {
                Ok(module) => module,
                Err(error) => {
                    push(since.elapsed(), What::Ended(failed(error)));
                    break;
                }
            };
            if looks_long(&task.module) {
                self.link.send(&ToController::Started { task: task.id });
            }
            if alone {
                push(since.elapsed(), What::Alone(module));
                break;
            }
            self.link.limit(since, task.timeout);
            forecast.begin(module.paths());
            let checked = module.check(&forecast);
            let proposal = match checked {
                Ok(proposal) if forecast.sureness().certainty == Certainty::Exact => proposal,
                // It asked what only the real host can answer: it is asked again once the host has caught up. So is a check that
                // failed, which spares it every doubt.
                _ if forecast.is_changed() => break,
                Ok(proposal) => proposal,
                Err(error) => {
                    push(since.elapsed(), What::Ended(failed(error)));
                    break;
                }
            };
            if proposal.changes.is_empty() {
                let judged = judge_unchanged(task, &proposal);
                if judged.is_err() && forecast.is_changed() {
                    break;
                }
                let status = if judged.is_ok() { Status::Ok } else { Status::Failed };
                let outcome = Progress::of(&proposal, Vec::new()).end(task, since.elapsed(), status, judged.err());
                push(since.elapsed(), What::Ended(Box::new(outcome)));
                match status {
                    Status::Ok => continue,
                    _ => break,
                }
            }
            pending.insert(task.id);
            let manner = self.manner(task);
            let reports = proposal.changes.iter().map(|change| report(&forecast, change, manner)).collect();
            let mut ends = false;
            for change in &proposal.changes {
                ends |= change.ends_group() || forecast.fold(change, &forecast.sureness(), &task.name).is_err();
                held += weight(change);
            }
            changes += proposal.changes.len();
            push(since.elapsed(), What::Changes { module, proposal, reports });
            if ends || changes >= GROUP || held > HELD {
                break;
            }
        }
        group
    }

    fn perform(&mut self, group: Vec<Planned<'_>>) -> Result<Went, Fatal> {
        self.link.fetch_ahead(group.iter().flat_map(contents));
        for (position, planned) in group.into_iter().enumerate() {
            let Planned { task, spent, what } = planned;
            let outcome = match what {
                What::Ended(outcome) => *outcome,
                _ if self.link.is_stopped() => return Ok(Went::Stopped),
                What::Changes { module, proposal, reports } => self.carry_out(task, &*module, &proposal, reports, spent)?,
                What::Alone(module) => self.until_it_succeeds(task, &*module, spent)?,
            };
            let failed = outcome.status == Status::Failed;
            self.tell(outcome);
            match failed {
                true if task.ignore_errors => return Ok(Went::IgnoredAt(position)),
                true => return Ok(Went::Stopped),
                false => {}
            }
        }
        Ok(Went::On)
    }

    /// Tries a task that is judged by its output, as often as it says.
    fn until_it_succeeds(&mut self, task: &Task, module: &dyn AnyModule, spent: Duration) -> Result<Outcome, Fatal> {
        let since = Instant::now();
        let mut before: Vec<ChangeReport> = Vec::new();
        for attempt in 1.. {
            self.link.limit(since, task.timeout);
            let mut outcome = self.attempt(task, module, spent + since.elapsed())?;
            outcome.attempts = attempt;
            // What earlier tries have changed has been changed by this task.
            if outcome.status == Status::Ok && !before.is_empty() && task.changed_if.is_none() {
                outcome.status = Status::Changed;
            }
            before.append(&mut outcome.changes);
            let last = outcome.status != Status::Failed || attempt > task.retries || self.link.is_stopped();
            if last || self.link.wait(Duration::from_millis(task.delay)).is_err() {
                outcome.changes = before;
                outcome.micros = u64::try_from((spent + since.elapsed()).as_micros()).unwrap_or(u64::MAX);
                return Ok(outcome);
            }
        }
        Ok(skipped(task, "it was never tried"))
    }

    fn attempt(&mut self, task: &Task, module: &dyn AnyModule, spent: Duration) -> Result<Outcome, Fatal> {
        let manner = self.manner(task);
        let checked = self.look(module).map(|proposal| {
            let reports = match &self.host {
                Host::Apply(host) => proposal.changes.iter().map(|change| report(&**host, change, manner)).collect(),
                Host::Check(_) => Vec::new(),
            };
            (proposal, reports)
        });
        match checked {
            Ok((proposal, reports)) => self.carry_out(task, module, &proposal, reports, spent),
            Err(error) => Ok(Progress { attempts: 1, ..Progress::default() }.end(task, spent, Status::Failed, Some(error))),
        }
    }

    /// Asks a module about the host as it is.
    fn look(&self, module: &dyn AnyModule) -> Result<Proposal, ModuleError> {
        let Host::Apply(host) = &self.host else { return Err(ModuleError::host("this session only checks")) };
        let forecast = Forecast::new(&**host, self.link, Purpose::Apply);
        forecast.begin(module.paths());
        module.check(&forecast)
    }

    /// Says what remains to be done after a task was carried out. A unit that did not keep running says itself why: it may fail at
    /// any time, also between what its start waits for and the proof.
    fn not_reached(&self, changes: &[Change]) -> ModuleError {
        let Host::Apply(host) = &self.host else { return ModuleError::host("this session only checks") };
        let fallen = changes.iter().find_map(|change| {
            let Change::Unit { unit, action: UnitAction::Start | UnitAction::Restart, .. } = change else { return None };
            host.unit(unit).ok().filter(|now| !now.is_up()).map(|now| (unit, now))
        });
        let error = match fallen {
            Some((unit, now)) => {
                ModuleError::host(format!("`{unit}` did not keep running")).details([now.condition()]).details(host.unit_log(unit))
            }
            None => ModuleError::host("it was changed, and still is not as it should be: something else works against it")
                .details(changes.iter().map(|change| format!("remains: {}", named(change)))),
        };
        error.hint(format!("what it has done stands: `kplay undo {}` takes the run back", self.hello.run))
    }

    /// Performs what was foreseen and asks for proof.
    fn carry_out(
        &mut self,
        task: &Task,
        module: &dyn AnyModule,
        proposal: &Proposal,
        reports: Vec<ChangeReport>,
        spent: Duration,
    ) -> Result<Outcome, Fatal> {
        let since = Instant::now();
        self.link.limit(since, task.timeout);
        let mut progress = Progress::of(proposal, reports);
        let changed = self.change(task, &proposal.changes)?;
        let judged = changed.and_then(|ran| {
            if let Some((_, output)) = &ran {
                take_output(&mut progress.output, output);
                if output.truncated {
                    progress.warnings.push("it printed more than 1 MiB: the middle of that is left out of the result".to_owned());
                }
            }
            match &ran {
                Some((run, output)) => judge(task, Some((*run, output)), &progress.output)?,
                None if proposal.changes.is_empty() => judge_unchanged(task, proposal)?,
                None => judge(task, None, &progress.output)?,
            }
            if !proposal.changes.is_empty() && !proposal.repeating {
                let proof = self.look(module).map_err(|error| unproved(error, task))?;
                if !proof.changes.is_empty() {
                    return Err(self.not_reached(&proof.changes));
                }
                // What a command said is its result; of everything else the state that has been reached is.
                if ran.is_none() {
                    progress.output = proof.output;
                }
            }
            match &task.changed_if {
                Some(condition) => holds(condition, &progress.output),
                None => Ok(!proposal.changes.is_empty()),
            }
        });
        let spent = spent + since.elapsed();
        Ok(match judged {
            Ok(true) => progress.end(task, spent, Status::Changed, None),
            Ok(false) => progress.end(task, spent, Status::Ok, None),
            Err(error) => {
                let error = self.link.in_time().err().unwrap_or(error);
                progress.end(task, spent, Status::Failed, Some(error))
            }
        })
    }

    /// Performs a task's changes, each journaled before. When one fails, what the task has changed so far is taken back.
    fn change<'c>(&mut self, task: &Task, changes: &'c [Change]) -> Result<Result<Ran<'c>, ModuleError>, Fatal> {
        if changes.iter().any(takes_long) {
            self.link.send(&ToController::Started { task: task.id });
        }
        let mut made = Vec::new();
        let mut ran = None;
        for (position, change) in changes.iter().enumerate() {
            let performed = match self.may_go_on(position, changes.len()) {
                Ok(()) => self.change_one(task, change, &mut made)?,
                Err(error) => Err(error),
            };
            match (performed, change) {
                (Ok(Some(output)), Change::Run(run)) => {
                    // A command that failed is no ground to go on from.
                    let fails = !accepts(task, run, &output) && position + 1 < changes.len();
                    ran = Some((run, output));
                    if fails {
                        return Ok(Ok(ran));
                    }
                }
                (Ok(_), _) => {}
                (Err(error), _) => return Ok(Err(self.take_back(made, error))),
            }
        }
        Ok(Ok(ran))
    }

    fn may_go_on(&self, position: usize, of: usize) -> Result<(), ModuleError> {
        if self.link.is_stopped() {
            return Err(ModuleError::host(format!("the run was interrupted after {position} of {of} changes of this task")));
        }
        self.link.in_time()
    }

    fn change_one(
        &mut self,
        task: &Task,
        change: &Change,
        made: &mut Vec<(Intended, Vec<Change>)>,
    ) -> Result<Result<Option<CommandOutput>, ModuleError>, Fatal> {
        self.journal()?;
        let (Host::Apply(host), Some(journal)) = (&mut self.host, &mut self.journal) else { return Ok(Ok(None)) };
        let inverse = host.invert(change);
        let back = inverse.clone().unwrap_or_default();
        // Whatever is secret of it is so for an undo, too.
        let noted = journal.intend(task.id, &task.name, &without_contents(change, task.sensitive), inverse).and_then(|intended| {
            if change.ends_group() {
                journal.flush()?;
            }
            Ok(intended)
        });
        let intended = match noted {
            Ok(intended) => intended,
            Err(error) => return Ok(Err(error)),
        };
        let performed = host.perform(&in_the_time_left(change, self.link.time_left()), &mut ForTask { link: self.link, task: task.id });
        let succeeded = match (&performed, change) {
            (Ok(performed), Change::Run(run)) => performed.command.as_ref().is_some_and(|output| accepts(task, run, output)),
            (performed, _) => performed.is_ok(),
        };
        let noted = if succeeded { journal.done(intended) } else { journal.failed(intended) };
        // One that is made of many may have failed half way.
        let begun = performed.is_ok() || matches!(change, Change::Remove { .. } | Change::Unpack(_));
        made.extend(begun.then_some((intended, back)));
        Ok(performed.and_then(|performed| noted.map(|()| performed.command)))
    }

    /// Takes back what a task changed before it failed, newest first.
    fn take_back(&mut self, made: Vec<(Intended, Vec<Change>)>, mut error: ModuleError) -> ModuleError {
        let (Host::Apply(host), Some(journal)) = (&mut self.host, &mut self.journal) else { return error };
        for (intended, inverse) in made.into_iter().rev() {
            let mut whole = !inverse.is_empty();
            for change in &inverse {
                let result = Kept::of(&self.state, &self.hello.run).and_then(|mut kept| host.perform(change, &mut kept));
                if let Err(why) = result
                    && std::mem::take(&mut whole)
                {
                    error.details.push(format!("could not take back {}: {why}", named(change)));
                }
            }
            if whole {
                // Nothing is left of it for an undo.
                let _ = journal.taken_back(intended);
            }
        }
        error
    }
}

/// Returns the contents that a planned task will ask for.
fn contents<'p>(planned: &'p Planned<'_>) -> impl Iterator<Item = &'p Blob> {
    let changes = match &planned.what {
        What::Changes { proposal, .. } => proposal.changes.as_slice(),
        What::Ended(_) | What::Alone(_) => &[],
    };
    changes.iter().filter_map(|change| match change {
        Change::WriteFile(WriteFile { content: Content::Blob(blob), .. }) => Some(blob),
        _ => None,
    })
}

/// Returns roughly how much memory a change holds.
fn weight(change: &Change) -> u64 {
    match change {
        Change::WriteFile(write) => match &write.content {
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Blob(_) => 0,
        },
        _ => 0,
    }
}

/// Shortens the time limits of a change to what the task has left.
fn in_the_time_left(change: &Change, left: Option<Duration>) -> Change {
    let mut change = change.clone();
    let Some(left) = left.map(|left| left.as_secs().max(1)) else { return change };
    let limit = match &mut change {
        Change::Run(run) => &mut run.command.timeout,
        Change::Packages(packages) => &mut packages.timeout,
        Change::Download(download) => &mut download.timeout,
        Change::Unit { timeout, .. } => timeout,
        _ => return change,
    };
    *limit = if *limit == 0 { left } else { left.min(*limit) };
    change
}

fn unproved(error: ModuleError, task: &Task) -> ModuleError {
    if error.kind == ErrorKind::Unknown {
        return ModuleError::host(format!("it cannot be seen whether `{}` succeeded: {}", task.name, error.message));
    }
    error
}

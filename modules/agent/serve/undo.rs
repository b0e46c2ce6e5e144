//! Undo: changes of a run taken back, newest first, from the journal that it left, or is writing, on this host.

use std::io::Read as _;
use std::time::{Duration, Instant};

use super::relay::Elsewhere;
use super::report::{Manner, report};
use super::session::{Fatal, Host, Session};
use super::task::Progress;
use crate::agent::wire::{ChangeReport, Outcome, Status, Task, ToController};
use crate::api::journal::{Journal, Kept, Step};
use crate::api::{Change, Content, EntryKind, ModuleError, Perform, UnitAction, Upstream as _};

impl<H: Perform> Session<'_, H> {
    /// Undoes a run as far as that is possible; each step has an outcome of its own. The undo is a run itself.
    pub(super) fn undo(&mut self, run: &str) -> Result<(), Fatal> {
        let elsewhere = self.undo_elsewhere(run)?;
        match Journal::undo_plan(&self.state, run) {
            Ok(plan) => self.undo_steps(run, &plan)?,
            // Its changes may all have been another identity's.
            Err(_) if elsewhere == Elsewhere::Undone => {}
            Err(_) if elsewhere == Elsewhere::UndoneBefore => {
                let error = ModuleError::host(format!("the run `{run}` has been undone on this host already"));
                self.tell(Progress::default().end(&Task::default(), Duration::ZERO, Status::Failed, Some(error)));
            }
            Err(error) => self.tell(Progress::default().end(&Task::default(), Duration::ZERO, Status::Failed, Some(error))),
        }
        self.flush()?;
        self.link.send(&ToController::Done { id: 0 });
        Ok(())
    }

    /// Takes back what some tasks of this very run have changed. What has been taken back leaves the run's journal; it is no
    /// change of its own, which a later undo of the run would only bring back.
    pub(super) fn undo_tasks(&mut self, tasks: &[u32]) -> Result<(), Fatal> {
        self.undo_tasks_elsewhere(tasks)?;
        let run = self.hello.run.clone();
        for step in self.journal.as_ref().map(|journal| journal.plan_of(tasks)).unwrap_or_default() {
            if self.link.is_stopped() {
                break;
            }
            let outcome = self.undo_step(&run, &step)?;
            if let (Status::Ok | Status::Changed, Some(journal)) = (outcome.status, &mut self.journal) {
                journal.step_taken_back(&step).map_err(Fatal)?;
            }
            self.tell(outcome);
        }
        self.flush()?;
        self.link.send(&ToController::Done { id: 0 });
        Ok(())
    }

    fn undo_steps(&mut self, run: &str, plan: &[Step]) -> Result<(), Fatal> {
        let mut complete = true;
        for step in plan {
            if self.link.is_stopped() {
                return Ok(());
            }
            let outcome = self.undo_step(run, step)?;
            complete &= outcome.status != Status::Failed;
            self.tell(outcome);
        }
        if complete && matches!(self.host, Host::Apply(_)) {
            Journal::mark_undone(&self.state, run).map_err(Fatal)?;
        }
        Ok(())
    }

    fn undo_step(&mut self, run: &str, step: &Step) -> Result<Outcome, Fatal> {
        let since = Instant::now();
        let task = Task { id: step.task, name: step.name.clone(), ..Task::default() };
        let mut progress = Progress { because: Some(step.name.clone()), attempts: 1, ..Progress::default() };
        let inverse = match &step.inverse {
            Ok(inverse) => inverse,
            Err(irreversible) => {
                progress.because = Some(format!("{}: {}", step.name, irreversible.0));
                return Ok(progress.end(&task, since.elapsed(), Status::Skipped, None));
            }
        };
        for change in &self.with_daemon_reloaded(inverse) {
            match self.undo_change(run, &task, change, is_secret(&step.change))? {
                Ok(Undone::Made(report)) => progress.changes.push(*report),
                Ok(Undone::Kept(why)) => progress.because = Some(format!("{}: {why}", step.name)),
                Err(error) => return Ok(progress.end(&task, since.elapsed(), Status::Failed, Some(error))),
            }
        }
        let status = if progress.changes.is_empty() { Status::Ok } else { Status::Changed };
        Ok(progress.end(&task, since.elapsed(), status, None))
    }

    /// Has systemd read its unit files again before a unit of which it knows other ones starts. The step that once did so may have been
    /// taken back already, along with the task that failed, while the files were still new.
    fn with_daemon_reloaded(&self, inverse: &[Change]) -> Vec<Change> {
        let host: &dyn crate::api::Inspect = match &self.host {
            Host::Check(forecast) => &**forecast,
            Host::Apply(host) => &**host,
        };
        let mut changes = Vec::with_capacity(inverse.len());
        for change in inverse {
            if let Change::Unit { unit, action: UnitAction::Start | UnitAction::Restart | UnitAction::Reload, .. } = change
                && host.unit(unit).is_ok_and(|unit| unit.need_daemon_reload)
            {
                changes.push(Change::ReloadDaemon { reason: format!("unit files of {unit} are as before") });
            }
            changes.push(change.clone());
        }
        changes
    }

    fn undo_change(&mut self, run: &str, task: &Task, change: &Change, sensitive: bool) -> Result<Result<Undone, ModuleError>, Fatal> {
        let change = &match self.with_kept_text(run, change) {
            Ok(change) => change,
            Err(error) => return Ok(Err(error)),
        };
        let manner = Manner { diff: self.hello.diff, sensitive };
        let host: &dyn crate::api::Inspect = match &self.host {
            Host::Check(forecast) => &**forecast,
            Host::Apply(host) => &**host,
        };
        if let Some(why) = match needless(host, change) {
            Ok(why) => why,
            Err(error) => return Ok(Err(error)),
        } {
            return Ok(Ok(Undone::Kept(why)));
        }
        let report = Box::new(report(host, change, manner));
        if let Host::Check(forecast) = &mut self.host {
            let _ = forecast.fold(change, &crate::api::forecast::Sureness::default(), &task.name);
            return Ok(Ok(Undone::Made(report)));
        }
        self.journal()?;
        let (Host::Apply(host), Some(journal)) = (&mut self.host, &mut self.journal) else { return Ok(Ok(Undone::Made(report))) };
        if run == self.hello.run {
            let performed = Kept::of(&self.state, run).and_then(|mut kept| host.perform(change, &mut kept));
            return Ok(performed.map(|_| Undone::Made(report)));
        }
        let inverse = host.invert(change);
        let done = journal.intend(task.id, &task.name, change, inverse).and_then(|intended| {
            let performed = Kept::of(&self.state, run).and_then(|mut kept| host.perform(change, &mut kept));
            match performed {
                Ok(_) => journal.done(intended),
                Err(error) => {
                    journal.failed(intended)?;
                    Err(error)
                }
            }
        });
        Ok(done.map(|()| Undone::Made(report)))
    }

    /// Puts a small kept content into the change itself: diffs and forecasts then need not ask the controller, which does not hold it.
    fn with_kept_text(&self, run: &str, change: &Change) -> Result<Change, ModuleError> {
        let mut change = change.clone();
        if let Change::WriteFile(write) = &mut change
            && let Content::Blob(blob) = &write.content
            && !write.secret
            && blob.size <= TEXT
        {
            let mut bytes = Vec::new();
            let mut kept = Kept::of(&self.state, run)?;
            kept.blob(blob)?.read_to_end(&mut bytes).map_err(|error| ModuleError::io("read what was kept of", &write.path, &error))?;
            write.content = Content::Inline(bytes);
        }
        Ok(change)
    }
}

/// Returns whether what a change wrote must not be shown when it is taken back.
fn is_secret(change: &Change) -> bool {
    matches!(change, Change::WriteFile(write) if write.secret)
}

/// Largest kept content that is shown in a diff, bytes.
const TEXT: u64 = 1 << 20;

/// What became of one change of an undo.
enum Undone {
    Made(Box<ChangeReport>),
    /// Nothing, for this reason.
    Kept(String),
}

/// Returns why a change of an undo is not to be made: it is not needed, or would take away what others have put there.
fn needless(host: &dyn crate::api::Inspect, change: &Change) -> Result<Option<String>, ModuleError> {
    // An account that is gone has nothing that could be as before; it comes back where its removal is taken back.
    match change {
        Change::User { name, before: Some(_), after: Some(_), .. } if host.user(name)?.is_none() => {
            return Ok(Some(format!("the user `{name}` is gone")));
        }
        Change::User { name, after: None, .. } if host.user(name)?.is_none() => {
            return Ok(Some(format!("the user `{name}` is gone already")));
        }
        Change::Group { name, after: None, .. } if host.group(name)?.is_none() => {
            return Ok(Some(format!("the group `{name}` is gone already")));
        }
        _ => {}
    }
    let Change::Remove { path, before } = change else { return Ok(None) };
    let Some(entry) = host.entry(path)? else { return Ok(Some(format!("`{}` is gone already", path.display()))) };
    let folder = before.kind == EntryKind::Directory && entry.kind == EntryKind::Directory;
    let kept = folder && !host.list(path)?.is_empty();
    Ok(kept.then(|| format!("`{}` is kept, since it is not empty", path.display())))
}

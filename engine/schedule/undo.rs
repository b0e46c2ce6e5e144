//! Taking back what a host's part in a play has changed, when it failed and the play says `undo_on_failure`.
//!
//! The host itself comes first, then hosts to which it has delegated tasks. Each is asked when it is free, and what it says
//! are events like those of tasks.

use std::collections::{BTreeMap, VecDeque};

use kplay_modules::agent::wire::{Outcome, Status, ToAgent};

use super::run::Run;
use super::session::HostId;
use crate::diagnostic::{Diagnostic, Place};
use crate::report::event::{Counts, Event, Level, TaskFinished};

/// Which tasks of the play that is under way have been sent where, and for whom, and what is being taken back.
#[derive(Default)]
pub(super) struct Undoing {
    /// Numbers of tasks, but for those that have changed nothing, by who asked for them and where they ran.
    sent: BTreeMap<HostId, BTreeMap<HostId, Vec<u32>>>,
    /// What is to be taken back, in this order.
    waiting: VecDeque<Part>,
    /// What is being taken back.
    at_work: Option<Part>,
}

/// The part of an undo that concerns one host.
struct Part {
    /// Where it is.
    host: HostId,
    /// Whose failure it is about.
    failed: HostId,
    tasks: Vec<u32>,
    /// Whether everything could be taken back so far.
    complete: bool,
}

impl Undoing {
    /// Remembers that a task has been sent.
    pub fn sent(&mut self, requester: HostId, host: HostId, task: u32) {
        self.sent.entry(requester).or_default().entry(host).or_default().push(task);
    }

    /// Forgets a task that has changed nothing.
    pub fn changed_nothing(&mut self, requester: HostId, host: HostId, task: u32) {
        let Some(parts) = self.sent.get_mut(&requester) else { return };
        let Some(tasks) = parts.get_mut(&host) else { return };
        tasks.retain(|other| *other != task);
        if tasks.is_empty() {
            parts.remove(&host);
        }
    }

    /// Returns whether there is anything left to take back.
    pub fn is_over(&self) -> bool {
        self.at_work.is_none() && self.waiting.is_empty()
    }

    /// Returns whether a host is taking something back.
    pub fn is_at(&self, host: HostId) -> bool {
        self.at_work.as_ref().is_some_and(|part| part.host == host)
    }
}

impl Run<'_> {
    /// A host has failed: what its part in the play has changed is to be taken back, there and where it has delegated tasks.
    pub(super) fn undo_part_of(&mut self, failed: HostId) {
        if self.is_check() || !self.play.as_ref().is_some_and(|play| play.undo_on_failure) {
            return;
        }
        let mut parts: Vec<_> = self.undoing.sent.remove(&failed).unwrap_or_default().into_iter().collect();
        parts.sort_by_key(|(host, _)| *host != failed);
        let parts = parts.into_iter().map(|(host, tasks)| Part { host, failed, tasks, complete: true });
        self.undoing.waiting.extend(parts);
    }

    /// Asks the next host to take its part back, once it is free. Returns whether there was anything to do.
    pub(super) fn dispatch_undo(&mut self) -> bool {
        if self.undoing.at_work.is_some() {
            return false;
        }
        let Some(host) = self.undoing.waiting.front().map(|part| part.host) else { return false };
        if self.host(host).busy {
            return false;
        }
        let Some(part) = self.undoing.waiting.pop_front() else { return false };
        let failed = self.planner.host_name(part.failed).to_owned();
        if self.interrupted || !self.sessions.is_ready(host) {
            self.not_undone(&part);
            return true;
        }
        match self.sessions.send(host, &ToAgent::UndoTasks { tasks: part.tasks.clone() }) {
            Ok(()) => {
                self.host(host).busy = true;
                let host = self.planner.host_name(host).to_owned();
                self.report(Event::UndoStarted { host, failed });
                self.undoing.at_work = Some(part);
            }
            Err(_) => self.not_undone(&part),
        }
        true
    }

    /// Reports a step of an undo and counts it.
    pub(super) fn undone(&mut self, id: HostId, outcome: Outcome) {
        if outcome.status == Status::Failed
            && let Some(part) = &mut self.undoing.at_work
        {
            part.complete = false;
        }
        let name = self.planner.host_name(id).to_owned();
        let play = self.play.as_ref().map(|play| play.name.clone()).unwrap_or_default();
        let host = self.host(id);
        host.reported += 1;
        let event = step(play, name, host.reported, &mut host.counts, outcome);
        let left = left_behind(&event);
        self.report(event);
        left.into_iter().for_each(|event| self.report(event));
    }

    /// A host says that it has taken its part back, or is gone.
    pub(super) fn undo_ended(&mut self, id: HostId, lost: bool) {
        let Some(part) = self.undoing.at_work.take_if(|part| part.host == id) else { return };
        if lost {
            return self.not_undone(&part);
        }
        let (host, failed) = (self.planner.host_name(id).to_owned(), self.planner.host_name(part.failed).to_owned());
        let complete = part.complete && !self.interrupted;
        self.report(Event::UndoEnded { host, failed, complete });
    }

    fn not_undone(&mut self, part: &Part) {
        let why = if self.interrupted {
            "the run was interrupted"
        } else if self.host(part.host).counts.unreachable {
            "it cannot be reached"
        } else {
            "no agent is at work there any more"
        };
        let name = self.planner.host_name(part.host).to_owned();
        let text = format!("what this play did here stands, since {why}: `kplay undo {}` takes the run back", self.run_name());
        self.report(Event::Message { host: Some(name), level: Level::Warning, text });
    }
}

/// Returns what is to be said of a step that has left something, which nobody would otherwise hear of: reports are silent on what is
/// skipped or has changed nothing.
pub fn left_behind(event: &Event) -> Option<Event> {
    let Event::TaskFinished(task) = event else { return None };
    let why = task.because.as_ref().filter(|_| task.status != Status::Failed)?;
    let (level, what) = match task.status {
        Status::Skipped => (Level::Warning, "not taken back"),
        _ => (Level::Info, "taken back but for this"),
    };
    Some(Event::Message { host: Some(task.host.clone()), level, text: format!("{what}: {}: {why}", task.task) })
}

/// Returns a step of an undo as the task that it is to those who watch, and counts it.
pub fn step(play: String, host: String, number: u32, counts: &mut Counts, outcome: Outcome) -> Event {
    let count = match outcome.status {
        Status::Ok => &mut counts.ok,
        Status::Changed => &mut counts.changed,
        Status::Failed => &mut counts.failed,
        Status::Skipped => &mut counts.skipped,
        Status::Unknown => &mut counts.unknown,
    };
    *count += 1;
    // The agent names the task whose changes it takes back, and why it leaves some, in one text.
    let (task, because) = match outcome.because.as_deref().map(|text| text.split_once(": ").unwrap_or((text, ""))) {
        Some((task, "")) => (task.to_owned(), None),
        Some((task, why)) => (task.to_owned(), Some(why.to_owned())),
        None => (format!("task {}", outcome.task), None),
    };
    Event::TaskFinished(Box::new(TaskFinished {
        play,
        error: outcome.failure.map(|failure| Box::<Diagnostic>::from(failure).on(&host)),
        host,
        number,
        task,
        module: "undo".to_owned(),
        role: None,
        place: Place::line("undo", 0),
        status: outcome.status,
        certainty: outcome.certainty,
        because,
        changes: outcome.changes,
        ignored: false,
        output: serde_json::from_str(&outcome.output).unwrap_or_default(),
        sensitive: false,
        micros: outcome.micros,
    }))
}

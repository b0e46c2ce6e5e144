//! A session: what the controller asks for, one request after the other.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::link::Link;
use super::relay::Relays;
use super::report::Manner;
use crate::agent::wire::{Hello, Outcome, Request, Status, Task, ToAgent, ToController};
use crate::api::forecast::Forecast;
use crate::api::journal::Journal;
use crate::api::{Facts, Inspect, ModuleError, Perform};

/// Why a session cannot go on.
#[derive(Debug)]
pub struct Fatal(pub ModuleError);

/// What the tasks act on.
pub(super) enum Host<'a, H> {
    /// Check mode: one forecast for the whole session, since later requests build on earlier ones.
    Check(Box<Forecast<'a>>),
    /// The host itself.
    Apply(&'a mut H),
}

/// Whether a task has changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Changed,
    Same,
    Unknown,
}

/// Whether a task that waits for others is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    No,
    Perhaps,
}

/// See the head of this file.
pub struct Session<'a, H> {
    pub(super) link: &'a Link,
    pub(super) hello: &'a Hello,
    pub(super) state: PathBuf,
    pub(super) host: Host<'a, H>,
    /// Begun before the first change: a run that changes nothing takes no lock and writes nothing.
    pub(super) journal: Option<Journal>,
    pub(super) marks: RefCell<HashMap<u32, Mark>>,
    pub(super) relays: Relays,
}

impl<'a, H: Perform> Session<'a, H> {
    /// Creates the session of an apply.
    pub fn apply(link: &'a Link, hello: &'a Hello, state: PathBuf, host: &'a mut H) -> Self {
        Self::new(link, hello, state, Host::Apply(host))
    }

    /// Creates the session of a check.
    pub fn check(link: &'a Link, hello: &'a Hello, state: PathBuf, forecast: Forecast<'a>) -> Self {
        Self::new(link, hello, state, Host::Check(Box::new(forecast)))
    }

    fn new(link: &'a Link, hello: &'a Hello, state: PathBuf, host: Host<'a, H>) -> Self {
        Self { link, hello, state, host, journal: None, marks: RefCell::default(), relays: Relays::default() }
    }

    /// Answers messages until the controller says goodbye or is gone. `gather` takes the facts again.
    pub fn run(mut self, gather: impl Fn() -> Facts) -> Result<(), Fatal> {
        let result = self.answer_all(gather);
        self.relays.close();
        if let Ok(true) = result {
            // The lock is about to be given back, and what it says is then the next one's.
            self.link.stop().at_end(None);
        }
        match (self.journal.take(), &result) {
            (Some(journal), Ok(true)) => journal.finish().map_err(Fatal)?,
            // The run did not come to its end here; what it did is on record all the same.
            (Some(mut journal), _) => journal.flush().map_err(Fatal)?,
            (None, _) => {}
        }
        result.map(|_| ())
    }

    /// Returns whether the run came to its end.
    fn answer_all(&mut self, gather: impl Fn() -> Facts) -> Result<bool, Fatal> {
        while let Some(message) = self.link.next() {
            match message {
                ToAgent::Request(request) => self.request(&request)?,
                ToAgent::Undo { run } => self.undo(&run)?,
                ToAgent::UndoTasks { tasks } => self.undo_tasks(&tasks)?,
                ToAgent::ListRuns => self.list_runs(),
                ToAgent::Gather => self.link.send(&ToController::Facts(gather())),
                ToAgent::Fold(foreseen) => self.fold(&foreseen),
                ToAgent::Bye => return Ok(!self.link.stop().is_cancelled()),
                ToAgent::Hello(_) => return Err(Fatal(ModuleError::host("the controller greeted twice"))),
                // Answers, taken by those who asked; a stop has been noted when it was read.
                ToAgent::Blob { .. } | ToAgent::NoBlob { .. } | ToAgent::Signed { .. } | ToAgent::Cancel => {}
            }
        }
        match self.link.broken() {
            Some(why) => Err(Fatal(ModuleError::host(format!("cannot understand the controller: {why}")))),
            None => Ok(false),
        }
    }

    /// Does the tasks of a request in order, those of another identity through that user's agent.
    fn request(&mut self, request: &Request) -> Result<(), Fatal> {
        let mut rest = request.tasks.as_slice();
        while let Some(first) = rest.first() {
            if self.link.is_stopped() {
                break;
            }
            let user = self.other_identity(first);
            let same = rest.iter().take_while(|task| self.other_identity(task) == user).count();
            let (tasks, after) = rest.split_at(same);
            let goes_on = match (user, &self.host) {
                (Some(user), _) => self.relay(&user, tasks)?,
                (None, Host::Check(_)) => self.foresee(tasks),
                (None, Host::Apply(_)) => self.work(tasks)?,
            };
            if !goes_on {
                break;
            }
            rest = after;
        }
        self.flush()?;
        self.link.send(&ToController::Done { id: request.id });
        Ok(())
    }

    /// Makes what has been done survive a loss of power.
    pub(super) fn flush(&mut self) -> Result<(), Fatal> {
        if let (Host::Apply(host), Some(journal)) = (&mut self.host, &mut self.journal) {
            host.settle().map_err(Fatal)?;
            journal.flush().map_err(Fatal)?;
        }
        Ok(())
    }

    /// Returns the user that a task is to be done as, when that is another one. Below a root there is nobody else to be.
    fn other_identity(&self, task: &Task) -> Option<String> {
        let me = &self.facts().user;
        task.become_user.clone().filter(|user| user != me && self.hello.root.is_none())
    }

    pub(super) fn facts(&self) -> &Facts {
        match &self.host {
            Host::Check(forecast) => forecast.facts(),
            Host::Apply(host) => host.facts(),
        }
    }

    pub(super) fn manner(&self, task: &Task) -> Manner {
        Manner { diff: self.hello.diff, sensitive: task.sensitive }
    }

    /// Returns whether a task is to be done; `pending` are tasks that are about to change something.
    pub(super) fn wanted(&self, task: &Task, pending: &HashSet<u32>) -> Wanted {
        let marks = self.marks.borrow();
        let mark = |id: &u32| if pending.contains(id) { Some(Mark::Changed) } else { marks.get(id).copied() };
        let any = |wanted: Mark| task.when_changed.iter().any(|id| mark(id) == Some(wanted));
        match () {
            () if task.when_changed.is_empty() || any(Mark::Changed) => Wanted::Yes,
            () if any(Mark::Unknown) => Wanted::Perhaps,
            () => Wanted::No,
        }
    }

    /// Tells the controller how a task ended, and remembers it for tasks that wait for it.
    pub(super) fn tell(&self, outcome: Outcome) {
        let mark = match outcome.status {
            Status::Changed => Mark::Changed,
            Status::Unknown => Mark::Unknown,
            Status::Ok | Status::Failed | Status::Skipped => Mark::Same,
        };
        self.marks.borrow_mut().insert(outcome.task, mark);
        self.link.send(&ToController::Outcome(outcome));
    }

    /// Returns the journal; takes the host's lock the first time.
    pub(super) fn journal(&mut self) -> Result<&mut Journal, Fatal> {
        let journal = match self.journal.take() {
            Some(journal) => journal,
            None => {
                let journal = Journal::begin(&self.state, &self.hello.run, &self.hello.by).map_err(Fatal)?;
                self.link.stop().at_end(Some(journal.farewell()));
                journal
            }
        };
        Ok(self.journal.insert(journal))
    }
}

/// Why a task that waits for others was not done.
pub(super) const NOT_WANTED: &str = "none of the tasks that it waits for changed anything";

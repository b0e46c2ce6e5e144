//! Tasks of other users: passed on to an agent that runs as that user, whose answers are passed back.

use std::collections::{BTreeMap, HashSet};

use super::link::Link;
use super::session::{Fatal, Host, Mark, NOT_WANTED, Session, Wanted};
use super::task::{module_of, skipped};
use crate::agent::identity::{Identity, Lost};
use crate::agent::wire::{Foreseen, Outcome, Request, RunEntry, Status, Task, ToAgent, ToController};
use crate::api::forecast::Certainty;
use crate::api::journal::Journal;
use crate::api::{Change, Content, Digest, Footprint, Inspect, ModuleError, Perform};

/// Agents of other users, started when their first task comes.
#[derive(Default)]
pub(super) struct Relays {
    agents: BTreeMap<String, Identity>,
    /// What all identities would have done so far, and who.
    foreseen: Vec<(Option<String>, Foreseen)>,
    /// How much of that each agent has been told.
    told: BTreeMap<String, usize>,
}

/// What other users' agents knew of a run to be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Elsewhere {
    Nowhere,
    UndoneBefore,
    Undone,
}

impl Relays {
    /// Remembers what a task would do, for agents that are yet to be told.
    pub(super) fn note(&mut self, by: Option<String>, foreseen: Foreseen) {
        self.foreseen.push((by, foreseen));
    }

    /// Returns what the agent of `user` has not been told of the others.
    fn news(&mut self, user: &str) -> Vec<Foreseen> {
        let told = self.told.insert(user.to_owned(), self.foreseen.len()).unwrap_or(0);
        let fresh = self.foreseen.get(told..).unwrap_or_default();
        fresh.iter().filter(|(by, _)| by.as_deref() != Some(user)).map(|(_, foreseen)| foreseen.clone()).collect()
    }

    /// Says goodbye to all agents and waits for their ends.
    pub(super) fn close(&mut self) {
        for (_, agent) in std::mem::take(&mut self.agents) {
            agent.close();
        }
    }
}

impl<H: Perform> Session<'_, H> {
    /// Does consecutive tasks of one other user. Returns whether those that follow are to be done.
    pub(super) fn relay(&mut self, user: &str, tasks: &[Task]) -> Result<bool, Fatal> {
        if let Err(error) = self.start(user) {
            return Ok(self.cannot_become(tasks, &error));
        }
        let tasks: Vec<Task> = tasks.iter().map(|task| self.without_strangers(task, tasks)).collect();
        let news = self.relays.news(user);
        if !news.is_empty() && matches!(self.host, Host::Check(_)) {
            self.pass(user, &ToAgent::Fold(news));
        }
        self.pass(user, &ToAgent::Request(Request { id: 0, tasks: tasks.clone() }));
        let goes_on = self.pass_back(user, &tasks)?;
        if let Host::Apply(host) = &self.host {
            host.refresh();
        }
        Ok(goes_on)
    }

    fn start(&mut self, user: &str) -> Result<(), ModuleError> {
        if self.relays.agents.contains_key(user) {
            return Ok(());
        }
        let agent = Identity::begin(self.hello, user, self.inspect(), self.link.stop(), |why| self.link.send(&ToController::Waits(why)))?;
        if matches!(self.host, Host::Apply(_)) {
            super::identities::remember(&self.state, user)?;
        }
        self.relays.agents.insert(user.to_owned(), agent);
        Ok(())
    }

    fn inspect(&self) -> &dyn Inspect {
        match &self.host {
            Host::Check(forecast) => &**forecast,
            Host::Apply(host) => &**host,
        }
    }

    /// Fails the first task that is to be done.
    fn cannot_become(&mut self, tasks: &[Task], error: &ModuleError) -> bool {
        for task in tasks {
            if self.wanted(task, &HashSet::new()) == Wanted::No {
                self.tell(skipped(task, NOT_WANTED));
                continue;
            }
            let progress = super::task::Progress { attempts: 1, ..Default::default() };
            self.tell(progress.end(task, std::time::Duration::ZERO, Status::Failed, Some(error.clone())));
            if !task.ignore_errors {
                return false;
            }
        }
        true
    }

    /// Returns a task as the other agent is to see it: it knows nothing of the tasks of others that this one may wait for.
    fn without_strangers(&self, task: &Task, company: &[Task]) -> Task {
        let mut seen = task.clone();
        let marks = self.marks.borrow();
        let known = |id: &u32| marks.get(id).copied();
        if task.when_changed.iter().any(|id| matches!(known(id), Some(Mark::Changed | Mark::Unknown))) {
            seen.when_changed.clear();
        } else {
            seen.when_changed.retain(|id| company.iter().any(|other| other.id == *id));
            if seen.when_changed.is_empty() && !task.when_changed.is_empty() {
                // A task that does not exist never changes anything.
                seen.when_changed.push(u32::MAX);
            }
        }
        seen
    }

    fn pass(&mut self, user: &str, message: &ToAgent) {
        if let Some(agent) = self.relays.agents.get_mut(user) {
            agent.send(message);
        }
    }

    /// Passes messages back and forth until the other agent is done. Its questions go up as they come, so that many cost one
    /// round trip; while answers are outstanding it waits for nothing else.
    fn pass_back(&mut self, user: &str, tasks: &[Task]) -> Result<bool, Fatal> {
        let mut goes_on = true;
        let mut left = tasks.iter();
        let mut open = HashSet::new();
        loop {
            let Some(agent) = self.relays.agents.get_mut(user) else { return Ok(false) };
            let message = match agent.said_already() {
                Some(message) => Ok(message),
                None if !open.is_empty() => {
                    pass_down(self.link, agent, &mut open);
                    continue;
                }
                None => agent.next(self.link.stop()),
            };
            match message {
                Ok(ToController::Outcome(outcome)) => {
                    let task = left.find(|task| task.id == outcome.task);
                    goes_on = outcome.status != Status::Failed || task.is_some_and(|task| task.ignore_errors);
                    self.outcome_of_other(user, task, outcome);
                }
                Ok(ToController::Done { .. }) => return Ok(goes_on && !self.link.is_stopped()),
                Ok(ToController::Fatal(error)) => return Err(Fatal(error)),
                Ok(message @ (ToController::Started { .. } | ToController::Fetched { .. })) => self.link.send(&message),
                Ok(message @ ToController::NeedBlob { digest, .. }) => {
                    open.insert(Open::Blob(digest));
                    self.link.send(&message);
                }
                Ok(message @ ToController::Sign { task, .. }) => {
                    open.insert(Open::Signature(task));
                    self.link.send(&message);
                }
                Ok(ToController::Ready { .. } | ToController::Facts(_) | ToController::Runs(_) | ToController::Waits(_)) => {}
                Err(Lost(error)) => {
                    self.relays.agents.remove(user);
                    return Err(Fatal(error));
                }
            }
        }
    }

    fn outcome_of_other(&mut self, user: &str, task: Option<&Task>, mut outcome: Outcome) {
        if matches!(self.host, Host::Check(_)) {
            let unknown = outcome.certainty == Certainty::Unknown;
            let reach = match task.map(module_of) {
                Some(Ok(module)) if unknown => module.reach(),
                _ => Footprint::Nothing,
            };
            let changes = outcome.changes.iter().map(|report| with_content(&report.change, report.after.as_deref())).collect();
            let foreseen = Foreseen {
                task: task.map(|task| task.name.clone()).unwrap_or_default(),
                changes,
                reach,
                certainty: outcome.certainty,
                because: outcome.because.clone().unwrap_or_default(),
            };
            self.fold(std::slice::from_ref(&foreseen));
            self.relays.note(Some(user.to_owned()), foreseen);
        }
        if !self.hello.diff {
            for report in &mut outcome.changes {
                (report.before, report.after) = (None, None);
            }
        }
        self.tell(outcome);
    }

    /// Undoes a run as all other users whose agents have ever worked for this one. Returns whether any of them knew the run.
    pub(super) fn undo_elsewhere(&mut self, run: &str) -> Result<Elsewhere, Fatal> {
        let mut elsewhere = Elsewhere::Nowhere;
        for user in super::identities::known(&self.state) {
            match self.runs_of(&user).iter().find(|entry| entry.run == run) {
                None => continue,
                Some(entry) if entry.undone => {
                    elsewhere = elsewhere.max(Elsewhere::UndoneBefore);
                    continue;
                }
                Some(_) => elsewhere = Elsewhere::Undone,
            }
            self.undo_as(&user, &ToAgent::Undo { run: run.to_owned() })?;
        }
        Ok(elsewhere)
    }

    /// Undoes tasks of this run as all other users who have worked in it.
    pub(super) fn undo_tasks_elsewhere(&mut self, tasks: &[u32]) -> Result<(), Fatal> {
        let users: Vec<String> = self.relays.agents.keys().cloned().collect();
        users.iter().try_for_each(|user| self.undo_as(user, &ToAgent::UndoTasks { tasks: tasks.to_vec() }))
    }

    fn undo_as(&mut self, user: &str, question: &ToAgent) -> Result<(), Fatal> {
        self.pass(user, question);
        while let Some(agent) = self.relays.agents.get_mut(user) {
            match agent.next(self.link.stop()) {
                Ok(ToController::Outcome(outcome)) => self.tell(outcome),
                Ok(ToController::Fatal(error)) | Err(Lost(error)) => return Err(Fatal(error)),
                Ok(ToController::Done { .. }) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Answers which runs this host remembers, of all identities.
    pub(super) fn list_runs(&mut self) {
        let mut runs = Journal::list(&self.state);
        for user in super::identities::known(&self.state) {
            for entry in self.runs_of(&user) {
                match runs.iter_mut().find(|known| known.run == entry.run) {
                    Some(known) => {
                        known.changes += entry.changes;
                        known.finished &= entry.finished;
                        known.undone &= entry.undone;
                    }
                    None => runs.push(entry),
                }
            }
        }
        runs.sort_by(|one, other| (other.started, &other.run).cmp(&(one.started, &one.run)));
        self.link.send(&ToController::Runs(runs));
    }

    /// Returns the runs that another user's agent remembers; none when that user cannot be become any more.
    fn runs_of(&mut self, user: &str) -> Vec<RunEntry> {
        if self.start(user).is_err() {
            return Vec::new();
        }
        self.pass(user, &ToAgent::ListRuns);
        loop {
            let Some(agent) = self.relays.agents.get_mut(user) else { return Vec::new() };
            match agent.next(self.link.stop()) {
                Ok(ToController::Runs(runs)) => return runs,
                Ok(_) => {}
                Err(_) => return Vec::new(),
            }
        }
    }
}

/// A question of another agent that the controller has not answered in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Open {
    Blob(Digest),
    Signature(u32),
}

/// Passes the next part of an answer on; says that there will be none when the controller is gone.
fn pass_down(link: &Link, agent: &mut Identity, open: &mut HashSet<Open>) {
    let question = |message: &ToAgent| match message {
        ToAgent::Blob { digest, .. } | ToAgent::NoBlob { digest, .. } => Some(Open::Blob(*digest)),
        ToAgent::Signed { task, .. } => Some(Open::Signature(*task)),
        _ => None,
    };
    match link.answer(|message| question(message).is_some_and(|question| open.contains(&question))) {
        Ok(part) => {
            agent.send(&part);
            if !matches!(part, ToAgent::Blob { last: false, .. })
                && let Some(answered) = question(&part)
            {
                open.remove(&answered);
            }
        }
        Err(error) => {
            for question in open.drain() {
                agent.send(&match question {
                    Open::Blob(digest) => ToAgent::NoBlob { digest, message: error.message.clone() },
                    Open::Signature(task) => ToAgent::Signed { task, certificate: Err(error.message.clone()) },
                });
            }
        }
    }
}

/// Returns a change with the content that was reported beside it.
fn with_content(change: &Change, after: Option<&[u8]>) -> Change {
    match (change, after) {
        (Change::WriteFile(write), Some(bytes)) if write.content.digest() == Digest::of(bytes) => {
            let mut write = write.clone();
            write.content = Content::Inline(bytes.to_vec());
            Change::WriteFile(write)
        }
        _ => change.clone(),
    }
}

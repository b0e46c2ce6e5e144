//! What hosts say, and what follows from it: outcomes, contents, signatures, facts.

use kplay_modules::agent::wire::{Certainty, Outcome, Status, ToController, UNKNOWN_FIELD};
use kplay_modules::api::{ErrorKind, ModuleError};
use serde_json::{Map, Value};

use super::run::Run;
use super::session::HostId;
use super::supply::Supply;
use crate::diagnostic::{Diagnostic, Kind};
use crate::outputs::Output;
use crate::plan::{PlannedTask, TaskResult};
use crate::report::event::{Event, Level, TaskFinished};

impl Run<'_> {
    /// Acts on what a host's agent says.
    pub(super) fn hear(&mut self, id: HostId, message: ToController) {
        match message {
            ToController::Started { task } => {
                let name = self.host(id).in_flight.get(&task).map(|task| task.wire.name.clone());
                if let Some(task) = name {
                    let host = self.planner.host_name(id).to_owned();
                    self.report(Event::TaskStarted { host, task });
                }
            }
            ToController::Outcome(outcome) if self.undoing.is_at(id) => self.undone(id, outcome),
            ToController::Outcome(outcome) => self.outcome(id, outcome),
            ToController::Done { .. } => {
                self.undo_ended(id, false);
                let host = self.host(id);
                host.busy = false;
                // The agent stops at a failure: what it did not come to goes out again, if those who asked for it live on.
                let rest: Vec<_> = std::mem::take(&mut host.in_flight).into_values().collect();
                for task in rest.into_iter().rev() {
                    if self.hosts.get(&task.requested_by).is_some_and(|requester| !requester.out) {
                        self.host(id).pending.push_front(task);
                    }
                }
                self.advance_waiting();
            }
            ToController::NeedBlob { digest, kept } => {
                let outbox = self.sessions.outbox();
                if self.host(id).contents.contains(&digest) {
                    self.supply.send_blob(&outbox, id, digest, kept);
                } else {
                    Supply::refuse_blob(&outbox, id, digest);
                }
            }
            ToController::Sign { task, request } => {
                // Taken, not read: one signature a task.
                let wanted = self.host(id).in_flight.get_mut(&task).and_then(|task| task.signature.take());
                let wanted = wanted.ok_or_else(|| "this host has no pending task that may ask for a certificate".to_owned());
                self.supply.sign(self.sessions.workers(), &self.sessions.outbox(), id, task, wanted, request);
            }
            ToController::Fetched { task, bytes, last } => {
                let dest = self.host(id).in_flight.get(&task).and_then(|task| task.delivers.clone());
                let stored = match dest {
                    Some(dest) => self.supply.receive(id, task, &dest, &bytes, last),
                    None => Err(Diagnostic::host("the host sent a file that no task of its asked for")),
                };
                if let Err(error) = stored {
                    self.sessions.close(id);
                    self.lost(id, &error);
                }
            }
            ToController::Facts(facts) => {
                let host = self.host(id);
                host.busy = false;
                host.gathering = false;
                self.planner.set_facts(id, facts);
                self.advance_waiting();
            }
            ToController::Waits(text) => {
                let host = Some(self.planner.host_name(id).to_owned());
                self.report(Event::Message { host, level: Level::Info, text });
            }
            ToController::Ready { .. } | ToController::Runs(_) | ToController::Fatal(_) => {}
        }
    }

    fn outcome(&mut self, id: HostId, outcome: Outcome) {
        let Some(task) = self.host(id).in_flight.remove(&outcome.task) else { return };
        let fields: Map<_, _> = serde_json::from_str(&outcome.output).unwrap_or_default();
        let host = self.planner.host_name(id).to_owned();
        let (output, shown_fields) = match &self.outputs {
            Some(outputs) if !task.wire.sensitive => outputs.keep(&host, task.wire.id, fields),
            _ => (fields.clone().into(), fields),
        };
        let error = outcome.failure.map(|failure| self.explain(&task, failure));
        let ignored = task.wire.ignore_errors;
        let result = match (&error, outcome.status) {
            (_, Status::Unknown) => TaskResult::Unknown { because: outcome.because.clone().unwrap_or_default() },
            (Some(error), _) => TaskResult::Failed { error: error.clone(), ignored, output },
            (None, status) => TaskResult::Done { changed: status == Status::Changed, skipped: status == Status::Skipped, output },
        };
        let failed = error.is_some() && !ignored;
        let shown = error.clone();
        let requester = task.requested_by;
        let number = task.wire.id;
        if matches!(outcome.status, Status::Ok | Status::Skipped) {
            self.undoing.changed_nothing(requester, id, number);
        }
        let report = Outcome { failure: None, ..outcome };
        let known = shown_fields.into_iter().filter(|(_, value)| value != UNKNOWN_FIELD).collect();
        self.finished(task, report, error, known);
        self.planner.finish_task(number, result);
        if failed {
            for host in self.hosts.values_mut() {
                host.drop_pending_of(requester);
            }
            // The agent goes no further in this request.
            self.host(id).in_flight.retain(|_, task| task.requested_by != requester);
            self.host(requester).shown = shown;
        }
        self.advance(requester);
    }

    /// Reports a task and counts it on the host where it ran.
    fn finished(&mut self, task: PlannedTask, outcome: Outcome, error: Option<Box<Diagnostic>>, output: Map<String, Value>) {
        let ignored = task.wire.ignore_errors && error.is_some();
        let host = self.host(task.host);
        host.reported += 1;
        let number = host.reported;
        let count = match outcome.status {
            Status::Ok => &mut host.counts.ok,
            Status::Changed => &mut host.counts.changed,
            Status::Failed if ignored => &mut host.counts.ok,
            Status::Failed => &mut host.counts.failed,
            Status::Skipped => &mut host.counts.skipped,
            Status::Unknown => &mut host.counts.unknown,
        };
        *count += 1;
        let name = task.wire.name.clone();
        let event = TaskFinished {
            play: self.play.as_ref().map(|play| play.name.clone()).unwrap_or_default(),
            host: self.planner.host_name(task.host).to_owned(),
            number,
            task: task.wire.name,
            module: task.wire.module,
            role: task.role,
            place: task.place,
            status: outcome.status,
            certainty: outcome.certainty,
            because: outcome.because,
            changes: outcome.changes,
            error,
            ignored,
            output,
            sensitive: task.wire.sensitive,
            micros: outcome.micros,
        };
        let host = event.host.clone();
        self.report(Event::TaskFinished(Box::new(event)));
        for warning in outcome.warnings {
            self.report(Event::Message { host: Some(host.clone()), level: Level::Warning, text: format!("{name}: {warning}") });
        }
    }

    pub(super) fn skip(&mut self, task: PlannedTask) {
        let outcome = Outcome {
            task: task.wire.id,
            status: Status::Skipped,
            certainty: Certainty::Exact,
            because: task.skipped.clone(),
            changes: Vec::new(),
            output: String::new(),
            failure: None,
            attempts: 0,
            micros: 0,
            warnings: Vec::new(),
        };
        let (number, requester) = (task.wire.id, task.requested_by);
        self.finished(task, outcome, None, Map::new());
        self.planner.finish_task(number, TaskResult::Done { changed: false, skipped: true, output: Output::default() });
        self.advance(requester);
    }

    /// Gives a module's error its place in the playbook.
    fn explain(&self, task: &PlannedTask, failure: ModuleError) -> Box<Diagnostic> {
        let place = match &failure.argument {
            Some(argument) => self.planner.place_of(task.wire.id, argument),
            None => task.place.clone(),
        };
        let kind = if failure.kind == ErrorKind::Argument { Kind::User } else { Kind::Host };
        let mut error = Box::<Diagnostic>::from(failure).at(place).on(self.planner.host_name(task.host));
        error.kind = kind;
        error.chain.clone_from(&task.chain);
        error
    }
}

//! The loop of a run: plays, batches, requests, outcomes, failures, the recap.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kplay_modules::agent::wire::{Request, ToAgent};

use super::host::Host;
use super::policy;
use super::session::{Happening, HostId, Sessions};
use super::supply::Supply;
use super::undo::Undoing;
use crate::diagnostic::{Diagnostic, Kind, exit_code};
use crate::outputs::{Output, Outputs};
use crate::plan::{Planner, Play, TaskResult};
use crate::report::event::{Event, Level, Recap, Reporter};
use crate::transport::Target;

/// How often the loop wakes without a happening, to notice that nothing can happen any more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many further happenings are acted on before requests leave and messages are shown.
const BATCH: usize = 256;

/// What a run is told besides its plays.
pub struct Settings {
    /// Name of the run.
    pub run: String,
    /// The playbook, for the first event.
    pub playbook: String,
    /// Whether nothing is to be changed.
    pub check: bool,
    /// Whether `--exit-code` was given.
    pub exit_code: bool,
    /// Where long outputs go; `None` keeps them in memory.
    pub outputs: Option<Outputs>,
    /// How each host is reached, by number.
    pub targets: Vec<Arc<Target>>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The process's exit code.
    pub code: u8,
    /// Names of the hosts that failed or were not reached, for `--limit @failed`.
    pub failed: Vec<String>,
}

/// A run under way.
pub struct Run<'a> {
    pub(super) planner: &'a mut dyn Planner,
    pub(super) sessions: Sessions,
    pub(super) supply: Supply,
    reporter: &'a mut dyn Reporter,
    /// Where long outputs go.
    pub(super) outputs: Option<Outputs>,
    /// What is not told yet, since the run may still be refused.
    held: Option<Vec<Event>>,
    settings: Settings,
    pub(super) hosts: BTreeMap<HostId, Host>,
    /// Hosts whose requests may leave: those of the current batch.
    released: HashSet<HostId>,
    pub(super) play: Option<Play>,
    requests: u32,
    /// Whether any request has left that may change something: from then on an error is a failure, no refusal.
    pub(super) touched: bool,
    pub(super) interrupted: bool,
    forecast_ended: bool,
    /// Whether a play is being planned: errors are gathered then, so that they can refuse the run.
    pub(super) planning: bool,
    stopping: Option<String>,
    pub(super) undoing: Undoing,
    started: Instant,
}

impl<'a> Run<'a> {
    /// Prepares a run of the planner's plays.
    pub fn new(
        planner: &'a mut dyn Planner,
        sessions: Sessions,
        supply: Supply,
        reporter: &'a mut dyn Reporter,
        mut settings: Settings,
    ) -> Self {
        Self {
            planner,
            sessions,
            supply,
            reporter,
            outputs: settings.outputs.take(),
            held: None,
            settings,
            hosts: BTreeMap::new(),
            released: HashSet::new(),
            play: None,
            requests: 0,
            touched: false,
            interrupted: false,
            forecast_ended: false,
            planning: false,
            stopping: None,
            undoing: Undoing::default(),
            started: Instant::now(),
        }
    }

    /// Runs all plays. An error means that the run was refused before anything was touched; everything later is an event.
    pub fn go(mut self) -> std::result::Result<End, Vec<Diagnostic>> {
        let plays = self.planner.plays().to_vec();
        for host in plays.iter().flat_map(|play| play.hosts.iter().copied()) {
            self.hosts.entry(host).or_default();
        }
        let event = Event::RunStarted {
            run: self.settings.run.clone(),
            playbook: self.settings.playbook.clone(),
            check: self.settings.check,
            hosts: self.hosts.len(),
        };
        self.report(event);
        if let Some(error) = self.reporter.failure() {
            return Err(vec![*error]);
        }
        for (index, play) in plays.into_iter().enumerate() {
            self.play(index, play)?;
            if self.interrupted || self.stopping.is_some() {
                break;
            }
        }
        Ok(self.finish())
    }

    fn play(&mut self, index: usize, mut play: Play) -> std::result::Result<(), Vec<Diagnostic>> {
        let ordered = self.planner.order(index).map(|hosts| play.hosts = hosts);
        let living: Vec<HostId> = play.hosts.iter().copied().filter(|host| !self.host(*host).out).collect();
        self.play = Some(play.clone());
        let names = living.iter().map(|host| self.planner.host_name(*host).to_owned()).collect();
        self.held = (!self.touched).then(Vec::new);
        self.report(Event::PlayStarted { play: play.name.clone(), hosts: names });
        self.released.clear();
        self.undoing = Undoing::default();
        match ordered {
            Ok(()) => self.plan(index, &living)?,
            Err(error) if !self.touched => return Err(vec![*error]),
            Err(error) => living.iter().for_each(|host| self.fail(*host, error.clone())),
        }
        self.held.take().into_iter().flatten().for_each(|event| self.report(event));
        let batches = play.batches();
        for (number, batch) in batches.iter().enumerate() {
            let batch: Vec<HostId> = batch.iter().copied().filter(|host| !self.host(*host).out).collect();
            if batches.len() > 1 && !batch.is_empty() {
                let hosts = batch.iter().map(|host| self.planner.host_name(*host).to_owned()).collect();
                self.report(Event::BatchStarted { batch: number + 1, of: batches.len(), hosts });
            }
            self.batch(&play, &living, &batch);
            if self.interrupted || self.stopping.is_some() {
                break;
            }
            if batches.len() > 1 && !batch.is_empty() && batch.iter().all(|host| self.host(*host).failed) {
                self.stopping = Some("every host of the batch failed".to_owned());
                break;
            }
        }
        if let Some(reason) = self.stopping.clone() {
            self.report(Event::PlayAborted { play: play.name.clone(), reason: reason.clone() });
        }
        if self.interrupted || self.stopping.is_some() {
            for host in living {
                if !self.host(host).is_over() {
                    self.planner.abandon(host, Diagnostic::host("the play has ended"));
                }
            }
        }
        for host in self.hosts.values_mut() {
            host.step = None;
            host.pending.clear();
        }
        self.say_messages();
        Ok(())
    }

    /// Sends what the batch has planned and goes on until all its hosts are through. `living` are the hosts that have come to the
    /// play: those that earlier plays have lost are no failures of this one.
    fn batch(&mut self, play: &Play, living: &[HostId], batch: &[HostId]) {
        self.released.extend(batch);
        loop {
            self.open_barrier(batch);
            if self.dispatch_undo() || self.dispatch() {
                continue;
            }
            self.say_messages();
            if self.stopping.is_none() {
                self.stopping = policy::verdict(play, living.len(), living.iter().filter(|host| self.host(**host).failed).count());
            }
            let working = !self.undoing.is_over() || self.hosts.values().any(|host| host.busy);
            let over = batch.iter().all(|host| self.host(*host).is_over());
            if !working && (over || self.stopping.is_some() || self.interrupted) {
                return;
            }
            if !self.wait() && !self.hosts.values().any(|host| host.busy) && !self.connecting() {
                self.break_deadlock(batch);
            }
        }
    }

    /// Takes what is queued and sends it to the hosts that are free; a host that is not connected yet is connected first.
    /// Returns whether that let anybody plan on.
    fn dispatch(&mut self) -> bool {
        for host in self.planner.queued() {
            match self.planner.take_queue(host) {
                Ok(tasks) => self.host(host).pending.extend(tasks),
                Err(error) => self.fail(host, error),
            }
        }
        if self.stopping.is_some() || self.interrupted {
            return false;
        }
        let ids: Vec<HostId> = self.hosts.keys().copied().collect();
        let mut progress = false;
        for id in ids {
            progress |= self.dispatch_to(id);
        }
        progress
    }

    fn dispatch_to(&mut self, id: HostId) -> bool {
        let released = &self.released;
        let Some(host) = self.hosts.get_mut(&id) else { return false };
        let gathers = host.gathering;
        if host.busy || (host.pending.is_empty() && !gathers) {
            return false;
        }
        let (mut leaving, staying) =
            std::mem::take(&mut host.pending).into_iter().partition::<Vec<_>, _>(|task| released.contains(&task.requested_by));
        host.pending = staying.into();
        if leaving.iter().all(|task| task.skipped.is_some()) && !gathers {
            // Nothing to send: no connection is needed to say that nothing is to be done.
            let progress = !leaving.is_empty();
            leaving.into_iter().for_each(|task| self.skip(task));
            return progress;
        }
        if !self.sessions.is_ready(id) {
            host.pending = leaving.into_iter().chain(std::mem::take(&mut host.pending)).collect();
            self.connect(id);
            return false;
        }
        let sent: Vec<_> = leaving.extract_if(.., |task| task.skipped.is_none()).collect();
        let progress = !leaving.is_empty();
        leaving.into_iter().for_each(|task| self.skip(task));
        let message = if sent.is_empty() {
            ToAgent::Gather
        } else {
            self.requests += 1;
            ToAgent::Request(Request { id: self.requests, tasks: sent.iter().map(|task| task.wire.clone()).collect() })
        };
        self.touched |= sent.iter().any(|task| !task.only_looks());
        match self.sessions.send(id, &message) {
            Ok(()) => {
                if !sent.is_empty() {
                    let host = self.planner.host_name(id).to_owned();
                    self.report(Event::RequestSent { host, tasks: sent.len() });
                }
                sent.iter().for_each(|task| self.undoing.sent(task.requested_by, id, task.wire.id));
                let host = self.host(id);
                host.busy = true;
                host.contents.extend(sent.iter().flat_map(|task| task.blobs.iter().copied()));
                host.in_flight.extend(sent.into_iter().map(|task| (task.wire.id, task)));
            }
            Err(error) => self.fail(id, error),
        }
        progress
    }

    /// Waits for a happening and acts on it, and on those that have come meanwhile: what is looked at for all hosts between
    /// two waits must not be looked at for each message. Returns whether there was one.
    pub(super) fn wait(&mut self) -> bool {
        let Some(first) = self.sessions.next(PATIENCE) else { return false };
        self.act(first);
        for _ in 0..BATCH {
            let Some(happening) = self.sessions.next(Duration::ZERO) else { break };
            self.act(happening);
        }
        true
    }

    fn act(&mut self, happening: Happening) {
        match happening {
            Happening::Ready { host, facts, millis, agent_sent } => {
                let name = self.planner.host_name(host).to_owned();
                self.report(Event::HostConnected { host: name, millis, agent_sent });
                self.planner.set_facts(host, facts);
                self.advance_waiting();
            }
            Happening::Lost { host, error } => self.lost(host, &error),
            Happening::Message { host, message } => self.hear(host, message),
            Happening::Log { host, line } => {
                let host = Some(self.planner.host_name(host).to_owned());
                self.report(Event::Message { host, level: Level::Debug, text: line });
            }
            Happening::Interrupted => self.interrupt(),
        }
    }

    /// A host failed outside a task, or because of one that nothing caught.
    pub(super) fn fail(&mut self, id: HostId, error: Box<Diagnostic>) {
        let host = self.host(id);
        let shown = host.shown.take().is_some_and(|shown| *shown == *error);
        host.failed = true;
        self.leave(id, &error);
        if !shown {
            self.host(id).counts.failed += 1;
            let host = self.planner.host_name(id).to_owned();
            self.report(Event::HostFailed { host, error });
        }
        self.undo_part_of(id);
    }

    pub(super) fn end_forecast(&mut self, id: HostId, error: Box<Diagnostic>) {
        self.forecast_ended = true;
        self.leave(id, &error);
        let host = self.planner.host_name(id).to_owned();
        self.report(Event::ForecastEnded { host, error });
    }

    fn leave(&mut self, id: HostId, error: &Diagnostic) {
        self.host(id).out = true;
        self.planner.abandon(id, Box::new(error.clone()));
        for host in self.hosts.values_mut() {
            host.drop_pending_of(id);
        }
        self.advance_waiting();
    }

    /// A host could not be reached, or its connection broke: its own part ends, and those who delegated to it get the error.
    pub(super) fn lost(&mut self, id: HostId, error: &Diagnostic) {
        let name = self.planner.host_name(id).to_owned();
        let host = self.host(id);
        if error.kind == Kind::Unreachable {
            host.counts.unreachable = true;
        } else {
            host.counts.failed += 1;
        }
        host.failed = true;
        host.busy = false;
        host.gathering = false;
        let tasks: Vec<_> = std::mem::take(&mut host.in_flight).into_values().chain(std::mem::take(&mut host.pending)).collect();
        self.report(match error.kind {
            Kind::Unreachable => Event::HostUnreachable { host: name, error: Box::new(error.clone()) },
            _ => Event::HostFailed { host: name, error: Box::new(error.clone()) },
        });
        for task in tasks.into_iter().filter(|task| task.requested_by != id) {
            let error = Box::new(Diagnostic { place: Some(task.place.clone()), chain: task.chain.clone(), ..error.clone() });
            self.planner.finish_task(task.wire.id, TaskResult::Failed { error, ignored: false, output: Output::default() });
            self.advance(task.requested_by);
        }
        self.undo_ended(id, true);
        self.leave(id, error);
        self.undo_part_of(id);
    }

    /// The first Ctrl-C: every host finishes the change it is at.
    fn interrupt(&mut self) {
        self.interrupted = true;
        let text = "interrupted: each host finishes its current change; press Ctrl-C again to stop at once".to_owned();
        self.report(Event::Message { host: None, level: Level::Warning, text });
        let busy: Vec<HostId> = self.hosts.iter().filter(|(_, host)| host.busy).map(|(id, _)| *id).collect();
        for id in busy {
            if self.sessions.send(id, &ToAgent::Cancel).is_err() {
                self.host(id).busy = false;
            }
        }
    }

    fn finish(mut self) -> End {
        let ids: Vec<HostId> = self.hosts.keys().copied().collect();
        for id in ids {
            if self.sessions.is_ready(id) {
                // The agent ends with its input as well; this only lets it end at once.
                let _ = self.sessions.send(id, &ToAgent::Bye);
            }
        }
        let counts: BTreeMap<_, _> = self.hosts.iter().map(|(id, host)| (self.planner.host_name(*id).to_owned(), host.counts)).collect();
        let failed = self.hosts.iter().filter(|(_, host)| host.failed).map(|(id, _)| self.planner.host_name(*id).to_owned()).collect();
        let code = self.code();
        self.report(Event::Recap(Recap {
            hosts: counts,
            run: self.settings.run.clone(),
            check: self.settings.check,
            interrupted: self.interrupted,
            millis: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }));
        End { code, failed }
    }

    /// The table of exit codes, in the order in which they apply.
    fn code(&self) -> u8 {
        let any = |test: fn(&Host) -> bool| self.hosts.values().any(test);
        if self.interrupted {
            exit_code::INTERRUPTED
        } else if any(|host| host.counts.failed > 0 || host.failed && !host.counts.unreachable) {
            exit_code::FAILED
        } else if any(|host| host.counts.unreachable) {
            exit_code::UNREACHABLE
        } else if self.forecast_ended {
            exit_code::UNKNOWN
        } else if self.settings.exit_code && self.settings.check && any(|host| host.counts.changed > 0 || host.counts.unknown > 0) {
            exit_code::WOULD_CHANGE
        } else {
            exit_code::DONE
        }
    }

    pub(super) fn is_check(&self) -> bool {
        self.settings.check
    }

    pub(super) fn run_name(&self) -> &str {
        &self.settings.run
    }

    pub(super) fn host(&mut self, id: HostId) -> &mut Host {
        self.hosts.entry(id).or_default()
    }

    pub(super) fn connect(&mut self, id: HostId) {
        match self.settings.targets.get(id) {
            Some(target) => self.sessions.connect(id, &Arc::clone(target)),
            None => self.fail(id, Diagnostic::internal("a task names a host that the inventory does not have")),
        }
    }

    pub(super) fn connecting(&self) -> bool {
        self.hosts.iter().any(|(id, host)| !host.out && self.sessions.is_connecting(*id))
    }

    /// Tells an event, or keeps it until the play is known to be valid.
    pub(super) fn report(&mut self, event: Event) {
        match &mut self.held {
            Some(held) => held.push(event),
            None => self.reporter.report(&event),
        }
    }

    pub(super) fn say_messages(&mut self) {
        for message in self.planner.take_messages() {
            let host = message.host.map(|host| self.planner.host_name(host).to_owned());
            self.report(Event::Message { host, level: message.level, text: message.text });
        }
    }
}

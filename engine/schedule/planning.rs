//! The scheduler's side of the dialogue with the code that plans: resuming hosts, facts, barriers.

use std::collections::BTreeSet;

use super::run::Run;
use super::session::HostId;
use crate::diagnostic::{Diagnostic, Kind};
use crate::plan::Step;

impl Run<'_> {
    /// Plans a play for all its hosts, each to its first read, barrier or end. Errors found here, before anything has been
    /// sent to any host, refuse the run as a whole; the same mistake on many hosts is told once.
    pub(super) fn plan(&mut self, play: usize, hosts: &[HostId]) -> Result<(), Vec<Diagnostic>> {
        let untouched = !self.touched;
        self.planning = true;
        for &host in hosts {
            match self.planner.begin(play, host) {
                Ok(()) => self.resume(host),
                Err(error) => self.host(host).step = Some(Step::Failed(error)),
            }
        }
        // Facts come with the connection: whoever reads them at this point waits for no more than that.
        while !self.interrupted
            && hosts.iter().any(|host| matches!(self.host(*host).step, Some(Step::NeedsFacts { .. })) && !self.host(*host).out)
        {
            if !self.wait() && !self.connecting() {
                break;
            }
        }
        self.planning = false;
        let mut refused: Vec<Diagnostic> = Vec::new();
        for &host in hosts {
            if let Some(Step::Failed(error)) = self.host(host).step.take_if(|step| matches!(step, Step::Failed(_))) {
                if untouched && error.kind != Kind::Unreachable {
                    let known = refused.iter().any(|other| other.message == error.message && other.place == error.place);
                    if !known {
                        refused.push(*error);
                    }
                } else {
                    self.fail(host, error);
                }
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// Resumes every host whose wait may be over: facts, other hosts' `once`, tasks on other hosts.
    pub(super) fn advance_waiting(&mut self) {
        let waiting: Vec<HostId> = self.hosts.iter().filter(|(_, host)| !host.is_over()).map(|(id, _)| *id).collect();
        for host in waiting {
            self.advance(host);
        }
    }

    /// Resumes a host if what it waits for has come, and acts on where that leads.
    pub(super) fn advance(&mut self, id: HostId) {
        let host = self.host(id);
        let waits = !host.out && !matches!(host.step, None | Some(Step::Ended | Step::Failed(_) | Step::Barrier { .. }));
        if waits && self.planner.ready(id) {
            self.resume(id);
            self.settle(id);
        }
    }

    /// Ends the part of a host whose coroutine has failed.
    fn settle(&mut self, id: HostId) {
        if self.planning {
            return;
        }
        if let Some(Step::Failed(error)) = self.host(id).step.take_if(|step| matches!(step, Step::Failed(_))) {
            self.fail(id, error);
        }
    }

    /// Runs a host's coroutine until it waits for something that is not there.
    fn resume(&mut self, id: HostId) {
        loop {
            let step = self.planner.resume(id);
            match &step {
                Step::NeedsFacts { host } => self.connect(*host),
                Step::Gather { host } => self.host(*host).gathering = true,
                Step::ForecastEnded(error) => {
                    let error = error.clone();
                    self.host(id).step = None;
                    return self.end_forecast(id, error);
                }
                _ => {}
            }
            let rests = matches!(step, Step::Ended | Step::Failed(_) | Step::Barrier { .. });
            self.host(id).step = Some(step);
            if rests || !self.planner.ready(id) {
                return;
            }
        }
    }

    /// Opens a barrier that all living hosts of the batch have reached, and breaks it when they wait at different ones.
    pub(super) fn open_barrier(&mut self, batch: &[HostId]) {
        loop {
            let mut names = BTreeSet::new();
            let mut waiting = Vec::new();
            for &id in batch {
                let host = self.host(id);
                match &host.step {
                    _ if host.is_over() => {}
                    Some(Step::Barrier { name }) => {
                        names.insert(name.clone());
                        waiting.push(id);
                    }
                    _ => return,
                }
            }
            if waiting.is_empty() {
                return;
            }
            if names.len() > 1 {
                let where_each: Vec<String> = waiting
                    .iter()
                    .filter_map(|id| match self.hosts.get(id).and_then(|host| host.step.as_ref()) {
                        Some(Step::Barrier { name }) => Some(format!("{} waits at `{name}`", self.planner.host_name(*id))),
                        _ => None,
                    })
                    .collect();
                for id in waiting {
                    let error = Diagnostic::user("hosts of a batch wait at different barriers")
                        .details(where_each.clone())
                        .hint("every host that takes part in a play has to come to the same barriers in the same order");
                    self.fail(id, error);
                }
                return;
            }
            for id in waiting {
                self.resume(id);
                self.settle(id);
            }
        }
    }

    /// Hosts that wait although nothing is under way can only wait for one another.
    pub(super) fn break_deadlock(&mut self, batch: &[HostId]) {
        let stuck: Vec<HostId> = batch.iter().copied().filter(|id| !self.hosts.get(id).is_none_or(super::host::Host::is_over)).collect();
        for id in stuck {
            let waits = match self.hosts.get(&id).and_then(|host| host.step.as_ref()) {
                Some(Step::Once { key, host }) => format!("for `once(\"{key}\")` of {}", self.planner.host_name(*host)),
                Some(Step::NeedsResult { host, .. }) => format!("for a result of {}", self.planner.host_name(*host)),
                Some(Step::Barrier { name }) => format!("at barrier `{name}`"),
                _ => "for its tasks".to_owned(),
            };
            let error = Diagnostic::user(format!("{} waits {waits}, which cannot come any more", self.planner.host_name(id)))
                .hint("two hosts wait for one another: a task of one, inside `once` or before a barrier, needs the other to go on");
            self.fail(id, error);
        }
    }
}

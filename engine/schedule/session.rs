//! The hosts of a run as conversations: connecting them, greeting their agents, passing messages on.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use kplay_modules::agent::wire::{self, Hello, ToAgent, ToController, VERSION};
use kplay_modules::api::Facts;

use super::forks::{Forks, processors};
use super::unread::Unread;
use super::workers::Workers;
use crate::diagnostic::{Diagnostic, Result};
use crate::transport::{self, Agents, Arrival, Connected, PollLoop, Target};

/// A host's number in the run: its position in the inventory.
pub type HostId = usize;

/// What the agents of a run are told at their start; the host's own settings come from its [`Target`].
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Name of the run.
    pub run: String,
    /// Who runs it.
    pub by: String,
    /// Whether nothing is to be changed.
    pub check: bool,
    /// Whether contents are wanted for diffs.
    pub diff: bool,
}

/// Something that came from a host, or from the operator.
pub enum Happening {
    /// A host's agent has answered.
    Ready {
        /// The host.
        host: HostId,
        /// What is known of it.
        facts: Facts,
        /// Milliseconds since its connection was begun.
        millis: u64,
        /// Whether the agent had to be sent.
        agent_sent: bool,
    },
    /// A host could not be reached, or its agent is gone.
    Lost {
        /// The host.
        host: HostId,
        /// Why.
        error: Box<Diagnostic>,
    },
    /// A message of a greeted agent. Before it is ready it may say what it waits for.
    Message {
        /// The host.
        host: HostId,
        /// What it says.
        message: ToController,
    },
    /// A line of an agent's log.
    Log {
        /// The host.
        host: HostId,
        /// The line.
        line: String,
    },
    /// The operator pressed Ctrl-C, or the process was asked to end.
    Interrupted,
}

/// What arrives on the one channel that a run listens to.
#[expect(clippy::large_enum_variant, reason = "nearly all signals are arrivals")]
enum Signal {
    Connected(HostId, Result<Connected>),
    Arrival(Arrival),
    Interrupted,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.unread.give_up();
    }
}

/// Returns how much of what fills memory is in an arrival.
fn size(arrival: &Arrival) -> usize {
    match arrival {
        Arrival::Message(_, ToController::Outcome(outcome)) => outcome.output.len(),
        Arrival::Message(_, ToController::Fetched { bytes, .. }) => bytes.len(),
        _ => 0,
    }
}

/// How far a conversation has come.
enum Stage {
    Connecting { since: Instant },
    Greeted { since: Instant, agent_sent: bool },
    Ready,
}

/// All conversations of a run. Dropping it ends them.
pub struct Sessions {
    agents: Arc<Agents>,
    greeting: Greeting,
    forks: Forks,
    /// Round trip to the hosts that are connected, on the average of the last ones.
    latency: Option<Duration>,
    /// Who connects hosts.
    connecting: Workers,
    /// Who computes.
    workers: Workers,
    poll: Arc<PollLoop>,
    sender: Sender<Signal>,
    receiver: Receiver<Signal>,
    unread: Arc<Unread>,
    stages: HashMap<HostId, Stage>,
    targets: HashMap<HostId, Arc<Target>>,
}

impl Sessions {
    /// Creates a run without conversations.
    pub fn new(agents: Agents, greeting: Greeting, forks: Forks) -> Result<Self> {
        let (sender, receiver) = channel();
        let unread = Arc::<Unread>::default();
        let (arrivals, counted) = (sender.clone(), Arc::clone(&unread));
        let deliver = move |arrival| {
            counted.arrives(size(&arrival));
            arrivals.send(Signal::Arrival(arrival)).is_ok()
        };
        let poll = PollLoop::delivering(deliver).map_err(|error| Diagnostic::internal(format!("cannot start the poll loop: {error}")))?;
        Ok(Self {
            agents: Arc::new(agents),
            greeting,
            forks,
            latency: None,
            connecting: Workers::new("fork", forks.number(None)),
            workers: Workers::new("sign", processors()),
            poll: Arc::new(poll),
            sender,
            receiver,
            unread,
            stages: HashMap::new(),
            targets: HashMap::new(),
        })
    }

    /// Makes Ctrl-C and SIGTERM arrive as [`Happening::Interrupted`]; the second one ends the process at once.
    pub fn listen_for_interrupts(&self) -> Result<()> {
        let sender = self.sender.clone();
        let mut interrupted = false;
        ctrlc::set_handler(move || {
            if interrupted {
                std::process::exit(i32::from(crate::diagnostic::exit_code::INTERRUPTED));
            }
            interrupted = true;
            let _ = sender.send(Signal::Interrupted);
        })
        .map_err(|error| Diagnostic::internal(format!("cannot listen for Ctrl-C: {error}")))
    }

    /// Begins to connect a host, unless that has been begun already.
    pub fn connect(&mut self, host: HostId, target: &Arc<Target>) {
        if self.stages.contains_key(&host) {
            return;
        }
        self.stages.insert(host, Stage::Connecting { since: Instant::now() });
        self.targets.insert(host, Arc::clone(target));
        let (sender, agents, target) = (self.sender.clone(), Arc::clone(&self.agents), Arc::clone(target));
        self.connecting.spawn(move || {
            // Whoever waits for this host has to hear of it, whatever happens here.
            let connected = catch_unwind(AssertUnwindSafe(|| transport::connect(&target, &agents)))
                .unwrap_or_else(|_| Err(Diagnostic::internal("kplay itself failed while it connected: see above")));
            // The run may be over already; then nobody waits for this host.
            let _ = sender.send(Signal::Connected(host, connected));
        });
    }

    /// Returns whether the host's agent has answered and is still there.
    pub fn is_ready(&self, host: HostId) -> bool {
        matches!(self.stages.get(&host), Some(Stage::Ready))
    }

    /// Returns whether the host's agent is being reached and has not answered yet.
    pub fn is_connecting(&self, host: HostId) -> bool {
        matches!(self.stages.get(&host), Some(Stage::Connecting { .. } | Stage::Greeted { .. }))
    }

    /// Says something to a host's agent.
    pub fn send(&self, host: HostId, message: &ToAgent) -> Result<()> {
        let bytes = wire::encode(message).map_err(|error| Diagnostic::internal(format!("cannot encode a message: {error}")))?;
        self.poll.send(host, bytes);
        Ok(())
    }

    /// Returns a handle for those who answer an agent from another thread.
    pub fn outbox(&self) -> Arc<PollLoop> {
        Arc::clone(&self.poll)
    }

    /// Returns the threads that compute.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Waits for the next happening; `None` when `patience` is over.
    pub fn next(&mut self, patience: Duration) -> Option<Happening> {
        let deadline = Instant::now() + patience;
        loop {
            let signal = match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(signal) => signal,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            };
            if let Signal::Arrival(arrival) = &signal {
                self.unread.read(size(arrival));
            }
            let happening = match signal {
                Signal::Interrupted => Some(Happening::Interrupted),
                Signal::Connected(host, Ok(connected)) => self.greet(host, connected),
                Signal::Connected(host, Err(error)) => Some(self.lose(host, error)),
                Signal::Arrival(Arrival::Message(host, message)) => self.hear(host, message),
                Signal::Arrival(Arrival::Log(host, line)) => Some(Happening::Log { host, line }),
                Signal::Arrival(Arrival::Foreign(host, version)) => {
                    let message = format!("the agent is of another build than this kplay: it speaks protocol {version}, kplay {VERSION}");
                    let error = Diagnostic::host(message).hint(
                        "build both from the same sources and put the new `kplay-agent-*` beside `kplay`; `kplay-agent-* --version` says what each speaks",
                    );
                    Some(self.lose(host, error))
                }
                Signal::Arrival(Arrival::Closed(_)) => None,
                Signal::Arrival(Arrival::Lost(host, reason)) => self.stages.contains_key(&host).then(|| {
                    let error = Diagnostic::unreachable(format!("the connection broke: {reason}"))
                        .hint("nothing is lost: run the playbook again, it goes on where this host stands");
                    self.lose(host, error)
                }),
            };
            if happening.is_some() {
                return happening;
            }
        }
    }

    /// Ends the conversation with a host.
    pub fn close(&mut self, host: HostId) {
        if self.stages.remove(&host).is_some() {
            self.poll.close(host);
        }
    }

    fn greet(&mut self, host: HostId, connected: Connected) -> Option<Happening> {
        let since = match self.stages.get(&host) {
            Some(Stage::Connecting { since }) => *since,
            _ => return None,
        };
        if let Some(latest) = connected.latency {
            let latency = self.latency.map_or(latest, |latency| (latency * 3 + latest) / 4);
            self.latency = Some(latency);
            self.connecting.allow(self.forks.number(Some(latency)));
        }
        let target = self.targets.get(&host)?;
        let hello = Hello {
            version: VERSION.to_owned(),
            run: self.greeting.run.clone(),
            by: self.greeting.by.clone(),
            check: self.greeting.check,
            diff: self.greeting.diff,
            root: target.root.clone(),
            become_method: target.become_method,
            become_password: target.become_password.clone(),
        };
        self.stages.insert(host, Stage::Greeted { since, agent_sent: connected.agent_sent });
        self.poll.add(host, connected);
        match self.send(host, &ToAgent::Hello(hello)) {
            Ok(()) => None,
            Err(error) => Some(self.lose(host, error)),
        }
    }

    fn hear(&mut self, host: HostId, message: ToController) -> Option<Happening> {
        let stage = self.stages.get(&host)?;
        match (stage, message) {
            (Stage::Greeted { since, agent_sent }, ToController::Ready { facts, .. }) => {
                let (since, agent_sent) = (*since, *agent_sent);
                self.stages.insert(host, Stage::Ready);
                let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                Some(Happening::Ready { host, facts, millis, agent_sent })
            }
            (_, ToController::Fatal(error)) => {
                let error = error.into();
                Some(self.lose(host, error))
            }
            (Stage::Ready, message) | (Stage::Greeted { .. }, message @ ToController::Waits(_)) => {
                Some(Happening::Message { host, message })
            }
            (Stage::Connecting { .. } | Stage::Greeted { .. }, _) => {
                let error = Diagnostic::host("the agent spoke before it was greeted");
                Some(self.lose(host, error))
            }
        }
    }

    fn lose(&mut self, host: HostId, error: Box<Diagnostic>) -> Happening {
        self.close(host);
        let name = self.targets.get(&host).map(|target| target.name.clone());
        let error = match name {
            Some(name) if error.host.is_none() => error.on(name),
            _ => error,
        };
        Happening::Lost { host, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_lost_when_the_thread_that_connects_it_panics() {
        let agents = Agents::locate(None).unwrap();
        let greeting = Greeting { run: "r".to_owned(), by: "t".to_owned(), check: true, diff: false };
        let mut sessions = Sessions::new(agents, greeting, Forks::decide(Some(1), std::iter::empty()).unwrap()).unwrap();
        // No clock can hold this, which settings refuse.
        sessions.connect(0, &Arc::new(Target { timeout: Duration::MAX, ..crate::transport::tests::target() }));
        let Some(Happening::Lost { host: 0, error }) = sessions.next(Duration::from_secs(60)) else { panic!("nothing is heard") };
        assert!(error.message.contains("kplay itself failed"), "{error}");
    }
}

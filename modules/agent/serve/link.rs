//! The agent's end of a session: messages in from a thread that only reads, messages out, and who wants it all to stop.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::partial::Partials;
use super::supply::Contents;
use crate::agent::wire::{self, ToAgent, ToController};
use crate::api::ModuleError;
use crate::api::journal::Farewell;

/// Messages that wait to be worked on; a stream of blob parts that nobody takes is held up here.
const AHEAD: usize = 16;
/// How long outcomes may wait for company before they are sent.
const GATHER: Duration = Duration::from_millis(50);
/// How often a wait looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(50);

/// Who wants the work to stop. Set by the reading thread, seen between changes.
#[derive(Debug, Default)]
pub struct Stop {
    cancelled: AtomicBool,
    ended: AtomicBool,
    /// Whether the controller is of another build.
    foreign: AtomicBool,
    /// What was wrong with the input, when it did not just end.
    broken: Mutex<Option<String>>,
    /// Tells the next run that this one's controller is gone.
    farewell: Mutex<Option<Farewell>>,
}

impl Stop {
    /// Returns whether the controller has asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Returns whether the controller is gone.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Returns whether the controller is of another build.
    pub fn is_foreign(&self) -> bool {
        self.foreign.load(Ordering::SeqCst)
    }

    /// Sets what is said in the host's lock when the controller is gone; at once, when it is already.
    pub(super) fn at_end(&self, farewell: Option<Farewell>) {
        let mut kept = self.farewell.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = farewell;
        if let (true, Some(farewell)) = (self.is_ended(), &*kept) {
            farewell.say();
        }
    }

    fn end(&self, broken: Option<String>) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
        let mut farewell = self.farewell.lock().unwrap_or_else(PoisonError::into_inner);
        self.ended.store(true, Ordering::SeqCst);
        if let Some(farewell) = farewell.take() {
            farewell.say();
        }
        drop(farewell);
        // Nobody will read what the user's commands say. What changes the system by itself runs to its end.
        crate::api::machine::kill_running();
    }
}

/// A session with a controller (or with the agent of another user).
pub struct Link {
    incoming: Receiver<ToAgent>,
    /// Messages that came while an answer was waited for.
    waiting: RefCell<VecDeque<ToAgent>>,
    output: RefCell<Output>,
    stop: Arc<Stop>,
    pub(super) contents: RefCell<Contents>,
    /// Where large contents are kept while they arrive; nowhere in a check.
    pub(super) partials: OnceCell<Partials>,
    /// When the time of the task being worked on is over.
    deadline: Cell<Option<(Instant, u64)>>,
}

struct Output {
    writer: BufWriter<Box<dyn Write>>,
    flushed: Instant,
}

impl Link {
    /// Begins to read messages on a thread of its own, so that a stop is seen while work is going on.
    pub fn new(input: impl Read + Send + 'static, output: impl Write + 'static) -> Self {
        let stop = Arc::new(Stop::default());
        let (sender, incoming) = sync_channel(AHEAD);
        let seen = Arc::clone(&stop);
        std::thread::spawn(move || read_on(input, &sender, &seen));
        Self {
            incoming,
            waiting: RefCell::default(),
            output: RefCell::new(Output { writer: BufWriter::with_capacity(64 << 10, Box::new(output)), flushed: Instant::now() }),
            stop,
            contents: RefCell::default(),
            partials: OnceCell::new(),
            deadline: Cell::new(None),
        }
    }

    /// From now on keeps large contents below the state folder while they arrive.
    pub fn keep_in(&self, state: &Path) {
        let _ = self.partials.set(Partials::new(state));
    }

    /// Says of which build this agent is to a controller that understands nothing else.
    pub fn introduce(&self) {
        let _ = self.output.borrow_mut().writer.write_all(&wire::introduction());
        self.flush();
    }

    /// Says something. Outcomes may be held back for a moment. When the controller is gone there is nobody to tell.
    pub fn send(&self, message: &ToController) {
        let mut output = self.output.borrow_mut();
        let prompt = !matches!(message, ToController::Outcome(_)) || output.flushed.elapsed() > GATHER;
        // Were a message left out that cannot be told, the controller would wait for it for ever.
        let encoded = wire::encode(message).or_else(|error| {
            self.stop.end(None);
            wire::encode(&ToController::Fatal(ModuleError::host(format!("what was found cannot be told to the controller: {error}"))))
        });
        let sent = encoded.and_then(|bytes| output.writer.write_all(&bytes));
        let sent = sent.and_then(|()| if prompt { output.writer.flush() } else { Ok(()) });
        if prompt {
            output.flushed = Instant::now();
        }
        if sent.is_err() {
            self.stop.end(None);
        }
    }

    /// Returns the next message that is no answer; `None` when there will be none.
    pub fn next(&self) -> Option<ToAgent> {
        loop {
            let waiting = self.waiting.borrow_mut().pop_front();
            let message = match waiting {
                Some(message) => message,
                None => {
                    self.flush();
                    self.incoming.recv().ok()?
                }
            };
            // Parts of a blob that nobody waits for any more.
            if !is_answer(&message) {
                return Some(message);
            }
        }
    }

    /// Waits for the message that answers a question just sent.
    pub(super) fn answer(&self, wanted: impl Fn(&ToAgent) -> bool) -> Result<ToAgent, ModuleError> {
        self.flush();
        loop {
            let Ok(message) = self.incoming.recv() else {
                return Err(ModuleError::host("the connection to the controller is gone"));
            };
            if wanted(&message) {
                return Ok(message);
            }
            if !is_answer(&message) {
                self.waiting.borrow_mut().push_back(message);
            }
        }
    }

    fn flush(&self) {
        let mut output = self.output.borrow_mut();
        output.flushed = Instant::now();
        if output.writer.flush().is_err() {
            self.stop.end(None);
        }
    }

    /// Returns who wants it to stop.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Returns whether no further change is wanted.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled() || self.stop.is_ended()
    }

    /// Returns what was wrong with the input, if it did not just end.
    pub fn broken(&self) -> Option<String> {
        self.stop.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets when the time of the task that is worked on is over, by its time limit in seconds; 0 is none.
    pub(super) fn limit(&self, since: Instant, seconds: u64) {
        let deadline = since.checked_add(Duration::from_secs(seconds)).filter(|_| seconds > 0);
        self.deadline.set(deadline.map(|deadline| (deadline, seconds)));
    }

    /// Returns the time that the task has left.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.deadline.get().map(|(deadline, _)| deadline.saturating_duration_since(Instant::now()))
    }

    /// Fails when the time of the task is over.
    pub(super) fn in_time(&self) -> Result<(), ModuleError> {
        match self.deadline.get() {
            Some((deadline, seconds)) if Instant::now() >= deadline => {
                Err(ModuleError::host(format!("the task took longer than {seconds} s"))
                    .hint("raise its `timeout`, or look at what holds it up"))
            }
            _ => Ok(()),
        }
    }

    /// Waits; fails when the task's time is over or the run is stopped.
    pub(super) fn wait(&self, time: Duration) -> Result<(), ModuleError> {
        // A time that no clock can hold is never over.
        let until = Instant::now().checked_add(time);
        loop {
            self.in_time()?;
            if self.is_stopped() {
                return Err(ModuleError::host("the run was interrupted"));
            }
            let left = until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

fn is_answer(message: &ToAgent) -> bool {
    matches!(message, ToAgent::Blob { .. } | ToAgent::NoBlob { .. } | ToAgent::Signed { .. })
}

fn read_on(input: impl Read, sender: &SyncSender<ToAgent>, stop: &Stop) {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut message = Vec::new();
    loop {
        match wire::read_with(&mut input, &mut message) {
            Ok(Some(ToAgent::Cancel)) => stop.cancelled.store(true, Ordering::SeqCst),
            Ok(Some(message)) => {
                let last = matches!(message, ToAgent::Bye);
                // After a goodbye nobody is missed.
                if sender.send(message).is_err() || last {
                    return;
                }
            }
            Ok(None) => return stop.end(None),
            Err(error) => {
                stop.foreign.store(wire::foreign(&error).is_some(), Ordering::SeqCst);
                return stop.end(Some(error.to_string()));
            }
        }
    }
}

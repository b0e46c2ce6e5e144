//! One host of the poll loop: its link, what waits to be sent to it, and how far its end has come.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use kplay_modules::agent::wire::{self, Decoder};
use rustix::event::epoll;

use super::Arrival;
use crate::transport::{Connected, Interest, Link};

/// Longest line of an agent's log, bytes; a longer one is cut into several.
const LOG_LINE: usize = 16 << 10;
/// How long an agent may take to end after its input was ended.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long after the end of its output we wait to learn how an agent ended.
const POST_MORTEM: Duration = Duration::from_secs(1);

/// A host while its link is open.
pub(super) struct Host {
    link: Box<dyn Link>,
    decoder: Decoder,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first piece of the queue that are sent already.
    sent: usize,
    /// A line of the log that has not ended yet.
    log: Vec<u8>,
    /// What epoll was told; `None` when it watches the link no more.
    watched: Option<Interest>,
    errors_watched: bool,
    /// Whether the caller wants the connection closed.
    pub closing: bool,
    finished: bool,
    pub output_ended: bool,
    errors_ended: bool,
    /// When to stop waiting for the end.
    pub deadline: Option<Instant>,
}

/// Whether a host goes on, and if not, why.
pub(super) enum Step {
    Idle,
    Progress,
    Broken(String),
}

impl Host {
    /// Takes over a connection; what came along with it is not lost.
    pub fn new(connected: Connected, closing: bool) -> Self {
        let mut decoder = Decoder::default();
        decoder.push(&connected.early);
        Self {
            link: connected.link,
            decoder,
            queue: VecDeque::new(),
            sent: 0,
            log: Vec::new(),
            watched: None,
            errors_watched: false,
            closing,
            finished: false,
            output_ended: false,
            errors_ended: false,
            deadline: None,
        }
    }

    /// Queues bytes.
    pub fn push(&mut self, bytes: Vec<u8>) {
        self.queue.push_back(bytes);
    }

    /// Returns whether there is something to write that the link would take.
    pub fn can_write(&self) -> bool {
        !self.queue.is_empty() && self.link.can_write()
    }

    /// Returns whether the agent has ended, and all it said was heard.
    pub fn has_ended(&mut self) -> bool {
        self.output_ended && self.errors_ended && self.link.ended()
    }

    /// Closes the link; returns how the agent ended.
    pub fn end(&mut self) -> String {
        self.link.close()
    }

    /// Returns the beginning of a line of the log that did not end.
    pub fn unfinished_line(&self) -> Option<String> {
        (!self.log.is_empty()).then(|| String::from_utf8_lossy(&self.log).into_owned())
    }

    /// Writes what fits; returns how much that was.
    pub fn write(&mut self) -> (usize, Step) {
        if let Some(piece) = self.queue.front() {
            return match self.link.write(&piece[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    if self.sent >= piece.len() {
                        self.queue.pop_front();
                        self.sent = 0;
                    }
                    (count, Step::Progress)
                }
                Err(error) if is_pause(&error) => (0, Step::Idle),
                // An agent that has ended is read to its last word, which says more than a broken pipe.
                Err(_) => {
                    self.deadline.get_or_insert_with(|| Instant::now() + POST_MORTEM);
                    (0, Step::Idle)
                }
            };
        }
        if self.closing && !self.finished {
            match self.link.finish() {
                Err(error) if is_pause(&error) => {}
                Ok(()) | Err(_) => {
                    self.finished = true;
                    self.deadline.get_or_insert_with(|| Instant::now() + FAREWELL);
                }
            }
        }
        (0, Step::Idle)
    }

    /// Takes one bufferful of output and delivers the messages that it completes.
    pub fn read(&mut self, number: usize, buffer: &mut [u8], deliver: &mut dyn FnMut(Arrival)) -> Step {
        let step = if self.output_ended {
            Step::Idle
        } else {
            match self.link.read(buffer) {
                Ok(0) => {
                    self.output_ended = true;
                    self.deadline = Some(Instant::now() + POST_MORTEM);
                    Step::Idle
                }
                Ok(count) => {
                    self.decoder.push(&buffer[..count]);
                    Step::Progress
                }
                Err(error) if is_pause(&error) => Step::Idle,
                Err(error) => Step::Broken(format!("the connection broke: {error}")),
            }
        };
        loop {
            match self.decoder.next() {
                Ok(Some(message)) => deliver(Arrival::Message(number, message)),
                Ok(None) => return step,
                Err(error) if wire::foreign(&error).is_some() => {
                    let version = wire::foreign(&error).map(|foreign| foreign.version.clone()).unwrap_or_default();
                    deliver(Arrival::Foreign(number, version));
                    return Step::Broken("the agent is of another build".to_owned());
                }
                Err(error) => return Step::Broken(format!("the agent says what is not understood: {error}")),
            }
        }
    }

    /// Takes one bufferful of the log and delivers its lines.
    pub fn read_error(&mut self, number: usize, buffer: &mut [u8], deliver: &mut dyn FnMut(Arrival)) -> Step {
        if self.errors_ended {
            return Step::Idle;
        }
        match self.link.read_error(buffer) {
            Ok(0) => {
                self.errors_ended = true;
                Step::Idle
            }
            Ok(count) => {
                for byte in &buffer[..count] {
                    if *byte != b'\n' {
                        self.log.push(*byte);
                    }
                    if *byte == b'\n' || self.log.len() >= LOG_LINE {
                        deliver(Arrival::Log(number, String::from_utf8_lossy(&self.log).into_owned()));
                        self.log.clear();
                    }
                }
                Step::Progress
            }
            Err(error) if is_pause(&error) => Step::Idle,
            // Standard output breaks too, and says how.
            Err(_) => {
                self.errors_ended = true;
                Step::Idle
            }
        }
    }

    /// Tells epoll what the link waits for, where that has changed.
    pub fn watch(&mut self, poller: &OwnedFd, number: usize) -> rustix::io::Result<()> {
        let key = number as u64 * 2;
        let interest = self.link.interest();
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, interest.read);
        flags.set(epoll::EventFlags::OUT, interest.write);
        match self.watched.replace(interest) {
            None => epoll::add(poller, self.link.descriptor(), epoll::EventData::new_u64(key), flags)?,
            Some(before) if before != interest => {
                epoll::modify(poller, self.link.descriptor(), epoll::EventData::new_u64(key), flags)?;
            }
            Some(_) => {}
        }
        let errors = self.link.error_descriptor();
        match errors {
            Some(errors) if !self.errors_ended && !self.errors_watched => {
                epoll::add(poller, errors.as_fd(), epoll::EventData::new_u64(key + 1), epoll::EventFlags::IN)?;
                self.errors_watched = true;
            }
            Some(errors) if self.errors_ended && self.errors_watched => {
                epoll::delete(poller, errors.as_fd())?;
                self.errors_watched = false;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the link away from epoll: a descriptor at its end is ready for ever.
    pub fn unwatch(&mut self, poller: &OwnedFd) {
        if self.watched.take().is_some() {
            let _ = epoll::delete(poller, self.link.descriptor());
        }
        if let (true, Some(errors)) = (self.errors_watched, self.link.error_descriptor()) {
            let _ = epoll::delete(poller, errors);
            self.errors_watched = false;
        }
    }
}

/// Returns whether an error only says that nothing can be done right now.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

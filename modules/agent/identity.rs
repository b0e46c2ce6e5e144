//! Becoming another user: the agent starts itself as that user and speaks to it as a controller does.
//!
//! An agent of root gives the user's numbers away and needs nothing for that. Any other agent asks `sudo -n`; where sudo wants
//! a password and one was given, `sudo -S` with a prompt that nobody could have written, and the password is sent only after
//! that prompt has appeared. `doas -n` works likewise without a password. `su` and a doas that asks want a terminal.
#![expect(clippy::disallowed_methods, reason = "the agent starts itself as another user, from a file that user can reach")]

mod asking;
mod program;
mod sudo;

use std::io::{BufWriter, Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::serve::link::Stop;
use super::wire::{self, Hello, ToAgent, ToController};
use crate::api::{Inspect, ModuleError};
use asking::{Asked, Heard};
use program::Program;

/// Time that starting as another user may take: sudo may ask a directory server.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look whether the work is still wanted.
const SLICE: Duration = Duration::from_millis(50);
/// Time that an agent has to end after goodbye.
const FAREWELL: Duration = Duration::from_secs(10);

/// Why another user's agent cannot go on.
#[derive(Debug)]
pub struct Lost(pub ModuleError);

/// An agent that runs as another user.
pub struct Identity {
    user: String,
    child: Child,
    /// Closed to tell the agent that nobody wants anything any more.
    input: Option<BufWriter<ChildStdin>>,
    heard: Receiver<Heard>,
    cancelled: bool,
    /// What it last said on its standard error.
    said: Vec<u8>,
}

impl Identity {
    /// Starts an agent as `user`. `tell` hears what it waits for.
    ///
    /// # Errors
    /// When the user does not exist, when this agent may not become that user, or not without a password that was not given.
    pub fn begin(hello: &Hello, user: &str, host: &dyn Inspect, stop: &Stop, tell: impl Fn(String)) -> Result<Self, ModuleError> {
        let program = Program::for_user(host, user)?;
        let marker = marker()?;
        let asked = asking::ask(hello, host, user, &program, &marker)?;
        let mut identity = Self::started(asked, user, stop)?;
        let told = Hello { diff: true, become_password: None, ..hello.clone() };
        identity.send(&ToAgent::Hello(told));
        loop {
            match identity.next(stop) {
                Ok(ToController::Ready { .. }) => return Ok(identity),
                Ok(ToController::Waits(why)) => tell(why),
                Ok(ToController::Fatal(error)) => return Err(error),
                Ok(_) => return Err(ModuleError::host(format!("the agent of `{user}` is of another build"))),
                Err(Lost(error)) => return Err(error),
            }
        }
    }

    fn started(asked: Asked, user: &str, stop: &Stop) -> Result<Self, ModuleError> {
        let Asked { mut child, heard, said } = asked;
        let input = child.stdin.take().map(BufWriter::new);
        if stop.is_ended() {
            return Err(ModuleError::host("the connection to the controller is gone"));
        }
        Ok(Self { user: user.to_owned(), child, input, heard, cancelled: false, said })
    }

    /// Says something. An agent that is gone is noticed by [`Identity::next`].
    pub fn send(&mut self, message: &ToAgent) {
        if let Some(input) = &mut self.input {
            let _ = wire::write(input, message).and_then(|()| input.flush());
        }
    }

    /// Returns the agent's next message. A wish to stop that comes meanwhile is passed on: a request to cancel as such, the
    /// controller's going by closing the agent's input.
    pub fn next(&mut self, stop: &Stop) -> Result<ToController, Lost> {
        loop {
            if stop.is_ended() {
                self.input = None;
            } else if stop.is_cancelled() && !self.cancelled {
                self.cancelled = true;
                self.send(&ToAgent::Cancel);
            }
            match self.heard.recv_timeout(SLICE) {
                Ok(Heard::Message(message)) => return Ok(*message),
                Ok(Heard::Said(bytes)) => pass_on(&bytes, &mut self.said),
                Ok(Heard::Begun) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Heard::Ended) | Err(RecvTimeoutError::Disconnected) => return Err(Lost(self.gone())),
            }
        }
    }

    /// Returns what the agent has said already.
    pub fn said_already(&mut self) -> Option<ToController> {
        loop {
            match self.heard.try_recv() {
                Ok(Heard::Message(message)) => return Some(*message),
                Ok(Heard::Said(bytes)) => pass_on(&bytes, &mut self.said),
                Ok(Heard::Begun) => {}
                // `next` will say so.
                Ok(Heard::Ended) | Err(_) => return None,
            }
        }
    }

    fn gone(&mut self) -> ModuleError {
        let ending = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = String::from_utf8_lossy(&self.said);
        let lines: Vec<String> = said.lines().rev().take(5).map(str::to_owned).collect();
        ModuleError::host(format!("the agent of `{}` has ended: {ending}", self.user)).details(lines.into_iter().rev())
    }

    /// Says goodbye and waits for the agent to end.
    pub fn close(mut self) {
        self.send(&ToAgent::Bye);
        self.input = None;
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until {
            match self.heard.recv_timeout(SLICE) {
                Ok(Heard::Ended) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Heard::Said(bytes)) => pass_on(&bytes, &mut self.said),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Identity {
    /// Leaves no zombie. An agent that does not end at the end of its input (or whose sudo does not) is killed.
    fn drop(&mut self) {
        self.input = None;
        let until = Instant::now() + Duration::from_secs(1);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Passes an agent's log lines on, and keeps the end of them.
fn pass_on(bytes: &[u8], kept: &mut Vec<u8>) {
    let _ = std::io::stderr().write_all(bytes);
    kept.extend_from_slice(bytes);
    let surplus = kept.len().saturating_sub(4096);
    kept.drain(..surplus);
}

/// Returns a word that nobody could have written by chance.
fn marker() -> Result<String, ModuleError> {
    let mut bytes = [0; 16];
    let path = std::path::Path::new("/dev/urandom");
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(|error| ModuleError::io("read", path, &error))?;
    Ok(crate::api::Digest::of(&bytes).hex()[..32].to_owned())
}

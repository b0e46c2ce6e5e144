//! From a shell on a host to a running agent: one command, no further round trip when the agent is there already.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::agents::{Agent, Agents, Packing};
use super::{Connected, Link, Target};
use crate::diagnostic::{Diagnostic, Result};

/// The script, readable.
const SCRIPT: &str = include_str!("bootstrap.sh");
/// What each line of the script and the agent's first one begin with.
const SIGN: &[u8] = b"\x01KPLAY";
/// Output before the marker, bytes, that is taken for a banner; more is taken for a host that never gets to the point.
const NOISE: usize = 1 << 20;
/// Bytes of the host's messages that are kept for an error.
const COMPLAINTS: usize = 8 << 10;
/// Bytes a second that the slowest line carries that we wait for while a sent agent is under way.
const SLOWEST: u64 = 20_000;

/// Word that begins the frames of one connection. Random, so that nothing a host prints can be taken for it.
#[derive(Debug)]
pub(super) struct Marker(String);

impl Marker {
    pub(super) fn random() -> Self {
        // The standard library's keys come from the system. A library for cryptography would first gather entropy of its own,
        // which takes it 20 ms.
        let word = || RandomState::new().build_hasher().finish();
        Self(format!("{:016x}{:016x}", word(), word()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Starts the agent of a host. `open` runs a command there, with a shell that may be any; it is asked once more when an agent
/// lies where it should but cannot run or will not.
pub(super) fn start(
    target: &Target,
    agents: &Agents,
    timeout: Duration,
    mut open: impl FnMut(&str) -> Result<Box<dyn Link>>,
) -> Result<Connected> {
    let marker = Marker::random();
    let folder = target.agent_folder.as_deref();
    let script = script(&marker, agents, folder)?;
    let straight = straight(&marker, agents, folder)?;
    let mut session = Session::new(open(&format!("{straight}{script}"))?, &marker, timeout);
    match session.follow(agents, timeout) {
        Err(_) if session.turned_away => run(open(&script)?, &marker, agents, timeout),
        followed => followed.map(|agent_sent| session.connected(agent_sent)),
    }
}

/// Follows the script on `link` until the agent runs, sending it if it is asked for. The host has to say something at
/// least every `timeout`.
pub(super) fn run(link: Box<dyn Link>, marker: &Marker, agents: &Agents, timeout: Duration) -> Result<Connected> {
    let mut session = Session::new(link, marker, timeout);
    let agent_sent = session.follow(agents, timeout)?;
    Ok(session.connected(agent_sent))
}

/// Returns what comes before the script: it starts an agent that lies where it usually does, and no other program for that. POSIX's
/// shells, csh and fish understand it alike.
///
/// A file of ours in a folder of ours was written by us, or by somebody who may write to our files anyway. Whether somebody may, the
/// agent sees when it starts (`kplay_modules::agent::trust`), and turns us away.
fn straight(marker: &Marker, agents: &Agents, folder: Option<&Path>) -> Result<String> {
    let mut ways = String::new();
    for folder in folder.map(plain_path).transpose()?.into_iter().chain(["~/.cache/kplay"]) {
        for (_, agent) in agents.all()? {
            let path = format!("{folder}/agent-{}", agent.digest.hex());
            ways.push_str(&format!("test -O {folder} && test -O {path} && exec {path} serve {} {path} || ", marker.as_str()));
        }
    }
    Ok(ways)
}

/// Returns the command that turns a shell, whichever it is, into an agent; `folder` comes before the usual ones.
fn script(marker: &Marker, agents: &Agents, folder: Option<&Path>) -> Result<String> {
    let agents = agents.all()?;
    let agents: Vec<String> = agents.iter().map(|(machine, agent)| format!("{machine}:{}:{}", agent.digest.hex(), agent.size)).collect();
    let folder = folder.map(plain_path).transpose()?.unwrap_or_default();
    let script = one_line(SCRIPT).replace("{MARKER}", marker.as_str()).replace("{AGENTS}", &agents.join(" ")).replace("{FOLDER}", folder);
    Ok(format!("exec sh -c '{script}'"))
}

/// What a host says on its way.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// Frames follow.
    Started,
    /// The agent with this digest is to be sent.
    Need { digest: String, packing: Packing },
    /// There is no agent for a host whose `uname -m` says this.
    Machine(String),
    /// It does not work.
    Fail(String),
}

/// A link while it is not one yet.
struct Session<'a> {
    link: Box<dyn Link>,
    marker: &'a Marker,
    /// Standard output not yet understood.
    output: Vec<u8>,
    /// Last part of standard error.
    complaints: Vec<u8>,
    deadline: Instant,
    /// Whether the host's end of it says that its agent could not or would not run.
    turned_away: bool,
}

impl<'a> Session<'a> {
    fn new(link: Box<dyn Link>, marker: &'a Marker, timeout: Duration) -> Self {
        let deadline = Instant::now() + timeout;
        Self { link, marker, output: Vec::new(), complaints: Vec::new(), deadline, turned_away: false }
    }

    /// Does what the host asks for until its agent runs; returns whether that had to be sent.
    fn follow(&mut self, agents: &Agents, timeout: Duration) -> Result<bool> {
        let mut agent_sent = false;
        loop {
            match self.next_line()? {
                Line::Started => return Ok(agent_sent),
                Line::Need { digest, packing } => {
                    let Some(agent) = agents.by_digest(&digest)? else {
                        return Err(self.fail(format!("the host asks for an agent `{digest}` that it was not told of")));
                    };
                    self.send(&agent, packing, timeout)?;
                    agent_sent = true;
                }
                Line::Machine(machine) => {
                    self.link.close();
                    return Err(agents.missing(&machine));
                }
                Line::Fail(reason) => return Err(self.refused(&reason)),
            }
        }
    }

    /// Hands over to whoever speaks with the agent.
    fn connected(self, agent_sent: bool) -> Connected {
        Connected { link: self.link, early: self.output, agent_sent, latency: None }
    }

    /// Waits for the next line of the script, and takes it and all before it off the output.
    fn next_line(&mut self) -> Result<Line> {
        loop {
            if let Some(line) = self.heard_line() {
                return Ok(line);
            }
            if self.output.len() > NOISE {
                return Err(self.fail("the host prints without end before the agent starts"));
            }
            // Output comes last: what another step takes off the socket makes no descriptor ready any more.
            self.pump_errors();
            if !self.pump_output()? {
                self.wait()?;
            }
        }
    }

    /// Takes the next line of the script, and all before it, off the output if it has arrived.
    fn heard_line(&mut self) -> Option<Line> {
        let (line, end) = find_line(&self.output, self.marker)?;
        self.output.drain(..end);
        Some(line)
    }

    /// Sends the agent; the script reads its size in a line of its own.
    fn send(&mut self, agent: &Agent, packing: Packing, timeout: Duration) -> Result<()> {
        let payload = agent.packed(packing)?;
        let head = format!("{}\n", payload.len());
        for part in [head.as_bytes(), payload] {
            let mut sent = 0;
            while sent < part.len() {
                let mut blocked = false;
                match self.link.write(&part[sent..]) {
                    Ok(count) => {
                        sent += count;
                        self.deadline = Instant::now() + timeout;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        // Why the host takes no more of it may be in what it has printed.
                        while self.pump_output()? {}
                        return Err(match self.heard_line() {
                            Some(Line::Fail(reason)) => self.refused(&reason),
                            _ => self.fail(format!("cannot send the agent: {error}")),
                        });
                    }
                }
                // Whatever the host prints meanwhile is taken off the line, else it never gets to read.
                self.pump_errors();
                let heard = self.pump_output()?;
                if blocked && !heard && !self.link.can_write() {
                    self.wait()?;
                }
            }
        }
        self.deadline = Instant::now() + timeout + Duration::from_secs(payload.len() as u64 / SLOWEST);
        Ok(())
    }

    /// Takes what has arrived of standard output; returns whether there was any.
    fn pump_output(&mut self) -> Result<bool> {
        let mut buffer = [0; 16 << 10];
        match self.link.read(&mut buffer) {
            Ok(0) => Err(self.ended()),
            Ok(count) => {
                self.output.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(self.fail(format!("the connection broke while the agent was being started: {error}"))),
        }
    }

    /// Takes what has arrived of standard error.
    fn pump_errors(&mut self) {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = self.link.read_error(&mut buffer) {
            self.complaints.extend_from_slice(&buffer[..count]);
            let surplus = self.complaints.len().saturating_sub(COMPLAINTS);
            self.complaints.drain(..surplus);
        }
    }

    /// Waits until the link can go on.
    fn wait(&mut self) -> Result<()> {
        if wait(&*self.link, self.deadline) {
            return Ok(());
        }
        Err(self
            .fail("the host did not start the agent in time")
            .hint("a login script that waits for input, or a slow host: `--timeout` gives it longer"))
    }

    /// The host ended the session instead of starting the agent.
    fn ended(&mut self) -> Box<Diagnostic> {
        if let Some(Line::Fail(reason)) = self.heard_line() {
            return self.refused(&reason);
        }
        self.hear_last_errors();
        let how = self.link.close();
        // An account that allows no commands ends with 1, the system's `ssh` that cannot connect with 255.
        self.turned_away =
            how.starts_with("killed by") || how.starts_with("exit code") && !matches!(how.as_str(), "exit code 1" | "exit code 255");
        let hint = match how.as_str() {
            "exit code 126" => Some("the folder of the agent does not allow execution any more: name another one with `agent_folder`"),
            "exit code 127" => Some("kplay needs a POSIX shell on the host, as `sh`"),
            "exit code 1" if self.complaints.is_empty() => {
                Some("does the account allow commands? a shell such as `nologin` or `ForceCommand` ends them")
            }
            _ => None,
        };
        let error = self.describe(format!("the host ended the session before the agent ran: {how}"));
        hint.into_iter().fold(error, Diagnostic::hint)
    }

    /// The script has given up.
    fn refused(&mut self, reason: &str) -> Box<Diagnostic> {
        self.hear_last_errors();
        let error = self.fail(format!("cannot start the agent: {reason}"));
        if reason.starts_with("no folder there") {
            return error.hint("name one that is the login user's own and allows execution, in the inventory: `agent_folder: /opt/kplay`");
        }
        error
    }

    /// Takes what the host still prints on its way out.
    fn hear_last_errors(&mut self) {
        let patience = Instant::now() + Duration::from_secs(1);
        while !self.link.ended() && Instant::now() < patience {
            self.pump_errors();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pump_errors();
    }

    /// Ends the link and makes an error of kind `Unreachable`.
    fn fail(&mut self, message: impl Into<String>) -> Box<Diagnostic> {
        self.pump_errors();
        self.link.close();
        self.describe(message)
    }

    /// Makes an error that shows what the host has printed.
    fn describe(&self, message: impl Into<String>) -> Box<Diagnostic> {
        let lines = |bytes: &[u8], name: &str| -> Vec<String> {
            let text = String::from_utf8_lossy(bytes);
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("{name}: {}", line.trim_end())).collect()
        };
        Diagnostic::unreachable(message).details(lines(&self.output, "stdout")).details(lines(&self.complaints, "stderr"))
    }
}

/// Waits until one of the link's descriptors can go on; returns whether it did before `deadline`.
pub(super) fn wait(link: &dyn Link, deadline: Instant) -> bool {
    let interest = link.interest();
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, interest.read);
    events.set(PollFlags::OUT, interest.write);
    let descriptor = link.descriptor();
    let mut polled = vec![PollFd::new(&descriptor, events)];
    let errors = link.error_descriptor();
    polled.extend(errors.iter().map(|errors| PollFd::new(errors, PollFlags::IN)));
    poll_until(&mut polled, deadline)
}

/// Polls; returns whether something happened before `deadline`.
pub(super) fn poll_until(polled: &mut [PollFd<'_>], deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(polled, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            // Another error shows itself again, with a better message, in the call that comes next.
            Ok(_) | Err(_) => return true,
        }
    }
}

/// Finds the first whole line of the script in `output`; returns it and where it ends.
fn find_line(output: &[u8], marker: &Marker) -> Option<(Line, usize)> {
    let mut start = 0;
    while let Some(found) = output[start..].windows(SIGN.len()).position(|window| window == SIGN) {
        let begin = start + found + SIGN.len();
        let length = output[begin..].iter().position(|byte| *byte == b'\n')?;
        let text = String::from_utf8_lossy(&output[begin..begin + length]);
        if let Some(line) = parse_line(text.trim_end_matches('\r'), marker) {
            return Some((line, begin + length + 1));
        }
        start = begin;
    }
    None
}

/// Reads what follows the sign; `None` when it is not meant for this connection.
fn parse_line(text: &str, marker: &Marker) -> Option<Line> {
    if let Some(rest) = text.strip_prefix(':') {
        return (rest == marker.as_str()).then_some(Line::Started);
    }
    let (kind, rest) = text.strip_prefix('-')?.split_once(':')?;
    let argument = rest.strip_prefix(marker.as_str())?.trim_start();
    match kind {
        "NEED" => {
            let (packing, digest) = argument.split_once(' ')?;
            Some(Line::Need { digest: digest.to_owned(), packing: Packing::named(packing)? })
        }
        "MACHINE" => Some(Line::Machine(argument.to_owned())),
        "FAIL" => Some(Line::Fail(argument.to_owned())),
        _ => None,
    }
}

/// Joins the lines of a script, without its comments.
fn one_line(script: &str) -> String {
    script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>().join(" ")
}

/// Returns `folder` as text when no shell would see more in it than a path.
fn plain_path(folder: &Path) -> Result<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@,".contains(&byte);
    match folder.to_str() {
        Some(text) if text.starts_with('/') && text.bytes().all(plain) => Ok(text.trim_end_matches('/')),
        _ => Err(Diagnostic::user(format!("`{}` cannot be the folder of the agent", folder.display()))
            .hint("an absolute path of letters, digits and `._-+@,` is needed")),
    }
}

#[cfg(test)]
mod tests;

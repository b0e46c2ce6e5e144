//! Connections to hosts: how an agent is reached, brought there, started, and talked to.

mod agents;
mod algorithms;
mod auth;
mod bootstrap;
mod dial;
mod host_keys;
mod local;
mod openssh;
mod poll;
mod proxy;
mod ssh;
mod ssh_config;
mod stream;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use kplay_modules::agent::wire::BecomeMethod;

use crate::diagnostic;

pub use agents::Agents;
pub use auth::{AskPassphrase, ask_passphrases_with};
pub use host_keys::SeenKey;
pub use poll::{Arrival, PollLoop};
pub use ssh_config::account_name;
pub use stream::{FarEnd, StreamLink};

/// Reaches a host, brings the agent there if it is missing, and starts it. Blocks, for at most `target.timeout` until
/// the host has accepted us, and after that for as long as the agent's upload makes progress.
///
/// Errors are of kind `Unreachable`, but for a target that makes no sense (`User`); each names the host.
pub fn connect(target: &Target, agents: &Agents) -> diagnostic::Result<Connected> {
    match target.connection {
        ConnectionKind::Local => local::connect(target, agents),
        ConnectionKind::OpenSsh => openssh::connect(target, agents),
        ConnectionKind::Ssh => ssh::connect(target, agents),
    }
    .map_err(|error| error.on(&target.name))
}

/// Asks a host for its key, without logging in, and known_hosts files whether they know it. `None` for a host without one.
///
/// Fails when another key is known for the host, when this one is revoked, or when the host cannot be reached.
pub fn look_at_key(target: &Target) -> diagnostic::Result<Option<SeenKey>> {
    match target.connection {
        ConnectionKind::Local => Ok(None),
        ConnectionKind::Ssh | ConnectionKind::OpenSsh => ssh::look_at_key(target).map(Some).map_err(|error| error.on(&target.name)),
    }
}

/// How a host is reached; everything here comes from the inventory and the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name in the inventory.
    pub name: String,
    /// Which way.
    pub connection: ConnectionKind,
    /// Name or address to connect to.
    pub address: String,
    /// Port; `None` takes ssh_config's, else 22.
    pub port: Option<u16>,
    /// Login user; `None` takes ssh_config's, else the local user.
    pub user: Option<String>,
    /// Private key files, tried in order before the agent's and the usual ones.
    pub private_keys: Vec<PathBuf>,
    /// Login password, when one is configured.
    pub password: Option<String>,
    /// `user@host:port` hops to go through, in order; `None` takes ssh_config's.
    pub jump: Option<String>,
    /// How strictly the host's key is checked.
    pub host_keys: HostKeyPolicy,
    /// A known_hosts file instead of the user's.
    pub known_hosts: Option<PathBuf>,
    /// Network namespace (a path such as `/run/netns/lab`) to connect from.
    pub namespace: Option<PathBuf>,
    /// Act below this folder of the host instead of `/`.
    pub root: Option<PathBuf>,
    /// Time to connect and authenticate.
    pub timeout: Duration,
    /// How to become another user.
    pub become_method: BecomeMethod,
    /// Password for that.
    pub become_password: Option<String>,
    /// Folder for the agent on the host, instead of the usual ones.
    pub agent_folder: Option<PathBuf>,
}

/// Ways to reach a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionKind {
    /// libssh2, in this process.
    Ssh,
    /// The system's `ssh`, for every option that it knows.
    OpenSsh,
    /// This machine, without ssh.
    Local,
}

/// How strictly host keys are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Only known keys.
    Strict,
    /// Unknown hosts' keys are written down; changed keys are refused.
    AcceptNew,
    /// Nothing is checked; for throw-away hosts only.
    Off,
}

/// A byte stream to a running agent, past its bootstrap. Never blocks: a poll loop drives many of them on each of its threads.
pub trait Link: Send + std::fmt::Debug {
    /// The descriptor to poll.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// A second descriptor to poll for reading, when standard error has one of its own.
    fn error_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Whether progress needs the descriptor to be readable, writable, or both.
    fn interest(&self) -> Interest;
    /// Reads what the agent wrote to its standard output; `WouldBlock` when there is nothing, 0 at its end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Reads what the agent wrote to its standard error; `WouldBlock` when there is nothing, 0 at its end.
    fn read_error(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes to the agent's standard input; `WouldBlock` when the window is full.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns whether a write that would have blocked would not any more, though the descriptor tells nothing: what the host has
    /// said of its window was taken in by a read.
    fn can_write(&self) -> bool {
        false
    }
    /// Ends the agent's standard input, once all that was to be written is; `WouldBlock` to be called again.
    fn finish(&mut self) -> io::Result<()>;
    /// Returns whether all is known about the agent's end; asked only after both streams have ended.
    fn ended(&mut self) -> bool;
    /// Ends the stream and tells how the agent ended (`exit code 137`, `killed by signal KILL`), as far as that is known.
    fn close(&mut self) -> String;
}

/// What a link waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interest {
    /// To become readable.
    pub read: bool,
    /// To become writable.
    pub write: bool,
}

/// A connected host whose agent answers frames.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub link: Box<dyn Link>,
    /// Bytes of the agent's output that arrived after the marker already.
    pub early: Vec<u8>,
    /// Whether the agent had to be sent.
    pub agent_sent: bool,
    /// Round trip to the host, where a connection of our own has measured it.
    pub latency: Option<Duration>,
}

#[cfg(test)]
pub(crate) mod tests;

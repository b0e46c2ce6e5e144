//! Connections over libssh2. Nothing here ever blocks in the library: each call has a deadline of ours.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt;
use ssh2::{BlockDirections, Channel, ErrorCode, Session};

use super::agents::Agents;
use super::bootstrap;
use super::dial::{self, Address};
use super::host_keys::{self, KnownHosts, SeenKey};
use super::ssh_config::{self, Settings};
use super::{Connected, HostKeyPolicy, Interest, Link, Target, algorithms, auth, proxy};
use crate::diagnostic::{Diagnostic, Result};

/// libssh2: call again later.
const AGAIN: i32 = -37;
/// libssh2: it took too long.
pub(super) const TIMED_OUT: i32 = -9;
/// libssh2: no algorithm in common, and what else goes wrong in a key exchange.
const NO_EXCHANGE: [i32; 3] = [-5, -8, -33];
/// Standard error among the streams of a channel.
const STDERR: i32 = 1;

/// Connects, checks the host's key, logs in, and starts the agent.
pub(super) fn connect(target: &Target, agents: &Agents) -> Result<Connected> {
    let settings = ssh_config::lookup(target);
    let mut latency = None;
    let connected = bootstrap::start(target, agents, target.timeout, |command| {
        let client = Client::open(target, &settings, Instant::now() + target.timeout)?;
        let user = settings.user.clone().unwrap_or_else(ssh_config::local_user);
        auth::authenticate(&client, &user, target, &settings)?;
        latency = client.latency;
        Ok(Box::new(client.start(command)?))
    })?;
    Ok(Connected { latency, ..connected })
}

/// Returns where a target is, after ssh_config.
fn address(target: &Target, settings: &Settings) -> Address {
    Address {
        host: settings.host_name.clone().unwrap_or_else(|| target.address.clone()),
        port: target.port.or(settings.port).unwrap_or(22),
        namespace: target.namespace.clone(),
    }
}

/// Asks a host for its key, and known_hosts files whether they know it. Nobody logs in.
pub(super) fn look_at_key(target: &Target) -> Result<SeenKey> {
    let settings = ssh_config::lookup(target);
    let place = HostKeys::of(target, &settings);
    let client = Client::shake_hands(target, &settings, &place.known.types_of(&place.name), Instant::now() + target.timeout)?;
    SeenKey::judge(&place.known, &place.name, &client.host_key()?, &place.file, settings.hash_known_hosts)
}

/// Where the key of a host is looked up.
struct HostKeys {
    known: KnownHosts,
    /// What those files call the host.
    name: String,
    /// The file for new keys.
    file: PathBuf,
}

impl HostKeys {
    fn of(target: &Target, settings: &Settings) -> Self {
        let address = address(target, settings);
        let mut files = match &target.known_hosts {
            Some(file) => vec![file.clone()],
            None => settings.user_known_hosts.clone(),
        };
        let file = files.first().cloned().unwrap_or_else(|| ssh_config::home().join(".ssh/known_hosts"));
        files.extend(settings.global_known_hosts.iter().cloned());
        let name = settings.host_key_alias.clone().unwrap_or_else(|| host_keys::known_name(&address.host, address.port));
        Self { known: KnownHosts::read(&files, &name), name, file }
    }
}

/// A session whose host is known to be the right one.
pub(super) struct Client {
    session: Session,
    socket: Arc<OwnedFd>,
    /// The process that carries the connection, when it goes through other hosts.
    carrier: Option<Child>,
    deadline: Instant,
    /// Round trip to the host, when there is nothing in between.
    latency: Option<Duration>,
    /// Whether a link has taken over.
    handed_over: bool,
}

impl Client {
    /// Connects and checks the host's key.
    fn open(target: &Target, settings: &Settings, deadline: Instant) -> Result<Self> {
        let policy = settings.host_keys.filter(|_| target.host_keys == HostKeyPolicy::Strict).unwrap_or(target.host_keys);
        let place = HostKeys::of(target, settings);
        let client = Self::shake_hands(target, settings, &place.known.types_of(&place.name), deadline)?;
        host_keys::check(&place.known, &place.name, &client.host_key()?, policy, &place.file, settings.hash_known_hosts)?;
        Ok(client)
    }

    fn host_key(&self) -> Result<Vec<u8>> {
        self.session.host_key().map(|(key, _)| key.to_vec()).ok_or_else(|| Diagnostic::unreachable("the host shows no key"))
    }

    /// Connects as far as an encrypted session, whoever is at its other end.
    fn shake_hands(target: &Target, settings: &Settings, known: &[String], deadline: Instant) -> Result<Self> {
        let address = &address(target, settings);
        let route = proxy::Route::of(target, settings);
        let (socket, carrier, latency) = match &route {
            Some(route) => {
                let (socket, carrier) = proxy::open(route, target, address, deadline)?;
                (socket, carrier, None)
            }
            None => {
                let (stream, latency) = dial::tcp(address, deadline)?;
                (OwnedFd::from(stream), None, Some(latency))
            }
        };
        let internal = |error: ssh2::Error| Diagnostic::internal(format!("libssh2 cannot be set up: {error}"));
        let socket = Arc::new(socket);
        let session = Session::new().map_err(internal)?;
        let mut client = Self { session, socket, carrier, deadline, latency, handed_over: false };
        algorithms::prefer(&client.session, settings, known).map_err(internal)?;
        client.session.set_tcp_stream(Arc::clone(&client.socket));
        client.session.set_blocking(false);
        // `handshake` alone wants the session mutable; a second handle to the same one gives it that.
        let mut handle = client.session.clone();
        client.block(|_| handle.handshake()).map_err(|error| client.explain_handshake(&error, address, route.is_some()))?;
        Ok(client)
    }

    fn explain_handshake(&mut self, error: &ssh2::Error, address: &Address, routed: bool) -> Box<Diagnostic> {
        let Address { host, port, .. } = address;
        let made = match error.code() {
            ErrorCode::Session(code) if NO_EXCHANGE.contains(&code) => {
                let left = Duration::from_secs(5);
                let lines = match dial::tcp(address, Instant::now() + left) {
                    Ok((stream, _)) if !routed => algorithms::compare(&stream, left),
                    _ => Vec::new(),
                };
                Diagnostic::unreachable(format!("`{host}` and kplay cannot agree on how to encrypt: {}", error.message()))
                    .details(lines)
                    .hint("update the host's sshd, or use `connection: openssh` with the option that allows the old algorithm")
            }
            ErrorCode::Session(TIMED_OUT) => Diagnostic::unreachable(format!("`{host}` port {port} does not speak ssh in time"))
                .hint("is that port sshd's? a host under load may need a longer `--timeout`"),
            _ => Diagnostic::unreachable(format!("`{host}` port {port} ends the connection before ssh begins: {}", error.message()))
                .hint("is that port sshd's? sshd itself does so beyond `MaxStartups` connections, or for addresses it does not like"),
        };
        made.details(self.carrier.as_mut().map(proxy::last_words).unwrap_or_default())
    }

    /// Calls the library until it has an answer other than "later", or the deadline is there.
    pub fn block<T>(&self, mut call: impl FnMut(&Session) -> std::result::Result<T, ssh2::Error>) -> std::result::Result<T, ssh2::Error> {
        loop {
            match call(&self.session) {
                Err(error) if error.code() == ErrorCode::Session(AGAIN) => {
                    // A login is a conversation in small packets, and sshd keeps back its next one until the last is acknowledged:
                    // acknowledged late, as usual, that is 40 ms of waiting for nothing. It is no error on what is no TCP socket.
                    let _ = sockopt::set_tcp_quickack(&*self.socket, true);
                    let directions = self.session.block_directions();
                    let mut flags = PollFlags::empty();
                    flags.set(PollFlags::OUT, matches!(directions, BlockDirections::Outbound | BlockDirections::Both));
                    flags.set(PollFlags::IN, directions != BlockDirections::Outbound);
                    if !bootstrap::poll_until(&mut [PollFd::new(&*self.socket, flags)], self.deadline) {
                        return Err(ssh2::Error::new(ErrorCode::Session(TIMED_OUT), "no answer in time"));
                    }
                }
                answer => return answer,
            }
        }
    }

    /// Returns the session, for what needs no answer from the host.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Returns whether the host has accepted us.
    pub fn authenticated(&self) -> bool {
        self.session.authenticated()
    }

    /// Opens the one channel and runs `command` in it.
    fn start(mut self, command: &str) -> Result<SshLink> {
        let refused = |error: &ssh2::Error| {
            Diagnostic::unreachable(format!("the host runs no commands for us: {}", error.message()))
                .hint("does the key or the account allow commands, and is `MaxSessions` above 0?")
        };
        let channel = self.block(Session::channel_session).map_err(|error| refused(&error))?;
        let mut handle = channel.clone();
        self.block(|_| handle.exec(command)).map_err(|error| refused(&error))?;
        let carrier = self.carrier.take();
        self.handed_over = true;
        Ok(SshLink {
            ahead: ahead(self.session.banner().unwrap_or_default(), self.latency),
            channel,
            session: self.session.clone(),
            socket: Arc::clone(&self.socket),
            carrier,
            widest: 0,
            half_sent: false,
            held_up: false,
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.handed_over {
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
        if let Some(carrier) = &mut self.carrier {
            proxy::end(carrier);
        }
    }
}

/// The agent's three streams in a channel.
struct SshLink {
    // Fields are dropped in this order: the channel before its session.
    channel: Channel,
    session: Session,
    socket: Arc<OwnedFd>,
    carrier: Option<Child>,
    /// Most bytes that may lie between us and the agent.
    ahead: u32,
    /// Widest window that was seen: that of an agent that has taken everything.
    widest: u32,
    /// Whether the library still holds a part of a packet: it wants the same bytes again then.
    half_sent: bool,
    /// Whether the last write had to wait until the agent takes something.
    held_up: bool,
}

impl SshLink {
    /// Returns whether the agent has room for more.
    fn has_room(&self) -> bool {
        let window = self.channel.write_window().remaining;
        window > 0 && self.widest.saturating_sub(window) < self.ahead
    }
}

impl std::fmt::Debug for SshLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshLink").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Link for SshLink {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn interest(&self) -> Interest {
        let write = matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        Interest { read: true, write }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        end_of_stream(&self.channel, self.channel.stream(0).read(buffer))
    }

    fn read_error(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        end_of_stream(&self.channel, self.channel.stream(STDERR).read(buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // sshd opens a channel with a window of nothing, and widens it when the command runs.
        self.widest = self.widest.max(self.channel.write_window().remaining);
        if !self.half_sent && !self.has_room() {
            // Reading nothing takes in what has arrived, how much the agent has taken among it.
            let _ = self.channel.stream(0).read(&mut []);
        }
        self.held_up = !self.half_sent && !self.has_room();
        if self.held_up {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.channel.stream(0).write(bytes);
        self.half_sent = written.is_err() && self.interest().write;
        match written {
            // A full window is told by writing nothing.
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            other => other,
        }
    }

    fn can_write(&self) -> bool {
        self.held_up && self.has_room()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.channel.send_eof().map_err(Into::into)
    }

    fn ended(&mut self) -> bool {
        match self.channel.wait_close() {
            Ok(()) => true,
            Err(error) => !matches!(error.code(), ErrorCode::Session(AGAIN | -34)),
        }
    }

    fn close(&mut self) -> String {
        let signal = self.channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
        // The library knows no "no status": a channel that did not close has none.
        let how = match (signal, self.ended()) {
            (Some(signal), _) => format!("killed by signal {signal}"),
            (None, true) if self.channel.eof() => {
                self.channel.exit_status().map_or_else(|error| error.to_string(), |code| format!("exit code {code}"))
            }
            (None, _) => "connection closed".to_owned(),
        };
        let _ = self.channel.close();
        let _ = self.session.disconnect(None, "done", None);
        // Whatever the library still wants to say while it is freed must not wait for the host.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(carrier) = &mut self.carrier {
            proxy::end(carrier);
        }
        how
    }
}

impl Drop for SshLink {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(carrier) = &mut self.carrier {
            proxy::end(carrier);
        }
    }
}

/// Returns how many bytes may lie between us and the agent.
///
/// OpenSSH's sshd takes whatever its window of 2 MiB allows, and moves it about in memory that it has to grow for that: several times
/// the work of decrypting it. It tells for every 96 KiB that they are gone, so that much less keeps it busy, and a slow line full.
/// Other servers may tell only when half of a window is gone, which is theirs to choose.
fn ahead(banner: &str, latency: Option<Duration>) -> u32 {
    /// Enough while the agent answers at once, bytes.
    const NEAR: u64 = 256 << 10;
    /// What a good line carries, bytes a microsecond.
    const FAST: u64 = 100;
    match latency {
        Some(latency) if banner.contains("OpenSSH") => {
            let under_way = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).saturating_mul(FAST);
            u32::try_from(NEAR.saturating_add(under_way)).unwrap_or(u32::MAX)
        }
        _ => u32::MAX,
    }
}

/// The library answers 0 both for a stream that has ended and for one whose other half still holds data.
fn end_of_stream(channel: &Channel, result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(0) if !channel.eof() => Err(io::ErrorKind::WouldBlock.into()),
        other => other,
    }
}

//! TCP connections: all addresses of a name, within a deadline, from a network namespace if need be.
#![expect(clippy::disallowed_methods, reason = "network namespaces are files, and so is what the kernel tells of a thread")]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::diagnostic::{Diagnostic, Result};

/// Silence, seconds, after which the kernel asks whether the other side is still there, and how long between questions.
const PROBE: (u64, u64) = (15, 5);
/// Milliseconds without an acknowledgement after which a connection counts as broken.
const UNANSWERED: u32 = 60_000;

/// Where to connect to.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// Name or number.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Network namespace to connect from.
    pub namespace: Option<PathBuf>,
}

/// Connects before `deadline`; returns how long a round trip to there took, too.
pub(super) fn tcp(address: &Address, deadline: Instant) -> Result<(TcpStream, Duration)> {
    let (stream, latency) = match (&address.namespace, address.host.parse::<IpAddr>()) {
        (None, Ok(number)) => first(&[SocketAddr::new(number, address.port)], deadline),
        // Asking a name server cannot be given a time limit, so a thread of its own is left behind with it.
        _ => {
            let (host, port) = (address.host.clone(), address.port);
            let work = move || {
                (host.as_str(), port).to_socket_addrs().map_err(Failure::Name).and_then(|found| first(&found.collect::<Vec<_>>(), deadline))
            };
            within(address.namespace.as_deref(), deadline, work)?.unwrap_or(Err(Failure::Connect(io::ErrorKind::TimedOut.into())))
        }
    }
    .map_err(|failure| explain(address, &failure))?;
    tune(&stream).map_err(|error| Diagnostic::unreachable(format!("cannot set up the connection: {error}")))?;
    Ok((stream, latency))
}

/// Runs `work` on a thread of its own, which enters `namespace` first: a namespace belongs to a thread, and no thread of a
/// pool may keep it. `None` when the work is not done at `deadline`.
pub(super) fn within<T: Send + 'static>(
    namespace: Option<&Path>,
    deadline: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>> {
    let namespace = match namespace {
        Some(path) => Some(std::fs::File::open(path).map_err(|error| {
            Diagnostic::unreachable(format!("cannot open the network namespace `{}`: {error}", path.display())).hint("is the lab up?")
        })?),
        None => None,
    };
    let (sender, result) = mpsc::channel();
    std::thread::Builder::new()
        .name("dial".to_owned())
        .spawn(move || {
            let entered = namespace.map_or(Ok(()), |file| move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)));
            // Nobody listens any more after the deadline.
            let _ = sender.send(entered.map(|()| work()));
        })
        .map_err(|error| Diagnostic::internal(format!("cannot start a thread: {error}")))?;
    match result.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(done)) => Ok(Some(done)),
        Ok(Err(error)) => Err(Diagnostic::unreachable(format!("cannot enter the network namespace: {}", io::Error::from(error)))
            .hint("entering a network namespace needs root")),
        Err(_) => Ok(None),
    }
}

enum Failure {
    Name(io::Error),
    Connect(io::Error),
}

/// Tries the addresses in turn, each with its share of the time that is left. The kernel of the host answers, however busy the host;
/// so that the time until then is the line's, less what a busy machine let us wait here.
fn first(addresses: &[SocketAddr], deadline: Instant) -> std::result::Result<(TcpStream, Duration), Failure> {
    let mut failure = Failure::Name(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let (since, waited) = (Instant::now(), kept_waiting());
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok((stream, since.elapsed().saturating_sub(kept_waiting().saturating_sub(waited)))),
            Err(error) => failure = Failure::Connect(error),
        }
    }
    Err(failure)
}

/// Returns how long this thread was ready to go on and had no processor, since it began; nothing where the kernel does not count it.
fn kept_waiting() -> Duration {
    // Nanoseconds on a processor, nanoseconds of waiting for one, and how often it was given one (sched-stats.rst of the kernel).
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(counted.split(' ').nth(1).and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default())
}

fn explain(address: &Address, failure: &Failure) -> Box<Diagnostic> {
    let Address { host, port, .. } = address;
    match failure {
        Failure::Name(error) => Diagnostic::unreachable(format!("cannot find the address of `{host}`: {error}"))
            .hint("when the name is only the inventory's, set `address` there"),
        Failure::Connect(error) => {
            let seen = Diagnostic::unreachable(format!("cannot connect to `{host}` port {port}: {}", plain(error)));
            match error.kind() {
                io::ErrorKind::ConnectionRefused => seen.hint("the host is there, but nothing listens on that port: is sshd running?"),
                io::ErrorKind::TimedOut => seen.hint("is the host up, and does a firewall let the connection through?"),
                _ => seen,
            }
        }
    }
}

/// Returns what went wrong without the number that the standard library adds.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

/// Sends small frames at once and notices a dead peer, idle or not, without a message of ours.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(PROBE.0))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(PROBE.1))?;
    sockopt::set_tcp_user_timeout(stream, UNANSWERED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_a_busy_machine_lets_us_wait_is_known() {
        let (over, end) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(60));
        let busy = || {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
                scope.spawn(busy);
            }
            while kept_waiting() < Duration::from_millis(1) && Instant::now() < end {}
            over.store(true, Ordering::Relaxed);
        });
        assert!(kept_waiting() >= Duration::from_millis(1), "{:?}", kept_waiting());
    }
}

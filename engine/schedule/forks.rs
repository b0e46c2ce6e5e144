//! How many hosts connect at a time: by processors, by how far away the hosts are, and by how many files may be open.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::diagnostic::{Diagnostic, Result};
use crate::transport::{ConnectionKind, Target};

/// Connections that keep a processor busy when the hosts answer at once.
const EACH: usize = 8;
/// Bounds for hosts around the corner.
const NEAR: (usize, usize) = (16, 128);
/// Most connections at a time, however far the hosts: each is a thread.
const MOST: usize = 256;
/// A round trip that makes a connection wait as long again as it works; every further one, once more.
const AGAIN: Duration = Duration::from_millis(10);
/// Files that are open besides connections: logs, sources, contents on their way.
const OTHERS: u64 = 64;
/// Files that are open for a moment while a host connects: keys, known hosts.
const CONNECTING: u64 = 4;

/// How many hosts connect at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forks {
    /// What the operator has said.
    wanted: Option<usize>,
    /// What open files allow.
    room: usize,
}

impl Forks {
    /// Decides for these hosts, and makes room for their connections: raises the soft limit of open files as far as is needed.
    ///
    /// # Errors
    /// When the hard limit does not allow as many connections.
    pub fn decide<'a>(wanted: Option<usize>, targets: impl Iterator<Item = &'a Arc<Target>>) -> Result<Self> {
        let limit = getrlimit(Resource::Nofile);
        let (hosts, held) = targets.fold((0, 0), |(hosts, held), target| (hosts + 1, held + descriptors(target)));
        let (forks, soft) = fit(wanted, hosts, held, limit)?;
        if let Some(current) = limit.current.filter(|current| *current < soft) {
            setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: limit.maximum }).map_err(|error| {
                Diagnostic::user(format!("cannot raise the limit of open files from {current} to {soft}: {error}"))
                    .hint(format!("set it before: `ulimit -n {soft}`"))
            })?;
        }
        Ok(forks)
    }

    /// Returns how many, with the round trip to hosts that are connected already.
    pub fn number(self, latency: Option<Duration>) -> usize {
        let number = self.wanted.unwrap_or_else(|| by_latency(processors(), latency.unwrap_or_default()));
        number.min(self.room).max(1)
    }
}

/// Returns how many processors this process may use. Asked once: the standard library reads about cgroups each time, and all mounts.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
}

/// Returns how many connections keep this many processors busy.
fn by_latency(processors: usize, latency: Duration) -> usize {
    let near = (processors * EACH).clamp(NEAR.0, NEAR.1);
    let waits = latency.as_micros() / AGAIN.as_micros().max(1);
    near.saturating_mul(1 + usize::try_from(waits).unwrap_or(MOST)).min(MOST)
}

/// Returns how many files an open connection is.
fn descriptors(target: &Target) -> u64 {
    match target.connection {
        ConnectionKind::Ssh if target.jump.is_none() => 1,
        // A socket and a process that carries it, or the three streams of one.
        ConnectionKind::Ssh | ConnectionKind::OpenSsh | ConnectionKind::Local => 3,
    }
}

/// Returns how many forks there is room for, and the soft limit that they need.
fn fit(wanted: Option<usize>, hosts: usize, held: u64, limit: Rlimit) -> Result<(Forks, u64)> {
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let least = OTHERS + held + CONNECTING;
    if least > hard {
        let message = format!("connections to {hosts} hosts are {least} open files, and this process may have only {hard}");
        return Err(Diagnostic::user(message)
            .hint("raise the hard limit: `LimitNOFILE=` of the unit, or `nofile` in /etc/security/limits.conf")
            .hint("or run in parts, with `--limit`"));
    }
    let room = (hard - OTHERS - held) / CONNECTING;
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let most = wanted.unwrap_or(MOST).min(hosts.max(1)).min(room);
    Ok((Forks { wanted, room }, OTHERS + held + CONNECTING * most as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farther_the_hosts_the_more_connect_at_a_time() {
        let forks = |processors, millis| by_latency(processors, Duration::from_millis(millis));
        assert_eq!([forks(1, 0), forks(2, 0), forks(8, 1), forks(64, 0)], [16, 16, 64, 128]);
        assert_eq!([forks(2, 30), forks(2, 100), forks(64, 30), forks(2, 100_000)], [64, 176, 256, 256]);
    }

    #[test]
    fn a_thousand_hosts_fit_the_usual_limits_or_it_is_said_why_not() {
        let limit = |soft, hard| Rlimit { current: Some(soft), maximum: Some(hard) };
        let (forks, soft) = fit(None, 1000, 1000, limit(1024, 524_288)).unwrap();
        assert_eq!(soft, 64 + 1000 + 4 * 256);
        assert_eq!(forks.number(Some(Duration::from_secs(10))), 256);
        let (forks, soft) = fit(None, 900, 900, limit(1024, 1024)).unwrap();
        assert_eq!((forks.number(Some(Duration::from_secs(10))), soft), (15, 1024), "fewer at a time, but all of them");
        let (forks, soft) = fit(Some(50), 10, 30, limit(1024, 4096)).unwrap();
        assert_eq!((forks.number(None), soft), (50, 64 + 30 + 40));
        let error = fit(None, 1000, 1000, limit(1024, 1024)).unwrap_err();
        assert_eq!(error.message, "connections to 1000 hosts are 1068 open files, and this process may have only 1024");
        assert_eq!(error.hints.len(), 2);
    }
}

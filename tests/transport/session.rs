//! Whole sessions through the poll loop: the real agent, and agents that die.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kplay::transport::{Agents, Arrival, ConnectionKind, PollLoop, Target, connect};
use kplay_modules::agent::wire::{self, BecomeMethod, Hello, ToAgent, ToController, VERSION};

use crate::support::agents::{real_agents, shell_agents};
use crate::support::sshd::Sshd;

const PATIENCE: Duration = Duration::from_secs(60);

fn open(target: &Target, agents: &Agents) -> (PollLoop, Receiver<Arrival>) {
    let (sender, arrivals) = channel();
    let poll = PollLoop::spawn(sender).expect("a poll loop");
    poll.add(1, connect(target, agents).unwrap_or_else(|error| panic!("{error:#?}")));
    (poll, arrivals)
}

#[test]
fn the_real_agent_answers_in_every_way() {
    let sshd = Sshd::start();
    let agents = real_agents();
    for connection in [ConnectionKind::Ssh, ConnectionKind::OpenSsh, ConnectionKind::Local] {
        let (poll, arrivals) = open(&Target { connection, ..sshd.target() }, &agents);
        let hello = ToAgent::Hello(Hello {
            version: VERSION.into(),
            run: "20261122-054501-test".to_owned(),
            by: "test@localhost".to_owned(),
            check: true,
            diff: false,
            root: Some(sshd.path("root")),
            become_method: BecomeMethod::Sudo,
            become_password: None,
        });
        poll.send(1, wire::encode(&hello).expect("a message"));
        match arrivals.recv_timeout(PATIENCE).expect("an answer") {
            Arrival::Message(1, ToController::Ready { version, .. }) => assert_eq!(version, VERSION),
            other => panic!("{connection:?}: {other:?}"),
        }
        poll.send(1, wire::encode(&ToAgent::Bye).expect("a message"));
        poll.close(1);
        assert_eq!(arrivals.recv_timeout(PATIENCE).expect("an end"), Arrival::Closed(1), "{connection:?}");
    }
}

#[test]
fn an_agent_that_is_killed_is_lost_by_its_signal() {
    let sshd = Sshd::start();
    let (_folder, agents) = shell_agents();
    let expected = [
        (ConnectionKind::Ssh, "killed by signal KILL"),
        (ConnectionKind::Local, "killed by signal KILL"),
        (ConnectionKind::OpenSsh, "exit code 255"),
    ];
    for (connection, how) in expected {
        let (poll, arrivals) = open(&Target { connection, ..sshd.target() }, &agents);
        poll.send(1, b"echo last words >&2; kill -9 $$\n".to_vec());
        assert_eq!(arrivals.recv_timeout(PATIENCE).expect("a line"), Arrival::Log(1, "last words".to_owned()), "{connection:?}");
        assert_eq!(arrivals.recv_timeout(PATIENCE).expect("an end"), Arrival::Lost(1, format!("the agent ended: {how}")));
    }
}

#[test]
fn a_talkative_agent_stops_nothing() {
    let sshd = Sshd::start();
    let (_folder, agents) = shell_agents();
    let (_poll, arrivals) = open(&sshd.target(), &agents);
    _poll.send(1, b"yes a line of the log | head -n 500000 >&2; exit 0\n".to_vec());
    let mut lines = 0;
    loop {
        match arrivals.recv_timeout(PATIENCE).expect("more") {
            Arrival::Log(1, line) => {
                assert_eq!(line, "a line of the log");
                lines += 1;
            }
            Arrival::Lost(1, reason) => {
                assert_eq!(reason, "the agent ended: exit code 0");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lines, 500_000);
}

#[test]
fn a_connection_that_is_cut_is_lost() {
    let sshd = Sshd::start();
    let (_folder, agents) = shell_agents();
    let (poll, arrivals) = open(&sshd.target(), &agents);
    // The agent ends the sshd process that serves it.
    poll.send(1, b"kill -9 $PPID; sleep 60\n".to_vec());
    let Arrival::Lost(1, reason) = arrivals.recv_timeout(PATIENCE).expect("an end") else { panic!("not lost") };
    assert!(reason.starts_with("the connection broke") || reason.starts_with("the agent ended"), "{reason}");
}

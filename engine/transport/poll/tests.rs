//! Conversations through pairs of sockets.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::process::Command;
use std::sync::mpsc::Receiver;

use kplay_modules::agent::wire::{self, ToAgent};

use super::*;
use crate::transport::stream::{FarEnd, StreamLink};
use crate::transport::tests::Absorbing;

const PATIENCE: Duration = Duration::from_secs(10);

fn connected(link: StreamLink) -> Connected {
    Connected { link: Box::new(link), early: Vec::new(), agent_sent: false, latency: None }
}

fn start() -> (PollLoop, Receiver<Arrival>, FarEnd) {
    let (sender, arrivals) = mpsc::channel();
    let poll = PollLoop::spawn(sender).unwrap();
    let (link, far) = StreamLink::pair().unwrap();
    poll.add(7, connected(link));
    (poll, arrivals, far)
}

#[test]
fn messages_go_both_ways_and_early_bytes_count() {
    let (sender, arrivals) = mpsc::channel::<Arrival>();
    let poll = PollLoop::spawn(sender).unwrap();
    let (link, mut far) = StreamLink::pair().unwrap();
    let bytes = wire::encode(&ToController::Started { task: 3 }).unwrap();
    let (early, late) = bytes.split_at(3);
    poll.add(1, Connected { link: Box::new(link), early: early.to_vec(), agent_sent: false, latency: None });
    far.stream.write_all(late).unwrap();
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Message(1, ToController::Started { task: 3 }));

    poll.send(1, wire::encode(&ToAgent::Gather).unwrap());
    assert_eq!(wire::read::<ToAgent>(&mut far.stream).unwrap(), Some(ToAgent::Gather));
}

#[test]
fn log_lines_arrive_whole_and_the_last_one_too() {
    let (_poll, arrivals, mut far) = start();
    far.errors.write_all(b"one\ntw").unwrap();
    far.errors.write_all(b"o\nthree").unwrap();
    drop(far);
    let got: Vec<Arrival> = (0..4).map(|_| arrivals.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(got[..3], [Arrival::Log(7, "one".into()), Arrival::Log(7, "two".into()), Arrival::Log(7, "three".into())]);
    assert_eq!(got[3], Arrival::Lost(7, "the agent ended: connection closed".into()));
}

#[test]
fn garbage_ends_the_connection() {
    let (_poll, arrivals, mut far) = start();
    far.stream.write_all(b"Segmentation fault\n").unwrap();
    let Arrival::Lost(7, reason) = arrivals.recv_timeout(PATIENCE).unwrap() else { panic!("not lost") };
    assert!(reason.starts_with("the agent says what is not understood"), "{reason}");
}

#[test]
fn what_is_queued_leaves_when_a_read_has_opened_the_window() {
    let (sender, _arrivals) = mpsc::channel::<Arrival>();
    let poll = PollLoop::spawn(sender).unwrap();
    let (link, mut far) = StreamLink::pair().unwrap();
    far.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    poll.add(7, Connected { link: Box::new(Absorbing::new(link)), early: Vec::new(), agent_sent: false, latency: None });
    poll.send(7, b"all of it".to_vec());
    let mut read = [0; 9];
    far.stream.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"all of it");
}

#[test]
fn who_sends_much_waits_until_the_host_has_read() {
    const MUCH: usize = 5 << 20;
    let (poll, _arrivals, mut far) = start();
    poll.send(7, vec![1; MUCH]);
    assert!(poll.queued(7) > 1 << 20, "{}", poll.queued(7));
    let poll = std::sync::Arc::new(poll);
    let (sender, done) = mpsc::channel();
    let waiting = std::sync::Arc::clone(&poll);
    std::thread::spawn(move || {
        waiting.wait_for_room(7, 1000);
        sender.send(waiting.queued(7)).unwrap();
    });
    done.recv_timeout(Duration::from_millis(100)).unwrap_err();
    let mut read = vec![0; MUCH];
    far.stream.read_exact(&mut read).unwrap();
    assert!(done.recv_timeout(PATIENCE).unwrap() <= 1000);
    assert!(read.iter().all(|byte| *byte == 1));
    // Nobody waits for a host that is gone.
    poll.send(7, vec![1; MUCH]);
    drop(far);
    poll.wait_for_room(7, 1000);
}

#[test]
fn closing_lets_the_agent_read_and_say_everything() {
    let (poll, arrivals, mut far) = start();
    poll.send(7, vec![5; 1 << 20]);
    poll.close(7);
    let mut read = Vec::new();
    far.stream.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), 1 << 20);
    far.stream.write_all(&wire::encode(&ToController::Done { id: 9 }).unwrap()).unwrap();
    drop(far);
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Message(7, ToController::Done { id: 9 }));
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Closed(7));
    assert_eq!(poll.queued(7), 0);
}

#[test]
fn a_killed_process_is_a_loss_by_signal() {
    let (sender, arrivals) = mpsc::channel::<Arrival>();
    let poll = PollLoop::spawn(sender).unwrap();
    poll.add(2, connected(StreamLink::start(Command::new("sh").args(["-c", "kill -9 $$"]), false).unwrap()));
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Lost(2, "the agent ended: killed by signal KILL".into()));
}

#[test]
fn sending_to_a_host_that_is_gone_keeps_nothing() {
    let (poll, arrivals, far) = start();
    far.stream.shutdown(Shutdown::Both).unwrap();
    drop(far);
    assert!(matches!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Lost(7, _)));
    poll.send(7, vec![0; 100]);
    while poll.queued(7) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn many_hosts_share_the_thread() {
    let (sender, arrivals) = mpsc::channel::<Arrival>();
    let poll = PollLoop::spawn(sender).unwrap();
    let mut ends = Vec::new();
    for number in 0..200 {
        let (link, far) = StreamLink::pair().unwrap();
        poll.add(number, connected(link));
        ends.push(far);
    }
    for (number, far) in ends.iter_mut().enumerate() {
        far.stream.write_all(&wire::encode(&ToController::Done { id: number as u32 }).unwrap()).unwrap();
    }
    let mut seen: Vec<usize> = (0..200)
        .map(|_| match arrivals.recv_timeout(PATIENCE).unwrap() {
            Arrival::Message(host, ToController::Done { id }) if host == id as usize => host,
            other => panic!("{other:?}"),
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
}

#[test]
fn output_that_reading_errors_took_off_the_socket_is_not_left_behind() {
    let (sender, arrivals) = mpsc::channel::<Arrival>();
    let poll = PollLoop::spawn(sender).unwrap();
    let (link, mut far) = StreamLink::pair().unwrap();
    poll.add(4, Connected { link: Box::new(Absorbing::new(link)), early: Vec::new(), agent_sent: false, latency: None });
    far.stream.write_all(&wire::encode(&ToController::Done { id: 2 }).unwrap()).unwrap();
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Message(4, ToController::Done { id: 2 }));
}

#[test]
fn a_panic_over_one_host_is_the_loss_of_that_host_alone() {
    let (sender, arrivals) = mpsc::channel::<Arrival>();
    let deliver = move |arrival| {
        assert!(!matches!(arrival, Arrival::Message(1, _)), "on purpose");
        sender.send(arrival).is_ok()
    };
    let poll = PollLoop::delivering(deliver).unwrap();
    let ((one, mut far_one), (two, mut far_two)) = (StreamLink::pair().unwrap(), StreamLink::pair().unwrap());
    // The same thread drives both, however many there are.
    poll.add(1, connected(one));
    poll.add(1 + 12, connected(two));
    let bytes = wire::encode(&ToController::Started { task: 3 }).unwrap();
    far_one.stream.write_all(&bytes).unwrap();
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Lost(1, "kplay itself failed at it".into()));
    far_two.stream.write_all(&bytes).unwrap();
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), Arrival::Message(13, ToController::Started { task: 3 }));
}

#[test]
fn hosts_are_shared_out_among_the_threads() {
    let (sender, arrivals) = mpsc::channel();
    let deliver = move |arrival| sender.send((std::thread::current().id(), arrival)).is_ok();
    let poll = PollLoop::delivering(deliver).unwrap();
    let mut far_ends = Vec::new();
    for host in 0..12 {
        let (link, mut far) = StreamLink::pair().unwrap();
        poll.add(host, connected(link));
        far.stream.write_all(&wire::encode(&ToController::Started { task: 3 }).unwrap()).unwrap();
        far_ends.push(far);
    }
    let mut hosts = HashMap::<_, Vec<usize>>::new();
    for _ in 0..12 {
        let (thread, arrival) = arrivals.recv_timeout(PATIENCE).unwrap();
        let Arrival::Message(host, _) = arrival else { panic!("{arrival:?}") };
        hosts.entry(thread).or_default().push(host);
    }
    let threads = std::thread::available_parallelism().unwrap().get().min(THREADS);
    assert_eq!(hosts.values().map(Vec::len).collect::<Vec<_>>(), vec![12 / threads; threads], "{hosts:?}");
    drop(far_ends);
    drop(poll);
    assert_eq!(arrivals.iter().filter(|(_, arrival)| matches!(arrival, Arrival::Closed(_) | Arrival::Lost(..))).count(), 12);
}

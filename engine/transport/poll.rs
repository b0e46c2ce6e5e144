//! The poll loop: a thread for each processor, which drive the links of all hosts, so that a host that works or waits occupies none.

mod host;
mod queued;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kplay_modules::agent::wire::ToController;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::Connected;
use host::{Host, Step};
use queued::Queued;

/// How often links that are ending are looked at, since the end of a process makes no descriptor ready.
const TICK: Duration = Duration::from_millis(10);
/// Rounds of reading and writing that one host gets before the others have their turn.
const TURN: usize = 32;
/// Threads at most. What they do is encrypt, and a line is soon busier than they are.
const THREADS: usize = 4;
/// What the eventfd is called in epoll.
const WAKE: u64 = u64::MAX;

/// What the poll loop tells. The number is the host's, as given to [`PollLoop::add`].
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all arrivals are messages")]
pub enum Arrival {
    /// An agent said this.
    Message(usize, ToController),
    /// An agent is of another build, and speaks this version of the protocol.
    Foreign(usize, String),
    /// An agent wrote this line to its standard error.
    Log(usize, String),
    /// The connection is gone though nobody asked for that; the last thing heard of a host.
    Lost(usize, String),
    /// The connection was closed as [`PollLoop::close`] asked; the last thing heard of a host.
    Closed(usize),
}

/// Handle of the poll loop. Dropping it closes all connections.
#[derive(Debug)]
pub struct PollLoop {
    /// Each has the hosts whose numbers leave the same remainder.
    lanes: Vec<Lane>,
    queued: Arc<Queued>,
}

/// Handle of one thread.
#[derive(Debug)]
struct Lane {
    orders: mpsc::Sender<Order>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Add(usize, Connected),
    Send(usize, Vec<u8>),
    Close(usize),
    Stop,
}

impl PollLoop {
    /// Starts the threads. What arrives is sent to `arrivals`, as whatever the receiver makes of it.
    pub fn spawn<M: From<Arrival> + Send + 'static>(arrivals: mpsc::Sender<M>) -> io::Result<Self> {
        Self::delivering(move |arrival| arrivals.send(arrival.into()).is_ok())
    }

    /// Starts the threads. What arrives is given to `deliver`, which may hold everything up and says whether anybody still listens.
    pub fn delivering(deliver: impl Fn(Arrival) -> bool + Send + Sync + 'static) -> io::Result<Self> {
        let (queued, deliver) = (Arc::<Queued>::default(), Arc::new(deliver));
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS);
        let lanes = (0..threads).map(|_| Lane::spawn(&queued, deliver.clone())).collect::<io::Result<_>>()?;
        Ok(Self { lanes, queued })
    }

    /// Takes over the connection of a host.
    pub fn add(&self, host: usize, connected: Connected) {
        self.queued.begin(host);
        self.order(host, Order::Add(host, connected));
    }

    /// Queues bytes (whole frames, from `wire::encode`) for a host. They are dropped when the host is gone.
    ///
    /// Nothing blocks here: who sends much calls [`PollLoop::wait_for_room`] before.
    pub fn send(&self, host: usize, framed: Vec<u8>) {
        self.queued.add(host, framed.len());
        self.order(host, Order::Send(host, framed));
    }

    /// Returns how many bytes wait to be sent to a host.
    pub fn queued(&self, host: usize) -> usize {
        self.queued.of(host)
    }

    /// Waits until no more than `limit` bytes wait to be sent to a host. Returns whether it is still there.
    pub fn wait_for_room(&self, host: usize, limit: usize) -> bool {
        self.queued.wait_for_room(host, limit)
    }

    /// Ends a host's input once its queue is empty, and its connection once the agent has ended.
    pub fn close(&self, host: usize) {
        self.order(host, Order::Close(host));
    }

    fn order(&self, host: usize, order: Order) {
        self.lanes[host % self.lanes.len()].order(order);
    }
}

impl Drop for PollLoop {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.order(Order::Stop));
        for thread in self.lanes.iter_mut().filter_map(|lane| lane.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Lane {
    fn spawn(queued: &Arc<Queued>, deliver: Arc<dyn Fn(Arrival) -> bool + Send + Sync>) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poller, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let (orders, received) = mpsc::channel();
        let driver = Driver {
            poller,
            wake: Arc::clone(&wake),
            orders: received,
            hosts: HashMap::new(),
            queued: Arc::clone(queued),
            deliver,
            unfinished: Vec::new(),
            buffer: vec![0; 64 << 10],
            stopping: false,
        };
        let thread = std::thread::Builder::new().name("poll".to_owned()).spawn(move || driver.run())?;
        Ok(Self { orders, wake, thread: Some(thread) })
    }

    fn order(&self, order: Order) {
        // The thread ends only after its receiver did; nobody listens then.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// What lives on one thread.
struct Driver {
    poller: OwnedFd,
    wake: Arc<OwnedFd>,
    orders: mpsc::Receiver<Order>,
    hosts: HashMap<usize, Host>,
    queued: Arc<Queued>,
    deliver: Arc<dyn Fn(Arrival) -> bool + Send + Sync>,
    /// Hosts that used up their turn; what they still hold in memory makes no descriptor ready.
    unfinished: Vec<usize>,
    buffer: Vec<u8>,
    stopping: bool,
}

impl Driver {
    fn run(mut self) {
        loop {
            self.take_orders();
            for host in std::mem::take(&mut self.unfinished) {
                self.serve(host);
            }
            self.bury();
            if self.stopping && self.hosts.is_empty() {
                return;
            }
            let ending = self.hosts.values().any(|host| host.deadline.is_some());
            let timeout = if !self.unfinished.is_empty() { Some(Duration::ZERO) } else { ending.then_some(TICK) };
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            let mut events = Vec::with_capacity(64);
            // An interrupted wait is a wait that found nothing.
            let _ = epoll::wait(&self.poller, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
            for event in events {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                    }
                    key => self.serve((key / 2) as usize),
                }
            }
        }
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Add(number, connected) => self.add(number, connected),
                Order::Send(number, bytes) => match self.hosts.get_mut(&number) {
                    Some(host) if !host.closing => {
                        host.push(bytes);
                        self.serve(number);
                    }
                    _ => {
                        self.queued.forget(number);
                    }
                },
                Order::Close(number) => {
                    if let Some(host) = self.hosts.get_mut(&number) {
                        host.closing = true;
                        self.serve(number);
                    }
                }
                Order::Stop => {
                    self.stopping = true;
                    for number in self.hosts.keys().copied().collect::<Vec<_>>() {
                        self.hosts.entry(number).and_modify(|host| host.closing = true);
                        self.serve(number);
                    }
                }
            }
        }
    }

    fn add(&mut self, number: usize, connected: Connected) {
        let mut host = Host::new(connected, self.stopping);
        let problem = host.watch(&self.poller, number).err();
        self.hosts.insert(number, host);
        match problem {
            Some(error) => self.remove(number, Some(format!("the connection cannot be watched: {error}"))),
            None => self.serve(number),
        }
    }

    /// Serves a host; where kplay itself fails, that host alone is lost, and nobody waits for it.
    fn serve(&mut self, number: usize) {
        if catch_unwind(AssertUnwindSafe(|| self.take_turn(number))).is_err() {
            self.remove(number, Some("kplay itself failed at it".to_owned()));
        }
    }

    /// Reads and writes until nothing moves any more, or the host's turn is over.
    fn take_turn(&mut self, number: usize) {
        let Some(host) = self.hosts.get_mut(&number) else { return };
        let mut listening = true;
        let mut broken = None;
        for round in 0.. {
            if round == TURN {
                self.unfinished.push(number);
                break;
            }
            let mut deliver = |arrival| listening &= (self.deliver)(arrival);
            let (written, step) = host.write();
            if written > 0 {
                self.queued.subtract(number, written);
                // Whoever says much is heard once a turn.
                if round > 0 {
                    continue;
                }
            }
            // Standard output comes last: whatever the library takes off the socket on behalf of the other two steps may hold
            // output, which lies in its memory then and makes no descriptor ready any more.
            let errors = host.read_error(number, &mut self.buffer, &mut deliver);
            let steps = [step, errors, host.read(number, &mut self.buffer, &mut deliver)];
            let idle = steps.iter().all(|step| matches!(step, Step::Idle)) && !host.can_write();
            broken = steps.into_iter().find_map(|step| if let Step::Broken(reason) = step { Some(reason) } else { None });
            if idle || broken.is_some() {
                break;
            }
        }
        if broken.is_none() && !host.output_ended {
            broken = host.watch(&self.poller, number).err().map(|error| format!("the connection cannot be watched: {error}"));
        } else if host.output_ended {
            host.unwatch(&self.poller);
        }
        if let Some(reason) = broken {
            self.remove(number, Some(reason));
        }
        if !listening {
            self.stopping = true;
            self.hosts.values_mut().for_each(|host| host.closing = true);
        }
    }

    /// Removes the hosts that have come to their end, or whose time for that is over.
    fn bury(&mut self) {
        let now = Instant::now();
        let ending: Vec<usize> = self.hosts.iter().filter(|(_, host)| host.deadline.is_some()).map(|(number, _)| *number).collect();
        for number in ending {
            self.serve(number);
            let Some(host) = self.hosts.get_mut(&number) else { continue };
            let over = host.deadline.is_some_and(|deadline| deadline <= now);
            if over || host.has_ended() {
                self.remove(number, None);
            }
        }
    }

    /// Forgets a host and tells so.
    fn remove(&mut self, number: usize, reason: Option<String>) {
        let Some(mut host) = self.hosts.remove(&number) else { return };
        host.unwatch(&self.poller);
        let how = host.end();
        self.queued.forget(number);
        if let Some(line) = host.unfinished_line() {
            (self.deliver)(Arrival::Log(number, line));
        }
        let arrival = match reason {
            None if host.closing => Arrival::Closed(number),
            None => Arrival::Lost(number, format!("the agent ended: {how}")),
            Some(reason) => Arrival::Lost(number, reason),
        };
        (self.deliver)(arrival);
    }
}

#[cfg(test)]
mod tests;

//! The poll loop: one thread that drives the links of all hosts, so that a host that works or waits occupies none.

mod queued;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kplay_modules::agent::wire::{self, Decoder, ToController};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::{Connected, Interest, Link};
use queued::Queued;

/// Longest line of an agent's log, bytes; a longer one is cut into several.
const LOG_LINE: usize = 16 << 10;
/// How long an agent may take to end after its input was ended.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long after the end of its output we wait to learn how an agent ended.
const POST_MORTEM: Duration = Duration::from_secs(1);
/// How often links that are ending are looked at, since the end of a process makes no descriptor ready.
const TICK: Duration = Duration::from_millis(10);
/// Rounds of reading and writing that one host gets before the others have their turn.
const TURN: usize = 32;
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
    orders: mpsc::Sender<Order>,
    wake: Arc<OwnedFd>,
    queued: Arc<Queued>,
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
    /// Starts the thread. What arrives is sent to `arrivals`, as whatever the receiver makes of it.
    pub fn spawn<M: From<Arrival> + Send + 'static>(arrivals: mpsc::Sender<M>) -> io::Result<Self> {
        Self::delivering(move |arrival| arrivals.send(arrival.into()).is_ok())
    }

    /// Starts the thread. What arrives is given to `deliver`, which may hold everything up and says whether anybody still listens.
    pub fn delivering(deliver: impl Fn(Arrival) -> bool + Send + 'static) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poller, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let (orders, received) = mpsc::channel();
        let queued = Arc::<Queued>::default();
        let driver = Driver {
            poller,
            wake: Arc::clone(&wake),
            orders: received,
            hosts: HashMap::new(),
            queued: Arc::clone(&queued),
            deliver: Box::new(deliver),
            unfinished: Vec::new(),
            buffer: vec![0; 64 << 10],
            stopping: false,
        };
        let thread = std::thread::Builder::new().name("poll".to_owned()).spawn(move || driver.run())?;
        Ok(Self { orders, wake, queued, thread: Some(thread) })
    }

    /// Takes over the connection of a host.
    pub fn add(&self, host: usize, connected: Connected) {
        self.queued.begin(host);
        self.order(Order::Add(host, connected));
    }

    /// Queues bytes (whole frames, from `wire::encode`) for a host. They are dropped when the host is gone.
    ///
    /// Nothing blocks here: who sends much calls [`PollLoop::wait_for_room`] before.
    pub fn send(&self, host: usize, framed: Vec<u8>) {
        self.queued.add(host, framed.len());
        self.order(Order::Send(host, framed));
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
        self.order(Order::Close(host));
    }

    fn order(&self, order: Order) {
        // The thread ends only after its receiver did; nobody listens then.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for PollLoop {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What lives on the thread.
struct Driver {
    poller: OwnedFd,
    wake: Arc<OwnedFd>,
    orders: mpsc::Receiver<Order>,
    hosts: HashMap<usize, Host>,
    queued: Arc<Queued>,
    deliver: Box<dyn Fn(Arrival) -> bool + Send>,
    /// Hosts that used up their turn; what they still hold in memory makes no descriptor ready.
    unfinished: Vec<usize>,
    buffer: Vec<u8>,
    stopping: bool,
}

struct Host {
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
    closing: bool,
    finished: bool,
    output_ended: bool,
    errors_ended: bool,
    /// When to stop waiting for the end.
    deadline: Option<Instant>,
}

/// Whether a host goes on, and if not, why.
enum Step {
    Idle,
    Progress,
    Broken(String),
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
                        host.queue.push_back(bytes);
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
        let mut host = Host {
            link: connected.link,
            decoder: Decoder::default(),
            queue: VecDeque::new(),
            sent: 0,
            log: Vec::new(),
            watched: None,
            errors_watched: false,
            closing: self.stopping,
            finished: false,
            output_ended: false,
            errors_ended: false,
            deadline: None,
        };
        host.decoder.push(&connected.early);
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
            let idle = steps.iter().all(|step| matches!(step, Step::Idle)) && (host.queue.is_empty() || !host.link.can_write());
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
            if over || host.output_ended && host.errors_ended && host.link.ended() {
                self.remove(number, None);
            }
        }
    }

    /// Forgets a host and tells so.
    fn remove(&mut self, number: usize, reason: Option<String>) {
        let Some(mut host) = self.hosts.remove(&number) else { return };
        host.unwatch(&self.poller);
        let how = host.link.close();
        self.queued.forget(number);
        if !host.log.is_empty() {
            (self.deliver)(Arrival::Log(number, String::from_utf8_lossy(&host.log).into_owned()));
        }
        let arrival = match reason {
            None if host.closing => Arrival::Closed(number),
            None => Arrival::Lost(number, format!("the agent ended: {how}")),
            Some(reason) => Arrival::Lost(number, reason),
        };
        (self.deliver)(arrival);
    }
}

impl Host {
    /// Writes what fits; returns how much that was.
    fn write(&mut self) -> (usize, Step) {
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
    fn read(&mut self, number: usize, buffer: &mut [u8], deliver: &mut dyn FnMut(Arrival)) -> Step {
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
    fn read_error(&mut self, number: usize, buffer: &mut [u8], deliver: &mut dyn FnMut(Arrival)) -> Step {
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
    fn watch(&mut self, poller: &OwnedFd, number: usize) -> rustix::io::Result<()> {
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
    fn unwatch(&mut self, poller: &OwnedFd) {
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

#[cfg(test)]
mod tests;

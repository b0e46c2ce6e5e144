//! Threads for work that mostly waits: as many as there is work, up to a limit that may change, and none without work.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Work = Box<dyn FnOnce() + Send>;

/// Handle of some threads.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
}

struct State {
    limit: usize,
    at_work: usize,
    waiting: VecDeque<Work>,
}

impl Workers {
    /// Creates them; at most `limit` work at a time.
    pub fn new(name: &'static str, limit: usize) -> Self {
        let state = State { limit: limit.max(1), at_work: 0, waiting: VecDeque::new() };
        Self { shared: Arc::new(Shared { name, state: Mutex::new(state) }) }
    }

    /// Does the work on a thread, in its turn.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.shared.lock().waiting.push_back(Box::new(work));
        self.employ();
    }

    /// Changes how many work at a time.
    pub fn allow(&self, limit: usize) {
        self.shared.lock().limit = limit.max(1);
        self.employ();
    }

    /// Returns how many are at work.
    pub fn at_work(&self) -> usize {
        self.shared.lock().at_work
    }

    /// Starts threads for what waits.
    fn employ(&self) {
        loop {
            let mut state = self.shared.lock();
            if state.waiting.is_empty() || state.at_work >= state.limit {
                return;
            }
            state.at_work += 1;
            let alone = state.at_work == 1;
            drop(state);
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new().name(self.shared.name.to_owned()).spawn(move || shared.work());
            if started.is_err() {
                // The system gives no more threads: those there are go on, and if there are none, the caller has to.
                if alone {
                    self.shared.work();
                } else {
                    self.shared.lock().at_work -= 1;
                }
                return;
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        /// Leaves, even if the work panics.
        struct Place<'a>(&'a Shared);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.lock().at_work -= 1;
            }
        }
        let place = Place(self);
        loop {
            let mut state = self.lock();
            // The last look and the leaving are one: what is added afterwards finds a place.
            let next = if state.at_work > state.limit { None } else { state.waiting.pop_front() };
            let Some(work) = next else {
                state.at_work -= 1;
                std::mem::forget(place);
                return;
            };
            drop(state);
            work();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_than_allowed_work_at_a_time_and_none_stays() {
        let workers = Workers::new("test", 2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (sender, receiver) = channel();
        let add = |count| {
            for _ in 0..count {
                let (now, most, sender) = (Arc::clone(&now), Arc::clone(&most), sender.clone());
                workers.spawn(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                    now.fetch_sub(1, Ordering::SeqCst);
                    sender.send(()).unwrap();
                });
            }
        };
        add(6);
        assert_eq!(receiver.iter().take(6).count(), 6);
        assert_eq!(most.load(Ordering::SeqCst), 2);
        add(12);
        workers.allow(6);
        assert_eq!(receiver.iter().take(12).count(), 12);
        assert_eq!(most.load(Ordering::SeqCst), 6);
        for _ in 0..100 {
            if workers.at_work() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} threads have nothing to do", workers.at_work());
    }
}

//! How much waits to be sent to each host, for those who must not run ahead of it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes by host that are on their way to the agent.
#[derive(Debug, Default)]
pub(super) struct Queued {
    hosts: Mutex<HashMap<usize, Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: usize,
    /// Whoever waits is woken when no more bytes wait than this.
    wanted: usize,
    room: Arc<Condvar>,
}

impl Queued {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Queue>> {
        // A thread that panicked has left a number behind that is at worst too high for a moment.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host can be sent something from now on.
    pub fn begin(&self, host: usize) {
        self.lock().insert(host, Queue::default());
    }

    /// So much is to leave; hosts that are gone take nothing any more.
    pub fn add(&self, host: usize, count: usize) {
        if let Some(queue) = self.lock().get_mut(&host) {
            queue.bytes += count;
        }
    }

    /// So much has left.
    pub fn subtract(&self, host: usize, count: usize) {
        if let Some(queue) = self.lock().get_mut(&host) {
            queue.bytes = queue.bytes.saturating_sub(count);
            if queue.bytes <= queue.wanted {
                queue.room.notify_all();
            }
        }
    }

    /// A host is gone.
    pub fn forget(&self, host: usize) {
        if let Some(queue) = self.lock().remove(&host) {
            queue.room.notify_all();
        }
    }

    /// Returns how much waits for a host.
    pub fn of(&self, host: usize) -> usize {
        self.lock().get(&host).map_or(0, |queue| queue.bytes)
    }

    /// Waits while more than `limit` bytes wait for a host, and then until half of that is gone, so that who sends much is not woken for
    /// every packet. Returns whether the host is still there.
    pub fn wait_for_room(&self, host: usize, limit: usize) -> bool {
        let mut hosts = self.lock();
        let Some(queue) = hosts.get_mut(&host) else { return false };
        if queue.bytes <= limit {
            return true;
        }
        queue.wanted = queue.wanted.max(limit / 2);
        let room = Arc::clone(&queue.room);
        let full = |hosts: &mut HashMap<usize, Queue>| hosts.get(&host).is_some_and(|queue| queue.bytes > limit / 2);
        hosts = room.wait_while(hosts, full).unwrap_or_else(PoisonError::into_inner);
        hosts.contains_key(&host)
    }
}

//! How much waits to be sent to each host, for those who must not run ahead of it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes by host that are on their way to the agent.
#[derive(Debug, Default)]
pub(super) struct Queued {
    bytes: Mutex<HashMap<usize, usize>>,
    /// Told whenever a queue has become shorter.
    shorter: Condvar,
}

impl Queued {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, usize>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host can be sent something from now on.
    pub fn begin(&self, host: usize) {
        self.lock().insert(host, 0);
    }

    /// So much is to leave; hosts that are gone take nothing any more.
    pub fn add(&self, host: usize, count: usize) {
        if let Some(bytes) = self.lock().get_mut(&host) {
            *bytes += count;
        }
    }

    /// So much has left.
    pub fn subtract(&self, host: usize, count: usize) {
        if let Some(bytes) = self.lock().get_mut(&host) {
            *bytes = bytes.saturating_sub(count);
        }
        self.shorter.notify_all();
    }

    /// A host is gone.
    pub fn forget(&self, host: usize) {
        self.lock().remove(&host);
        self.shorter.notify_all();
    }

    /// Returns how much waits for a host.
    pub fn of(&self, host: usize) -> usize {
        self.lock().get(&host).copied().unwrap_or_default()
    }

    /// Waits until no more than `limit` bytes wait for a host. Returns whether it is still there.
    pub fn wait_for_room(&self, host: usize, limit: usize) -> bool {
        let full = |bytes: &mut HashMap<usize, usize>| bytes.get(&host).is_some_and(|bytes| *bytes > limit);
        // A thread that panicked has left a number behind that is at worst too high for a moment.
        self.shorter.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner).contains_key(&host)
    }
}

//! How much has arrived that nobody has looked at yet: above a bound the hosts have to wait, so that a thousand of them with long
//! outputs do not fill memory.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that may wait.
const MOST: usize = 16 << 20;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Unread {
    state: Mutex<State>,
    less: Condvar,
}

#[derive(Default)]
struct State {
    bytes: usize,
    given_up: bool,
}

impl Unread {
    /// Waits until what has arrived may be put beside what is unread. Something that is too large goes alone; what has no size
    /// to speak of never waits.
    pub fn arrives(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let full = |state: &mut State| state.bytes > 0 && state.bytes + bytes > MOST && !state.given_up;
        self.less.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner).bytes += bytes;
    }

    /// It has been looked at.
    pub fn read(&self, bytes: usize) {
        if bytes > 0 {
            let mut state = self.lock();
            state.bytes = state.bytes.saturating_sub(bytes);
            self.less.notify_all();
        }
    }

    /// Nobody will look any more, so that nobody has to wait.
    pub fn give_up(&self) {
        self.lock().given_up = true;
        self.less.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_too_much_waits_until_something_has_been_read() {
        let unread = Arc::new(Unread::default());
        unread.arrives(MOST * 2);
        let (sender, receiver) = channel();
        let other = Arc::clone(&unread);
        let thread = std::thread::spawn(move || {
            other.arrives(0);
            sender.send("small").unwrap();
            other.arrives(1);
            sender.send("large").unwrap();
            other.arrives(MOST);
            sender.send("end").unwrap();
        });
        assert_eq!(receiver.recv(), Ok("small"));
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        unread.read(MOST * 2);
        assert_eq!(receiver.recv(), Ok("large"));
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        unread.give_up();
        assert_eq!(receiver.recv(), Ok("end"));
        thread.join().unwrap();
    }
}

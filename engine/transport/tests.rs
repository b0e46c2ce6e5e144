//! What the tests of connections share.

use std::time::Instant;

use kplay_modules::agent::wire::BecomeMethod;

use super::*;

/// A target that leads nowhere, for tests to change.
pub(crate) fn target() -> Target {
    Target {
        name: "test".to_owned(),
        connection: ConnectionKind::Ssh,
        address: "127.0.0.1".to_owned(),
        port: Some(1),
        user: Some("root".to_owned()),
        private_keys: Vec::new(),
        password: None,
        jump: None,
        host_keys: HostKeyPolicy::Strict,
        known_hosts: None,
        namespace: None,
        root: None,
        timeout: Duration::from_secs(10),
        become_method: BecomeMethod::Sudo,
        become_password: None,
        agent_folder: None,
    }
}

/// A link whose reads take in more than they were asked for, as libssh2's do: output while errors are read, and what opens the window
/// for a write while output is read. Neither makes the descriptor ready any more.
#[derive(Debug)]
pub(super) struct Absorbing {
    link: StreamLink,
    output: Vec<u8>,
    held_up: bool,
    window_open: bool,
}

impl Absorbing {
    pub(super) fn new(link: StreamLink) -> Self {
        Self { link, output: Vec::new(), held_up: false, window_open: false }
    }
}

impl Link for Absorbing {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.link.descriptor()
    }

    fn interest(&self) -> Interest {
        self.link.interest()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.window_open = self.held_up;
        let count = self.output.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.output[..count]);
        self.output.drain(..count);
        if count > 0 { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn read_error(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        // Output arrives at this very moment, if it ever does.
        bootstrap::wait(&self.link, Instant::now() + Duration::from_millis(200));
        let mut buffer = [0; 1024];
        if let Ok(count) = self.link.read(&mut buffer) {
            self.output.extend_from_slice(&buffer[..count]);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held_up = !self.window_open;
        if self.window_open { self.link.write(bytes) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn can_write(&self) -> bool {
        self.held_up && self.window_open
    }

    fn finish(&mut self) -> io::Result<()> {
        self.link.finish()
    }

    fn ended(&mut self) -> bool {
        self.link.ended()
    }

    fn close(&mut self) -> String {
        self.link.close()
    }
}

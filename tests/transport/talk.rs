//! A conversation with an agent over a bare link, with a time limit.

use std::io;
use std::time::{Duration, Instant};

use kplay::diagnostic::Result;
use kplay::transport::{Agents, Connected, Target, connect};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A link under test.
pub struct Talk {
    pub connected: Connected,
    /// What the agent has written to its standard output.
    pub output: Vec<u8>,
    /// How many bytes it has written to its standard error.
    pub errors: Vec<u8>,
    pub ended: bool,
}

impl Talk {
    pub fn to(target: &Target, agents: &Agents) -> Result<Self> {
        let mut connected = connect(target, agents)?;
        let output = std::mem::take(&mut connected.early);
        Ok(Self { connected, output, errors: Vec::new(), ended: false })
    }

    /// Writes everything, reading meanwhile.
    pub fn say(&mut self, mut bytes: &[u8]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !bytes.is_empty() {
            match self.connected.link.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.pump() {
                        self.wait(deadline);
                    }
                }
                Err(error) => panic!("write: {error}"),
            }
        }
    }

    /// Ends the agent's input.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = self.connected.link.finish() {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            self.wait(deadline);
        }
    }

    /// Reads until the agent has said at least `count` bytes.
    pub fn hear(&mut self, count: usize) -> &[u8] {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.output.len() < count {
            if !self.pump() {
                assert!(
                    !self.ended,
                    "the agent ended after {} of {count} bytes: {}",
                    self.output.len(),
                    String::from_utf8_lossy(&self.errors)
                );
                self.wait(deadline);
            }
        }
        &self.output
    }

    /// Reads to the end of both streams and returns how the agent ended.
    pub fn end(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.ended {
            if !self.pump() && !self.ended {
                self.wait(deadline);
            }
        }
        let mut buffer = vec![0; 64 << 10];
        while !self.connected.link.ended() && Instant::now() < deadline {
            if let Ok(count) = self.connected.link.read_error(&mut buffer) {
                self.errors.extend_from_slice(&buffer[..count]);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        while let Ok(count @ 1..) = self.connected.link.read_error(&mut buffer) {
            self.errors.extend_from_slice(&buffer[..count]);
        }
        self.connected.link.close()
    }

    /// Takes what there is; returns whether there was anything.
    fn pump(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let mut moved = false;
        match self.connected.link.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                moved = true;
                self.output.extend_from_slice(&buffer[..count]);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        match self.connected.link.read_error(&mut buffer) {
            Ok(count) => {
                moved |= count > 0;
                self.errors.extend_from_slice(&buffer[..count]);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        moved
    }

    fn wait(&self, deadline: Instant) {
        let left = deadline.checked_duration_since(Instant::now()).expect("the link made no progress in time");
        let link = &self.connected.link;
        let interest = link.interest();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, interest.read);
        flags.set(PollFlags::OUT, interest.write);
        let (descriptor, errors) = (link.descriptor(), link.error_descriptor());
        let mut polled = vec![PollFd::new(&descriptor, flags)];
        polled.extend(errors.iter().map(|errors| PollFd::new(errors, PollFlags::IN)));
        let _ = poll(&mut polled, Timespec::try_from(left).ok().as_ref());
    }
}

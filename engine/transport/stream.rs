//! A link over local sockets: to a child process (a local agent, the system's ssh), or to a test.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{Interest, Link};

/// How long a process may take to end after its streams have.
const PATIENCE: Duration = Duration::from_millis(200);

/// A link whose streams are sockets of this machine.
#[derive(Debug)]
pub struct StreamLink {
    /// Standard input and output of the other side.
    stream: UnixStream,
    /// Its standard error.
    errors: UnixStream,
    /// Whether the last write found no room.
    blocked: bool,
    /// The other side, if it is a process.
    child: Option<Child>,
    /// Whether the process is ended when the link is, and not left to end by itself.
    kill: bool,
}

/// The other side of a link that leads to no process: what a test plays the agent with.
#[derive(Debug)]
pub struct FarEnd {
    /// Standard input and output of the agent. Blocking.
    pub stream: UnixStream,
    /// Its standard error. Blocking.
    pub errors: UnixStream,
}

impl StreamLink {
    /// Creates a link within this process.
    pub fn pair() -> io::Result<(Self, FarEnd)> {
        let (stream, far_stream) = UnixStream::pair()?;
        let (errors, far_errors) = UnixStream::pair()?;
        Ok((Self::over(stream, errors, None, false)?, FarEnd { stream: far_stream, errors: far_errors }))
    }

    /// Starts `command` with its three streams on a link. With `kill`, the process is killed with the link; else it sees
    /// the end of its input and ends by itself.
    pub(super) fn start(command: &mut Command, kill: bool) -> io::Result<Self> {
        let (stream, far_stream) = UnixStream::pair()?;
        let (errors, far_errors) = UnixStream::pair()?;
        let input = OwnedFd::from(far_stream.try_clone()?);
        command.process_group(0); // An interrupt typed at the terminal is for the controller alone.
        let child = command.stdin(input).stdout(OwnedFd::from(far_stream)).stderr(OwnedFd::from(far_errors)).spawn();
        // The command keeps the far ends open otherwise, and the end of the process would never be seen.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::over(stream, errors, Some(child?), kill)
    }

    fn over(stream: UnixStream, errors: UnixStream, child: Option<Child>, kill: bool) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        errors.set_nonblocking(true)?;
        Ok(Self { stream, errors, blocked: false, child, kill })
    }
}

impl Link for StreamLink {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn error_descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.errors.as_fd())
    }

    fn interest(&self) -> Interest {
        Interest { read: true, write: self.blocked }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        end_of_reset(self.stream.read(buffer))
    }

    fn read_error(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        end_of_reset(self.errors.read(buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.stream.write(bytes);
        self.blocked = matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        result
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn close(&mut self) -> String {
        let _ = self.stream.shutdown(Shutdown::Both);
        let Some(child) = &mut self.child else { return "connection closed".to_owned() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return describe(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) if self.kill => {
                    let _ = child.kill();
                    return child.wait().map_or_else(|error| error.to_string(), describe);
                }
                Ok(None) => return "still running".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// A peer that ends with our bytes unread resets the stream; for us that is its end like any other.
fn end_of_reset(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
        other => other,
    }
}

/// Returns how a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => format!("killed by signal {}", signal_name(number)),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Returns `KILL` for 9, as ssh names signals too.
fn signal_name(number: i32) -> String {
    let known = [
        (1, "HUP"),
        (2, "INT"),
        (3, "QUIT"),
        (4, "ILL"),
        (6, "ABRT"),
        (7, "BUS"),
        (8, "FPE"),
        (9, "KILL"),
        (11, "SEGV"),
        (13, "PIPE"),
        (14, "ALRM"),
        (15, "TERM"),
        (31, "SYS"),
    ];
    known.iter().find(|(known, _)| *known == number).map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

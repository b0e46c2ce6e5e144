//! Running programs: a process group of their own, both streams read as they come, an end in time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Machine;
use crate::api::error::{ModuleError, plain};
use crate::api::inspect::{Command, CommandOutput};

/// Where programs are looked for.
pub(crate) const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes kept of each end of a stream.
const KEPT: usize = 512 << 10;
/// How long a group may tidy up after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// How long to go on reading after the program has ended: something it left behind may hold its streams open.
const LINGER: Duration = Duration::from_millis(200);
/// How often to look after the program on kernels that cannot tell of its end.
const TICK: Duration = Duration::from_millis(10);

/// Process groups of the user's commands that are running now.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills the process groups of all user's commands that are running. For the end of the agent's input: nobody will read
/// what they say. What changes the system by itself (package managers, systemd's jobs) is not among them.
pub fn kill_running() {
    for group in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(group) = Pid::from_raw(*group) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Machine {
    /// Runs a command of the user's.
    ///
    /// Below a root it runs inside that root when the agent may do so and finds the program there. Otherwise it runs on this
    /// machine, in its working directory below the root, with the root's path in `KPLAY_ROOT`.
    pub(super) fn run_command(&self, command: &Command) -> Result<CommandOutput, ModuleError> {
        let Some(root) = &self.root else { return run(command, &self.facts, true) };
        let mut command = command.clone();
        if self.runs_inside(command.argv.first().map_or("", String::as_str)) {
            let directory = command.directory.take().unwrap_or_else(|| "/".into());
            let inside = ["chroot".into(), root.display().to_string()];
            // chroot always begins in `/`.
            let step = ["sh", "-c", r#"cd "$0" && exec "$@""#].map(str::to_owned).into_iter().chain([directory.display().to_string()]);
            let step = step.filter(|_| directory != Path::new("/"));
            command.argv = inside.into_iter().chain(step).chain(command.argv).collect();
        } else {
            let wanted = command.directory.take();
            // A root that nothing has been put into yet is no place to be in.
            if wanted.is_some() || root.is_dir() {
                command.directory = Some(self.place(wanted.as_deref().unwrap_or(Path::new("/")), true)?);
            }
            command.environment.insert("KPLAY_ROOT".to_owned(), root.display().to_string());
        }
        run(&command, &self.facts, true)
    }

    /// Returns whether a program is run inside the root.
    pub(super) fn runs_inside(&self, program: &str) -> bool {
        self.root.is_some() && self.privileged() && self.has_program(program) && find_program("chroot").is_some()
    }

    /// Returns whether a program lies in the host's search path (or at its absolute path).
    pub(super) fn has_program(&self, name: &str) -> bool {
        let candidates = SEARCH.split(':').map(|folder| Path::new(folder).join(name));
        candidates.filter_map(|path| self.place(&path, true).ok()).any(|path| is_program(&path))
    }
}

/// Runs a program for the agent itself, with the agent's own name and home.
pub(super) fn run_quietly(command: &Command) -> Result<CommandOutput, ModuleError> {
    run(command, &crate::api::inspect::Facts { user: "root".to_owned(), home: "/root".into(), ..Default::default() }, false)
}

/// Returns where a program of this machine lies.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    find_in(SEARCH, name)
}

fn find_in(folders: &str, name: &str) -> Option<PathBuf> {
    folders.split(':').map(|folder| Path::new(folder).join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Runs a program to its end; a time limit of 0 is none. Fails only when it cannot be started; how it ended is for the caller to judge.
fn run(command: &Command, facts: &crate::api::inspect::Facts, of_user: bool) -> Result<CommandOutput, ModuleError> {
    let limit = if command.timeout == 0 { u64::from(u32::MAX) } else { command.timeout.min(u64::from(u32::MAX)) };
    let deadline = Instant::now() + Duration::from_secs(limit);
    let mut running = Running::start(command, facts, of_user)?;
    let pumped = running.pump(command.input.as_deref().unwrap_or_default().as_bytes(), deadline);
    let (status, timed_out) = running.finish(deadline).map_err(|error| cannot_run(command, &error))?;
    let (stdout, stderr) = pumped.map_err(|error| cannot_run(command, &error))?;
    Ok(CommandOutput {
        code: status.code().filter(|_| !timed_out),
        signal: if timed_out { Some("timeout".to_owned()) } else { status.signal().map(signal_name) },
        truncated: stdout.is_cut() || stderr.is_cut(),
        stdout: stdout.text(),
        stderr: stderr.text(),
    })
}

/// A program that has been started. Its group is killed when this is dropped before its end.
struct Running {
    child: Child,
    group: Option<Pid>,
    /// Readable once the program has ended, on kernels that have it (5.3).
    ended: Option<OwnedFd>,
    listed: bool,
    done: bool,
}

impl Running {
    fn start(command: &Command, facts: &crate::api::inspect::Facts, of_user: bool) -> Result<Self, ModuleError> {
        let (program, arguments) = command.argv.split_first().ok_or_else(|| ModuleError::argument("the command is empty").at("argv"))?;
        let directory = command.directory.as_deref().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            return Err(ModuleError::host(format!(
                "cannot run `{program}`: the working directory `{}` does not exist",
                directory.display()
            )));
        }
        let environment = environment(command, facts);
        // Found here and not by the system: with an absolute path no copy of this process has to be made.
        let found = match environment.get("PATH") {
            Some(folders) if !program.contains('/') => find_in(folders, program),
            _ => Some(program.into()),
        };
        let found = found.ok_or_else(|| cannot_run(command, &rustix::io::Errno::NOENT.into()))?;
        let mut builder = std::process::Command::new(found);
        builder.arg0(program).args(arguments).current_dir(directory).env_clear().envs(environment).process_group(0);
        // A pipe that is closed at once does what /dev/null does, which the smallest systems do not have.
        builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tries = 0;
        let child = loop {
            match builder.spawn() {
                // Somebody has just written it and not closed it yet.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && tries < 20 => {
                    tries += 1;
                    std::thread::sleep(TICK);
                }
                result => break result.map_err(|error| cannot_run(command, &error))?,
            }
        };
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let (Some(group), true) = (group, of_user) {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(group.as_raw_nonzero().get());
        }
        let ended = group.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { child, group, ended, listed: of_user, done: false })
    }

    /// Feeds and reads the streams until both have ended, or the program has and nothing more comes, or time is up.
    fn pump(&mut self, input: &[u8], deadline: Instant) -> io::Result<(Kept, Kept)> {
        let mut input = input;
        let mut stdin = self.child.stdin.take();
        let mut stdout = self.child.stdout.take();
        let mut stderr = self.child.stderr.take();
        let fds = [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for fd in fds.into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let (mut out, mut err) = (Kept::default(), Kept::default());
        let mut last: Option<Instant> = None;
        let mut buffer = vec![0; 64 << 10];
        loop {
            if input.is_empty() {
                stdin = None;
            }
            let now = Instant::now();
            if stdout.is_none() && stderr.is_none() || now >= deadline || last.is_some_and(|last| now >= last) {
                return Ok((out, err));
            }
            self.wait_for_streams(stdin.as_ref(), stdout.as_ref(), stderr.as_ref(), last.unwrap_or(deadline), last.is_some())?;
            if let Some(pipe) = &mut stdin {
                match pipe.write(input) {
                    Ok(count) => input = input.get(count..).unwrap_or_default(),
                    Err(error) if is_later(&error) => {}
                    // It does not want to hear more.
                    Err(_) => input = &[],
                }
            }
            let more = drain(&mut stdout, &mut out, &mut buffer)? | drain(&mut stderr, &mut err, &mut buffer)?;
            if last.is_none() && !more && self.child.try_wait()?.is_some() {
                last = Some(Instant::now() + LINGER);
            }
        }
    }

    fn wait_for_streams(
        &self,
        stdin: Option<&impl AsFd>,
        stdout: Option<&impl AsFd>,
        stderr: Option<&impl AsFd>,
        until: Instant,
        ended: bool,
    ) -> io::Result<()> {
        let mut fds = Vec::with_capacity(4);
        fds.extend(stdin.map(|fd| PollFd::new(fd, PollFlags::OUT)));
        fds.extend(stdout.map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(stderr.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let watched = self.ended.as_ref().filter(|_| !ended);
        fds.extend(watched.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let mut wait = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        if watched.is_none() {
            wait = wait.min(TICK);
        }
        poll(&mut fds, wait)
    }

    /// Waits for the program's end; kills its group once time is up. Returns how it ended and whether it had to be killed.
    fn finish(&mut self, deadline: Instant) -> io::Result<(ExitStatus, bool)> {
        let (status, timed_out) = match self.wait(deadline)? {
            Some(status) => (status, false),
            None => {
                self.kill(Signal::TERM);
                let ended = self.wait(Instant::now() + GRACE)?;
                // Whoever of the group is still there has had its time.
                self.kill(Signal::KILL);
                (ended.map_or_else(|| self.child.wait(), Ok)?, true)
            }
        };
        self.done = true;
        Ok((status, timed_out))
    }

    fn wait(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match &self.ended {
                Some(ended) => poll(&mut [PollFd::new(ended, PollFlags::IN)], left)?,
                None => std::thread::sleep(left.min(TICK)),
            }
        }
    }

    fn kill(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            self.kill(Signal::KILL);
            let _ = self.child.wait();
        }
        if let (Some(group), true) = (self.group, self.listed) {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&group.as_raw_nonzero().get());
        }
    }
}

/// The head and the tail of a stream.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let surplus = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..surplus);
        self.dropped += surplus as u64;
    }

    fn is_cut(&self) -> bool {
        self.dropped > 0
    }

    fn text(mut self) -> String {
        if self.is_cut() {
            self.head.extend_from_slice(format!("\n[… {} bytes left out …]\n", self.dropped).as_bytes());
        }
        self.head.extend(self.tail);
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

/// Reads what there is. Returns whether anything was; forgets the stream at its end.
fn drain(stream: &mut Option<impl Read>, kept: &mut Kept, buffer: &mut [u8]) -> io::Result<bool> {
    let Some(pipe) = stream else { return Ok(false) };
    match pipe.read(buffer) {
        Ok(0) => {
            *stream = None;
            Ok(false)
        }
        Ok(count) => {
            kept.push(buffer.get(..count).unwrap_or_default());
            Ok(true)
        }
        Err(error) if is_later(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn poll(fds: &mut [PollFd<'_>], wait: Duration) -> io::Result<()> {
    let timeout = Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() };
    match rustix::event::poll(fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A small environment that is the same on all hosts, however the agent was started.
fn environment(command: &Command, facts: &crate::api::inspect::Facts) -> BTreeMap<String, String> {
    let fixed = [
        ("PATH", SEARCH.to_owned()),
        ("HOME", facts.home.display().to_string()),
        ("USER", facts.user.clone()),
        ("LOGNAME", facts.user.clone()),
        ("LANG", "C.UTF-8".to_owned()),
    ];
    let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value));
    fixed.chain(command.environment.clone()).collect()
}

fn cannot_run(command: &Command, error: &io::Error) -> ModuleError {
    let program = command.argv.first().map_or("", String::as_str);
    let made = ModuleError::host(format!("cannot run `{program}`: {}", plain(error)));
    match error.kind() {
        ErrorKind::NotFound if program.contains('/') => made.hint("see whether the file exists, and the interpreter in its first line"),
        ErrorKind::NotFound if program.contains(' ') => {
            made.hint("`argv` names the program and each argument separately; for a command line use the `shell` module")
        }
        ErrorKind::NotFound => made.hint(format!("no program of this name in {SEARCH}; is its package installed?")),
        ErrorKind::PermissionDenied => made.hint("see whether the file is executable, and may be on its file system (`noexec`)"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            made.hint("it is neither a program for this machine nor a script with `#!` in its first line")
        }
        _ => made,
    }
}

fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
        "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests;

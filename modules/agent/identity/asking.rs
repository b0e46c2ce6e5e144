//! Starting the agent as another user, up to the marker that says it is there.

use std::io::{BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Instant;

use super::program::Program;
use super::{PATIENCE, sudo};
use crate::agent::wire::{self, BecomeMethod, Hello, ToController};
use crate::api::error::plain;
use crate::api::machine::{SEARCH, find_program};
use crate::api::{Inspect, ModuleError, Owner};

/// What comes from another user's agent, or from the program that starts it.
pub(super) enum Heard {
    /// The marker: frames follow.
    Begun,
    Message(Box<ToController>),
    /// Bytes of the standard error.
    Said(Vec<u8>),
    /// The standard output has ended.
    Ended,
}

/// A program that was asked to start the agent, and did.
pub(super) struct Asked {
    pub(super) child: Child,
    pub(super) heard: Receiver<Heard>,
    pub(super) said: Vec<u8>,
}

/// How starting went wrong.
pub(super) struct Refused {
    pub(super) said: String,
    pub(super) ending: String,
}

/// Starts the agent as `user` by whatever way there is.
pub(super) fn ask(hello: &Hello, host: &dyn Inspect, user: &str, program: &Program, marker: &str) -> Result<Asked, ModuleError> {
    let path = program.path.display().to_string();
    let agent = [path.as_str(), "serve", marker];
    if rustix::process::geteuid().is_root() {
        return as_root(host, user, program, marker);
    }
    let me = host.facts().user.clone();
    match hello.become_method {
        BecomeMethod::Sudo => sudo::ask(hello.become_password.as_deref(), &me, user, &agent, marker),
        BecomeMethod::Doas => {
            let mut command = Command::new(installed("doas")?);
            command.args(["-n", "-u", user]).args(agent);
            match wait(start(command)?, marker, None) {
                Ok(asked) => Ok(asked),
                Err(refused) => Err(ModuleError::host(format!("`{me}` cannot become `{user}` with doas: {}", refused.ending))
                    .details(refused.said.lines().map(str::to_owned))
                    .hint(format!(
                        "doas asks for a password only at a terminal: add `permit nopass {me} as {user}` to /etc/doas.conf, or use sudo"
                    ))),
            }
        }
        BecomeMethod::Su => Err(ModuleError::host(format!("`{me}` cannot become `{user}` with su: it wants a terminal"))
            .hint("use `become_method: sudo` or `doas`, or connect as root")),
    }
}

/// Root needs nobody's leave. `setpriv` also gives the user's further groups, which the standard library cannot.
fn as_root(host: &dyn Inspect, user: &str, program: &Program, marker: &str) -> Result<Asked, ModuleError> {
    let entry = host.user(user)?.ok_or_else(|| ModuleError::host(format!("there is no user `{user}` to become on this host")))?;
    let (Owner::Id(uid), Owner::Id(gid)) = (&entry.id, &entry.group) else {
        return Err(ModuleError::unknown(format!("user `{user}` is not there yet")));
    };
    let mut command = match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--init-groups".to_owned(), "--".to_owned()]);
            command.arg(&program.path);
            command
        }
        None => {
            let mut command = Command::new(&program.path);
            command.uid(*uid).gid(*gid);
            command
        }
    };
    command.args(["serve", marker]).current_dir("/").env_clear();
    command.env("PATH", SEARCH).env("HOME", &entry.home).env("USER", user).env("LOGNAME", user);
    let child = start(command)?;
    wait(child, marker, None).map_err(|refused| {
        ModuleError::host(format!("cannot start the agent as `{user}`: {}", refused.ending))
            .details(refused.said.lines().map(str::to_owned))
    })
}

/// Returns where a program lies that becomes other users.
pub(super) fn installed(name: &str) -> Result<PathBuf, ModuleError> {
    find_program(name).ok_or_else(|| {
        ModuleError::host(format!("`{name}` is not installed on this host"))
            .hint("install it, name another `become_method`, or connect as root")
    })
}

/// Starts a program with all streams piped.
pub(super) fn start(mut command: Command) -> Result<Child, ModuleError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = command.spawn();
    started.map_err(|error| ModuleError::host(format!("cannot start `{}`: {}", command.get_program().display(), plain(&error))))
}

/// A prompt to wait for, and the password that answers it.
pub(super) struct Prompt<'a> {
    pub(super) token: &'a str,
    pub(super) password: &'a str,
}

/// Waits for the marker; answers the prompt once.
pub(super) fn wait(mut child: Child, marker: &str, prompt: Option<Prompt<'_>>) -> Result<Asked, Refused> {
    let (sender, heard) = sync_channel(16);
    if let Some(output) = child.stdout.take() {
        let (sender, marker) = (sender.clone(), format!("\u{1}KPLAY:{marker}\n"));
        std::thread::spawn(move || hear(output, &marker, &sender));
    }
    if let Some(errors) = child.stderr.take() {
        std::thread::spawn(move || overhear(errors, &sender));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    let mut answered = false;
    let refused = loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Heard::Begun) => return Ok(Asked { child, heard, said: Vec::new() }),
            Ok(Heard::Said(bytes)) => {
                said.extend(bytes);
                if let Some(prompt) = &prompt {
                    match prompts(&said, prompt.token) {
                        0 => {}
                        1 if answered => {}
                        1 => {
                            answered = true;
                            if let Some(input) = &mut child.stdin {
                                let _ = input.write_all(format!("{}\n", prompt.password).as_bytes()).and_then(|()| input.flush());
                            }
                        }
                        // It asks again: the password was wrong. Giving it again would only count against the account. Whether it
                        // complains of the end of its input, too, depends on how soon it is killed.
                        _ => break "the password is wrong".to_owned(),
                    }
                }
            }
            Ok(Heard::Message(_)) => {}
            Ok(Heard::Ended) | Err(RecvTimeoutError::Disconnected) => break String::new(),
            Err(RecvTimeoutError::Timeout) => break format!("it did not answer for {} s", PATIENCE.as_secs()),
        }
    };
    let input = child.stdin.take();
    if !refused.is_empty() {
        let _ = child.kill();
    }
    drop(input);
    let ending = child.wait().map_or_else(|error| plain(&error), |status| status.to_string());
    // What was said last may still be on its way, unless it was told to end.
    while refused.is_empty()
        && let Ok(Heard::Said(bytes)) = heard.recv_timeout(std::time::Duration::from_millis(100))
    {
        said.extend(bytes);
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    let said = prompt.map_or(said.clone(), |prompt| said.replace(prompt.token, ""));
    Err(Refused { said: said.trim().to_owned(), ending: if refused.is_empty() { ending } else { refused } })
}

fn prompts(said: &[u8], token: &str) -> usize {
    String::from_utf8_lossy(said).matches(token).count()
}

/// Reads up to the marker, then messages.
fn hear(output: impl Read, marker: &str, sender: &SyncSender<Heard>) {
    let mut output = BufReader::new(output);
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(marker.as_bytes()) {
        match output.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                let _ = sender.send(Heard::Ended);
                return;
            }
        }
        let surplus = seen.len().saturating_sub(1024);
        seen.drain(..surplus);
    }
    let mut heard = Heard::Begun;
    while sender.send(heard).is_ok() {
        heard = match wire::read(&mut output) {
            Ok(Some(message)) => Heard::Message(Box::new(message)),
            Ok(None) | Err(_) => {
                let _ = sender.send(Heard::Ended);
                return;
            }
        };
    }
}

fn overhear(mut errors: impl Read, sender: &SyncSender<Heard>) {
    let mut buffer = [0; 4096];
    loop {
        match errors.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if sender.send(Heard::Said(buffer[..count].to_vec())).is_err() {
                    return;
                }
            }
        }
    }
}

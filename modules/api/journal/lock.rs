//! The lock of a host: held by the agent of the run that changes it, together with a text that says whose it is.
//!
//! An agent whose controller is gone finishes the change it is at, which may be the start of a unit, and holds the lock meanwhile.
//! It says so in the lock, so that the next run waits for it instead of failing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::api::ModuleError;
use crate::api::machine::now;

/// The second line of a lock whose holder has no controller any more.
const ORPHANED: &str = "orphaned\n";
/// How often a wait looks again.
const SLICE: Duration = Duration::from_millis(50);
/// How long the lock is asked for: who waits for an orphan holds it for a moment too, to see whether it is free.
const PATIENCE: Duration = Duration::from_millis(300);

/// What the lock says of its holder.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    run: String,
    by: String,
    since: i64,
    process: u32,
    /// Whether the second line says so.
    #[serde(skip)]
    orphaned: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ago = (now() - self.since).max(0);
        write!(f, "`{}` by {}, for {ago} s (process {})", self.run, self.by, self.process)
    }
}

/// Says in the lock that its holder's controller is gone.
#[derive(Debug)]
pub struct Farewell(PathBuf);

impl Farewell {
    pub(super) fn new(state: &Path) -> Self {
        Self(state.join("lock"))
    }

    /// Says it. Where that cannot be written the next run fails instead of waiting.
    pub fn say(&self) {
        let _ = OpenOptions::new().append(true).open(&self.0).and_then(|mut file| file.write_all(ORPHANED.as_bytes()));
    }
}

/// Takes the lock for this process. Fails with who holds it since when, if another run is under way.
pub(super) fn take(state: &Path, run: &str, by: &str) -> Result<File, ModuleError> {
    let path = state.join("lock");
    let failed = |error: std::io::Error| ModuleError::io("lock", &path, &error);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    let since = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if since.elapsed() < PATIENCE => std::thread::sleep(SLICE),
            Err(Errno::WOULDBLOCK) => return Err(held(&mut file)),
            Err(error) => return Err(failed(error.into())),
        }
    }
    let holder = Holder { run: run.to_owned(), by: by.to_owned(), since: now(), process: std::process::id(), orphaned: false };
    let mut text = serde_json::to_vec(&holder).unwrap_or_default();
    text.push(b'\n');
    file.set_len(0).and_then(|()| file.write_all(&text)).map_err(failed)?;
    Ok(file)
}

/// Waits while an agent that has lost its controller finishes its last change on this host. `tell` hears once what is waited for;
/// `stopped` says whether nobody wants that any more.
pub fn await_orphan(state: &Path, tell: impl FnOnce(String), stopped: impl Fn() -> bool) {
    let Ok(mut file) = File::open(state.join("lock")) else { return };
    let Some(holder) = read(&mut file).filter(|holder| holder.orphaned) else { return };
    let mut tell = Some(tell);
    // The text outlives its writer: only the lock itself says whether it is still there.
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) && !stopped() {
        if let Some(tell) = tell.take() {
            tell(format!("waits for the last change of a run whose controller is gone: {holder}"));
        }
        std::thread::sleep(SLICE);
    }
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let (holder, rest) = text.split_once('\n')?;
    Some(Holder { orphaned: rest.starts_with(ORPHANED), ..serde_json::from_str(holder).ok()? })
}

fn held(file: &mut File) -> ModuleError {
    let message = match read(file) {
        Some(holder) => format!("another run is changing this host: {holder}"),
        None => "another run is changing this host".to_owned(),
    };
    ModuleError::host(message).hint("wait for it to end; the lock goes with the process that holds it")
}

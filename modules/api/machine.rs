//! The real host: looks at it and performs changes on it, below a root where one is given.
//!
//! Each topic is a file of its own below `machine/`. Without a root, paths are the machine's own. With one, every path lies
//! below it: links are followed as if the root were `/`, and what a mere folder cannot have (running units, foreign owners,
//! packages) is assumed and written down; see `machine/assumed.rs`.
#![expect(clippy::disallowed_methods, reason = "this is where tasks get at the host")]

mod account_files;
mod accounts;
mod addresses;
mod assumed;
mod below;
mod certificate;
mod commands;
mod download;
mod facts;
mod files;
mod invert;
mod kernel;
mod packages;
mod paths;
mod records;
mod staged;
#[cfg(test)]
mod tests;
mod units;
mod unpack;
mod users;
mod validate;
mod write;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use commands::kill_running;
pub(crate) use commands::{SEARCH, find_program};
pub(crate) use records::{private_folder, put};

use super::change::Change;
use super::error::ModuleError;
use super::inspect::{Command, CommandOutput, Facts, Fingerprint, GroupEntry, Inspect, Unit, UserEntry};
use super::perform::{Irreversible, Perform, Performed, Upstream};
use super::types::{Content, Digest, Entry};

/// The host that this program runs on, or a folder of it that stands for a host.
pub struct Machine {
    root: Option<PathBuf>,
    state: PathBuf,
    run: String,
    facts: Facts,
    /// Digests of files that have not changed since.
    hashes: RefCell<HashMap<files::Identity, Digest>>,
    units: RefCell<units::Cache>,
    assumed: RefCell<assumed::Assumed>,
    /// The user who acts here, looked up once: an agent becomes nobody else, it starts another one.
    me: rustix::process::Uid,
    /// Files written since the last [`Machine::sync`].
    unsynced: RefCell<Vec<PathBuf>>,
}

impl Machine {
    /// Opens the host. `root` stands for `/`; `state` is where the agent keeps its records and journals (see
    /// [`Machine::state_folder`]), always a path of this machine; `run` is the name of the run, whose journal keeps what is
    /// replaced. Nothing is written before the first change.
    pub fn new(root: Option<PathBuf>, state: PathBuf, run: &str) -> Self {
        // `/` is no folder standing for a host, it is the host. Links on the way to the root are none of the root's business.
        let whole = |root: PathBuf| root.canonicalize().or_else(|_| std::path::absolute(&root)).unwrap_or(root);
        let root = root.map(whole).filter(|root| root != Path::new("/"));
        let assumed = if root.is_some() { assumed::Assumed::load(&state) } else { assumed::Assumed::default() };
        let mut machine = Self {
            root,
            state,
            run: run.to_owned(),
            facts: Facts::default(),
            hashes: RefCell::default(),
            units: RefCell::default(),
            assumed: RefCell::new(assumed),
            me: rustix::process::geteuid(),
            unsynced: RefCell::default(),
        };
        machine.gather();
        machine
    }

    /// Returns where an agent keeps its state: in the root it works on, else in `/var/lib/kplay`, or in the home directory of
    /// a user who is not root. Users of the system may have no home; theirs is in `/var/tmp`.
    pub fn state_folder(root: Option<&Path>) -> PathBuf {
        let me = rustix::process::geteuid();
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_dir());
        match (root, home) {
            (Some(root), _) => root.join("var/lib/kplay"),
            (None, _) if me.is_root() => "/var/lib/kplay".into(),
            (None, Some(home)) => home.join(".local/state/kplay"),
            (None, None) => format!("/var/tmp/kplay-{}", me.as_raw()).into(),
        }
    }

    fn privileged(&self) -> bool {
        self.me.is_root()
    }

    /// Returns where a path of the host lies on this machine. Below a root, links on the way are resolved within it; the one
    /// at the end only when `follow` is set.
    fn place(&self, path: &Path, follow: bool) -> Result<PathBuf, ModuleError> {
        match &self.root {
            Some(root) => paths::below(root, path, follow),
            None => paths::absolute(path).map(|()| path.to_owned()),
        }
    }

    fn make(&self, change: &Change, upstream: &mut dyn Upstream) -> Result<Performed, ModuleError> {
        if let Some(root) = self.root.as_deref().filter(|root| !root.exists()) {
            std::fs::create_dir_all(root).map_err(|error| ModuleError::io("make the root", root, &error))?;
        }
        match change {
            Change::WriteFile(write) => self.write_file(write, upstream)?,
            Change::SetAttributes { path, after, .. } => self.set_attributes(path, after)?,
            Change::MakeDirectory { path, attributes } => self.make_directory(path, attributes)?,
            Change::Symlink { path, target, .. } => self.make_link(path, target)?,
            Change::Remove { path, .. } => self.remove(path)?,
            Change::Touch { path } => self.touch(path)?,
            Change::Unpack(unpack) => self.unpack(unpack, upstream)?,
            Change::Download(download) => self.download(download)?,
            Change::Fetch { path, .. } => self.fetch(path, upstream)?,
            Change::Unit { unit, action, record, timeout, .. } => self.act_on_unit(unit, *action, record.as_ref(), *timeout)?,
            Change::ReloadDaemon { .. } => self.reload_daemon()?,
            Change::SetKernelParameter { key, after, .. } => self.set_parameter(key, after)?,
            Change::Packages(packages) => self.change_packages(packages)?,
            Change::User { name, before, after, remove_home } => self.change_user(name, before.as_ref(), after.as_ref(), *remove_home)?,
            Change::Group { name, after, .. } => self.change_group(name, after.as_ref())?,
            Change::IssueCertificate(issue) => self.issue_certificate(issue, upstream)?,
            Change::Run(run) => {
                // Judged by the agent, which knows the task's options; recorded only when it was a success.
                let recorded = run.record.as_ref().map(|record| self.take(record)).transpose()?;
                let output = self.run_command(&run.command)?;
                if let (Some(record), Some(recorded)) = (&run.record, &recorded)
                    && output.code.is_some_and(|code| run.ok_codes.contains(&code))
                {
                    self.keep_record(&record.key, recorded)?;
                }
                return Ok(Performed { command: Some(output) });
            }
        }
        Ok(Performed::default())
    }
}

impl Inspect for Machine {
    fn entry(&self, path: &Path) -> Result<Option<Entry>, ModuleError> {
        self.look(path, false)
    }

    fn target(&self, path: &Path) -> Result<Option<Entry>, ModuleError> {
        self.look(path, true)
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ModuleError> {
        self.content(path, limit)
    }

    fn fingerprint(&self, path: &Path) -> Result<Option<Fingerprint>, ModuleError> {
        self.digest(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, ModuleError> {
        self.names(path)
    }

    fn user(&self, name: &str) -> Result<Option<UserEntry>, ModuleError> {
        self.find_user(name)
    }

    fn group(&self, name: &str) -> Result<Option<GroupEntry>, ModuleError> {
        self.find_group(name)
    }

    fn unit(&self, name: &str) -> Result<Unit, ModuleError> {
        self.find_unit(name)
    }

    fn unit_log(&self, name: &str) -> Vec<String> {
        if self.root.is_some() { Vec::new() } else { units::log(name) }
    }

    fn kernel_parameter(&self, key: &str) -> Result<Option<String>, ModuleError> {
        self.find_parameter(key)
    }

    fn packages(&self, names: &[String]) -> Result<BTreeMap<String, String>, ModuleError> {
        self.find_packages(names)
    }

    fn run(&self, command: &Command) -> Result<CommandOutput, ModuleError> {
        self.run_command(command)
    }

    fn validate(&self, command: &str, path: &Path, content: &Content) -> Result<CommandOutput, ModuleError> {
        self.try_content(command, path, content)
    }

    fn record(&self, key: &str) -> Result<Option<Vec<u8>>, ModuleError> {
        self.recorded(key)
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn now(&self) -> i64 {
        now()
    }

    fn forecasting(&self) -> bool {
        false
    }

    fn live(&self, _what: &str) -> Result<(), ModuleError> {
        Ok(())
    }

    fn refresh(&self) {
        self.units.borrow_mut().forget();
    }
}

impl Perform for Machine {
    fn perform(&mut self, change: &Change, upstream: &mut dyn Upstream) -> Result<Performed, ModuleError> {
        // What runs next may read what was written, and may bring the machine down.
        if change.ends_group() {
            self.sync()?;
        }
        let performed = self.make(change, upstream);
        self.units.borrow_mut().forget();
        performed
    }

    fn invert(&mut self, change: &Change) -> Result<Vec<Change>, Irreversible> {
        self.inverse(change)
    }

    fn settle(&mut self) -> Result<(), ModuleError> {
        self.sync()
    }
}

/// Returns the host's clock, seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

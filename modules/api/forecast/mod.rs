//! A forecast: a host as it would be after changes that have not been performed.
//!
//! It lies over a host, answers like one, and takes in changes with [`Forecast::fold`]. Where a change does things that its
//! data does not tell (a command, a package), a *cloud* is laid over what it may touch. An answer from inside a cloud is the
//! best guess, and lowers the [`Certainty`] of the check that asked: to `assumed` where a package or command does what it is
//! declared to do, to `unknown` where nobody can say. Only what cannot even be guessed (the output of a command that may not
//! run yet, the content of a certificate that is not issued yet) is an error of the kind `Unknown`.

mod accounts;
mod certainty;
mod clouds;
mod files;
mod fold;
mod inspect;
mod units;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use super::change::Recorded;
use super::error::ModuleError;
use super::inspect::{GroupEntry, Inspect, UserEntry};
use super::types::{Blob, EntryKind};
pub use certainty::{Certainty, Sureness};
use clouds::Cloud;
use files::Node;

/// What a forecast needs besides the host it lies over.
pub trait Support {
    /// Returns the content of a blob of the controller's.
    fn content(&self, blob: &Blob) -> Result<Vec<u8>, ModuleError>;

    /// Waits; fails when the task's time is over or the run is stopped.
    fn pause(&self, time: Duration) -> Result<(), ModuleError> {
        std::thread::sleep(time);
        Ok(())
    }

    /// Returns the time that the task has left, when it is limited.
    fn time_left(&self) -> Option<Duration> {
        None
    }
}

/// What a forecast is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Check mode: nothing will be performed, so as much as possible is guessed.
    Check,
    /// Apply: the folded changes are about to be performed. Questions that only the real host can answer are refused, so that
    /// they are asked again once it has caught up.
    Apply,
}

/// See the head of this file.
pub struct Forecast<'a> {
    base: &'a dyn Inspect,
    support: &'a dyn Support,
    purpose: Purpose,
    /// Number of the latest fold; newer knowledge beats older clouds.
    folds: u64,
    /// What lies at paths that changes have touched, by paths without links in them.
    nodes: BTreeMap<PathBuf, Node>,
    /// Folders below which nothing of the base is to be seen any more.
    hidden: BTreeSet<PathBuf>,
    /// Kinds of the base's entries that paths were found to lead through.
    walked: RefCell<HashMap<PathBuf, Option<EntryKind>>>,
    clouds: Vec<Cloud>,
    users: BTreeMap<String, (Option<UserEntry>, u64)>,
    groups: BTreeMap<String, (Option<GroupEntry>, u64)>,
    units: BTreeMap<String, units::Foreseen>,
    /// Unit files and drop-ins that changes have touched since systemd was last told to read them, and which fold did.
    unread: BTreeMap<String, BTreeMap<PathBuf, u64>>,
    /// Whether systemd would have read all unit files again.
    reloaded: bool,
    parameters: BTreeMap<String, (String, u64)>,
    packages: BTreeMap<String, Option<String>>,
    records: BTreeMap<String, Recorded>,
    /// What came first that may have changed what runs: a command, package or unit.
    stirred: Option<String>,
    /// The latest task that would have changed anything.
    changed_by: Option<String>,
    /// How sure the answers since [`Forecast::begin`] are.
    sureness: RefCell<Sureness>,
    /// The paths that the module now asking manages.
    managed: RefCell<Vec<PathBuf>>,
    /// Whether questions leave the certainty alone.
    silent: Cell<bool>,
}

impl<'a> Forecast<'a> {
    /// Creates a forecast in which nothing has changed yet.
    pub fn new(base: &'a dyn Inspect, support: &'a dyn Support, purpose: Purpose) -> Self {
        Self {
            base,
            support,
            purpose,
            folds: 0,
            nodes: BTreeMap::new(),
            hidden: BTreeSet::new(),
            walked: RefCell::default(),
            clouds: Vec::new(),
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            units: BTreeMap::new(),
            unread: BTreeMap::new(),
            reloaded: false,
            parameters: BTreeMap::new(),
            packages: BTreeMap::new(),
            records: BTreeMap::new(),
            stirred: None,
            changed_by: None,
            sureness: RefCell::default(),
            managed: RefCell::default(),
            silent: Cell::new(false),
        }
    }

    /// Begins the check of a module that manages `paths`: from here on the certainty is this check's.
    pub fn begin(&self, paths: Vec<PathBuf>) {
        *self.sureness.borrow_mut() = Sureness::default();
        *self.managed.borrow_mut() = paths;
    }

    /// Returns how sure the answers since [`Forecast::begin`] are, and why no surer.
    pub fn sureness(&self) -> Sureness {
        self.sureness.borrow().clone()
    }

    /// Returns whether any change has been folded in.
    pub fn is_changed(&self) -> bool {
        self.folds > 0
    }

    /// Lowers the certainty of the check that is asking.
    fn lower(&self, certainty: Certainty, because: &str) {
        if !self.silent.get() {
            self.sureness.borrow_mut().lower(certainty, because);
        }
    }

    /// Asks without lowering the certainty.
    fn silently<T>(&self, ask: impl FnOnce(&Self) -> T) -> T {
        let before = self.silent.replace(true);
        let answer = ask(self);
        self.silent.set(before);
        answer
    }

    /// Returns a time after everything that has happened so far, nanoseconds since 1970.
    fn clock(&self) -> i64 {
        (self.base.now() + 1) * 1_000_000_000 + i64::try_from(self.folds).unwrap_or(i64::MAX >> 1)
    }
}

#[cfg(test)]
mod tests;

//! What a folder used as a root cannot have: other owners, running units, packages, kernel parameters. They are written down.
//!
//! Below a root nothing of the machine itself may change, and often the agent is nobody special. So that roles can be tried
//! there all the same, what they wish for is recorded in `assumed.json` of the state folder, and counts as done:
//!
//! - An agent that is not root sees its own user and group as number 0, as in a user namespace; another owner is recorded
//!   for the path and forgotten with it.
//! - A unit that is started is recorded as active with an invocation of its own; enabling and masking are real links.
//! - In a root without a package manager, packages are recorded as installed with the version `assumed`.
//! - Live kernel parameters are recorded.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::api::error::ModuleError;

/// Name of the record within the state folder.
const FILE: &str = "assumed.json";

/// See the head of this file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Assumed {
    /// Owner and group by path below the root.
    pub owners: BTreeMap<PathBuf, (u32, u32)>,
    /// Units that were started.
    pub units: BTreeMap<String, Started>,
    /// Packages and their versions.
    pub packages: BTreeMap<String, String>,
    /// Kernel parameters.
    pub parameters: BTreeMap<String, String>,
}

/// One assumed start of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    /// Stands for systemd's invocation identifier.
    pub invocation: String,
    /// Nanoseconds since 1970.
    pub at: i64,
}

impl Assumed {
    /// Reads what an earlier run wrote down; nothing when there was none.
    pub(super) fn load(state: &Path) -> Self {
        std::fs::read(state.join(FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn save(&self, state: &Path) -> Result<(), ModuleError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| ModuleError::host(format!("cannot write `{FILE}`: {error}")))?;
        super::records::put(&state.join(FILE), &bytes)
    }
}

impl Machine {
    /// Changes what is assumed and writes it down at once.
    pub(super) fn assume(&self, change: impl FnOnce(&mut Assumed)) -> Result<(), ModuleError> {
        let mut assumed = self.assumed.borrow_mut();
        let before = assumed.clone();
        change(&mut assumed);
        if *assumed == before { Ok(()) } else { assumed.save(&self.state) }
    }

    /// Returns owner and group of what lies at `place`, as the host would see them.
    pub(super) fn owners_of(&self, place: &Path, metadata: &Metadata) -> (u32, u32) {
        let (owner, group) = (metadata.uid(), metadata.gid());
        let Some(root) = self.root.as_deref().filter(|_| !self.privileged()) else { return (owner, group) };
        let recorded = place.strip_prefix(root).ok().and_then(|path| self.assumed.borrow().owners.get(path).copied());
        recorded.unwrap_or((
            if owner == self.me.as_raw() { 0 } else { owner },
            if group == rustix::process::getegid().as_raw() { 0 } else { group },
        ))
    }

    /// Records owners that could not be given to what lies at `place`, below a root and without privileges. Returns whether
    /// that is where we are.
    pub(super) fn assume_owners(&self, place: &Path, owners: (u32, u32)) -> Result<bool, ModuleError> {
        let Some(root) = self.root.as_deref().filter(|_| !self.privileged()) else { return Ok(false) };
        let Ok(path) = place.strip_prefix(root) else { return Ok(false) };
        self.assume(|assumed| match owners {
            (0, 0) => drop(assumed.owners.remove(path)),
            owners => drop(assumed.owners.insert(path.to_owned(), owners)),
        })?;
        Ok(true)
    }

    /// Forgets recorded owners of what lay at `place` and below.
    pub(super) fn forget_owners(&self, place: &Path) -> Result<(), ModuleError> {
        match self.root.as_deref().and_then(|root| place.strip_prefix(root).ok()) {
            Some(path) => self.assume(|assumed| assumed.owners.retain(|known, _| !known.starts_with(path))),
            None => Ok(()),
        }
    }
}

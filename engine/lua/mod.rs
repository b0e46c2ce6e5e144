//! Playbooks: a sandboxed Lua state in which each host goes through its plays in a coroutine of its own.
//!
//! `prelude.lua` holds everything that may wait; the Rust functions behind it never do. A call of a module is checked and
//! prepared at once and queued; it is sent when something has to be known.

mod arguments;
mod classes;
mod convert;
mod error;
mod hosts;
mod keys;
mod library;
mod manual;
mod options;
mod order;
mod play;
mod primitives;
mod program;
mod role;
mod role_call;
mod source;
mod state;
mod task;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

pub use manual::{ParamManual, RoleManual, describe_role, roles_below};
pub use options::NAMES as OPTION_NAMES;
pub use program::Program;

/// What the command line says about running a playbook.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether this is a forecast: nothing is written on the controller either.
    pub check: bool,
    /// Hosts that plays are limited to.
    pub limit: Option<Vec<usize>>,
    /// Only tasks with one of these tags.
    pub tags: Vec<String>,
    /// No tasks with one of these tags.
    pub skip_tags: Vec<String>,
    /// Skip all tasks of a host before the one with this name.
    pub start_at_task: Option<String>,
    /// Folders that hold roles, beside those of the playbook.
    pub role_paths: Vec<PathBuf>,
    /// User whom tasks become when nothing else is said (`--become`).
    pub become_user: Option<String>,
    /// The same by host, from the inventory; wins over `become_user`.
    pub become_users: HashMap<usize, String>,
    /// Time that a playbook may compute without waiting for a host.
    pub time_limit: Duration,
    /// Bytes that all values of all playbooks may take.
    pub memory_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            check: false,
            limit: None,
            tags: Vec::new(),
            skip_tags: Vec::new(),
            start_at_task: None,
            role_paths: Vec::new(),
            become_user: None,
            become_users: HashMap::new(),
            time_limit: Duration::from_secs(30),
            memory_limit: 2 << 30,
        }
    }
}

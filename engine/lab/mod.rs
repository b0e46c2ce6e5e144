//! Throw-away real hosts on this machine: Debian trees that systemd boots in namespaces, for demos, role tests and our own tests.
//!
//! A lab belongs to one inventory. All that it is made of is named before it is made, in the lab's state file, so that
//! `down` finds everything again whatever happened in between. Hosts live in network namespaces: their addresses are
//! never the machine's own.
#![expect(clippy::disallowed_methods, reason = "a lab is folders, mounts, and processes of this machine")]

mod cgroup;
mod connection;
mod down;
mod host;
mod image;
mod layout;
mod mounts;
mod network;
mod process;
mod program;
mod requirements;
mod settings;
mod state;
mod status;
mod up;

pub use connection::{LabConnection, connection_settings};
pub use down::down;
pub use layout::{Lab, default_cache};
pub use settings::LabHost;
pub use status::{attach, exec, status};
pub use up::up;

/// Where the lab tells what it is doing, a line at a time.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

//! The contract of modules: what they may ask, what they return, and the few places that act on it.

#[cfg(test)]
mod agreement;
pub mod archive;
pub mod base64;
pub mod change;
pub mod checksum;
#[cfg(test)]
pub mod conformance;
pub mod error;
pub mod fake;
pub mod forecast;
pub mod glob;
pub mod http;
pub mod inspect;
pub mod inverse;
pub mod issue;
pub mod journal;
pub mod machine;
pub mod module;
pub mod perform;
pub mod place;
pub mod probe;
pub mod resolve;
pub mod text;
#[cfg(test)]
pub mod trial;
pub mod types;
pub mod units;
pub mod walk;

pub use change::{Change, Footprint, UnitAction};
pub use checksum::Checksum;
pub use error::{ErrorKind, ModuleError};
pub use inspect::{Command, CommandOutput, Facts, Fingerprint, Inspect, Unit};
pub use journal::Journal;
pub use machine::Machine;
pub use module::{AnyModule, Controller, Module, Proposal};
pub use perform::{Irreversible, Perform, Performed, Upstream};
pub use types::{Attributes, Blob, Content, Digest, Entry, EntryKind, Mode, OneOrMany, Owner, Word};

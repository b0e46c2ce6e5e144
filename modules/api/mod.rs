//! The contract of modules: what they may ask, what they return, and the few places that act on it.

pub mod change;
pub mod error;
pub mod inspect;
pub mod module;
pub mod perform;
pub mod types;
pub mod walk;

pub use change::{Change, Footprint, UnitAction};
pub use error::{ErrorKind, ModuleError};
pub use inspect::{Command, CommandOutput, Facts, Fingerprint, Inspect, Unit};
pub use module::{AnyModule, Controller, Module, Proposal};
pub use perform::{Irreversible, Perform, Performed, Upstream};
pub use types::{Attributes, Blob, Content, Digest, Entry, EntryKind, Mode, OneOrMany, Owner};

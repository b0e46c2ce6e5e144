//! The other half of a host: what performs changes. Only the agent's serving loop and the tests hold one.

use std::io::Read;
use std::path::PathBuf;

use super::change::Change;
use super::error::ModuleError;
use super::inspect::{CommandOutput, Inspect};
use super::types::Blob;

/// A host that changes can be performed on: the real one (`machine.rs`) or one in memory (`fake.rs`).
pub trait Perform: Inspect {
    /// Performs one change. What it needs from the controller it gets from `upstream`. A change that fails leaves nothing
    /// of itself behind. A command of the user's that ends with whatever exit code has been performed: the caller judges it.
    fn perform(&mut self, change: &Change, upstream: &mut dyn Upstream) -> Result<Performed, ModuleError>;

    /// Returns the changes that bring back what `change` is about to replace, in the order they have to be performed, or why
    /// that cannot be. Contents that will be needed are kept by the host until the run is forgotten.
    fn invert(&mut self, change: &Change) -> Result<Vec<Change>, Irreversible>;

    /// Makes what was performed survive a loss of power.
    fn settle(&mut self) -> Result<(), ModuleError> {
        Ok(())
    }
}

/// What performing a change yielded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Performed {
    /// How the command ended, for changes that run one of the user's.
    pub command: Option<CommandOutput>,
}

/// Why a change cannot be undone (`commands cannot be undone`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Irreversible(pub String);

/// A blob's content, as an [`Upstream`] has it.
pub enum Supplied<'a> {
    /// A file of nobody's that holds it, its digest verified. It may be moved away.
    File(PathBuf),
    /// A reader of it; its digest is verified by the time it ends.
    Stream(Box<dyn Read + 'a>),
}

/// What a host may ask back while it performs a task's changes.
pub trait Upstream {
    /// Returns a reader of a blob's content; its digest is verified by the time the reader ends.
    fn blob(&mut self, blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError>;
    /// Returns a blob's content for a file that holds nothing else.
    fn supply(&mut self, blob: &Blob) -> Result<Supplied<'_>, ModuleError> {
        self.blob(blob).map(Supplied::Stream)
    }
    /// Has a certification request (DER) signed for the task that is being performed; returns PEM.
    fn sign(&mut self, request: &[u8]) -> Result<String, ModuleError>;
    /// Sends a file of the host to the controller for the task that is being performed.
    fn deliver(&mut self, content: &mut dyn Read) -> Result<(), ModuleError>;
}

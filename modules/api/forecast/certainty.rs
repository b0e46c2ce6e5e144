//! How sure a forecast is, and why no surer.

use serde::{Deserialize, Serialize};

/// How sure a forecast is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// An apply does exactly this.
    #[default]
    Exact,
    /// An apply does this if a package or command does what it is declared to do.
    Assumed,
    /// Cannot be known.
    Unknown,
}

/// A certainty with its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sureness {
    /// How sure.
    pub certainty: Certainty,
    /// Why not surer; empty when exact.
    pub because: String,
}

impl Sureness {
    /// Lowers the certainty; the first reason of the lowest level stays.
    pub fn lower(&mut self, certainty: Certainty, because: &str) {
        if certainty > self.certainty {
            self.certainty = certainty;
            because.clone_into(&mut self.because);
        }
    }
}

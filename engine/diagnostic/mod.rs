//! The one error type of the controller: what happened, where, on which host, what to do next.

mod render;

use std::path::PathBuf;

use kplay_modules::api::ModuleError;

pub use render::render;

/// Result of everything that can fail because of what a user wrote or what the world is like.
pub type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// An error as the operator sees it. Built by [`Diagnostic::user`] and its siblings, then `.at(place).hint("…")`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Who has to act; decides the exit code.
    pub kind: Kind,
    /// A lower-case fragment, names in backticks.
    pub message: String,
    /// Where in the user's files.
    pub place: Option<Place>,
    /// How the run got there, innermost first (role ← play); without `place` itself.
    pub chain: Vec<Place>,
    /// On which host.
    pub host: Option<String>,
    /// Further lines: what was seen.
    pub details: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command line, inventory, playbook or a local file is wrong; nothing was touched.
    User,
    /// A host is not as it has to be.
    Host,
    /// A host could not be reached.
    Unreachable,
    /// kplay itself is wrong.
    Internal,
}

/// A place in a file of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, as the user would name it.
    pub file: PathBuf,
    /// Line, from 1; 0 when only the file is known.
    pub line: u32,
    /// Column in characters, from 1; 0 when only the line is known.
    pub column: u32,
    /// Characters to underline; 0 counts as 1.
    pub length: u32,
}

impl Place {
    /// Creates a place that names a line.
    pub fn line(file: impl Into<PathBuf>, line: u32) -> Self {
        Self { file: file.into(), line, column: 0, length: 0 }
    }
}

impl Diagnostic {
    /// Creates an error that its user can mend.
    pub fn user(message: impl Into<String>) -> Box<Self> {
        Self::new(Kind::User, message)
    }

    /// Creates an error about a host.
    pub fn host(message: impl Into<String>) -> Box<Self> {
        Self::new(Kind::Host, message)
    }

    /// Creates an error about a host that cannot be reached.
    pub fn unreachable(message: impl Into<String>) -> Box<Self> {
        Self::new(Kind::Unreachable, message)
    }

    /// Creates an error that is kplay's own fault.
    pub fn internal(message: impl Into<String>) -> Box<Self> {
        Self::new(Kind::Internal, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { kind, message: message.into(), place: None, chain: Vec::new(), host: None, details: Vec::new(), hints: Vec::new() })
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self: Box<Self>, place: Place) -> Box<Self> {
        self.place = Some(place);
        self
    }

    /// Says on which host.
    #[must_use]
    pub fn on(mut self: Box<Self>, host: impl Into<String>) -> Box<Self> {
        self.host = Some(host.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self: Box<Self>, hint: impl Into<String>) -> Box<Self> {
        self.hints.push(hint.into());
        self
    }

    /// Adds what was seen.
    #[must_use]
    pub fn details(mut self: Box<Self>, lines: impl IntoIterator<Item = String>) -> Box<Self> {
        self.details.extend(lines);
        self
    }
}

impl From<ModuleError> for Box<Diagnostic> {
    fn from(error: ModuleError) -> Self {
        let kind = match error.kind {
            kplay_modules::api::ErrorKind::Argument => Kind::User,
            kplay_modules::api::ErrorKind::Host | kplay_modules::api::ErrorKind::Unknown => Kind::Host,
        };
        let mut made = Diagnostic::new(kind, error.message).details(error.details);
        made.hints.extend(error.hint);
        made
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// Returns the candidate nearest to `name`, when one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + name.len().min(candidate.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The exit codes, in one table. The first that applies in the order 130, 1, 2, 3, 5, 4 wins.
pub mod exit_code {
    /// Done (with `--check`: forecast complete).
    pub const DONE: u8 = 0;
    /// Refused before anything was touched: usage, inventory, playbook, validation.
    pub const REFUSED: u8 = 1;
    /// At least one host failed.
    pub const FAILED: u8 = 2;
    /// No failure, but at least one host was unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// `--check --exit-code`: there would be changes.
    pub const WOULD_CHANGE: u8 = 4;
    /// `--check`: a host's forecast ended at an unknown result.
    pub const UNKNOWN: u8 = 5;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;
}

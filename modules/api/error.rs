//! The one error type of modules: what went wrong, which argument caused it, what to do next.

use serde::{Deserialize, Serialize};

/// Why a module could not say what is missing, or a change could not be performed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleError {
    /// Who has to act: the author of the playbook, or whoever owns the host.
    pub kind: ErrorKind,
    /// A lower-case fragment that names the thing and what was seen.
    pub message: String,
    /// The argument that the error is about; the controller points its caret at it.
    pub argument: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Further lines, for instance the last lines of a unit's journal.
    pub details: Vec<String>,
}

/// The kinds of module errors; each leads to a different end of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The arguments cannot work on any host. Found before a host is touched wherever possible.
    Argument,
    /// The host is not as the task needs it; the task fails on that host.
    Host,
    /// A forecast cannot know: an earlier task of the same run would have changed what was asked for.
    Unknown,
}

impl ModuleError {
    /// Creates an error about the arguments as a whole.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Argument, message)
    }

    /// Creates an error about what was seen on the host.
    pub fn host(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Host, message)
    }

    /// Creates the answer of a forecast that cannot know, with the reason (`command \`make\` would have run`).
    pub fn unknown(because: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, because)
    }

    /// Creates a host error from a failed system call on `path`, with a hint where the errno suggests one.
    pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let hint = match error.raw_os_error() {
            Some(libc_errno::ENOSPC) => Some("the file system is full: see `df -h` and `df -i` on the host"),
            Some(libc_errno::EROFS) => Some("the file system is mounted read-only: see `findmnt` on the host"),
            Some(libc_errno::EACCES | libc_errno::EPERM) => Some("add `become = true`, or connect as a user who may"),
            _ => None,
        };
        let mut made = Self::host(format!("cannot {action} `{}`: {}", path.display(), plain(error)));
        made.hint = hint.map(str::to_owned);
        made
    }

    /// Names the argument that the error is about.
    #[must_use]
    pub fn at(mut self, argument: &str) -> Self {
        self.argument = Some(argument.to_owned());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds further lines.
    #[must_use]
    pub fn details(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(lines);
        self
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), argument: None, hint: None, details: Vec::new() }
    }
}

impl std::fmt::Display for ModuleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ModuleError {}

/// Returns the error's text without Rust's `(os error N)`, which tells an operator nothing.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// The few error numbers that hints depend on (Linux, all architectures).
mod libc_errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EACCES: i32 = 13;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EROFS: i32 = 30;
}

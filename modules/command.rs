//! Runs a program on the host, without a shell.
//!
//! ```lua
//! host:command({ command = { "mkdir", "/srv/data" }, creates = "/srv/data" })
//! local up = host:command({ command = "uptime -p", reads_only = true })
//! ```
//!
//! The command is a list of words, or one string that is split at white space, where quotes hold words together. Nothing is
//! expanded: a string with `|`, `>`, `$`, `*` and their like is refused, since only a shell would understand it (see `shell`).
//!
//! Say when the command has nothing left to do, and it runs only when needed, in a forecast too:
//!
//! - `creates`, `removes`: a path that is there, or is gone, once the command has run.
//! - `unless`: a command that succeeds once this one has run. `onlyif`: one that must succeed for this one to be wanted at all.
//! - `inputs`: files or folders; the command runs until it has succeeded once with what they contain today.
//!
//! With several of these it runs unless all of them say that it has run. With none it runs each time. A command that only looks
//! is declared `reads_only`: it runs in a forecast too and never counts as a change.
//!
//! Results: `stdout`, `stderr`, `code`, and `ran`, which says whether it was needed. `stdout` and `stderr` are whole up to 1 MiB each.
//! Of a longer one, the host leaves out the middle: a line there says how much, `truncated` is true, and the run warns.

pub(crate) mod guards;
pub(crate) mod words;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::{Controller, Footprint, Inspect, Module, ModuleError, OneOrMany, Proposal, Word};

use guards::{Plan, default_timeout};
use words::Line;

/// Arguments of `command`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments: a list, or a string without anything for a shell in it.
    command: Line,
    /// A path that exists once the command has run.
    #[serde(default)]
    creates: Option<String>,
    /// A path that does not exist once the command has run.
    #[serde(default)]
    removes: Option<String>,
    /// A command that changes nothing and succeeds once this one has run.
    #[serde(default)]
    unless: Option<Line>,
    /// A command that changes nothing and succeeds when this one is wanted at all.
    #[serde(default)]
    onlyif: Option<Line>,
    /// Files and folders; the command runs until it has succeeded once with what they contain today.
    #[serde(default)]
    inputs: Option<OneOrMany>,
    /// Whether the command only looks: it runs in a forecast too and never counts as a change.
    #[serde(default)]
    reads_only: bool,
    /// Working directory; `/` when not given.
    #[serde(default)]
    chdir: Option<String>,
    /// Variables added to its environment.
    #[serde(default)]
    env: BTreeMap<String, Word>,
    /// Text for its standard input.
    #[serde(default)]
    stdin: Option<String>,
    /// Exit codes that count as success; 0 when not given.
    #[serde(default)]
    ok_codes: Option<Vec<i32>>,
    /// Seconds after which it is killed with all it started.
    #[serde(default = "default_timeout")]
    timeout: u64,
    /// Whether the command line and its output are never shown.
    #[serde(default)]
    sensitive: bool,
}

impl Module for Command {
    const NAME: &'static str = "command";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        self.plan()?.validate()
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        self.plan()?.check(host)
    }

    fn reach(&self) -> Footprint {
        self.plan().map_or(Footprint::Anything, |plan| plan.reach())
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        tests::examples()
    }
}

impl Command {
    fn plan(&self) -> Result<Plan<'_>, ModuleError> {
        let guard = |line: &Option<Line>, argument| line.as_ref().map(|line| line.argv().map_err(|error| error.at(argument))).transpose();
        Ok(Plan {
            argv: self.command.argv().map_err(|error| error.at("command"))?,
            unless: guard(&self.unless, "unless")?,
            onlyif: guard(&self.onlyif, "onlyif")?,
            creates: self.creates.as_deref(),
            removes: self.removes.as_deref(),
            inputs: self.inputs.as_ref(),
            reads_only: self.reads_only,
            chdir: self.chdir.as_deref(),
            env: &self.env,
            stdin: self.stdin.as_deref(),
            ok_codes: self.ok_codes.as_deref(),
            timeout: self.timeout,
            sensitive: self.sensitive,
        })
    }
}

//! Runs a script in a shell on the host.
//!
//! ```lua
//! host:shell({ command = "sort /etc/passwd | sha256sum > /tmp/users.sum", creates = "/tmp/users.sum" })
//! ```
//!
//! The script is handed to `/bin/sh -c`, or to the shell named by `executable`; so are `unless` and `onlyif`. All else is as
//! for `command`: prefer that one where no shell is needed. Values put into a script have to be quoted for the shell; handing
//! them over in `env` needs no quoting.
//!
//! Results: `stdout`, `stderr`, `code`, and `ran`, which says whether it was needed. `stdout` and `stderr` are whole up to 1 MiB each.
//! Of a longer one, the host leaves out the middle: a line there says how much, `truncated` is true, and the run warns.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::{Controller, Footprint, Inspect, Module, ModuleError, OneOrMany, Proposal, Word};
use crate::command::guards::{Plan, default_timeout};

/// Arguments of `shell`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// The script.
    command: String,
    /// The shell; it takes the script after `-c`.
    #[serde(default = "sh")]
    executable: String,
    /// A path that exists once the script has run.
    #[serde(default)]
    creates: Option<String>,
    /// A path that does not exist once the script has run.
    #[serde(default)]
    removes: Option<String>,
    /// A script that changes nothing and succeeds once this one has run.
    #[serde(default)]
    unless: Option<String>,
    /// A script that changes nothing and succeeds when this one is wanted at all.
    #[serde(default)]
    onlyif: Option<String>,
    /// Files and folders; the script runs until it has succeeded once with what they contain today.
    #[serde(default)]
    inputs: Option<OneOrMany>,
    /// Whether the script only looks: it runs in a forecast too and never counts as a change.
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
    /// Whether the script and its output are never shown.
    #[serde(default)]
    sensitive: bool,
}

impl Module for Shell {
    const NAME: &'static str = "shell";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        if !self.executable.starts_with('/') {
            return Err(ModuleError::argument(format!("`{}` is not an absolute path", self.executable)).at("executable"));
        }
        for (argument, script) in [("command", Some(&self.command)), ("unless", self.unless.as_ref()), ("onlyif", self.onlyif.as_ref())] {
            if script.is_some_and(|script| script.trim().is_empty()) {
                return Err(ModuleError::argument("the script is empty").at(argument));
            }
        }
        self.plan().validate()
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        self.plan().check(host)
    }

    fn reach(&self) -> Footprint {
        self.plan().reach()
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        crate::command::tests::shell_examples()
    }
}

impl Shell {
    fn plan(&self) -> Plan<'_> {
        let argv = |script: &String| vec![self.executable.clone(), "-c".to_owned(), script.clone()];
        Plan {
            argv: argv(&self.command),
            unless: self.unless.as_ref().map(argv),
            onlyif: self.onlyif.as_ref().map(argv),
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
        }
    }
}

fn sh() -> String {
    "/bin/sh".to_owned()
}

//! What a module is: arguments, a preparation on the controller, and a check that returns what is missing.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::change::{Change, Footprint, Run};
use super::error::ModuleError;
use super::inspect::{CommandOutput, Inspect};
use super::types::{Blob, Mode};

/// A thing that can be managed. The type's fields are the module's arguments.
///
/// The module's manual is the `//!` text at the head of its file, its arguments' descriptions are the fields' doc comments.
pub trait Module: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name playbooks call it by; also the name of its file.
    const NAME: &'static str;

    /// Runs on the controller before anything is sent: refuses arguments that cannot work, reads local files, renders
    /// templates, and replaces what the host needs by digests and manifests.
    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        let _ = controller;
        Ok(())
    }

    /// Looks at the host and returns what is missing.
    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError>;

    /// Returns the paths that the task manages; `restart_on = { result }` means these. Called after `prepare`.
    fn paths(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns what the task may touch when a forecast cannot know whether it would: later tasks that read any of it are then
    /// no longer exact. Modules that manage more than paths (units, packages, users, commands) say so here; a module that
    /// changes nothing needs nothing.
    fn reach(&self) -> Footprint {
        Footprint::Paths(self.paths())
    }

    /// Returns cases for the conformance tests, which run every one of them through all that a module promises: a check
    /// writes nothing, an apply does what the check said, asking again proposes nothing, undoing brings the first state back,
    /// unknown arguments are refused, secrets reach no report. At least one case has to propose something.
    ///
    /// ```ignore
    /// #[cfg(test)]
    /// fn examples() -> Vec<Example> {
    ///     vec![
    ///         Example::new("makes a folder", json!({ "path": "/srv/x", "state": "directory" })),
    ///         Example::new("renders", json!({ "src": "a.j2", "dest": "/etc/a" })).desk(Desk::new().file("templates/a.j2", "x")),
    ///         Example::new("mends a mode", json!({ "path": "/etc/x", "mode": "0600" })).on(Fake::new().file("/etc/x", "")),
    ///     ]
    /// }
    /// ```
    #[cfg(test)]
    fn examples() -> Vec<super::conformance::Example> {
        Vec::new()
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposal {
    /// What is missing, in the order it has to be done.
    pub changes: Vec<Change>,
    /// What the playbook may read from the result (`stat.exists`, `command.stdout`); a closed set of fields per module.
    pub output: Map<String, Value>,
    /// Whether the module proposes again each time it is asked (a bare command): such tasks are not asked for proof.
    pub repeating: bool,
    /// What the operator should know although the task can be done.
    pub warnings: Vec<String>,
    /// The command by which it has looked, when that is judged by the task's conditions like one that changes something.
    pub looked: Option<Box<Looked>>,
}

/// A command that only looks, and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Looked {
    /// The command.
    pub run: Run,
    /// Its ending.
    pub output: CommandOutput,
}

impl Proposal {
    /// Creates a converging proposal.
    pub fn new(changes: Vec<Change>) -> Self {
        Self { changes, ..Self::default() }
    }

    /// Adds a field that the playbook may read.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.output.insert(field.to_owned(), value.into());
        self
    }

    /// Adds what the operator should know although the task can be done.
    #[must_use]
    pub fn warning(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Declares that asking again would propose again.
    #[must_use]
    pub fn repeating(mut self) -> Self {
        self.repeating = true;
        self
    }
}

/// What `prepare` may ask the controller.
pub trait Controller {
    /// Finds a file or folder that a task names: absolute, or below the role's `folder` (`files`, `templates`), else beside
    /// the playbook. The error lists where it looked.
    fn find(&self, name: &str, folder: &str) -> Result<PathBuf, ModuleError>;
    /// Returns the name of the host that the task is for, as the inventory has it.
    fn host(&self) -> &str;
    /// Returns the absolute path of a place to write to on the controller: a relative one lies below the working directory.
    fn destination(&self, name: &str) -> PathBuf;
    /// Returns what a local path is, following links, with `path` as given; `None` when there is nothing.
    fn entry(&self, path: &Path) -> Result<Option<TreeEntry>, ModuleError>;
    /// Reads a local file whole; for texts and small files.
    fn read(&self, path: &Path) -> Result<Vec<u8>, ModuleError>;
    /// Opens a local file for streaming.
    fn open(&self, path: &Path) -> Result<Box<dyn std::io::Read>, ModuleError>;
    /// Registers a local file so that hosts can ask for it by digest. Its digest is taken once per run and file.
    fn blob_of_file(&self, path: &Path, secret: bool) -> Result<Blob, ModuleError>;
    /// Registers bytes so that hosts can ask for them by digest.
    fn blob(&self, bytes: Vec<u8>, secret: bool) -> Blob;
    /// Lists what is below a local folder, parents first, sorted, links not followed.
    fn tree(&self, folder: &Path) -> Result<Vec<TreeEntry>, ModuleError>;
    /// Renders a template file with the host's variables, the role's parameters and `vars`; strict about undefined names.
    fn render(&self, template: &Path, vars: &Map<String, Value>) -> Result<Vec<u8>, ModuleError>;
    /// Returns whether a text contains a value that the user declared secret.
    fn is_secret(&self, text: &[u8]) -> bool;
    /// Returns whether a file of the controller must never be shown: it holds a private key, or such a value.
    fn is_secret_file(&self, path: &Path) -> Result<bool, ModuleError> {
        let content = self.read(path)?;
        Ok(super::place::looks_like_key(&content) || self.is_secret(&content))
    }
    /// Makes sure that `url` (`https`, `http`, `file`) with this checksum lies in the controller's download cache and returns its
    /// path there. `ca` is a local PEM file with the authorities to trust instead of the usual ones, `timeout` is in seconds.
    fn download(&self, url: &str, checksum: &super::Checksum, ca: Option<&Path>, timeout: u64) -> Result<PathBuf, ModuleError>;
    /// Returns what was remembered under `key`, a file name, in this run or an earlier one; `None` when it is not known any more.
    fn remembered(&self, key: &str) -> Option<Vec<u8>> {
        let _ = key;
        None
    }
    /// Remembers under `key` what took long to find out and can be found out again; never a secret.
    fn remember(&self, key: &str, value: &[u8]) {
        let _ = (key, value);
    }
    /// Returns the certificate (PEM) of the authority kept in `folder`, making the authority on first use. With `dry`
    /// nothing is made: `None` says that it would be.
    fn authority(&self, folder: &Path) -> Result<Option<String>, ModuleError>;
    /// Registers the specification of the certificate that this task may ask to be signed; see `cert`.
    fn expect_signature(&self, request: SignatureRequest);
    /// Registers the only place on the controller where a file goes that this task may deliver; see `fetch`. The `dest` that a
    /// host puts into a change is for show.
    fn expect_file(&self, dest: &Path);
}

/// A local file, folder or link below a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TreeEntry {
    /// Path relative to the folder.
    pub path: PathBuf,
    /// What it is.
    #[schemars(skip)]
    pub kind: super::change::MemberKind,
    /// Permission bits.
    pub mode: u32,
}

/// What the controller will sign for one task, and nothing else: every field of the certificate comes from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureRequest {
    /// Folder of the authority.
    pub authority: PathBuf,
    /// The specification as the `cert` module read it, as JSON.
    pub specification: Value,
}

/// Requested attributes, as most modules take them; a helper for reading them in one go.
pub type Asked<'a> = (&'a Option<Mode>, &'a Option<String>, &'a Option<String>);

/// A module with its arguments, of whatever kind.
pub trait AnyModule: Send + Sync {
    /// See [`Module::prepare`].
    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError>;
    /// See [`Module::check`].
    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError>;
    /// See [`Module::paths`].
    fn paths(&self) -> Vec<PathBuf>;
    /// See [`Module::reach`].
    fn reach(&self) -> Footprint;
    /// Returns the arguments as they travel to the host.
    fn to_json(&self) -> Result<String, ModuleError>;
}

impl<M: Module> AnyModule for M {
    fn prepare(&mut self, controller: &dyn Controller) -> Result<(), ModuleError> {
        Module::prepare(self, controller)
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        Module::check(self, host)
    }

    fn paths(&self) -> Vec<PathBuf> {
        Module::paths(self)
    }

    fn reach(&self) -> Footprint {
        Module::reach(self)
    }

    fn to_json(&self) -> Result<String, ModuleError> {
        serde_json::to_string(self).map_err(|error| ModuleError::argument(error.to_string()))
    }
}

/// A line of the registry: all that is known of a module without an instance of it.
pub struct Entry {
    /// Name in playbooks.
    pub name: &'static str,
    /// Reads arguments; the error names the argument that it is about (`restart_on[2]`), as far as that is known.
    pub parse: fn(Value) -> Result<Box<dyn AnyModule>, ModuleError>,
    /// JSON schema of the arguments.
    pub schema: fn() -> schemars::Schema,
    /// Cases for the conformance tests.
    #[cfg(test)]
    pub examples: fn() -> Vec<super::conformance::Example>,
}

/// Returns the registry line of a module type.
pub const fn entry<M: Module>() -> Entry {
    Entry {
        name: M::NAME,
        parse: |arguments| match serde_path_to_error::deserialize::<_, M>(arguments) {
            Ok(module) => Ok(Box::new(module)),
            Err(error) => {
                let path = error.path().to_string();
                let made = ModuleError::argument(error.into_inner().to_string());
                Err(if path == "." { made } else { made.at(&path) })
            }
        },
        schema: || {
            schemars::generate::SchemaSettings::draft2020_12()
                .with(|settings| settings.inline_subschemas = true)
                .into_generator()
                .into_root_schema_for::<M>()
        },
        #[cfg(test)]
        examples: M::examples,
    }
}

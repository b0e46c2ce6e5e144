//! When a command of the user's is to run: what `command` and `shell` have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::change::{Record, Recorded, Run};
use crate::api::inspect::{Command, Fingerprint};
use crate::api::module::Looked;
use crate::api::walk::files;
use crate::api::{Change, CommandOutput, Digest, Footprint, Inspect, ModuleError, OneOrMany, Proposal, Word};

/// Seconds that a command may take when the task does not say.
pub(crate) fn default_timeout() -> u64 {
    3600
}

/// What a task says about its command, words split and shells put in front.
pub(crate) struct Plan<'a> {
    pub argv: Vec<String>,
    pub unless: Option<Vec<String>>,
    pub onlyif: Option<Vec<String>>,
    pub creates: Option<&'a str>,
    pub removes: Option<&'a str>,
    pub inputs: Option<&'a OneOrMany>,
    pub reads_only: bool,
    pub chdir: Option<&'a str>,
    pub env: &'a BTreeMap<String, Word>,
    pub stdin: Option<&'a str>,
    pub ok_codes: Option<&'a [i32]>,
    pub timeout: u64,
    pub sensitive: bool,
}

impl Plan<'_> {
    /// Refuses what cannot work on any host.
    pub(crate) fn validate(&self) -> Result<(), ModuleError> {
        if let Some(chdir) = self.chdir.filter(|chdir| !chdir.starts_with('/')) {
            return Err(ModuleError::argument(format!("`{chdir}` is not an absolute path")).at("chdir"));
        }
        let inputs = self.inputs.iter().flat_map(|inputs| &inputs.0).map(|path| ("inputs", path.as_str()));
        let paths = self.creates.map(|path| ("creates", path)).into_iter().chain(self.removes.map(|path| ("removes", path))).chain(inputs);
        for (argument, path) in paths {
            if path.is_empty() {
                return Err(ModuleError::argument("the path is empty").at(argument));
            }
            if !path.starts_with('/') && self.chdir.is_none() {
                return Err(ModuleError::argument(format!("`{path}` is not an absolute path"))
                    .at(argument)
                    .hint("write it in full, or relative to `chdir`"));
            }
        }
        if self.reads_only && self.inputs.is_some() {
            return Err(ModuleError::argument("a command that only looks has no `inputs`: it runs each time").at("inputs"));
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(ModuleError::argument(format!("`{name}` is not the name of a variable")).at("env"));
        }
        let values: Vec<_> = self.env.values().map(Word::text).collect();
        let mut words = self.argv.iter().chain(self.unless.iter().flatten()).chain(self.onlyif.iter().flatten()).map(String::as_str);
        if words.any(|word| word.contains('\0')) || values.iter().any(|value| value.contains('\0')) {
            return Err(ModuleError::argument("a command cannot contain a zero byte").at("command"));
        }
        if self.ok_codes.is_some_and(<[i32]>::is_empty) {
            return Err(ModuleError::argument("`ok_codes` is empty: the command could only fail").at("ok_codes"));
        }
        if self.timeout == 0 {
            return Err(ModuleError::argument("a time limit of 0 seconds leaves no time").at("timeout"));
        }
        Ok(())
    }

    /// Returns the command if it is needed.
    pub(crate) fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let watched = self.inputs.map(|inputs| files(host, &self.absolute_all(inputs))).transpose()?;
        if !self.is_needed(host, watched.as_ref())? {
            return Ok(result(None, false));
        }
        let run = Run {
            command: self.command(),
            ok_codes: self.ok_codes().to_vec(),
            creates: self.creates.map(|path| self.absolute(path)),
            removes: self.removes.map(|path| self.absolute(path)),
            record: watched.map(|paths| Record { key: self.key(), paths: paths.into_iter().collect() }),
            secret: self.sensitive,
        };
        if self.reads_only {
            let output = host.run(&run.command)?;
            let proposal = result(Some(&output), true);
            return Ok(Proposal { looked: Some(Box::new(Looked { run, output })), ..proposal });
        }
        let proposal = Proposal { changes: vec![Change::Run(run)], ..result(None, true) };
        Ok(if self.shows_when_done() { proposal } else { proposal.repeating() })
    }

    /// Returns what the command may touch.
    pub(crate) fn reach(&self) -> Footprint {
        let declared: Vec<PathBuf> = self.creates.iter().chain(&self.removes).map(|path| self.absolute(path)).collect();
        match declared.is_empty() {
            _ if self.reads_only => Footprint::Nothing,
            true => Footprint::Anything,
            false => Footprint::Paths(declared),
        }
    }

    /// Returns whether anything tells that the command has run.
    fn shows_when_done(&self) -> bool {
        self.creates.is_some() || self.removes.is_some() || self.unless.is_some() || self.inputs.is_some()
    }

    /// Looks at the cheap signs first, so that no command runs where a path has already answered.
    fn is_needed(&self, host: &dyn Inspect, inputs: Option<&BTreeSet<PathBuf>>) -> Result<bool, ModuleError> {
        let mut done = self.shows_when_done();
        if let Some(path) = self.creates {
            done &= host.exists(&self.absolute(path))?;
        }
        if let Some(path) = self.removes {
            done &= !host.exists(&self.absolute(path))?;
        }
        if let Some(inputs) = inputs.filter(|_| done) {
            done = self.has_run_with(host, inputs)?;
        }
        if let Some(unless) = self.unless.as_ref().filter(|_| done) {
            done = self.guard(host, unless)?;
        }
        if done {
            return Ok(false);
        }
        match &self.onlyif {
            Some(onlyif) => self.guard(host, onlyif),
            None => Ok(true),
        }
    }

    fn guard(&self, host: &dyn Inspect, argv: &[String]) -> Result<bool, ModuleError> {
        let output = host.run(&Command { argv: argv.to_vec(), ..self.command() })?;
        match output.code {
            Some(code) => Ok(code == 0),
            None => Err(ModuleError::host(format!("the guard `{}` {}", self.shown(argv), output.ending())).details(tail(&output.stderr))),
        }
    }

    /// Returns whether the command has succeeded with the inputs as they are now.
    fn has_run_with(&self, host: &dyn Inspect, inputs: &BTreeSet<PathBuf>) -> Result<bool, ModuleError> {
        let recorded: Option<Recorded> = host.record(&self.key())?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(recorded) = recorded else { return Ok(false) };
        if recorded.digests.len() != inputs.len() {
            return Ok(false);
        }
        for path in inputs {
            let Some(before) = recorded.digests.get(path) else { return Ok(false) };
            if host.fingerprint(path)? != before.map(Fingerprint::Known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn shown(&self, argv: &[String]) -> String {
        if self.sensitive { "(a sensitive command)".to_owned() } else { Command::new(argv.iter().cloned()).shown() }
    }

    fn command(&self) -> Command {
        Command {
            argv: self.argv.clone(),
            directory: self.chdir.map(PathBuf::from),
            environment: self.env.iter().map(|(name, value)| (name.clone(), value.text().into_owned())).collect(),
            input: self.stdin.map(str::to_owned),
            timeout: self.timeout,
        }
    }

    fn ok_codes(&self) -> &[i32] {
        self.ok_codes.unwrap_or(&[0])
    }

    fn absolute(&self, path: &str) -> PathBuf {
        Path::new(self.chdir.unwrap_or("/")).join(path)
    }

    fn absolute_all(&self, paths: &OneOrMany) -> Vec<PathBuf> {
        paths.0.iter().map(|path| self.absolute(path)).collect()
    }

    /// Returns the name under which a success is recorded: another command, folder, environment or input text is another one.
    fn key(&self) -> String {
        let mut text = String::new();
        let environment = self.env.iter().flat_map(|(name, value)| [name.as_str().into(), value.text()]);
        let words = self.argv.iter().map(|word| word.as_str().into()).chain(environment);
        for part in words.chain([self.chdir.unwrap_or_default().into(), self.stdin.unwrap_or_default().into()]) {
            text.push_str(&part);
            text.push('\0');
        }
        format!("command/{}", Digest::of(text.as_bytes()).hex())
    }
}

/// Returns a proposal without changes that carries all fields a playbook may read; those of a command that is yet to run are
/// filled in once it has.
fn result(output: Option<&CommandOutput>, ran: bool) -> Proposal {
    Proposal::default()
        .with("ran", ran)
        .with("code", output.and_then(|output| output.code).map_or(Value::Null, Value::from))
        .with("truncated", output.is_some_and(|output| output.truncated))
        .with("stdout", output.map(|output| output.stdout.as_str()).unwrap_or_default())
        .with("stderr", output.map(|output| output.stderr.as_str()).unwrap_or_default())
}

/// Returns the last ten lines.
fn tail(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].iter().map(|line| (*line).to_owned()).collect()
}

//! A task as the agent works on it: its module, its judgement of output, its outcome.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::agent::wire::{Certainty, ChangeReport, Condition, Outcome, Status, Task};
use crate::api::change::Run;
use crate::api::{AnyModule, Change, CommandOutput, ModuleError, Proposal};

/// Reads a task's arguments.
pub(super) fn module_of(task: &Task) -> Result<Box<dyn AnyModule>, ModuleError> {
    let entry = crate::find(&task.module).ok_or_else(|| {
        ModuleError::argument(format!("this agent has no module `{}`", task.module)).hint("controller and agent are of different builds")
    })?;
    let arguments: Value = serde_json::from_str(&task.arguments)
        .map_err(|error| ModuleError::argument(format!("the arguments of `{}` did not arrive as JSON: {error}", task.module)))?;
    (entry.parse)(arguments)
}

/// Returns whether a task is worked on by itself: it is judged by its output, or repeated, and what comes after it depends on
/// that.
pub(super) fn stands_alone(task: &Task) -> bool {
    task.retries > 0 || task.until.is_some() || task.changed_if.is_some() || task.failed_if.is_some()
}

/// What came of a task so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) changes: Vec<ChangeReport>,
    pub(super) output: Map<String, Value>,
    pub(super) because: Option<String>,
    pub(super) certainty: Certainty,
    pub(super) attempts: u32,
    pub(super) warnings: Vec<String>,
}

impl Progress {
    pub(super) fn of(proposal: &Proposal, changes: Vec<ChangeReport>) -> Self {
        Self { changes, output: proposal.output.clone(), warnings: proposal.warnings.clone(), attempts: 1, ..Self::default() }
    }

    /// Ends the task, on which so much time was spent.
    pub(super) fn end(self, task: &Task, spent: Duration, status: Status, failure: Option<ModuleError>) -> Outcome {
        let failure = failure.map(|mut error| {
            if task.sensitive {
                error.details.clear();
            }
            error
        });
        Outcome {
            task: task.id,
            status,
            certainty: self.certainty,
            because: self.because,
            changes: self.changes,
            output: Value::Object(self.output).to_string(),
            failure,
            attempts: self.attempts,
            micros: u64::try_from(spent.as_micros()).unwrap_or(u64::MAX),
            warnings: self.warnings,
        }
    }
}

/// Returns the outcome of a task that was not done.
pub(super) fn skipped(task: &Task, because: &str) -> Outcome {
    let progress = Progress { because: Some(because.to_owned()), ..Progress::default() };
    progress.end(task, Duration::ZERO, Status::Skipped, None)
}

/// Puts a command's ending into the fields that the playbook may read.
pub(super) fn take_output(fields: &mut Map<String, Value>, output: &CommandOutput) {
    fields.insert("code".to_owned(), output.code.map_or(Value::Null, Value::from));
    fields.insert("truncated".to_owned(), output.truncated.into());
    fields.insert("stdout".to_owned(), output.stdout.clone().into());
    fields.insert("stderr".to_owned(), output.stderr.clone().into());
}

/// Returns whether a condition holds for a task's output.
pub(super) fn holds(condition: &Condition, fields: &Map<String, Value>) -> Result<bool, ModuleError> {
    let mut all = condition.codes.is_empty()
        || fields.get("code").and_then(Value::as_i64).is_some_and(|code| condition.codes.iter().any(|wanted| i64::from(*wanted) == code));
    for (field, pattern) in &condition.matches {
        let expression = regex_lite::Regex::new(pattern)
            .map_err(|error| ModuleError::argument(format!("`{pattern}` is not a regular expression: {error}")))?;
        let text = match fields.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => return Err(ModuleError::argument(format!("the result has no field `{field}` to look for `{pattern}` in"))),
        };
        all &= expression.is_match(&text);
    }
    Ok(all != condition.not)
}

/// Judges a task that has nothing to change, by what it has looked at.
pub(super) fn judge_unchanged(task: &Task, proposal: &Proposal) -> Result<(), ModuleError> {
    let looked = proposal.looked.as_deref().map(|looked| (&looked.run, &looked.output));
    judge(task, looked, &proposal.output)
}

/// Returns what a condition comes to whatever a task's output is: `true` and `false` ask for nothing in it.
pub(super) fn constant(condition: &Condition) -> Option<bool> {
    (condition.codes.is_empty() && condition.matches.is_empty()).then_some(!condition.not)
}

/// Judges what a task's command and conditions say of it; `output` is that of the command, when one has run.
pub(super) fn judge(task: &Task, run: Option<(&Run, &CommandOutput)>, fields: &Map<String, Value>) -> Result<(), ModuleError> {
    if let Some((run, output)) = run {
        let accepted = match &task.failed_if {
            Some(_) => output.code.is_some(),
            None => output.code.is_some_and(|code| run.ok_codes.contains(&code) || run.ok_codes.is_empty() && code == 0),
        };
        if !accepted {
            return Err(badly_ended(run, output, task.sensitive));
        }
    }
    if let Some(condition) = &task.failed_if
        && holds(condition, fields)?
    {
        return Err(ModuleError::host("its output matches `failed_if`").details(tail(fields, task.sensitive)));
    }
    if let Some(condition) = &task.until
        && !holds(condition, fields)?
    {
        return Err(ModuleError::host("its output does not match `until`").details(tail(fields, task.sensitive)));
    }
    Ok(())
}

/// Returns whether a task takes the ending of its command for a success.
pub(super) fn accepts(task: &Task, run: &Run, output: &CommandOutput) -> bool {
    let mut fields = Map::new();
    take_output(&mut fields, output);
    judge(task, Some((run, output)), &fields).is_ok()
}

fn badly_ended(run: &Run, output: &CommandOutput, sensitive: bool) -> ModuleError {
    let hidden = run.secret || sensitive;
    let shown = if hidden { "a sensitive command".to_owned() } else { format!("`{}`", run.command.shown()) };
    let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let error = ModuleError::host(format!("{shown} failed: {}", output.ending())).at("command");
    if hidden { error } else { error.details(last_lines(said)) }
}

fn tail(fields: &Map<String, Value>, sensitive: bool) -> Vec<String> {
    if sensitive {
        return Vec::new();
    }
    let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
    last_lines(if text("stderr").trim().is_empty() { text("stdout") } else { text("stderr") })
}

/// Returns the last ten lines.
fn last_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].iter().map(|line| (*line).to_owned()).collect()
}

/// Returns a change in a few words, for saying what remains to be done.
pub(super) fn named(change: &Change) -> String {
    match change {
        Change::WriteFile(write) => format!("the content of `{}`", write.path.display()),
        Change::SetAttributes { path, .. } => format!("mode or owner of `{}`", path.display()),
        Change::MakeDirectory { path, .. } => format!("the directory `{}`", path.display()),
        Change::Symlink { path, .. } => format!("the link `{}`", path.display()),
        Change::Remove { path, .. } => format!("`{}`, which is still there", path.display()),
        Change::Touch { path } => format!("the time of `{}`", path.display()),
        Change::Unpack(unpack) => format!("{} members of `{}` below `{}`", unpack.members.len(), unpack.name, unpack.dest.display()),
        Change::Download(download) => format!("the content of `{}`", download.path.display()),
        Change::Fetch { path, .. } => format!("the copy of `{}`", path.display()),
        Change::Unit { unit, action, .. } => format!("`systemctl {} {unit}`", action.verb()),
        Change::ReloadDaemon { .. } => "`systemctl daemon-reload`".to_owned(),
        Change::SetKernelParameter { key, .. } => format!("the kernel parameter `{key}`"),
        Change::Packages(packages) => format!("packages {}", [packages.install.as_slice(), &packages.remove].concat().join(", ")),
        Change::User { name, .. } => format!("the user `{name}`"),
        Change::Group { name, .. } => format!("the group `{name}`"),
        Change::IssueCertificate(issue) => format!("the certificate `{}`", issue.certificate.display()),
        Change::Run(run) if run.secret => "a sensitive command".to_owned(),
        Change::Run(run) => format!("`{}`", run.command.shown()),
    }
}

/// Returns the modules' names that look for longer than a moment.
pub(super) fn looks_long(module: &str) -> bool {
    matches!(module, "wait_for" | "command" | "shell")
}

/// Returns whether performing a change may take longer than a moment.
pub(super) fn takes_long(change: &Change) -> bool {
    change.ends_group() || matches!(change, Change::Unpack(_) | Change::Download(_) | Change::Fetch { .. })
}

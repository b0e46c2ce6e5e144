//! `kplay exec`: one command on many hosts, through the same scheduler as a playbook.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use kplay_modules::agent::wire;
use kplay_modules::api::Facts;
use serde_json::{Value, json};

use super::contact;
use crate::blobs::Blobs;
use crate::cli;
use crate::config::{Environment, Hosts, Mode};
use crate::diagnostic::{Diagnostic, Place, Result, exit_code};
use crate::plan::{Message, PlannedTask, Planner, Play, Step, TaskResult};
use crate::report;
use crate::report::event::{Event, Level, Reporter};
use crate::report::printer::Printer;
use crate::schedule::{Run, Settings, Supply};
use crate::secrets::Secrets;

/// Runs the command; the exit code tells whether it succeeded everywhere.
pub fn run(arguments: &cli::Exec, environment: &Environment, printer: Printer) -> Result<u8> {
    let hosts = Hosts::new(&arguments.hosts, &arguments.connection, environment)?;
    let inventory = hosts.read(None)?;
    let secrets = inventory.secrets().clone();
    inventory.warnings().iter().for_each(|warning| printer.warning(warning));
    let chosen = inventory.select_within(&arguments.pattern, hosts.limit.as_deref())?;
    if chosen.is_empty() {
        return Err(Diagnostic::user(format!("the pattern `{}` selects no host", arguments.pattern)));
    }
    let settings = hosts.settings(&inventory, chosen.iter().copied())?;
    let prepared = command(&arguments.command)?;
    let name = arguments.command.join(" ");
    let tasks = chosen.iter().zip(settings).map(|(host, settings)| task(host.number, &name, &prepared, settings.become_user)).collect();
    let mut planner = OneCommand {
        plays: vec![play(&arguments.pattern, chosen.iter().map(|host| host.number).collect())],
        names: (0..).map_while(|number| inventory.host_at(number)).map(|host| host.name.clone()).collect(),
        tasks,
        done: HashSet::new(),
    };
    let targets = contact::all_targets(&hosts, &inventory)?;
    let reached = planner.plays.iter().flat_map(|play| &play.hosts).filter_map(|host| targets.get(*host));
    let (sessions, run) = contact::sessions(&hosts, Mode::default(), reached)?;
    secrets.add(targets.iter().flat_map(|target| target.become_password.iter().chain(&target.password)));
    let name_of_run = run.clone();
    let settings = Settings { run, playbook: "exec".to_owned(), check: false, exit_code: false, outputs: None, targets };
    let supply = Supply::new(Arc::new(Blobs::default()), Arc::new(|_, _| Err(Diagnostic::host("a bare command asks for no certificate"))));
    let events = arguments.output.events.as_deref().map(|path| report::events(path, &secrets, None)).transpose()?;
    let to_errors = arguments.output.events.as_deref() == Some(Path::new("-"));
    let mut outputs = Outputs { printer, secrets: secrets.clone(), events, to_errors };
    match Run::new(&mut planner, sessions, supply, &mut outputs, settings).go() {
        Ok(end) => {
            let failure = outputs.failure();
            failure.iter().for_each(|error| printer.error(error));
            Ok(if failure.is_some() && end.code == exit_code::DONE { exit_code::FAILED } else { end.code })
        }
        Err(errors) => {
            outputs.report(&Event::Refused { run: name_of_run, check: false, errors: errors.clone() });
            errors.into_iter().next().map_or(Ok(exit_code::REFUSED), |error| Err(secrets.mask_error(Box::new(error))))
        }
    }
}

fn play(pattern: &str, hosts: Vec<usize>) -> Play {
    Play {
        name: pattern.to_owned(),
        hosts,
        serial: Vec::new(),
        max_failures: None,
        any_error_stops: false,
        undo_on_failure: false,
        become_user: None,
        tags: Vec::new(),
        place: Place::line("exec", 0),
    }
}

/// Returns the arguments of the `command` module, as they travel.
fn command(argv: &[String]) -> Result<String> {
    let entry = kplay_modules::find("command").ok_or_else(|| Diagnostic::internal("the module `command` is not registered"))?;
    let module = (entry.parse)(json!({ "command": argv }))
        .map_err(|error| Diagnostic::internal(format!("`command` refuses its arguments: {error}")))?;
    Ok(module.to_json()?)
}

fn task(host: usize, name: &str, arguments: &str, become_user: Option<String>) -> PlannedTask {
    let wire = wire::Task {
        // Numbered from 1: 0 is nobody's.
        id: u32::try_from(host).unwrap_or(u32::MAX - 1) + 1,
        module: "command".to_owned(),
        arguments: arguments.to_owned(),
        name: name.to_owned(),
        become_user,
        ..wire::Task::default()
    };
    PlannedTask {
        wire,
        host,
        requested_by: host,
        place: Place::line("exec", 0),
        chain: Vec::new(),
        role: None,
        tags: Vec::new(),
        skipped: None,
        paths: Vec::new(),
        blobs: Vec::new(),
        signature: None,
        delivers: None,
    }
}

/// The plan of one task on each host, without Lua.
struct OneCommand {
    plays: Vec<Play>,
    names: Vec<String>,
    tasks: Vec<PlannedTask>,
    /// Hosts whose task has ended.
    done: HashSet<usize>,
}

impl Planner for OneCommand {
    fn plays(&self) -> &[Play] {
        &self.plays
    }

    fn host_name(&self, host: usize) -> &str {
        self.names.get(host).map_or("", String::as_str)
    }

    fn order(&mut self, play: usize) -> Result<Vec<usize>> {
        Ok(self.plays.get(play).map(|play| play.hosts.clone()).unwrap_or_default())
    }

    fn begin(&mut self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn resume(&mut self, host: usize) -> Step {
        if self.done.contains(&host) { Step::Ended } else { Step::NeedsTasks }
    }

    fn ready(&self, host: usize) -> bool {
        self.done.contains(&host)
    }

    fn take_queue(&mut self, host: usize) -> Result<Vec<PlannedTask>> {
        Ok(self.tasks.extract_if(.., |task| task.host == host).collect())
    }

    fn queued(&self) -> Vec<usize> {
        self.tasks.iter().map(|task| task.host).collect()
    }

    fn finish_task(&mut self, task: u32, _: TaskResult) {
        self.done.extend(usize::try_from(task).ok().and_then(|task| task.checked_sub(1)));
    }

    fn place_of(&self, _: u32, _: &str) -> Place {
        Place::line("exec", 0)
    }

    fn set_facts(&mut self, _: usize, _: Facts) {}

    fn abandon(&mut self, host: usize, _: Box<Diagnostic>) {
        self.tasks.retain(|task| task.host != host);
    }

    fn take_messages(&mut self) -> Vec<Message> {
        Vec::new()
    }
}

/// Shows what each host printed, under a line with its name, but for secrets of the inventory.
struct Outputs {
    printer: Printer,
    secrets: Secrets,
    /// Where all events go besides.
    events: Option<Box<dyn Reporter>>,
    /// Whether events have standard output to themselves.
    to_errors: bool,
}

impl Outputs {
    fn error(&self, error: &Diagnostic) {
        self.printer.error(&self.secrets.mask_error(Box::new(error.clone())));
    }
}

impl Reporter for Outputs {
    fn failure(&self) -> Option<Box<Diagnostic>> {
        self.events.as_ref()?.failure()
    }

    fn report(&mut self, event: &Event) {
        if let Some(events) = &mut self.events {
            events.report(event);
        }
        match event {
            Event::TaskFinished(task) => {
                let text = |field: &str| task.output.get(field).and_then(Value::as_str).unwrap_or_default();
                let ending = match task.output.get("code").and_then(Value::as_i64) {
                    Some(code) => format!("exit code {code}"),
                    None => "no exit code".to_owned(),
                };
                let mut shown = format!("{} | {ending}\n", task.host);
                for stream in ["stdout", "stderr"] {
                    shown += text(stream);
                    if !text(stream).is_empty() && !text(stream).ends_with('\n') {
                        shown.push('\n');
                    }
                }
                let shown = self.secrets.mask(&shown);
                if self.to_errors {
                    self.printer.note(&shown);
                } else {
                    self.printer.text(&shown);
                }
                if let Some(error) = task.error.as_ref().filter(|_| !task.output.get("code").is_some_and(Value::is_number)) {
                    self.error(error);
                }
            }
            Event::HostUnreachable { error, .. } | Event::HostFailed { error, .. } => self.error(error),
            Event::Message { level: Level::Warning, text, .. } => self.printer.warning(&self.secrets.mask(text)),
            _ => {}
        }
    }
}

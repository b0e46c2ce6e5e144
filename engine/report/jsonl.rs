//! Events as JSON Lines: one object an event, the last one always the recap.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::diff::{Lookup, diff};
use super::event::{Event, Level, Recap, Reporter, TaskFinished};
use super::summary::summary;
use crate::diagnostic::{Diagnostic, Place};
use crate::secrets::Secrets;
use kplay_modules::agent::wire::ChangeReport;
use kplay_modules::api::error::plain as reason;

/// Writes one line of JSON an event.
pub struct JsonLines<W> {
    output: W,
    secrets: Secrets,
    diff: Option<Lookup>,
    /// Why nothing can be written any more.
    broken: Option<std::io::Error>,
}

impl<W: Write + Send> JsonLines<W> {
    /// Creates a report that goes to `output`; with `diff`, changes carry what they do to contents.
    pub fn new(output: W, secrets: Secrets, diff: Option<Lookup>) -> Self {
        Self { output, secrets, diff, broken: None }
    }

    fn write(&mut self, plain: &Value) {
        if self.broken.is_some() {
            return;
        }
        let mut value = plain.clone();
        self.secrets.mask_value(&mut value);
        keep_words(plain, &mut value);
        let mut line = value.to_string();
        line.push('\n');
        // Flushed at once: who follows the file sees what happens, and a run that is killed leaves whole lines.
        self.broken = self.output.write_all(line.as_bytes()).and_then(|()| self.output.flush()).err();
    }

    /// Writes the line before the last, and returns the last.
    fn end(&mut self, recap: &Recap) -> Value {
        self.write(&json!({
            "event": "end",
            "run": recap.run,
            "check": recap.check,
            "interrupted": recap.interrupted,
            "ms": recap.millis,
        }));
        json!({ "event": "recap", "hosts": recap.hosts })
    }

    fn task(&self, task: &TaskFinished) -> Value {
        json!({
            "event": "task",
            "host": task.host,
            "play": task.play,
            "number": task.number,
            "task": task.task,
            "module": task.module,
            "role": task.role,
            "place": place(&task.place),
            "status": task.status,
            "certainty": task.certainty,
            "because": task.because,
            "changes": task.changes.iter().map(|report| self.change(report, task.sensitive)).collect::<Vec<_>>(),
            "error": task.error.as_deref().map(error),
            "ignored": task.ignored,
            "output": if task.sensitive { Value::Null } else { Value::Object(task.output.clone()) },
            "ms": task.micros / 1000,
        })
    }

    fn change(&self, report: &ChangeReport, sensitive: bool) -> Value {
        let summary = summary(&report.change, &self.secrets);
        let mut entry = Map::new();
        entry.insert("kind".to_owned(), summary.kind.into());
        entry.insert(summary.subject.0.to_owned(), summary.subject.1.into());
        entry.insert("action".to_owned(), summary.action.into());
        entry.insert("summary".to_owned(), summary.text.into());
        if let Some(lookup) = self.diff.as_ref().filter(|_| !sensitive) {
            let lines: Vec<_> = diff(report, lookup).into_iter().map(|line| line.text).collect();
            if !lines.is_empty() {
                entry.insert("diff".to_owned(), lines.into());
            }
        }
        Value::Object(entry)
    }
}

impl<W: Write + Send> Reporter for JsonLines<W> {
    fn report(&mut self, event: &Event) {
        let value = match event {
            Event::RunStarted { run, playbook, check, hosts } => {
                json!({ "event": "run", "run": run, "playbook": playbook, "check": check, "hosts": hosts })
            }
            Event::PlayStarted { play, hosts } => json!({ "event": "play", "play": play, "hosts": hosts }),
            Event::BatchStarted { batch, of, hosts } => json!({ "event": "batch", "batch": batch, "of": of, "hosts": hosts }),
            Event::HostConnected { host, millis, agent_sent } => {
                json!({ "event": "connected", "host": host, "ms": millis, "agent_sent": agent_sent })
            }
            Event::RequestSent { host, tasks } => json!({ "event": "request", "host": host, "tasks": tasks }),
            Event::HostUnreachable { host, error: why } => json!({ "event": "unreachable", "host": host, "error": error(why) }),
            Event::TaskStarted { host, task } => json!({ "event": "started", "host": host, "task": task }),
            Event::TaskFinished(task) => self.task(task),
            Event::HostFailed { host, error: why } => json!({ "event": "failed", "host": host, "error": error(why) }),
            Event::UndoStarted { host, failed } => json!({ "event": "undo", "host": host, "failed": failed }),
            Event::UndoEnded { host, failed, complete } => {
                json!({ "event": "undone", "host": host, "failed": failed, "complete": complete })
            }
            Event::ForecastEnded { host, error: why } => json!({ "event": "forecast_ended", "host": host, "error": error(why) }),
            Event::Message { host, level, text } => {
                let level = match level {
                    Level::Debug => "debug",
                    Level::Info => "info",
                    Level::Warning => "warning",
                };
                json!({ "event": "message", "host": host, "level": level, "text": text })
            }
            Event::PlayAborted { play, reason } => json!({ "event": "aborted", "play": play, "reason": reason }),
            Event::Refused { run, check, errors } => {
                for why in errors {
                    self.write(&json!({ "event": "refused", "host": why.host, "error": error(why) }));
                }
                self.end(&Recap { run: run.clone(), check: *check, ..Recap::default() })
            }
            Event::Recap(recap) => self.end(recap),
        };
        self.write(&value);
    }

    fn failure(&self) -> Option<Box<Diagnostic>> {
        // Whoever read this may have gone; the run goes on.
        let broken = self.broken.as_ref().filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe)?;
        Some(Diagnostic::user(format!("cannot write events: {}", reason(broken))))
    }
}

/// Puts kplay's own words back, which a secret may happen to be equal to.
fn keep_words(plain: &Value, masked: &mut Value) {
    for word in ["event", "status", "certainty", "level", "kind", "action"] {
        if let (Some(plain), Some(masked)) = (plain.get(word), masked.get_mut(word)) {
            masked.clone_from(plain);
        }
    }
    if let (Some(Value::Array(plain)), Some(Value::Array(masked))) = (plain.get("changes"), masked.get_mut("changes")) {
        plain.iter().zip(masked).for_each(|(plain, masked)| keep_words(plain, masked));
    }
}

fn place(place: &Place) -> Value {
    json!({ "file": place.file, "line": place.line })
}

fn error(diagnostic: &Diagnostic) -> Value {
    json!({
        "message": diagnostic.message,
        "place": diagnostic.place.as_ref().map(place),
        "chain": diagnostic.chain.iter().map(place).collect::<Vec<_>>(),
        "details": diagnostic.details,
        "hints": diagnostic.hints,
    })
}

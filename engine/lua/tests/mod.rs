//! Playbooks as their authors meet them: what is planned, in which order, and what is said about mistakes.

mod errors;
mod flow;
mod many;
mod roles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kplay_modules::api::fake::Fake;
use kplay_modules::api::{Checksum, Digest, Facts, Inspect as _, ModuleError};
use serde_json::{Value, json};

use super::{Options, Program};
use crate::blobs::Blobs;
use crate::controller::Services;
use crate::diagnostic::{self, Diagnostic, Result};
use crate::inventory::{Decrypt, Inventory, Sources};
use crate::outputs::Output;
use crate::plan::{PlannedTask, Planner, Step, TaskResult};
use crate::secrets::Secrets;

/// A folder with a playbook and whatever belongs to it.
pub(crate) struct Book {
    folder: tempfile::TempDir,
    inventory: String,
    pub options: Options,
    extra: crate::inventory::Variables,
}

struct NothingEncrypted;

impl Decrypt for NothingEncrypted {
    fn decrypt(&self, file: &Path, _: &[u8]) -> Result<Vec<u8>> {
        Err(Diagnostic::user(format!("`{}` is encrypted", file.display())))
    }
}

/// A controller without authorities and downloads.
struct NoServices;

impl Services for NoServices {
    fn authority(&self, folder: &Path) -> std::result::Result<Option<String>, ModuleError> {
        Err(ModuleError::argument(format!("there is no authority in `{}`", folder.display())))
    }

    fn download(&self, url: &str, _: &Checksum, _: Option<&Path>, _: u64) -> std::result::Result<PathBuf, ModuleError> {
        Err(ModuleError::argument(format!("`{url}` cannot be had")))
    }
}

impl Book {
    /// Creates a book whose playbook is `text`, with hosts `a` and `b`.
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let book = Self { folder, inventory: String::new(), options: Options::default(), extra: BTreeMap::new() };
        book.file("play.lua", text).inventory("all:\n  hosts:\n    a:\n    b:\n")
    }

    /// Creates a book of one play for all hosts whose `run` function is `body`.
    pub fn run(body: &str) -> Self {
        Self::new(&format!("play {{ hosts = \"all\", run = function(host)\n{body}\nend }}\n"))
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub fn inventory(mut self, yaml: &str) -> Self {
        self = self.file("hosts.yaml", yaml);
        self.inventory = self.folder.path().join("hosts.yaml").to_string_lossy().into_owned();
        self
    }

    /// Gives a variable as `-e` does.
    pub fn extra(mut self, name: &str, value: Value) -> Self {
        let file: Arc<Path> = Path::new("-e").into();
        self.extra.insert(name.to_owned(), crate::inventory::Variable { value, literal: true, secret: false, file, line: 0 });
        self
    }

    pub fn load(&self) -> Result<Program> {
        self.load_with(Arc::default(), Box::new(NoServices), &Secrets::default())
    }

    pub fn load_with(&self, blobs: Arc<Blobs>, services: Box<dyn Services>, secrets: &Secrets) -> Result<Program> {
        let sources = Sources {
            inventories: std::slice::from_ref(&self.inventory),
            playbook_folder: None,
            extra: &self.extra,
            timeout: Duration::from_secs(5),
            decrypt: &NothingEncrypted,
        };
        let inventory = Inventory::load(&sources)?;
        let playbook = self.folder.path().join("play.lua");
        Program::load(&playbook, self.options.clone(), &inventory, blobs, services, secrets)
    }

    /// Goes through all plays; `answer` says how each task ends. Returns what happened, a line each.
    pub fn play(&self, answer: impl FnMut(&PlannedTask) -> TaskResult) -> Vec<String> {
        match self.load() {
            Ok(mut program) => Stage { log: Vec::new(), answer }.perform(&mut program),
            Err(error) => vec![self.shown(&error)],
        }
    }

    /// Goes through all plays; every task changes something.
    pub fn log(&self) -> Vec<String> {
        self.play(|_| changed())
    }

    /// Returns the first error, as the operator sees it, without the name of the folder.
    pub fn error(&self) -> String {
        let mut program = match self.load() {
            Ok(program) => program,
            Err(error) => return self.shown(&error),
        };
        let mut errors = Vec::new();
        Stage { log: Vec::new(), answer: |_: &PlannedTask| changed() }.perform_with(&mut program, &mut |error| errors.push(error.clone()));
        errors.first().map_or_else(|| "no error".to_owned(), |error| self.shown(error))
    }

    pub fn shown(&self, error: &Diagnostic) -> String {
        let folder = self.folder.path();
        let above = folder.parent().unwrap();
        diagnostic::render(error, false).replace(&format!("{}/", folder.display()), "").replace(&format!("{}/", above.display()), "../")
    }
}

pub(super) fn changed() -> TaskResult {
    TaskResult::Done { changed: true, skipped: false, output: Output::default() }
}

pub(super) fn unchanged() -> TaskResult {
    TaskResult::Done { changed: false, skipped: false, output: Output::default() }
}

pub(super) fn output(fields: &Value) -> TaskResult {
    TaskResult::Done { changed: true, skipped: false, output: fields.as_object().cloned().unwrap().into() }
}

pub(super) fn failed(message: &str) -> TaskResult {
    TaskResult::Failed { error: Diagnostic::host(message), ignored: false, output: Output::default() }
}

/// The least scheduler that keeps the rules: all hosts planned first, queues sent whole, a host resumed when it is ready.
pub(crate) struct Stage<A> {
    pub log: Vec<String>,
    pub answer: A,
}

impl<A: FnMut(&PlannedTask) -> TaskResult> Stage<A> {
    fn perform(mut self, program: &mut Program) -> Vec<String> {
        let mut ends = Vec::new();
        self.perform_with(program, &mut |error| ends.push(error.message.clone()));
        self.log
    }

    pub fn perform_with(&mut self, program: &mut Program, failed: &mut dyn FnMut(&Diagnostic)) {
        for play in 0..program.plays().len() {
            for batch in program.plays()[play].batches() {
                for host in &batch {
                    program.begin(play, *host).unwrap();
                }
                let mut steps: BTreeMap<usize, Step> = BTreeMap::new();
                for host in &batch {
                    let step = program.resume(*host);
                    self.note(program, *host, &step, failed);
                    steps.insert(*host, step);
                }
                while !steps.is_empty() {
                    self.advance(program, &mut steps, failed);
                }
            }
        }
    }

    fn advance(&mut self, program: &mut Program, steps: &mut BTreeMap<usize, Step>, failed: &mut dyn FnMut(&Diagnostic)) {
        let over = |step: &Step| matches!(step, Step::Ended | Step::Failed(_) | Step::ForecastEnded(_));
        steps.retain(|_, step| !over(step));
        for host in program.queued() {
            let tasks = program.take_queue(host).unwrap();
            let names: Vec<_> = tasks.iter().map(described).collect();
            if !names.is_empty() {
                self.log.push(format!("{}: {}", program.host_name(host), names.join(", ")));
            }
            let mut stopped = Vec::new();
            for task in tasks {
                if stopped.contains(&task.requested_by) || task.skipped.is_some() {
                    continue;
                }
                let result = (self.answer)(&task);
                if matches!(result, TaskResult::Failed { ignored: false, .. }) {
                    stopped.push(task.requested_by);
                }
                program.finish_task(task.wire.id, result);
            }
        }
        let all_at_barrier = steps.values().all(|step| matches!(step, Step::Barrier { .. }));
        let mut moved = false;
        for host in steps.keys().copied().collect::<Vec<_>>() {
            let goes = match &steps[&host] {
                Step::Barrier { .. } => all_at_barrier,
                Step::NeedsFacts { host } | Step::Gather { host } => {
                    program.set_facts(*host, Facts { hostname: format!("host{host}"), ..Fake::new().facts().clone() });
                    true
                }
                _ => program.ready(host),
            };
            if goes {
                moved = true;
                let step = program.resume(host);
                self.note(program, host, &step, failed);
                steps.insert(host, step);
            }
        }
        assert!(moved || steps.is_empty(), "nothing moves any more: {steps:?}, after {:?}", self.log);
    }

    fn note(&mut self, program: &mut Program, host: usize, step: &Step, failed: &mut dyn FnMut(&Diagnostic)) {
        for message in program.take_messages() {
            self.log.push(format!("say: {}", message.text));
        }
        let name = program.host_name(host);
        match step {
            Step::Failed(error) => {
                failed(error);
                self.log.push(format!("{name} failed: {}", error.message));
            }
            Step::ForecastEnded(error) => {
                failed(error);
                self.log.push(format!("{name} forecast ended: {}", error.message));
            }
            Step::Barrier { name: barrier } => self.log.push(format!("{name} at {barrier}")),
            _ => {}
        }
    }
}

fn described(task: &PlannedTask) -> String {
    let skipped = task.skipped.as_ref().map(|because| format!(" (skipped: {because})")).unwrap_or_default();
    format!("{}{skipped}", task.wire.name)
}

/// Returns the arguments of the only task that a playbook plans for host `a`.
pub(super) fn only_task(book: &Book) -> PlannedTask {
    let mut seen = Vec::new();
    let log = book.play(|task| {
        seen.push(task.clone());
        changed()
    });
    assert!(!seen.is_empty(), "{log:?}");
    seen.swap_remove(0)
}

/// Returns the arguments as data.
pub(super) fn arguments(task: &PlannedTask) -> Value {
    serde_json::from_str(&task.wire.arguments).unwrap_or(json!(null))
}

//! The journal of a run on its host: what would bring back what each change replaced, written before the change is made.
//!
//! ```text
//! STATE/                0700
//!   lock                held while a run changes the host; says who holds it (`journal/lock.rs`)
//!   records/…           what the agent recorded for later checks (`machine/records.rs`)
//!   runs/RUN/
//!     meta.json         who, when, finished, undone
//!     journal           one JSON line an event: a change intended with its inverse, done, failed, taken back
//!     content/DIGEST    what was replaced, by SHA-256
//! ```
//!
//! Lines are appended by one `write` each, so that they survive the death of the agent; [`Journal::flush`] makes them survive
//! the loss of power. A line that a crash tore is ignored, with everything after it. The newest [`KEPT`] runs are kept.
//!
//! Inverses name old content by digest. Performing them needs an [`Upstream`], which [`Kept`] is: it reads `content/`.
#![expect(clippy::disallowed_methods, reason = "the journal is files")]

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::change::{Change, UnitAction, WriteFile};
use super::error::ModuleError;
use super::machine::{private_folder, put};
use super::perform::{Irreversible, Upstream};
use super::types::{Blob, Content, Digest};
use crate::agent::wire::RunEntry;

mod lock;
pub use lock::{Farewell, await_orphan};

/// How many runs are kept on a host.
pub const KEPT: usize = 20;

/// The journal of the run that is changing this host. While it lives, no other run may.
#[derive(Debug)]
pub struct Journal {
    state: PathBuf,
    folder: PathBuf,
    file: File,
    meta: Meta,
    entries: u32,
    /// Contents that have to reach the disk with the next flush.
    unsynced: Vec<PathBuf>,
    /// Held until the journal is dropped.
    _lock: File,
}

/// A change in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a change that is not reported as done is taken for one that a crash interrupted"]
pub struct Intended(u32);

/// One step of an undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Number of the task that made the change, within its run.
    pub task: u32,
    /// That task's name.
    pub name: String,
    /// What it did. Contents are left out: an inline content is given by its digest.
    pub change: Change,
    /// What brings back the state before, in this order, or why that cannot be.
    pub inverse: Result<Vec<Change>, Irreversible>,
    /// The changes of the journal that it takes back.
    entries: Vec<u32>,
}

/// `meta.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    run: String,
    by: String,
    started: i64,
    #[serde(default)]
    finished: bool,
    #[serde(default)]
    undone: bool,
}

/// A line of `journal`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Intended { entry: u32, task: u32, name: String, change: Box<Change>, inverse: Result<Vec<Change>, String> },
    Done(u32),
    Failed(u32),
    Undone(u32),
}

impl Journal {
    /// Opens the journal of `run` and takes the host's lock. Fails with who holds it since when, if another run is under way.
    pub fn begin(state: &Path, run: &str, by: &str) -> Result<Self, ModuleError> {
        private_folder(state)?;
        let started = super::machine::now();
        let lock = lock::take(state, run, by)?;
        let folder = folder_of(state, run)?;
        private_folder(&folder.join("content"))?;
        // A run may come to the same host more than once, for instance as another user's agent.
        let meta = read_meta(&folder).unwrap_or(Meta { run: run.to_owned(), by: by.to_owned(), started, finished: false, undone: false });
        let meta = Meta { finished: false, undone: false, ..meta };
        write_meta(&folder, &meta)?;
        let path = folder.join("journal");
        let entries = read_lines(&path).iter().filter(|line| matches!(line, Line::Intended { .. })).count() as u32;
        let file = open_whole(&path).map_err(|error| ModuleError::io("write", &path, &error))?;
        Ok(Self { state: state.to_owned(), folder, file, meta, entries, unsynced: Vec::new(), _lock: lock })
    }

    /// Returns what says in the lock that this run's controller is gone.
    pub fn farewell(&self) -> Farewell {
        Farewell::new(&self.state)
    }

    /// Writes down a change that is about to be performed, with what would undo it.
    pub fn intend(
        &mut self,
        task: u32,
        name: &str,
        change: &Change,
        inverse: Result<Vec<Change>, Irreversible>,
    ) -> Result<Intended, ModuleError> {
        let entry = self.entries;
        let contents = inverse.iter().flatten().filter_map(|change| match change {
            Change::WriteFile(WriteFile { content: Content::Blob(blob), .. }) => Some(content_path(&self.folder, &blob.digest)),
            _ => None,
        });
        self.unsynced.extend(contents);
        let inverse = inverse.map_err(|irreversible| irreversible.0);
        self.append(&Line::Intended { entry, task, name: name.to_owned(), change: Box::new(without_content(change)), inverse })?;
        self.entries += 1;
        Ok(Intended(entry))
    }

    /// Writes down that a change has been performed.
    pub fn done(&mut self, intended: Intended) -> Result<(), ModuleError> {
        self.append(&Line::Done(intended.0))
    }

    /// Writes down that a change was not performed: it failed, or one before it did.
    pub fn failed(&mut self, intended: Intended) -> Result<(), ModuleError> {
        self.append(&Line::Failed(intended.0))
    }

    /// Writes down that a change has been taken back: nothing of it is left for an undo.
    pub fn taken_back(&mut self, intended: Intended) -> Result<(), ModuleError> {
        self.append(&Line::Undone(intended.0))
    }

    /// Writes down that what a step undoes has been taken back.
    pub fn step_taken_back(&mut self, step: &Step) -> Result<(), ModuleError> {
        step.entries.iter().try_for_each(|entry| self.append(&Line::Undone(*entry)))
    }

    /// Returns what undoing some tasks of this very run means, newest change first.
    pub fn plan_of(&self, tasks: &[u32]) -> Vec<Step> {
        let mut lines = read_lines(&self.folder.join("journal"));
        lines.retain(|line| !matches!(line, Line::Intended { task, .. } if !tasks.contains(task)));
        plan(lines)
    }

    /// Makes what was written survive a loss of power. Costs some milliseconds: once a group of changes is enough.
    pub fn flush(&mut self) -> Result<(), ModuleError> {
        for path in std::mem::take(&mut self.unsynced) {
            // Old content that is a further name of the replaced file lies on disk already, or is about to.
            File::open(&path).and_then(|file| file.sync_data()).map_err(|error| ModuleError::io("write to disk", &path, &error))?;
        }
        self.file.sync_data().map_err(|error| ModuleError::io("write to disk", &self.folder.join("journal"), &error))
    }

    /// Marks the run as finished on this host, forgets the oldest runs, and gives the lock back.
    pub fn finish(mut self) -> Result<(), ModuleError> {
        self.flush()?;
        self.meta.finished = true;
        write_meta(&self.folder, &self.meta)?;
        prune(&self.state, &self.meta.run);
        Ok(())
    }

    /// Returns the runs that this host remembers, newest first. Runs that changed nothing are left out.
    pub fn list(state: &Path) -> Vec<RunEntry> {
        let names = std::fs::read_dir(state.join("runs")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut runs: Vec<RunEntry> = names
            .filter_map(|folder| {
                let meta = read_meta(&folder)?;
                let lines = read_lines(&folder.join("journal"));
                let undone: HashSet<_> =
                    lines.iter().filter_map(|line| if let Line::Undone(entry) = line { Some(entry) } else { None }).collect();
                let changes = lines.iter().filter(|line| matches!(line, Line::Done(entry) if !undone.contains(entry))).count() as u32;
                Some(RunEntry { run: meta.run, by: meta.by, started: meta.started, changes, finished: meta.finished, undone: meta.undone })
            })
            .filter(|run| run.changes > 0 || !run.finished)
            .collect();
        runs.sort_by(|a, b| (b.started, &b.run).cmp(&(a.started, &a.run)));
        runs
    }

    /// Returns what undoing a run means, newest change first.
    ///
    /// What makes systemd look at files again comes last, once the files are back: its unit files are read again, then units
    /// are started, restarted and reloaded. Changes that a crash may have interrupted are undone as if they had been made,
    /// which does no harm where they had not.
    pub fn undo_plan(state: &Path, run: &str) -> Result<Vec<Step>, ModuleError> {
        let folder = folder_of(state, run)?;
        let Some(meta) = read_meta(&folder) else {
            let known: Vec<String> = Self::list(state).into_iter().map(|entry| entry.run).take(5).collect();
            let hint = if known.is_empty() { "it knows of none".to_owned() } else { format!("it knows of {}", known.join(", ")) };
            return Err(ModuleError::host(format!("this host knows of no run `{run}`")).hint(hint));
        };
        if meta.undone {
            return Err(ModuleError::host(format!("the run `{run}` has been undone on this host already")));
        }
        Ok(plan(read_lines(&folder.join("journal"))))
    }

    /// Marks a run as undone.
    pub fn mark_undone(state: &Path, run: &str) -> Result<(), ModuleError> {
        let folder = folder_of(state, run)?;
        match read_meta(&folder) {
            Some(meta) => write_meta(&folder, &Meta { undone: true, ..meta }),
            None => Err(ModuleError::host(format!("this host knows of no run `{run}`"))),
        }
    }

    fn append(&mut self, line: &Line) -> Result<(), ModuleError> {
        let path = || self.folder.join("journal");
        let mut bytes =
            serde_json::to_vec(line).map_err(|error| ModuleError::host(format!("cannot write `{}`: {error}", path().display())))?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(|error| ModuleError::io("write", &path(), &error))
    }
}

/// The contents that a run replaced, as a source for performing its undo.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Creates the source of a run's replaced contents.
    pub fn of(state: &Path, run: &str) -> Result<Self, ModuleError> {
        Ok(Self { folder: folder_of(state, run)? })
    }
}

impl Upstream for Kept {
    fn blob(&mut self, blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        let path = content_path(&self.folder, &blob.digest);
        let file = File::open(&path).map_err(|error| ModuleError::io("read the kept content", &path, &error))?;
        Ok(Box::new(file))
    }

    fn sign(&mut self, _request: &[u8]) -> Result<String, ModuleError> {
        Err(ModuleError::host("an undo issues no certificates"))
    }

    fn deliver(&mut self, _content: &mut dyn Read) -> Result<(), ModuleError> {
        Err(ModuleError::host("an undo fetches no files"))
    }
}

/// Returns where a run keeps a replaced content.
pub(super) fn content_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("content").join(digest.hex())
}

/// Returns the folder of a run. Its name comes from the controller, and must not lead elsewhere.
pub(super) fn folder_of(state: &Path, run: &str) -> Result<PathBuf, ModuleError> {
    let plain = run.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if run.is_empty() || run.len() > 100 || !plain {
        return Err(ModuleError::argument(format!("`{run}` is not the name of a run")));
    }
    Ok(state.join("runs").join(run))
}

fn read_meta(folder: &Path) -> Option<Meta> {
    serde_json::from_slice(&std::fs::read(folder.join("meta.json")).ok()?).ok()
}

fn write_meta(folder: &Path, meta: &Meta) -> Result<(), ModuleError> {
    let path = folder.join("meta.json");
    let bytes = serde_json::to_vec(meta).map_err(|error| ModuleError::host(format!("cannot write `{}`: {error}", path.display())))?;
    put(&path, &bytes)
}

/// Opens a journal for appending, and cuts off what a crash tore: nothing must be appended to half a line.
fn open_whole(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mut whole = 0;
    let mut reader = BufReader::new(&file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        whole += line.len() as u64;
        line.clear();
    }
    file.set_len(whole)?;
    file.seek(std::io::SeekFrom::End(0))?;
    Ok(file)
}

/// Reads a journal up to its end or to the first line that is torn.
fn read_lines(path: &Path) -> Vec<Line> {
    let Ok(bytes) = std::fs::read(path) else { return Vec::new() };
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    whole.map_while(|line| serde_json::from_slice(line).ok()).collect()
}

fn plan(lines: Vec<Line>) -> Vec<Step> {
    let (mut failed, mut undone) = (HashSet::new(), HashSet::new());
    for line in &lines {
        match line {
            Line::Failed(entry) => failed.insert(*entry),
            Line::Undone(entry) => undone.insert(*entry),
            Line::Intended { .. } | Line::Done(_) => false,
        };
    }
    let steps = lines.into_iter().rev().filter_map(|line| match line {
        Line::Intended { entry, task, name, change, inverse } => {
            // A unit that did not come up is not as it was before: it may be dead, or try again and again.
            let left = !failed.contains(&entry) || matches!(*change, Change::Unit { .. });
            let step = || Step { task, name, change: *change, inverse: inverse.map_err(Irreversible), entries: vec![entry] };
            (left && !undone.contains(&entry)).then(step)
        }
        _ => None,
    });
    let mut at_once = Vec::new();
    let mut reloads = Vec::new();
    let mut starts = Vec::new();
    for step in steps {
        let list = match step.inverse.as_deref() {
            Ok([Change::ReloadDaemon { .. }]) => &mut reloads,
            Ok([Change::Unit { action: UnitAction::Start | UnitAction::Restart | UnitAction::Reload, .. }]) => &mut starts,
            _ => {
                at_once.push(step);
                continue;
            }
        };
        // Once is enough, however often the run did it.
        match list.iter_mut().find(|other: &&mut Step| same_action(other, &step)) {
            Some(other) => other.entries.extend(step.entries),
            None => list.push(step),
        }
    }
    at_once.extend(reloads);
    at_once.extend(starts);
    at_once
}

fn same_action(one: &Step, other: &Step) -> bool {
    let key = |step: &Step| match step.inverse.as_deref() {
        Ok([Change::Unit { unit, action, .. }]) => Some((unit.clone(), Some(*action))),
        Ok([Change::ReloadDaemon { .. }]) => Some((String::new(), None)),
        _ => None,
    };
    key(one).is_some() && key(one) == key(other)
}

/// A journal line says what was done, not with which bytes.
fn without_content(change: &Change) -> Change {
    match change {
        Change::WriteFile(write) => {
            let blob = Blob { digest: write.content.digest(), size: write.content.size(), secret: write.secret };
            Change::WriteFile(WriteFile { content: Content::Blob(blob), ..write.clone() })
        }
        other => other.clone(),
    }
}

/// Forgets the oldest runs.
fn prune(state: &Path, current: &str) {
    let folders = std::fs::read_dir(state.join("runs")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut runs: Vec<(i64, PathBuf)> = folders
        .filter(|folder| folder.file_name().is_some_and(|name| name != current))
        .map(|folder| (read_meta(&folder).map_or(0, |meta| meta.started), folder))
        .collect();
    runs.sort();
    let surplus = (runs.len() + 1).saturating_sub(KEPT);
    for (_, folder) in runs.into_iter().take(surplus) {
        // What cannot be removed now will be asked for again.
        let _ = std::fs::remove_dir_all(folder);
    }
}

#[cfg(test)]
mod tests;

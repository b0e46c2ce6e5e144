//! Folding: what each kind of change does to a forecast.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::clouds::Over;
use super::files::{Node, Present, Text};
use super::{Certainty, Forecast, Sureness};
use crate::api::change::{Change, Footprint, MemberKind, Packages, Recorded, Run};
use crate::api::error::ModuleError;
use crate::api::types::{Attributes, Digest, Entry, EntryKind};
use crate::api::units::{UnitPath, unit_of};

/// Under which condition a change would come about.
pub(super) struct Folded {
    pub(super) assumed: Option<Rc<str>>,
}

impl Folded {
    /// Returns the condition, or `because` where there is none.
    pub(super) fn assuming(&self, because: &str) -> Self {
        Self { assumed: self.assumed.clone().or_else(|| Some(because.into())) }
    }
}

impl Forecast<'_> {
    /// Takes in a change as if it had been performed. `sureness` is that of the check that proposed it; what an unsure task
    /// leaves behind stays as unsure. `task` names the task in reasons.
    ///
    /// # Errors
    /// When the base cannot be read, or what the change leads to cannot be known: then a cloud lies over it.
    pub fn fold(&mut self, change: &Change, sureness: &Sureness, task: &str) -> Result<(), ModuleError> {
        self.folds += 1;
        self.changed_by = Some(format!("task `{task}` would have changed the host"));
        let assumed = (sureness.certainty != Certainty::Exact).then(|| sureness.because.as_str().into());
        let was_silent = self.silent.replace(true);
        let result = self.fold_in(change, &Folded { assumed }, task);
        self.silent.set(was_silent);
        if let Err(error) = &result {
            for footprint in touched(change) {
                self.cloud(&footprint, &error.message);
            }
        }
        if sureness.certainty == Certainty::Unknown {
            for footprint in touched(change) {
                self.cloud(&footprint, &sureness.because);
            }
        }
        result
    }

    fn fold_in(&mut self, change: &Change, folded: &Folded, task: &str) -> Result<(), ModuleError> {
        match change {
            Change::WriteFile(write) => {
                self.put_file(&write.path, Text::Known(write.content.clone()), write.content.size(), &write.attributes, folded);
            }
            Change::SetAttributes { path, after, .. } => self.alter(path, folded, |entry| entry.attributes = after.clone())?,
            Change::MakeDirectory { path, attributes } => self.make_directory(path, attributes, folded),
            Change::Symlink { path, target, .. } => self.put_link(path, target, folded),
            Change::Remove { path, .. } => self.remove(path, folded),
            Change::Touch { path } => {
                let now = self.clock();
                self.alter(path, folded, |entry| entry.mtime = now)?;
                self.note_unit_file(path);
            }
            Change::Unpack(unpack) => {
                for member in &unpack.members {
                    let path = unpack.dest.join(&member.path);
                    match &member.kind {
                        MemberKind::Directory => match self.find(&path, false)?.what {
                            Some(present) if present.entry.kind == EntryKind::Directory => {
                                self.alter(&path, folded, |entry| entry.attributes = member.attributes.clone())?;
                            }
                            _ => self.make_directory(&path, &member.attributes, folded),
                        },
                        MemberKind::Symlink(target) => {
                            self.put_link(&path, target, folded);
                            self.alter(&path, folded, |entry| entry.attributes = member.attributes.clone())?;
                        }
                        MemberKind::File(digest, size) => self.put_file(&path, Text::Digest(*digest), *size, &member.attributes, folded),
                    }
                }
            }
            Change::Download(download) => {
                self.put_file(&download.path, Text::Digest(download.digest), 0, &download.attributes, folded);
            }
            Change::Fetch { .. } => {}
            Change::Unit { unit, action, record, .. } => {
                self.stirred.get_or_insert_with(|| format!("`systemctl {} {unit}` would have run", action.verb()));
                self.fold_unit(unit, *action, record.as_ref(), folded)?;
            }
            Change::ReloadDaemon { .. } => self.fold_daemon_reload()?,
            Change::SetKernelParameter { key, after, .. } => {
                self.parameters.insert(key.clone(), (after.split_whitespace().collect::<Vec<_>>().join("\t"), self.folds));
            }
            Change::Packages(packages) => self.fold_packages(packages),
            Change::User { name, after, remove_home, .. } => self.fold_user(name, after.as_ref(), *remove_home, folded)?,
            Change::Group { name, after, .. } => self.fold_group(name, after.as_ref())?,
            Change::IssueCertificate(issue) => {
                let new =
                    |path: &Path| Text::New { stand_in: Digest::of(format!("{task} {}", path.display()).as_bytes()), recorded: false };
                self.put_file(&issue.certificate, new(&issue.certificate), 0, &issue.certificate_attributes, folded);
                if issue.new_key {
                    self.put_file(&issue.key, new(&issue.key), 0, &issue.key_attributes, folded);
                }
            }
            Change::Run(run) => self.fold_run(run)?,
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, what: Option<Present>, folded: &Folded) {
        if what.is_some() {
            self.supply_parents(path);
        }
        let place = self.settle(path);
        self.nodes.insert(place.clone(), Node { what, at: self.folds, assumed: folded.assumed.clone() });
        self.note_unit_file(&place);
    }

    /// Makes the folders that have to be there when something is put into them: they come with a package or command.
    fn supply_parents(&mut self, path: &Path) {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .skip(1)
            .take_while(|parent| self.find(parent, true).is_ok_and(|found| found.what.is_none()))
            .map(Path::to_owned)
            .collect();
        for folder in missing.into_iter().rev() {
            let because = format!("`{}` is expected to come along", folder.display());
            let attributes = Attributes { mode: 0o755, owner: crate::api::Owner::Id(0), group: crate::api::Owner::Id(0) };
            let now = self.clock();
            let entry = Entry { kind: EntryKind::Directory, attributes, size: 0, mtime: now, ctime: now };
            let node = Node { what: Some(Present { entry, text: Text::None }), at: self.folds, assumed: Some(because.into()) };
            self.nodes.insert(self.settle(&folder), node);
        }
    }

    fn put_file(&mut self, path: &Path, text: Text, size: u64, attributes: &Attributes, folded: &Folded) {
        let now = self.clock();
        let entry = Entry { kind: EntryKind::File, attributes: attributes.clone(), size, mtime: now, ctime: now };
        self.put(path, Some(Present { entry, text }), folded);
    }

    fn put_link(&mut self, path: &Path, target: &Path, folded: &Folded) {
        let now = self.clock();
        let attributes = Attributes { mode: 0o777, owner: crate::api::Owner::Id(0), group: crate::api::Owner::Id(0) };
        let entry = Entry { kind: EntryKind::Symlink(target.to_owned()), attributes, size: 0, mtime: now, ctime: now };
        self.put(path, Some(Present { entry, text: Text::None }), folded);
    }

    pub(super) fn make_directory(&mut self, path: &Path, attributes: &Attributes, folded: &Folded) {
        let now = self.clock();
        let entry = Entry { kind: EntryKind::Directory, attributes: attributes.clone(), size: 0, mtime: now, ctime: now };
        self.put(path, Some(Present { entry, text: Text::None }), folded);
    }

    /// Changes what is known of an entry and leaves its content.
    fn alter(&mut self, path: &Path, folded: &Folded, change: impl FnOnce(&mut Entry)) -> Result<(), ModuleError> {
        let place = self.settle(path);
        let (what, _) = self.present(&place)?;
        let Some(mut present) = what else { return Ok(()) };
        present.entry.ctime = self.clock();
        change(&mut present.entry);
        self.nodes.insert(place, Node { what: Some(present), at: self.folds, assumed: folded.assumed.clone() });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, folded: &Folded) {
        let place = self.settle(path);
        self.nodes.retain(|known, _| !known.starts_with(&place));
        self.hidden.insert(place);
        self.put(path, None, folded);
    }

    /// Remembers that a unit's file differs from what systemd has read.
    fn note_unit_file(&mut self, place: &Path) {
        // `/lib` is a link to `/usr/lib` on all current systems; both spellings name the same folder of units.
        if let Some(UnitPath::Fragment(unit) | UnitPath::DropIn(unit)) = unit_of(place) {
            self.unread.entry(unit).or_default().insert(place.to_owned(), self.folds);
        }
    }

    /// Takes the stand-in of a file that would be made new for its digest, from now on.
    pub(super) fn put_on_record(&mut self, path: &Path) -> Result<Option<Digest>, ModuleError> {
        let place = self.find(path, true)?.place;
        Ok(match self.nodes.get_mut(&place).and_then(|node| node.what.as_mut()).map(|present| &mut present.text) {
            Some(Text::New { stand_in, recorded }) => {
                *recorded = true;
                Some(*stand_in)
            }
            _ => None,
        })
    }

    fn fold_packages(&mut self, packages: &Packages) {
        let name = |wanted: &str| wanted.split('=').next().unwrap_or(wanted).to_owned();
        for wanted in &packages.install {
            let version = wanted.split_once('=').map_or("to be installed", |(_, version)| version);
            self.packages.insert(name(wanted), Some(version.to_owned()));
        }
        for removed in &packages.remove {
            self.packages.insert(name(removed), None);
        }
        let because = match (packages.install.as_slice(), packages.remove.as_slice()) {
            ([], []) => return,
            ([], removed) => format!("{} would have been removed", listed(removed)),
            (installed, _) => format!("{} would have been installed", listed(installed)),
        };
        self.stirred.get_or_insert_with(|| because.clone());
        self.cloud_of_packages(packages, &because);
    }

    fn fold_run(&mut self, run: &Run) -> Result<(), ModuleError> {
        let because =
            if run.secret { "a command would have run".to_owned() } else { format!("command `{}` would have run", run.command.shown()) };
        self.stirred.get_or_insert_with(|| because.clone());
        if let Some(record) = &run.record {
            let digests = self.digests(record)?;
            self.records.insert(record.key.clone(), Recorded { digests, ..Recorded::default() });
        }
        if run.creates.is_none() && run.removes.is_none() {
            self.lay(Over::Anything, &because);
        }
        let folded = Folded { assumed: Some(because.as_str().into()) };
        if let Some(path) = &run.creates {
            self.create(path, &because, &folded);
        }
        if let Some(path) = &run.removes {
            self.remove(path, &folded);
        }
        Ok(())
    }

    /// Assumes that a command makes `path`, and with it the parents that are missing: what else it puts there cannot be known.
    fn create(&mut self, path: &Path, because: &str, folded: &Folded) {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|ancestor| self.find(ancestor, true).is_ok_and(|found| found.what.is_none()))
            .map(Path::to_owned)
            .collect();
        let topmost = missing.last().cloned().unwrap_or_else(|| path.to_owned());
        let place = self.settle(&topmost);
        self.lay(Over::Paths(vec![place, topmost]), because);
        for folder in missing.iter().skip(1).rev() {
            let attributes = Attributes { mode: 0o755, owner: crate::api::Owner::Id(0), group: crate::api::Owner::Id(0) };
            self.make_directory(folder, &attributes, folded);
        }
        let now = self.clock();
        let attributes = Attributes { mode: 0, owner: crate::api::Owner::Id(0), group: crate::api::Owner::Id(0) };
        let entry = Entry { kind: EntryKind::Other, attributes, size: 0, mtime: now, ctime: now };
        self.put(path, Some(Present { entry, text: Text::Unknown }), folded);
    }
}

/// Returns what a change says that it touches, for when it is not sure to happen.
fn touched(change: &Change) -> Vec<Footprint> {
    let mut touched = match change {
        Change::WriteFile(write) => vec![Footprint::Paths(vec![write.path.clone()])],
        Change::SetAttributes { path, .. }
        | Change::MakeDirectory { path, .. }
        | Change::Symlink { path, .. }
        | Change::Remove { path, .. }
        | Change::Touch { path } => vec![Footprint::Paths(vec![path.clone()])],
        Change::Unpack(unpack) => vec![Footprint::Paths(vec![unpack.dest.clone()])],
        Change::Download(download) => vec![Footprint::Paths(vec![download.path.clone()])],
        Change::Unit { unit, .. } => vec![Footprint::Units(vec![unit.clone()])],
        Change::SetKernelParameter { key, .. } => vec![Footprint::KernelParameters(vec![key.clone()])],
        Change::User { name, .. } | Change::Group { name, .. } => vec![Footprint::Accounts(vec![name.clone()])],
        Change::Fetch { .. } | Change::ReloadDaemon { .. } | Change::Packages(_) | Change::IssueCertificate(_) | Change::Run(_) => {
            Vec::new()
        }
    };
    touched.push(change.footprint());
    touched
}

/// Returns package names in words.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [one] => format!("package {one}"),
        many => format!("packages {}", many.join(", ")),
    }
}

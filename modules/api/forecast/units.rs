//! Units of a forecast: what systemd would say after unit files were written, links made, jobs run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::fold::Folded;
use super::{Certainty, Forecast};
use crate::api::change::{Record, Recorded, UnitAction};
use crate::api::error::ModuleError;
use crate::api::inspect::{Fingerprint, Unit};
use crate::api::types::EntryKind;
use crate::api::units::{UNIT_FOLDERS, UnitPath, from_text, full_name, read_settings, unit_of};
use crate::api::walk::follow;

/// Largest unit file that is read.
const LIMIT: u64 = 1 << 20;

/// A unit that a change has acted on.
pub(super) struct Foreseen {
    unit: Unit,
    /// Which fold acted on it.
    at: u64,
    /// Changes of its files up to this fold are known to systemd.
    read: u64,
    /// On which condition, when the task that acted on it was not sure itself.
    assumed: Option<Rc<str>>,
}

impl Forecast<'_> {
    pub(super) fn find_unit(&self, name: &str) -> Result<Unit, ModuleError> {
        let name = full_name(name);
        let (mut unit, at, read) = match self.units.get(&name) {
            Some(foreseen) => (foreseen.unit.clone(), foreseen.at, foreseen.read),
            None => (self.unit_of_base(&name)?, 0, 0),
        };
        let touched: Vec<&PathBuf> = names_of(&name)
            .iter()
            .filter_map(|name| self.unread.get(name))
            .flat_map(|paths| paths.iter().filter(|(_, at)| **at > read).map(|(path, _)| path))
            .collect();
        if !touched.is_empty() {
            let fragment = touched.iter().any(|path| matches!(unit_of(path), Some(UnitPath::Fragment(_))));
            unit = self.with_files(&name, unit, fragment)?;
        }
        if unit.load_state == "not-found"
            && let Some((system, because)) = self.packages_to_come()
        {
            self.lower(Certainty::Assumed, because);
            return Ok(self.brought_by_package(&name, system.starts));
        }
        self.judge_unit(&name, at);
        if let Some(because) = self.units.get(&name).and_then(|foreseen| foreseen.assumed.as_ref()) {
            self.lower(Certainty::Assumed, because);
        }
        Ok(unit)
    }

    /// Returns a unit that no change has acted on.
    fn unit_of_base(&self, name: &str) -> Result<Unit, ModuleError> {
        let unit = self.base.unit(name)?;
        if unit.need_daemon_reload && self.reloaded { self.read_again(name, unit) } else { Ok(unit) }
    }

    /// Returns a unit as it is once systemd has read its files again.
    fn read_again(&self, name: &str, unit: Unit) -> Result<Unit, ModuleError> {
        let drop_ins = self.drop_ins(name)?;
        let Some(path) = self.fragment(name) else {
            return Ok(if unit.active_state == "inactive" { no_unit() } else { Unit { need_daemon_reload: false, ..unit } });
        };
        let fresh = self.read_unit(&path, &drop_ins)?;
        Ok(Unit {
            kind: fresh.kind,
            exec_start: fresh.exec_start,
            environment_files: fresh.environment_files,
            fragment: fresh.fragment,
            load_state: fresh.load_state,
            drop_ins,
            need_daemon_reload: false,
            ..unit
        })
    }

    /// Returns a unit as systemd would see it after changes to its files, before it is told to read them.
    fn with_files(&self, name: &str, unit: Unit, fragment_changed: bool) -> Result<Unit, ModuleError> {
        let fragment = self.fragment(name);
        let drop_ins = self.drop_ins(name)?;
        // systemd keeps units in memory that run or that an enabled link refers to; others it reads when asked.
        let kept = unit.active_state != "inactive" || unit.unit_file_state.starts_with("enabled");
        let known = unit.load_state != "not-found" && !unit.load_state.is_empty();
        Ok(match fragment {
            None if known && kept => Unit { need_daemon_reload: true, ..unit },
            None => no_unit(),
            Some(_) if known && kept => Unit { need_daemon_reload: true, drop_ins, ..unit },
            Some(path) if fragment_changed || !known => {
                let fresh = self.read_unit(&path, &drop_ins)?;
                Unit {
                    active_state: unit.active_state,
                    sub_state: unit.sub_state,
                    invocation: unit.invocation,
                    result: unit.result,
                    ..fresh
                }
            }
            Some(_) => Unit { drop_ins, ..unit },
        })
    }

    /// Returns the unit file that systemd would read.
    fn fragment(&self, name: &str) -> Option<PathBuf> {
        for path in names_of(name).iter().flat_map(|name| UNIT_FOLDERS.iter().map(move |folder| Path::new(folder).join(name))) {
            // Links that lead nowhere are as good as nothing to systemd.
            let Ok(found) = self.silently(|forecast| forecast.find(&path, true)) else { continue };
            // A unit is masked by a link to `/dev/null`.
            if found.what.is_some_and(|present| present.entry.kind == EntryKind::File) || found.place == Path::new("/dev/null") {
                return Some(path);
            }
        }
        None
    }

    /// Reads a unit file and its drop-ins as systemd does.
    fn read_unit(&self, path: &Path, drop_ins: &[PathBuf]) -> Result<Unit, ModuleError> {
        let text = |path: &Path| Ok::<_, ModuleError>(String::from_utf8_lossy(&self.content(path, LIMIT)?).into_owned());
        let masked = self.find(path, true)?.place == Path::new("/dev/null");
        if masked {
            return Ok(Unit { load_state: "masked".into(), unit_file_state: "masked".into(), ..from_text(path, "") });
        }
        let mut unit = from_text(path, &text(path)?);
        for drop_in in drop_ins {
            read_settings(&mut unit, &text(drop_in)?);
        }
        unit.drop_ins = drop_ins.to_vec();
        Ok(unit)
    }

    fn drop_ins(&self, name: &str) -> Result<Vec<PathBuf>, ModuleError> {
        let mut found: Vec<PathBuf> = Vec::new();
        for folder in
            names_of(name).iter().flat_map(|name| UNIT_FOLDERS.iter().map(move |folder| Path::new(folder).join(format!("{name}.d"))))
        {
            if self.silently(|forecast| forecast.find(&folder, true))?.what.is_none() {
                continue;
            }
            for file in self.silently(|forecast| forecast.names(&folder))? {
                // The same name in a folder of the administrator hides that of the system.
                if file.ends_with(".conf") && !found.iter().any(|known| known.file_name().is_some_and(|known| *known == *file)) {
                    found.push(folder.join(file));
                }
            }
        }
        found.sort_by(|one, other| one.file_name().cmp(&other.file_name()));
        Ok(found)
    }

    /// A package on Debian enables its units, elsewhere presets decide, mostly for disabled.
    fn brought_by_package(&self, name: &str, starts: bool) -> Unit {
        let debian = self.base.facts().package_manager == "apt";
        let runs = debian && starts;
        Unit {
            load_state: "loaded".into(),
            active_state: if runs { "active" } else { "inactive" }.into(),
            sub_state: if runs { "running" } else { "dead" }.into(),
            unit_file_state: if debian { "enabled" } else { "disabled" }.into(),
            kind: if name.ends_with(".service") { "simple" } else { "" }.into(),
            result: "success".into(),
            invocation: if runs { self.invocation() } else { String::new() },
            started: if runs { self.clock() } else { 0 },
            ..Unit::default()
        }
    }

    fn invocation(&self) -> String {
        format!("forecast{:024x}", self.folds)
    }

    pub(super) fn fold_unit(
        &mut self,
        name: &str,
        action: UnitAction,
        record: Option<&Record>,
        folded: &Folded,
    ) -> Result<(), ModuleError> {
        let name = full_name(name);
        let recorded = record.map(|record| self.digests(record)).transpose()?;
        if changes_links(action) {
            self.fold_daemon_reload()?;
        }
        let mut unit = self.find_unit(&name)?;
        let read = match self.units.get(&name) {
            _ if !unit.need_daemon_reload => self.folds,
            Some(foreseen) => foreseen.read,
            None => 0,
        };
        let set = |slot: &mut String, value: &str| value.clone_into(slot);
        match action {
            UnitAction::Start | UnitAction::Restart => {
                set(&mut unit.active_state, "active");
                set(&mut unit.sub_state, if unit.kind == "oneshot" { "exited" } else { "running" });
                set(&mut unit.result, "success");
                unit.invocation = self.invocation();
                unit.started = self.clock();
                unit.executable = self.program(&unit)?;
            }
            UnitAction::Stop => {
                set(&mut unit.active_state, "inactive");
                set(&mut unit.sub_state, "dead");
                (unit.started, unit.main_pid, unit.executable) = (0, 0, None);
            }
            UnitAction::Reload => {}
            UnitAction::Enable => set(&mut unit.unit_file_state, "enabled"),
            UnitAction::Disable => set(&mut unit.unit_file_state, "disabled"),
            UnitAction::Mask => {
                set(&mut unit.load_state, "masked");
                set(&mut unit.unit_file_state, "masked");
            }
            UnitAction::Unmask => {
                set(&mut unit.load_state, "loaded");
                set(&mut unit.unit_file_state, "disabled");
            }
        }
        if let (Some(record), Some(digests)) = (record, recorded) {
            self.records
                .insert(record.key.clone(), Recorded { invocation: unit.invocation.clone(), state_changed: unit.state_changed, digests });
        }
        self.units.insert(name, Foreseen { unit, at: self.folds, read, assumed: folded.assumed.clone() });
        Ok(())
    }

    /// Returns the program that a unit starts, links followed.
    fn program(&self, unit: &Unit) -> Result<Option<PathBuf>, ModuleError> {
        let word = unit.exec_start.split_whitespace().next().unwrap_or_default();
        let path = Path::new(word.trim_start_matches(['@', '-', ':', '+', '!', '|']));
        if !path.is_absolute() {
            return Ok(None);
        }
        Ok(Some(follow(self, path)?.path))
    }

    /// Lets systemd read all unit files again.
    pub(super) fn fold_daemon_reload(&mut self) -> Result<(), ModuleError> {
        self.reloaded = true;
        for name in self.units.keys().chain(self.unread.keys()).cloned().collect::<BTreeSet<_>>() {
            let mut unit = self.find_unit(&name)?;
            if unit.need_daemon_reload {
                unit = self.read_again(&name, unit)?;
            }
            let assumed = self.units.get(&name).and_then(|foreseen| foreseen.assumed.clone());
            self.units.insert(name, Foreseen { unit, at: self.folds, read: self.folds, assumed });
        }
        self.unread.clear();
        Ok(())
    }

    /// Returns the digests that a record would hold. A file that would be made new is from here on the one on record.
    pub(super) fn digests(
        &mut self,
        record: &Record,
    ) -> Result<std::collections::BTreeMap<PathBuf, Option<crate::api::Digest>>, ModuleError> {
        let mut digests = std::collections::BTreeMap::new();
        for path in &record.paths {
            let digest = match self.digest(path)? {
                Some(Fingerprint::Known(digest)) => Some(digest),
                Some(Fingerprint::New) => self.put_on_record(path)?,
                None => None,
            };
            digests.insert(path.clone(), digest);
        }
        Ok(digests)
    }
}

/// Returns whether systemctl makes systemd read all unit files again after the action.
fn changes_links(action: UnitAction) -> bool {
    matches!(action, UnitAction::Enable | UnitAction::Disable | UnitAction::Mask | UnitAction::Unmask)
}

/// Returns the names that a unit's files may have: an instance has its template's as well.
fn names_of(name: &str) -> Vec<String> {
    let template = name.split_once('@').and_then(|(stem, rest)| Some(format!("{stem}@.{}", rest.rsplit_once('.')?.1)));
    std::iter::once(name.to_owned()).chain(template.filter(|template| template != name)).collect()
}

/// Returns what systemd says of a unit that it does not know.
fn no_unit() -> Unit {
    Unit {
        load_state: "not-found".into(),
        active_state: "inactive".into(),
        sub_state: "dead".into(),
        result: "success".into(),
        ..Unit::default()
    }
}

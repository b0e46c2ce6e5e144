//! What a running unit was started with, compared to what is there now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::api::change::{Record, Recorded};
use crate::api::inspect::{Fingerprint, Unit};
use crate::api::walk::{files, follow};
use crate::api::{Digest, Inspect, ModuleError, OneOrMany};

/// How long after a reload a unit may say that it has finished, nanoseconds.
const SETTLES: i64 = 1_000_000_000;

/// The paths a unit is watched for, and which of them differ from what its process was started with.
pub(super) struct Watch {
    key: String,
    paths: BTreeSet<PathBuf>,
    /// What was recorded for the process that runs now.
    recorded: BTreeMap<PathBuf, Option<Digest>>,
    restart: Vec<String>,
    reload: Vec<String>,
}

impl Watch {
    /// Looks at all watched paths. The lists' paths are judged by what their list asks for, the unit's own files always ask
    /// for a restart, since no reload puts them into effect.
    pub(super) fn look(
        host: &dyn Inspect,
        name: &str,
        unit: &Unit,
        restart_on: Option<&OneOrMany>,
        reload_on: Option<&OneOrMany>,
    ) -> Result<Self, ModuleError> {
        let key = format!("unit/{name}");
        let known = Known::of(host, &key, unit)?;
        let named = |list: Option<&OneOrMany>| -> Vec<PathBuf> { list.iter().flat_map(|list| &list.0).map(PathBuf::from).collect() };
        let (restart_named, reload_named) = (named(restart_on), named(reload_on));

        let mut restart_paths = files(host, &restart_named)?;
        restart_paths.extend(unit.fragment.iter().chain(&unit.drop_ins).chain(&unit.environment_files).cloned());
        let program = Program::of(host, unit)?;
        restart_paths.extend(program.iter().flat_map(|program| [program.path.clone(), program.leads_to.clone()]));
        restart_paths.extend(running(unit));
        let mut reload_paths = files(host, &reload_named)?;
        reload_paths.retain(|path| !restart_paths.contains(path));

        let mut watch = Self { key, paths: BTreeSet::new(), recorded: BTreeMap::new(), restart: Vec::new(), reload: Vec::new() };
        if unit.is_up() {
            watch.restart = known.differences(host, &restart_paths, &restart_named)?;
            watch.restart.extend(match program {
                Some(program) => known.moved(host, &program, unit)?,
                None => None,
            });
            watch.reload = match known.reloaded_by_others(unit) {
                Some(known) => known.differences(host, &reload_paths, &reload_named)?,
                None => known.differences(host, &reload_paths, &reload_named)?,
            };
        }
        watch.paths = restart_paths;
        watch.paths.extend(reload_paths);
        watch.recorded = known.same_process.unwrap_or_default();
        Ok(watch)
    }

    /// Returns why the unit has to be restarted.
    pub(super) fn restart(&self) -> Option<String> {
        summary(&self.restart)
    }

    /// Returns why the unit has to be reloaded.
    pub(super) fn reload(&self) -> Option<String> {
        summary(&self.reload)
    }

    /// Returns what is to be recorded with the next start or reload. What another task watches for the same process stays
    /// on record as long as it has not changed; once it has, its time of change decides.
    pub(super) fn record(self, host: &dyn Inspect) -> Result<Record, ModuleError> {
        let mut paths = self.paths;
        for (path, before) in self.recorded {
            if !paths.contains(&path) && host.fingerprint(&path)? == before.map(Fingerprint::Known) {
                paths.insert(path);
            }
        }
        Ok(Record { key: self.key, paths: paths.into_iter().collect() })
    }
}

/// What is known of the files that the running process was started with.
struct Known {
    /// The digests recorded at its start, when kplay started it.
    same_process: Option<BTreeMap<PathBuf, Option<Digest>>>,
    /// The digests of an earlier start; they count only where systemd cannot tell when the present one was.
    earlier: BTreeMap<PathBuf, Option<Digest>>,
    /// When the process started; 0 when there is none (a oneshot unit that has ended).
    started: i64,
    /// When its state had last changed when that was recorded; 0 when nothing is on record.
    settled: i64,
    /// What happened when it `started`.
    event: &'static str,
}

impl Known {
    fn of(host: &dyn Inspect, key: &str, unit: &Unit) -> Result<Self, ModuleError> {
        // A record that cannot be read is as good as none: times of change decide then.
        let recorded: Option<Recorded> = host.record(key)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let fresh = Self { same_process: None, earlier: BTreeMap::new(), started: unit.started, settled: 0, event: "the process" };
        Ok(match recorded {
            Some(recorded) if !unit.invocation.is_empty() && recorded.invocation == unit.invocation => {
                Self { same_process: Some(recorded.digests), settled: recorded.state_changed, ..fresh }
            }
            Some(recorded) => Self { earlier: recorded.digests, ..fresh },
            None => fresh,
        })
    }

    /// Returns what is known of the files that a reload puts into effect, when somebody else has reloaded the unit since the record
    /// was made: nobody knows what they held then, and only times of change are left.
    fn reloaded_by_others(&self, unit: &Unit) -> Option<Self> {
        let others = self.settled != 0 && unit.state_changed > self.settled + SETTLES;
        let known =
            || Self { same_process: None, earlier: BTreeMap::new(), started: unit.state_changed, settled: 0, event: "the last reload" };
        others.then(known)
    }

    /// Returns a reason for each path that differs, and for each file that is gone from a watched folder.
    fn differences(&self, host: &dyn Inspect, paths: &BTreeSet<PathBuf>, named: &[PathBuf]) -> Result<Vec<String>, ModuleError> {
        let mut reasons = Vec::new();
        for path in paths {
            reasons.extend(self.difference(host, path)?);
        }
        for (path, before) in self.same_process.iter().flatten() {
            if before.is_some() && !paths.contains(path) && named.iter().any(|folder| path.starts_with(folder)) {
                reasons.push(format!("{} is gone", path.display()));
            }
        }
        Ok(reasons)
    }

    fn difference(&self, host: &dyn Inspect, path: &Path) -> Result<Option<String>, ModuleError> {
        let now = host.fingerprint(path)?;
        let shown = path.display();
        let before = match &self.same_process {
            Some(digests) => digests.get(path),
            None if self.started == 0 => self.earlier.get(path),
            None => None,
        };
        Ok(match (before, now) {
            (_, Some(Fingerprint::New)) => Some(format!("{shown} changed")),
            (Some(Some(before)), Some(Fingerprint::Known(digest))) => (*before != digest).then(|| format!("{shown} changed")),
            (Some(Some(_)), None) => Some(format!("{shown} is gone")),
            (Some(None), Some(_)) => Some(format!("{shown} is new")),
            (Some(None) | None, None) => None,
            (None, Some(Fingerprint::Known(_))) => {
                let newer = self.started != 0 && follow(host, path)?.changed > self.started;
                newer.then(|| format!("{shown} is newer than {}", self.event))
            }
        })
    }

    /// Returns a reason when the unit's program now lies elsewhere than the one that runs: a link was turned.
    fn moved(&self, host: &dyn Inspect, program: &Program, unit: &Unit) -> Result<Option<String>, ModuleError> {
        let reason = || Some(format!("{} now leads to {}", program.path.display(), program.leads_to.display()));
        if let Some(digests) = self.same_process.as_ref().filter(|digests| digests.contains_key(&program.path)) {
            return Ok(if digests.contains_key(&program.leads_to) { None } else { reason() });
        }
        // Without a record only the running executable is left to compare with. It may be another program by intent: the
        // interpreter of a script, or what a wrapper turned into.
        let Some(running) = running(unit).filter(|running| *running != program.leads_to) else { return Ok(None) };
        let same_name = running.file_name() == program.leads_to.file_name();
        let replaced = host.target(&program.leads_to)?.is_some() && host.target(&running)?.is_none();
        Ok(if same_name || replaced { reason() } else { None })
    }
}

/// The program a unit starts.
struct Program {
    /// As the unit names it.
    path: PathBuf,
    /// With all links followed.
    leads_to: PathBuf,
}

impl Program {
    fn of(host: &dyn Inspect, unit: &Unit) -> Result<Option<Self>, ModuleError> {
        let word = unit.exec_start.split_whitespace().next().unwrap_or_default();
        let path = PathBuf::from(word.trim_start_matches(['@', '-', ':', '+', '!', '|']));
        if !path.is_absolute() {
            return Ok(None);
        }
        let leads_to = follow(host, &path)?.path;
        Ok(Some(Self { path, leads_to }))
    }
}

/// Returns the running executable's path, also when the file has been replaced since.
fn running(unit: &Unit) -> Option<PathBuf> {
    let path = unit.executable.as_ref()?;
    Some(path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map_or_else(|| path.clone(), PathBuf::from))
}

/// Returns the reasons in one line, at most two of them in full.
fn summary(reasons: &[String]) -> Option<String> {
    match reasons {
        [] => None,
        [first] => Some(first.clone()),
        [first, second] => Some(format!("{first}, {second}")),
        [first, second, rest @ ..] => Some(format!("{first}, {second} and {} more", rest.len())),
    }
}

//! Brings a systemd unit to a state: started or stopped, enabled, masked, and running with today's files.
//!
//! ```lua
//! local unit = host:copy({
//!   dest = "/etc/systemd/system/clock.service",
//!   content = "[Service]\nExecStart=/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n",
//! })
//! host:systemd({ name = "clock", state = "started", enabled = true, restart_on = { unit, "/etc/clock" } })
//! ```
//!
//! **Restarts are state, not events.** Without `restart_on` and `reload_on` nothing is ever restarted. With either, kplay
//! compares what the running process was started with to what is there now, so that a restart is never lost: not by a run
//! that died half way, not by a task that failed in between.
//!
//! - Watched are the named paths (files, or folders with all files below) and what belongs to the unit itself: unit file,
//!   drop-ins, environment files and the executable, also when its path leads elsewhere by a link.
//! - When kplay starts a unit it writes down a digest of each. As long as that very process runs, it is restarted exactly when
//!   a digest differs.
//! - When the process was started by something else (a person, a boot), a file counts as different if it changed later than the
//!   process started. So does a path that is new in the list: extending a list restarts nothing by itself.
//! - `reload_on` reloads for the named paths. What belongs to the unit itself needs a restart, and a restart wins over a reload.
//! - A unit that does not run is started, not restarted.
//!
//! Unit files that changed on disk are read again first (`daemon-reload`), which is a change of its own. A oneshot unit that
//! ended well counts as started. Before a unit is started for the first time or with a new unit file, `systemd-analyze verify`
//! looks at the file, unless `verify = false`. A unit that fails to start, or does not keep running until
//! the task has been proved, shows the last lines of its journal.
//!
//! Who has to do something before a restart, say, to turn clients away, asks first whether there will be one:
//!
//! ```lua
//! local nginx = host:systemd({ name = "nginx", state = "started", restart_on = {}, only_look = true })
//! if nginx.pending then host:debug("nginx needs a " .. nginx.pending) end
//! ```
//!
//! Results: `state` (`active`, `inactive`, `failed` …) and `enabled` (`enabled`, `disabled`, `static` …), as systemd calls them;
//! with `only_look`, `pending`: the `start`, `restart`, `reload` or `stop` that is missing, or nil.

mod watch;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::change::Record;
#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::inspect::{Command, Unit};
use crate::api::place;
use crate::api::units::{UNIT_FOLDERS, full_name};
use crate::api::{
    Change, Controller, Entry, EntryKind, ErrorKind, Footprint, Inspect, Module, ModuleError, OneOrMany, Proposal, UnitAction,
};

use watch::Watch;

/// Arguments of `systemd`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Systemd {
    /// The unit; `.service` is added to a name without a suffix.
    name: String,
    /// `started`, `stopped`, `restarted` (each time), `reloaded` (each time). Left as it is when not given.
    #[serde(default)]
    state: Option<State>,
    /// Whether the unit starts at boot. Left as it is when not given.
    #[serde(default)]
    enabled: Option<bool>,
    /// Whether the unit is masked, that is, cannot be started by anything. Left as it is when not given.
    #[serde(default)]
    masked: Option<bool>,
    /// Files and folders whose change restarts the running unit; an empty list watches what belongs to the unit itself.
    #[serde(default)]
    restart_on: Option<OneOrMany>,
    /// Files and folders whose change reloads the running unit.
    #[serde(default)]
    reload_on: Option<OneOrMany>,
    /// Whether nothing is done, and the result `pending` says whether the unit has to be started, restarted, reloaded or stopped.
    #[serde(default)]
    only_look: bool,
    /// Whether `systemd-analyze verify` must accept a unit file before the unit is started with it.
    #[serde(default = "yes")]
    verify: bool,
    /// Seconds that starting, stopping and reloading may take; 0 leaves that to the unit's own limits.
    #[serde(default)]
    timeout: u64,
}

/// What `state` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    Started,
    Stopped,
    Restarted,
    Reloaded,
}

impl Module for Systemd {
    const NAME: &'static str = "systemd";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        if self.name.is_empty() || self.name.contains(|letter: char| letter == '/' || letter.is_whitespace()) {
            return Err(ModuleError::argument(format!("`{}` is not the name of a unit", self.name))
                .at("name")
                .hint("write it as `systemctl` does, `nginx` or `nginx.service`"));
        }
        for (argument, list) in [("restart_on", &mut self.restart_on), ("reload_on", &mut self.reload_on)] {
            for path in list.iter_mut().flat_map(|list| &mut list.0) {
                *path = place::absolute(Path::new(path), argument)
                    .map_err(|error| error.hint("name files and folders on the host, or pass the results of the tasks that write them"))?
                    .display()
                    .to_string();
            }
        }
        if self.masked == Some(true) && (self.enabled == Some(true) || self.state.is_some_and(|state| state != State::Stopped)) {
            return Err(ModuleError::argument("a masked unit can be neither started nor enabled").at("masked"));
        }
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let name = full_name(&self.name);
        let unit = host.unit(&name)?;
        let found = unit_file(host, &name, &unit)?;
        let mut changes = Vec::new();
        if self.only_look {
            return self.look(host, &name, unit);
        }

        if unit.load_state == "masked" {
            match self.masked {
                Some(false) => changes.push(self.act(&name, UnitAction::Unmask, "", None)),
                _ if self.wants_to_run() || self.enabled == Some(true) => {
                    return Err(ModuleError::host(format!("`{name}` is masked")).at("name").hint("add `masked = false` to unmask it"));
                }
                _ => {}
            }
        } else if unit.load_state == "not-found" && found.is_none() && self.masked != Some(true) {
            return Err(missing(host, &name));
        }

        let unread = unit.load_state == "not-found" && found.is_some();
        let reload_daemon = unit.need_daemon_reload || unread;
        if reload_daemon {
            let reason = if unread { format!("{name} is new") } else { format!("unit files of {name} changed") };
            changes.push(Change::ReloadDaemon { reason });
        }
        let broken = matches!(unit.load_state.as_str(), "bad-setting" | "error") && !reload_daemon;
        if self.wants_to_run() && (reload_daemon || broken || !unit.is_up()) {
            self.verify(host, &name, found.as_deref())?;
        }
        if broken && self.wants_to_run() {
            return Err(ModuleError::host(format!("systemd cannot load `{name}`: {}", unit.load_state))
                .at("name")
                .hint(format!("see `systemctl status {name}` on the host")));
        }

        changes.extend(self.enablement(&name, &unit, reload_daemon)?);
        changes.extend(self.activity(host, &name, &unit)?);
        if self.masked == Some(true) && unit.load_state != "masked" {
            self.may_be_masked(host, &name)?;
            changes.push(self.act(&name, UnitAction::Mask, "", None));
        }

        let proposal =
            Proposal::new(changes).with("state", unit.active_state).with("enabled", unit.unit_file_state).with("pending", Value::Null);
        let repeating = matches!(self.state, Some(State::Restarted | State::Reloaded));
        Ok(if repeating { proposal.repeating() } else { proposal })
    }

    fn reach(&self) -> Footprint {
        Footprint::Units(vec![full_name(&self.name)])
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        tests::examples()
    }
}

impl Systemd {
    /// Says what the unit's activity lacks.
    fn look(&self, host: &dyn Inspect, name: &str, unit: Unit) -> Result<Proposal, ModuleError> {
        let action = match self.activity(host, name, &unit)? {
            Some(Change::Unit { action, .. }) => Some(action.verb()),
            _ => None,
        };
        Ok(Proposal::default().with("state", unit.active_state).with("enabled", unit.unit_file_state).with("pending", action))
    }

    fn wants_to_run(&self) -> bool {
        self.state.is_some_and(|state| state != State::Stopped)
    }

    fn act(&self, unit: &str, action: UnitAction, reason: &str, record: Option<Record>) -> Change {
        Change::Unit { unit: unit.to_owned(), action, reason: reason.to_owned(), record, timeout: self.timeout }
    }

    /// Refuses to mask what `systemctl mask` cannot: the link that masks a unit would have to lie where its file does.
    fn may_be_masked(&self, host: &dyn Inspect, name: &str) -> Result<(), ModuleError> {
        let path = Path::new("/etc/systemd/system").join(name);
        match host.entry(&path)? {
            None => Ok(()),
            Some(Entry { kind: EntryKind::Symlink(target), .. }) if target == Path::new("/dev/null") => Ok(()),
            Some(_) => Err(ModuleError::host(format!("`{name}` cannot be masked: its unit file is `{}`", path.display()))
                .at("masked")
                .hint("remove that file with `file`, or move it to /usr/local/lib/systemd/system; or stop and disable the unit")),
        }
    }

    /// Returns what is missing for `enabled`.
    fn enablement(&self, name: &str, unit: &Unit, reload_daemon: bool) -> Result<Option<Change>, ModuleError> {
        let state = unit.unit_file_state.as_str();
        match self.enabled {
            Some(true) => match state {
                "enabled" | "alias" | "indirect" | "generated" => Ok(None),
                // What systemd says of a unit file that it has not read yet is out of date.
                "static" if !reload_daemon => {
                    Err(ModuleError::host(format!("`{name}` cannot be enabled: its unit file has no [Install] section"))
                        .at("enabled")
                        .hint("add `[Install]` with `WantedBy=multi-user.target` to the unit file, or leave `enabled` out"))
                }
                _ => Ok(Some(self.act(name, UnitAction::Enable, "", None))),
            },
            Some(false) if matches!(state, "enabled" | "enabled-runtime" | "alias") => {
                Ok(Some(self.act(name, UnitAction::Disable, "", None)))
            }
            Some(false) | None => Ok(None),
        }
    }

    /// Returns what is missing for `state`, `restart_on` and `reload_on`: at most one change.
    fn activity(&self, host: &dyn Inspect, name: &str, unit: &Unit) -> Result<Option<Change>, ModuleError> {
        if self.state == Some(State::Stopped) {
            let stopped = matches!(unit.active_state.as_str(), "inactive" | "failed" | "");
            return Ok((!stopped).then(|| self.act(name, UnitAction::Stop, "", None)));
        }
        if !unit.is_up() && self.state.is_none() {
            return Ok(None);
        }
        let watch = match (&self.restart_on, &self.reload_on) {
            (None, None) => None,
            (restart, reload) => Some(Watch::look(host, name, unit, restart.as_ref(), reload.as_ref())?),
        };
        if !unit.is_up() {
            let reason = match unit.active_state.as_str() {
                "failed" => "it had failed",
                "activating" if unit.sub_state == "auto-restart" => "it keeps failing",
                "activating" if watch.is_some() => "it is starting, perhaps with older files",
                _ => "",
            };
            // To start a unit that is starting only waits for that, whatever it was begun with.
            let action = if unit.active_state == "activating" && watch.is_some() { UnitAction::Restart } else { UnitAction::Start };
            let record = watch.map(|watch| watch.record(host)).transpose()?;
            return Ok(Some(self.act(name, action, reason, record)));
        }
        let (restart, reload) = watch.as_ref().map_or((None, None), |watch| (watch.restart(), watch.reload()));
        // A oneshot unit that has ended is not there to be restarted.
        let again = if unit.active_state == "inactive" { UnitAction::Start } else { UnitAction::Restart };
        let (action, reason) = match (self.state, restart, reload) {
            (_, Some(reason), _) => (again, reason),
            (Some(State::Restarted), None, _) => (again, String::new()),
            (_, None, Some(reason)) => (UnitAction::Reload, reason),
            (Some(State::Reloaded), None, None) => (UnitAction::Reload, String::new()),
            (_, None, None) => return Ok(None),
        };
        let record = watch.map(|watch| watch.record(host)).transpose()?;
        Ok(Some(self.act(name, action, &reason, record)))
    }

    /// Has systemd judge the unit file, where its tool is installed.
    fn verify(&self, host: &dyn Inspect, name: &str, file: Option<&Path>) -> Result<(), ModuleError> {
        let (true, Some(file)) = (self.verify, file) else { return Ok(()) };
        if host.target(Path::new("/usr/bin/systemd-analyze"))?.is_none() && host.target(Path::new("/bin/systemd-analyze"))?.is_none() {
            return Ok(());
        }
        let shown = file.display().to_string();
        let output = match host.run(&Command::new(["systemd-analyze", "--man=no", "verify", &shown])) {
            Ok(output) => output,
            // The file, or the program that it starts, is yet to come: the apply will look.
            Err(error) if error.kind == ErrorKind::Unknown && host.forecasting() => return Ok(()),
            Err(error) => return Err(error),
        };
        // The tool looks at all units that the file pulls in; what is wrong with those is not this task's concern.
        let complaints: Vec<String> =
            output.stderr.lines().filter(|line| line.contains(&shown) || line.contains(name)).map(str::to_owned).collect();
        if output.success() || complaints.is_empty() {
            return Ok(());
        }
        Err(ModuleError::host(format!("systemd does not accept `{shown}`"))
            .at("name")
            .details(complaints)
            .hint("correct the unit file, or skip this examination with `verify = false`"))
    }
}

/// Returns the unit file: the one systemd names, else the one that lies where systemd will find it.
fn unit_file(host: &dyn Inspect, name: &str, unit: &Unit) -> Result<Option<PathBuf>, ModuleError> {
    if unit.load_state != "not-found" {
        return Ok(unit.fragment.clone());
    }
    let template = name.split_once('@').and_then(|(stem, rest)| Some(format!("{stem}@.{}", rest.rsplit_once('.')?.1)));
    for candidate in std::iter::once(name).chain(template.as_deref()) {
        for folder in UNIT_FOLDERS {
            let path = Path::new(folder).join(candidate);
            if host.target(&path)?.is_some() {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Explains that there is no such unit, and names the nearest one that exists.
fn missing(host: &dyn Inspect, name: &str) -> ModuleError {
    let mut names: Vec<String> = UNIT_FOLDERS.iter().filter_map(|folder| host.list(Path::new(folder)).ok()).flatten().collect();
    names.sort();
    let nearest = names
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .filter(|(distance, _)| *distance <= 1 + name.len() / 6)
        .min();
    let error = ModuleError::host(format!("there is no unit `{name}` on this host")).at("name");
    match nearest {
        Some((_, candidate)) => error.hint(format!("did you mean `{candidate}`?")),
        None => error.hint("write the unit file first, or install the package that brings it"),
    }
}

fn yes() -> bool {
    true
}

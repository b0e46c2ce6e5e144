//! Units below a root: unit files and their links are real, running is assumed and written down.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Machine;
use super::assumed::Started;
use super::commands::{find_program, run_quietly};
use crate::api::change::UnitAction;
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, Unit};
use crate::api::units::{UNIT_FOLDERS, from_text, read_settings};

/// The largest unit file worth reading, bytes.
const LIMIT: u64 = 1 << 20;

impl Machine {
    pub(super) fn assumed_unit(&self, name: &str) -> Result<Unit, ModuleError> {
        let Some(fragment) = self.fragment(name)? else {
            return Ok(Unit {
                load_state: "not-found".into(),
                active_state: "inactive".into(),
                sub_state: "dead".into(),
                ..Unit::default()
            });
        };
        // Masked is what leads to /dev/null or holds nothing.
        let masked = self.look(&fragment, true)?.is_none_or(|entry| entry.size == 0);
        let mut unit = from_text(&fragment, &if masked { String::new() } else { self.unit_text(&fragment)? });
        if masked {
            unit.load_state = "masked".into();
            unit.unit_file_state = "masked".into();
        } else {
            for path in self.drop_ins(name)? {
                read_settings(&mut unit, &self.unit_text(&path)?);
                unit.drop_ins.push(path);
            }
            if find_program("systemctl").is_some() {
                // It exits with 1 for units that are not enabled, having said so.
                let output = run_quietly(&self.systemctl("is-enabled", name))?;
                output.stdout.lines().next().unwrap_or_default().clone_into(&mut unit.unit_file_state);
            }
        }
        if let Some(started) = self.assumed.borrow().units.get(name) {
            unit.active_state = "active".into();
            unit.sub_state = "running".into();
            unit.invocation.clone_from(&started.invocation);
            unit.started = started.at;
        }
        Ok(unit)
    }

    pub(super) fn assume_action(&self, name: &str, action: UnitAction) -> Result<(), ModuleError> {
        let unit = self.assumed_unit(name)?;
        let starts = matches!(action, UnitAction::Start | UnitAction::Restart | UnitAction::Reload);
        if starts && unit.load_state != "loaded" {
            let why = if unit.load_state == "masked" { "the unit is masked" } else { "there is no such unit" };
            return Err(ModuleError::host(format!("cannot {} `{name}`: {why}", action.verb())));
        }
        match action {
            UnitAction::Start | UnitAction::Restart => self.assume(|assumed| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
                let started = Started { invocation: format!("{now:032x}"), at: i64::try_from(now).unwrap_or(i64::MAX) };
                assumed.units.insert(name.to_owned(), started);
            }),
            UnitAction::Stop => self.assume(|assumed| drop(assumed.units.remove(name))),
            UnitAction::Reload => Ok(()),
            UnitAction::Enable | UnitAction::Disable | UnitAction::Mask | UnitAction::Unmask => self.link_unit(name, action),
        }
    }

    /// The links are systemctl's own work, which knows how to do it without a running systemd.
    fn link_unit(&self, name: &str, action: UnitAction) -> Result<(), ModuleError> {
        let root = self.root.as_deref().unwrap_or(Path::new("/")).display();
        let output = run_quietly(&self.systemctl(action.verb(), name))
            .map_err(|error| error.hint(format!("units below `{root}` are enabled by this machine's systemctl; systemd need not run")))?;
        if output.success() {
            return Ok(());
        }
        let said = output.stderr.lines().next().unwrap_or_default().trim_end_matches('.');
        Err(ModuleError::host(format!("cannot {} `{name}` below `{root}`: {said}", action.verb())))
    }

    fn unit_text(&self, path: &Path) -> Result<String, ModuleError> {
        Ok(String::from_utf8_lossy(&self.content(path, LIMIT)?).into_owned())
    }

    fn fragment(&self, name: &str) -> Result<Option<PathBuf>, ModuleError> {
        let template = name.split_once('@').and_then(|(head, rest)| Some(format!("{head}@.{}", rest.rsplit_once('.')?.1)));
        for name in std::iter::once(name).chain(template.as_deref()) {
            for folder in UNIT_FOLDERS {
                let path = Path::new(folder).join(name);
                if self.look(&path, false)?.is_some() {
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn drop_ins(&self, name: &str) -> Result<Vec<PathBuf>, ModuleError> {
        let mut found = Vec::new();
        for folder in UNIT_FOLDERS.iter().map(|folder| Path::new(folder).join(format!("{name}.d"))) {
            if self.look(&folder, true)?.is_some() {
                found.extend(self.names(&folder)?.iter().filter(|name| name.ends_with(".conf")).map(|name| folder.join(name)));
            }
        }
        Ok(found)
    }

    fn systemctl(&self, verb: &str, name: &str) -> Command {
        let root = self.root.as_deref().unwrap_or(Path::new("/")).display();
        Command::new(["systemctl", &format!("--root={root}"), verb, "--", name])
    }
}

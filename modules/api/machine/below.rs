//! Units below a root: unit files and their links are real, running is assumed and written down.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Machine;
use super::assumed::Started;
use super::commands::{find_program, run_quietly};
use crate::api::change::UnitAction;
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, Unit};

/// Where systemd looks for unit files, the strongest first.
const FOLDERS: [&str; 5] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
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
        let masked = self.look(&fragment, true)?.is_none_or(|entry| entry.size == 0);
        let text = if masked { Vec::new() } else { self.content(&fragment, LIMIT)? };
        let text = String::from_utf8_lossy(&text).into_owned();
        let values = |key: &str| {
            let matching = text.lines().filter_map(|line| line.trim().split_once('=')).filter(|(name, _)| name.trim() == key);
            matching.map(|(_, value)| value.trim().to_owned()).collect::<Vec<_>>()
        };
        let started = self.assumed.borrow().units.get(name).cloned();
        let kind = values("Type").pop().unwrap_or_else(|| "simple".into());
        Ok(Unit {
            load_state: if masked { "masked".into() } else { "loaded".into() },
            active_state: if started.is_some() { "active".into() } else { "inactive".into() },
            sub_state: if started.is_some() { "running".into() } else { "dead".into() },
            unit_file_state: self.unit_file_state(name, masked)?,
            result: "success".into(),
            invocation: started.as_ref().map(|started| started.invocation.clone()).unwrap_or_default(),
            started: started.map_or(0, |started| started.at),
            drop_ins: self.drop_ins(name)?,
            environment_files: values("EnvironmentFile").iter().map(|path| PathBuf::from(path.trim_start_matches('-'))).collect(),
            exec_start: values("ExecStart").join(" ; "),
            fragment: Some(fragment),
            kind,
            ..Unit::default()
        })
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

    /// The links are systemctl's own work, which knows how to do it offline.
    fn link_unit(&self, name: &str, action: UnitAction) -> Result<(), ModuleError> {
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let output = run_quietly(&systemctl(root, action.verb(), name))?;
        if output.success() {
            return Ok(());
        }
        let said = output.stderr.lines().next().unwrap_or_default().trim_end_matches('.');
        Err(ModuleError::host(format!("cannot {} `{name}` below `{}`: {said}", action.verb(), root.display())))
    }

    fn unit_file_state(&self, name: &str, masked: bool) -> Result<String, ModuleError> {
        if masked {
            return Ok("masked".into());
        }
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        if find_program("systemctl").is_none() {
            return Err(ModuleError::host(
                "this machine has no `systemctl`, so that units below a root can neither be looked at nor enabled",
            )
            .hint("install systemd's tools; it need not run"));
        }
        // It exits with 1 for units that are not enabled, having said so.
        let output = run_quietly(&systemctl(root, "is-enabled", name))?;
        Ok(output.stdout.lines().next().unwrap_or_default().to_owned())
    }

    fn fragment(&self, name: &str) -> Result<Option<PathBuf>, ModuleError> {
        let template = name.split_once('@').and_then(|(head, rest)| Some(format!("{head}@.{}", rest.rsplit_once('.')?.1)));
        for name in std::iter::once(name).chain(template.as_deref()) {
            for folder in FOLDERS {
                let path = Path::new(folder).join(name);
                if self.look(&path, false)?.is_some() {
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    fn drop_ins(&self, name: &str) -> Result<Vec<PathBuf>, ModuleError> {
        let mut found = Vec::new();
        for folder in FOLDERS.map(|folder| Path::new(folder).join(format!("{name}.d"))) {
            if self.look(&folder, true)?.is_some() {
                found.extend(self.names(&folder)?.iter().filter(|name| name.ends_with(".conf")).map(|name| folder.join(name)));
            }
        }
        Ok(found)
    }
}

fn systemctl(root: &Path, verb: &str, name: &str) -> Command {
    Command::new(["systemctl".to_owned(), format!("--root={}", root.display()), verb.to_owned(), "--".to_owned(), name.to_owned()])
}

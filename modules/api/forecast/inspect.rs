//! The questions that a forecast answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::files::Text;
use super::{Certainty, Forecast, Purpose};
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, CommandOutput, Facts, Fingerprint, GroupEntry, Inspect, Unit, UserEntry};
use crate::api::types::{Content, Entry, Owner};

impl Inspect for Forecast<'_> {
    fn entry(&self, path: &Path) -> Result<Option<Entry>, ModuleError> {
        self.entry_at(path, false)
    }

    fn target(&self, path: &Path) -> Result<Option<Entry>, ModuleError> {
        self.entry_at(path, true)
    }

    fn exists(&self, path: &Path) -> Result<bool, ModuleError> {
        if !self.is_changed() {
            return self.base.exists(path);
        }
        let place = self.settle(path);
        if let Some(node) = self.nodes.get(&place)
            && let (Some(present), Some(because)) = (&node.what, &node.assumed)
            && matches!(present.text, Text::Unknown)
        {
            self.lower(Certainty::Assumed, because);
            return Ok(true);
        }
        Ok(self.find(path, false)?.what.is_some())
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ModuleError> {
        if self.is_changed() { self.content(path, limit) } else { self.base.read(path, limit) }
    }

    fn fingerprint(&self, path: &Path) -> Result<Option<Fingerprint>, ModuleError> {
        if self.is_changed() { self.digest(path) } else { self.base.fingerprint(path) }
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, ModuleError> {
        if self.is_changed() { self.names(path) } else { self.base.list(path) }
    }

    fn user(&self, name: &str) -> Result<Option<UserEntry>, ModuleError> {
        self.find_user(name)
    }

    fn primary_members(&self, group: &Owner) -> Result<Vec<String>, ModuleError> {
        self.primary_group_of(group)
    }

    fn group(&self, name: &str) -> Result<Option<GroupEntry>, ModuleError> {
        self.find_group(name)
    }

    fn unit(&self, name: &str) -> Result<Unit, ModuleError> {
        if self.is_changed() { self.find_unit(name) } else { self.base.unit(name) }
    }

    fn unit_log(&self, name: &str) -> Vec<String> {
        self.base.unit_log(name)
    }

    fn kernel_parameter(&self, key: &str) -> Result<Option<String>, ModuleError> {
        let folded = self.parameters.get(key);
        self.judge_parameter(key, folded.map_or(0, |(_, at)| *at));
        match folded {
            Some((value, _)) => Ok(Some(value.clone())),
            None => self.base.kernel_parameter(key),
        }
    }

    fn packages(&self, names: &[String]) -> Result<BTreeMap<String, String>, ModuleError> {
        self.judge_packages();
        let mut installed = self.base.packages(names)?;
        for name in names {
            match self.packages.get(name) {
                Some(Some(version)) => {
                    installed.insert(name.clone(), version.clone());
                }
                Some(None) => {
                    installed.remove(name);
                }
                None => {}
            }
        }
        Ok(installed)
    }

    fn run(&self, command: &Command) -> Result<CommandOutput, ModuleError> {
        match &self.changed_by {
            Some(because) => Err(ModuleError::unknown(because.clone())),
            None => match self.support.time_left() {
                Some(left) if left.as_secs() < command.timeout => {
                    self.base.run(&Command { timeout: left.as_secs().max(1), ..command.clone() })
                }
                _ => self.base.run(command),
            },
        }
    }

    fn validate(&self, command: &str, path: &Path, content: &Content) -> Result<CommandOutput, ModuleError> {
        if self.purpose == Purpose::Apply
            && let Some(because) = &self.changed_by
        {
            return Err(ModuleError::unknown(because.clone()));
        }
        let content = match content {
            Content::Blob(blob) => Content::Inline(self.support.content(blob)?),
            Content::Inline(_) => content.clone(),
        };
        let judged = self.base.validate(command, path, &content);
        let Some(because) = &self.changed_by else { return judged };
        // The command looks at a host on which earlier changes are missing: its assent is as good as any, its dissent may have
        // no other cause (a program that is yet to be installed, an included file that is yet to be written).
        match judged {
            Ok(output) if output.success() => {
                self.lower(Certainty::Assumed, because);
                Ok(output)
            }
            Ok(_) | Err(_) => {
                self.lower(Certainty::Unknown, because);
                Ok(CommandOutput { code: Some(0), ..CommandOutput::default() })
            }
        }
    }

    fn record(&self, key: &str) -> Result<Option<Vec<u8>>, ModuleError> {
        match self.records.get(key) {
            Some(recorded) => serde_json::to_vec(recorded).map(Some).map_err(|error| ModuleError::host(error.to_string())),
            None => self.base.record(key),
        }
    }

    fn facts(&self) -> &Facts {
        self.base.facts()
    }

    fn now(&self) -> i64 {
        self.base.now()
    }

    fn forecasting(&self) -> bool {
        self.purpose == Purpose::Check
    }

    fn live(&self, _what: &str) -> Result<(), ModuleError> {
        let disturbed = match self.purpose {
            Purpose::Check => &self.stirred,
            Purpose::Apply => &self.changed_by,
        };
        match disturbed {
            Some(because) => Err(ModuleError::unknown(because.clone())),
            None => Ok(()),
        }
    }

    fn may_come(&self, what: &str) -> bool {
        match self.packages_to_come() {
            Some((_, because)) => {
                self.lower(Certainty::Assumed, &format!("{what} is expected to come along: {because}"));
                true
            }
            None => false,
        }
    }

    fn pause(&self, time: Duration) -> Result<(), ModuleError> {
        self.support.pause(time)?;
        self.base.refresh();
        Ok(())
    }

    fn refresh(&self) {
        self.base.refresh();
    }
}

impl Forecast<'_> {
    fn entry_at(&self, path: &Path, follow: bool) -> Result<Option<Entry>, ModuleError> {
        if !self.is_changed() {
            return if follow { self.base.target(path) } else { self.base.entry(path) };
        }
        let found = self.find(path, follow)?;
        match found.what {
            Some(present) if matches!(present.text, Text::Unknown) => {
                self.lower(Certainty::Unknown, &self.reason_of(&found.place));
                Ok(None)
            }
            what => Ok(what.map(|present| present.entry)),
        }
    }
}

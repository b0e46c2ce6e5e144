//! The questions that a host in memory answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Fake, Node};
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, CommandOutput, Facts, Fingerprint, GroupEntry, Inspect, Unit, UserEntry};
use crate::api::resolve::resolve;
use crate::api::types::{Content, Digest, Entry, EntryKind, Owner};
use crate::api::units;

impl Fake {
    /// Returns where `path` lies, as the kernel would find it.
    pub(super) fn locate(&self, path: &Path, follow: bool) -> Result<Option<PathBuf>, ModuleError> {
        resolve(path, follow, &|path| Ok(self.nodes.get(path).map(|node| node.kind.clone())))
    }

    fn node(&self, path: &Path, follow: bool) -> Result<Option<&Node>, ModuleError> {
        Ok(self.locate(path, follow)?.and_then(|place| self.nodes.get(&place)))
    }

    /// Returns how a command would end and what it would do.
    pub(super) fn scripted(&self, command: &Command) -> (CommandOutput, fn(Fake) -> Fake) {
        let known = self.commands.iter().filter(|(head, _, _)| command.argv.starts_with(head)).max_by_key(|(head, _, _)| head.len());
        match known {
            Some((_, output, effect)) => (output.clone(), *effect),
            None => {
                let program = command.argv.first().map_or("", String::as_str);
                (CommandOutput { code: Some(127), stderr: format!("{program}: not found\n"), ..CommandOutput::default() }, |host| host)
            }
        }
    }

    /// Returns the content that a change writes.
    pub(super) fn content_of(&self, content: &Content) -> Option<Vec<u8>> {
        match content {
            Content::Inline(bytes) => Some(bytes.clone()),
            Content::Blob(blob) => self.blobs.get(&blob.digest).cloned(),
        }
    }
}

impl Inspect for Fake {
    fn entry(&self, path: &Path) -> Result<Option<Entry>, ModuleError> {
        Ok(self.node(path, false)?.map(Node::entry))
    }

    fn target(&self, path: &Path) -> Result<Option<Entry>, ModuleError> {
        Ok(self.node(path, true)?.map(Node::entry))
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ModuleError> {
        match self.node(path, true)? {
            Some(node) if node.kind != EntryKind::File => {
                Err(ModuleError::host(format!("cannot read `{}`: it is a {}", path.display(), node.kind.word())))
            }
            Some(node) if node.content.len() as u64 > limit => {
                Err(ModuleError::host(format!("`{}` is larger than {limit} bytes", path.display())))
            }
            Some(node) => Ok(node.content.clone()),
            None => Err(ModuleError::host(format!("cannot read `{}`: no such file or directory", path.display()))),
        }
    }

    fn fingerprint(&self, path: &Path) -> Result<Option<Fingerprint>, ModuleError> {
        let node = self.node(path, true)?.filter(|node| node.kind == EntryKind::File);
        Ok(node.map(|node| Fingerprint::Known(Digest::of(&node.content))))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, ModuleError> {
        let place = self.locate(path, true)?;
        let Some(place) = place.filter(|place| self.nodes.get(place).is_some_and(|node| node.kind == EntryKind::Directory)) else {
            return Err(ModuleError::host(format!("cannot list `{}`: no such directory", path.display())));
        };
        let children = self.nodes.keys().filter(|child| child.parent() == Some(&place));
        Ok(children.filter_map(|child| Some(child.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn user(&self, name: &str) -> Result<Option<UserEntry>, ModuleError> {
        let by_number = || name.parse().ok().and_then(|id| self.users.values().find(|user| user.id == Owner::Id(id)));
        Ok(self.users.get(name).or_else(by_number).cloned())
    }

    fn primary_members(&self, group: &Owner) -> Result<Vec<String>, ModuleError> {
        Ok(self.users.values().filter(|user| user.group == *group).map(|user| user.name.clone()).collect())
    }

    fn group(&self, name: &str) -> Result<Option<GroupEntry>, ModuleError> {
        let by_number = || name.parse().ok().and_then(|id| self.groups.values().find(|group| group.id == Owner::Id(id)));
        Ok(self.groups.get(name).or_else(by_number).cloned())
    }

    fn unit(&self, name: &str) -> Result<Unit, ModuleError> {
        let missing = || Unit {
            load_state: "not-found".into(),
            active_state: "inactive".into(),
            sub_state: "dead".into(),
            result: "success".into(),
            ..Unit::default()
        };
        Ok(self.units.get(&units::full_name(name)).cloned().unwrap_or_else(missing))
    }

    fn unit_log(&self, name: &str) -> Vec<String> {
        self.said.get(&units::full_name(name)).into_iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
    }

    fn kernel_parameter(&self, key: &str) -> Result<Option<String>, ModuleError> {
        Ok(self.parameters.get(key).cloned())
    }

    fn packages(&self, names: &[String]) -> Result<BTreeMap<String, String>, ModuleError> {
        Ok(names.iter().filter_map(|name| Some((name.clone(), self.installed.get(name)?.clone()))).collect())
    }

    fn run(&self, command: &Command) -> Result<CommandOutput, ModuleError> {
        Ok(self.scripted(command).0)
    }

    fn validate(&self, command: &str, path: &Path, content: &Content) -> Result<CommandOutput, ModuleError> {
        if self.content_of(content).is_none() {
            return Err(ModuleError::host(format!("the new content of `{}` is not there", path.display())));
        }
        let argv = command.split_whitespace().map(|word| word.replace("%s", "/tmp/validate"));
        Ok(self.scripted(&Command::new(argv)).0)
    }

    fn record(&self, key: &str) -> Result<Option<Vec<u8>>, ModuleError> {
        Ok(self.records.get(key).cloned())
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn now(&self) -> i64 {
        self.clock / 1_000_000_000
    }

    fn forecasting(&self) -> bool {
        self.forecast
    }

    fn live(&self, _what: &str) -> Result<(), ModuleError> {
        Ok(())
    }
}

//! Sets kernel parameters, now and at each boot.
//!
//! ```lua
//! host:sysctl({ values = { ["net.ipv4.ip_forward"] = 1, ["net.ipv4.ip_local_port_range"] = "10240 65000" } })
//! ```
//!
//! Two things are compared, each by itself: the value that the kernel has now, and the line in `file` that sets it at boot.
//! White space between numbers does not count. Other lines and comments of the file are kept; where it names a parameter twice,
//! the last line counts and is the one that is mended.
//!
//! With `live = false` only the file is managed. A parameter that the kernel does not have is an error, since its module is not
//! loaded or its name is wrong; `ignore_missing` puts up with it and manages the file alone.
//!
//! At boot, files of `/etc/sysctl.d` and its siblings are read in the order of their names. When a later one sets a parameter to
//! another value, there is a warning that names it.
//!
//! Results: `before`, the values that the kernel had, by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::place::{self, Placement};
use crate::api::text::Text;
use crate::api::{Change, Content, Controller, EntryKind, Footprint, Inspect, Module, ModuleError, Proposal, Word};

/// Whose files set parameters at boot.
const FOLDERS: [&str; 4] = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];

/// Arguments of `sysctl`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// A parameter, as `net.ipv4.ip_forward`.
    #[serde(default, alias = "key")]
    name: Option<String>,
    /// Its value.
    #[serde(default)]
    value: Option<Word>,
    /// Several parameters and their values, instead of `name` and `value`.
    #[serde(default)]
    values: BTreeMap<String, Word>,
    /// The file that sets them at boot.
    #[serde(default = "default_file")]
    file: PathBuf,
    /// Whether the running kernel is set, too.
    #[serde(default = "yes")]
    live: bool,
    /// Whether a parameter that the kernel does not have is put up with.
    #[serde(default)]
    ignore_missing: bool,
}

impl Module for Sysctl {
    const NAME: &'static str = "sysctl";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        match (self.name.take(), self.value.take()) {
            (Some(_), _) | (_, Some(_)) if !self.values.is_empty() => {
                return Err(ModuleError::argument("`values` excludes `name` and `value`").at("values"));
            }
            (Some(name), Some(value)) => drop(self.values.insert(name, value)),
            (Some(name), None) => return Err(ModuleError::argument(format!("`{name}` is given no `value`")).at("name")),
            (None, Some(_)) => return Err(ModuleError::argument("`value` is given, but no `name`").at("value")),
            (None, None) if self.values.is_empty() => {
                return Err(ModuleError::argument("no parameter is named").hint("give `name` and `value`, or `values`"));
            }
            (None, None) => {}
        }
        self.file = place::absolute_file(&self.file, "file")?;
        let mut named: BTreeMap<String, Word> = BTreeMap::new();
        for (name, value) in std::mem::take(&mut self.values) {
            let strange =
                name.is_empty() || name.contains(|letter: char| letter.is_whitespace() || letter.is_control() || "=#;*".contains(letter));
            if strange {
                return Err(ModuleError::argument(format!("`{name}` is not the name of a kernel parameter")).at("name"));
            }
            if value.text().contains(['\n', '\0']) {
                return Err(ModuleError::argument(format!("the value of `{name}` has more than one line")).at("value"));
            }
            if named.insert(dotted(&name), value).is_some() {
                return Err(ModuleError::argument(format!("`{name}` is named twice, once with dots and once with slashes")).at("values"));
            }
        }
        self.values = named;
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let mut changes = Vec::new();
        let mut before = Map::new();
        for (key, value) in self.values.iter().filter(|_| self.live) {
            let after = normal(&value.text());
            match host.kernel_parameter(key)? {
                Some(now) => {
                    before.insert(key.clone(), Value::from(normal(&now)));
                    if normal(&now) != after {
                        changes.push(Change::SetKernelParameter { key: key.clone(), before: now, after });
                    }
                }
                None if self.ignore_missing => {}
                None => {
                    return Err(ModuleError::host(format!("the kernel has no parameter `{key}`"))
                        .at("name")
                        .hint("check its name; if its kernel module is loaded later, add `live = false` or `ignore_missing = true`"));
                }
            }
        }
        changes.extend(self.persisted(host)?);
        Ok(Proposal::new(changes).with("before", before).warning(self.overridden(host)?))
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }

    fn reach(&self) -> Footprint {
        Footprint::KernelParameters(self.values.keys().cloned().collect())
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        tests::examples()
    }
}

impl Sysctl {
    /// Returns what the file that counts at boot lacks.
    fn persisted(&self, host: &dyn Inspect) -> Result<Vec<Change>, ModuleError> {
        let now = match host.entry(&self.file)? {
            Some(entry) if entry.kind == EntryKind::File => host.read(&self.file, place::TEXT_LIMIT)?,
            Some(entry) => return Err(place::in_the_way(&self.file, Some(&entry), "file")),
            None => Vec::new(),
        };
        let mut text = Text::parse(&now);
        for (key, value) in &self.values {
            let after = normal(&value.text());
            let line = format!("{key} = {after}");
            let is_this = |(_, (name, _)): &(usize, (String, String))| name == key;
            let found = text.iter().enumerate().filter_map(|(at, line)| Some((at, setting(line)?))).rfind(is_this);
            match found {
                Some((_, (_, now))) if now == after => {}
                Some((at, _)) => text.replace(at, line.as_bytes()),
                None => text.insert(text.len(), line.as_bytes()),
            }
        }
        let after = text.to_bytes();
        if after == now {
            return Ok(Vec::new());
        }
        Placement {
            path: &self.file,
            argument: "file",
            content: Content::Inline(after),
            asked: (&None, &None, &None),
            default_mode: place::FILE_MODE,
            validate: None,
            parents: true,
            secret: false,
        }
        .changes(host)
    }
}

impl Sysctl {
    /// Says which of the values will not last, since a file that is read later at boot sets another one.
    fn overridden(&self, host: &dyn Inspect) -> Result<Vec<String>, ModuleError> {
        let (Some(folder), Some(own)) = (self.file.parent(), self.file.file_name()) else { return Ok(Vec::new()) };
        if !FOLDERS.iter().any(|known| folder == Path::new(known)) {
            return Ok(Vec::new());
        }
        // Of files with the same name, the one of the first folder counts.
        let mut later: BTreeMap<String, PathBuf> = BTreeMap::new();
        for folder in FOLDERS.iter().map(Path::new) {
            if host.target(folder)?.is_none_or(|entry| entry.kind != EntryKind::Directory) {
                continue;
            }
            for name in host.list(folder)? {
                if name.ends_with(".conf") && Path::new(&name).as_os_str() > own {
                    later.entry(name.clone()).or_insert_with(|| folder.join(name));
                }
            }
        }
        let mut found: BTreeMap<String, (PathBuf, String)> = BTreeMap::new();
        for path in later.into_values() {
            let readable = host.target(&path)?.is_some_and(|entry| entry.kind == EntryKind::File && entry.size <= place::TEXT_LIMIT);
            let Some(content) = readable.then(|| host.read(&path, place::TEXT_LIMIT).ok()).flatten() else { continue };
            for (key, value) in Text::parse(&content).iter().filter_map(setting) {
                found.insert(key, (path.clone(), value));
            }
        }
        let differs = |(key, value): (&String, &Word)| {
            let (path, other) = found.get(key).filter(|(_, other)| *other != normal(&value.text()))?;
            Some(format!("at boot, `{}` sets `{key}` to {other} again, after `{}`", path.display(), self.file.display()))
        };
        Ok(self.values.iter().filter_map(differs).collect())
    }
}

/// Reads a line of sysctl's files: a name and a value. A `-` before the name says that a failure does not matter.
fn setting(line: &[u8]) -> Option<(String, String)> {
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    Some((dotted(name.trim().trim_start_matches('-')), normal(value)))
}

/// Returns a parameter's name with dots. As in sysctl(8), whichever of `.` and `/` comes first separates; the other is part of a
/// name then.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => name
            .chars()
            .map(|letter| {
                if letter == '/' {
                    '.'
                } else if letter == '.' {
                    '/'
                } else {
                    letter
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The kernel separates values by tabs where people write spaces.
fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn default_file() -> PathBuf {
    Path::new("/etc/sysctl.d/99-kplay.conf").to_owned()
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;

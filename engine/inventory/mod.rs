//! Hosts, groups and variables: read from YAML, folders, executables or a list, merged as Ansible merges them.
//!
//! Every variable knows the file and line it comes from. Hosts of the same groups share their groups' variables.

mod build;
mod connection;
mod dynamic;
mod host_file;
mod pattern;
mod range;
mod render;
mod source;
#[cfg(test)]
mod tests;
mod variables;
mod vars_files;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Place, Result, nearest};
use crate::secrets::Secrets;

pub use connection::{Defaults, Settings, boolean};
pub use source::{Decrypt, Sources};
pub use variables::{Layer, Owner, Variable, Variables, read_variables};

/// The longest time that anything may be told to take: more than anybody waits, and far less than clocks can hold.
pub const LONGEST_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// All hosts and groups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inventory(Arc<Data>);

#[derive(Debug)]
struct Data {
    hosts: Vec<Host>,
    groups: Vec<Group>,
    host_index: HashMap<String, usize>,
    group_index: HashMap<String, usize>,
    /// What came out of encrypted files, and what is rendered from it.
    secrets: Secrets,
    warnings: Vec<String>,
    sources: Vec<String>,
}

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its number in this inventory.
    pub number: usize,
    /// Whether nobody wrote it down: `localhost`, which is always there but in no group and no listing.
    pub implicit: bool,
    /// The file that names it first, and that file's folder.
    pub source: Option<PathBuf>,
    /// All its groups but `all`, lowest precedence first.
    groups: Arc<Vec<usize>>,
    /// Variables of its groups, lowest first; shared by all hosts of the same groups.
    group_layers: Arc<Vec<Arc<Layer>>>,
    /// Its own variables, lowest first.
    layers: Vec<Arc<Layer>>,
}

/// A group.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Hosts named in it directly, in order.
    hosts: Vec<usize>,
    /// Groups below it, in order.
    children: Vec<usize>,
    /// Its own variables as inventory files give them, lowest first; without those of `group_vars`.
    layers: Vec<Arc<Layer>>,
}

impl Inventory {
    /// Reads and merges all sources. Fails on the first mistake, with its place.
    pub fn load(sources: &Sources<'_>) -> Result<Self> {
        source::load(sources)
    }

    /// Returns the hosts that someone wrote down, in inventory order.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.0.hosts.iter().filter(|host| !host.implicit)
    }

    /// Returns the host called `name`; `localhost` is always there.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.0.host_index.get(name).map(|index| &self.0.hosts[*index])
    }

    /// Returns the host with that number.
    pub fn host_at(&self, number: usize) -> Option<&Host> {
        self.0.hosts.get(number)
    }

    /// Returns the host called `name`, or an error that says which name is near.
    pub fn known_host(&self, name: &str) -> Result<&Host> {
        self.host(name).ok_or_else(|| {
            let error = Diagnostic::user(format!("there is no host `{name}` in the inventory"));
            match nearest(name, self.0.host_index.keys().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`kplay inventory --graph` shows hosts and groups"),
            }
        })
    }

    /// Returns all groups, `all` and `ungrouped` first, then in inventory order.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.0.groups.iter()
    }

    /// Returns the group called `name`.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.0.group_index.get(name).map(|index| &self.0.groups[*index])
    }

    /// Returns the hosts named in the group itself, in order.
    pub fn hosts_of<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Host> {
        group.hosts.iter().map(|index| &self.0.hosts[*index])
    }

    /// Returns the groups right below `group`, in order.
    pub fn children_of<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Group> {
        group.children.iter().map(|index| &self.0.groups[*index])
    }

    /// Returns the hosts of the group and of all groups below it, in inventory order.
    pub fn all_hosts_of<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Host> {
        self.0.descend(group).into_iter().map(|index| &self.0.hosts[index])
    }

    /// Returns the names of the host's groups but `all`, sorted.
    pub fn group_names(&self, host: &Host) -> Vec<&str> {
        let mut names: Vec<_> = host.groups.iter().map(|index| self.0.groups[*index].name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the hosts that `pattern` selects, each once, in inventory order of its parts. An unknown name is an error.
    pub fn select(&self, pattern: &str) -> Result<Vec<&Host>> {
        pattern::select(&self.0, pattern)
    }

    /// Returns the hosts that `pattern` selects, in its order, as far as `limit` selects them too.
    pub fn select_within(&self, pattern: &str, limit: Option<&str>) -> Result<Vec<&Host>> {
        let mut hosts = self.select(pattern)?;
        if let Some(limit) = limit {
            let kept: HashSet<_> = self.select(limit)?.iter().map(|host| host.number).collect();
            hosts.retain(|host| kept.contains(&host.number));
        }
        Ok(hosts)
    }

    /// Returns the value of a host's variable, templates in it rendered; `None` when it is not defined.
    pub fn value(&self, host: &Host, key: &str) -> Result<Option<Value>> {
        render::value(&self.0, host, key).map_err(|error| self.0.secrets.mask_error(error))
    }

    /// Returns all variables of a host, templates rendered.
    pub fn values(&self, host: &Host) -> Result<Map<String, Value>> {
        let mut map = Map::new();
        for key in host.keys() {
            if let Some(value) = self.value(host, &key)? {
                map.insert(key, value);
            }
        }
        Ok(map)
    }

    /// Returns how the host is reached and who tasks act as, from its variables.
    pub fn settings(&self, host: &Host, defaults: &Defaults) -> Result<Settings> {
        connection::settings(self, host, defaults).map_err(|error| self.0.secrets.mask_error(error))
    }

    /// Returns what came out of encrypted files; what is rendered from it is added when that is read.
    pub fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    /// Returns what was found odd but no mistake.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// Returns what was read, as it was named on the command line.
    pub fn sources(&self) -> &[String] {
        &self.0.sources
    }
}

impl Host {
    /// Returns the layers of variables that concern the host, lowest precedence first.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = &Arc<Layer>> {
        self.group_layers.iter().chain(&self.layers)
    }

    /// Returns the names of all variables, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.layers().flat_map(|layer| layer.variables.keys().cloned()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Returns the variable that counts, as it was written.
    pub fn variable(&self, key: &str) -> Option<&Variable> {
        self.layers().rev().find_map(|layer| layer.variables.get(key))
    }

    /// Returns where the variable that counts was written.
    pub fn origin(&self, key: &str) -> Option<Place> {
        self.variable(key).map(Variable::place)
    }

    /// Returns all variables as they were written: what `ansible-inventory --list` shows.
    pub fn raw_values(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for layer in self.layers() {
            map.extend(layer.variables.iter().map(|(key, variable)| (key.clone(), variable.value.clone())));
        }
        map
    }
}

impl Group {
    /// Returns the group's own variables as inventory files give them, as they were written.
    pub fn raw_values(&self) -> Map<String, Value> {
        self.layers.iter().flat_map(|layer| layer.variables.iter().map(|(key, variable)| (key.clone(), variable.value.clone()))).collect()
    }
}

impl Data {
    /// Returns the hosts of `group` and of all groups below it, level by level, each once.
    fn descend(&self, group: &Group) -> Vec<usize> {
        let mut seen_groups = vec![false; self.groups.len()];
        let mut seen_hosts = vec![false; self.hosts.len()];
        let mut hosts = Vec::new();
        let mut level = vec![group];
        while !level.is_empty() {
            let mut next = Vec::new();
            for group in level {
                for &host in &group.hosts {
                    if !std::mem::replace(&mut seen_hosts[host], true) {
                        hosts.push(host);
                    }
                }
                for &child in &group.children {
                    if !std::mem::replace(&mut seen_groups[child], true) {
                        next.push(&self.groups[child]);
                    }
                }
            }
            level = next;
        }
        hosts
    }
}

//! Puts an inventory together from what the sources say, and works out what follows from it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::variables::{Layer, Owner, Variable, Variables};
use super::vars_files::VarsFiles;
use super::{Data, Group, Host, Inventory};
use crate::diagnostic::{Diagnostic, Place, Result};

/// Number of the group `all`.
pub const ALL: usize = 0;
/// Number of the group of hosts that are in no other.
const UNGROUPED: usize = 1;

/// An inventory under construction.
pub struct Builder {
    groups: Vec<GroupDraft>,
    hosts: Vec<HostDraft>,
    group_index: HashMap<String, usize>,
    host_index: HashMap<String, usize>,
    /// The source that is being read; variables of different sources go to different layers.
    source: usize,
    source_path: Option<PathBuf>,
}

#[derive(Default)]
struct GroupDraft {
    name: String,
    hosts: Vec<usize>,
    members: HashSet<usize>,
    children: Vec<usize>,
    /// Parents, and where they claim the group.
    parents: Vec<(usize, Option<Place>)>,
    priority: i64,
    layers: Vec<(usize, Variables)>,
}

struct HostDraft {
    name: String,
    source: Option<PathBuf>,
    groups: Vec<usize>,
    layers: Vec<(usize, Variables)>,
}

impl Builder {
    /// Creates an inventory of the groups `all` and `ungrouped`.
    pub fn new() -> Self {
        let mut builder = Self {
            groups: Vec::new(),
            hosts: Vec::new(),
            group_index: HashMap::new(),
            host_index: HashMap::new(),
            source: 0,
            source_path: None,
        };
        builder.group("all");
        builder.group("ungrouped");
        builder.child(ALL, UNGROUPED, None);
        builder
    }

    /// Says that what follows comes from another source.
    pub fn begin_source(&mut self, path: Option<PathBuf>) {
        self.source += 1;
        self.source_path = path;
    }

    /// Returns the number of the group called `name`, which is made if it is new.
    pub fn group(&mut self, name: &str) -> usize {
        if let Some(&index) = self.group_index.get(name) {
            return index;
        }
        let index = self.groups.len();
        self.groups.push(GroupDraft { name: name.to_owned(), priority: 1, ..GroupDraft::default() });
        self.group_index.insert(name.to_owned(), index);
        index
    }

    /// Returns the number of the host called `name`, which is made if it is new.
    pub fn host(&mut self, name: &str) -> usize {
        if let Some(&index) = self.host_index.get(name) {
            return index;
        }
        let index = self.hosts.len();
        self.hosts.push(HostDraft { name: name.to_owned(), source: self.source_path.clone(), groups: Vec::new(), layers: Vec::new() });
        self.host_index.insert(name.to_owned(), index);
        index
    }

    /// Returns the number of the host called `name`, which is made in `ungrouped` if it is new.
    pub fn lone_host(&mut self, name: &str) -> usize {
        let is_new = !self.host_index.contains_key(name);
        let host = self.host(name);
        if is_new {
            self.member(UNGROUPED, host);
        }
        host
    }

    /// Puts a host into a group.
    pub fn member(&mut self, group: usize, host: usize) {
        if self.groups[group].members.insert(host) {
            self.groups[group].hosts.push(host);
            self.hosts[host].groups.push(group);
        }
    }

    /// Puts a group below another; `place` is where that is said.
    pub fn child(&mut self, parent: usize, child: usize, place: Option<Place>) {
        if !self.groups[parent].children.contains(&child) {
            self.groups[parent].children.push(child);
            self.groups[child].parents.push((parent, place));
        }
    }

    /// Gives a group a variable.
    pub fn group_variable(&mut self, group: usize, name: &str, variable: Variable) -> Result<()> {
        if name == "ansible_group_priority" {
            let text = variable.value.as_str().map_or_else(|| variable.value.to_string(), str::to_owned);
            self.groups[group].priority = text
                .parse()
                .map_err(|_| Diagnostic::user(format!("`{name}` has to be a whole number, not `{text}`")).at(variable.place()))?;
            return Ok(());
        }
        set(&mut self.groups[group].layers, self.source, name, variable);
        Ok(())
    }

    /// Gives a host a variable.
    pub fn host_variable(&mut self, host: usize, name: &str, variable: Variable) {
        set(&mut self.hosts[host].layers, self.source, name, variable);
    }

    /// Works out memberships, precedence and layers. Fails when groups contain each other.
    pub fn finish(mut self, files: &mut VarsFiles<'_>, extra: &Variables, sources: Vec<String>) -> Result<Inventory> {
        for group in 1..self.groups.len() {
            if self.groups[group].parents.is_empty() {
                self.child(ALL, group, None);
            }
        }
        self.settle_ungrouped();
        let depths = self.depths()?;
        let groups = self.group_layers();
        let order = |group: &usize| (depths[*group], self.groups[*group].priority, self.groups[*group].name.clone());
        let extra = (!extra.is_empty()).then(|| Arc::new(Layer { owner: Owner::CommandLine, variables: extra.clone() }));

        let mut shared: HashMap<Vec<usize>, Shared> = HashMap::new();
        let mut hosts = Vec::with_capacity(self.hosts.len() + 1);
        if !self.host_index.contains_key("localhost") {
            self.host_index.insert("localhost".to_owned(), self.hosts.len());
            self.hosts.push(HostDraft { name: "localhost".to_owned(), source: None, groups: Vec::new(), layers: Vec::new() });
        }
        for draft in &self.hosts {
            let mut key = draft.groups.clone();
            key.sort_unstable();
            let common = match shared.get(&key) {
                Some(common) => common.clone(),
                None => {
                    let mut member_of = self.ancestors(&key);
                    member_of.sort_by_cached_key(order);
                    let layers = self.layers_of_groups(&member_of, &groups, files)?;
                    let common = Shared { groups: Arc::new(member_of), layers: Arc::new(layers) };
                    shared.insert(key, common.clone());
                    common
                }
            };
            let mut layers = layers(&draft.layers, &Owner::Host);
            layers.extend(files.of_host(&draft.name)?);
            layers.extend(extra.clone());
            let implicit = draft.groups.is_empty();
            hosts.push(Host {
                name: draft.name.clone(),
                number: hosts.len(),
                implicit,
                source: draft.source.clone(),
                groups: common.groups,
                group_layers: common.layers,
                layers,
            });
        }
        let groups = self
            .groups
            .into_iter()
            .zip(groups)
            .map(|(draft, layers)| Group { name: draft.name, hosts: draft.hosts, children: draft.children, layers })
            .collect();
        let mut warnings = files.warnings();
        let twice = self.host_index.keys().filter(|name| self.group_index.contains_key(*name));
        warnings.extend(twice.map(|name| format!("`{name}` is the name of a group and of a host")));
        warnings.sort_unstable();
        let (host_index, group_index) = (self.host_index, self.group_index);
        let data = Data { hosts, groups, host_index, group_index, secrets: files.secrets(), warnings, sources };
        Ok(Inventory(Arc::new(data)))
    }

    /// Puts hosts of no group into `ungrouped`, and takes all others out of it.
    fn settle_ungrouped(&mut self) {
        for host in 0..self.hosts.len() {
            let grouped = self.hosts[host].groups.iter().any(|group| *group > UNGROUPED);
            if !grouped {
                self.member(UNGROUPED, host);
            } else if self.groups[UNGROUPED].members.remove(&host) {
                self.groups[UNGROUPED].hosts.retain(|member| *member != host);
                self.hosts[host].groups.retain(|group| *group != UNGROUPED);
            }
        }
    }

    /// Returns how far each group is below `all`, by the longest way. Fails when groups contain each other.
    fn depths(&self) -> Result<Vec<usize>> {
        let mut waiting: Vec<usize> = self.groups.iter().map(|group| group.parents.len()).collect();
        let mut depths = vec![0; self.groups.len()];
        let mut ready: Vec<usize> = (0..waiting.len()).filter(|group| waiting[*group] == 0).collect();
        while let Some(group) = ready.pop() {
            for &child in &self.groups[group].children {
                depths[child] = depths[child].max(depths[group] + 1);
                waiting[child] -= 1;
                if waiting[child] == 0 {
                    ready.push(child);
                }
            }
        }
        match (0..waiting.len()).find(|group| waiting[*group] > 0) {
            None => Ok(depths),
            Some(start) => Err(self.cycle(start, &waiting)),
        }
    }

    /// Walks up from a group that is in a cycle or below one, and names the cycle.
    fn cycle(&self, start: usize, waiting: &[usize]) -> Box<Diagnostic> {
        let mut path = vec![start];
        let mut place = None;
        loop {
            let last = path[path.len() - 1];
            let Some((parent, at)) = self.groups[last].parents.iter().find(|(parent, _)| waiting[*parent] > 0) else { break };
            place = at.clone().or(place);
            if let Some(begin) = path.iter().position(|group| group == parent) {
                path.drain(..begin);
                path.push(*parent);
                break;
            }
            path.push(*parent);
        }
        path.reverse();
        let names: Vec<_> = path.iter().map(|group| format!("`{}`", self.groups[*group].name)).collect();
        let error = Diagnostic::user(format!("groups contain each other: {}", names.join(" contains ")));
        match place {
            Some(place) => error.at(place),
            None => error,
        }
    }

    /// Returns all groups that are `direct` or above them, without `all`.
    fn ancestors(&self, direct: &[usize]) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut waiting = direct.to_vec();
        while let Some(group) = waiting.pop() {
            if group != ALL && seen.insert(group) {
                waiting.extend(self.groups[group].parents.iter().map(|(parent, _)| *parent));
            }
        }
        seen.into_iter().collect()
    }

    fn group_layers(&self) -> Vec<Vec<Arc<Layer>>> {
        self.groups.iter().map(|group| layers(&group.layers, &Owner::Group(group.name.clone()))).collect()
    }

    /// Returns the layers of `all` and of `groups`, which are sorted: first what inventory files say, then `group_vars`.
    fn layers_of_groups(&self, groups: &[usize], own: &[Vec<Arc<Layer>>], files: &mut VarsFiles<'_>) -> Result<Vec<Arc<Layer>>> {
        let mut layers = own[ALL].clone();
        layers.extend(groups.iter().flat_map(|group| own[*group].iter().cloned()));
        layers.extend(files.of_groups(&["all"])?);
        let names: Vec<_> = groups.iter().map(|group| self.groups[*group].name.as_str()).collect();
        layers.extend(files.of_groups(&names)?);
        Ok(layers)
    }
}

#[derive(Clone)]
struct Shared {
    groups: Arc<Vec<usize>>,
    layers: Arc<Vec<Arc<Layer>>>,
}

fn set(layers: &mut Vec<(usize, Variables)>, source: usize, name: &str, variable: Variable) {
    match layers.last_mut() {
        Some((last, variables)) if *last == source => {
            variables.insert(name.to_owned(), variable);
        }
        _ => layers.push((source, Variables::from([(name.to_owned(), variable)]))),
    }
}

fn layers(drafts: &[(usize, Variables)], owner: &Owner) -> Vec<Arc<Layer>> {
    drafts.iter().map(|(_, variables)| Arc::new(Layer { owner: owner.clone(), variables: variables.clone() })).collect()
}

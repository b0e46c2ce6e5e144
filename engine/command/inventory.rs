//! `kplay inventory`: hosts, groups and variables as `ansible-inventory` prints them.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli;
use crate::config::{Environment, Hosts};
use crate::diagnostic::{Diagnostic, Result, exit_code, nearest};
use crate::inventory::{Group, Host, Inventory};
use crate::report::printer::Printer;

/// Prints what was asked for.
pub fn run(arguments: &cli::Inventory, environment: &Environment, printer: Printer) -> Result<u8> {
    let hosts = Hosts::new(&arguments.hosts, &cli::Connection::default(), environment)?;
    // As a playbook in this folder would see it.
    let inventory = hosts.read(Some(Path::new(".")))?;
    for warning in inventory.warnings() {
        printer.warning(warning);
    }
    let text = if let Some(name) = &arguments.host {
        let host = inventory.known_host(name)?;
        pretty(&masked(&inventory, sorted(&Value::Object(inventory.values(host)?))))
    } else if let Some(name) = &arguments.graph {
        graph(&inventory, find_group(&inventory, name)?)
    } else {
        let limit = hosts.limit.as_deref().map(|limit| inventory.select(limit)).transpose()?;
        let shown = limit.map(|hosts| hosts.into_iter().map(|host| host.number).collect());
        pretty(&masked(&inventory, sorted(&list(&inventory, shown.as_ref()))))
    };
    printer.text(&text);
    Ok(exit_code::DONE)
}

fn find_group<'i>(inventory: &'i Inventory, name: &str) -> Result<&'i Group> {
    inventory.group(name).ok_or_else(|| {
        let error = Diagnostic::user(format!("there is no group `{name}` in the inventory"));
        match nearest(name, inventory.groups().map(|group| group.name.as_str())) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        }
    })
}

/// Names that Ansible sets itself, so that it does not print them.
const INTERNAL: &[&str] = &[
    "ansible_async_path",
    "ansible_collection_name",
    "ansible_config_file",
    "ansible_dependent_role_names",
    "ansible_diff_mode",
    "ansible_facts",
    "ansible_forks",
    "ansible_inventory_sources",
    "ansible_limit",
    "ansible_play_batch",
    "ansible_play_hosts",
    "ansible_play_hosts_all",
    "ansible_play_role_names",
    "ansible_playbook_python",
    "ansible_role_name",
    "ansible_role_names",
    "ansible_run_tags",
    "ansible_skip_tags",
    "ansible_verbosity",
    "ansible_version",
    "group_names",
    "groups",
    "hostvars",
    "inventory_dir",
    "inventory_file",
    "inventory_hostname",
    "inventory_hostname_short",
    "play_hosts",
    "playbook_dir",
    "role_name",
    "role_names",
    "role_path",
    "role_uuid",
];

/// Returns the inventory in the form of `ansible-inventory --list`: variables as they are written, merged host by host.
fn list(inventory: &Inventory, shown: Option<&HashSet<usize>>) -> Value {
    let is_shown = |host: &Host| shown.is_none_or(|shown| shown.contains(&host.number));
    let mut groups = BTreeMap::new();
    if let Some(all) = inventory.group("all") {
        add_group(inventory, all, &is_shown, &mut groups);
    }
    let mut variables = Map::new();
    for host in inventory.hosts().filter(|host| is_shown(host)) {
        let mut values = host.raw_values();
        values.retain(|name, _| !INTERNAL.contains(&name.as_str()));
        if !values.is_empty() {
            variables.insert(host.name.clone(), Value::Object(values));
        }
    }
    let mut document: Map<String, Value> = groups.into_iter().collect();
    document.insert("_meta".to_owned(), json!({ "hostvars": variables, "profile": "inventory_legacy" }));
    Value::Object(document)
}

/// Adds a group and those below it; a group with nothing in it is left out, as Ansible does.
fn add_group(inventory: &Inventory, group: &Group, is_shown: &dyn Fn(&Host) -> bool, groups: &mut BTreeMap<String, Value>) {
    let mut entry = Map::new();
    if group.name != "all" {
        let hosts: Vec<_> = inventory.hosts_of(group).filter(|host| is_shown(host)).map(|host| host.name.as_str()).collect();
        if !hosts.is_empty() {
            entry.insert("hosts".to_owned(), json!(hosts));
        }
    }
    let children: Vec<_> = inventory.children_of(group).map(|child| child.name.as_str()).collect();
    if !children.is_empty() {
        entry.insert("children".to_owned(), json!(children));
    }
    if !entry.is_empty() {
        groups.insert(group.name.clone(), Value::Object(entry));
    }
    for child in inventory.children_of(group) {
        if !groups.contains_key(&child.name) {
            add_group(inventory, child, is_shown, groups);
        }
    }
}

/// Draws the tree of groups.
fn graph(inventory: &Inventory, group: &Group) -> String {
    let mut text = String::new();
    draw(inventory, group, 0, &mut text);
    text
}

fn draw(inventory: &Inventory, group: &Group, depth: usize, text: &mut String) {
    let line = |depth: usize, name: &str| if depth == 0 { format!("{name}\n") } else { format!("{}--{name}\n", "  |".repeat(depth)) };
    *text += &line(depth, &format!("@{}:", group.name));
    for child in inventory.children_of(group) {
        draw(inventory, child, depth + 1, text);
    }
    if group.name != "all" {
        for host in inventory.hosts_of(group) {
            *text += &line(depth + 1, &host.name);
        }
    }
}

/// Sorts all keys, so that the output is the same however the files are ordered.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let ordered: BTreeMap<_, _> = entries.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// Hides what came out of encrypted files.
fn masked(inventory: &Inventory, mut value: Value) -> Value {
    inventory.secrets().mask_value(&mut value);
    value
}

fn pretty(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing a value into memory cannot fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

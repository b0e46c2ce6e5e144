//! The YAML inventory: groups with `hosts`, `vars` and `children`.

use super::build::Builder;
use super::range;
use super::variables::Variable;
use crate::diagnostic::{Result, nearest};
use crate::yaml::{Document, Key, Node, Value};

const SECTIONS: [&str; 3] = ["hosts", "vars", "children"];

/// Adds what an inventory file says.
pub fn add(builder: &mut Builder, document: &Document) -> Result<()> {
    let groups = match &document.root.value {
        Value::Map(groups) => groups,
        Value::Null => {
            return Err(document.error(document.root.span, "the inventory is empty").hint("begin with `all:`, `hosts:` and a host name"));
        }
        _ => {
            return Err(document
                .error(document.root.span, format!("an inventory is a mapping of groups, not {}", document.root.kind()))
                .hint("an INI inventory is converted by `ansible-inventory -i FILE --list --yaml --export`"));
        }
    };
    for (key, node) in groups {
        if key.name == "plugin" {
            return Err(document
                .error(key.span, "this file configures an inventory plugin of Ansible's, which kplay does not run")
                .hint("write what the plugin finds into a file: `ansible-inventory -i FILE --list --yaml --export`"));
        }
        if SECTIONS.contains(&key.name.as_str()) {
            return Err(document
                .error(key.span, format!("`{}` stands at the top of the file, where group names are expected", key.name))
                .hint("put it below a group: `all:`"));
        }
        group(builder, document, key, node)?;
    }
    Ok(())
}

fn group(builder: &mut Builder, document: &Document, key: &Key, node: &Node) -> Result<usize> {
    if !key.is_string || key.name.is_empty() {
        return Err(document.error(key.span, format!("a group name has to be a string, not `{}`", key.name)).hint("quote it"));
    }
    let group_number = builder.group(&key.name);
    let sections = match &node.value {
        Value::Null => return Ok(group_number),
        Value::Map(sections) => sections,
        _ => {
            return Err(document
                .error(node.span, format!("the group `{}` has to be a mapping, not {}", key.name, node.kind()))
                .hint("a group has `hosts`, `vars` and `children`"));
        }
    };
    for (section, node) in sections {
        match section.name.as_str() {
            "vars" => {
                for (name, value) in entries(document, section, node)? {
                    builder.group_variable(group_number, &name.name, Variable::new(document, name.span.line, value))?;
                }
            }
            "children" => {
                if let Value::String(name) = &node.value {
                    let child = builder.group(name);
                    builder.child(group_number, child, Some(document.place(node.span)));
                }
                for (name, value) in entries(document, section, node)? {
                    let child = group(builder, document, name, value)?;
                    builder.child(group_number, child, Some(document.place(name.span)));
                }
            }
            "hosts" => {
                if let Value::String(name) = &node.value {
                    let key = Key { name: name.clone(), span: node.span, is_string: true };
                    hosts(builder, document, group_number, &key, None)?;
                }
                for (name, value) in entries(document, section, node)? {
                    hosts(builder, document, group_number, name, Some(value))?;
                }
            }
            unknown => {
                let error = document.error(section.span, format!("unknown key `{unknown}` in the group `{}`", key.name));
                return Err(match nearest(unknown, SECTIONS) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint("a group has `hosts`, `vars` and `children`; variables go below `vars`"),
                });
            }
        }
    }
    Ok(group_number)
}

/// Returns the entries of a section; nothing and a lone name count as none.
fn entries<'n>(document: &Document, section: &Key, node: &'n Node) -> Result<&'n [(Key, Node)]> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        Value::String(_) if section.name != "vars" => Ok(&[]),
        _ => {
            let example = if section.name == "vars" { "`name: value`" } else { "`name:`, with a colon and without a dash" };
            Err(document
                .error(node.span, format!("`{}` has to be a mapping, not {}", section.name, node.kind()))
                .hint(format!("write one {example} a line")))
        }
    }
}

/// Adds the hosts that a key stands for, with their variables.
fn hosts(builder: &mut Builder, document: &Document, group: usize, key: &Key, node: Option<&Node>) -> Result<()> {
    if !key.is_string || key.name.is_empty() {
        return Err(document.error(key.span, format!("a host name has to be a string, not `{}`", key.name)).hint("quote it"));
    }
    let (names, port) =
        range::expand(&key.name).map_err(|why| document.error(key.span, format!("`{}` is no host name: {why}", key.name)))?;
    let variables = match node.map(|node| (&node.value, node)) {
        None | Some((Value::Null, _)) => &[][..],
        Some((Value::Map(entries), _)) => entries,
        Some((_, node)) => {
            return Err(document
                .error(node.span, format!("the variables of `{}` have to be a mapping, not {}", key.name, node.kind()))
                .hint("write one `name: value` a line"));
        }
    };
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| (name.name.as_str(), Variable::new(document, name.span.line, value))).collect();
    for name in names {
        let host = builder.host(&name);
        if let Some(port) = port {
            let node = Node { value: Value::Number(port.into()), span: key.span, literal: false };
            builder.host_variable(host, "ansible_port", Variable::new(document, key.span.line, &node));
        }
        builder.member(group, host);
        for (name, variable) in &variables {
            builder.host_variable(host, name, variable.clone());
        }
    }
    Ok(())
}

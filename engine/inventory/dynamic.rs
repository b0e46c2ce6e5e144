//! What an inventory executable prints for `--list`: groups, and host variables under `_meta`.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::build::Builder;
use super::variables::Variable;
use crate::diagnostic::{Diagnostic, Place, Result};

/// Adds the JSON that `program` printed. `ask` runs it with `--host NAME`, for programs that print no `_meta`.
pub fn add(builder: &mut Builder, program: &Path, text: &str, ask: &dyn Fn(&str) -> Result<String>) -> Result<()> {
    let here = Place::line(program, 0);
    let wrong = |message: String| Diagnostic::user(format!("the inventory program printed {message}")).at(here.clone());
    let groups: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| wrong(format!("something that is no JSON object: {error}")))?;
    let variable = |value: &Value| Variable { value: value.clone(), literal: false, secret: false, file: program.into(), line: 0 };
    let (mut named, mut seen) = (Vec::new(), HashSet::new());
    let mut host_variables = None;
    for (name, group) in &groups {
        if name == "_meta" {
            host_variables = group.get("hostvars").and_then(Value::as_object);
            continue;
        }
        let number = builder.group(name);
        let listed = match group {
            Value::Array(_) => Some(group),
            Value::Object(sections) => {
                for (key, value) in sections {
                    match (key.as_str(), value) {
                        ("hosts", Value::Array(_)) => {}
                        ("vars", Value::Object(variables)) => {
                            for (key, value) in variables {
                                builder.group_variable(number, key, variable(value))?;
                            }
                        }
                        ("children", Value::Array(children)) => {
                            for child in children {
                                let child = child.as_str().ok_or_else(|| wrong(format!("a child of `{name}` that is no string")))?;
                                let child = builder.group(child);
                                builder.child(number, child, Some(here.clone()));
                            }
                        }
                        ("hosts" | "children", _) => return Err(wrong(format!("`{name}.{key}` that is no list"))),
                        ("vars", _) => return Err(wrong(format!("`{name}.vars` that is no object"))),
                        _ => return Err(wrong(format!("`{name}.{key}`; a group has `hosts`, `vars` and `children`"))),
                    }
                }
                sections.get("hosts")
            }
            _ => return Err(wrong(format!("a group `{name}` that is neither an object nor a list"))),
        };
        for host in listed.and_then(Value::as_array).into_iter().flatten() {
            let host = host.as_str().ok_or_else(|| wrong(format!("a host of `{name}` that is no string")))?;
            let number_of_host = builder.host(host);
            builder.member(number, number_of_host);
            if seen.insert(number_of_host) {
                named.push((number_of_host, host));
            }
        }
    }
    for (number, name) in named {
        let asked;
        let variables = match host_variables {
            Some(all) => all.get(name),
            None => {
                let text = ask(name)?;
                let text = if text.trim().is_empty() { "{}" } else { text.trim() };
                asked = serde_json::from_str::<Value>(text)
                    .map_err(|error| wrong(format!("something that is no JSON for `--host {name}`: {error}")))?;
                Some(&asked)
            }
        };
        match variables {
            None => {}
            Some(Value::Object(variables)) => {
                for (key, value) in variables {
                    builder.host_variable(number, key, variable(value));
                }
            }
            Some(_) => return Err(wrong(format!("variables of `{name}` that are no object"))),
        }
    }
    Ok(())
}

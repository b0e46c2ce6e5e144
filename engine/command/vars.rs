//! `kplay vars`: which value a host's variable has, where it comes from, and which values it overrides.

use std::path::Path;

use serde_json::Value;

use crate::cli;
use crate::config::{Environment, Hosts};
use crate::diagnostic::{Diagnostic, Result, exit_code, nearest};
use crate::inventory::{Host, Inventory, Variable};
use crate::report::printer::Printer;
use crate::secrets::MASK;

/// Explains one variable, or lists all.
pub fn run(arguments: &cli::Vars, environment: &Environment, printer: Printer) -> Result<u8> {
    let hosts = Hosts::new(&arguments.hosts, &cli::Connection::default(), environment)?;
    // As a playbook in this folder would see it.
    let inventory = hosts.read(Some(Path::new(".")))?;
    let host = inventory.known_host(&arguments.host)?;
    let text = match &arguments.key {
        Some(key) => explain(&inventory, host, key)?,
        None => host.keys().iter().map(|key| explain(&inventory, host, key)).collect::<Result<_>>()?,
    };
    printer.text(&inventory.secrets().mask(&text));
    Ok(exit_code::DONE)
}

/// Returns the value that counts, and below it every place that gives one, the strongest first.
fn explain(inventory: &Inventory, host: &Host, key: &str) -> Result<String> {
    let Some(value) = inventory.value(host, key)? else {
        let error = Diagnostic::user(format!("`{key}` is not defined for `{}`", host.name));
        return Err(match nearest(key, host.keys().iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("`kplay vars {}` lists all variables", host.name)),
        });
    };
    let givers: Vec<_> = host.layers().rev().filter_map(|layer| Some((layer, layer.variables.get(key)?))).collect();
    let secret = givers.first().is_some_and(|(_, variable)| variable.secret);
    let mut text = format!("{key} = {}\n", if secret { MASK.to_owned() } else { shown(&value) });
    let width = givers.iter().map(|(_, variable)| place(variable).len()).max().unwrap_or(0);
    for (index, (layer, variable)) in givers.iter().enumerate() {
        let note = match index {
            0 if !secret && variable.value != value => format!(", written as {}", shown(&variable.value)),
            0 => String::new(),
            _ if variable.secret => ", overridden: ********".to_owned(),
            _ => format!(", overridden: {}", shown(&variable.value)),
        };
        text += &format!("    {:width$}  {}{note}\n", place(variable), layer.owner);
    }
    Ok(text)
}

fn place(variable: &Variable) -> String {
    match variable.line {
        0 => variable.file.display().to_string(),
        line => format!("{}:{line}", variable.file.display()),
    }
}

fn shown(value: &Value) -> String {
    value.to_string()
}

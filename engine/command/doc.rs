//! `kplay doc`: manuals of modules and roles, made from what the code itself declares.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kplay_modules::REGISTRY;
use kplay_modules::api::module::Entry;
use serde_json::Value;

use crate::cli;
use crate::diagnostic::{Diagnostic, Result, exit_code, nearest};
use crate::lua::{OPTION_NAMES, ParamManual, RoleManual, describe_role, roles_below};
use crate::report::printer::Printer;

/// Width that texts are folded to.
const WIDTH: usize = 100;

/// Shows the manual of a module or role, or lists them all.
pub fn run(arguments: &cli::Doc, printer: Printer) -> Result<u8> {
    let text = match &arguments.name {
        None => overview(),
        // A module and the role that is built on it may have one name.
        Some(name) => match (kplay_modules::find(name), role_folder(name)) {
            (Some(module), Ok(folder)) => format!("{}\n{}", of_module(module), of_role(&describe_role(&folder)?)),
            (Some(module), Err(_)) => of_module(module),
            (None, folder) => of_role(&describe_role(&folder?)?),
        },
    };
    printer.text(&text);
    Ok(exit_code::DONE)
}

/// Folders that hold roles, seen from the working directory.
fn role_paths() -> Vec<PathBuf> {
    ["roles", "../roles", "playbooks/roles"].map(PathBuf::from).to_vec()
}

fn role_folder(name: &str) -> Result<PathBuf> {
    let named = Path::new(name);
    let candidates = std::iter::once(named.to_owned()).chain(role_paths().into_iter().map(|path| path.join(name)));
    if let Some(folder) = candidates.into_iter().find(|folder| folder.join("role.lua").is_file()) {
        return Ok(folder);
    }
    let roles = roles_below(&role_paths());
    let known = REGISTRY.iter().map(|module| module.name).chain(roles.iter().map(String::as_str));
    let error = Diagnostic::user(format!("there is no module or role `{name}`"));
    Err(match nearest(name, known) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`kplay doc` lists all; a role is also found by its folder"),
    })
}

fn overview() -> String {
    let mut text = "Modules:\n".to_owned();
    let width = REGISTRY.iter().map(|module| module.name.len()).max().unwrap_or(0);
    for module in REGISTRY {
        let manual = kplay_modules::manual(module.name).unwrap_or_default();
        let _ = writeln!(text, "  {:width$}  {}", module.name, first_sentence(&manual));
    }
    let roles = roles_below(&role_paths());
    if !roles.is_empty() {
        text += "\nRoles:\n";
        let width = roles.iter().map(String::len).max().unwrap_or(0);
        for name in &roles {
            let summary = role_folder(name).and_then(|folder| describe_role(&folder)).map(|role| role.summary);
            let _ = writeln!(text, "  {name:width$}  {}", summary.unwrap_or_else(|error| format!("(cannot be read: {error})")));
        }
    }
    text + "\n`kplay doc NAME` shows a manual.\n"
}

fn first_sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.find(". ").map_or(line, |end| &line[..=end])
}

fn of_module(module: &Entry) -> String {
    let mut text = format!("{}\n\n", kplay_modules::manual(module.name).unwrap_or_default().trim_end());
    let schema = (module.schema)().to_value();
    text += "Arguments:\n";
    arguments(&mut text, "", &schema, &schema);
    let _ = write!(text, "\nOptions, in a second table: {}.\n", OPTION_NAMES.join(", "));
    text
}

/// Writes the fields of a table, and those of the tables in it, each with the way to it.
fn arguments(text: &mut String, path: &str, table: &Value, root: &Value) {
    let required: Vec<&str> = table.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in table.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let default = field.get("default").filter(|value| !is_empty(value)).cloned();
        let mut traits = vec![type_of(field, root)];
        traits.extend(required.contains(&name.as_str()).then(|| "required".to_owned()));
        traits.extend(default.map(|value| format!("default {value}")));
        let name = format!("{path}{name}");
        entry(text, &name, &traits.join(", "), field.get("description").and_then(Value::as_str).unwrap_or_default());
        for (inner, path) in [("additionalProperties", format!("{name}.NAME.")), ("items", format!("{name}[N]."))] {
            arguments(text, &path, field.get(inner).unwrap_or(&Value::Null), root);
        }
    }
}

fn of_role(role: &RoleManual) -> String {
    let mut text =
        format!("Role {} ({}): {}\n", role.name, role.folder.display(), if role.summary.is_empty() { "no summary" } else { &role.summary });
    if !role.readme.is_empty() {
        let _ = writeln!(text, "\n{}", role.readme);
    }
    if role.params.is_empty() {
        return text + "\nIt has no parameters.\n";
    }
    text += "\nParameters:\n";
    for param in &role.params {
        entry(&mut text, &param.name, &traits(param), &param.doc);
    }
    text
}

/// Returns what a role says of a parameter besides its purpose: `string, default "etcd"`.
fn traits(param: &ParamManual) -> String {
    let ParamManual { kind, required, secret, default, choices, .. } = param;
    let mut traits = vec![kind.clone()];
    traits.extend(required.then(|| "required".to_owned()));
    traits.extend(secret.then(|| "secret".to_owned()));
    traits.extend(default.as_ref().map(|value| format!("default {value}")));
    if !choices.is_empty() {
        traits.push(format!("one of {}", choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    traits.join(", ")
}

/// Writes one argument: name and traits on a line, the description folded below.
fn entry(text: &mut String, name: &str, traits: &str, description: &str) {
    let _ = writeln!(text, "  {name}  ({traits})");
    for line in fold(description, WIDTH - 6) {
        let _ = writeln!(text, "      {line}");
    }
}

fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns a schema's type in a user's words.
fn type_of(schema: &Value, root: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#')) {
        return root.pointer(name).map_or_else(|| "any".to_owned(), |target| type_of(target, root));
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return choices.iter().filter(|choice| !choice.is_null()).map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    }
    if let Some(only) = schema.get("const") {
        return only.to_string();
    }
    if let Some(options) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
        let mut kinds: Vec<_> = options.iter().map(|option| type_of(option, root)).filter(|kind| kind != "nil").collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    let words = match schema.get("type") {
        Some(Value::String(word)) => vec![word.as_str()],
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        _ => vec!["any"],
    };
    let shown = |word: &str| match word {
        "array" => match schema.get("items") {
            Some(items) => format!("list of {}", type_of(items, root)),
            None => "list".to_owned(),
        },
        "object" => "table".to_owned(),
        "null" => "nil".to_owned(),
        other => other.to_owned(),
    };
    words.into_iter().filter(|word| words_count(schema) == 1 || *word != "null").map(shown).collect::<Vec<_>>().join(" or ")
}

fn words_count(schema: &Value) -> usize {
    schema.get("type").and_then(Value::as_array).map_or(1, Vec::len)
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_a_manual_and_described_arguments() {
        for module in REGISTRY {
            let manual = kplay_modules::manual(module.name).unwrap_or_default();
            assert!(manual.contains(&format!("host:{}(", module.name)), "the manual of `{}` shows no example", module.name);
            let schema = (module.schema)().to_value();
            for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                assert!(field.get("description").is_some(), "`{name}` of `{}` is not described", module.name);
                assert!(!type_of(field, &schema).is_empty(), "`{name}` of `{}` has no type", module.name);
            }
        }
    }

    #[test]
    fn fields_of_tables_are_described_with_the_way_to_them() {
        let manual = of_module(kplay_modules::find("keepalived").unwrap());
        for line in [
            "  instances  (table, required)\n",
            "  instances.NAME.interface  (string, required)\n      The network interface",
            "  instances.NAME.peers[N].address  (string, required)\n      Its own address.\n",
            "  scripts.NAME.interval  (integer, default 2)\n",
        ] {
            assert!(manual.contains(line), "{line}\n{manual}");
        }
    }

    #[test]
    fn a_role_is_described_by_what_it_declares() {
        let folder = tempfile::tempdir().unwrap();
        let text = "return { summary = \"A server.\", run = function() end, params = {
            port = { type = \"integer\", default = 6443, doc = \"Where it listens.\" },
            mode = { choices = { \"a\", \"b\" }, required = true },
            hosts = { type = \"list\", items = { type = \"string\" } } } }";
        std::fs::create_dir(folder.path().join("api")).unwrap();
        std::fs::write(folder.path().join("api/role.lua"), text).unwrap();
        let readme = "# api\n\nServes.\n\n```lua\nhost:role(\"api\")\n```\n\n## Parameters\n\n| port |\n";
        std::fs::write(folder.path().join("api/README.md"), readme).unwrap();
        let shown = of_role(&describe_role(&folder.path().join("api")).unwrap()).replace(&*folder.path().to_string_lossy(), "X");
        insta::assert_snapshot!(shown, @r#"
        Role api (X/api): A server.

        Serves.

        ```lua
        host:role("api")
        ```

        Parameters:
          hosts  (list of string)
          mode  (any, required, one of "a", "b")
          port  (integer, default 6443)
              Where it listens.
        "#);
    }
}

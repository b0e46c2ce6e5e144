//! Roles: folders of tasks with declared parameters, checked like the arguments of a module.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::{Function, Table, Value as Lua};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::arguments::{Problem, from_serde};
use super::classes::Classes;
use super::convert::{ToJson, kind};
use super::source::{Part, Segment, show_path};
use crate::diagnostic::{Diagnostic, Place, Result};
use kplay_modules::api::ModuleError;

/// A role that has been loaded.
pub(super) struct Role {
    pub name: String,
    pub folder: PathBuf,
    pub summary: String,
    pub params: Vec<(String, Param)>,
    pub run: Function,
}

/// A declared parameter, or what the items of one are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Param {
    /// What it must be.
    pub r#type: Type,
    /// Its value when none is given.
    pub default: Option<Value>,
    /// What it is for.
    pub doc: String,
    /// Whether it must be given.
    pub required: bool,
    /// The only values that it may have.
    pub choices: Vec<Value>,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// What the items of a list, or the values of a map, must be.
    pub items: Option<Box<Param>>,
}

/// Types of parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Type {
    String,
    Integer,
    Number,
    Boolean,
    List,
    Map,
    #[default]
    Any,
}

impl Type {
    fn described(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::List => "a list",
            Self::Map => "a table of names and values",
            Self::Any => "anything",
        }
    }

    /// Returns the word that declares it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::List => "list",
            Self::Map => "map",
            Self::Any => "any",
        }
    }
}

/// Returns where a role may lie: `roles/` beside the playbook, `roles/` one folder up, then the paths of the command line.
pub(super) fn search_paths(playbook_folder: &Path, extra: &[PathBuf]) -> Vec<PathBuf> {
    let above = match playbook_folder.parent() {
        Some(parent) => parent.join("roles"),
        None => Path::new("../roles").to_owned(),
    };
    [playbook_folder.join("roles"), above].into_iter().chain(extra.iter().cloned()).collect()
}

/// Returns the folder of the role called `name`. The error lists where it looked and names the nearest role.
pub(super) fn find(name: &str, paths: &[PathBuf]) -> Result<PathBuf> {
    let wrong = name.is_empty()
        || !name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.'))
        || name.starts_with('.');
    if wrong {
        return Err(Diagnostic::user(format!("`{name}` is no name of a role")).hint("a role is named by its folder below `roles/`"));
    }
    if let Some(folder) = paths.iter().map(|path| path.join(name)).find(|folder| folder.join("role.lua").is_file()) {
        return Ok(folder);
    }
    let names = list(paths);
    let error = Diagnostic::user(format!("there is no role `{name}`"));
    let error = error.details(paths.iter().map(|path| format!("looked for {}", path.join(name).join("role.lua").display())));
    Err(super::error::suggest(error, name, names.iter().map(String::as_str)))
}

/// Returns the names of all roles below `paths`, sorted.
#[expect(clippy::disallowed_methods, reason = "roles are folders of the user's")]
pub(super) fn list(paths: &[PathBuf]) -> Vec<String> {
    let folders = paths.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten();
    let mut names: Vec<_> = folders
        .filter(|entry| entry.path().join("role.lua").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

const FIELDS: [&str; 3] = ["summary", "params", "run"];

impl Role {
    /// Reads the table that a role's file returned. A problem's path leads into that table.
    pub(super) fn read(classes: &Classes, name: &str, folder: &Path, returned: &Lua) -> std::result::Result<Self, Problem> {
        let whole = |message: String| Problem::new(Vec::new(), Part::Value, message);
        let Lua::Table(table) = returned else {
            return Err(whole(format!("role `{name}` must return a table, not {}", kind(returned)))
                .hint("end the file with `return { summary = …, params = { … }, run = function(host, p) … end }`"));
        };
        let mut unknown = Vec::new();
        let walked = table.for_each(|key: Lua, _: Lua| {
            match &key {
                Lua::String(key) if FIELDS.contains(&&*key.to_string_lossy()) => {}
                Lua::String(key) => unknown.push(key.to_string_lossy()),
                other => unknown.push(kind(other).to_owned()),
            }
            Ok(())
        });
        unknown.sort_unstable();
        if let (Some(field), Ok(())) = (unknown.first(), walked) {
            let path = vec![Segment::Key(field.clone())];
            return Err(Problem::new(path, Part::Key, format!("unknown field `{field}` of role `{name}`")).suggest(field, FIELDS));
        }
        let get = |field: &str| table.raw_get::<Lua>(field).unwrap_or(Lua::Nil);
        let Lua::Function(run) = get("run") else {
            return Err(whole(format!("role `{name}` has no function `run`")).hint("add `run = function(host, p) … end`"));
        };
        let summary = match get("summary") {
            Lua::Nil => String::new(),
            Lua::String(text) => text.to_string_lossy(),
            other => {
                let path = vec![Segment::Key("summary".to_owned())];
                return Err(Problem::new(path, Part::Value, format!("`summary` must be a string, not {}", kind(&other))));
            }
        };
        let params = read_params(classes, name, &get("params"))?;
        Ok(Self { name: name.to_owned(), folder: folder.to_owned(), summary, params, run })
    }
}

fn read_params(classes: &Classes, role: &str, value: &Lua) -> std::result::Result<Vec<(String, Param)>, Problem> {
    let at = |rest: Vec<Segment>| std::iter::once(Segment::Key("params".to_owned())).chain(rest).collect::<Vec<_>>();
    let json = ToJson::new(classes).value(value).map_err(|mut bad| {
        bad.path = at(bad.path);
        Problem::from_bad(bad, &format!("role `{role}`"))
    })?;
    let fields = match json {
        Value::Null => Map::new(),
        Value::Object(fields) => fields,
        _ => return Err(Problem::new(at(Vec::new()), Part::Value, "`params` must be a table of names and declarations")),
    };
    let mut params = Vec::new();
    for (name, declaration) in fields {
        let mut param: Param = serde_path_to_error::deserialize(declaration).map_err(|error| {
            let path = error.path().to_string();
            let error = ModuleError::argument(error.into_inner().to_string()).at(&path);
            let mut problem = from_serde(&error, &format!("parameter `{name}` of role `{role}`"));
            problem.path = at(std::iter::once(Segment::Key(name.clone())).chain(problem.path).collect());
            problem
        })?;
        if let Some(default) = &param.default {
            let checked = param.check(default, &mut vec![Segment::Key(name.clone())]).map_err(|mut problem| {
                problem.path = at(vec![Segment::Key(name.clone()), Segment::Key("default".to_owned())]);
                problem.message = format!("the default of parameter `{name}` of role `{role}` {}", problem.message);
                problem
            })?;
            param.default = Some(checked);
        }
        params.push((name, param));
    }
    Ok(params)
}

impl Param {
    /// Returns the value as it is passed on, or what is wrong with it, to be said after its name. `path` leads to it.
    pub(super) fn check(&self, value: &Value, path: &mut Vec<Segment>) -> std::result::Result<Value, Problem> {
        let wrong = |path: &[Segment], message: String| Err(Problem::new(path.to_vec(), Part::Value, message));
        let checked = match (self.r#type, value) {
            (Type::Any, value) => value.clone(),
            (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) | (Type::Number, Value::Number(_)) => value.clone(),
            (Type::Integer, Value::Number(number)) if !number.is_f64() => value.clone(),
            // An empty table is an empty list as well as an empty map.
            (Type::List, Value::Object(fields)) if fields.is_empty() => Value::Array(Vec::new()),
            (Type::Map, Value::Array(items)) if items.is_empty() => Value::Object(Map::new()),
            (Type::List, Value::Array(items)) => {
                Value::Array(self.items(items.iter().enumerate().map(|(n, item)| (Segment::Index(n + 1), item)), path)?)
            }
            (Type::Map, Value::Object(fields)) => {
                let values = self.items(fields.iter().map(|(name, value)| (Segment::Key(name.clone()), value)), path)?;
                Value::Object(fields.keys().cloned().zip(values).collect())
            }
            (wanted, given) => {
                return wrong(path, format!("must be {}, not {}", wanted.described(), describe(given, self.secret)));
            }
        };
        if !self.choices.is_empty() && !self.choices.contains(&checked) {
            let choices = self.choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let message = format!("cannot be {}", describe(&checked, self.secret));
            return Err(Problem::new(path.clone(), Part::Value, message).hint(format!("write one of {choices}")));
        }
        Ok(checked)
    }

    fn items<'v>(
        &self,
        items: impl Iterator<Item = (Segment, &'v Value)>,
        path: &mut Vec<Segment>,
    ) -> std::result::Result<Vec<Value>, Problem> {
        let Some(spec) = &self.items else { return Ok(items.map(|(_, value)| value.clone()).collect()) };
        let check = |(segment, value): (Segment, &Value)| {
            path.push(segment);
            let checked = spec.check(value, path);
            path.pop();
            checked
        };
        items.map(check).collect()
    }
}

/// Describes a value for a message.
fn describe(value: &Value, secret: bool) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table of names and values".to_owned(),
        Value::String(_) if secret => "a string".to_owned(),
        Value::String(text) => format!("the string \"{text}\""),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
    }
}

/// Where a variable that may stand in for a parameter comes from.
pub(super) struct Outside<'a> {
    /// Value given on the command line.
    pub extra: &'a dyn Fn(&str) -> Result<Option<Value>>,
    /// Value from the play or the inventory.
    pub variable: &'a dyn Fn(&str) -> Result<Option<Value>>,
    /// Place of either.
    pub origin: &'a dyn Fn(&str) -> Option<Place>,
}

/// Why parameters were refused.
pub(super) enum Refused {
    /// What the call gives is wrong.
    Call(Problem),
    /// A variable that stands in for a parameter is wrong.
    Variable(Box<Diagnostic>),
}

impl Role {
    /// Returns the values of all parameters: from `-e`, the call, the play, the inventory, or the default, the first that has one.
    pub(super) fn resolve(&self, given: &Map<String, Value>, outside: &Outside) -> std::result::Result<Arc<Map<String, Value>>, Refused> {
        if let Some(unknown) = given.keys().find(|name| !self.params.iter().any(|(param, _)| param == *name)) {
            let problem = Problem::new(
                vec![Segment::Key(unknown.clone())],
                Part::Key,
                format!("unknown parameter `{unknown}` of role `{}`", self.name),
            );
            let problem = problem.suggest(unknown, self.params.iter().map(|(name, _)| name.as_str()));
            let problem =
                if problem.hints.is_empty() { problem.hint(format!("`kplay doc {}` lists its parameters", self.name)) } else { problem };
            return Err(Refused::Call(problem));
        }
        let mut resolved = Map::new();
        for (name, param) in &self.params {
            let mut path = vec![Segment::Key(name.clone())];
            let extra = (outside.extra)(name).map_err(Refused::Variable)?;
            let from_call = given.get(name).filter(|_| extra.is_none());
            let value = match (from_call, extra) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(value)) => Some(value),
                (None, None) => (outside.variable)(name).map_err(Refused::Variable)?,
            };
            let value = match value.or_else(|| param.default.clone()) {
                Some(value) => value,
                None if param.required => {
                    let message = format!("missing parameter `{name}` of role `{}`", self.name);
                    let problem = Problem::new(Vec::new(), Part::Key, message);
                    return Err(Refused::Call(if param.doc.is_empty() {
                        problem
                    } else {
                        problem.hint(format!("`{name}`: {}", param.doc))
                    }));
                }
                None => {
                    resolved.insert(name.clone(), Value::Null);
                    continue;
                }
            };
            let checked = param.check(&value, &mut path).map_err(|mut problem| {
                problem.message = format!("parameter `{}` of role `{}` {}", show_path(&problem.path), self.name, problem.message);
                match (from_call, (outside.origin)(name)) {
                    (None, Some(origin)) => {
                        let error = Diagnostic::user(problem.message).at(origin);
                        Refused::Variable(problem.hints.into_iter().fold(error, Diagnostic::hint))
                    }
                    _ => Refused::Call(problem),
                }
            })?;
            resolved.insert(name.clone(), checked);
        }
        Ok(Arc::new(resolved))
    }
}

/// Reads the table of parameters of a call.
pub(super) fn given(classes: &Classes, role: &str, value: &Lua) -> std::result::Result<Map<String, Value>, Problem> {
    let what = format!("the parameters of role `{role}`");
    match value {
        Lua::Nil => Ok(Map::new()),
        Lua::Table(_) => match ToJson::new(classes).value(value).map_err(|bad| Problem::from_bad(bad, &what))? {
            Value::Object(fields) => Ok(fields),
            _ => Err(Problem::new(Vec::new(), Part::Value, format!("{what} must be a table of names and values, not a list"))),
        },
        other => Err(Problem::new(Vec::new(), Part::Value, format!("{what} must be a table, not {}", kind(other)))),
    }
}

/// Options that a call of a role may have.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RoleOptions {
    pub tags: kplay_modules::api::OneOrMany,
    pub r#become: Option<bool>,
    pub become_user: Option<String>,
}

/// Reads the options of a call of a role.
pub(super) fn options(classes: &Classes, value: &Lua) -> std::result::Result<RoleOptions, Problem> {
    let what = "the options of a role";
    let table: &Table = match value {
        Lua::Nil => return Ok(RoleOptions::default()),
        Lua::Table(table) => table,
        other => return Err(Problem::new(Vec::new(), Part::Value, format!("{what} must be a table, not {}", kind(other)))),
    };
    let json = ToJson::new(classes).value(&Lua::Table(table.clone())).map_err(|bad| Problem::from_bad(bad, what))?;
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        from_serde(&ModuleError::argument(error.into_inner().to_string()).at(&path), what)
    })
}

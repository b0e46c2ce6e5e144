//! `play { … }`: a closed set of fields, read and resolved when the playbook is loaded.

use std::sync::Arc;

use mlua::{Table, Value as Lua};
use serde_json::{Map, Value};

use super::arguments::Problem;
use super::convert::{ToJson, kind};
use super::error::Frame;
use super::source::{Part, Segment};
use super::state::{Become, PlayCode, Shared};
use crate::diagnostic::{Diagnostic, Place, Result};
use crate::plan::{Play, Share};

const FIELDS: [&str; 12] = [
    "name",
    "hosts",
    "order",
    "serial",
    "max_failures",
    "any_error_stops",
    "undo_on_failure",
    "become",
    "become_user",
    "vars",
    "tags",
    "run",
];

/// Reads the table and adds the play.
pub(super) fn register(shared: &Shared, frames: &[Frame], value: &Lua) -> Result<()> {
    let code = read(shared, frames, value).map_err(|problem| match problem {
        Wrong::Field(problem) => shared.problem(frames, "play", 0, problem),
        Wrong::Placed(error) => error,
    })?;
    shared.run.borrow_mut().plays.push(code);
    Ok(())
}

enum Wrong {
    Field(Problem),
    Placed(Box<Diagnostic>),
}

fn at(name: &str) -> Vec<Segment> {
    vec![Segment::Key(name.to_owned())]
}

fn wrong<T>(field: &str, message: impl Into<String>) -> std::result::Result<T, Wrong> {
    Err(Wrong::Field(Problem::new(at(field), Part::Value, message)))
}

fn read(shared: &Shared, frames: &[Frame], value: &Lua) -> std::result::Result<PlayCode, Wrong> {
    let whole = |message: String| Problem::new(Vec::new(), Part::Key, message);
    let Lua::Table(table) = value else {
        return Err(Wrong::Field(
            whole(format!("`play` takes a table, not {}", kind(value))).hint("write `play { hosts = …, run = function(host) … end }`"),
        ));
    };
    if shared.run.borrow().current.is_some() {
        return Err(Wrong::Field(
            whole("`play` is called while a play runs".to_owned()).hint("plays are declared at the top of the playbook's file"),
        ));
    }
    let mut fields = Fields::read(shared, table)?;
    let Lua::Function(run) = fields.take("run") else {
        return Err(Wrong::Field(whole("a play needs a function `run`".to_owned()).hint("add `run = function(host) … end`")));
    };
    let order = match fields.take("order") {
        Lua::Nil => None,
        Lua::Function(order) => Some(order),
        other => return wrong("order", format!("`order` must be a function that returns the hosts in order, not {}", kind(&other))),
    };
    let pattern = match fields.strings("hosts")? {
        parts if parts.is_empty() => {
            return Err(Wrong::Field(whole("a play needs `hosts`".to_owned()).hint("add `hosts = \"all\"`, or a group")));
        }
        parts => parts.join(":"),
    };
    let selected = shared.inventory.select(&pattern).map_err(|error| {
        let mut made = shared.problem(frames, "play", 0, Problem::new(at("hosts"), Part::Value, error.message));
        made.hints = error.hints;
        made.details = error.details;
        Wrong::Placed(made)
    })?;
    let limit = shared.options.limit.as_ref();
    let hosts = selected.iter().map(|host| host.number).filter(|host| limit.is_none_or(|limit| limit.contains(host))).collect();
    let number = shared.run.borrow().plays.len() + 1;
    let become_user = Become::new(fields.boolean("become")?, fields.string("become_user")?.as_deref());
    let vars = match fields.json("vars")? {
        Value::Null => Map::new(),
        Value::Object(vars) => vars,
        _ => return wrong("vars", "`vars` must be a table of names and values"),
    };
    let play = Play {
        name: fields.string("name")?.unwrap_or_else(|| format!("play {number}")),
        hosts,
        serial: shares(&fields.json("serial")?, "serial", true)?,
        max_failures: shares(&fields.json("max_failures")?, "max_failures", false)?.first().copied(),
        any_error_stops: fields.boolean("any_error_stops")?.unwrap_or(false),
        undo_on_failure: fields.boolean("undo_on_failure")?.unwrap_or(false),
        become_user: match &become_user {
            Become::User(user) => Some(user.clone()),
            Become::Inherit | Become::No => None,
        },
        tags: fields.strings("tags")?,
        place: frames.first().map_or_else(|| Place::line("", 0), |frame| shared.sources.call(&frame.file, frame.line, "play")),
    };
    Ok(PlayCode { play, run, order, vars: Arc::new(vars), become_user })
}

/// The fields of a play, each taken once.
struct Fields<'a> {
    shared: &'a Shared,
    table: &'a Table,
}

impl<'a> Fields<'a> {
    fn read(shared: &'a Shared, table: &'a Table) -> std::result::Result<Self, Wrong> {
        let mut unknown = Vec::new();
        let walked = table.for_each(|key: Lua, _: Lua| {
            match &key {
                Lua::String(name) if FIELDS.contains(&&*name.to_string_lossy()) => {}
                Lua::String(name) => unknown.push(name.to_string_lossy()),
                other => unknown.push(format!("[{}]", kind(other))),
            }
            Ok(())
        });
        unknown.sort_unstable();
        if let (Some(field), Ok(())) = (unknown.first(), walked) {
            let problem = Problem::new(at(field), Part::Key, format!("unknown field `{field}` in a play"));
            return Err(Wrong::Field(match field.as_str() {
                "roles" | "tasks" => problem.hint("write `run = function(host) host:role(\"NAME\", { … }) end`"),
                _ => problem.suggest(field, FIELDS),
            }));
        }
        Ok(Self { shared, table })
    }

    fn take(&mut self, name: &str) -> Lua {
        self.table.raw_get(name).unwrap_or(Lua::Nil)
    }

    fn json(&mut self, name: &str) -> std::result::Result<Value, Wrong> {
        let internal = |error: mlua::Error| Wrong::Placed(Diagnostic::internal(error.to_string()));
        let value = self.take(name);
        ToJson::new(self.shared.classes().map_err(internal)?).value(&value).map_err(|mut bad| {
            bad.path.insert(0, Segment::Key(name.to_owned()));
            Wrong::Field(Problem::from_bad(bad, "a play"))
        })
    }

    fn boolean(&mut self, name: &str) -> std::result::Result<Option<bool>, Wrong> {
        match self.take(name) {
            Lua::Nil => Ok(None),
            Lua::Boolean(value) => Ok(Some(value)),
            other => wrong(name, format!("`{name}` must be true or false, not {}", kind(&other))),
        }
    }

    fn string(&mut self, name: &str) -> std::result::Result<Option<String>, Wrong> {
        match self.take(name) {
            Lua::Nil => Ok(None),
            Lua::String(text) => Ok(Some(text.to_string_lossy())),
            other => wrong(name, format!("`{name}` must be a string, not {}", kind(&other))),
        }
    }

    /// Reads a string or a list of strings.
    fn strings(&mut self, name: &str) -> std::result::Result<Vec<String>, Wrong> {
        match self.json(name)? {
            Value::Null => Ok(Vec::new()),
            Value::String(text) => Ok(vec![text]),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                Ok(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            Value::Object(fields) if fields.is_empty() => Ok(Vec::new()),
            _ => wrong(name, format!("`{name}` must be a string or a list of strings")),
        }
    }
}

/// Reads a number of hosts, a percentage, or with `many` a list of those.
fn shares(value: &Value, name: &str, many: bool) -> std::result::Result<Vec<Share>, Wrong> {
    let least = usize::from(many);
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) if many => {
            items.iter().map(|item| shares(item, name, false)).collect::<std::result::Result<Vec<_>, _>>().map(|all| all.concat())
        }
        Value::Number(number) => match number.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(count) if count >= least => Ok(vec![Share::Count(count)]),
            _ => wrong(name, format!("`{name}` must be a whole number from {least}")),
        },
        Value::String(text) => match text.strip_suffix('%').and_then(|number| number.trim().parse().ok()) {
            Some(percent) if percent <= 100 => Ok(vec![Share::Percent(percent)]),
            _ => wrong(name, format!("`{name}` must be a number of hosts or a percentage such as \"30%\"")),
        },
        _ if many => wrong(name, format!("`{name}` must be a number of hosts, a percentage such as \"30%\", or a list of those")),
        _ => wrong(name, format!("`{name}` must be a number of hosts or a percentage such as \"30%\"")),
    }
}

//! The options that every task has: the second table of a call.

use kplay_modules::agent::wire::Condition;
use kplay_modules::api::{ModuleError, OneOrMany};
use mlua::{Table, Value as Lua};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::arguments::{Problem, from_serde};
use super::classes::{Classes, Kind, TASK};
use super::convert::{ToJson, kind};
use super::source::{Part, Segment};
use crate::inventory::LONGEST_TIME;

/// Names of all options.
pub const NAMES: [&str; 14] = [
    "name",
    "when",
    "tags",
    "become",
    "become_user",
    "timeout",
    "retries",
    "delay",
    "until",
    "changed_if",
    "failed_if",
    "ok_codes",
    "ignore_errors",
    "sensitive",
];

/// Returns what to write in place of a keyword of Ansible's tasks.
pub(super) fn foreign(name: &str) -> Option<&'static str> {
    Some(match name {
        "changed_when" => "write the option `changed_if`: a regular expression, a boolean, or `{ stdout = …, codes = … }`",
        "failed_when" => "write the option `failed_if`: a regular expression, a boolean, or `{ stdout = …, codes = … }`",
        "loop" | "with_items" | "with_dict" => "write a Lua loop around the call",
        "no_log" => "write the option `sensitive = true`",
        "notify" => "give the result of this call to `restart_on` or `reload_on` of `systemd`, or to `when` of another call",
        "register" => "write `local result = host:…`",
        "delegate_to" => "call the module on the other host: `hosts(\"NAME\")[1]:…`, or `localhost:…`",
        "run_once" => "write `once(\"KEY\", function() … end)`",
        _ => return None,
    })
}

/// Options of one call.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub given: Given,
    pub when: When,
    pub until: Option<Condition>,
    pub changed_if: Option<Condition>,
    pub failed_if: Option<Condition>,
}

/// Options as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Given {
    pub name: Option<String>,
    pub tags: OneOrMany,
    pub r#become: Option<bool>,
    pub become_user: Option<String>,
    pub timeout: u64,
    pub retries: u32,
    pub delay: f64,
    until: Option<Value>,
    changed_if: Option<Value>,
    failed_if: Option<Value>,
    ok_codes: Option<Vec<i32>>,
    pub ignore_errors: bool,
    pub sensitive: bool,
}

/// What `when` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum When {
    #[default]
    Always,
    Never,
    /// Any of these results changed.
    AnyOf(Vec<u32>),
}

/// Reads the table of options.
pub(super) fn read(classes: &Classes, table: &Table) -> Result<Options, Problem> {
    let what = "the options";
    let mut fields = Map::new();
    let mut when = When::Always;
    let mut failure = None;
    let walked = table.for_each(|key: Lua, value: Lua| {
        let step = match &key {
            Lua::String(name) if name.as_bytes() == b"when".as_slice() => read_when(classes, &value).map(|read| when = read),
            Lua::String(name) => {
                let name = name.to_string_lossy();
                ToJson::new(classes).value(&value).map(|json| _ = fields.insert(name.clone(), json)).map_err(|mut bad| {
                    bad.path.insert(0, Segment::Key(name));
                    Problem::from_bad(bad, what)
                })
            }
            other => Err(Problem::new(Vec::new(), Part::Key, format!("{} cannot name an option", kind(other)))),
        };
        step.map_err(|problem| {
            failure = Some(problem);
            mlua::Error::runtime("stopped")
        })
    });
    if let Some(problem) = failure {
        return Err(problem);
    }
    if walked.is_err() {
        return Err(Problem::new(Vec::new(), Part::Key, "the options cannot be read"));
    }
    if let Some(unknown) = fields.keys().find(|name| !NAMES.contains(&name.as_str())) {
        let problem = Problem::new(vec![Segment::Key(unknown.clone())], Part::Key, format!("unknown option `{unknown}`"));
        return Err(match foreign(unknown) {
            Some(hint) => problem.hint(hint),
            None => problem.suggest(unknown, NAMES),
        });
    }
    let given: Given = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        from_serde(&ModuleError::argument(error.into_inner().to_string()).at(&path), what)
    })?;
    finish(given, when)
}

fn finish(given: Given, when: When) -> Result<Options, Problem> {
    let at = |name: &str| vec![Segment::Key(name.to_owned())];
    if given.r#become == Some(false) && given.become_user.is_some() {
        return Err(Problem::new(at("become_user"), Part::Key, "`become_user` and `become = false` exclude each other"));
    }
    let year = LONGEST_TIME.as_secs();
    if !(0.0..=LONGEST_TIME.as_secs_f64()).contains(&given.delay) {
        return Err(Problem::new(
            at("delay"),
            Part::Value,
            format!("`delay` must be a number of seconds from 0 to {year}, which is a year"),
        ));
    }
    if given.timeout > year {
        return Err(Problem::new(at("timeout"), Part::Value, format!("`timeout` must be at most {year} seconds, which is a year")));
    }
    let failed_if = match (condition(given.failed_if.as_ref(), "failed_if")?, &given.ok_codes) {
        (Some(_), Some(_)) => {
            return Err(Problem::new(at("ok_codes"), Part::Key, "`ok_codes` and `failed_if` exclude each other")
                .hint("write `failed_if = { codes = { … }, invert = true }`"));
        }
        (None, Some(codes)) => Some(Condition { codes: codes.clone(), not: true, ..Condition::default() }),
        (condition, None) => condition,
    };
    let until = condition(given.until.as_ref(), "until")?;
    if until.is_some() && given.retries == 0 {
        return Err(
            Problem::new(at("until"), Part::Key, "`until` without `retries` would try only once").hint("add `retries = 10, delay = 3`")
        );
    }
    let changed_if = condition(given.changed_if.as_ref(), "changed_if")?;
    Ok(Options { given, when, until, changed_if, failed_if })
}

/// Reads `true`, `false`, a result, or a list of those.
fn read_when(classes: &Classes, value: &Lua) -> Result<When, Problem> {
    let bad = |message: String| Problem::new(vec![Segment::Key("when".to_owned())], Part::Value, message);
    match value {
        Lua::Boolean(true) => Ok(When::Always),
        Lua::Boolean(false) => Ok(When::Never),
        Lua::Table(table) if classes.kind(table) == Kind::Result => {
            table.raw_get(TASK).map(|task| When::AnyOf(vec![task])).map_err(|_| bad("the result is damaged".to_owned()))
        }
        Lua::Table(list) => {
            let mut tasks = Vec::new();
            let mut always = false;
            for item in list.sequence_values::<Lua>() {
                let item = item.map_err(|_| bad("the list cannot be read".to_owned()))?;
                match read_when(classes, &item)? {
                    When::Always => always = true,
                    When::Never => {}
                    When::AnyOf(more) => tasks.extend(more),
                }
            }
            if list.raw_len() == 0 && !list.is_empty() {
                return Err(bad("`when` must be a boolean, a result, or a list of results".to_owned()));
            }
            Ok(match (always, tasks.is_empty()) {
                (true, _) => When::Always,
                (false, true) => When::Never,
                (false, false) => When::AnyOf(tasks),
            })
        }
        other => Err(bad(format!("`when` must be a boolean, a result, or a list of results, not {}", kind(other)))),
    }
}

/// Reads a condition: a regular expression for the standard output, a boolean, or a table.
fn condition(value: Option<&Value>, name: &str) -> Result<Option<Condition>, Problem> {
    let at = |field: Option<&str>| {
        let field = field.map(|field| Segment::Key(field.to_owned()));
        std::iter::once(Segment::Key(name.to_owned())).chain(field).collect::<Vec<_>>()
    };
    let check = |field: Option<&str>, pattern: &str| match regex_lite::Regex::new(pattern) {
        Ok(_) => Ok(()),
        Err(error) => Err(Problem::new(at(field), Part::Value, format!("`{pattern}` is no regular expression: {error}"))),
    };
    let mut made = Condition::default();
    match value {
        None => return Ok(None),
        // No part must hold, so that it holds always; and the opposite never.
        Some(Value::Bool(value)) => made.not = !value,
        Some(Value::String(pattern)) => {
            check(None, pattern)?;
            made.matches.insert("stdout".to_owned(), pattern.clone());
        }
        Some(Value::Object(fields)) => {
            for (field, value) in fields {
                match (field.as_str(), value) {
                    ("stdout" | "stderr", Value::String(pattern)) => {
                        check(Some(field), pattern)?;
                        made.matches.insert(field.clone(), pattern.clone());
                    }
                    ("codes", value) => {
                        made.codes = serde_json::from_value(value.clone()).map_err(|_| {
                            Problem::new(at(Some("codes")), Part::Value, format!("`{name}.codes` must be a list of exit codes"))
                        })?;
                    }
                    ("invert", Value::Bool(value)) => made.not = *value,
                    ("stdout" | "stderr" | "invert", _) => {
                        return Err(Problem::new(at(Some(field)), Part::Value, format!("`{name}.{field}` is of the wrong type")));
                    }
                    _ => {
                        let problem = Problem::new(at(Some(field)), Part::Key, format!("unknown field `{field}` in `{name}`"));
                        return Err(problem.suggest(field, ["stdout", "stderr", "codes", "invert"]));
                    }
                }
            }
        }
        Some(_) => {
            let message = format!("`{name}` must be a regular expression, a boolean, or a table such as `{{ stdout = …, codes = … }}`");
            return Err(Problem::new(at(None), Part::Value, message));
        }
    }
    Ok(Some(made))
}

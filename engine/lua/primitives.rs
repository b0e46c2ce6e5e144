//! The functions behind the prelude: what it asks of hosts, variables, results and roles. None of them waits.

use kplay_modules::agent::wire::UNKNOWN_FIELD;
use std::path::Path;
use std::rc::Rc;

use mlua::{FromLuaMulti, IntoLua, IntoLuaMulti, Lua, Table, Value as LuaValue};
use serde_json::Value;

use super::arguments::Problem;
use super::convert::{ToJson, kind, to_lua};
use super::error::{ERROR_FIELDS, Fatal, diagnostic, explain, raise, raise_fatal, suggest};
use super::state::{Once, Shared};
use super::{hosts, role_call};
use crate::diagnostic::Diagnostic;
use crate::plan::TaskResult;
use crate::report::event::Level;

/// Fields that every result has.
const RESULT_FIELDS: [&str; 4] = ["changed", "error", "failed", "skipped"];

/// Makes the table of primitives.
pub(super) fn table(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let functions = Functions { lua, shared, table: table.clone() };
    // Waiting.
    functions.add("open", |_lua, shared, ()| Ok(is_open(shared)))?;
    functions.add("open_elsewhere", |_lua, shared, host: usize| {
        let current = shared.run.borrow().current;
        Ok(current.is_some_and(|current| super::task::open_elsewhere(shared, current, host)))
    })?;
    functions.add("cannot_wait", |lua, shared, (kind, a, _b): (String, LuaValue, LuaValue)| {
        Ok(LuaValue::Error(Box::new(raise(shared.here(lua, cannot_wait(shared, &kind, &a))))))
    })?;

    // Results.
    functions.add("read", |lua, shared, (task, key): (u32, LuaValue)| read(lua, shared, task, &key))?;
    functions.add("task_name", |_lua, shared, task: u32| Ok(task_name(shared, task)))?;
    functions.add("refuse_use", |lua, shared, (task, what): (u32, String)| {
        let error = Diagnostic::user(format!("the result of `{}` {what}", task_name(shared, task)));
        refuse::<()>(lua, shared, error.hint("read one of its fields, such as `.changed`"))
    })?;
    functions.add("refuse_write", |lua, shared, (what, key): (String, LuaValue)| {
        refuse::<()>(lua, shared, Diagnostic::user(format!("cannot set `{}`: {what} is read-only", shown_key(&key))))
    })?;
    functions.add("refuse_pairs", |lua, shared, class: String| {
        let error = Diagnostic::user(format!("`pairs` takes a table, not a {}", class.trim_start_matches("kplay ")));
        refuse::<()>(lua, shared, error.hint("read one of its fields"))
    })?;

    // Hosts.
    functions.add("host_of", |lua, shared, (host, method): (LuaValue, String)| hosts::host_of(lua, shared, &host, &method))?;
    functions.add("mark_call", |lua, shared, method: String| {
        let place = shared.frames(lua).first().map(|frame| shared.sources.call(&frame.file, frame.line, &method));
        let mut run = shared.run.borrow_mut();
        if let Some(coroutine) = run.current.and_then(|current| run.coroutines.get_mut(&current)) {
            coroutine.marked = place;
        }
        Ok(())
    })?;
    functions.add("unknown_method", |lua, shared, key: LuaValue| hosts::unknown_method(lua, shared, &key))?;
    functions.add("facts", |lua, shared, host: usize| hosts::facts(lua, shared, host))?;
    functions.add("vars", |lua, shared, host: usize| hosts::vars(lua, shared, host))?;
    functions.add("say", |_lua, shared, (host, level, text): (Option<usize>, String, String)| {
        let level = match level.as_str() {
            "debug" => Level::Debug,
            "warning" => Level::Warning,
            _ => Level::Info,
        };
        let current = shared.run.borrow().current;
        shared.say(host.or(current), level, text);
        Ok(())
    })?;
    functions.add("fail", |lua, shared, (host, message): (usize, String)| {
        let error = shared.here(lua, Diagnostic::user(message).on(shared.host_name(host)));
        Err::<(), _>(raise(error))
    })?;

    // Variables.
    functions.add("variable", |lua, shared, (host, key, optional): (usize, LuaValue, bool)| {
        hosts::variable(lua, shared, host, &key, optional)
    })?;
    functions.add("all_variables", |lua, shared, (table, host): (Table, usize)| {
        for name in shared.variable_names(host) {
            let value = shared.variable(host, &name).map_err(|error| raise(shared.here(lua, error)))?;
            let value = to_lua(lua, shared.classes()?, &value.unwrap_or(Value::Null), &format!("vars.{name}"))?;
            table.raw_set(name, value)?;
        }
        Ok(())
    })?;
    functions.add("missing_field", |lua, shared, (table, key): (Table, LuaValue)| hosts::missing_field(lua, shared, &table, &key))?;
    functions.add("unknown_global", |lua, shared, key: LuaValue| {
        let key = shown_key(&key);
        let names = names_of(&shared.classes()?.globals);
        let error = Diagnostic::user(format!("there is no variable or function `{key}`"));
        let error = pointed(lua, shared, suggest(error, &key, names.iter().map(String::as_str)), &key);
        Err::<(), _>(raise(error))
    })?;
    functions.add("refuse_global", |lua, shared, key: LuaValue| {
        let key = shown_key(&key);
        let error = Diagnostic::user(format!("`{key}` would become a global variable, which all hosts share"));
        Err::<(), _>(raise(pointed(lua, shared, error.hint(format!("write `local {key} = …`")), &key)))
    })?;
    functions.add("loading", |_lua, shared, ()| Ok(shared.run.borrow().current.is_none()))?;

    // Errors.
    functions.add("explain", |lua, shared, error: LuaValue| explain(lua, &shared.sources, shared.classes()?, error))?;
    functions.add("is_fatal", |_lua, _shared, error: LuaValue| Ok(!error.is_table() || diagnostic(&error).fatal.is_some()))?;
    functions.add("show_error", |_lua, _shared, error: LuaValue| Ok(shown_error(&diagnostic(&error).diagnostic)))?;
    functions.add("unknown_error_field", |lua, shared, key: LuaValue| {
        let key = shown_key(&key);
        let error = suggest(Diagnostic::user(format!("an error has no field `{key}`")), &key, ERROR_FIELDS);
        refuse::<()>(lua, shared, error.hint(format!("its fields are {}", ERROR_FIELDS.join(", "))))
    })?;

    // Roles.
    functions.add("find_role", |lua, shared, name: LuaValue| role_call::find_role(lua, shared, &name))?;
    functions
        .add("define_role", |lua, shared, (name, returned): (String, LuaValue)| role_call::define_role(lua, shared, &name, &returned))?;
    functions.add("enter_role", |lua, shared, (host, name, params, options): (usize, String, LuaValue, LuaValue)| {
        role_call::enter_role(lua, shared, host, &name, &params, &options)
    })?;
    functions.add("role_depth", |_lua, shared, ()| {
        let run = shared.run.borrow();
        Ok(run.current.and_then(|current| run.coroutines.get(&current)).map_or(0, |coroutine| coroutine.roles.len()))
    })?;
    functions.add("leave_role", |_lua, shared, depth: usize| {
        let mut run = shared.run.borrow_mut();
        if let Some(coroutine) = run.current.and_then(|current| run.coroutines.get_mut(&current)) {
            coroutine.roles.truncate(depth);
        }
        Ok(())
    })?;
    functions.add("find_module", |lua, shared, (name, folder, environment): (LuaValue, String, Table)| {
        super::library::find_module(lua, shared, &name, Path::new(&folder), environment)
    })?;

    // Waiting for other hosts.
    functions.add("once", |lua, shared, (key, function): (LuaValue, LuaValue)| once(lua, shared, &key, &function))?;
    functions.add("once_done", |lua, shared, (id, value): (String, LuaValue)| once_done(lua, shared, id, &value))?;
    functions.add("once_failed", |_lua, shared, (id, error): (String, LuaValue)| {
        let raised = diagnostic(&error);
        shared.run.borrow_mut().onces.insert(id, Once::Failed(raised.diagnostic, raised.fatal));
        Ok(())
    })?;
    functions.add("check_barrier", |lua, shared, name: LuaValue| match name {
        LuaValue::String(_) if in_once(shared) => {
            let error = Diagnostic::user("`barrier` is called inside `once`: the other hosts wait for that, and would never come to it");
            refuse(lua, shared, error.hint("call it before or after `once`"))
        }
        LuaValue::String(_) if shared.run.borrow().current.is_some() => Ok(()),
        LuaValue::String(_) => refuse(lua, shared, Diagnostic::user("`barrier` is called outside of a play")),
        other => refuse(lua, shared, Diagnostic::user(format!("`barrier` takes a name, not {}", kind(&other)))),
    })?;
    Ok(table)
}

/// A table that functions are added to.
pub(super) struct Functions<'a> {
    pub lua: &'a Lua,
    pub shared: &'a Rc<Shared>,
    pub table: Table,
}

impl Functions<'_> {
    /// Adds a function that gets hold of what is shared.
    pub fn add<A: FromLuaMulti, R: IntoLuaMulti>(
        &self,
        name: &str,
        body: impl Fn(&Lua, &Shared, A) -> mlua::Result<R> + 'static,
    ) -> mlua::Result<()> {
        let shared = Rc::clone(self.shared);
        self.table.raw_set(name, self.lua.create_function(move |lua, arguments: A| body(lua, &shared, arguments))?)
    }
}

pub(super) fn refuse<T>(lua: &Lua, shared: &Shared, error: Box<Diagnostic>) -> mlua::Result<T> {
    Err(raise(shared.here(lua, error)))
}

/// Places an error at a word of the line that runs.
pub(super) fn pointed(lua: &Lua, shared: &Shared, error: Box<Diagnostic>, word: &str) -> Box<Diagnostic> {
    let mut error = shared.here(lua, error);
    if let Some(place) = &error.place
        && let Some(found) = shared.sources.word(&place.file, place.line, word)
    {
        error.place = Some(found);
    }
    error
}

pub(super) fn shown_key(key: &LuaValue) -> String {
    match key {
        LuaValue::String(text) => text.to_string_lossy(),
        LuaValue::Integer(number) => format!("[{number}]"),
        other => kind(other).to_owned(),
    }
}

fn shown_error(error: &Diagnostic) -> String {
    match &error.place {
        Some(place) if place.line > 0 => format!("{}:{}: {}", place.file.display(), place.line, error.message),
        _ => error.message.clone(),
    }
}

/// Returns the visible field names of a table.
pub(super) fn names_of(table: &Table) -> Vec<String> {
    let mut names = Vec::new();
    let _ = table.for_each(|key: LuaValue, _: LuaValue| {
        if let LuaValue::String(key) = key {
            names.push(key.to_string_lossy());
        }
        Ok(())
    });
    names.sort_unstable();
    names
}

/// Returns whether the function of a `once` is under way in the host's coroutine that runs.
fn in_once(shared: &Shared) -> bool {
    let run = shared.run.borrow();
    run.onces.values().any(|once| matches!(once, Once::Running(host) if Some(*host) == run.current))
}

fn is_open(shared: &Shared) -> bool {
    let run = shared.run.borrow();
    run.current
        .and_then(|current| run.coroutines.get(&current))
        .is_some_and(|coroutine| !coroutine.open.is_empty() || coroutine.failure.is_some())
}

fn task_name(shared: &Shared, task: u32) -> String {
    shared.run.borrow().tasks.get(task as usize - 1).map(|task| task.name.clone()).unwrap_or_default()
}

fn cannot_wait(shared: &Shared, wait: &str, what: &LuaValue) -> Box<Diagnostic> {
    if shared.run.borrow().current.is_none() {
        return Diagnostic::user("what only a host can answer is read outside of a play").hint("read it in the `run` function of a `play`");
    }
    let name = match (wait, what) {
        ("result", LuaValue::Integer(task)) => format!("the result of `{}`", task_name(shared, u32::try_from(*task).unwrap_or_default())),
        ("facts", _) => "the facts of a host".to_owned(),
        _ => "a host".to_owned(),
    };
    Diagnostic::user(format!("cannot wait for {name} in a function that Lua's library calls"))
        .hint("read the field into a local variable before, and use that")
}

fn read(lua: &Lua, shared: &Shared, id: u32, key: &LuaValue) -> mlua::Result<(bool, LuaValue)> {
    let run = shared.run.borrow();
    let Some(task) = run.tasks.get(id as usize - 1) else { return Err(mlua::Error::runtime("a result without a task")) };
    let Some(result) = &task.result else { return Ok((false, LuaValue::Nil)) };
    let key = shown_key(key);
    let name = task.name.clone();
    let done = |value: LuaValue| Ok((true, value));
    let (changed, failed, skipped, output, error) = match result {
        TaskResult::Done { changed, skipped, output } => (*changed, false, *skipped, output, None),
        TaskResult::Failed { error, ignored: true, output } => (false, true, false, output, Some(error.message.clone())),
        TaskResult::Failed { .. } => {
            drop(run);
            let error = Diagnostic::user(format!("`{name}` failed or was not run, so that nothing of its result can be read"));
            return Err(raise(shared.here(lua, error)));
        }
        TaskResult::Unknown { because } => {
            let error = Diagnostic::user(format!("the forecast cannot know `{key}` of `{name}`")).details([format!("because {because}")]);
            drop(run);
            let error = error.hint("the forecast of this host ends here; an apply goes on");
            return Err(raise_fatal(pointed(lua, shared, error, &key), Fatal::Unknown));
        }
    };
    match key.as_str() {
        "changed" => return done(LuaValue::Boolean(changed)),
        "failed" => return done(LuaValue::Boolean(failed)),
        "skipped" => return done(LuaValue::Boolean(skipped)),
        "error" => return done(error.into_lua(lua)?),
        _ => {}
    }
    let names: Vec<String> = output.names().map(str::to_owned).collect();
    let value = output.get(&key);
    drop(run);
    let value = match value {
        Ok(value) => value,
        Err(error) => {
            let error = Diagnostic::user(format!("`{key}` of `{name}` cannot be read again: {error}"));
            return Err(raise(pointed(lua, shared, error, &key)));
        }
    };
    if value.as_ref().is_some_and(|value| value == UNKNOWN_FIELD) {
        let error = Diagnostic::user(format!("the forecast cannot know `{key}` of `{name}`"))
            .details(["because it would have run only then".to_owned()]);
        let error = error.hint("the forecast of this host ends here; an apply goes on");
        return Err(raise_fatal(pointed(lua, shared, error, &key), Fatal::Unknown));
    }
    if let Some(value) = value {
        return done(to_lua(lua, shared.classes()?, &value, &format!("result.{key}"))?);
    }
    let error = if skipped {
        Diagnostic::user(format!("`{name}` was skipped: its result has no `{key}`")).hint("read `.skipped` first")
    } else if failed {
        Diagnostic::user(format!("`{name}` failed: its result has no `{key}`")).hint("read `.failed` first")
    } else {
        let fields = names.iter().map(String::as_str).chain(RESULT_FIELDS);
        let all = fields.clone().collect::<Vec<_>>().join(", ");
        suggest(Diagnostic::user(format!("the result of `{name}` has no field `{key}`")), &key, fields)
            .hint(format!("its fields are {all}"))
    };
    Err(raise(pointed(lua, shared, error, &key)))
}

fn once(lua: &Lua, shared: &Shared, key: &LuaValue, function: &LuaValue) -> mlua::Result<(&'static str, LuaValue, String)> {
    let (LuaValue::String(key), LuaValue::Function(function)) = (key, function) else {
        return refuse(lua, shared, Diagnostic::user("`once` takes a key and a function").hint("write `once(\"KEY\", function() … end)`"));
    };
    let Some(current) = shared.run.borrow().current else {
        return refuse(lua, shared, Diagnostic::user("`once` is called outside of a play"));
    };
    // Where the function stands is where `once` is called, and cannot be hidden by a tail call.
    let file = function.info().source.unwrap_or_default();
    let id = format!("{}\n{}", file.trim_start_matches('@'), key.to_string_lossy());
    let mut run = shared.run.borrow_mut();
    match run.onces.get(&id) {
        None => {
            run.onces.insert(id.clone(), Once::Running(current));
            Ok(("run", LuaValue::Nil, id))
        }
        Some(Once::Running(host)) if *host == current => {
            drop(run);
            refuse(lua, shared, Diagnostic::user(format!("`once(\"{}\")` comes to itself again", key.to_string_lossy())))
        }
        Some(Once::Running(_)) => Ok(("wait", LuaValue::Nil, id)),
        Some(Once::Done(value)) => {
            let value = value.clone();
            drop(run);
            Ok(("done", to_lua(lua, shared.classes()?, &value, &format!("once(\"{}\")", key.to_string_lossy()))?, id))
        }
        Some(Once::Failed(error, fatal)) => {
            let (error, fatal) = (error.clone(), *fatal);
            drop(run);
            Err(match fatal {
                Some(fatal) => raise_fatal(error, fatal),
                None => raise(error),
            })
        }
    }
}

/// Keeps the value for the other hosts. Every host, the first one too, gets a copy of its own.
fn once_done(lua: &Lua, shared: &Shared, id: String, value: &LuaValue) -> mlua::Result<LuaValue> {
    let key = id.split_once('\n').map_or(id.as_str(), |(_, key)| key).to_owned();
    let converted = ToJson::new(shared.classes()?).value(value);
    let json = converted.map_err(|bad| {
        let mut problem = Problem::from_bad(bad, "the value of `once`");
        problem.hints.push("`once` returns plain data: strings, numbers, booleans, and tables of those".to_owned());
        let mut error = Diagnostic::user(problem.message);
        error.hints = problem.hints;
        let error = shared.here(lua, error);
        shared.run.borrow_mut().onces.insert(id.clone(), Once::Failed(error.clone(), None));
        raise(error)
    })?;
    let copy = to_lua(lua, shared.classes()?, &json, &format!("once(\"{key}\")"))?;
    shared.run.borrow_mut().onces.insert(id, Once::Done(json));
    Ok(copy)
}

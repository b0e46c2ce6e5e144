//! Hosts as playbooks hold them: their names, facts and variables, strict about what is not there.

use std::sync::Arc;

use mlua::{Lua, Table, Value as LuaValue};
use serde_json::Value;

use super::classes::{HOST, Kind};
use super::convert::to_lua;
use super::error::{raise, suggest};
use super::primitives::{names_of, pointed, refuse, shown_key};
use super::state::Shared;
use crate::diagnostic::Diagnostic;

pub(super) fn host_of(lua: &Lua, shared: &Shared, host: &LuaValue, method: &str) -> mlua::Result<usize> {
    if let LuaValue::Table(table) = host
        && shared.classes()?.kind(table) == Kind::Host
    {
        if shared.run.borrow().current.is_none() {
            let error = Diagnostic::user(format!("`{method}` is called outside of a play"));
            return refuse(lua, shared, error.hint("it belongs into the `run` function of a `play`"));
        }
        return table.raw_get(HOST);
    }
    let error = Diagnostic::user(format!("`{method}` is called without its host")).hint(format!("write `host:{method}(…)` with a colon"));
    Err(raise(pointed(lua, shared, error, method)))
}

pub(super) fn unknown_method(lua: &Lua, shared: &Shared, key: &LuaValue) -> mlua::Result<()> {
    let key = shown_key(key);
    let names = names_of(&shared.classes()?.methods);
    let fields = ["name", "groups", "vars", "facts"];
    let candidates = names.iter().map(String::as_str).chain(fields);
    let error = suggest(Diagnostic::user(format!("there is no module `{key}`")), &key, candidates);
    let error = if error.hints.is_empty() { error.hint("`kplay doc` lists all modules") } else { error };
    Err(raise(pointed(lua, shared, error, &key)))
}

/// Returns the object of a host, always the same.
pub(super) fn host_object(lua: &Lua, shared: &Shared, host: usize) -> mlua::Result<Table> {
    if let Some(known) = shared.run.borrow().host_objects.get(&host) {
        return Ok(known.clone());
    }
    let classes = shared.classes()?;
    let table = lua.create_table()?;
    table.raw_set(HOST, host)?;
    table.raw_set("name", shared.host_name(host))?;
    let groups = shared.inventory.host_at(host).map(|host| shared.inventory.group_names(host)).unwrap_or_default();
    let groups: Value = groups.into_iter().map(Value::from).collect();
    table.raw_set("groups", to_lua(lua, classes, &groups, "host.groups")?)?;
    table.set_metatable(Some(classes.host.clone()))?;
    shared.run.borrow_mut().host_objects.insert(host, table.clone());
    Ok(table)
}

pub(super) fn facts(lua: &Lua, shared: &Shared, host: usize) -> mlua::Result<Option<Table>> {
    let facts = {
        let run = shared.run.borrow();
        if let Some(known) = run.facts_objects.get(&host) {
            return Ok(Some(known.clone()));
        }
        match run.facts.get(&host) {
            Some(facts) => Arc::clone(facts),
            None => return Ok(None),
        }
    };
    match to_lua(lua, shared.classes()?, &facts, "facts")? {
        LuaValue::Table(table) => {
            shared.run.borrow_mut().facts_objects.insert(host, table.clone());
            Ok(Some(table))
        }
        _ => Ok(None),
    }
}

pub(super) fn vars(lua: &Lua, shared: &Shared, host: usize) -> mlua::Result<Table> {
    if let Some(known) = shared.run.borrow().vars_objects.get(&host) {
        return Ok(known.clone());
    }
    let table = lua.create_table()?;
    table.raw_set(HOST, host)?;
    table.set_metatable(Some(shared.classes()?.vars.clone()))?;
    shared.run.borrow_mut().vars_objects.insert(host, table.clone());
    Ok(table)
}

pub(super) fn variable(lua: &Lua, shared: &Shared, host: usize, key: &LuaValue, optional: bool) -> mlua::Result<(bool, LuaValue)> {
    let name = shown_key(key);
    match shared.variable(host, &name).map_err(|error| raise(shared.here(lua, error)))? {
        Some(value) => Ok((true, to_lua(lua, shared.classes()?, &value, &format!("vars.{name}"))?)),
        None if optional => Ok((false, LuaValue::Nil)),
        None => {
            let names = shared.variable_names(host);
            let error = Diagnostic::user(format!("variable `{name}` is not defined for host `{}`", shared.host_name(host)));
            let error = suggest(error, &name, names.iter().map(String::as_str));
            let error = error.hint(format!("`kplay vars {}` shows all variables and where they come from", shared.host_name(host)));
            Err(raise(pointed(lua, shared, error, &name)))
        }
    }
}

pub(super) fn missing_field(lua: &Lua, shared: &Shared, table: &Table, key: &LuaValue) -> mlua::Result<LuaValue> {
    let classes = shared.classes()?;
    let name = shown_key(key);
    if let LuaValue::String(_) = key
        && let Some(nulls) = classes.nulls.raw_get::<Option<Table>>(table)?
        && nulls.raw_get::<Option<bool>>(name.as_str())?.is_some()
    {
        return Ok(LuaValue::Nil);
    }
    let path: String = classes.paths.raw_get::<Option<String>>(table)?.unwrap_or_default();
    let names = names_of(table);
    let is_list = classes.kind(table) == Kind::List;
    let error = Diagnostic::user(format!(
        "`{path}.{name}` is not defined{}",
        if is_list { format!(": `{path}` is a list") } else { String::new() }
    ));
    let mut error = match crate::diagnostic::nearest(&name, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{path}.{near}`?")),
        None if names.is_empty() => error,
        None => error.hint(format!("`{path}` has {}", names.join(", "))),
    };
    let variable = path.strip_prefix("vars.").map(|rest| rest.split(['.', '[']).next().unwrap_or_default().to_owned());
    let current = shared.run.borrow().current;
    if let (Some(variable), Some(host)) = (variable, current)
        && let Some(origin) = shared.origin(host, &variable)
    {
        error.details.push(format!("`{variable}` is defined in {}:{}", origin.file.display(), origin.line));
    }
    Err(raise(pointed(lua, shared, error, &name)))
}

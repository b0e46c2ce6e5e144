//! What playbooks find in their global environment beside Lua's own library.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use kplay_modules::api::{Controller, ModuleError};
use mlua::{Function, Lua, Table, Value as LuaValue};
use serde_json::Value;

use super::arguments::Problem;
use super::convert::{ToJson, kind, to_lua};
use super::error::{raise, syntax};
use super::hosts::host_object;
use super::primitives::Functions;
use super::source::Part;
use super::state::Shared;
use crate::controller::Preparation;
use crate::diagnostic::{Diagnostic, Result};

/// Reads a file of the user's and compiles it. Bytecode is refused.
pub(super) fn load_file(lua: &Lua, shared: &Shared, file: &Path, environment: Table) -> Result<Function> {
    let bytes = shared.local.read_file(file).map_err(|error| Diagnostic::user(error.message))?;
    let bytes = bytes.ok_or_else(|| Diagnostic::user(format!("there is no file `{}`", file.display())))?;
    let text = String::from_utf8(bytes).map_err(|_| Diagnostic::user(format!("`{}` is not UTF-8 text", file.display())))?;
    compile(lua, shared, file, &text, environment)
}

/// Compiles the text of a file.
pub(super) fn compile(lua: &Lua, shared: &Shared, file: &Path, text: &str, environment: Table) -> Result<Function> {
    shared.sources.add(file, text);
    let chunk = lua.load(text).set_name(format!("@{}", file.display())).set_mode(mlua::chunk::ChunkMode::Text).set_environment(environment);
    chunk.into_function().map_err(|error| syntax(&shared.sources, &error, file))
}

/// Finds a Lua module beside its user: in the folder, its `lib/`, then the playbook's folder and its `lib/`, then among the roles:
/// `lib.names` is `roles/lib/names.lua`. Returns a key that tells it from others, and the function that runs it.
pub(super) fn find_module(
    lua: &Lua,
    shared: &Shared,
    name: &LuaValue,
    folder: &Path,
    environment: Table,
) -> mlua::Result<(String, Function)> {
    let fail = |error: Box<Diagnostic>| Err(raise(shared.here(lua, error)));
    let LuaValue::String(name) = name else {
        return fail(Diagnostic::user(format!("`require` takes the name of a Lua file, not {}", kind(name))));
    };
    let name = name.to_string_lossy();
    let sane = !name.is_empty()
        && name
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-')));
    if !sane {
        return fail(
            Diagnostic::user(format!("`{name}` is no name of a Lua file")).hint("write `require(\"lib.names\")` for `lib/names.lua`"),
        );
    }
    let relative = PathBuf::from(format!("{}.lua", name.replace('.', "/")));
    let places =
        [folder, shared.playbook_folder.as_path()].into_iter().flat_map(|base| [base.join(&relative), base.join("lib").join(&relative)]);
    let among_roles = shared.options.role_paths.iter().map(|base| base.join(&relative));
    let places: Vec<_> = places.chain(among_roles).collect();
    let Some(file) = places.iter().find(|place| place.is_file()) else {
        let error = Diagnostic::user(format!("there is no Lua file `{name}`"));
        return fail(error.details(places.iter().map(|place| format!("looked for {}", place.display()))));
    };
    let key = format!("{} in {}", file.display(), folder.display());
    match load_file(lua, shared, file, environment) {
        Ok(chunk) => Ok((key, chunk)),
        Err(error) => fail(error),
    }
}

/// Adds kplay's functions to the globals.
pub(super) fn add(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<()> {
    let classes = shared.classes()?;
    let globals = classes.globals.clone();
    let into = |table: &Table| Functions { lua, shared, table: table.clone() };
    into(&globals).add("play", |lua, shared, value: LuaValue| super::play::register(shared, &shared.frames(lua), &value).map_err(raise))?;
    into(&globals).add("hosts", |lua, shared, pattern: LuaValue| hosts(lua, shared, &pattern))?;
    into(&globals).add("env", |lua, shared, (name, default): (LuaValue, LuaValue)| env(lua, shared, &name, default))?;
    into(&globals).add("authority", |lua, shared, folder: LuaValue| super::keys::authority(lua, shared, &folder))?;
    into(&globals).add("key_pair", super::keys::key_pair)?;
    into(&globals).add("kept", |lua, shared, path: LuaValue| super::keys::kept(lua, shared, &path))?;
    into(&globals).add("keep", |lua, shared, (path, text): (LuaValue, LuaValue)| super::keys::keep_text(lua, shared, &path, &text))?;
    into(&globals).add("random_secret", |lua, shared, bytes: LuaValue| super::keys::random_secret(lua, shared, &bytes))?;
    into(&globals).add("secret", |lua, shared, text: LuaValue| super::keys::secret(lua, shared, &text))?;
    into(&globals)
        .add("read_file", |lua, shared, name: LuaValue| of_file(lua, shared, "read_file", &name, |files, path| files.read(path)))?;
    into(&globals).add("find_file", |lua, shared, name: LuaValue| {
        of_file(lua, shared, "find_file", &name, |files, path| {
            Ok(files.destination(&path.to_string_lossy()).into_os_string().into_encoded_bytes())
        })
    })?;
    globals.raw_set("check_mode", shared.options.check)?;
    if let Some(localhost) = shared.inventory.host("localhost") {
        globals.raw_set("localhost", host_object(lua, shared, localhost.number)?)?;
    }
    let json = lua.create_table()?;
    into(&json).add("decode", |lua, shared, text: LuaValue| {
        let text = text_of(lua, shared, "json.decode", &text)?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| wrong(lua, shared, "decode", format!("the text is no JSON: {error}")))?;
        to_lua(lua, shared.classes()?, &value, "json")
    })?;
    into(&json).add("encode", |lua, shared, value: LuaValue| {
        let value = data_of(lua, shared, "json.encode", &value)?;
        serde_json::to_string(&value).map_err(|error| wrong(lua, shared, "encode", error.to_string()))
    })?;
    globals.raw_set("json", json)?;
    let yaml = lua.create_table()?;
    into(&yaml).add("decode", |lua, shared, text: LuaValue| {
        let text = text_of(lua, shared, "yaml.decode", &text)?;
        let document = crate::yaml::parse(Path::new("text"), &text).map_err(|error| {
            let line = error.place.as_ref().map_or(0, |place| place.line);
            wrong(lua, shared, "decode", format!("line {line} of the text: {}", error.message))
        })?;
        to_lua(lua, shared.classes()?, &document.root.to_json(), "yaml")
    })?;
    into(&yaml).add("encode", |lua, shared, value: LuaValue| {
        let value = data_of(lua, shared, "yaml.encode", &value)?;
        serde_saphyr::to_string(&value).map_err(|error| wrong(lua, shared, "encode", error.to_string()))
    })?;
    globals.raw_set("yaml", yaml)
}

/// Makes an error about the call of `function` that runs.
fn wrong(lua: &Lua, shared: &Shared, function: &str, message: impl Into<String>) -> mlua::Error {
    let frames = shared.frames(lua);
    raise(shared.problem(&frames, function, 0, Problem::new(Vec::new(), Part::Key, message)))
}

pub(super) fn text_of(lua: &Lua, shared: &Shared, function: &str, value: &LuaValue) -> mlua::Result<String> {
    match value {
        LuaValue::String(text) => match text.to_str() {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(wrong(lua, shared, function, format!("`{function}` takes UTF-8 text"))),
        },
        other => Err(wrong(lua, shared, function, format!("`{function}` takes a text, not {}", kind(other)))),
    }
}

fn data_of(lua: &Lua, shared: &Shared, function: &str, value: &LuaValue) -> mlua::Result<Value> {
    ToJson::new(shared.classes()?).value(value).map_err(|bad| {
        let problem = Problem::from_bad(bad, &format!("the value for `{function}`"));
        let hint = problem.hints.into_iter().next();
        let frames = shared.frames(lua);
        let name = function.rsplit('.').next().unwrap_or(function);
        let made = Problem::new(Vec::new(), Part::Key, problem.message);
        raise(shared.problem(&frames, name, 0, hint.into_iter().fold(made, Problem::hint)))
    })
}

/// Returns the hosts of a pattern, whatever `--limit` says.
fn hosts(lua: &Lua, shared: &Shared, pattern: &LuaValue) -> mlua::Result<Table> {
    let pattern = text_of(lua, shared, "hosts", pattern)?;
    let selected = shared.inventory.select(&pattern).map_err(|error| {
        let frames = shared.frames(lua);
        let mut problem = Problem::new(Vec::new(), Part::Key, error.message.clone());
        problem.hints.clone_from(&error.hints);
        raise(shared.problem(&frames, "hosts", 0, problem))
    })?;
    let objects = selected.iter().map(|host| host_object(lua, shared, host.number)).collect::<mlua::Result<Vec<_>>>()?;
    lua.create_sequence_from(objects)
}

fn env(lua: &Lua, shared: &Shared, name: &LuaValue, default: LuaValue) -> mlua::Result<LuaValue> {
    let name = text_of(lua, shared, "env", name)?;
    match std::env::var(&name) {
        Ok(value) => Ok(LuaValue::String(lua.create_string(value)?)),
        Err(_) if !default.is_nil() => Ok(default),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(wrong(lua, shared, "env", format!("environment variable `{name}` is not UTF-8 text")))
        }
        Err(std::env::VarError::NotPresent) => {
            let problem = Problem::new(Vec::new(), Part::Key, format!("environment variable `{name}` is not set"));
            let problem = problem.hint(format!("set it, or give a default: `env(\"{name}\", \"…\")`"));
            Err(raise(shared.problem(&shared.frames(lua), "env", 0, problem)))
        }
    }
}

/// Does something with a file of the controller's, found as `copy` finds its `src`, on behalf of `function`.
fn of_file(
    lua: &Lua,
    shared: &Shared,
    function: &str,
    name: &LuaValue,
    act: impl Fn(&Preparation, &Path) -> std::result::Result<Vec<u8>, ModuleError>,
) -> mlua::Result<mlua::LuaString> {
    let name = text_of(lua, shared, function, name)?;
    let role = {
        let run = shared.run.borrow();
        let coroutine = run.current.and_then(|current| run.coroutines.get(&current));
        coroutine.and_then(|coroutine| coroutine.roles.last()).map(|frame| frame.role.folder.clone())
    };
    let no_scope = || shared.scope(0, None);
    let preparation = Preparation::new(&shared.local, "", role.as_deref(), &no_scope);
    match shared.uncounted(|| preparation.find(&name, "files").and_then(|path| act(&preparation, &path))) {
        Ok(bytes) => lua.create_string(bytes),
        Err(error) => {
            let frames = shared.frames(lua);
            let mut problem = Problem::from_module(error);
            problem.path.clear();
            Err(raise(shared.problem(&frames, function, 0, problem)))
        }
    }
}

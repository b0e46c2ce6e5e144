//! A call of a role: the role loaded, its parameters checked, the host inside it.

use std::rc::Rc;

use mlua::{Function, Lua, Table, Value as LuaValue};
use serde_json::Value;

use super::arguments::Problem;
use super::convert::{kind, set_null, to_lua};
use super::error::{Frame, raise};
use super::role::{self, Outside, Refused, Role};
use super::source::Part;
use super::state::{Become, RoleFrame, Shared};
use crate::diagnostic::{Diagnostic, Place};

fn known_role(shared: &Shared, name: &str) -> Option<Rc<Role>> {
    shared.run.borrow().roles.iter().find(|role| role.name == name).cloned()
}

fn marked(shared: &Shared) -> Option<Place> {
    let run = shared.run.borrow();
    run.current.and_then(|current| run.coroutines.get(&current)).and_then(|coroutine| coroutine.marked.clone())
}

/// Places an error at the call of `host:role` that was looked up last.
fn at_role_call(lua: &Lua, shared: &Shared, problem: Problem, argument: usize) -> mlua::Error {
    let mut frames = shared.frames(lua);
    if let Some(place) = marked(shared)
        && frames.first().is_none_or(|frame| frame.place() != Place::line(&place.file, place.line))
    {
        frames.insert(0, Frame::at(&place));
    }
    raise(shared.problem(&frames, "role", argument, problem))
}

/// Returns the function that loads a role, or nil when it has been loaded.
pub(super) fn find_role(lua: &Lua, shared: &Shared, name: &LuaValue) -> mlua::Result<Option<Function>> {
    let whole = |message: String| Problem::new(Vec::new(), Part::Key, message);
    let LuaValue::String(name) = name else {
        return Err(at_role_call(lua, shared, whole(format!("`role` takes the name of a role, not {}", kind(name))), 0));
    };
    let name = name.to_string_lossy();
    if known_role(shared, &name).is_some() {
        return Ok(None);
    }
    let folder = role::find(&name, &shared.options.role_paths).map_err(|error| {
        let mut problem = whole(error.message.clone());
        problem.hints.clone_from(&error.hints);
        problem.details.clone_from(&error.details);
        at_role_call(lua, shared, problem, 0)
    })?;
    let environment: Table = shared.classes()?.environment.call(folder.to_string_lossy().as_ref())?;
    super::library::load_file(lua, shared, &folder.join("role.lua"), environment).map(Some).map_err(raise)
}

pub(super) fn define_role(lua: &Lua, shared: &Shared, name: &str, returned: &LuaValue) -> mlua::Result<()> {
    let folder = role::find(name, &shared.options.role_paths).map_err(raise)?;
    let role = Role::read(shared.classes()?, name, &folder, returned).map_err(|problem| {
        let file = folder.join("role.lua");
        let place = shared.sources.returned(&file, &problem.path, problem.part).unwrap_or_else(|| Place::line(&file, 0));
        let mut error = Diagnostic::user(problem.message).details(problem.details).at(place);
        error.hints = problem.hints;
        error.chain.extend(marked(shared));
        raise(shared.here(lua, error))
    })?;
    shared.run.borrow_mut().roles.push(Rc::new(role));
    Ok(())
}

pub(super) fn enter_role(
    lua: &Lua,
    shared: &Shared,
    host: usize,
    name: &str,
    params: &LuaValue,
    options: &LuaValue,
) -> mlua::Result<(Function, LuaValue, usize)> {
    let role = known_role(shared, name).ok_or_else(|| mlua::Error::runtime("a role that is not loaded"))?;
    let classes = shared.classes()?;
    let given = role::given(classes, name, params).map_err(|problem| at_role_call(lua, shared, problem, 1))?;
    let options = role::options(classes, options).map_err(|problem| at_role_call(lua, shared, problem, 2))?;
    let outside = Outside {
        extra: &|name| shared.extra(host, name),
        variable: &|name| shared.variable(host, name),
        origin: &|name| shared.origin(host, name),
    };
    let resolved = role.resolve(&given, &outside).map_err(|refused| match refused {
        Refused::Call(problem) => at_role_call(lua, shared, problem, 1),
        Refused::Variable(mut error) => {
            error.chain.extend(marked(shared));
            raise(shared.on_host(error))
        }
    })?;
    for (name, param) in &role.params {
        if let (true, Some(Value::String(secret))) = (param.secret, resolved.get(name)) {
            shared.local.add_secret(secret);
        }
    }
    let object = to_lua(lua, classes, &Value::Object((*resolved).clone()), "p")?;
    if let LuaValue::Table(table) = &object {
        for (name, _) in resolved.iter().filter(|(_, value)| value.is_null()) {
            set_null(lua, classes, table, name)?;
        }
    }
    let call = marked(shared);
    let mut run = shared.run.borrow_mut();
    let Some(coroutine) = run.current.and_then(|current| run.coroutines.get_mut(&current)) else {
        return Err(mlua::Error::runtime("a role outside of a play"));
    };
    let outer = coroutine.roles.last();
    let mut tags = outer.map(|frame| frame.tags.clone()).unwrap_or_default();
    tags.extend(options.tags.0);
    let r#become = match Become::new(options.r#become, options.become_user.as_deref()) {
        Become::Inherit => outer.map(|frame| frame.r#become.clone()).unwrap_or_default(),
        own => own,
    };
    let depth = coroutine.roles.len();
    let function = role.run.clone();
    coroutine.roles.push(RoleFrame { role, params: resolved, tags, r#become, call });
    Ok((function, object, depth))
}

//! Certificates and keys of the controller that playbooks hand out to hosts: `authority`, `key_pair`.
//!
//! Whatever these make is kept in memory while a playbook is evaluated, and goes to the disk with the first tasks that are sent.

use std::ffi::OsString;
use std::path::PathBuf;

use kplay_modules::api::issue::{KeyType, read_key, type_of};
use kplay_modules::api::{Controller as _, ModuleError};
use mlua::{Lua, Table, Value as LuaValue};

use super::arguments::Problem;
use super::error::raise;
use super::library::text_of;
use super::state::Shared;
use crate::controller::Preparation;

/// Returns the certificate (PEM) of the authority that is kept in a folder, as `cert` names it. A forecast that would make the
/// authority cannot know it and returns a line that says so.
pub(super) fn authority(lua: &Lua, shared: &Shared, folder: &LuaValue) -> mlua::Result<String> {
    let folder = text_of(lua, shared, "authority", folder)?;
    let no_scope = || shared.scope(0, None);
    let preparation = Preparation::new(&shared.local, "", None, &no_scope);
    let path = preparation.destination(&folder);
    let found = shared.uncounted(|| preparation.authority(&path)).map_err(|error| refused(lua, shared, "authority", error))?;
    Ok(found.unwrap_or_else(|| format!("(the certificate of an authority that would be made in {folder})\n")))
}

/// Returns where a key pair lies that several hosts share: `PATH.key` and `PATH.pub`, made if it is missing. A private key that is
/// there is kept, whatever its type.
pub(super) fn key_pair(lua: &Lua, shared: &Shared, (path, key_type): (LuaValue, LuaValue)) -> mlua::Result<Table> {
    let path = text_of(lua, shared, "key_pair", &path)?;
    let key_type = match key_type {
        LuaValue::Nil => "rsa:2048".to_owned(),
        other => text_of(lua, shared, "key_pair", &other)?,
    };
    let (private, public) = shared.uncounted(|| keep(shared, &path, &key_type)).map_err(|error| refused(lua, shared, "key_pair", error))?;
    let pair = lua.create_table()?;
    pair.raw_set("private", private.to_string_lossy().as_ref())?;
    pair.raw_set("public", public.to_string_lossy().as_ref())?;
    Ok(pair)
}

fn keep(shared: &Shared, path: &str, key_type: &str) -> Result<(PathBuf, PathBuf), ModuleError> {
    if path.is_empty() || path.ends_with('/') {
        return Err(
            ModuleError::argument(format!("`{path}` cannot be the name of a key pair")).hint("name it like a file: `pki/service-accounts`")
        );
    }
    let base = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let with = |ending: &str| {
        let mut name = OsString::from(base.as_os_str());
        name.push(ending);
        PathBuf::from(name)
    };
    let (private, public) = (with(".key"), with(".pub"));
    let local = &shared.local;
    let unusable = |why: &str| ModuleError::argument(format!("the shared key `{}` cannot be used: {why}", private.display()));
    let key = match local.read_file(&private)? {
        Some(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| unusable("it is no text"))?;
            let key = read_key(&text).map_err(|error| unusable(&error.message))?;
            type_of(&key).ok_or_else(|| unusable("kplay does not know its type"))?;
            key
        }
        None => {
            let key = key_type.parse::<KeyType>()?.generate()?;
            local.add_file(&private, key.serialize_pem().into_bytes());
            key
        }
    };
    let text = key.public_key_pem().into_bytes();
    if local.read_file(&public)?.as_ref() != Some(&text) {
        local.add_file(&public, text);
    }
    Ok((private, public))
}

fn refused(lua: &Lua, shared: &Shared, function: &str, error: ModuleError) -> mlua::Error {
    let mut problem = Problem::from_module(error);
    problem.path.clear();
    raise(shared.problem(&shared.frames(lua), function, 0, problem))
}

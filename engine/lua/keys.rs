//! What the controller keeps for hosts and playbooks hand out to them: `authority`, `key_pair`, and with `kept`, `keep` and
//! `random_secret` whatever else has to be the same on several hosts.
//!
//! Whatever these make is kept in memory while a playbook is evaluated, and goes to the disk with the first tasks that are sent.

use std::ffi::OsString;
use std::path::PathBuf;

use kplay_modules::api::issue::{KeyType, read_key, type_of};
use kplay_modules::api::{Controller as _, ModuleError, base64};
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

/// Returns the text that is kept at a path of the controller, on the disk or about to go there; nil when there is none. A relative
/// path lies below the working directory, as with `keep`.
pub(super) fn kept(lua: &Lua, shared: &Shared, path: &LuaValue) -> mlua::Result<Option<String>> {
    let path = text_of(lua, shared, "kept", path)?;
    let found = shared.uncounted(|| {
        let bytes = shared.local.read_file(&place(&path)?)?;
        let not_text = |_| ModuleError::argument(format!("`{path}` on the controller is no UTF-8 text"));
        bytes.map(|bytes| String::from_utf8(bytes).map_err(not_text)).transpose()
    });
    found.map_err(|error| refused(lua, shared, "kept", error))
}

/// Keeps a text at a path of the controller, readable by its owner alone. A forecast keeps it in memory and says so.
pub(super) fn keep_text(lua: &Lua, shared: &Shared, path: &LuaValue, text: &LuaValue) -> mlua::Result<()> {
    let path = text_of(lua, shared, "keep", path)?;
    let text = text_of(lua, shared, "keep", text)?.into_bytes();
    let kept = place(&path).and_then(|path| {
        if shared.local.read_file(&path)?.as_ref() != Some(&text) {
            shared.local.add_file(&path, text);
        }
        Ok(())
    });
    kept.map_err(|error| refused(lua, shared, "keep", error))
}

fn place(path: &str) -> Result<PathBuf, ModuleError> {
    if path.is_empty() || path.ends_with('/') {
        return Err(ModuleError::argument(format!("`{path}` cannot be the name of a file")));
    }
    Ok(std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path)))
}

/// Returns that many random bytes as base64. What comes out is never shown.
pub(super) fn random_secret(lua: &Lua, shared: &Shared, bytes: &LuaValue) -> mlua::Result<String> {
    let count = bytes.as_integer().and_then(|count| usize::try_from(count).ok()).filter(|count| (8..=4096).contains(count));
    let Some(count) = count else {
        return Err(refused(lua, shared, "random_secret", ModuleError::argument("`random_secret` takes a number of bytes from 8 to 4096")));
    };
    let mut random = vec![0; count];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| refused(lua, shared, "random_secret", ModuleError::argument("the system gives no random numbers")))?;
    let text = base64::encode(&random);
    shared.local.add_secret(&text);
    Ok(text)
}

/// Declares a text secret, from here on and wherever it may be shown, and returns it.
pub(super) fn secret(lua: &Lua, shared: &Shared, text: &LuaValue) -> mlua::Result<String> {
    let text = text_of(lua, shared, "secret", text)?;
    shared.local.add_secret(&text);
    Ok(text)
}

fn refused(lua: &Lua, shared: &Shared, function: &str, error: ModuleError) -> mlua::Error {
    let mut problem = Problem::from_module(error);
    problem.path.clear();
    raise(shared.problem(&shared.frames(lua), function, 0, problem))
}

//! `order` of a play: the playbook's own function puts the hosts in the order in which they take their turns.

use mlua::{Lua, MultiValue, Table, Value as LuaValue};

use super::classes::HOST;
use super::convert::kind;
use super::error::diagnostic;
use super::hosts::host_object;
use super::state::Shared;
use crate::diagnostic::{Diagnostic, Result};

/// Returns a play's hosts in the order that it wants; those of the inventory when it does not say.
pub(super) fn decide(lua: &Lua, shared: &Shared, play: usize) -> Result<Vec<usize>> {
    let (hosts, order, place) = {
        let run = shared.run.borrow();
        let Some(code) = run.plays.get(play) else { return Ok(Vec::new()) };
        (code.play.hosts.clone(), code.order.clone(), code.play.place.clone())
    };
    let Some(order) = order else { return Ok(hosts) };
    shared.run.borrow_mut().enter_play(play);
    shared.clock.borrow_mut().start(shared.options.time_limit);
    let internal = |error: mlua::Error| Diagnostic::internal(error.to_string());
    let objects = hosts.iter().map(|host| host_object(lua, shared, *host)).collect::<mlua::Result<Vec<_>>>().map_err(internal)?;
    let list = lua.create_sequence_from(objects).map_err(internal)?;
    let mut results = shared.classes().map_err(internal)?.load.call::<MultiValue>((order, list)).map_err(internal)?.into_iter();
    if results.next() != Some(LuaValue::Boolean(true)) {
        return Err(diagnostic(&results.next().unwrap_or(LuaValue::Nil)).diagnostic);
    }
    let returned = results.next().unwrap_or(LuaValue::Nil);
    let wrong = |message: String| {
        let error = Diagnostic::user(message).at(place.clone());
        Err(error.hint("`order` is given the hosts of the play as a list, and returns the same hosts as a list"))
    };
    let LuaValue::Table(returned) = returned else {
        return wrong(format!("`order` returned {} and no list of hosts", kind(&returned)));
    };
    let mut ordered = Vec::with_capacity(hosts.len());
    for value in returned.sequence_values::<LuaValue>() {
        match value.map_err(internal)? {
            LuaValue::Table(host) => ordered.push(number(&host)),
            other => return wrong(format!("`order` returned a list with {} in it", kind(&other))),
        }
    }
    let ordered: Vec<usize> = ordered.into_iter().flatten().collect();
    let (mut wanted, mut given) = (hosts, ordered.clone());
    wanted.sort_unstable();
    given.sort_unstable();
    let names = |hosts: &[usize]| hosts.iter().map(|host| shared.host_name(*host)).collect::<Vec<_>>().join(" ");
    if wanted != given {
        return wrong(format!("`order` returned the hosts {}, the play's are {}", names(&ordered), names(&wanted)));
    }
    Ok(ordered)
}

/// Returns a host object's number.
fn number(host: &Table) -> Option<usize> {
    host.raw_get(HOST).ok().flatten()
}

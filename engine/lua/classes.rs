//! The metatables by which kplay's own objects are told apart, and the hidden fields that hold their numbers.

use mlua::{Function, Lua, Table};

/// Field of a host object: its number.
pub(super) const HOST: &str = "\u{1}host";
/// Field of a result: the number of its task.
pub(super) const TASK: &str = "\u{1}task";
/// Field of an error object: the diagnostic.
pub(super) const ERROR: &str = "\u{1}error";
/// Field of an error object: the table that the playbook raised, in a list.
pub(super) const VALUE: &str = "\u{1}value";

/// What the prelude returns.
pub(super) struct Classes {
    pub host: Table,
    pub result: Table,
    pub vars: Table,
    pub map: Table,
    pub list: Table,
    pub error: Table,
    /// Methods of hosts; modules are added to it.
    pub methods: Table,
    /// What all files see.
    pub globals: Table,
    /// Makes the environment of a folder's files.
    pub environment: Function,
    /// Runs a file, protected.
    pub load: Function,
    /// Body of a host's coroutine.
    pub main: Function,
    /// Names of strict tables (`vars.tls`), for messages; does not keep them alive.
    pub paths: Table,
    /// The fields of strict tables that are null, likewise.
    pub nulls: Table,
}

impl Classes {
    /// Takes apart what the prelude returned.
    pub(super) fn new(lua: &Lua, prelude: &Table) -> mlua::Result<Self> {
        let weak = || {
            let table = lua.create_table()?;
            table.set_metatable(Some(lua.create_table_from([("__mode", "k")])?))?;
            Ok::<_, mlua::Error>(table)
        };
        Ok(Self {
            host: prelude.raw_get("host")?,
            result: prelude.raw_get("result")?,
            vars: prelude.raw_get("vars")?,
            map: prelude.raw_get("map")?,
            list: prelude.raw_get("list")?,
            error: prelude.raw_get("error")?,
            methods: prelude.raw_get("methods")?,
            globals: prelude.raw_get("globals")?,
            environment: prelude.raw_get("environment")?,
            load: prelude.raw_get("load")?,
            main: prelude.raw_get("main")?,
            paths: weak()?,
            nulls: weak()?,
        })
    }

    /// Returns what kind of object a table is.
    pub(super) fn kind(&self, table: &Table) -> Kind {
        let Some(meta) = table.metatable() else { return Kind::Plain };
        [
            (&self.result, Kind::Result),
            (&self.list, Kind::List),
            (&self.map, Kind::Map),
            (&self.host, Kind::Host),
            (&self.vars, Kind::Vars),
            (&self.error, Kind::Error),
        ]
        .into_iter()
        .find_map(|(class, kind)| (*class == meta).then_some(kind))
        .unwrap_or(Kind::Plain)
    }

    pub(super) fn is_error(&self, table: &Table) -> bool {
        self.kind(table) == Kind::Error
    }
}

/// Kinds of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Result,
    Host,
    Vars,
    Map,
    List,
    Error,
}

//! Data between Lua and JSON, strictly: no holes, no functions, no numbers that JSON lacks, keys in a fixed order.

use mlua::{Lua, Table, Value};
use serde_json::{Map, Number, Value as Json};

use super::classes::{Classes, Kind, TASK};
use super::source::Segment;

/// Deepest nesting of data.
const DEPTH: usize = 64;
/// Field that marks a result whose paths are to be put in its place.
pub(super) const PATHS_OF: &str = "\u{1}paths of";

/// Why a value is no data, and where in it.
#[derive(Debug)]
pub(super) struct BadValue {
    pub path: Vec<Segment>,
    pub message: String,
    pub hint: Option<String>,
}

/// Returns what users call a value's kind: `a table`.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) | Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Table(_) => "a table",
        Value::Function(_) => "a function",
        Value::Error(_) => "an error",
        _ => "no data",
    }
}

/// Converts Lua's data to JSON.
pub(super) struct ToJson<'a> {
    classes: &'a Classes,
    /// Whether results may stand in the field that is being converted.
    results_allowed: fn(&[Segment]) -> bool,
    path: Vec<Segment>,
    /// Whether results were found.
    pub found_results: bool,
}

impl<'a> ToJson<'a> {
    /// Creates a converter that takes plain data only.
    pub(super) fn new(classes: &'a Classes) -> Self {
        Self::with_results(classes, |_| false)
    }

    /// Creates a converter that puts marks where `allowed` results stand.
    pub(super) fn with_results(classes: &'a Classes, allowed: fn(&[Segment]) -> bool) -> Self {
        Self { classes, results_allowed: allowed, path: Vec::new(), found_results: false }
    }

    /// Converts any value.
    pub(super) fn value(&mut self, value: &Value) -> Result<Json, BadValue> {
        match value {
            Value::Nil => Ok(Json::Null),
            Value::Boolean(value) => Ok(Json::Bool(*value)),
            Value::Integer(value) => Ok(Json::from(*value)),
            Value::Number(value) => match Number::from_f64(*value) {
                Some(number) => Ok(Json::Number(number)),
                None => Err(self.bad(format!("{value} is no number that can be passed on"), None)),
            },
            Value::String(text) => match text.to_str() {
                Ok(text) => Ok(Json::from(text.as_ref())),
                Err(_) => Err(self.bad("the string is not UTF-8 text", Some("`files/` and `src` are for binary contents"))),
            },
            Value::Table(table) => self.table(table),
            other => Err(self.bad(format!("{} is no data", kind(other)), None)),
        }
    }

    fn table(&mut self, table: &Table) -> Result<Json, BadValue> {
        let class = self.classes.kind(table);
        match class {
            Kind::Result => return self.result(table),
            Kind::Host => return Err(self.bad("a host is no data", Some("pass its `name`"))),
            Kind::Vars => {
                return Err(self.bad("all variables of a host are more than can be passed on", Some("name the ones that are needed")));
            }
            Kind::Error => return Err(self.bad("an error is no data", Some("pass its `message`"))),
            Kind::Plain | Kind::Map | Kind::List => {}
        }
        if self.path.len() >= DEPTH {
            return Err(self.bad("the table is nested too deeply, or contains itself", None));
        }
        let mut fields = Vec::new();
        let mut items = Vec::new();
        let mut failure = None;
        let walked = table.for_each(|key: Value, value: Value| {
            let converted = match &key {
                Value::String(text) => match text.to_str() {
                    Ok(name) => self.nested(Segment::Key(name.to_string()), &value).map(|json| fields.push((name.to_string(), json))),
                    Err(_) => Err(self.bad("a key is not UTF-8 text", None)),
                },
                Value::Integer(index) if *index >= 1 => {
                    let position = usize::try_from(*index).unwrap_or(usize::MAX);
                    self.nested(Segment::Index(position), &value).map(|json| items.push((position, json)))
                }
                other => Err(self.bad(format!("{} cannot be a key", kind(other)), Some("keys are strings, or positions from 1"))),
            };
            converted.map_err(|bad| {
                failure = Some(bad);
                mlua::Error::runtime("stopped")
            })
        });
        if let Some(bad) = failure {
            return Err(bad);
        }
        if walked.is_err() {
            return Err(self.bad("the table cannot be read", None));
        }
        match (fields.is_empty(), items.is_empty()) {
            (false, false) => Err(self.bad("the table is half list, half map", Some("write it as `{ a, b }` or as `{ name = value }`"))),
            (true, true) if class == Kind::List => Ok(Json::Array(Vec::new())),
            (_, true) => {
                fields.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                Ok(Json::Object(Map::from_iter(fields)))
            }
            (true, false) => {
                items.sort_unstable_by_key(|(position, _)| *position);
                if let Some((missing, _)) = items.iter().enumerate().find(|(index, (position, _))| index + 1 != *position) {
                    return Err(self.bad(format!("the list has a hole: item {} is nil", missing + 1), None));
                }
                Ok(Json::Array(items.into_iter().map(|(_, json)| json).collect()))
            }
        }
    }

    fn nested(&mut self, segment: Segment, value: &Value) -> Result<Json, BadValue> {
        self.path.push(segment);
        let converted = self.value(value);
        self.path.pop();
        converted
    }

    fn result(&mut self, table: &Table) -> Result<Json, BadValue> {
        if !(self.results_allowed)(&self.path) {
            return Err(self.bad("the result of a task is no data", Some("read one of its fields, such as `.changed`")));
        }
        self.found_results = true;
        let task: u32 = table.raw_get(TASK).map_err(|_| self.bad("the result is damaged", None))?;
        Ok(Json::Object(Map::from_iter([(PATHS_OF.to_owned(), Json::from(task))])))
    }

    fn bad(&self, message: impl Into<String>, hint: Option<&str>) -> BadValue {
        BadValue { path: self.path.clone(), message: message.into(), hint: hint.map(str::to_owned) }
    }
}

/// Converts JSON to Lua's strict tables: reading a field that is not there is an error that names `path`.
pub(super) fn to_lua(lua: &Lua, classes: &Classes, json: &Json, path: &str) -> mlua::Result<Value> {
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.iter().enumerate() {
                table.raw_set(index + 1, to_lua(lua, classes, item, &format!("{path}[{}]", index + 1))?)?;
            }
            table.set_metatable(Some(classes.list.clone()))?;
            classes.paths.raw_set(&table, path)?;
            Value::Table(table)
        }
        Json::Object(fields) => {
            let table = lua.create_table_with_capacity(0, fields.len())?;
            for (name, value) in fields {
                if value.is_null() {
                    set_null(lua, classes, &table, name)?;
                } else {
                    table.raw_set(name.as_str(), to_lua(lua, classes, value, &format!("{path}.{name}"))?)?;
                }
            }
            table.set_metatable(Some(classes.map.clone()))?;
            classes.paths.raw_set(&table, path)?;
            Value::Table(table)
        }
    })
}

/// Remembers that a field of a strict table is there, and nil.
pub(super) fn set_null(lua: &Lua, classes: &Classes, table: &Table, name: &str) -> mlua::Result<()> {
    let nulls = match classes.nulls.raw_get::<Option<Table>>(table)? {
        Some(nulls) => nulls,
        None => {
            let nulls = lua.create_table()?;
            classes.nulls.raw_set(table, &nulls)?;
            nulls
        }
    };
    nulls.raw_set(name, true)
}

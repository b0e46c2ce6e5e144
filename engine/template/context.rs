//! What a template sees: its own variables, the role's parameters, the host's variables, the host, its facts, the inventory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ValueKind};
use serde_json::{Map, Value as Json};

/// A layer of variables.
pub trait Layer: std::fmt::Debug + Send + Sync {
    /// Returns the value of a variable; an error says why it has none although it is defined.
    fn get(&self, name: &str) -> Option<std::result::Result<Json, String>>;
    /// Returns the names of all variables.
    fn names(&self) -> Vec<String>;
}

impl Layer for Map<String, Json> {
    fn get(&self, name: &str) -> Option<std::result::Result<Json, String>> {
        Map::get(self, name).cloned().map(Ok)
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// What a template may ask of other hosts.
pub trait World: std::fmt::Debug + Send + Sync {
    /// Returns each group with its hosts.
    fn groups(&self) -> Vec<(String, Vec<String>)>;
    /// Returns the names of all hosts.
    fn hosts(&self) -> Vec<String>;
    /// Returns the variables of a host.
    fn variables(&self, host: &str) -> Option<Arc<dyn Layer>>;
}

/// Everything a template may name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Variables, the layer that wins first.
    pub layers: Vec<Arc<dyn Layer>>,
    /// Name of the host.
    pub host: String,
    /// Groups of the host.
    pub groups: Vec<String>,
    /// Facts of the host, once they are known.
    pub facts: Option<Arc<Json>>,
    /// The inventory as a whole.
    pub world: Arc<dyn World>,
}

/// Names that are there besides the variables, which win over them.
const OWN_NAMES: [&str; 6] = ["facts", "group_names", "groups", "host", "hostvars", "inventory_hostname"];

impl Scope {
    /// Returns all names, for suggestions.
    pub(super) fn names(&self) -> Vec<String> {
        let variables = self.layers.iter().flat_map(|layer| layer.names());
        variables.chain(OWN_NAMES.map(str::to_owned)).collect()
    }

    /// Returns the value of `a` or `a.b.c`.
    pub(super) fn resolve(&self, expression: &str) -> Option<Value> {
        let mut parts = expression.split('.');
        let first = self.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get_attr(part).ok().filter(|found| !found.is_undefined()))
    }

    fn get(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.layers.iter().find_map(|layer| layer.get(name)) {
            return Some(value_or_error(value));
        }
        match name {
            "facts" => self.facts.as_ref().map(|facts| from_json(facts)),
            "group_names" => Some(list(&self.groups)),
            "groups" => Some(Value::from_pairs(self.world.groups().iter().map(|(group, hosts)| (group.as_str(), list(hosts))))),
            "host" => Some(Value::from_pairs([("name", Value::from(self.host.as_str())), ("groups", list(&self.groups))])),
            "hostvars" => Some(Value::from_object(HostVariables(self.world.clone()))),
            "inventory_hostname" => Some(Value::from(self.host.as_str())),
            _ => None,
        }
    }
}

/// A scope that is being rendered; notices when facts are read that are not there.
#[derive(Debug)]
pub(super) struct Context {
    scope: Scope,
    wanted_facts: AtomicBool,
}

impl Context {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, wanted_facts: AtomicBool::new(false) }
    }

    pub(super) fn wanted_facts(&self) -> bool {
        self.wanted_facts.load(Ordering::Relaxed)
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let value = self.scope.get(key);
        if value.is_none() && key == "facts" {
            self.wanted_facts.store(true, Ordering::Relaxed);
        }
        value
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.scope.names().into_iter().map(Value::from).collect())
    }
}

/// `hostvars`: looked up host by host as they are named.
#[derive(Debug)]
struct HostVariables(Arc<dyn World>);

impl Object for HostVariables {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(Value::from_object(OneHost(self.0.variables(key.as_str()?)?)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.hosts().into_iter().map(Value::from).collect())
    }
}

/// `hostvars["name"]`
#[derive(Debug)]
struct OneHost(Arc<dyn Layer>);

impl Object for OneHost {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_str()?).map(value_or_error)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.names().into_iter().map(Value::from).collect())
    }
}

/// An invalid value makes whatever uses it fail with the error.
fn value_or_error(value: std::result::Result<Json, String>) -> Value {
    match value {
        Ok(value) => from_json(&value),
        Err(message) => Value::from(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message)),
    }
}

fn list(names: &[String]) -> Value {
    names.iter().map(|name| Value::from(name.as_str())).collect()
}

/// Converts data to the template engine's.
pub(crate) fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(fields) => Value::from_pairs(fields.iter().map(|(name, value)| (name.as_str(), from_json(value)))),
    }
}

/// Converts the template engine's data back; `None` for what is no data.
pub(crate) fn to_json(value: &Value) -> Option<Json> {
    Some(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => match value.as_i64().filter(|_| value.is_integer()) {
            Some(number) => Json::from(number),
            None => Json::Number(serde_json::Number::from_f64(f64::try_from(value.clone()).ok()?)?),
        },
        ValueKind::String => Json::from(value.as_str()?),
        ValueKind::Seq | ValueKind::Iterable => Json::Array(value.try_iter().ok()?.map(|item| to_json(&item)).collect::<Option<_>>()?),
        ValueKind::Map => {
            let mut fields = Map::new();
            for key in value.try_iter().ok()? {
                fields.insert(key.to_string(), to_json(&value.get_item(&key).ok()?)?);
            }
            Json::Object(fields)
        }
        _ => return None,
    })
}

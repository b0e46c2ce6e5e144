//! What a template sees: its own variables, the role's parameters, the host's variables, the host, its facts, the inventory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use serde_json::{Map, Value as Json};

/// Everything a template may name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Variables, the layer that wins first.
    pub layers: Vec<Arc<Map<String, Json>>>,
    /// Name of the host.
    pub host: String,
    /// Groups of the host, in the order of the inventory.
    pub groups: Vec<String>,
    /// Facts of the host, once they are known.
    pub facts: Option<Arc<Json>>,
    /// The inventory as a whole.
    pub world: Arc<World>,
}

/// What a template may ask of other hosts.
#[derive(Debug, Default)]
pub struct World {
    /// Hosts of each group.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Variables of each host.
    pub variables: BTreeMap<String, Arc<Map<String, Json>>>,
}

/// Names that are there besides the variables, which win over them.
const OWN_NAMES: [&str; 6] = ["facts", "group_names", "groups", "host", "hostvars", "inventory_hostname"];

impl Scope {
    /// Returns all names, for suggestions.
    pub(super) fn names(&self) -> Vec<String> {
        let variables = self.layers.iter().flat_map(|layer| layer.keys().cloned());
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
            return Some(from_json(value));
        }
        match name {
            "facts" => self.facts.as_ref().map(|facts| from_json(facts)),
            "group_names" => Some(list(&self.groups)),
            "groups" => Some(Value::from_pairs(self.world.groups.iter().map(|(group, hosts)| (group.as_str(), list(hosts))))),
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

/// `hostvars`: converted host by host as they are named.
#[derive(Debug)]
struct HostVariables(Arc<World>);

impl Object for HostVariables {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let variables = self.0.variables.get(key.as_str()?)?;
        Some(Value::from_pairs(variables.iter().map(|(name, value)| (name.as_str(), from_json(value)))))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.variables.keys().map(|name| Value::from(name.as_str())).collect())
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

//! Templates in variables: `{{ other }}` is rendered when the variable is read, with all variables of the host at hand.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value as Jinja};
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use super::{Data, Host, Variable};
use crate::diagnostic::{Diagnostic, Result, nearest};
use crate::template::{environment, from_json, to_json};

/// Variables that may refer to one another in a row.
const DEPTH: usize = 50;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// Returns a variable's value, rendered; `None` when it is not defined.
pub fn value(data: &Arc<Data>, host: &Host, key: &str) -> Result<Option<Value>> {
    Reader { data, path: Vec::new(), used: Arc::default() }.variable(host, key)
}

struct Reader<'d> {
    data: &'d Arc<Data>,
    /// The variables that are being rendered, outermost first: host and name.
    path: Vec<(usize, String)>,
    used: Used,
}

/// Values that came out of encrypted files, or were made of such, and have gone into what is being rendered.
type Used = Arc<Mutex<Vec<Value>>>;

impl Reader<'_> {
    /// Returns a variable's value. What is rendered from secrets is one as well.
    fn variable(&self, host: &Host, key: &str) -> Result<Option<Value>> {
        let Some(variable) = host.variable(key) else { return Ok(None) };
        if variable.literal || !has_template(&variable.value) {
            if variable.secret {
                self.note(variable.value.clone());
            }
            return Ok(Some(variable.value.clone()));
        }
        let step = (host.number, key.to_owned());
        if self.path.contains(&step) || self.path.len() >= DEPTH {
            let names: Vec<_> = self.path.iter().chain([&step]).map(|(_, name)| format!("`{name}`")).collect();
            return Err(Diagnostic::user(format!("variables refer to each other: {}", names.join(" to "))).at(variable.place()));
        }
        let mut path = self.path.clone();
        path.push(step);
        Reader { data: self.data, path, used: self.used.clone() }.render(host, key, variable, &variable.value).map(Some)
    }

    /// Remembers that a secret has gone into what is being rendered.
    fn note(&self, value: Value) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }

    /// Renders a text and hides what secrets went into: where they are masked in it that will do; where a filter has spelled them
    /// anew, and in what was encrypted itself, all of it is secret.
    fn text(&self, host: &Host, key: &str, variable: &Variable, text: &str) -> Result<Value> {
        let inner = Reader { data: self.data, path: self.path.clone(), used: Arc::default() };
        let rendered = inner.rendered(host, key, variable, text)?;
        let used = std::mem::take(&mut *inner.used.lock().unwrap_or_else(PoisonError::into_inner));
        if variable.secret || !used.is_empty() {
            let secrets = &self.data.secrets;
            let masked = rendered.as_str().is_some_and(|text| used.iter().any(|value| secrets.shows(text, value)));
            if variable.secret || !masked {
                secrets.add_value(&rendered);
            }
            self.note(rendered.clone());
        }
        Ok(rendered)
    }

    fn render(&self, host: &Host, key: &str, variable: &Variable, value: &Value) -> Result<Value> {
        match value {
            Value::String(text) if is_template(text) => self.text(host, key, variable, text),
            Value::Array(items) => items.iter().map(|item| self.render(host, key, variable, item)).collect(),
            Value::Object(entries) => entries
                .iter()
                .map(|(name, value)| Ok((name.clone(), self.render(host, key, variable, value)?)))
                .collect::<Result<Map<_, _>>>()
                .map(Value::Object),
            other => Ok(other.clone()),
        }
    }

    fn rendered(&self, host: &Host, key: &str, variable: &Variable, text: &str) -> Result<Value> {
        let failed = |error: &minijinja::Error| self.diagnostic(host, key, variable, error);
        let template = ENVIRONMENT.template_from_str(text).map_err(|error| failed(&error))?;
        let mut context = Map::new();
        let mut lazy = Vec::new();
        for name in template.undeclared_variables(false) {
            if name == "hostvars" {
                lazy.push((
                    name,
                    Jinja::from_object(AllHosts { data: self.data.clone(), path: self.path.clone(), used: self.used.clone() }),
                ));
            } else if let Some(value) = self.magic(host, &name) {
                context.insert(name, value);
            } else if let Some(value) = self.variable(host, &name)? {
                context.insert(name, value);
            }
        }
        let context = Jinja::from_pairs(context.into_iter().map(|(name, value)| (name, from_json(&value))).chain(lazy));
        // A template that is one expression keeps the type of its value, as Ansible's do.
        if let Some(expression) = lone_expression(text) {
            let compiled = ENVIRONMENT.compile_expression(expression).map_err(|error| failed(&error))?;
            let result = compiled.eval(context).map_err(|error| failed(&error))?;
            if result.is_undefined() {
                return Err(failed(&minijinja::Error::new(ErrorKind::UndefinedError, format!("`{expression}` is undefined"))));
            }
            return to_json(&result).ok_or_else(|| {
                Diagnostic::user(format!("the value of `{key}` is no data that can be kept")).at(variable.place()).on(&host.name)
            });
        }
        template.render(context).map(Value::String).map_err(|error| failed(&error))
    }

    /// Returns what is known of a host besides its variables.
    fn magic(&self, host: &Host, name: &str) -> Option<Value> {
        let names = |hosts: Vec<usize>| hosts.into_iter().map(|host| Value::from(self.data.hosts[host].name.as_str())).collect::<Value>();
        match name {
            "inventory_hostname" => Some(Value::from(host.name.as_str())),
            "inventory_hostname_short" => Some(Value::from(host.name.split('.').next().unwrap_or_default())),
            "inventory_file" => absolute(host).map(|path| path.to_string_lossy().into()),
            "inventory_dir" => absolute(host)?.parent().map(|path| path.to_string_lossy().into()),
            "groups" => Some(self.data.groups.iter().map(|group| (group.name.clone(), names(self.data.descend(group)))).collect()),
            "group_names" => {
                let mut names: Vec<_> = host.groups.iter().map(|group| self.data.groups[*group].name.as_str()).collect();
                names.sort_unstable();
                Some(names.into())
            }
            _ => None,
        }
    }

    fn diagnostic(&self, host: &Host, key: &str, variable: &Variable, error: &minijinja::Error) -> Box<Diagnostic> {
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let what = Diagnostic::user(format!("cannot render the variable `{key}`: {detail}")).at(variable.place()).on(&host.name);
        if error.kind() != ErrorKind::UndefinedError {
            return what;
        }
        let missing = detail.split('`').nth(1).and_then(|name| name.split('.').next()).unwrap_or_default();
        match nearest(missing, host.keys().iter().map(String::as_str)).filter(|near| *near != missing) {
            Some(near) => what.hint(format!("did you mean `{near}`?")),
            None => what,
        }
    }
}

/// Returns the file that names the host first, from the root on.
fn absolute(host: &Host) -> Option<std::path::PathBuf> {
    std::path::absolute(host.source.as_ref()?).ok()
}

/// Returns whether any string in the value is a template.
fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(entries) => entries.values().any(has_template),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Returns the expression of a text that is `{{ expression }}` and nothing else.
fn lone_expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    (!inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%")).then(|| inner.trim())
}

/// `hostvars`: all hosts' variables, each rendered when it is looked at.
#[derive(Debug)]
struct AllHosts {
    data: Arc<Data>,
    path: Vec<(usize, String)>,
    used: Used,
}

impl Object for AllHosts {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let host = *self.data.host_index.get(key.as_str()?)?;
        Some(Jinja::from_object(OneHost { all: self.clone(), host }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.data.hosts.iter().filter(|host| !host.implicit).map(|host| Jinja::from(host.name.as_str()));
        Enumerator::Values(names.collect())
    }
}

/// `hostvars["name"]`
#[derive(Debug)]
struct OneHost {
    all: Arc<AllHosts>,
    host: usize,
}

impl Object for OneHost {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let host = self.all.data.hosts.get(self.host)?;
        let key = key.as_str()?;
        let reader = Reader { data: &self.all.data, path: self.all.path.clone(), used: self.all.used.clone() };
        if let Some(value) = reader.magic(host, key) {
            return Some(from_json(&value));
        }
        match reader.variable(host, key) {
            Ok(value) => value.map(|value| from_json(&value)),
            Err(error) => Some(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{error}, on {}", host.name)).into()),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let keys = self.all.data.hosts.get(self.host).map(Host::keys).unwrap_or_default();
        Enumerator::Values(keys.into_iter().map(Jinja::from).collect())
    }
}

//! What is wrong with the arguments of a call, said in the words of whoever wrote it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use kplay_modules::api::ModuleError;
use kplay_modules::api::module::Entry;
use serde_json::{Map, Value};

use super::convert::BadValue;
use super::options;
use super::source::{Part, Segment, parse_path, show_path};
use crate::diagnostic::nearest;

/// Something wrong with one argument; the caller adds place, chain and host.
#[derive(Debug)]
pub(super) struct Problem {
    /// Where in the table of arguments; empty for the call as a whole.
    pub path: Vec<Segment>,
    pub part: Part,
    pub message: String,
    pub hints: Vec<String>,
    pub details: Vec<String>,
}

impl Problem {
    pub(super) fn new(path: Vec<Segment>, part: Part, message: impl Into<String>) -> Self {
        Self { path, part, message: message.into(), hints: Vec::new(), details: Vec::new() }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Names the nearest candidate, if one is near.
    pub(super) fn suggest<'a>(self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(name, candidates) {
            Some(near) => self.hint(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Turns a value that is no data into a problem of an argument of `what`.
    pub(super) fn from_bad(bad: BadValue, what: &str) -> Self {
        let shown = show_path(&bad.path);
        let message = if shown.is_empty() { format!("{what}: {}", bad.message) } else { format!("`{shown}` of {what}: {}", bad.message) };
        let problem = Self::new(bad.path, Part::Value, message);
        match bad.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }

    /// Turns what a module says about its arguments into a problem.
    pub(super) fn from_module(error: ModuleError) -> Self {
        let path = error.argument.as_deref().map(parse_path).unwrap_or_default();
        let mut problem = Self::new(path, Part::Value, error.message);
        problem.hints.extend(error.hint);
        problem.details = error.details;
        problem
    }
}

/// Names of a module's arguments.
#[derive(Debug)]
pub(super) struct Signature {
    names: Vec<String>,
    required: Vec<String>,
}

/// Signatures of the modules, read from their schemas when first needed.
#[derive(Debug, Default)]
pub(super) struct Signatures(RefCell<HashMap<&'static str, Rc<Signature>>>);

impl Signatures {
    pub(super) fn of(&self, module: &'static Entry) -> Rc<Signature> {
        let mut known = self.0.borrow_mut();
        Rc::clone(known.entry(module.name).or_insert_with(|| Rc::new(Signature::read(&(module.schema)().to_value()))))
    }
}

impl Signature {
    fn read(schema: &Value) -> Self {
        let names = schema.get("properties").and_then(Value::as_object).map(|fields| fields.keys().cloned().collect());
        let required = schema.get("required").and_then(Value::as_array);
        let required = required.map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        Self { names: names.unwrap_or_default(), required: required.unwrap_or_default() }
    }

    /// Finds a name that the module does not know, or one that it misses.
    pub(super) fn check(&self, module: &str, arguments: &Map<String, Value>) -> Option<Problem> {
        if let Some(unknown) = arguments.keys().find(|name| !self.names.contains(name)) {
            let problem =
                Problem::new(vec![Segment::Key(unknown.clone())], Part::Key, format!("unknown argument `{unknown}` for module `{module}`"));
            return Some(if options::NAMES.contains(&unknown.as_str()) {
                problem.hint(format!("`{unknown}` is an option: write `host:{module}({{ … }}, {{ {unknown} = … }})`"))
            } else if let Some(hint) = options::foreign(unknown) {
                problem.hint(hint)
            } else {
                let names = self.names.iter().map(String::as_str);
                let problem = problem.suggest(unknown, names);
                if problem.hints.is_empty() { problem.hint(format!("`kplay doc {module}` lists its arguments")) } else { problem }
            });
        }
        let missing = self.required.iter().find(|name| !arguments.contains_key(*name))?;
        Some(Problem::new(Vec::new(), Part::Key, format!("missing argument `{missing}` for module `{module}`")))
    }
}

/// Says in the user's words what serde says about an argument of `what` (``module `file` ``).
pub(super) fn from_serde(error: &ModuleError, what: &str) -> Problem {
    let text = error.message.as_str();
    let mut path = error.argument.as_deref().map(parse_path).unwrap_or_default();
    let shown = show_path(&path);
    let named = if shown.is_empty() { what.to_owned() } else { format!("`{shown}` of {what}") };
    let candidates: Vec<&str> = text.split_once("expected").map(|(_, rest)| quoted(rest).collect()).unwrap_or_default();
    let first = quoted(text).next().unwrap_or_default();
    if text.starts_with("unknown field") {
        if !matches!(path.last(), Some(Segment::Key(name)) if name == first) {
            path.push(Segment::Key(first.to_owned()));
        }
        let parent = show_path(&path[..path.len() - 1]);
        let of = if parent.is_empty() { what.to_owned() } else { format!("`{parent}` of {what}") };
        let problem = Problem::new(path, Part::Key, format!("unknown field `{first}` in {of}")).suggest(first, candidates.iter().copied());
        return if problem.hints.is_empty() && !candidates.is_empty() {
            problem.hint(format!("its fields are {}", candidates.join(", ")))
        } else {
            problem
        };
    }
    if text.starts_with("missing field") {
        return Problem::new(path, Part::Key, format!("missing field `{first}` in {named}"));
    }
    if text.starts_with("unknown variant") {
        let allowed = candidates.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let problem = Problem::new(path, Part::Value, format!("{named} cannot be \"{first}\""));
        return match nearest(first, candidates.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
            None => problem.hint(format!("write one of {allowed}")),
        };
    }
    for head in ["invalid type: ", "invalid value: "] {
        if let Some((seen, expected)) = text.strip_prefix(head).and_then(|rest| rest.rsplit_once(", expected ")) {
            return Problem::new(path, Part::Value, format!("{named} must be {}, not {}", wanted(expected), given(seen)));
        }
    }
    Problem::new(path, Part::Value, if shown.is_empty() { text.to_owned() } else { format!("{named}: {text}") })
}

/// Returns what stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn wanted(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table of names and values".to_owned(),
        "path string" => "a string".to_owned(),
        other if other.starts_with("struct ") => "a table of names and values".to_owned(),
        other => other.to_owned(),
    }
}

fn given(seen: &str) -> String {
    let value = seen.split_once(' ').map(|(_, value)| value.trim_matches('`')).unwrap_or_default();
    match seen.split(' ').next().unwrap_or_default() {
        "integer" => format!("the number {value}"),
        "floating" => format!("the number {}", seen.trim_start_matches("floating point ").trim_matches('`')),
        "string" => format!("the string {value}"),
        "boolean" => value.to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        "null" | "unit" => "nil".to_owned(),
        _ => seen.to_owned(),
    }
}

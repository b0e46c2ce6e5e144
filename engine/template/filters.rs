//! Filters that users of Ansible expect beside Jinja2's own, and the methods of Python's strings and mappings.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;
use std::path::Path;

use super::{from_json, to_json};
use kplay_modules::api::base64;

type Result<T> = std::result::Result<T, Error>;

/// Adds all of them.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("b64decode", b64decode);
    environment.add_filter("b64encode", |text: &str| base64::encode(text.as_bytes()));
    environment
        .add_filter("basename", |path: &str| Path::new(path).file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned()));
    environment.add_filter("combine", combine);
    environment.add_filter("dict2items", dict2items);
    environment
        .add_filter("dirname", |path: &str| Path::new(path).parent().map_or(String::new(), |path| path.to_string_lossy().into_owned()));
    environment.add_filter("from_json", |text: &str| {
        serde_json::from_str::<Json>(text).map(|value| from_json(&value)).map_err(|error| wrong(error.to_string()))
    });
    environment.add_filter("from_yaml", from_yaml);
    environment.add_filter("mandatory", |value: Value| value);
    environment.add_filter("quote", |text: &str| quote(text));
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("regex_search", regex_search);
    environment.add_filter("sha256", |text: &str| kplay_modules::api::Digest::of(text.as_bytes()).hex());
    environment.add_filter("ternary", |condition: &Value, yes: Value, no: Value| if condition.is_true() { yes } else { no });
    environment.add_filter("to_json", |value: &Value| json(value, false));
    environment.add_filter("to_nice_json", |value: &Value| json(value, true));
    environment.add_filter("to_nice_yaml", yaml);
    environment.add_filter("to_yaml", yaml);
    environment.set_unknown_method_callback(method);
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn data(value: &Value) -> Result<Json> {
    to_json(value).ok_or_else(|| wrong(format!("{} is no data", value.kind())))
}

fn json(value: &Value, nice: bool) -> Result<String> {
    let data = data(value)?;
    // A JSON value without odd keys can always be written.
    let text = if nice { serde_json::to_string_pretty(&data) } else { serde_json::to_string(&data) };
    text.map_err(|error| wrong(error.to_string()))
}

fn yaml(value: &Value) -> Result<String> {
    serde_saphyr::to_string(&data(value)?).map_err(|error| wrong(error.to_string()))
}

fn from_yaml(text: &str) -> Result<Value> {
    let document = crate::yaml::parse(Path::new("text"), text).map_err(|error| wrong(error.message))?;
    Ok(from_json(&document.root.to_json()))
}

fn regex(pattern: &str) -> Result<regex_lite::Regex> {
    regex_lite::Regex::new(pattern).map_err(|error| wrong(format!("`{pattern}` is no regular expression: {error}")))
}

/// Python writes groups as `\1`, the library as `${1}`.
fn regex_replace(text: &str, pattern: &str, replacement: Option<&str>) -> Result<String> {
    let replacement = replacement.unwrap_or_default().replace('$', "$$");
    let replacement = regex(r"\\(\d+)")?.replace_all(&replacement, "$${${1}}").into_owned();
    Ok(regex(pattern)?.replace_all(text, replacement.as_str()).into_owned())
}

fn regex_search(text: &str, pattern: &str) -> Result<Value> {
    Ok(regex(pattern)?.find(text).map_or(Value::from(()), |found| Value::from(found.as_str())))
}

#[expect(clippy::needless_pass_by_value, reason = "the engine hands it over")]
fn combine(base: &Value, others: Rest<Value>) -> Result<Value> {
    let mut made = data(base)?;
    for other in others.iter() {
        match (&mut made, data(other)?) {
            (Json::Object(into), Json::Object(from)) => into.extend(from),
            _ => return Err(wrong("`combine` takes mappings")),
        }
    }
    Ok(from_json(&made))
}

fn dict2items(value: &Value) -> Result<Vec<Value>> {
    if value.kind() != ValueKind::Map {
        return Err(wrong("`dict2items` takes a mapping"));
    }
    value.try_iter()?.map(|key| Ok(Value::from_pairs([("value", value.get_item(&key)?), ("key", key)]))).collect()
}

/// Quotes a word for a shell.
fn quote(text: &str) -> String {
    let safe = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte));
    if safe { text.to_owned() } else { format!("'{}'", text.replace('\'', r#"'"'"'"#)) }
}

fn b64decode(text: &str) -> Result<String> {
    let bytes = base64::decode(text).ok_or_else(|| wrong("the text is not base64"))?;
    String::from_utf8(bytes).map_err(|_| wrong("the decoded bytes are not UTF-8 text"))
}

/// Answers methods that Python has and Jinja2 templates use, with the filters of the same meaning.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value> {
    let with_self = || std::iter::once(value.clone()).chain(arguments.iter().cloned()).collect::<Vec<_>>();
    let text = value.as_str();
    match (value.kind(), name) {
        (ValueKind::Map, "items") => state.apply_filter("items", std::slice::from_ref(value)),
        (ValueKind::Map, "keys") => Ok(value.try_iter()?.collect()),
        (ValueKind::Map, "values") => value.try_iter()?.map(|key| value.get_item(&key)).collect::<Result<Vec<_>>>().map(Value::from),
        (ValueKind::Map, "get") => {
            let found = value.get_item(arguments.first().ok_or_else(|| wrong("`get` takes a key"))?)?;
            Ok(if found.is_undefined() { arguments.get(1).cloned().unwrap_or(Value::from(())) } else { found })
        }
        (ValueKind::String, "lower" | "upper" | "title" | "capitalize" | "replace" | "split") => state.apply_filter(name, &with_self()),
        (ValueKind::String, "strip") => state.apply_filter("trim", &with_self()),
        (ValueKind::String, "splitlines") => state.apply_filter("lines", &with_self()),
        (ValueKind::String, "rstrip" | "lstrip") => {
            let chars = arguments.first().and_then(Value::as_str);
            let belongs = |letter: char| chars.map_or(letter.is_whitespace(), |chars| chars.contains(letter));
            let text = text.unwrap_or_default();
            Ok(Value::from(if name == "rstrip" { text.trim_end_matches(belongs) } else { text.trim_start_matches(belongs) }))
        }
        (ValueKind::String, "join") => {
            let items = arguments.first().cloned().unwrap_or_default();
            state.apply_filter("join", &[items, value.clone()])
        }
        (ValueKind::String, "startswith" | "endswith") => {
            let text = text.unwrap_or_default();
            let part = arguments.first().and_then(Value::as_str).ok_or_else(|| wrong(format!("`{name}` takes a string")))?;
            Ok(Value::from(if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) }))
        }
        _ => Err(Error::new(ErrorKind::UnknownMethod, format!("{} has no method `{name}`", value.kind()))),
    }
}

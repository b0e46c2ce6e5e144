//! Errors on their way through Lua: raised as diagnostics, caught as objects with fields, never as bare text.

use std::path::PathBuf;

use mlua::{Error as LuaError, Lua, Table, Value};

use super::classes::{Classes, ERROR, VALUE};
use super::source::Sources;
use crate::diagnostic::{Diagnostic, Place, nearest};

/// A diagnostic that has been raised in Lua.
#[derive(Debug, Clone)]
pub(super) struct Raised {
    pub diagnostic: Box<Diagnostic>,
    /// Why no `pcall` may catch it, if so.
    pub fatal: Option<Fatal>,
}

/// Errors that end a host's part of the play whatever the playbook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fatal {
    /// The playbook runs without end.
    OutOfTime,
    /// A forecast has come to what cannot be known.
    Unknown,
}

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl std::error::Error for Raised {}

/// Makes a diagnostic something that a Rust function can return to Lua.
pub(super) fn raise(diagnostic: Box<Diagnostic>) -> LuaError {
    LuaError::external(Raised { diagnostic, fatal: None })
}

/// As [`raise`], past every `pcall`.
pub(super) fn raise_fatal(diagnostic: Box<Diagnostic>, fatal: Fatal) -> LuaError {
    LuaError::external(Raised { diagnostic, fatal: Some(fatal) })
}

/// A function of the playbook's that is running: its file and the line it is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub file: PathBuf,
    pub line: u32,
    /// How Lua names the file in the messages it makes itself.
    short: String,
}

impl Frame {
    /// Returns a frame for a place that no running function is at any more.
    pub fn at(place: &Place) -> Self {
        Self { file: place.file.clone(), line: place.line, short: String::new() }
    }

    pub fn place(&self) -> Place {
        Place::line(&self.file, self.line)
    }
}

/// Innermost and outermost calls that are told of; to find one, Lua counts from the innermost, so that looking at all of a recursion
/// without end takes minutes.
const INNERMOST: usize = 48;
const OUTERMOST: usize = 16;

/// Returns the running functions that stand in files of the user's, innermost first; of very many, those at both ends.
pub(super) fn frames(lua: &Lua) -> Vec<Frame> {
    let mut frames = Vec::new();
    for level in 0..INNERMOST {
        match frame(lua, level) {
            None => return frames,
            Some(frame) => frames.extend(frame),
        }
    }
    let depth = depth(lua);
    let outermost = INNERMOST.max(depth.saturating_sub(OUTERMOST))..depth;
    frames.extend(outermost.filter_map(|level| frame(lua, level)?));
    frames
}

/// Returns the function that runs at a level: nothing above the last, and no frame for what stands in no file of the user's.
fn frame(lua: &Lua, level: usize) -> Option<Option<Frame>> {
    lua.inspect_stack(level, |debug| {
        let source = debug.source();
        let file = source.source.as_deref()?.strip_prefix('@')?;
        let line = u32::try_from(debug.current_line()?).ok()?;
        Some(Frame { file: PathBuf::from(file), line, short: source.short_src.as_deref().unwrap_or(file).to_owned() })
    })
}

/// Returns how many functions run.
fn depth(lua: &Lua) -> usize {
    let runs = |level| lua.inspect_stack(level, |_| ()).is_some();
    let mut above = INNERMOST;
    while runs(above) {
        above *= 2;
    }
    let mut below = above / 2;
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if runs(middle) { below = middle } else { above = middle }
    }
    above
}

/// Returns the places of frames, each once in a row.
pub(super) fn places(frames: &[Frame]) -> Vec<Place> {
    let mut places: Vec<_> = frames.iter().map(Frame::place).collect();
    places.dedup();
    places
}

/// Places a diagnostic at the innermost of `frames` and adds the others as its chain, unless it has a place already.
pub(super) fn placed(mut diagnostic: Box<Diagnostic>, frames: &[Frame]) -> Box<Diagnostic> {
    let mut places = places(frames).into_iter();
    if diagnostic.place.is_none() {
        diagnostic.place = places.next();
        diagnostic.chain = places.collect();
    }
    diagnostic
}

/// Returns what has been raised: the message handler of every protected call. Runs where the error was raised, so that the
/// place and the calls that led there can still be seen.
pub(super) fn explain(lua: &Lua, sources: &Sources, classes: &Classes, error: Value) -> mlua::Result<Table> {
    let table = match error {
        Value::Table(table) if classes.is_error(&table) => return Ok(table),
        Value::Table(table) => {
            let made = object(lua, classes, from_text(lua, sources, "the playbook raised a table as its error"), None)?;
            made.raw_set(VALUE, lua.create_sequence_from([table])?)?;
            made
        }
        Value::Error(error) => match raised(&error) {
            Some(raised) => object(lua, classes, raised.diagnostic.clone(), raised.fatal)?,
            None => object(lua, classes, from_text(lua, sources, &plain_text(&error)), None)?,
        },
        Value::String(text) => object(lua, classes, from_text(lua, sources, &text.to_string_lossy()), None)?,
        other => {
            let text = format!("the playbook raised {} as its error", super::convert::kind(&other));
            object(lua, classes, from_text(lua, sources, &text), None)?
        }
    };
    Ok(table)
}

/// Returns the diagnostic inside an error, if there is one.
pub(super) fn raised(error: &LuaError) -> Option<&Raised> {
    error.downcast_ref::<Raised>()
}

/// Returns the diagnostic of whatever a protected call, or running a file, failed with.
pub(super) fn diagnostic(error: &Value) -> Raised {
    let found = match error {
        Value::Table(table) => match table.raw_get::<Value>(ERROR) {
            Ok(Value::Error(error)) => raised(&error).cloned(),
            _ => None,
        },
        Value::Error(error) => raised(error).cloned(),
        _ => None,
    };
    found.unwrap_or_else(|| {
        let text = match error {
            Value::String(text) => text.to_string_lossy(),
            Value::Error(error) => plain_text(error),
            other => format!("the playbook raised {}", super::convert::kind(other)),
        };
        let diagnostic = Diagnostic::user(text.clone());
        let diagnostic = if text == "not enough memory" {
            diagnostic.hint("the playbook holds more data than kplay allows; look for a table that grows without end")
        } else {
            diagnostic
        };
        Raised { diagnostic, fatal: None }
    })
}

/// Returns a diagnostic of an error that Lua itself, or `error("…")`, raised: its position is in the text.
fn from_text(lua: &Lua, sources: &Sources, text: &str) -> Box<Diagnostic> {
    let frames = frames(lua);
    let first_line = text.lines().next().unwrap_or_default();
    for (index, frame) in frames.iter().enumerate() {
        let Some(message) = first_line.strip_prefix(&format!("{}:{}: ", frame.short, frame.line)) else { continue };
        let mut made = placed(Diagnostic::user(message), &frames[index..]);
        point_at_name(&mut made, sources, message);
        return made;
    }
    placed(Diagnostic::user(of_library(first_line)), &frames)
}

/// Leaves out of a message where in kplay's own Lua code it was raised, and what things are called there.
fn of_library(message: &str) -> String {
    let own = message.strip_prefix("kplay:").and_then(|rest| rest.split_once(": ")).filter(|(line, _)| line.parse::<u32>().is_ok());
    let Some((_, message)) = own else { return message.to_owned() };
    let message = message.replace("'raw_", "'");
    match message.find(" (local '").or_else(|| message.find(" (upvalue '")) {
        Some(name) => message[..name].to_owned(),
        None => message,
    }
}

/// Lua names the culprit of its own errors in quotes: `(field 'chagned')`.
fn point_at_name(diagnostic: &mut Diagnostic, sources: &Sources, message: &str) {
    let Some(place) = &diagnostic.place else { return };
    let name = message.rsplit_once("'").and_then(|(head, _)| head.rsplit_once('\'')).map(|(_, name)| name);
    if let Some(found) = name.and_then(|name| sources.word(&place.file, place.line, name)) {
        diagnostic.place = Some(found);
    }
}

/// Returns the text of an error without the traceback that mlua adds.
fn plain_text(error: &LuaError) -> String {
    match error {
        LuaError::CallbackError { cause, .. } | LuaError::WithContext { cause, .. } | LuaError::BadArgument { cause, .. } => {
            plain_text(cause)
        }
        LuaError::RuntimeError(text) | LuaError::MemoryError(text) => text.clone(),
        LuaError::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Makes the object that `pcall` returns.
fn object(lua: &Lua, classes: &Classes, diagnostic: Box<Diagnostic>, fatal: Option<Fatal>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("message", diagnostic.message.as_str())?;
    if let Some(place) = &diagnostic.place {
        table.raw_set("file", place.file.to_string_lossy().as_ref())?;
        table.raw_set("line", place.line)?;
    }
    table.raw_set("hint", diagnostic.hints.first().map(String::as_str))?;
    table.raw_set("host", diagnostic.host.as_deref())?;
    table.raw_set("details", lua.create_sequence_from(diagnostic.details.iter().map(String::as_str))?)?;
    table.raw_set(ERROR, Value::Error(Box::new(LuaError::external(Raised { diagnostic, fatal }))))?;
    table.set_metatable(Some(classes.error.clone()))?;
    Ok(table)
}

/// Fields of an error object, for those who misspell one.
pub(super) const ERROR_FIELDS: [&str; 6] = ["details", "file", "hint", "host", "line", "message"];

/// Returns the place and message of a file that Lua cannot read.
pub(super) fn syntax(sources: &Sources, error: &LuaError, file: &std::path::Path) -> Box<Diagnostic> {
    let text = plain_text(error);
    let mut parts = text.lines().next().unwrap_or_default().splitn(3, ':');
    let (_, line, message) = (parts.next(), parts.next(), parts.next());
    let (Some(line), Some(message)) = (line.and_then(|line| line.parse().ok()), message) else {
        return Diagnostic::user(text.clone()).at(Place::line(file, 0));
    };
    let message = message.trim();
    let near = message.rsplit_once("near '").map(|(_, near)| near.trim_end_matches('\''));
    let place = near.and_then(|near| sources.word(file, line, near));
    Diagnostic::user(message).at(place.unwrap_or_else(|| Place::line(file, line)))
}

/// Adds `did you mean …` when a candidate is near.
pub(super) fn suggest<'a>(diagnostic: Box<Diagnostic>, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Box<Diagnostic> {
    match nearest(name, candidates) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}

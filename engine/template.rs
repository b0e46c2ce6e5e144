//! Templates: Jinja2's language, rendered on the controller, strict about names and about what may be printed.

mod context;
mod filters;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use crate::diagnostic::{Diagnostic, Place, nearest};

pub use context::{Layer, Scope, World};
pub(crate) use context::{from_json, to_json};

/// Instructions that one rendering may take: far more than any configuration file needs, and over in a few seconds.
const FUEL: u64 = 50_000_000;
/// Marks a name that leads out of its folder, on its way from the callback that joins paths to the loader.
const OUTSIDE: &str = "outside:";

/// Renders template files; keeps what it has read and compiled.
pub struct Templates {
    environment: Environment<'static>,
}

/// Why a template was not rendered.
#[derive(Debug)]
pub enum Failure {
    /// It mentions `facts`, and the host's are not known yet.
    NeedsFacts,
    /// It is wrong, or a variable is.
    Wrong(Box<Diagnostic>),
}

impl Default for Templates {
    fn default() -> Self {
        Self { environment: environment() }
    }
}

/// Creates the environment that all templates are rendered in, those in variables of the inventory too.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Only with it do errors about undefined values name them.
    environment.set_debug(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(format);
    environment.set_fuel(Some(FUEL));
    environment.set_path_join_callback(join);
    environment.set_loader(load);
    environment.set_auto_reload(false);
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    if let Ok(syntax) = syntax.keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    filters::add(&mut environment);
    environment
}

impl Templates {
    /// Renders a file. Fails with the place in the template, or when facts are needed that are not known.
    pub fn render(&self, file: &Path, scope: &Scope) -> std::result::Result<String, Failure> {
        self.rendered(scope, |environment, context| environment.get_template(&file.to_string_lossy())?.render(context))
    }

    /// Renders a text that stands in another file, called `name` in errors.
    #[cfg(test)]
    fn render_text(&self, name: &str, text: &str, scope: &Scope) -> std::result::Result<String, Failure> {
        self.rendered(scope, |environment, context| environment.render_named_str(name, text, context))
    }

    fn rendered(
        &self,
        scope: &Scope,
        run: impl FnOnce(&Environment<'static>, Value) -> std::result::Result<String, Error>,
    ) -> std::result::Result<String, Failure> {
        let context = Arc::new(context::Context::new(scope.clone()));
        let result = run(&self.environment, Value::from_dyn_object(context.clone()));
        if context.wanted_facts() {
            return Err(Failure::NeedsFacts);
        }
        result.map_err(|error| Failure::Wrong(explain(&error, scope)))
    }
}

/// Joins the name of an included template: beside the template that includes it, else at the top of its `templates` folder.
fn join<'s>(name: &'s str, parent: &'s str) -> Cow<'s, str> {
    let parent = Path::new(parent);
    let folder = parent.parent().unwrap_or(Path::new(""));
    let root = folder.ancestors().find(|above| above.file_name().is_some_and(|name| name == "templates")).unwrap_or(folder);
    let beside = normal(&folder.join(name));
    let found = if beside.is_file() { beside } else { normal(&root.join(name)) };
    let inside = found.starts_with(normal(root)) && Path::new(name).is_relative();
    if inside { found.to_string_lossy().into_owned().into() } else { format!("{OUTSIDE}{name}").into() }
}

/// Removes `.` and `..` without looking at the disk.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut made, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir if made.file_name().is_some() => _ = made.pop(),
            other => made.push(other),
        }
        made
    })
}

#[expect(clippy::disallowed_methods, reason = "templates are read here and nowhere else")]
fn load(name: &str) -> std::result::Result<Option<String>, Error> {
    if let Some(name) = name.strip_prefix(OUTSIDE) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("`{name}` lies outside of the templates folder")));
    }
    match std::fs::read(name) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::new(ErrorKind::InvalidOperation, format!("`{name}` is not UTF-8 text"))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let reason = kplay_modules::api::error::plain(&error);
            Err(Error::new(ErrorKind::InvalidOperation, format!("cannot read `{name}`: {reason}")))
        }
    }
}

/// Prints what has one obvious form; whatever would come out in some language's notation is refused.
fn format(output: &mut Output, _: &mut State, value: &Value) -> std::result::Result<(), Error> {
    let refuse = |what: &str, hint: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("cannot print {what}; {hint}")));
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => refuse("a list", "use `| join(\",\")` or `| to_json`"),
        ValueKind::Map => refuse("a mapping", "name one of its fields or use `| to_json`"),
        ValueKind::None => refuse("a value that is none", "use `| default(\"…\", true)`"),
        ValueKind::Bool => write(output, if value.is_true() { "true" } else { "false" }),
        _ => write(output, &value.to_string()),
    }
}

fn write(output: &mut Output, text: &str) -> std::result::Result<(), Error> {
    output.write_str(text).map_err(|_| Error::new(ErrorKind::WriteFailure, "out of memory"))
}

/// Turns the engine's error into ours. Its own long form is not used: that prints the values of variables, secrets too.
fn explain(error: &Error, scope: &Scope) -> Box<Diagnostic> {
    // An error inside an included template is wrapped once for each template on the way.
    let mut chain: Vec<&Error> = vec![error];
    while let Some(inner) = chain.last().and_then(|last| std::error::Error::source(*last)).and_then(|source| source.downcast_ref::<Error>())
    {
        chain.push(inner);
    }
    let innermost = chain.iter().rev().find(|error| error.line().is_some()).copied().unwrap_or(error);
    let detail = chain.last().and_then(|error| error.detail()).map(str::to_owned);
    let message = match (innermost.kind(), detail) {
        (ErrorKind::UndefinedError, Some(detail)) => detail.split(" (from ").next().unwrap_or_default().to_owned(),
        (ErrorKind::OutOfFuel, _) => "the template does not come to an end".to_owned(),
        (ErrorKind::InvalidOperation | ErrorKind::TemplateNotFound | ErrorKind::BadInclude, Some(detail)) => detail,
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let mut made = Diagnostic::user(message.clone());
    let undefined = message.split('`').nth(1).filter(|_| innermost.kind() == ErrorKind::UndefinedError);
    if let Some(expression) = undefined {
        made.hints.extend(hint_for(expression, scope));
    }
    made.place = place(innermost);
    made.chain = chain.iter().rev().filter(|outer| !std::ptr::eq(**outer, innermost)).filter_map(|outer| place(outer)).collect();
    made.chain.dedup();
    made
}

fn place(error: &Error) -> Option<Place> {
    let line = u32::try_from(error.line()?).ok()?;
    let mut place = Place::line(error.name()?, line);
    if let (Some(source), Some(range)) = (error.template_source(), error.range())
        && let (Some(before), Some(text)) = (source.get(..range.start), source.get(range))
    {
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let at_line = before.matches('\n').count() + 1;
        if u32::try_from(at_line) == Ok(line) {
            place.column = u32::try_from(before[begin..].chars().count() + 1).unwrap_or(0);
            place.length = u32::try_from(text.lines().next().unwrap_or_default().chars().count()).unwrap_or(0);
        }
    }
    Some(place)
}

/// Returns the hint for an undefined `a.b.c`: the nearest name among its siblings.
fn hint_for(expression: &str, scope: &Scope) -> Option<String> {
    let (parent, name) = expression.rsplit_once('.').map_or((None, expression), |(parent, name)| (Some(parent), name));
    let siblings = match parent {
        None => scope.names(),
        // Lists and strings have parts, too, but no fields.
        Some(parent) => {
            let parent = scope.resolve(parent).filter(|parent| parent.kind() == ValueKind::Map)?;
            parent.try_iter().ok()?.map(|key| key.to_string()).collect()
        }
    };
    let near = nearest(name, siblings.iter().map(String::as_str))?;
    let shown = parent.map_or_else(|| near.to_owned(), |parent| format!("{parent}.{near}"));
    Some(format!("did you mean `{shown}`?"))
}

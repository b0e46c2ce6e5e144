//! A call of a module: checked, prepared, queued. Never waits.

use std::rc::Rc;

use kplay_modules::agent::wire;
use kplay_modules::api::module::Entry;
use mlua::{Lua, MultiValue, Table, Value as LuaValue};
use serde_json::{Map, Value};

use super::arguments::{Problem, from_serde};
use super::classes::{HOST, Kind, TASK};
use super::convert::{PATHS_OF, ToJson, kind};
use super::error::{Frame, raise};
use super::options::{self, When};
use super::source::{Part, Segment};
use super::state::{Become, Deferred, PrepareKey, Prepared, RoleFrame, Shared, Task};
use crate::controller::Preparation;
use crate::diagnostic::{Diagnostic, Place};
use crate::inventory::LONGEST_TIME;
use crate::outputs::Output;
use crate::plan::{PlannedTask, TaskResult};

/// Arguments that take results and mean the paths that these manage.
const TAKE_PATHS: [&str; 3] = ["inputs", "reload_on", "restart_on"];
/// Arguments that say best what a task is about, for its name.
const TELLING: [&str; 11] = ["path", "dest", "name", "command", "argv", "url", "unit", "port", "key", "host", "src"];
/// Those among them that may hold what a sensitive task hides.
const HIDING: [&str; 3] = ["command", "argv", "url"];
/// Most preparations that are remembered for other hosts.
const REMEMBERED: usize = 4096;

/// How a preparation ended that did not succeed.
enum Unprepared {
    NeedsFacts,
    Wrong(Box<Diagnostic>),
}

/// Queues a task and returns its result, unread.
pub(super) fn call(lua: &Lua, shared: &Shared, module: &'static Entry, arguments: MultiValue) -> mlua::Result<Table> {
    let frames = shared.frames(lua);
    let queued = shared.uncounted(|| queue(shared, module, &frames, arguments));
    let id = queued.map_err(raise)?;
    let result = lua.create_table_with_capacity(0, 1)?;
    result.raw_set(TASK, id)?;
    result.set_metatable(Some(shared.classes()?.result.clone()))?;
    Ok(result)
}

fn queue(shared: &Shared, module: &'static Entry, frames: &[Frame], arguments: MultiValue) -> Result<u32, Box<Diagnostic>> {
    let name = module.name;
    let whole = |message: String| Problem::new(Vec::new(), Part::Key, message);
    let wrong = |argument: usize, problem: Problem| shared.problem(frames, name, argument, problem);
    let internal = |error: mlua::Error| Diagnostic::internal(error.to_string());
    let classes = shared.classes().map_err(internal)?;

    let mut arguments = arguments.into_iter();
    let host = match arguments.next() {
        Some(LuaValue::Table(table)) if classes.kind(&table) == Kind::Host => table.raw_get::<usize>(HOST).map_err(internal)?,
        _ => {
            return Err(wrong(
                0,
                whole(format!("`{name}` is called without its host")).hint(format!("write `host:{name}(…)` with a colon")),
            ));
        }
    };
    let Some(current) = shared.run.borrow().current else {
        let problem = whole(format!("`{name}` is called outside of a play")).hint("tasks belong into the `run` function of a `play`");
        return Err(wrong(0, problem));
    };
    let open_elsewhere = open_elsewhere(shared, current, host);
    if open_elsewhere {
        let problem = whole("a task of another host is queued among the arguments of this call".to_owned());
        return Err(wrong(0, problem.hint("call it before, and keep its result in a variable")));
    }
    let what = format!("module `{name}`");
    let mut convert = ToJson::with_results(classes, takes_paths);
    let mut given = match arguments.next() {
        None | Some(LuaValue::Nil) => Map::new(),
        Some(value @ LuaValue::Table(_)) => match convert.value(&value).map_err(|bad| wrong(0, Problem::from_bad(bad, &what)))? {
            Value::Object(fields) => fields,
            _ => return Err(wrong(0, whole(format!("`{name}` takes a table of named arguments, not a list")))),
        },
        Some(other) => return Err(wrong(0, whole(format!("`{name}` takes a table of arguments, not {}", kind(&other))))),
    };
    let found_results = convert.found_results;
    let options = match arguments.next() {
        None | Some(LuaValue::Nil) => options::Options::default(),
        Some(LuaValue::Table(table)) => options::read(classes, &table).map_err(|problem| wrong(1, problem))?,
        Some(other) => return Err(wrong(1, whole(format!("the options of `{name}` are a table, not {}", kind(&other))))),
    };
    if arguments.next().is_some() {
        return Err(wrong(0, whole(format!("`{name}` takes two tables at most: arguments and options"))));
    }
    let signature = shared.signatures.of(module);
    if let Some(problem) = signature.check(name, &given) {
        return Err(wrong(0, problem));
    }

    if let Some(time) = ["timeout", "interval"].into_iter().find(|time| given.get(*time).is_some_and(is_too_long)) {
        let message = format!("`{time}` of {what} must be at most {} seconds, which is a year", LONGEST_TIME.as_secs());
        return Err(wrong(0, Problem::new(vec![Segment::Key(time.to_owned())], Part::Value, message)));
    }

    let place = match frames.first() {
        Some(frame) => shared.sources.call(&frame.file, frame.line, name),
        None => Place::line(&shared.playbook_folder, 0),
    };
    let role = {
        let run = shared.run.borrow();
        run.coroutines.get(&current).and_then(|coroutine| coroutine.roles.last().cloned())
    };
    let tags = tags(shared, role.as_ref(), &options.given.tags.0);
    let sensitive = options.given.sensitive || given.get("sensitive") == Some(&Value::Bool(true));
    let task_name = options.given.name.clone().unwrap_or_else(|| telling_name(shared, name, &given, sensitive));
    let mut when_changed = Vec::new();
    let mut skipped = None;
    match decide(shared, host, &options.when) {
        Decision::Go => {}
        Decision::GoIfChanged(tasks) => when_changed = tasks,
        Decision::Skip(because) => skipped = Some(because),
        Decision::Foreign => {
            let problem =
                Problem::new(vec![Segment::Key("when".to_owned())], Part::Value, "`when` names the unread result of another host's task");
            return Err(wrong(1, problem.hint("read it: `when = result.changed`")));
        }
    }
    let selected = is_selected(&shared.options.tags, &shared.options.skip_tags, &tags) && has_started(shared, current, &task_name);
    let delay = (options.given.delay * 1000.0).round();

    let id = u32::try_from(shared.run.borrow().tasks.len() + 1).map_err(|_| Diagnostic::user("the playbook has too many tasks"))?;
    let mut planned = PlannedTask {
        wire: wire::Task {
            id,
            module: name.to_owned(),
            arguments: String::new(),
            name: task_name.clone(),
            become_user: become_user(
                shared,
                role.as_ref(),
                host,
                &Become::new(options.given.r#become, options.given.become_user.as_deref()),
            ),
            when_changed,
            timeout: options.given.timeout,
            retries: options.given.retries,
            // Not negative, and cut off at a length that no delay has.
            delay: delay as u64,
            until: options.until,
            changed_if: options.changed_if,
            failed_if: options.failed_if,
            ignore_errors: options.given.ignore_errors,
            sensitive,
        },
        host,
        requested_by: current,
        place: place.clone(),
        chain: shared.chain(frames),
        role: role.as_ref().map(|frame| frame.role.name.clone()),
        tags,
        skipped: skipped.clone(),
        paths: Vec::new(),
        blobs: Vec::new(),
        signature: None,
        delivers: None,
    };

    let mut deferred = None;
    if skipped.is_none() && selected {
        let waits = found_results && !fill_paths(shared, &mut given);
        let key = PrepareKey::of(module, role.as_ref(), Value::Object(given));
        let prepared = if waits { Err(Unprepared::NeedsFacts) } else { prepare(shared, module, host, role.as_ref(), frames, &key) };
        match prepared {
            Ok(prepared) => fill(&mut planned, prepared),
            Err(Unprepared::Wrong(error)) => return Err(error),
            Err(Unprepared::NeedsFacts) => deferred = Some(Box::new(Deferred { key, role, frames: frames.to_vec() })),
        }
    }
    let result = (skipped.is_some() || !selected).then(|| TaskResult::Done { changed: false, skipped: true, output: Output::default() });
    let mut run = shared.run.borrow_mut();
    if selected {
        run.queues.entry(host).or_default().push_back(id);
        if result.is_none()
            && let Some(coroutine) = run.coroutines.get_mut(&current)
        {
            coroutine.open.push(id);
        }
    }
    run.tasks.push(Task {
        host,
        requested_by: current,
        module: name,
        name: task_name,
        place,
        paths: planned.paths.clone(),
        result,
        planned: selected.then(|| Box::new(planned)),
        deferred,
    });
    Ok(id)
}

/// Returns whether a number of seconds is more than anybody waits, and than clocks can hold.
fn is_too_long(time: &Value) -> bool {
    time.as_f64().is_some_and(|seconds| seconds > LONGEST_TIME.as_secs_f64())
}

/// Returns whether results may stand at this place of the arguments.
fn takes_paths(path: &[Segment]) -> bool {
    match path {
        [Segment::Key(name)] | [Segment::Key(name), Segment::Index(_)] => TAKE_PATHS.contains(&name.as_str()),
        _ => false,
    }
}

/// Returns whether the current coroutine has tasks under way on another host than `host`.
pub(super) fn open_elsewhere(shared: &Shared, current: usize, host: usize) -> bool {
    let run = shared.run.borrow();
    // All that are open run on one host: turning to another one waits.
    let last = run.coroutines.get(&current).and_then(|coroutine| coroutine.open.last());
    last.is_some_and(|task| run.tasks[*task as usize - 1].host != host)
}

/// Replaces results by the paths that they manage. Returns `false` while these are not known.
fn fill_paths(shared: &Shared, arguments: &mut Map<String, Value>) -> bool {
    let run = shared.run.borrow();
    let task_of =
        |value: &Value| value.get(PATHS_OF).and_then(Value::as_u64).and_then(|id| run.tasks.get(usize::try_from(id).ok()?.checked_sub(1)?));
    let pending = |value: &Value| task_of(value).is_some_and(|task| task.deferred.is_some());
    for name in TAKE_PATHS {
        let Some(value) = arguments.get_mut(name) else { continue };
        if pending(value) || value.as_array().is_some_and(|items| items.iter().any(pending)) {
            return false;
        }
        let expand = |value: &Value| match task_of(value) {
            Some(task) => task.paths.iter().map(|path| Value::from(path.to_string_lossy())).collect(),
            None => vec![value.clone()],
        };
        *value = match &*value {
            Value::Array(items) => items.iter().flat_map(expand).collect(),
            single if task_of(single).is_some() => Value::Array(expand(single)),
            _ => continue,
        };
    }
    true
}

/// Prepares a task that had to wait for facts. Returns whether it still has to.
pub(super) fn finish_deferred(shared: &Shared, id: u32) -> Result<bool, Box<Diagnostic>> {
    let (host, module, mut deferred) = {
        let mut run = shared.run.borrow_mut();
        let Some(task) = run.tasks.get_mut(id as usize - 1) else { return Ok(false) };
        let Some(deferred) = task.deferred.take() else { return Ok(false) };
        (task.host, task.module, deferred)
    };
    let module = kplay_modules::find(module).ok_or_else(|| Diagnostic::internal(format!("there is no module `{module}`")))?;
    let ready = match &mut deferred.key.arguments {
        Value::Object(fields) => fill_paths(shared, fields),
        _ => true,
    };
    let prepared = if ready {
        prepare(shared, module, host, deferred.role.as_ref(), &deferred.frames, &deferred.key)
    } else {
        Err(Unprepared::NeedsFacts)
    };
    let mut run = shared.run.borrow_mut();
    let task = &mut run.tasks[id as usize - 1];
    match prepared {
        Ok(prepared) => {
            task.paths.clone_from(&prepared.paths);
            if let Some(planned) = &mut task.planned {
                fill(planned, prepared);
            }
            Ok(false)
        }
        Err(Unprepared::NeedsFacts) => {
            task.deferred = Some(deferred);
            Ok(true)
        }
        Err(Unprepared::Wrong(error)) => Err(error),
    }
}

fn fill(planned: &mut PlannedTask, prepared: Rc<Prepared>) {
    let Prepared { arguments, paths, blobs, signature, delivers } = Rc::unwrap_or_clone(prepared);
    planned.wire.arguments = arguments;
    planned.paths = paths;
    planned.blobs = blobs;
    planned.signature = signature;
    planned.delivers = delivers;
}

/// Reads the arguments and has the module prepare itself; once for all hosts where the host does not matter.
fn prepare(
    shared: &Shared,
    module: &'static Entry,
    host: usize,
    role: Option<&RoleFrame>,
    frames: &[Frame],
    key: &PrepareKey,
) -> Result<Rc<Prepared>, Unprepared> {
    if let Some(known) = shared.run.borrow().prepared.get(key) {
        return Ok(Rc::clone(known));
    }
    let wrong = |problem: Problem| Unprepared::Wrong(shared.problem(frames, module.name, 0, problem));
    let what = format!("module `{}`", module.name);
    let mut instance = (module.parse)(key.arguments.clone()).map_err(|error| wrong(from_serde(&error, &what)))?;
    let scope = || shared.scope(host, role);
    let preparation = Preparation::new(&shared.local, shared.host_name(host), key.role.as_deref(), &scope);
    let outcome = instance.prepare(&preparation);
    let collected = preparation.collected;
    if let Err(error) = outcome {
        if collected.needs_facts.get() {
            return Err(Unprepared::NeedsFacts);
        }
        return Err(match collected.template_error.into_inner() {
            Some(error) => {
                // The place is in the template; the call becomes the first link of the chain.
                let call = shared.problem(frames, module.name, 0, Problem::new(Vec::new(), Part::Key, ""));
                let mut error = error.on(shared.host_name(host));
                error.chain.extend(call.place);
                error.chain.extend(call.chain);
                Unprepared::Wrong(error)
            }
            None => wrong(Problem::from_module(error)),
        });
    }
    let arguments = instance.to_json().map_err(|error| wrong(Problem::from_module(error)))?;
    let prepared = Rc::new(Prepared {
        arguments,
        paths: instance.paths(),
        blobs: collected.blobs.into_inner(),
        signature: collected.signature.into_inner(),
        delivers: collected.delivers.into_inner(),
    });
    let mut run = shared.run.borrow_mut();
    if !collected.personal.get() && run.prepared.len() < REMEMBERED {
        run.prepared.insert(key.clone(), Rc::clone(&prepared));
    }
    Ok(prepared)
}

enum Decision {
    Go,
    GoIfChanged(Vec<u32>),
    Skip(String),
    Foreign,
}

/// Decides what `when` comes to; what is still open is left to the agent, which will know.
fn decide(shared: &Shared, host: usize, when: &When) -> Decision {
    let tasks = match when {
        When::Always => return Decision::Go,
        When::Never => return Decision::Skip("`when` is false".to_owned()),
        When::AnyOf(tasks) => tasks,
    };
    let run = shared.run.borrow();
    let mut open = Vec::new();
    for id in tasks {
        let Some(task) = run.tasks.get(*id as usize - 1) else { continue };
        match &task.result {
            Some(TaskResult::Done { changed: true, .. }) => return Decision::Go,
            Some(TaskResult::Done { .. } | TaskResult::Failed { .. }) => {}
            Some(TaskResult::Unknown { .. }) | None if task.host != host => return Decision::Foreign,
            Some(TaskResult::Unknown { .. }) | None => open.push(*id),
        }
    }
    if open.is_empty() { Decision::Skip("none of the results in `when` changed".to_owned()) } else { Decision::GoIfChanged(open) }
}

fn tags(shared: &Shared, role: Option<&RoleFrame>, own: &[String]) -> Vec<String> {
    let run = shared.run.borrow();
    let play = run.plays.get(run.play).map(|code| code.play.tags.clone()).unwrap_or_default();
    let role = role.map(|frame| frame.tags.clone()).unwrap_or_default();
    let mut tags: Vec<_> = play.into_iter().chain(role).chain(own.iter().cloned()).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// Decides by `--tags` and `--skip-tags` as Ansible does: `always` is done unless skipped, `never` only when asked for by a tag; `all`,
/// `tagged` and `untagged` are asked for like tags.
fn is_selected(wanted: &[String], unwanted: &[String], tags: &[String]) -> bool {
    let has = |tag: &str| tags.iter().any(|own| own == tag) || tag == "untagged" && tags.is_empty();
    let names = |list: &[String], word: &str| list.iter().any(|tag| tag == word);
    let any_of = |list: &[String]| list.iter().any(|tag| has(tag));
    let tagged = !tags.is_empty();
    let all = wanted.is_empty() || names(wanted, "all");
    let chosen = has("always") || any_of(wanted) || !has("never") && (all || tagged && names(wanted, "tagged"));
    let skipped = if names(unwanted, "all") {
        !has("always") || names(unwanted, "always")
    } else {
        any_of(unwanted) || tagged && names(unwanted, "tagged")
    };
    chosen && !skipped
}

/// Decides by `--start-at-task`: a host's part in the play begins with that task, wherever it and those after it run.
fn has_started(shared: &Shared, current: usize, name: &str) -> bool {
    let Some(first) = &shared.options.start_at_task else { return true };
    let mut run = shared.run.borrow_mut();
    if first == name {
        run.started.insert(current);
    }
    run.started_before || run.started.contains(&current)
}

fn become_user(shared: &Shared, role: Option<&RoleFrame>, host: usize, own: &Become) -> Option<String> {
    let run = shared.run.borrow();
    let play = run.plays.get(run.play).map(|code| code.become_user.clone()).unwrap_or_default();
    let role = role.map(|frame| frame.r#become.clone()).unwrap_or_default();
    for level in [own, &role, &play] {
        match level {
            Become::Inherit => {}
            Become::No => return None,
            Become::User(user) => return Some(user.clone()),
        }
    }
    shared.options.become_users.get(&host).cloned().or_else(|| shared.options.become_user.clone())
}

/// Returns the module and what it is about.
fn telling_name(shared: &Shared, module: &str, arguments: &Map<String, Value>, sensitive: bool) -> String {
    let tells = |name: &&&str| !sensitive || !HIDING.contains(*name);
    let about = TELLING.iter().filter(tells).find_map(|name| arguments.get(*name)).map(|value| match value {
        Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    });
    let about = about.unwrap_or_default();
    // Masked first: what is left of a secret that is cut short would not be known as one.
    let about = shared.local.mask(&about);
    match about.char_indices().nth(80) {
        Some((end, _)) => format!("{module} {}…", &about[..end]),
        None if about.is_empty() => module.to_owned(),
        None => format!("{module} {about}"),
    }
}

//! A playbook that has been loaded: its plays, and the coroutines in which hosts go through them.

use std::cell::{OnceCell, RefCell};
use std::collections::btree_map::Entry;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use kplay_modules::api::Facts;
use mlua::{HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value as LuaValue, VmState};

use super::Options;
use super::arguments::Signatures;
use super::classes::Classes;
use super::error::{Fatal, Raised, diagnostic, raise_fatal};
use super::hosts::host_object;
use super::source::{Part, Sources, parse_path};
use super::state::{Clock, Coroutine, InventoryWorld, Once, Running, Shared, Waiting};
use crate::blobs::Blobs;
use crate::controller::{Local, Services};
use crate::diagnostic::{Diagnostic, Place, Result};
use crate::inventory::Inventory;
use crate::outputs::Output;
use crate::plan::{Message, PlannedTask, Planner, Play, Step, TaskResult};
use crate::report::event::Level;
use crate::secrets::Secrets;

/// Instructions of Lua between two looks at the clock.
const INSTRUCTIONS: u32 = 100_000;

/// See the file's head.
pub struct Program {
    pub(super) lua: Lua,
    pub(super) shared: Rc<Shared>,
    plays: Vec<Play>,
}

impl Program {
    /// Reads a playbook and runs its file, which declares plays and touches nothing. Fails on the first mistake, with its place.
    /// To `secrets`, which are the inventory's, are added those of roles when they are called.
    pub fn load(
        playbook: &Path,
        options: Options,
        inventory: &Inventory,
        blobs: Arc<Blobs>,
        services: Box<dyn Services>,
        secrets: &Secrets,
    ) -> Result<Self> {
        let mut program = Self::open(playbook, options, inventory, blobs, services, secrets).map_err(internal)?;
        let folder = program.shared.playbook_folder.to_string_lossy().into_owned();
        let environment: Table = program.classes()?.environment.call(folder).map_err(internal)?;
        let chunk = super::library::load_file(&program.lua, &program.shared, playbook, environment)?;
        program.shared.clock.borrow_mut().start(program.shared.options.time_limit);
        let results: MultiValue = program.classes()?.load.call(chunk).map_err(internal)?;
        let mut results = results.into_iter();
        if results.next() != Some(LuaValue::Boolean(true)) {
            return Err(diagnostic(&results.next().unwrap_or(LuaValue::Nil)).diagnostic);
        }
        let plays: Vec<_> = program.shared.run.borrow().plays.iter().map(|code| code.play.clone()).collect();
        if plays.is_empty() {
            let error = Diagnostic::user(format!("`{}` declares no play", playbook.display())).at(Place::line(playbook, 0));
            return Err(error.hint("add `play { hosts = \"all\", run = function(host) … end }`"));
        }
        program.plays = plays;
        Ok(program)
    }

    /// Returns what is wrong when no task has the name that `--start-at-task` gives, so that none was done.
    pub fn never_started(&self) -> Option<Box<Diagnostic>> {
        let first = self.shared.options.start_at_task.as_ref()?;
        let run = self.shared.run.borrow();
        if !run.started.is_empty() {
            return None;
        }
        let error = Diagnostic::user(format!("no task is called `{first}`, so that none was done"));
        let error = super::error::suggest(error, first, run.tasks.iter().map(|task| task.name.as_str()));
        Some(error.hint("`--list-tasks` shows the names of tasks"))
    }

    /// Makes the Lua state with its limits, and fills it.
    pub(super) fn open(
        playbook: &Path,
        options: Options,
        inventory: &Inventory,
        blobs: Arc<Blobs>,
        services: Box<dyn Services>,
        secrets: &Secrets,
    ) -> mlua::Result<Self> {
        // The standard `pcall`, which this option leaves in place, lets a coroutine wait inside; mlua's own does not.
        let libraries = StdLib::COROUTINE | StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8 | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(true))?;
        lua.set_memory_limit(options.memory_limit)?;
        let playbook_folder = playbook.parent().unwrap_or(Path::new("")).to_owned();
        let options = Options { role_paths: super::role::search_paths(&playbook_folder, &options.role_paths), ..options };
        let shared = Rc::new(Shared {
            inventory: inventory.clone(),
            local: Local::new(blobs, services, playbook_folder.clone(), secrets.clone()),
            options,
            playbook_folder,
            sources: Sources::default(),
            signatures: Signatures::default(),
            world: Arc::new(InventoryWorld(inventory.clone())),
            classes: OnceCell::new(),
            run: RefCell::new(Running::default()),
            clock: RefCell::new(Clock { deadline: Instant::now() }),
        });
        let prelude = lua.load(include_str!("prelude.lua")).set_name("=kplay");
        let prelude: Table = prelude.call(super::primitives::table(&lua, &shared)?)?;
        let classes = Classes::new(&lua, &prelude)?;
        for module in kplay_modules::REGISTRY {
            let shared = Rc::clone(&shared);
            let method = lua.create_function(move |lua, arguments: MultiValue| super::task::call(lua, &shared, module, arguments))?;
            classes.methods.raw_set(module.name, method)?;
        }
        if shared.classes.set(classes).is_err() {
            return Err(mlua::Error::runtime("the prelude ran twice"));
        }
        super::library::add(&lua, &shared)?;
        let clock = Rc::clone(&shared);
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(INSTRUCTIONS), move |lua, _| {
            if Instant::now() < clock.clock.borrow().deadline {
                return Ok(VmState::Continue);
            }
            let seconds = clock.options.time_limit.as_secs();
            let error = Diagnostic::user(format!("the playbook ran for {seconds} s without coming to an end or waiting for a host"));
            Err(raise_fatal(clock.here(lua, error.hint("look for a loop that does not end")), Fatal::OutOfTime))
        })?;
        Ok(Self { lua, shared, plays: Vec::new() })
    }

    pub(super) fn classes(&self) -> Result<&Classes> {
        self.shared.classes().map_err(internal)
    }

    /// Gives control to a host's coroutine and returns what it then waits for, or how it ended.
    fn run(&mut self, host: usize, failure: Option<Box<Diagnostic>>) -> Option<Step> {
        let thread = {
            let mut run = self.shared.run.borrow_mut();
            run.current = Some(host);
            run.coroutines.get(&host)?.thread.clone()
        };
        self.shared.clock.borrow_mut().start(self.shared.options.time_limit);
        let failure = failure.map_or(LuaValue::Nil, |error| LuaValue::Error(Box::new(super::error::raise(error))));
        let starting = matches!(self.shared.run.borrow().coroutines.get(&host)?.waiting, Waiting::Start);
        let outcome = if starting { self.start(host, &thread) } else { thread.resume::<MultiValue>(failure) };
        self.shared.run.borrow_mut().current = None;
        let values: Vec<_> = match outcome {
            Ok(values) => values.into_iter().collect(),
            Err(error) => return Some(self.ended(host, Err(diagnostic(&LuaValue::Error(Box::new(error)))))),
        };
        let word = values.first().and_then(|value| value.as_string().map(mlua::LuaString::to_string_lossy)).unwrap_or_default();
        let number = || values.get(1).and_then(LuaValue::as_integer).and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
        let text = || values.get(1).and_then(|value| value.as_string().map(mlua::LuaString::to_string_lossy)).unwrap_or_default();
        let waiting = match word.as_str() {
            "result" => Waiting::Result(u32::try_from(number()).unwrap_or_default()),
            "tasks" => Waiting::Tasks,
            "rest" => Waiting::Rest,
            "facts" => Waiting::Facts(number()),
            "gather" => Waiting::Gather(number()),
            "once" => Waiting::Once(text()),
            "barrier" => Waiting::Barrier(text()),
            _ if values.get(1) == Some(&LuaValue::Boolean(true)) => return Some(self.ended(host, Ok(()))),
            _ => return Some(self.ended(host, Err(diagnostic(values.get(2).unwrap_or(&LuaValue::Nil))))),
        };
        if let Waiting::Gather(host) = waiting {
            let mut run = self.shared.run.borrow_mut();
            run.facts.remove(&host);
            run.facts_objects.remove(&host);
        }
        if let Some(coroutine) = self.shared.run.borrow_mut().coroutines.get_mut(&host) {
            coroutine.waiting = waiting;
        }
        None
    }

    fn start(&self, host: usize, thread: &mlua::Thread) -> mlua::Result<MultiValue> {
        let run = {
            let run = self.shared.run.borrow();
            run.plays.get(run.play).map(|code| code.run.clone())
        };
        thread.resume((run, host_object(&self.lua, &self.shared, host)?))
    }

    /// Forgets a host's coroutine and says how it ended.
    fn ended(&self, host: usize, outcome: std::result::Result<(), Raised>) -> Step {
        self.shared.run.borrow_mut().coroutines.remove(&host);
        match outcome {
            Ok(()) => Step::Ended,
            Err(raised) => {
                self.drop_tasks(host);
                let mut error = raised.diagnostic;
                error.host.get_or_insert_with(|| self.shared.host_name(host).to_owned());
                if raised.fatal == Some(Fatal::Unknown) { Step::ForecastEnded(error) } else { Step::Failed(error) }
            }
        }
    }

    /// Drops the tasks that a host has asked for and that have not been sent; those that are open count as not run.
    fn drop_tasks(&self, requester: usize) {
        let mut run = self.shared.run.borrow_mut();
        let run = &mut *run;
        run.queues.retain(|_, queue| {
            queue.retain(|id| run.tasks[*id as usize - 1].requested_by != requester);
            !queue.is_empty()
        });
        let open = run.coroutines.get_mut(&requester).map(|coroutine| std::mem::take(&mut coroutine.open)).unwrap_or_default();
        for id in open {
            let task = &mut run.tasks[id as usize - 1];
            (task.planned, task.deferred) = (None, None);
            let error = Diagnostic::host(format!("`{}` was not run", task.name)).at(task.place.clone());
            task.result.get_or_insert_with(|| TaskResult::Failed { error, ignored: false, output: Output::default() });
        }
    }

    /// Prepares what a coroutine has queued before the facts were there. Returns the host whose facts are still missing.
    fn finish_deferred(&self, host: usize) -> Result<Option<usize>> {
        let waiting: Vec<_> = {
            let run = self.shared.run.borrow();
            let open = run.coroutines.get(&host).map(|coroutine| coroutine.open.clone()).unwrap_or_default();
            open.into_iter().filter(|id| run.tasks[*id as usize - 1].deferred.is_some()).collect()
        };
        for id in waiting {
            let target = self.shared.run.borrow().tasks[id as usize - 1].host;
            if !self.shared.run.borrow().facts.contains_key(&target) {
                return Ok(Some(target));
            }
            self.shared.run.borrow_mut().current = Some(host);
            let finished = super::task::finish_deferred(&self.shared, id);
            self.shared.run.borrow_mut().current = None;
            if finished? {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    fn waiting(&self, host: usize) -> Option<Waiting> {
        self.shared.run.borrow().coroutines.get(&host).map(|coroutine| coroutine.waiting.clone())
    }

    /// Returns whether what `waiting` names is there.
    fn is_there(&self, host: usize, waiting: &Waiting) -> bool {
        let run = self.shared.run.borrow();
        let Some(coroutine) = run.coroutines.get(&host) else { return true };
        if coroutine.failure.is_some() {
            return true;
        }
        match waiting {
            Waiting::Start | Waiting::Barrier(_) => true,
            Waiting::Result(task) => run.tasks.get(*task as usize - 1).is_none_or(|task| task.result.is_some()),
            Waiting::Tasks | Waiting::Rest => coroutine.open.is_empty(),
            Waiting::Facts(host) | Waiting::Gather(host) => run.facts.contains_key(host),
            Waiting::Once(id) => !matches!(run.onces.get(id), Some(Once::Running(_))),
        }
    }

    fn step(&self, waiting: &Waiting) -> Step {
        match waiting {
            Waiting::Result(task) => {
                let host = self.shared.run.borrow().tasks.get(*task as usize - 1).map_or(0, |task| task.host);
                Step::NeedsResult { host, task: *task }
            }
            Waiting::Start | Waiting::Tasks => Step::NeedsTasks,
            Waiting::Rest => Step::Finishing,
            Waiting::Facts(host) => Step::NeedsFacts { host: *host },
            Waiting::Gather(host) => Step::Gather { host: *host },
            Waiting::Barrier(name) => Step::Barrier { name: name.clone() },
            Waiting::Once(id) => {
                let host = match self.shared.run.borrow().onces.get(id) {
                    Some(Once::Running(host)) => *host,
                    _ => 0,
                };
                Step::Once { key: id.split_once('\n').map_or(id.as_str(), |(_, key)| key).to_owned(), host }
            }
        }
    }
}

fn internal(error: impl std::fmt::Display) -> Box<Diagnostic> {
    Diagnostic::internal(error.to_string())
}

impl Planner for Program {
    fn plays(&self) -> &[Play] {
        &self.plays
    }

    fn host_name(&self, host: usize) -> &str {
        self.shared.host_name(host)
    }

    fn order(&mut self, play: usize) -> Result<Vec<usize>> {
        super::order::decide(&self.lua, &self.shared, play)
    }

    fn begin(&mut self, play: usize, host: usize) -> Result<()> {
        let thread = self.lua.create_thread(self.classes()?.main.clone()).map_err(internal)?;
        let mut run = self.shared.run.borrow_mut();
        run.enter_play(play);
        let coroutine = Coroutine { thread, waiting: Waiting::Start, roles: Vec::new(), open: Vec::new(), failure: None, marked: None };
        run.coroutines.insert(host, coroutine);
        Ok(())
    }

    fn resume(&mut self, host: usize) -> Step {
        let mut opened = false;
        loop {
            let Some(waiting) = self.waiting(host) else { return Step::Ended };
            if matches!(waiting, Waiting::Tasks | Waiting::Rest | Waiting::Result(_)) {
                match self.finish_deferred(host) {
                    Ok(Some(needed)) => return Step::NeedsFacts { host: needed },
                    Ok(None) => {}
                    Err(error) => {
                        self.drop_tasks(host);
                        if let Some(coroutine) = self.shared.run.borrow_mut().coroutines.get_mut(&host) {
                            coroutine.failure = Some(error);
                        }
                    }
                }
            }
            // A barrier is opened by the scheduler's resuming, once.
            let at_barrier = matches!(waiting, Waiting::Barrier(_)) && opened;
            if at_barrier || !self.is_there(host, &waiting) {
                return self.step(&waiting);
            }
            opened = true;
            let failure = self.shared.run.borrow_mut().coroutines.get_mut(&host).and_then(|coroutine| coroutine.failure.take());
            if let Some(step) = self.run(host, failure) {
                return step;
            }
        }
    }

    fn ready(&self, host: usize) -> bool {
        let Some(waiting) = self.waiting(host) else { return true };
        let run = self.shared.run.borrow();
        let open = run.coroutines.get(&host).map(|coroutine| coroutine.open.as_slice()).unwrap_or_default();
        let task = |id: &u32| &run.tasks[*id as usize - 1];
        // What waited for facts can be prepared now, which may fail.
        let deferred = open.iter().any(|id| task(id).deferred.is_some() && run.facts.contains_key(&task(id).host));
        deferred || self.is_there(host, &waiting)
    }

    fn take_queue(&mut self, host: usize) -> Result<Vec<PlannedTask>> {
        let taken: Vec<_> = {
            let mut run = self.shared.run.borrow_mut();
            let run = &mut *run;
            let Entry::Occupied(mut queue) = run.queues.entry(host) else { return Ok(Vec::new()) };
            let ready = queue.get().iter().take_while(|id| run.tasks[**id as usize - 1].deferred.is_none()).count();
            let taken = queue.get_mut().drain(..ready);
            let taken = taken.filter_map(|id| run.tasks[id as usize - 1].planned.take()).map(|task| *task).collect();
            if queue.get().is_empty() {
                queue.remove();
            }
            taken
        };
        if !taken.is_empty() {
            self.commit()?;
        }
        Ok(taken)
    }

    fn queued(&self) -> Vec<usize> {
        let run = self.shared.run.borrow();
        run.queues.keys().copied().collect()
    }

    fn finish_task(&mut self, task: u32, result: TaskResult) {
        let requester = {
            let mut run = self.shared.run.borrow_mut();
            let run = &mut *run;
            let Some(entry) = usize::try_from(task).ok().and_then(|task| run.tasks.get_mut(task.checked_sub(1)?)) else { return };
            let failure = match &result {
                TaskResult::Failed { error, ignored: false, .. } => Some(error.clone()),
                _ => None,
            };
            entry.result = Some(result);
            let requester = entry.requested_by;
            let Some(coroutine) = run.coroutines.get_mut(&requester) else { return };
            coroutine.open.retain(|open| *open != task);
            let failed = failure.is_some();
            if coroutine.failure.is_none() {
                coroutine.failure = failure;
            }
            failed.then_some(requester)
        };
        if let Some(requester) = requester {
            self.drop_tasks(requester);
        }
    }

    fn place_of(&self, task: u32, argument: &str) -> Place {
        let run = self.shared.run.borrow();
        let Some(task) = usize::try_from(task).ok().and_then(|task| run.tasks.get(task.checked_sub(1)?)) else { return Place::line("", 0) };
        let found = self.shared.sources.field(&task.place.file, task.place.line, task.module, 0, &parse_path(argument), Part::Value);
        found.unwrap_or_else(|| task.place.clone())
    }

    fn set_facts(&mut self, host: usize, facts: Facts) {
        let facts = serde_json::to_value(facts).unwrap_or_default();
        let mut run = self.shared.run.borrow_mut();
        run.facts.insert(host, Arc::new(facts));
        run.facts_objects.remove(&host);
    }

    fn abandon(&mut self, host: usize, error: Box<Diagnostic>) {
        self.drop_tasks(host);
        let mut run = self.shared.run.borrow_mut();
        run.coroutines.remove(&host);
        for once in run.onces.values_mut() {
            if matches!(once, Once::Running(running) if *running == host) {
                *once = Once::Failed(error.clone(), None);
            }
        }
    }

    fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.shared.run.borrow_mut().messages)
    }
}

impl Program {
    /// Writes what the playbook has made for the controller, or says that it would.
    fn commit(&self) -> Result<()> {
        let local = &self.shared.local;
        if self.shared.options.check {
            for path in local.announce() {
                self.shared.say(None, Level::Info, format!("would make `{}` on the controller", path.display()));
            }
            return Ok(());
        }
        for path in local.commit()? {
            self.shared.say(None, Level::Info, format!("made `{}` on the controller", path.display()));
        }
        Ok(())
    }
}

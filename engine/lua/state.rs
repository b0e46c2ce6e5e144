//! What all functions that playbooks call share: the inventory, the queues, the coroutines, the results so far.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kplay_modules::api::Digest;
use kplay_modules::api::module::{Entry, SignatureRequest};
use mlua::{Function, Lua, Table, Thread};
use serde_json::{Map, Value};

use super::Options;
use super::arguments::{Problem, Signatures};
use super::classes::Classes;
use super::error::{Frame, frames, placed};
use super::role::Role;
use super::source::Sources;
use crate::controller::Local;
use crate::diagnostic::{Diagnostic, Place, Result};
use crate::inventory::{Inventory, Owner};
use crate::plan::{Message, PlannedTask, Play, TaskResult};
use crate::report::event::Level;
use crate::template::{Layer, Scope, World};

/// See the file's head.
pub(super) struct Shared {
    pub inventory: Inventory,
    pub options: Options,
    pub local: Local,
    pub playbook_folder: PathBuf,
    pub sources: Sources,
    pub signatures: Signatures,
    pub world: Arc<dyn World>,
    pub classes: OnceCell<Classes>,
    pub run: RefCell<Running>,
    pub clock: RefCell<Clock>,
}

/// What changes while playbooks run.
#[derive(Default)]
pub(super) struct Running {
    /// The host whose coroutine runs.
    pub current: Option<usize>,
    /// The play that is under way.
    pub play: usize,
    pub plays: Vec<PlayCode>,
    pub coroutines: HashMap<usize, Coroutine>,
    /// Tasks to be sent, by host; none of the queues is empty: they are looked through whenever a host ends, of which there may be many.
    pub queues: BTreeMap<usize, VecDeque<u32>>,
    pub tasks: Vec<Task>,
    pub onces: HashMap<String, Once>,
    pub facts: HashMap<usize, Arc<Value>>,
    pub messages: Vec<Message>,
    pub roles: Vec<Rc<Role>>,
    pub prepared: HashMap<PrepareKey, Rc<Prepared>>,
    /// Objects that playbooks hold, made when first asked for.
    pub host_objects: HashMap<usize, Table>,
    /// `host.vars`, of the play that is under way.
    pub vars_objects: HashMap<usize, Table>,
    pub facts_objects: HashMap<usize, Table>,
    /// Hosts whose part in a play has come to the task of `--start-at-task`.
    pub started: HashSet<usize>,
    /// Whether an earlier play has come to it, so that all of this one is done.
    pub started_before: bool,
}

impl Running {
    /// Turns to a play: what was true of the one before it alone is forgotten.
    pub fn enter_play(&mut self, play: usize) {
        if self.play != play {
            self.play = play;
            self.started_before = !self.started.is_empty();
            self.onces.clear();
            self.vars_objects.clear();
        }
    }
}

/// The part of a play that is code.
pub(super) struct PlayCode {
    pub play: Play,
    pub run: Function,
    /// Puts the play's hosts in order when it begins.
    pub order: Option<Function>,
    pub vars: Arc<Map<String, Value>>,
    pub become_user: Become,
}

/// What a play, role or task says about becoming another user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Become {
    /// Nothing.
    #[default]
    Inherit,
    /// Stay the login user.
    No,
    /// Become this one.
    User(String),
}

impl Become {
    /// Reads the two fields that every level has.
    pub fn new(r#become: Option<bool>, user: Option<&str>) -> Self {
        match (r#become, user) {
            (Some(false), _) => Self::No,
            (_, Some(user)) => Self::User(user.to_owned()),
            (Some(true), None) => Self::User("root".to_owned()),
            (None, None) => Self::Inherit,
        }
    }
}

/// A host's part of a play.
pub(super) struct Coroutine {
    pub thread: Thread,
    pub waiting: Waiting,
    pub roles: Vec<RoleFrame>,
    /// Tasks that it has asked for and that are not done.
    pub open: Vec<u32>,
    /// Failure of one of those, to be raised when it runs next.
    pub failure: Option<Box<Diagnostic>>,
    /// Where `role` or `gather` was looked up last.
    pub marked: Option<Place>,
}

/// What a coroutine waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Waiting {
    Start,
    Result(u32),
    Tasks,
    /// As `Tasks`, when the playbook has nothing more to ask for.
    Rest,
    Facts(usize),
    Gather(usize),
    Once(String),
    Barrier(String),
}

/// A role that a host is in.
#[derive(Clone)]
pub(super) struct RoleFrame {
    pub role: Rc<Role>,
    pub params: Arc<Map<String, Value>>,
    pub tags: Vec<String>,
    pub r#become: Become,
    /// Where the role was called.
    pub call: Option<Place>,
}

/// A task, from its call to its end.
pub(super) struct Task {
    pub host: usize,
    pub requested_by: usize,
    pub module: &'static str,
    pub name: String,
    pub place: Place,
    pub paths: Vec<PathBuf>,
    pub result: Option<TaskResult>,
    /// The task until it is sent.
    pub planned: Option<Box<PlannedTask>>,
    /// Its arguments while they cannot be prepared for want of facts.
    pub deferred: Option<Box<Deferred>>,
}

/// A task that waits for its host's facts.
pub(super) struct Deferred {
    pub key: PrepareKey,
    pub role: Option<RoleFrame>,
    pub frames: Vec<Frame>,
}

/// What `once` knows of a key.
pub(super) enum Once {
    Running(usize),
    Done(Value),
    Failed(Box<Diagnostic>, Option<super::error::Fatal>),
}

/// What makes two preparations the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PrepareKey {
    pub module: &'static str,
    pub role: Option<PathBuf>,
    pub arguments: Value,
}

impl PrepareKey {
    /// Names the preparation of a task that is called from `role`.
    pub fn of(module: &Entry, role: Option<&RoleFrame>, arguments: Value) -> Self {
        Self { module: module.name, role: role.map(|frame| frame.role.folder.clone()), arguments }
    }
}

/// What the preparation of a task came to.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub arguments: String,
    pub paths: Vec<PathBuf>,
    pub blobs: Vec<Digest>,
    pub signature: Option<SignatureRequest>,
    pub delivers: Option<PathBuf>,
}

/// Time that Lua code may take without waiting; time spent in Rust does not count.
pub(super) struct Clock {
    pub deadline: Instant,
}

impl Clock {
    pub fn start(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }
}

impl Shared {
    /// Returns the metatables; they are there as soon as any of the playbook's code runs.
    pub fn classes(&self) -> mlua::Result<&Classes> {
        self.classes.get().ok_or_else(|| mlua::Error::runtime("the prelude has not run"))
    }

    /// Runs Rust code whose time is not the playbook's.
    pub fn uncounted<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.clock.borrow_mut().deadline += begun.elapsed();
        result
    }

    pub fn host_name(&self, host: usize) -> &str {
        self.inventory.host_at(host).map_or("", |host| host.name.as_str())
    }

    /// Returns the running functions of the playbook, with the calls of roles that a tail call has hidden put back.
    pub fn frames(&self, lua: &Lua) -> Vec<Frame> {
        frames(lua)
    }

    /// Completes a diagnostic with place, chain and host of what runs.
    pub fn here(&self, lua: &Lua, diagnostic: Box<Diagnostic>) -> Box<Diagnostic> {
        let frames = self.frames(lua);
        let known = diagnostic.place.is_some();
        let mut made = placed(diagnostic, &frames);
        if !known {
            made.chain = self.chain(&frames);
        }
        self.on_host(made)
    }

    /// Adds the host whose coroutine runs.
    pub fn on_host(&self, mut diagnostic: Box<Diagnostic>) -> Box<Diagnostic> {
        if diagnostic.host.is_none() {
            let current = self.run.borrow().current;
            diagnostic.host = current.map(|host| self.host_name(host).to_owned());
        }
        diagnostic
    }

    /// Turns a problem of argument number `argument` of a call of `name` into a diagnostic that points at it.
    pub fn problem(&self, frames: &[Frame], name: &str, argument: usize, problem: Problem) -> Box<Diagnostic> {
        let mut made = Diagnostic::user(problem.message).details(problem.details);
        made.hints = problem.hints;
        if let Some(frame) = frames.first() {
            let found = (!problem.path.is_empty())
                .then(|| self.sources.field(&frame.file, frame.line, name, argument, &problem.path, problem.part))
                .flatten();
            made.place = Some(found.unwrap_or_else(|| self.sources.call(&frame.file, frame.line, name)));
            made.chain = self.chain(frames);
        }
        self.on_host(made)
    }

    /// Returns the places that led to the innermost of `frames`, innermost first.
    pub fn chain(&self, frames: &[Frame]) -> Vec<Place> {
        let mut chain = super::error::places(frames);
        if !chain.is_empty() {
            chain.remove(0);
        }
        let run = self.run.borrow();
        let Some(coroutine) = run.current.and_then(|current| run.coroutines.get(&current)) else { return chain };
        // `return host:role(…)` leaves no frame behind.
        for frame in &coroutine.roles {
            let Some(call) = &frame.call else { continue };
            match chain.iter_mut().find(|place| (&place.file, place.line) == (&call.file, call.line)) {
                // The same place, and its column as well.
                Some(known) => known.clone_from(call),
                None => {
                    let position = chain.iter().position(|place| !place.file.starts_with(&frame.role.folder)).unwrap_or(chain.len());
                    chain.insert(position, call.clone());
                }
            }
        }
        chain
    }

    /// Says something.
    pub fn say(&self, host: Option<usize>, level: Level, text: String) {
        self.run.borrow_mut().messages.push(Message { host, level, text });
    }

    /// Returns a variable given on the command line.
    pub fn extra(&self, host: usize, name: &str) -> Result<Option<Value>> {
        let Some(host) = self.inventory.host_at(host) else { return Ok(None) };
        let given = host.layers().any(|layer| layer.owner == Owner::CommandLine && layer.variables.contains_key(name));
        if given { self.inventory.value(host, name) } else { Ok(None) }
    }

    /// Returns a variable as the play that is under way sees it.
    pub fn variable(&self, host: usize, name: &str) -> Result<Option<Value>> {
        if let Some(value) = self.extra(host, name)? {
            return Ok(Some(value));
        }
        if let Some(value) = self.play_vars().get(name) {
            return Ok(Some(value.clone()));
        }
        match self.inventory.host_at(host) {
            Some(host) => self.inventory.value(host, name),
            None => Ok(None),
        }
    }

    /// Returns where such a variable was written.
    pub fn origin(&self, host: usize, name: &str) -> Option<Place> {
        let from_play = matches!(self.extra(host, name), Ok(None)) && self.play_vars().contains_key(name);
        if from_play {
            let run = self.run.borrow();
            return run.plays.get(run.play).map(|code| code.play.place.clone());
        }
        self.inventory.host_at(host)?.origin(name)
    }

    /// Returns the names of all variables of a host.
    pub fn variable_names(&self, host: usize) -> Vec<String> {
        let mut names: Vec<_> = self.play_vars().keys().cloned().collect();
        names.extend(self.inventory.host_at(host).map(crate::inventory::Host::keys).unwrap_or_default());
        names.sort_unstable();
        names.dedup();
        names
    }

    pub fn play_vars(&self) -> Arc<Map<String, Value>> {
        let run = self.run.borrow();
        run.plays.get(run.play).map(|code| Arc::clone(&code.vars)).unwrap_or_default()
    }

    /// Returns what a template sees that is rendered for a host, in a role.
    pub fn scope(&self, host: usize, role: Option<&RoleFrame>) -> Scope {
        let name = self.host_name(host).to_owned();
        let params = role.map(|frame| {
            let given = frame.params.iter().filter(|(_, value)| !value.is_null());
            Arc::new(given.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()) as Arc<dyn Layer>
        });
        let host_variables = |only_extra| Arc::new(HostVariables { inventory: self.inventory.clone(), host, only_extra }) as Arc<dyn Layer>;
        let play = self.play_vars() as Arc<dyn Layer>;
        let groups = self.inventory.host_at(host).map(|host| self.inventory.group_names(host)).unwrap_or_default();
        Scope {
            layers: params.into_iter().chain([host_variables(true), play, host_variables(false)]).collect(),
            groups: groups.into_iter().map(str::to_owned).collect(),
            facts: self.run.borrow().facts.get(&host).cloned(),
            world: Arc::clone(&self.world),
            host: name,
        }
    }
}

/// A host's variables in the inventory, rendered when they are looked at.
#[derive(Debug)]
struct HostVariables {
    inventory: Inventory,
    host: usize,
    /// Whether only those of the command line count.
    only_extra: bool,
}

impl Layer for HostVariables {
    fn get(&self, name: &str) -> Option<std::result::Result<Value, String>> {
        let host = self.inventory.host_at(self.host)?;
        if self.only_extra && !host.layers().any(|layer| layer.owner == Owner::CommandLine && layer.variables.contains_key(name)) {
            return None;
        }
        self.inventory.value(host, name).map_err(|error| error.message).transpose()
    }

    fn names(&self) -> Vec<String> {
        self.inventory.host_at(self.host).map(crate::inventory::Host::keys).unwrap_or_default()
    }
}

/// The inventory, as templates ask for it.
#[derive(Debug)]
pub(super) struct InventoryWorld(pub Inventory);

impl World for InventoryWorld {
    fn groups(&self) -> Vec<(String, Vec<String>)> {
        let names = |group| self.0.all_hosts_of(group).map(|host| host.name.clone()).collect();
        self.0.groups().map(|group| (group.name.clone(), names(group))).collect()
    }

    fn hosts(&self) -> Vec<String> {
        self.0.hosts().map(|host| host.name.clone()).collect()
    }

    fn variables(&self, host: &str) -> Option<Arc<dyn Layer>> {
        let number = self.0.host(host)?.number;
        Some(Arc::new(HostVariables { inventory: self.0.clone(), host: number, only_extra: false }))
    }
}

//! The only vocabulary between a run and those who show it: terminal, JSON Lines and later JUnit and HTML are siblings.

use std::collections::BTreeMap;

use kplay_modules::agent::wire::{Certainty, ChangeReport, Status};

use crate::diagnostic::{Diagnostic, Place};

/// Something that happened in a run. Sent by the scheduler, shown by the reporters, changed by nobody.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run begins.
    RunStarted {
        /// Its name.
        run: String,
        /// The playbook.
        playbook: String,
        /// Whether this is a forecast.
        check: bool,
        /// How many hosts take part at most.
        hosts: usize,
    },
    /// A play begins.
    PlayStarted {
        /// Its name.
        play: String,
        /// Its hosts, in order.
        hosts: Vec<String>,
    },
    /// A batch of a play with `serial` begins.
    BatchStarted {
        /// Number, from 1.
        batch: usize,
        /// How many.
        of: usize,
        /// Its hosts.
        hosts: Vec<String>,
    },
    /// A host answered.
    HostConnected {
        /// The host.
        host: String,
        /// Milliseconds since the connection was begun.
        millis: u64,
        /// Whether the agent had to be sent.
        agent_sent: bool,
    },
    /// A host could not be reached, or the connection broke.
    HostUnreachable {
        /// The host.
        host: String,
        /// Why.
        error: Box<Diagnostic>,
    },
    /// Tasks were sent to a host, all in one message.
    RequestSent {
        /// The host.
        host: String,
        /// How many.
        tasks: usize,
    },
    /// A host works on something that takes long.
    TaskStarted {
        /// The host.
        host: String,
        /// Name of the task.
        task: String,
    },
    /// A task ended on a host.
    TaskFinished(Box<TaskFinished>),
    /// A host's part of a play failed outside a task (an error in Lua, a failed barrier).
    HostFailed {
        /// The host.
        host: String,
        /// Why.
        error: Box<Diagnostic>,
    },
    /// A host begins to take back what a failed host's part in the play has changed on it; tasks of module `undo` follow.
    UndoStarted {
        /// Where it is taken back.
        host: String,
        /// Whose part failed.
        failed: String,
    },
    /// That is over.
    UndoEnded {
        /// Where it was taken back.
        host: String,
        /// Whose part failed.
        failed: String,
        /// Whether everything that can be undone was.
        complete: bool,
    },
    /// A host's forecast ended, since the playbook reads what cannot be known.
    ForecastEnded {
        /// The host.
        host: String,
        /// What was read, and why it cannot be known.
        error: Box<Diagnostic>,
    },
    /// The playbook, an agent or kplay has something to say.
    Message {
        /// The host it is about.
        host: Option<String>,
        /// `info`, `warning` or `debug`.
        level: Level,
        /// The text.
        text: String,
    },
    /// The play ended early because too many hosts failed.
    PlayAborted {
        /// The play.
        play: String,
        /// Why.
        reason: String,
    },
    /// The run was refused before anything was touched.
    Refused {
        /// Its name; empty when it had none yet.
        run: String,
        /// Whether it was to be a forecast.
        check: bool,
        /// Why.
        errors: Vec<Diagnostic>,
    },
    /// The run is over.
    Recap(Recap),
}

/// How loud a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Shown with `-v`.
    Debug,
    /// Shown.
    Info,
    /// Shown and marked.
    Warning,
}

/// See [`Event::TaskFinished`].
#[derive(Debug, Clone)]
pub struct TaskFinished {
    /// The play.
    pub play: String,
    /// The host.
    pub host: String,
    /// Number of the task on that host, from 1, in the order of the playbook.
    pub number: u32,
    /// Its name, or module and main argument.
    pub task: String,
    /// The module.
    pub module: String,
    /// The role that called it.
    pub role: Option<String>,
    /// Where it was called.
    pub place: Place,
    /// How it ended.
    pub status: Status,
    /// How sure that is.
    pub certainty: Certainty,
    /// Why it is not exact, or was skipped.
    pub because: Option<String>,
    /// What was changed, or would be.
    pub changes: Vec<ChangeReport>,
    /// What went wrong.
    pub error: Option<Box<Diagnostic>>,
    /// Whether the failure was to be ignored.
    pub ignored: bool,
    /// Standard output and error of commands, for `-v`; empty for `sensitive` tasks.
    pub output: serde_json::Map<String, serde_json::Value>,
    /// Whether contents and output are to be kept back.
    pub sensitive: bool,
    /// Microseconds on the host.
    pub micros: u64,
}

/// The end of a run, host by host.
#[derive(Debug, Clone, Default)]
pub struct Recap {
    /// Counts by host name.
    pub hosts: BTreeMap<String, Counts>,
    /// Name of the run, for `kplay undo`.
    pub run: String,
    /// Whether this was a forecast.
    pub check: bool,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Milliseconds of the whole run.
    pub millis: u64,
}

/// What became of a host's tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Nothing was missing.
    pub ok: u32,
    /// Changed, or would be.
    pub changed: u32,
    /// Failed, ignored failures not counted.
    pub failed: u32,
    /// Not to be done.
    pub skipped: u32,
    /// Forecast only: not to be known.
    pub unknown: u32,
    /// Whether the host was not reached, or lost.
    pub unreachable: bool,
}

/// Takes events. The scheduler holds one; reporters are behind it.
pub trait Reporter: Send {
    /// Shows or writes one event.
    fn report(&mut self, event: &Event);

    /// Returns why what it writes has become incomplete, if it has.
    fn failure(&self) -> Option<Box<Diagnostic>> {
        None
    }
}

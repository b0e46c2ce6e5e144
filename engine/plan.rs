//! What a playbook comes to: plays, tasks as they are sent, and the dialogue between the scheduler and the code that plans.
//!
//! Plain data only. [`Planner`] is implemented by `lua::Program`; the scheduler knows nothing else of Lua, and its tests need none.

use std::path::PathBuf;

use kplay_modules::agent::wire;
use kplay_modules::api::module::SignatureRequest;
use kplay_modules::api::{Digest, Facts};
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Place, Result};
use crate::outputs::Output;
use crate::report::event::Level;

/// A `play { … }` table, its pattern resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Play {
    /// Its name; `play N` when it has none.
    pub name: String,
    /// Its hosts, as numbers of the inventory, in order, `--limit` applied.
    pub hosts: Vec<usize>,
    /// How many hosts at a time.
    pub serial: Vec<Share>,
    /// How many hosts may fail before the play ends; `None` lets all others go on.
    pub max_failures: Option<Share>,
    /// Whether the first failure ends the play for all hosts.
    pub any_error_stops: bool,
    /// Whether what a host's part in the play has changed is taken back when that host fails.
    pub undo_on_failure: bool,
    /// User whom tasks become when they name none.
    pub become_user: Option<String>,
    /// Tags of all its tasks.
    pub tags: Vec<String>,
    /// Where it is defined.
    pub place: Place,
}

impl Play {
    /// Returns the hosts in the batches that `serial` asks for; without it, all at once.
    pub fn batches(&self) -> Vec<Vec<usize>> {
        let mut batches = Vec::new();
        let mut rest = self.hosts.as_slice();
        let mut steps = self.serial.iter();
        let mut share = steps.next();
        while !rest.is_empty() {
            let size = share.map_or(rest.len(), |share| share.of(self.hosts.len()).max(1));
            let (batch, after) = rest.split_at(size.min(rest.len()));
            batches.push(batch.to_vec());
            rest = after;
            share = steps.next().or(share);
        }
        batches
    }
}

/// A number of hosts, or a part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(usize),
    /// So many of a hundred.
    Percent(u32),
}

impl Share {
    /// Returns how many of `total` that is, percentages rounded down.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => usize::try_from(u64::from(percent) * total as u64 / 100).unwrap_or(total),
        }
    }
}

/// A task that a playbook has queued for a host: checked, prepared, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTask {
    /// What travels to the host. Its `id` is unique in the whole run.
    pub wire: wire::Task,
    /// The host that it runs on.
    pub host: usize,
    /// The host whose coroutine asked for it and fails with it; another one for tasks that are delegated.
    pub requested_by: usize,
    /// Where the playbook calls the module.
    pub place: Place,
    /// How it got there, innermost first, without `place`.
    pub chain: Vec<Place>,
    /// The role that calls it.
    pub role: Option<String>,
    /// Its tags and those of its roles and play.
    pub tags: Vec<String>,
    /// Why it is not to be sent but reported as skipped (`when` is false).
    pub skipped: Option<String>,
    /// Paths that it manages.
    pub paths: Vec<PathBuf>,
    /// Contents that its host may ask for.
    pub blobs: Vec<Digest>,
    /// The one certificate that its host may ask to be signed.
    pub signature: Option<SignatureRequest>,
    /// The one file on the controller that its host may deliver.
    pub delivers: Option<PathBuf>,
}

impl PlannedTask {
    /// Returns whether the task cannot change anything, whatever it finds.
    pub fn only_looks(&self) -> bool {
        let looks = || match serde_json::from_str(&self.wire.arguments) {
            Ok(Value::Object(arguments)) => ["reads_only", "only_look"].iter().any(|word| arguments.get(*word) == Some(&Value::Bool(true))),
            _ => false,
        };
        matches!(self.wire.module.as_str(), "assert" | "file_diff" | "stat" | "wait_for") || looks()
    }
}

/// How a task ended, as far as the playbook may read it.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskResult {
    /// It was done, or its forecast is known.
    Done {
        /// Whether something was changed, or would be.
        changed: bool,
        /// Whether the agent skipped it (`when` of an earlier result).
        skipped: bool,
        /// Fields of its module.
        output: Output,
    },
    /// It failed. With `ignored`, the playbook reads `failed` and `error`; else the host that asked for it fails.
    Failed {
        /// What went wrong, with place, chain and host.
        error: Box<Diagnostic>,
        /// Whether it was to be ignored.
        ignored: bool,
        /// Fields of its module, as far as there are any.
        output: Output,
    },
    /// Forecast only: it cannot be known.
    Unknown {
        /// Why.
        because: String,
    },
}

/// What a host's coroutine waits for, or how it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A field of this pending result is read: the queues have to be sent.
    NeedsResult {
        /// Where the task runs.
        host: usize,
        /// Its number.
        task: u32,
    },
    /// All tasks that this coroutine has asked for have to be done (it turns to another host, leaves a `pcall`, comes to a
    /// barrier).
    NeedsTasks,
    /// It has asked for all its tasks, which only have to be done.
    Finishing,
    /// The facts of this host are read, or rendered into a template, before it is connected.
    NeedsFacts {
        /// Whose.
        host: usize,
    },
    /// The facts of this host are to be taken again; all tasks of this coroutine are done.
    Gather {
        /// Whose.
        host: usize,
    },
    /// It waits until all living hosts of the batch wait here or have ended.
    Barrier {
        /// The barrier's name.
        name: String,
    },
    /// Another host runs the function of a `once` that this one has come to as well.
    Once {
        /// Its key.
        key: String,
        /// Who runs it.
        host: usize,
    },
    /// The play is over for this host; all its tasks are done.
    Ended,
    /// It failed: an error of the playbook's, or a task's that nothing caught.
    Failed(Box<Diagnostic>),
    /// Forecast only: the playbook reads what cannot be known.
    ForecastEnded(Box<Diagnostic>),
}

/// Something that the playbook or its preparation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The host it is about.
    pub host: Option<usize>,
    /// How loud.
    pub level: Level,
    /// The text.
    pub text: String,
}

/// The planning side of a run, as the scheduler sees it.
///
/// For each batch of a play: `begin` each host, `resume` all of them once, and only then send anything. A host is resumed
/// again as soon as `ready` says that what it waits for is there (a barrier: when the scheduler opens it).
pub trait Planner {
    /// Returns the plays, in order.
    fn plays(&self) -> &[Play];
    /// Returns a host's name.
    fn host_name(&self, host: usize) -> &str;
    /// Returns the hosts of a play in the order in which they take their turns, decided when the play begins.
    fn order(&mut self, play: usize) -> Result<Vec<usize>>;
    /// Starts a play for a host.
    fn begin(&mut self, play: usize, host: usize) -> Result<()>;
    /// Runs a host's coroutine until it waits or ends.
    fn resume(&mut self, host: usize) -> Step;
    /// Returns whether what a host waits for has come, or an error it will get instead. Barriers are the scheduler's: always true.
    fn ready(&self, host: usize) -> bool;
    /// Takes the tasks queued for a host, whoever asked for them, first in, first out. What they need of the controller
    /// (new keys, say) is written to its disk now, unless this is a forecast.
    fn take_queue(&mut self, host: usize) -> Result<Vec<PlannedTask>>;
    /// Returns the hosts for which something is queued.
    fn queued(&self) -> Vec<usize>;
    /// Tells how a task ended. After a failure that is not ignored, queued tasks of the same requester are dropped.
    fn finish_task(&mut self, task: u32, result: TaskResult);
    /// Returns where a task's call names `argument`, for errors about it; the call itself when it is not to be found there.
    fn place_of(&self, task: u32, argument: &str) -> Place;
    /// Gives a host's facts, when it is connected or has been asked to gather them again.
    fn set_facts(&mut self, host: usize, facts: Facts);
    /// Ends a host's part of the play (unreachable, interrupted, play aborted): its coroutine is dropped, its queued tasks too, and
    /// those who wait for a `once` of its get `error`.
    fn abandon(&mut self, host: usize, error: Box<Diagnostic>);
    /// Takes what the playbook has said since the last call.
    fn take_messages(&mut self) -> Vec<Message>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(hosts: usize, serial: &[Share]) -> Play {
        Play {
            name: String::new(),
            hosts: (0..hosts).collect(),
            serial: serial.to_vec(),
            max_failures: None,
            any_error_stops: false,
            undo_on_failure: false,
            become_user: None,
            tags: Vec::new(),
            place: Place::line("p.lua", 1),
        }
    }

    fn sizes(hosts: usize, serial: &[Share]) -> Vec<usize> {
        play(hosts, serial).batches().iter().map(Vec::len).collect()
    }

    #[test]
    fn serial_cuts_into_batches_and_a_ramp_repeats_its_last_step() {
        assert_eq!(sizes(5, &[]), [5]);
        assert_eq!(sizes(5, &[Share::Count(2)]), [2, 2, 1]);
        assert_eq!(sizes(10, &[Share::Count(1), Share::Percent(50)]), [1, 5, 4]);
        assert_eq!(sizes(2, &[Share::Percent(10)]), [1, 1]);
        assert_eq!(sizes(0, &[Share::Count(1)]), [0; 0]);
    }
}

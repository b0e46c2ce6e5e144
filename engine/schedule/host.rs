//! What the scheduler knows of one host during a run.

use std::collections::{BTreeMap, HashSet, VecDeque};

use kplay_modules::api::Digest;

use crate::diagnostic::Diagnostic;
use crate::plan::{PlannedTask, Step};
use crate::report::event::Counts;

/// A host's state; everything about Lua is behind its `step`.
#[derive(Default)]
pub(super) struct Host {
    /// Tasks planned for this host and not sent yet, first in, first out.
    pub pending: VecDeque<PlannedTask>,
    /// Tasks sent and not reported yet, by number.
    pub in_flight: BTreeMap<u32, PlannedTask>,
    /// Contents that its tasks of this run name. A later task may need what an earlier one has brought.
    pub contents: HashSet<Digest>,
    /// Whether a request (or a gathering) is under way.
    pub busy: bool,
    /// What its coroutine waits for in the current play; `None` when it takes no part.
    pub step: Option<Step>,
    /// Whether its facts have been asked for again and not arrived.
    pub gathering: bool,
    /// Takes no further part in the run: failed, lost, or its forecast has ended.
    pub out: bool,
    /// Failed or was lost.
    pub failed: bool,
    /// The last failure of a task that this host asked for: when that very error ends its part, it is not shown twice.
    pub shown: Option<Box<Diagnostic>>,
    /// Tasks reported so far; the number of the next one follows.
    pub reported: u32,
    /// What became of its tasks.
    pub counts: Counts,
}

impl Host {
    /// Returns whether its coroutine has come to an end in this play, or never had one.
    pub fn is_over(&self) -> bool {
        self.out || matches!(self.step, None | Some(Step::Ended))
    }

    /// Forgets the tasks that `requester` has queued here.
    pub fn drop_pending_of(&mut self, requester: usize) {
        self.pending.retain(|task| task.requested_by != requester);
    }
}

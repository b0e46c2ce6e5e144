//! Questions to many hosts at once, outside of any play: undo a run, list the runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kplay_modules::agent::wire::{ToAgent, ToController};

use super::session::{Happening, HostId, Sessions};
use super::supply::Supply;
use crate::diagnostic::Diagnostic;
use crate::transport::Target;

/// What a host answered.
#[expect(clippy::large_enum_variant, reason = "nearly all answers are messages")]
pub enum Answer {
    /// A message that belongs to the answer.
    Said(HostId, ToController),
    /// The host could not be reached, or was lost before its answer was complete.
    Lost(HostId, Box<Diagnostic>),
}

/// What follows an answer.
pub enum Next {
    /// More of the same answer.
    Wait,
    /// Another question to that host.
    Ask(ToAgent),
    /// Nothing: the host is through.
    End,
}

/// Asks all hosts at once and hands every answer to `hear`, which says what follows.
///
/// Returns whether the operator interrupted: hosts then finish the change they are at.
pub fn ask(sessions: &mut Sessions, hosts: &[(HostId, Arc<Target>)], question: &ToAgent, hear: &mut dyn FnMut(Answer) -> Next) -> bool {
    let mut waiting: HashSet<HostId> = HashSet::new();
    for (host, target) in hosts {
        waiting.insert(*host);
        sessions.connect(*host, target);
    }
    let mut interrupted = false;
    while !waiting.is_empty() {
        match sessions.next(Duration::from_secs(60)) {
            None | Some(Happening::Log { .. }) => {}
            Some(Happening::Ready { host, .. }) => {
                if let Err(error) = sessions.send(host, question) {
                    waiting.remove(&host);
                    hear(Answer::Lost(host, error));
                }
            }
            // Nothing that is asked here comes with contents of the controller's.
            Some(Happening::Message { host, message: ToController::NeedBlob { digest, .. } }) => {
                Supply::refuse_blob(&sessions.outbox(), host, digest);
            }
            Some(Happening::Message { host, message }) => {
                let failed = match hear(Answer::Said(host, message)) {
                    Next::Wait => continue,
                    Next::Ask(question) => sessions.send(host, &question).err(),
                    Next::End => {
                        waiting.remove(&host);
                        // Only a session that is ended in words counts as finished in the host's journal.
                        let _ = sessions.send(host, &ToAgent::Bye);
                        sessions.close(host);
                        None
                    }
                };
                if let Some(error) = failed {
                    waiting.remove(&host);
                    hear(Answer::Lost(host, error));
                }
            }
            Some(Happening::Lost { host, error }) => {
                if waiting.remove(&host) {
                    hear(Answer::Lost(host, error));
                }
            }
            Some(Happening::Interrupted) => {
                interrupted = true;
                let idle: Vec<HostId> = waiting.iter().copied().filter(|host| !sessions.is_ready(*host)).collect();
                for host in idle {
                    waiting.remove(&host);
                }
                for host in &waiting {
                    // A host that cannot be told any more is reported as lost on its own.
                    let _ = sessions.send(*host, &ToAgent::Cancel);
                }
            }
        }
    }
    interrupted
}

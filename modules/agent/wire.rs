//! What controller and agent say to each other: numbered messages, bounded frames, one version.
//!
//! A message is a postcard value. It is cut into frames of at most [`FRAME`] bytes, each with a four-byte little-endian
//! head: the low 31 bits are the length, the highest bit says that the message goes on in the next frame.
//! The number of a message is its position in the enum. Both sides begin with number 0, whose first field is [`VERSION`]:
//! that much never changes, so that builds that do not understand each other can say so.

mod bytes;
mod greeting;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use crate::api::forecast::Certainty;
use crate::api::{Change, Digest, Facts, Footprint, ModuleError};
pub use greeting::{Foreign, foreign, introduction};

/// Version of all that the two say to each other, modules' arguments included: 16 digits, a digest of the sources of the agent.
pub const VERSION: &str = env!("KPLAY_PROTOCOL");
/// Largest payload of a frame, bytes.
pub const FRAME: usize = 256 << 10;
/// Largest message, bytes: a request of many thousand tasks stays far below it.
pub const MESSAGE: usize = 256 << 20;

/// Value of an output field that a forecast cannot know: what a command that has not run would print.
pub const UNKNOWN_FIELD: &str = "\u{1}unknown";

/// What the controller says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// 0: first message of a session; answered by `Ready`.
    Hello(Hello),
    /// 1: tasks to be done in order; answered by one `Outcome` a task that was reached, then `Done`.
    Request(Request),
    /// 2: a part of a blob that was asked for, in order. Plain bytes, or deflated when `deflated` says so.
    Blob {
        /// Which.
        digest: Digest,
        /// Where in the blob the part begins.
        offset: u64,
        /// The part.
        #[serde(with = "bytes")]
        bytes: Vec<u8>,
        /// Whether `bytes` are deflated (raw, each part on its own).
        deflated: bool,
        /// Whether this was the last part.
        last: bool,
    },
    /// 3: the blob cannot be had.
    NoBlob {
        /// Which.
        digest: Digest,
        /// Why.
        message: String,
    },
    /// 4: the answer to `Sign`.
    Signed {
        /// The task that asked.
        task: u32,
        /// The certificate as PEM, or why not.
        certificate: Result<String, String>,
    },
    /// 5: take the facts again; answered by `Facts`.
    Gather,
    /// 6: undo a run; answered by `Outcome`s (task = its number in the journal), then `Done`.
    Undo {
        /// The run.
        run: String,
    },
    /// 7: list the runs in the journal; answered by `Runs`.
    ListRuns,
    /// 8: stop after the change that is being performed; answered by `Done`.
    Cancel,
    /// 9: what tasks of other identities would have done before those that follow; for forecasts.
    Fold(Vec<Foreseen>),
    /// 10: end of the session.
    Bye,
    /// 11: take back what these tasks of this run have changed; answered like `Undo`.
    UndoTasks {
        /// Their numbers.
        tasks: Vec<u32>,
    },
}

/// See [`ToAgent::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the controller.
    pub version: String,
    /// Name of the run, the same on all hosts: `20261122-054501-3f9c`.
    pub run: String,
    /// Who runs it, for the message of a held lock: `root@admin1`.
    pub by: String,
    /// Whether nothing is to be changed.
    pub check: bool,
    /// Whether changes are reported with the contents before and after.
    pub diff: bool,
    /// Act below this folder instead of `/`.
    pub root: Option<PathBuf>,
    /// How to become another user.
    pub become_method: BecomeMethod,
    /// Password for that, when one was given.
    pub become_password: Option<String>,
}

/// Ways to become another user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BecomeMethod {
    /// `sudo`
    #[default]
    Sudo,
    /// `doas`
    Doas,
    /// `su`
    Su,
}

/// See [`ToAgent::Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Number, echoed by `Done`.
    pub id: u32,
    /// What to do, in order.
    pub tasks: Vec<Task>,
}

/// What a task of another identity would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Name of the task.
    pub task: String,
    /// What it would do, with contents as far as they are known.
    pub changes: Vec<Change>,
    /// What else it may do.
    pub reach: Footprint,
    /// How sure that is.
    pub certainty: Certainty,
    /// Why no surer.
    pub because: String,
}

/// One task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Number, unique within the session.
    pub id: u32,
    /// Name of the module.
    pub module: String,
    /// Its prepared arguments, as JSON.
    pub arguments: String,
    /// Name of the task, for the journal.
    pub name: String,
    /// User to become; `None` stays the login user.
    pub become_user: Option<String>,
    /// Do the task only if one of these earlier tasks of the session changed something; empty means always.
    pub when_changed: Vec<u32>,
    /// Seconds for the whole task; 0 means no limit of its own.
    pub timeout: u64,
    /// How often to try again after a failure.
    pub retries: u32,
    /// Milliseconds between tries.
    pub delay: u64,
    /// The try counts as a success only when this matches.
    pub until: Option<Condition>,
    /// Counts as changed exactly when this matches.
    pub changed_if: Option<Condition>,
    /// Counts as failed exactly when this matches.
    pub failed_if: Option<Condition>,
    /// Go on after a failure.
    pub ignore_errors: bool,
    /// Show neither contents nor output.
    pub sensitive: bool,
}

/// A judgement of a task's output, made by the agent so that it costs no round trip. All given parts must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Regular expressions by output field (`stdout`, `stderr`); each must be found.
    pub matches: BTreeMap<String, String>,
    /// Exit codes, of which the command's must be one; empty means any.
    pub codes: Vec<i32>,
    /// Whether the opposite must hold.
    pub not: bool,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToController {
    /// 0: answer to `Hello`.
    Ready {
        /// [`VERSION`] of the agent.
        version: String,
        /// What is known of the host.
        facts: Facts,
    },
    /// 1: a task has begun; only for tasks that may take long.
    Started {
        /// Which.
        task: u32,
    },
    /// 2: a task has ended.
    Outcome(Outcome),
    /// 3: a blob is needed.
    NeedBlob {
        /// Which.
        digest: Digest,
        /// What is there of it already. The controller sends what follows, or everything when it is not the beginning.
        kept: Option<Beginning>,
    },
    /// 4: a certificate is to be signed for this task.
    Sign {
        /// The task.
        task: u32,
        /// The certification request, DER. Only its public key and its signature are looked at.
        request: Vec<u8>,
    },
    /// 5: a part of a file that a task fetches.
    Fetched {
        /// The task.
        task: u32,
        /// The part.
        #[serde(with = "bytes")]
        bytes: Vec<u8>,
        /// Whether this was the last part.
        last: bool,
    },
    /// 6: the request (or undo) is over.
    Done {
        /// Its number; 0 for an undo.
        id: u32,
    },
    /// 7: answer to `Gather`.
    Facts(Facts),
    /// 8: answer to `ListRuns`, newest first.
    Runs(Vec<RunEntry>),
    /// 9: the session cannot go on (version, lock, journal not writable).
    Fatal(ModuleError),
    /// 10: before `Ready`: what this host waits for.
    Waits(String),
}

/// The beginning of a blob, left over from a connection that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Bytes.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
}

/// A run as the journal of a host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    /// Name of the run.
    pub run: String,
    /// Who ran it.
    pub by: String,
    /// When it began, seconds since 1970.
    pub started: i64,
    /// Changes performed.
    pub changes: u32,
    /// Whether it came to its end on this host.
    pub finished: bool,
    /// Whether it has been undone.
    pub undone: bool,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which task.
    pub task: u32,
    /// How it ended.
    pub status: Status,
    /// How sure that is; an apply is always exact.
    pub certainty: Certainty,
    /// Why it is not exact, or why it was skipped.
    pub because: Option<String>,
    /// What was changed, or would be.
    pub changes: Vec<ChangeReport>,
    /// Fields the playbook may read, a JSON object.
    pub output: String,
    /// What went wrong.
    pub failure: Option<ModuleError>,
    /// Tries it took.
    pub attempts: u32,
    /// Microseconds it took on the host.
    pub micros: u64,
    /// What the operator should know besides.
    pub warnings: Vec<String>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing was missing.
    Ok,
    /// Something was changed, or would be.
    Changed,
    /// It failed.
    Failed,
    /// It was not to be done.
    Skipped,
    /// Forecast only: cannot be known.
    Unknown,
}

/// A change with what a diff needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// The change. Inline contents are left out of it (replaced by a `Blob`) unless a diff was asked for.
    pub change: Change,
    /// Content before, when a diff was asked for and it is text below 1 MiB that is not secret.
    pub before: Option<Vec<u8>>,
    /// Content after, likewise, when the controller does not hold it.
    pub after: Option<Vec<u8>>,
}

/// Writes one message, frame by frame, and does not flush.
pub fn write<M: Serialize>(output: &mut dyn Write, message: &M) -> io::Result<()> {
    output.write_all(&encode(message)?)
}

/// Returns one message as the bytes that go over the wire.
pub fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > MESSAGE {
        return Err(io::Error::other(format!("a message of {} bytes is above the limit of {MESSAGE}", bytes.len())));
    }
    let mut framed = Vec::with_capacity(bytes.len() + 4 + bytes.len() / FRAME * 4);
    let mut rest = bytes.as_slice();
    loop {
        let (part, after) = rest.split_at(rest.len().min(FRAME));
        let more = if after.is_empty() { 0 } else { 1 << 31 };
        framed.extend_from_slice(&(part.len() as u32 | more).to_le_bytes());
        framed.extend_from_slice(part);
        rest = after;
        if rest.is_empty() {
            return Ok(framed);
        }
    }
}

/// Reads one message; `None` at a clean end of input.
pub fn read<M: DeserializeOwned>(input: &mut dyn Read) -> io::Result<Option<M>> {
    read_with(input, &mut Vec::new())
}

/// The same, with room that serves one message after the other.
pub fn read_with<M: DeserializeOwned>(mut input: &mut dyn Read, message: &mut Vec<u8>) -> io::Result<Option<M>> {
    message.clear();
    message.shrink_to(FRAME);
    let mut head = [0; 4];
    loop {
        let mut filled = 0;
        while filled < 4 {
            match input.read(&mut head[filled..]) {
                Ok(0) if filled == 0 && message.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let (length, more) = frame(head, message.len())?;
        if (&mut input).take(length as u64).read_to_end(message)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !more {
            return decode(message).map(Some);
        }
    }
}

/// Reads a frame's head: how many bytes follow, and whether that is not the end of the message, of which `before` bytes are there.
fn frame(head: [u8; 4], before: usize) -> io::Result<(usize, bool)> {
    let head = u32::from_le_bytes(head);
    let length = (head & !(1 << 31)) as usize;
    if length > FRAME {
        return Err(invalid("a frame is larger than the protocol allows"));
    }
    if before + length > MESSAGE {
        return Err(invalid("a message is larger than the protocol allows"));
    }
    Ok((length, head >> 31 == 1))
}

fn decode<M: DeserializeOwned>(message: &[u8]) -> io::Result<M> {
    greeting::familiar(message)?;
    postcard::from_bytes(message).map_err(|_| invalid("a frame holds no message of this protocol"))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

/// Puts messages together from bytes as they arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes not yet looked at.
    pending: Vec<u8>,
    /// Frames of the message that is under way.
    message: Vec<u8>,
}

impl Decoder {
    /// Takes bytes off the wire.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Returns whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.message.is_empty()
    }

    /// Returns the next whole message, or `None` when more bytes are needed. Fails on what is no message.
    #[expect(clippy::should_implement_trait, reason = "the message type is the caller's, and it can fail")]
    pub fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        let mut used = 0;
        let result = loop {
            let Some((head, rest)) = self.pending[used..].split_first_chunk::<4>() else { break None };
            let (length, more) = frame(*head, self.message.len())?;
            let Some(part) = rest.get(..length) else { break None };
            self.message.extend_from_slice(part);
            used += 4 + length;
            if !more {
                let decoded = decode(&self.message)?;
                self.message.clear();
                // A long message leaves its room behind only while it is there: there may be a thousand of these.
                self.message.shrink_to(FRAME);
                break Some(decoded);
            }
        };
        self.pending.drain(..used);
        self.pending.shrink_to(FRAME * 2);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_many_frames_arrives_byte_by_byte() {
        let sent = ToAgent::Blob { digest: Digest::of(b"x"), offset: 0, bytes: vec![7; FRAME * 2 + 5], deflated: false, last: true };
        let mut decoder = Decoder::default();
        let mut arrived = Vec::new();
        for byte in encode(&sent).unwrap_or_default().chunks(1000) {
            decoder.push(byte);
            arrived.extend(decoder.next::<ToAgent>().ok().flatten());
        }
        assert_eq!(arrived, [sent]);
        assert!(decoder.is_empty());
    }

    #[test]
    fn another_build_is_told_apart_by_its_greeting_whatever_else_that_holds() {
        let mut greeting = introduction();
        let mut decoder = Decoder::default();
        decoder.push(&greeting);
        let own = decoder.next::<ToController>().unwrap_err();
        assert_eq!(foreign(&own), None, "its own version, though nothing follows");
        greeting[6] = if greeting[6] == b'0' { b'1' } else { b'0' };
        let mut decoder = Decoder::default();
        decoder.push(&greeting);
        let error = decoder.next::<ToController>().unwrap_err();
        let version = foreign(&error).map(|foreign| foreign.version.clone()).unwrap();
        assert_eq!(version[1..], VERSION[1..]);
        assert!(error.to_string().contains(VERSION) && error.to_string().contains(&version), "{error}");
        let facts = crate::api::Facts::default();
        let whole = encode(&ToController::Ready { version, facts }).unwrap();
        assert_eq!(whole[4..22], greeting[4..22], "a greeting begins as an introduction does");
    }

    #[test]
    fn garbage_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(b"Welcome to this host!\n");
        assert!(decoder.next::<ToAgent>().is_err());
    }
}

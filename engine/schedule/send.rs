//! Sends contents to hosts: part by part, no faster than the host takes them, deflated where the link is what it waits for.

use std::io::{Read, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use kplay_modules::agent::wire::{Beginning, ToAgent};
use kplay_modules::api::Digest;
use kplay_modules::api::error::plain;

use super::session::HostId;
use super::supply::say;
use super::workers::Workers;
use crate::blobs::{Blobs, Content};
use crate::transport::PollLoop;

/// Bytes of a content that travel in one message.
const PART: usize = 96 << 10;
/// Bytes that may wait for one host before its sender pauses: enough to keep a fast link busy.
const QUEUE: usize = 1 << 20;
/// Bytes that may wait for all hosts together.
const QUEUES: usize = 24 << 20;
/// Contents up to this size are sent from the thread that schedules; larger ones get a thread of their own.
const SMALL: u64 = 256 << 10;
/// Large contents that are sent at a time; the others wait their turn.
const SENDERS: usize = 64;
/// Bytes a second that a thread deflates at least; a link that takes more is faster without.
const DEFLATED: u64 = 40 << 20;
/// Parts that go as they are after one that deflating has not made smaller.
const PAUSE: usize = 16;

/// Who sends large contents.
#[derive(Clone)]
pub(super) struct Senders {
    workers: Workers,
}

impl Default for Senders {
    fn default() -> Self {
        Self { workers: Workers::new("send", SENDERS) }
    }
}

impl Senders {
    /// Sends a content, or what follows its beginning; in the background when it is large.
    pub fn send(&self, blobs: &Arc<Blobs>, outbox: &Arc<PollLoop>, host: HostId, digest: Digest, kept: Option<Beginning>) {
        if blobs.blob(&digest).is_none_or(|blob| blob.size <= SMALL) {
            return self.answer(blobs, outbox, host, digest, None);
        }
        let (senders, blobs, outbox) = (self.clone(), Arc::clone(blobs), Arc::clone(outbox));
        self.workers.spawn(move || senders.answer(&blobs, &outbox, host, digest, kept));
    }

    fn answer(&self, blobs: &Blobs, outbox: &PollLoop, host: HostId, digest: Digest, kept: Option<Beginning>) {
        // The host waits for an answer, whatever happens here.
        let sent = catch_unwind(AssertUnwindSafe(|| self.stream(blobs, outbox, host, digest, kept)));
        if let Err(message) = sent.unwrap_or_else(|_| Err("kplay itself failed at it".to_owned())) {
            say(outbox, host, &ToAgent::NoBlob { digest, message });
        }
    }

    /// Returns how much may wait for one host.
    fn room(&self) -> usize {
        (QUEUES / self.workers.at_work().max(1)).clamp(PART, QUEUE)
    }

    /// Sends a content part by part and waits whenever the host's queue is full.
    fn stream(
        &self,
        blobs: &Blobs,
        outbox: &PollLoop,
        host: HostId,
        digest: Digest,
        kept: Option<Beginning>,
    ) -> std::result::Result<(), String> {
        let mut reader = match blobs.open(&digest) {
            None => return Err("the controller does not hold that content".to_owned()),
            Some(Err(error)) => return Err(cannot_read(&error)),
            Some(Ok(reader)) => reader,
        };
        let mut offset = resume(&mut *reader, kept).map_err(|error| cannot_read(&error))?;
        let mut pace = Pace::default();
        let mut part = read_part(&mut *reader).map_err(|error| cannot_read(&error))?;
        loop {
            let next = if part.len() < PART { Vec::new() } else { read_part(&mut *reader).map_err(|error| cannot_read(&error))? };
            let (size, last) = (part.len() as u64, next.is_empty());
            let deflated = pace.deflate(&part);
            let (bytes, deflated) = deflated.map_or((part, false), |bytes| (bytes, true));
            let (count, since) = (bytes.len(), Instant::now());
            // The thread that schedules must not wait for the poll loop, which may be waiting for it.
            let small = offset == 0 && last && size <= SMALL;
            if !small && !outbox.wait_for_room(host, self.room()) {
                return Ok(());
            }
            pace.waited(count, since.elapsed());
            say(outbox, host, &ToAgent::Blob { digest, offset, bytes, deflated, last });
            if last {
                return Ok(());
            }
            offset += size;
            part = next;
        }
    }
}

fn cannot_read(error: &std::io::Error) -> String {
    format!("the controller cannot read that content: {}", plain(error))
}

/// Puts the reader behind what the host has, when that is indeed the beginning of the content; returns from where it reads.
fn resume(reader: &mut dyn Content, kept: Option<Beginning>) -> std::io::Result<u64> {
    let Some(kept) = kept else { return Ok(0) };
    if Digest::of_reader(&mut reader.take(kept.size))? == (kept.digest, kept.size) {
        return Ok(kept.size);
    }
    reader.seek(SeekFrom::Start(0))
}

fn read_part(reader: &mut dyn Content) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(PART);
    reader.take(PART as u64).read_to_end(&mut part)?;
    Ok(part)
}

/// Whether deflating pays. It does not for what is packed already, nor on a link that is faster than it.
#[derive(Default)]
struct Pace {
    /// Whether the link has been seen to be fast.
    fast: bool,
    /// Parts that still go as they are.
    pause: usize,
    /// What the queue has taken while the sender waited for it, and for how long that was.
    taken: usize,
    waited: Duration,
}

impl Pace {
    /// Returns the part deflated, when that pays and saves at least a tenth of it.
    fn deflate(&mut self, part: &[u8]) -> Option<Vec<u8>> {
        if self.fast || self.pause > 0 || part.len() < 512 {
            self.pause = self.pause.saturating_sub(1);
            return None;
        }
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(part.len() / 2), Compression::fast());
        encoder.write_all(part).ok()?;
        let deflated = encoder.finish().ok().filter(|bytes| bytes.len() < part.len() / 10 * 9);
        if deflated.is_none() {
            self.pause = PAUSE;
        }
        deflated
    }

    /// Takes note of how long the sender had to wait before this many bytes found room.
    fn waited(&mut self, count: usize, time: Duration) {
        (self.taken, self.waited) = (self.taken + count, self.waited + time);
        if self.taken >= QUEUE * 2 {
            // A sender that hardly waits is held up by deflating, not by the link.
            self.fast = self.taken as u128 * 1000 > self.waited.as_millis() * u128::from(DEFLATED);
            (self.taken, self.waited) = (0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn what_a_host_has_is_not_sent_again_if_it_is_the_beginning() {
        let content = b"0123456789".repeat(10);
        let kept = |bytes: &[u8]| Some(Beginning { size: bytes.len() as u64, digest: Digest::of(bytes) });
        let mut reader = Cursor::new(content.clone());
        assert_eq!(resume(&mut reader, kept(&content[..42])).unwrap(), 42);
        assert_eq!(read_part(&mut reader).unwrap(), content[42..]);
        for wrong in [b"0123456780".to_vec(), [content.clone(), content.clone()].concat()] {
            assert_eq!(resume(&mut reader, kept(&wrong)).unwrap(), 0);
            assert_eq!(read_part(&mut reader).unwrap(), content);
            reader.set_position(0);
        }
    }

    #[test]
    fn only_a_slow_link_is_worth_deflating_for() {
        let text = b"the same over and over ".repeat(10_000);
        let mut pace = Pace::default();
        assert!(pace.deflate(&text).is_some_and(|bytes| bytes.len() < text.len() / 10));
        pace.waited(QUEUE * 2, Duration::from_millis(1));
        assert_eq!(pace.deflate(&text), None, "the link took it at once");
        pace.waited(QUEUE * 2, Duration::from_secs(1));
        assert!(pace.deflate(&text).is_some(), "2 MB/s");
        let noise: Vec<u8> = (0..40_000_u32).flat_map(|number| Digest::of(&number.to_le_bytes()).0).collect();
        assert_eq!(pace.deflate(&noise), None);
        let again = (0..=PAUSE).map(|_| pace.deflate(&text).is_some()).collect::<Vec<_>>();
        assert_eq!(again.iter().position(|deflated| *deflated), Some(PAUSE), "mixed contents get another chance");
    }
}

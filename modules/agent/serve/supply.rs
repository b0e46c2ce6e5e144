//! What the agent asks the controller for: contents by digest, signatures, a place for fetched files.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::link::Link;
use super::partial::Partial;
use crate::agent::wire::{ToAgent, ToController};
use crate::api::forecast::Support;
use crate::api::perform::Supplied;
use crate::api::{Blob, Digest, ModuleError, Upstream};

/// Contents up to this size are remembered, so that a file used by several tasks, or by check and apply of one, travels once.
const REMEMBERED: u64 = 1 << 20;
/// Memory for all of them, bytes.
const MEMORY: usize = 32 << 20;
/// What is read whole for a forecast or a validation, bytes.
const WHOLE: u64 = 64 << 20;
/// Largest inflated part, bytes: a part is one frame.
const PART: u64 = 16 << 20;
/// Size of the parts that fetched files travel in, bytes.
const SENT: usize = 128 << 10;

/// Small contents of this session, oldest first out.
#[derive(Default)]
pub struct Contents {
    known: HashMap<Digest, Arc<[u8]>>,
    order: VecDeque<Digest>,
    size: usize,
}

impl Contents {
    fn get(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        self.known.get(digest).cloned()
    }

    pub(super) fn put(&mut self, digest: Digest, bytes: Vec<u8>) {
        if self.known.contains_key(&digest) {
            return;
        }
        self.size += bytes.len();
        self.known.insert(digest, bytes.into());
        self.order.push_back(digest);
        while self.size > MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.size -= self.known.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}

impl Link {
    /// Returns a reader of a blob's content; its digest is verified by the time the reader ends.
    pub(super) fn blob(&self, blob: &Blob) -> Box<dyn Read + '_> {
        match self.contents.borrow().get(&blob.digest) {
            Some(bytes) => Box::new(Cursor::new(bytes)),
            None => Box::new(self.ask(blob)),
        }
    }

    /// Returns a blob's content: a large one as the file in which it has arrived.
    fn supply(&self, blob: &Blob) -> Supplied<'_> {
        if blob.size <= REMEMBERED {
            return Supplied::Stream(self.blob(blob));
        }
        let mut arriving = self.ask(blob);
        if arriving.partial.is_none() && arriving.whole.is_none() {
            return Supplied::Stream(Box::new(arriving));
        }
        while !arriving.over && arriving.next_part().is_ok() {}
        match arriving.whole.take() {
            Some(path) => Supplied::File(path),
            // It lies elsewhere by now, or something went wrong, which shows again.
            None if arriving.again.is_some() => Supplied::Stream(Box::new(arriving)),
            None => {
                drop(arriving);
                Supplied::Stream(self.blob(blob))
            }
        }
    }

    /// Asks for a content, unless it is there.
    fn ask(&self, blob: &Blob) -> Arriving<'_> {
        let partial = self.partials.get().and_then(|partials| partials.open(blob));
        let mut arriving = Arriving {
            link: self,
            blob: blob.clone(),
            hasher: Sha256::new(),
            arrived: 0,
            again: None,
            part: Cursor::default(),
            kept: (blob.size <= REMEMBERED).then(Vec::new),
            partial,
            whole: None,
            over: false,
        };
        if !arriving.is_there() {
            let kept = arriving.partial.as_ref().and_then(Partial::beginning);
            self.send(&ToController::NeedBlob { digest: blob.digest, kept });
        }
        arriving
    }
}

/// A small content on its way ahead of its use.
#[derive(Default)]
struct Ahead {
    size: u64,
    bytes: Vec<u8>,
}

impl Link {
    /// Asks for all small contents that are about to be needed at once: one round trip instead of one each. What goes wrong
    /// here is asked for again where it is needed, and goes wrong there.
    pub(super) fn fetch_ahead<'b>(&self, blobs: impl Iterator<Item = &'b Blob>) {
        let mut ahead: HashMap<Digest, Ahead> = HashMap::new();
        let mut room = MEMORY as u64 / 2;
        for blob in blobs.filter(|blob| blob.size <= REMEMBERED) {
            let known = self.contents.borrow().get(&blob.digest).is_some() || ahead.contains_key(&blob.digest);
            if known || blob.size > room {
                continue;
            }
            room -= blob.size;
            ahead.insert(blob.digest, Ahead { size: blob.size, ..Ahead::default() });
        }
        if ahead.len() < 2 {
            return;
        }
        for digest in ahead.keys() {
            self.send(&ToController::NeedBlob { digest: *digest, kept: None });
        }
        while !ahead.is_empty() {
            let part = self.answer(|message| match message {
                ToAgent::Blob { digest, .. } | ToAgent::NoBlob { digest, .. } => ahead.contains_key(digest),
                _ => false,
            });
            match part {
                Ok(ToAgent::Blob { digest, bytes, deflated, last, .. }) => {
                    let bytes = if deflated { inflate(&bytes).unwrap_or_default() } else { bytes };
                    if let Some(arriving) = ahead.get_mut(&digest)
                        && arriving.bytes.len() as u64 <= arriving.size
                    {
                        arriving.bytes.extend(bytes);
                    }
                    if last
                        && let Some(arrived) = ahead.remove(&digest)
                        && Digest::of(&arrived.bytes) == digest
                    {
                        self.contents.borrow_mut().put(digest, arrived.bytes);
                    }
                }
                Ok(ToAgent::NoBlob { digest, .. }) => drop(ahead.remove(&digest)),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

impl Support for Link {
    fn content(&self, blob: &Blob) -> Result<Vec<u8>, ModuleError> {
        if blob.size > WHOLE {
            return Err(ModuleError::unknown(format!("a content of {} MiB is too large to look into", blob.size >> 20)));
        }
        let mut bytes = Vec::new();
        self.blob(blob).read_to_end(&mut bytes).map_err(|error| ModuleError::unknown(error.to_string()))?;
        Ok(bytes)
    }

    fn pause(&self, time: std::time::Duration) -> Result<(), ModuleError> {
        self.wait(time)
    }

    fn time_left(&self) -> Option<std::time::Duration> {
        self.time_left()
    }
}

/// A blob on its way.
struct Arriving<'a> {
    link: &'a Link,
    blob: Blob,
    hasher: Sha256,
    arrived: u64,
    /// What an earlier connection has brought.
    again: Option<Box<dyn Read>>,
    part: Cursor<Vec<u8>>,
    /// What has arrived, while it is to be remembered.
    kept: Option<Vec<u8>>,
    /// Its file, when it is large.
    partial: Option<Partial>,
    /// That file, once it holds everything.
    whole: Option<PathBuf>,
    over: bool,
}

impl Arriving<'_> {
    /// Returns whether all of it is there from before, and is read from there then.
    fn is_there(&mut self) -> bool {
        let Some(partial) = self.partial.take_if(|partial| partial.size() == self.blob.size) else { return false };
        let Ok(reader) = partial.reader() else { return false };
        self.again = Some(Box::new(reader));
        self.over = true;
        self.complete(partial);
        true
    }

    /// Goes on behind what an earlier connection has brought, or begins anew, as the controller says with the first part.
    fn begin(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.partial {
            Some(partial) if offset > 0 && offset == partial.size() => {
                self.hasher = partial.hasher();
                self.again = Some(Box::new(partial.reader()?));
                self.arrived = offset;
            }
            Some(partial) if offset == 0 && partial.size() > 0 => partial.clear()?,
            _ if offset > 0 => return Err(wrong()),
            _ => {}
        }
        Ok(())
    }

    fn complete(&mut self, partial: Partial) {
        if let Some(partials) = self.link.partials.get() {
            self.whole = partials.complete(self.blob.digest, partial);
        }
    }

    /// Keeps a part in the file; a full disk is no reason to keep the content from where it goes.
    fn keep(&mut self, bytes: &[u8]) {
        if let Some(mut partial) = self.partial.take() {
            match partial.append(bytes) {
                Ok(()) => self.partial = Some(partial),
                Err(_) => partial.remove(),
            }
        }
    }

    /// Waits for the next part, and judges the whole after the last.
    fn next_part(&mut self) -> io::Result<()> {
        let digest = self.blob.digest;
        let answer = self.link.answer(|message| match message {
            ToAgent::Blob { digest: of, .. } | ToAgent::NoBlob { digest: of, .. } => *of == digest,
            _ => false,
        });
        let (bytes, deflated, last) = match answer {
            Ok(ToAgent::Blob { bytes, deflated, last, offset, .. }) => {
                self.over = last;
                if self.arrived == 0 {
                    self.begin(offset)?;
                }
                (bytes, deflated, last)
            }
            Ok(ToAgent::NoBlob { message, .. }) => {
                self.over = true;
                return Err(io::Error::other(message));
            }
            Ok(_) | Err(_) => {
                self.over = true;
                return Err(io::Error::other("the connection to the controller is gone"));
            }
        };
        let bytes = if deflated { inflate(&bytes)? } else { bytes };
        self.hasher.update(&bytes);
        self.arrived += bytes.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&bytes);
        }
        let too_long = self.arrived > self.blob.size;
        if too_long || last && Digest(std::mem::take(&mut self.hasher).finalize().into()) != digest {
            self.kept = None;
            if let Some(partial) = self.partial.take() {
                partial.remove();
            }
            return Err(wrong());
        }
        self.keep(&bytes);
        if last && let Some(partial) = self.partial.take() {
            self.complete(partial);
        }
        if last && let Some(kept) = self.kept.take() {
            self.link.contents.borrow_mut().put(digest, kept);
        }
        self.part = Cursor::new(bytes);
        Ok(())
    }
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(again) = &mut self.again {
                match again.read(buffer)? {
                    0 if !buffer.is_empty() => self.again = None,
                    count => return Ok(count),
                }
            }
            let count = self.part.read(buffer)?;
            if count > 0 || self.over || buffer.is_empty() {
                return Ok(count);
            }
            self.next_part()?;
        }
    }
}

impl Drop for Arriving<'_> {
    /// Lets the rest pass, so that it is not taken for the beginning of a later answer.
    fn drop(&mut self) {
        self.kept = None;
        while !self.over && !self.link.stop().is_ended() {
            let _ = self.next_part();
        }
    }
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the controller sent other content than the task named")
}

fn inflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut inflated = Vec::new();
    flate2::read::DeflateDecoder::new(bytes).take(PART + 1).read_to_end(&mut inflated)?;
    if inflated.len() as u64 > PART {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a part of a content is larger than the protocol allows"));
    }
    Ok(inflated)
}

/// The controller, as a task's changes see it while they are performed.
pub(super) struct ForTask<'a> {
    pub(super) link: &'a Link,
    pub(super) task: u32,
}

impl Upstream for ForTask<'_> {
    fn blob(&mut self, blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        Ok(self.link.blob(blob))
    }

    fn supply(&mut self, blob: &Blob) -> Result<Supplied<'_>, ModuleError> {
        Ok(self.link.supply(blob))
    }

    fn sign(&mut self, request: &[u8]) -> Result<String, ModuleError> {
        let task = self.task;
        self.link.send(&ToController::Sign { task, request: request.to_vec() });
        match self.link.answer(|message| matches!(message, ToAgent::Signed { task: of, .. } if *of == task))? {
            ToAgent::Signed { certificate, .. } => {
                certificate.map_err(|why| ModuleError::host(format!("the controller does not sign: {why}")))
            }
            _ => Err(ModuleError::host("the controller gave no answer")),
        }
    }

    fn deliver(&mut self, content: &mut dyn Read) -> Result<(), ModuleError> {
        let failed =
            |error: io::Error| ModuleError::host(format!("cannot read the file to be fetched: {}", crate::api::error::plain(&error)));
        loop {
            let mut bytes = Vec::with_capacity(SENT);
            content.take(SENT as u64).read_to_end(&mut bytes).map_err(failed)?;
            let last = bytes.len() < SENT;
            self.link.send(&ToController::Fetched { task: self.task, bytes, last });
            if last {
                return Ok(());
            }
            if self.link.stop().is_ended() {
                return Err(ModuleError::host("the connection to the controller is gone"));
            }
        }
    }
}

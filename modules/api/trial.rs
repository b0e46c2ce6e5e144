//! One task tried out on a host in memory, from its arguments to the proof: what tables of cases are made of.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value;

use super::error::ModuleError;
use super::fake::{Desk, Fake, apply};
use super::module::{Module, Proposal, entry};
use super::perform::Upstream;
use super::types::{Blob, Digest};

/// What a task came to.
pub struct Trial {
    /// The host afterwards.
    pub host: Fake,
    /// What was done to it, one line a change.
    pub log: Vec<String>,
    /// What the check said.
    pub proposal: Proposal,
}

/// Reads, prepares and sends a task's arguments, has it checked and performed, and, unless it is a repeating one, asks again.
///
/// # Panics
/// When the second check proposes anything.
pub fn trial<M: Module>(arguments: Value, desk: &Desk, host: Fake) -> Result<Trial, ModuleError> {
    let entry = entry::<M>();
    let mut prepared = (entry.parse)(arguments)?;
    prepared.prepare(desk)?;
    let sent: Value = serde_json::from_str(&prepared.to_json()?).map_err(|error| ModuleError::argument(error.to_string()))?;
    let module = (entry.parse)(sent)?;
    let mut host = host;
    host.take_blobs(desk);
    let before = host.log().len();
    let proposal = apply(&*module, &mut host)?;
    let log = host.log()[before..].to_vec();
    if !proposal.repeating {
        assert_eq!(module.check(&host)?.changes, [], "asked again after {log:?}");
    }
    Ok(Trial { host, log, proposal })
}

/// Returns the error that a task ends with, as `argument: message (hint)`; empty when it succeeds.
pub fn error_of<M: Module>(arguments: Value, desk: &Desk, host: Fake) -> String {
    let Err(error) = trial::<M>(arguments, desk, host) else { return String::new() };
    let argument = error.argument.map_or_else(String::new, |argument| format!("{argument}: "));
    let hint = error.hint.map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("{argument}{}{hint}", error.message)
}

/// Serves the contents that a controller in memory has registered while tasks were prepared.
pub struct Served(pub BTreeMap<Digest, Vec<u8>>);

impl Upstream for Served {
    fn blob(&mut self, blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        let bytes =
            self.0.get(&blob.digest).ok_or_else(|| ModuleError::host(format!("no content has the digest {}", blob.digest.hex())))?;
        Ok(Box::new(bytes.as_slice()))
    }

    fn sign(&mut self, _: &[u8]) -> Result<String, ModuleError> {
        Err(ModuleError::host("nobody signs"))
    }

    fn deliver(&mut self, content: &mut dyn Read) -> Result<(), ModuleError> {
        std::io::copy(content, &mut std::io::sink()).map(|_| ()).map_err(|error| ModuleError::host(error.to_string()))
    }
}

//! The agent binaries that can be sent to hosts, one for each architecture.
#![expect(clippy::disallowed_methods, reason = "agents are programs that lie on disk")]

mod digests;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use kplay_modules::api::Digest;

use crate::diagnostic::{Diagnostic, Result};

/// What `uname -m` says, and the target that the agent for it is built for.
const ARCHITECTURES: &[(&str, &str)] = &[("x86_64", "x86_64-unknown-linux-musl"), ("aarch64", "aarch64-unknown-linux-musl")];

/// Finds and holds agent binaries. Shared by all connecting threads.
#[derive(Debug)]
pub struct Agents {
    /// The folder that was named.
    named: Option<PathBuf>,
    /// Where to look besides.
    folders: Vec<PathBuf>,
    /// The file with digests of earlier runs.
    remembered: Option<PathBuf>,
    /// What has been found, by `uname -m`.
    loaded: Mutex<HashMap<&'static str, Option<Arc<Agent>>>>,
}

/// One agent binary.
#[derive(Debug)]
pub(super) struct Agent {
    /// SHA-256, which names it in the cache folder of a host.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    path: PathBuf,
    /// Read for the first host that needs it: most have it already.
    bytes: OnceLock<Vec<u8>>,
    /// Packed for the first host that asks for it so.
    zstd: OnceLock<Vec<u8>>,
    gzip: OnceLock<Vec<u8>>,
}

/// How the agent travels: whatever the host can unpack in the least time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Takes a host 16 ms of processor to unpack.
    Zstd,
    /// Takes a host 40 ms.
    Gzip,
    /// Twice the bytes.
    Plain,
}

impl Packing {
    /// Returns the packing by its name in the script.
    pub(super) fn named(name: &str) -> Option<Self> {
        [("zstd", Self::Zstd), ("gzip", Self::Gzip), ("plain", Self::Plain)].into_iter().find(|(known, _)| *known == name).map(|(_, it)| it)
    }
}

/// Beyond this a level of zstd takes longer than the bytes it saves, even on the first host of a run.
const ZSTD_LEVEL: i32 = 6;

impl Agents {
    /// Looks for agents in `folder` (`--agent-dir`), beside the running program, and where Cargo puts them. That none is
    /// found is no error before a host needs one; that `folder` is no folder is.
    pub fn locate(folder: Option<&Path>) -> Result<Self> {
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Diagnostic::user(format!("the agent folder `{}` is not a folder", folder.display())));
        }
        // A program that Cargo built lies in `target/debug`, its tests in `target/debug/deps`.
        let program = std::env::current_exe().ok();
        let folders = program.iter().flat_map(|path| path.ancestors().skip(1).take(4)).map(Path::to_owned).collect();
        Ok(Self { named: folder.map(Path::to_owned), folders, remembered: None, loaded: Mutex::new(HashMap::new()) })
    }

    /// Remembers digests in this file, so that a run need not read programs that hosts have already.
    pub fn remembering_in(self, file: PathBuf) -> Self {
        Self { remembered: Some(file), ..self }
    }

    /// Returns the first agent of the named folder, else the newest of all others: a build folder may still hold older ones.
    fn find(&self, candidates: impl Fn(&Path) -> Vec<PathBuf>) -> Option<PathBuf> {
        let named = self.named.iter().flat_map(|folder| candidates(folder)).find(|path| path.is_file());
        let age = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
        named.or_else(|| self.folders.iter().flat_map(|folder| candidates(folder)).filter(|path| path.is_file()).max_by_key(age))
    }

    /// Returns the agent for hosts whose `uname -m` says `machine`.
    pub(super) fn for_machine(&self, machine: &str) -> Result<Option<Arc<Agent>>> {
        let Some((machine, triple)) = ARCHITECTURES.iter().find(|(known, _)| *known == machine) else { return Ok(None) };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = loaded.get(machine) {
            return Ok(agent.clone());
        }
        let agent = match self.find(|folder| binaries(folder, triple)) {
            Some(path) => Some(Arc::new(Agent::find(path, self.remembered.as_deref())?)),
            None => None,
        };
        loaded.insert(machine, agent.clone());
        Ok(agent)
    }

    /// Returns all agents there are, with what `uname -m` says where they run.
    pub(super) fn all(&self) -> Result<Vec<(&'static str, Arc<Agent>)>> {
        let mut found = Vec::new();
        for (machine, _) in ARCHITECTURES {
            found.extend(self.for_machine(machine)?.map(|agent| (*machine, agent)));
        }
        Ok(found)
    }

    /// Returns the agent that a host asks for by its SHA-256.
    pub(super) fn by_digest(&self, hex: &str) -> Result<Option<Arc<Agent>>> {
        Ok(self.all()?.into_iter().map(|(_, agent)| agent).find(|agent| agent.digest.hex() == hex))
    }

    /// Returns the program to start for a host that is this machine.
    pub(super) fn program(&self) -> Result<PathBuf> {
        let triple = ARCHITECTURES.iter().find(|(machine, _)| *machine == std::env::consts::ARCH).map(|(_, triple)| *triple);
        let candidates = |folder: &Path| {
            let built = triple.into_iter().flat_map(|triple| binaries(folder, triple));
            std::iter::once(folder.join("kplay-agent")).chain(built).collect()
        };
        self.find(candidates).ok_or_else(|| self.missing(std::env::consts::ARCH))
    }

    /// Says that there is no agent for `machine`, and how to get one.
    pub(super) fn missing(&self, machine: &str) -> Box<Diagnostic> {
        let error = Diagnostic::unreachable(format!("there is no agent for hosts with `{machine}` processors"));
        match ARCHITECTURES.iter().find(|(known, _)| *known == machine) {
            Some((_, triple)) => error
                .details(
                    self.named
                        .iter()
                        .chain(&self.folders)
                        .next()
                        .map(|folder| format!("looked for `kplay-agent-{triple}` in `{}`", folder.display())),
                )
                .hint(format!("build it: `cargo build --profile agent -p kplay-modules --bin kplay-agent --target {triple}`"))
                .hint(format!("then put it beside `kplay` as `kplay-agent-{triple}`, or name its folder with `--agent-dir`")),
            None => {
                let known: Vec<String> = ARCHITECTURES.iter().map(|(machine, _)| format!("`{machine}`")).collect();
                error.hint(format!("kplay has agents for {}", known.join(" and ")))
            }
        }
    }
}

impl Agent {
    fn find(path: PathBuf, remembered: Option<&Path>) -> Result<Self> {
        let (digest, size) = digests::of(&path, remembered).map_err(|error| unreadable(&path, &error))?;
        Ok(Self { digest, size, path, bytes: OnceLock::new(), zstd: OnceLock::new(), gzip: OnceLock::new() })
    }

    /// Returns the binary as it is.
    fn plain(&self) -> Result<&[u8]> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(bytes);
        }
        let bytes = std::fs::read(&self.path).map_err(|error| unreadable(&self.path, &error))?;
        if Digest::of(&bytes) != self.digest {
            return Err(Diagnostic::user(format!("the agent `{}` has been replaced while kplay runs", self.path.display()))
                .hint("run again, once it is built"));
        }
        Ok(self.bytes.get_or_init(|| bytes))
    }

    /// Returns the binary packed, with a checksum of what it holds; done once, for the first host that needs it so.
    pub fn packed(&self, packing: Packing) -> Result<&[u8]> {
        let bytes = self.plain()?;
        // Writing to memory cannot fail; should it, the host that unpacks nothing says so.
        Ok(match packing {
            Packing::Zstd => self.zstd.get_or_init(|| zstd(bytes).unwrap_or_default()),
            Packing::Gzip => self.gzip.get_or_init(|| gzip(bytes).unwrap_or_default()),
            Packing::Plain => bytes,
        })
    }
}

fn zstd(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Box<Diagnostic> {
    Diagnostic::user(format!("cannot read the agent `{}`: {error}", path.display()))
}

/// Where the agent for `triple` may lie below `folder`: as installed, and as Cargo leaves it there.
fn binaries(folder: &Path, triple: &str) -> Vec<PathBuf> {
    let installed = folder.join(format!("kplay-agent-{triple}"));
    let built = ["agent", "release", "debug"].map(|profile| folder.join(triple).join(profile).join("kplay-agent"));
    std::iter::once(installed).chain(built).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_by_its_name_and_compressed_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kplay-agent-aarch64-unknown-linux-musl"), b"binary".repeat(1000)).unwrap();
        let agents = Agents::locate(Some(folder.path())).unwrap();
        let agent = agents.for_machine("aarch64").unwrap().unwrap();
        assert_eq!(agent.digest, Digest::of(&b"binary".repeat(1000)));
        for packing in [Packing::Zstd, Packing::Gzip] {
            assert!(agent.packed(packing).unwrap().len() < 200);
            assert!(std::ptr::eq(agent.packed(packing).unwrap(), agent.packed(packing).unwrap()));
        }
    }

    #[test]
    fn an_agent_that_is_replaced_meanwhile_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kplay-agent-x86_64-unknown-linux-musl");
        std::fs::write(&path, "first").unwrap();
        let agents = Agents::locate(Some(folder.path())).unwrap();
        let agent = agents.for_machine("x86_64").unwrap().unwrap();
        std::fs::write(&path, "other").unwrap();
        let error = agent.packed(Packing::Zstd).unwrap_err();
        assert!(error.message.ends_with("has been replaced while kplay runs"), "{error:?}");
    }

    #[test]
    fn a_missing_agent_says_how_to_build_it() {
        let folder = tempfile::tempdir().unwrap();
        let agents = Agents { named: Some(folder.path().to_owned()), folders: Vec::new(), remembered: None, loaded: Mutex::default() };
        assert!(agents.for_machine("x86_64").unwrap().is_none());
        let error = agents.missing("aarch64");
        assert_eq!(error.message, "there is no agent for hosts with `aarch64` processors");
        assert!(error.hints[0].ends_with("--target aarch64-unknown-linux-musl`"), "{:?}", error.hints);
        assert!(agents.missing("riscv64").hints[0].contains("`x86_64` and `aarch64`"));
    }

    #[test]
    fn an_agent_folder_has_to_exist() {
        let error = Agents::locate(Some(Path::new("/nonexistent/agents"))).unwrap_err();
        assert_eq!(error.message, "the agent folder `/nonexistent/agents` is not a folder");
    }
}

//! What an archive holds, read once per archive whatever the number of hosts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};

use crate::api::archive::{member_path, open, unreadable};
use crate::api::change::MemberKind;
use crate::api::glob::Globs;
use crate::api::{Checksum, Controller, Digest, ModuleError, place};

/// All members of an archive, in its order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    members: Vec<Wish>,
    /// Hexadecimal SHA-512 of the archive.
    pub(super) sha512: String,
}

/// An entry that shall be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    /// Relative to the folder that is unpacked into.
    pub(super) path: PathBuf,
    pub(super) kind: MemberKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether the archive does not list it: a folder that others lie in, of which nothing else is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) implied: bool,
}

/// What is to be made of an archive.
#[derive(Debug)]
pub(super) struct Selected {
    /// What shall be there, parents first.
    pub(super) wishes: Vec<Wish>,
    /// What shall not be there.
    pub(super) absent: Vec<PathBuf>,
}

/// Reads what an archive has to be.
pub(super) fn parse_checksum(text: &str) -> Result<Checksum, ModuleError> {
    Checksum::parse(text).ok_or_else(|| {
        ModuleError::argument(format!("`{text}` is neither a SHA-256 nor a SHA-512"))
            .at("checksum")
            .hint("write the 64 or 128 hexadecimal digits that `sha256sum` or `sha512sum` print, or \"sha512:…\"")
    })
}

/// Refuses an archive that is another.
pub(super) fn verify(expected: &Checksum, name: &str, sha256: Digest, sha512: &str) -> Result<(), ModuleError> {
    let found = match expected {
        Checksum::Sha256(_) => Checksum::Sha256(sha256),
        Checksum::Sha512(_) => Checksum::Sha512(sha512.to_owned()),
    };
    if *expected == found {
        return Ok(());
    }
    Err(ModuleError::argument(format!("`{name}` is not the archive that was meant: it has the {found}, not {}", expected.hex()))
        .at("checksum")
        .hint("get the file again, or correct `checksum`"))
}

/// Version of what is remembered of an archive from run to run.
const VERSION: u32 = 1;

/// The manifests that have been made in this process; each is made by whoever asks first, while others wait.
static KNOWN: Mutex<BTreeMap<Digest, Slot>> = Mutex::new(BTreeMap::new());

type Slot = Arc<Mutex<Option<Arc<Manifest>>>>;

/// Returns what the archive at `path`, which has this digest, holds.
pub(super) fn of(controller: &dyn Controller, path: &Path, name: &str, digest: Digest) -> Result<Arc<Manifest>, ModuleError> {
    let slot = Arc::clone(KNOWN.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default());
    let mut manifest = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*manifest {
        return Ok(Arc::clone(known));
    }
    // Reading a large archive takes seconds, and a run with nothing to do should take less.
    let key = format!("manifest-{VERSION}-{}", digest.hex());
    let remembered = controller.remembered(&key).and_then(|text| serde_json::from_slice(&text).ok());
    let made = Arc::new(match remembered {
        Some(manifest) => manifest,
        None => {
            let manifest = Manifest::read(name, controller.open(path)?)?;
            if let Ok(text) = serde_json::to_vec(&manifest) {
                controller.remember(&key, &text);
            }
            manifest
        }
    });
    *manifest = Some(Arc::clone(&made));
    Ok(made)
}

impl Manifest {
    /// Reads an archive to its end.
    pub(super) fn read(name: &str, reader: Box<dyn Read>) -> Result<Self, ModuleError> {
        let hasher = RefCell::new(Sha512::new());
        let failed = |error: std::io::Error| unreadable(name, &error);
        let mut archive = open(name, Box::new(Hashed { reader, hasher: &hasher }))?;
        let mut members: Vec<Wish> = Vec::new();
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            let shown = entry.path().map_err(failed)?.into_owned();
            if is_sparse(&mut entry).map_err(failed)? {
                let error =
                    format!("`{name}` has a member `{}` that leaves out its holes as POSIX archives of GNU tar do", shown.display());
                return Err(ModuleError::argument(error).hint("build it without `--sparse`, or with `--format=gnu`"));
            }
            let number = |found: std::io::Result<u64>| found.ok().and_then(|number| u32::try_from(number).ok());
            let header = entry.header();
            let (mode, uid, gid) = (header.mode().map_err(failed)? & 0o7777, number(header.uid()), number(header.gid()));
            let link = entry.link_name().map_err(failed)?.map(std::borrow::Cow::into_owned);
            let is_folder = entry.path_bytes().ends_with(b"/");
            let kind = match (entry.header().entry_type(), link) {
                (tar::EntryType::XGlobalHeader, _) => continue,
                (tar::EntryType::Directory, _) => MemberKind::Directory,
                // Before there was a type for it, a folder was a file whose name ends with a slash.
                (tar::EntryType::Regular, _) if is_folder => MemberKind::Directory,
                (tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse, _) => {
                    let (digest, size) = Digest::of_reader(&mut entry).map_err(failed)?;
                    MemberKind::File(digest, size)
                }
                (tar::EntryType::Symlink, Some(target)) => MemberKind::Symlink(target),
                (tar::EntryType::Link, Some(target)) => hard_link(name, &members, &shown, &target)?,
                (other, _) => {
                    let error = ModuleError::argument(format!("`{name}` has a member `{}` that is {}", shown.display(), word(other)));
                    return Err(error.hint("kplay unpacks files, directories and links; build the archive without it"));
                }
            };
            let Some(path) = member_path(&shown, 0)? else { continue };
            if path.to_str().is_none() {
                return Err(ModuleError::argument(format!("`{name}` has a member `{}` whose name is not UTF-8", shown.display())));
            }
            members.push(Wish { path, kind, mode, uid: uid.unwrap_or(0), gid: gid.unwrap_or(0), implied: false });
        }
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(failed)?;
        let sha512 = hasher.into_inner().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { members, sha512 })
    }

    /// Returns what is to be made of the archive.
    pub(super) fn select(&self, name: &str, strip: u32, include: &[String], exclude: &[String]) -> Result<Selected, ModuleError> {
        let (included, excluded) = (Globs::parse(include, "include")?, Globs::parse(exclude, "exclude")?);
        let names: Vec<&Path> = self.members.iter().map(|member| member.path.as_path()).collect();
        if let Some(pattern) = included.unused(&names) {
            return Err(ModuleError::argument(format!("`{pattern}` in `include` matches no member of `{name}`"))
                .at("include")
                .hint("`tar -tf FILE` lists the members"));
        }
        let (mut wishes, mut absent) = (BTreeMap::new(), BTreeSet::new());
        for member in &self.members {
            let Some(path) = member_path(&member.path, strip)? else { continue };
            if excluded.matches(&member.path) {
                absent.insert(path);
            } else if included.is_empty() || included.matches(&member.path) {
                // The last of several members with one name is the one that stays.
                wishes.insert(path.clone(), Wish { path, ..member.clone() });
            }
        }
        if wishes.is_empty() {
            return Err(ModuleError::argument(format!("nothing of `{name}` is left to unpack"))
                .at(if strip > 0 { "strip" } else { "exclude" })
                .hint("`tar -tf FILE` lists the members"));
        }
        add_implied(name, &mut wishes)?;
        absent.retain(|path| !wishes.contains_key(path));
        Ok(Selected { wishes: wishes.into_values().collect(), absent: absent.into_iter().collect() })
    }
}

/// Adds the folders that members lie in but that the archive does not list.
fn add_implied(name: &str, wishes: &mut BTreeMap<PathBuf, Wish>) -> Result<(), ModuleError> {
    let listed: Vec<PathBuf> = wishes.keys().cloned().collect();
    for path in listed {
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            let implied = || Wish {
                path: folder.to_owned(),
                kind: MemberKind::Directory,
                mode: place::DIRECTORY_MODE,
                uid: 0,
                gid: 0,
                implied: true,
            };
            let found = wishes.entry(folder.to_owned()).or_insert_with(implied);
            if found.kind != MemberKind::Directory {
                let message = format!("`{name}` has a member `{}` below `{}`, which is no directory", path.display(), folder.display());
                return Err(ModuleError::argument(message).hint("do not unpack this archive"));
            }
        }
    }
    Ok(())
}

/// Returns whether GNU tar has left the holes out of a member, in the way of a POSIX archive: what is there are its other parts.
fn is_sparse(entry: &mut tar::Entry<'_, impl Read>) -> std::io::Result<bool> {
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        if extension?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns what a hard link stands for: another member that came before it.
fn hard_link(name: &str, members: &[Wish], shown: &Path, target: &Path) -> Result<MemberKind, ModuleError> {
    let target_path = member_path(target, 0)?.unwrap_or_default();
    match members.iter().rfind(|member| member.path == target_path) {
        Some(member) if member.kind != MemberKind::Directory => Ok(member.kind.clone()),
        _ => Err(ModuleError::argument(format!(
            "`{name}` has a hard link `{}` to `{}`, which is no earlier file of it",
            shown.display(),
            target.display()
        ))),
    }
}

fn word(kind: tar::EntryType) -> &'static str {
    match kind {
        tar::EntryType::Char | tar::EntryType::Block => "a device",
        tar::EntryType::Fifo => "a pipe",
        _ => "of a kind unknown to it",
    }
}

/// Passes an archive on and takes its digest on the way.
struct Hashed<'a> {
    reader: Box<dyn Read>,
    hasher: &'a RefCell<Sha512>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.borrow_mut().update(&buffer[..count]);
        Ok(count)
    }
}

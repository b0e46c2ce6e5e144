//! Unpacking: the archive is read once as a stream; what is wanted of it is verified aside and then put in place together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Machine;
use super::staged::{self, Staged};
use crate::api::archive;
use crate::api::change::{Member, MemberKind, Unpack};
use crate::api::error::ModuleError;
use crate::api::perform::Upstream;
use crate::api::types::{Attributes, Digest, EntryKind, Owner};

/// A folder beside the target for files that are not complete yet; goes away with what is still in it.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The files that are still to be found in the archive, by path.
type Wanted<'a> = BTreeMap<&'a Path, (&'a Member, Digest, u64)>;

impl Machine {
    pub(super) fn unpack(&self, unpack: &Unpack, upstream: &mut dyn Upstream) -> Result<(), ModuleError> {
        let mut safe = BTreeSet::new();
        for member in &unpack.members {
            self.refuse_links_above(unpack, &member.path, &mut safe)?;
        }
        let wanted: Wanted<'_> = unpack
            .members
            .iter()
            .filter_map(|member| match member.kind {
                MemberKind::File(digest, size) => Some((member.path.as_path(), (member, digest, size))),
                MemberKind::Directory | MemberKind::Symlink(_) => None,
            })
            .collect();
        let aside = if wanted.is_empty() { None } else { Some(self.collect(unpack, wanted, upstream)?) };
        self.put_members(unpack, aside)
    }

    /// Reads the archive and puts the wanted files aside, under their final owners and modes.
    fn collect(
        &self,
        unpack: &Unpack,
        mut wanted: Wanted<'_>,
        upstream: &mut dyn Upstream,
    ) -> Result<(Aside, Vec<(PathBuf, PathBuf)>), ModuleError> {
        let dest = self.place(&unpack.dest, true)?;
        let (aside, _) = staged::unique(&dest.join("unpacked"), |name| {
            std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(name)?;
            Ok(Aside(name.to_owned()))
        })
        .map_err(|error| ModuleError::io("unpack into", &unpack.dest, &error))?;
        let mut found = Vec::new();
        let mut archive = archive::open(&unpack.name, upstream.blob(&unpack.archive)?)?;
        let failed = |error: std::io::Error| archive::unreadable(&unpack.name, &error);
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            if !matches!(entry.header().entry_type(), tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse) {
                continue;
            }
            let name = entry.path().map_err(failed)?.into_owned();
            // Content is found by what it is: a hard link's target may itself not be wanted.
            let size = entry.size();
            if !wanted.values().any(|(_, _, expected)| *expected == size) {
                continue;
            }
            let place = aside.0.join(found.len().to_string());
            let mut staged = Staged::beside(&place).map_err(|error| ModuleError::io("unpack into", &unpack.dest, &error))?;
            let (digest, _) = staged.fill(&mut entry).map_err(|error| self.cannot_fill(unpack, &name, &error))?;
            let matching: Vec<&Path> = wanted.iter().filter(|(_, (_, expected, _))| *expected == digest).map(|(path, _)| *path).collect();
            let Some((first, copies)) = matching.split_first() else { continue };
            staged.put().map_err(|error| ModuleError::io("unpack into", &unpack.dest, &error))?;
            found.push((place.clone(), first.to_path_buf()));
            for path in copies {
                let copy = aside.0.join(found.len().to_string());
                std::fs::copy(&place, &copy).map_err(|error| ModuleError::io("unpack into", &unpack.dest, &error))?;
                found.push((copy, path.to_path_buf()));
            }
            for (place, path) in found.iter().rev().take(matching.len()) {
                if let Some((member, _, _)) = wanted.remove(path.as_path()) {
                    self.dress(&unpack.dest.join(path), place, &member.attributes)?;
                }
            }
        }
        if let Some(path) = wanted.keys().next() {
            return Err(ModuleError::host(format!(
                "the archive `{}` does not hold `{}` as its manifest says",
                unpack.name,
                path.display()
            ))
            .hint("the archive was changed while the run was under way; run again"));
        }
        // Whoever sends the archive waits for it to be read to its end.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(failed)?;
        Ok((aside, found))
    }

    fn put_members(&self, unpack: &Unpack, aside: Option<(Aside, Vec<(PathBuf, PathBuf)>)>) -> Result<(), ModuleError> {
        let directories = || unpack.members.iter().filter(|member| member.kind == MemberKind::Directory);
        for member in directories() {
            // Owner and all, but open for its owner until its content is there.
            let open = Attributes { mode: member.attributes.mode | 0o700, ..member.attributes.clone() };
            self.make_parents(unpack, &member.path)?;
            self.make_directory(&unpack.dest.join(&member.path), &open)?;
        }
        if let Some((aside, found)) = aside {
            for (place, path) in found {
                self.make_parents(unpack, &path)?;
                let path = unpack.dest.join(path);
                let target = self.place(&path, false)?;
                std::fs::rename(&place, &target).map_err(|error| ModuleError::io("write", &path, &error))?;
                self.unsynced.borrow_mut().push(target);
            }
            drop(aside);
        }
        for member in &unpack.members {
            let path = unpack.dest.join(&member.path);
            match &member.kind {
                MemberKind::Symlink(target) => {
                    self.make_parents(unpack, &member.path)?;
                    self.make_link(&path, target)?;
                    if self.numbers(&member.attributes)? != self.numbers(&self.own_attributes())? {
                        self.set_attributes(&path, &member.attributes)?;
                    }
                }
                MemberKind::File(..) => {
                    self.assume_owners(&self.place(&path, false)?, self.numbers(&member.attributes)?)?;
                }
                MemberKind::Directory => {}
            }
        }
        let mut deepest_first: Vec<&Member> = directories().collect();
        deepest_first.sort_by(|a, b| b.path.cmp(&a.path));
        deepest_first.into_iter().try_for_each(|member| self.set_attributes(&unpack.dest.join(&member.path), &member.attributes))
    }

    /// Archives may leave out the folders that their members lie in.
    fn make_parents(&self, unpack: &Unpack, member: &Path) -> Result<(), ModuleError> {
        let mut missing = Vec::new();
        for parent in member.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            let path = unpack.dest.join(parent);
            if self.look(&path, false)?.is_some() {
                break;
            }
            missing.push(path);
        }
        missing.iter().rev().try_for_each(|path| self.make_directory(path, &Attributes { mode: 0o755, ..self.own_attributes() }))
    }

    /// A link that an archive or somebody else put there must not lead what is unpacked elsewhere.
    fn refuse_links_above(&self, unpack: &Unpack, member: &Path, safe: &mut BTreeSet<PathBuf>) -> Result<(), ModuleError> {
        if archive::member_path(member, 0)?.as_deref() != Some(member) {
            return Err(ModuleError::host(format!("`{}` is not a path below `{}`", member.display(), unpack.dest.display())));
        }
        for parent in member.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            let path = unpack.dest.join(parent);
            if safe.contains(&path) {
                continue;
            }
            let becomes_link = unpack.members.iter().any(|other| other.path == parent && matches!(other.kind, MemberKind::Symlink(_)));
            let is_link = matches!(self.look(&path, false)?.map(|entry| entry.kind), Some(EntryKind::Symlink(_)));
            if is_link || becomes_link {
                return Err(ModuleError::host(format!("cannot unpack `{}`: `{}` is a link", member.display(), path.display()))
                    .hint("what is unpacked never goes through a link; remove it, or unpack into the folder it leads to"));
            }
            safe.insert(path);
        }
        Ok(())
    }

    fn own_attributes(&self) -> Attributes {
        let (owner, group) = match self.root {
            Some(_) => (0, 0),
            None => (self.me.as_raw(), rustix::process::getegid().as_raw()),
        };
        Attributes { mode: 0o755, owner: Owner::Id(owner), group: Owner::Id(group) }
    }

    fn cannot_fill(&self, unpack: &Unpack, name: &Path, error: &std::io::Error) -> ModuleError {
        match error.raw_os_error() {
            Some(_) => ModuleError::io("unpack into", &unpack.dest, error),
            None => archive::unreadable(&format!("{}: {}", unpack.name, name.display()), error),
        }
    }
}

#[cfg(test)]
mod tests;

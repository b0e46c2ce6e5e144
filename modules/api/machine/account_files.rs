//! The account files themselves, edited in place of the system's tools: below a root, and on systems without such tools.

use std::path::{Path, PathBuf};

use super::Machine;
use crate::api::change::{GroupSpec, UserSpec};
use crate::api::error::ModuleError;
use crate::api::inspect::{UserEntry, goes_along};
use crate::api::types::{Attributes, Digest, Owner};

/// First and last numbers that are given away, for people and for the system, as Debian has them.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59_999;
const SYSTEM: std::ops::RangeInclusive<u32> = 100..=999;

impl Machine {
    pub(super) fn edit_user(
        &self,
        name: &str,
        _before: Option<&UserSpec>,
        after: Option<&UserSpec>,
        remove_home: bool,
    ) -> Result<(), ModuleError> {
        let now = self.find_user(name)?;
        let Some(spec) = after else {
            let Some(user) = now else { return Ok(()) };
            // The group that was made with the user goes with it.
            let with_group = goes_along(self, &user)?;
            self.drop_line("passwd", name)?;
            self.drop_line("shadow", name)?;
            self.set_members(name, &[])?;
            if with_group {
                self.edit_group(name, None)?;
            }
            return if remove_home && user.home.components().count() > 1 { self.remove(&user.home) } else { Ok(()) };
        };
        let groups = spec.groups.as_deref();
        for group in groups.unwrap_or_default() {
            self.group_number(group)?;
        }
        let group = match (&spec.group, &now) {
            (Some(group), _) => self.group_number(group)?,
            (None, Some(user)) => known(&user.group),
            (None, None) => {
                if self.find_group(name)?.is_none() {
                    self.edit_group(
                        name,
                        Some(&GroupSpec { gid: spec.uid.filter(|uid| self.is_free("group", *uid)), system: spec.system }),
                    )?;
                }
                self.group_number(name)?
            }
        };
        let old = now.as_ref();
        let uid = match (spec.uid, old) {
            (Some(uid), _) => uid,
            (None, Some(user)) => known(&user.id),
            (None, None) => self.free_number("passwd", spec.system)?,
        };
        let text = |wish: Option<&String>, old: Option<&String>, default: &str| {
            wish.or(old).map_or_else(|| default.to_owned(), Clone::clone).replace([':', '\n'], " ")
        };
        let home = spec.home.clone().or_else(|| old.map(|user| user.home.clone()));
        let home = home.unwrap_or_else(|| if spec.system { "/nonexistent".into() } else { Path::new("/home").join(name) });
        let shell = text(spec.shell.as_ref(), old.map(|user| &user.shell), if spec.system { "/usr/sbin/nologin" } else { "/bin/sh" });
        let comment = text(spec.comment.as_ref(), old.map(|user| &user.comment), "");
        self.put_line("passwd", name, &format!("{name}:x:{uid}:{group}:{comment}:{}:{shell}", home.display()))?;
        if now.is_none() || spec.password_hash.is_some() || spec.aging.is_some() {
            let today = super::now() / 86_400;
            let (old_hash, old_aging) = self.shadow(name).unwrap_or_else(|| ("!".to_owned(), format!("{today}:0:99999:7:::")));
            let hash = spec.password_hash.as_ref().unwrap_or(&old_hash);
            // Like the system's tools: a new password is one of today, and ages as the old one did.
            let aged = || old_aging.split_once(':').map_or_else(|| format!("{today}::::::"), |(_, rest)| format!("{today}:{rest}"));
            let aging = spec.aging.clone().unwrap_or_else(|| if *hash == old_hash { old_aging.clone() } else { aged() });
            self.put_line("shadow", name, &format!("{name}:{hash}:{aging}"))?;
        }
        if let Some(groups) = groups {
            self.set_members(name, groups)?;
        }
        match self.find_user(name)? {
            Some(user) if spec.create_home => self.make_home(&user, spec),
            _ => Ok(()),
        }
    }

    pub(super) fn edit_group(&self, name: &str, after: Option<&GroupSpec>) -> Result<(), ModuleError> {
        let now = self.find_group(name)?;
        match (after, now) {
            (None, None) => Ok(()),
            (None, Some(_)) => {
                self.drop_line("group", name)?;
                self.drop_line("gshadow", name)
            }
            (Some(spec), now) => {
                let gid = match (spec.gid, &now) {
                    (Some(gid), _) => gid,
                    (None, Some(group)) => known(&group.id),
                    (None, None) => self.free_number("group", spec.system)?,
                };
                let members = now.as_ref().map(|group| group.members.join(",")).unwrap_or_default();
                self.put_line("group", name, &format!("{name}:x:{gid}:{members}"))?;
                // Those whose primary group it is stay in it.
                match now.map(|group| known(&group.id)) {
                    Some(old) if old != gid => self.edit("passwd", |text| text.lines().map(|line| with_group(line, old, gid)).collect()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Makes a user's home directory, if it is missing.
    pub(super) fn make_home(&self, user: &UserEntry, _spec: &UserSpec) -> Result<(), ModuleError> {
        if self.look(&user.home, true)?.is_some() {
            return Ok(());
        }
        let mut missing: Vec<PathBuf> = Vec::new();
        for parent in user.home.ancestors().skip(1) {
            if self.look(parent, true)?.is_some() {
                break;
            }
            missing.push(parent.to_owned());
        }
        let root = Attributes { mode: 0o755, owner: Owner::Id(0), group: Owner::Id(0) };
        missing.iter().rev().try_for_each(|parent| self.make_directory(parent, &root))?;
        self.make_directory(&user.home, &Attributes { mode: 0o700, owner: user.id.clone(), group: user.group.clone() })
    }

    fn group_number(&self, name: &str) -> Result<u32, ModuleError> {
        match self.find_group(name)? {
            Some(group) => Ok(known(&group.id)),
            None => Err(ModuleError::host(format!("there is no group `{name}` on this host")).at("group")),
        }
    }

    /// Makes the user a member of exactly these groups.
    fn set_members(&self, user: &str, groups: &[String]) -> Result<(), ModuleError> {
        self.edit("group", |text| {
            let lines = text.lines().map(|line| {
                let Some((head, members)) = line.rsplit_once(':') else { return line.to_owned() };
                let wanted = groups.iter().any(|group| line.split(':').next() == Some(group));
                let mut members: Vec<&str> = members.split(',').filter(|member| !member.is_empty() && *member != user).collect();
                members.extend(wanted.then_some(user));
                format!("{head}:{}", members.join(","))
            });
            lines.collect()
        })
    }

    fn put_line(&self, database: &str, name: &str, line: &str) -> Result<(), ModuleError> {
        self.edit(database, |text| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            match lines.iter_mut().find(|known| known.split(':').next() == Some(name)) {
                Some(known) => line.clone_into(known),
                None => lines.push(line.to_owned()),
            }
            lines
        })
    }

    fn drop_line(&self, database: &str, name: &str) -> Result<(), ModuleError> {
        self.edit(database, |text| text.lines().filter(|line| line.split(':').next() != Some(name)).map(str::to_owned).collect())
    }

    /// Replaces one of the account files atomically, holding the lock that the system's tools take as well.
    fn edit(&self, database: &str, change: impl FnOnce(&str) -> Vec<String>) -> Result<(), ModuleError> {
        let folder = Path::new("/etc");
        if self.look(folder, true)?.is_none() {
            self.make_directory(folder, &Attributes { mode: 0o755, owner: Owner::Id(0), group: Owner::Id(0) })?;
        }
        let _lock = self.lock_accounts()?;
        let path = folder.join(database);
        let before = self.database(database)?;
        let after: String = change(&before).into_iter().map(|line| line + "\n").collect();
        if after == before {
            return Ok(());
        }
        let secret = database.ends_with("shadow");
        let fresh = Attributes { mode: if secret { 0o600 } else { 0o644 }, owner: Owner::Id(0), group: Owner::Id(0) };
        let attributes = self.look(&path, true)?.map_or(fresh, |entry| entry.attributes);
        self.put(&path, &mut after.as_bytes(), Digest::of(after.as_bytes()), &attributes)
    }

    fn lock_accounts(&self) -> Result<std::fs::File, ModuleError> {
        let path = Path::new("/etc/.pwd.lock");
        let place = self.place(path, true)?;
        let failed = |error: std::io::Error| ModuleError::io("lock", path, &error);
        let file = std::os::unix::fs::OpenOptionsExt::mode(std::fs::OpenOptions::new().write(true).create(true).truncate(false), 0o600)
            .open(place)
            .map_err(failed)?;
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(file)
    }

    fn is_free(&self, database: &str, number: u32) -> bool {
        let taken = |text: &str| text.lines().any(|line| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(number));
        self.database(database).is_ok_and(|text| !taken(&text))
    }

    /// People are numbered upwards, the system's accounts downwards, as the usual tools do.
    fn free_number(&self, database: &str, system: bool) -> Result<u32, ModuleError> {
        let found = if system {
            SYSTEM.rev().find(|number| self.is_free(database, *number))
        } else {
            PEOPLE.into_iter().find(|number| self.is_free(database, *number))
        };
        found.ok_or_else(|| ModuleError::host(format!("all numbers for new accounts are taken in `/etc/{database}`")))
    }
}

/// Returns a line of `/etc/passwd` with another primary group, when it has the old one.
fn with_group(line: &str, old: u32, new: u32) -> String {
    let mut fields: Vec<&str> = line.split(':').collect();
    let number = new.to_string();
    if let Some(field) = fields.get_mut(3).filter(|field| field.parse() == Ok(old)) {
        *field = &number;
    }
    fields.join(":")
}

fn known(owner: &Owner) -> u32 {
    match owner {
        Owner::Id(number) => *number,
        // Accounts read from the files always have one.
        Owner::Named(_) => 0,
    }
}

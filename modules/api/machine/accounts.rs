//! Looking up users and groups: the host's files first, then `getent` for those that come from elsewhere.

use std::path::{Path, PathBuf};

use super::Machine;
use crate::api::error::ModuleError;
use crate::api::inspect::{Command, GroupEntry, UserEntry};
use crate::api::types::Owner;

/// Seconds for a directory service to answer.
const GETENT: u64 = 20;

impl Machine {
    pub(super) fn find_user(&self, name: &str) -> Result<Option<UserEntry>, ModuleError> {
        let Some(line) = self.account_line("passwd", name)? else { return Ok(None) };
        let Some(mut user) = parse_user(&line) else { return Ok(None) };
        let groups = self.database("group")?;
        user.groups =
            groups.lines().filter_map(parse_group).filter(|group| group.members.contains(&user.name)).map(|group| group.name).collect();
        user.groups.sort();
        user.groups.dedup();
        // Without shadow passwords the hash is in the line itself.
        let of_line = || line.split(':').nth(1).filter(|field| *field != "x").map(str::to_owned);
        user.password = self.shadow(&user.name).map(|(hash, _)| hash).or_else(of_line);
        Ok(Some(user))
    }

    pub(super) fn find_group(&self, name: &str) -> Result<Option<GroupEntry>, ModuleError> {
        Ok(self.account_line("group", name)?.as_deref().and_then(parse_group))
    }

    /// Returns a user's password hash and the fields behind it, where they can be read.
    pub(super) fn shadow(&self, name: &str) -> Option<(String, String)> {
        let shadow = self.database("shadow").ok()?;
        let fields = shadow.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let (hash, aging) = fields.split_once(':').unwrap_or((fields, ""));
        Some((hash.to_owned(), aging.to_owned()))
    }

    /// Returns one of the account files, empty when there is none.
    pub(super) fn database(&self, name: &str) -> Result<String, ModuleError> {
        let path = Path::new("/etc").join(name);
        match std::fs::read(self.place(&path, true)?) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if super::files::is_missing(&error) => Ok(String::new()),
            Err(error) => Err(ModuleError::io("read", &path, &error)),
        }
    }

    /// Returns the line of an account by name, else by number.
    fn account_line(&self, database: &str, name: &str) -> Result<Option<String>, ModuleError> {
        let text = self.database(database)?;
        let number = name.parse::<u32>().ok();
        let field = |line: &str, index: usize| line.split(':').nth(index).map(str::to_owned);
        let by_name = text.lines().find(|line| field(line, 0).as_deref() == Some(name));
        let by_number = || text.lines().find(|line| number.is_some() && field(line, 2).and_then(|text| text.parse::<u32>().ok()) == number);
        if let Some(line) = by_name.or_else(by_number) {
            return Ok(Some(line.to_owned()));
        }
        // Below a root only its own files count.
        if self.root.is_some() || name.is_empty() || name.starts_with('-') {
            return Ok(None);
        }
        let mut getent = Command::new(["getent", database, name]);
        getent.timeout = GETENT;
        Ok(match super::commands::run_quietly(&getent) {
            Ok(output) if output.success() => output.stdout.lines().next().map(str::to_owned),
            // No such program, or no such account.
            _ => None,
        })
    }
}

fn parse_user(line: &str) -> Option<UserEntry> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, id, group, comment, home, shell] = fields.as_slice() else { return None };
    Some(UserEntry {
        name: (*name).to_owned(),
        id: Owner::Id(id.parse().ok()?),
        group: Owner::Id(group.parse().ok()?),
        comment: (*comment).to_owned(),
        home: PathBuf::from(home),
        shell: (*shell).to_owned(),
        groups: Vec::new(),
        password: None,
    })
}

fn parse_group(line: &str) -> Option<GroupEntry> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, id, members] = fields.as_slice() else { return None };
    let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
    Some(GroupEntry { name: (*name).to_owned(), id: Owner::Id(id.parse().ok()?), members })
}

//! Manages a user of the host.
//!
//! ```lua
//! host:group({ name = "ops" })
//! host:user({ name = "deploy", groups = { "ops" }, shell = "/bin/bash", comment = "deployments" })
//! ```
//!
//! What is not given is left as it is, or to the system where the user is yet to be made. `groups` names all supplementary
//! groups; with `append = true` the user stays in others, too. Groups have to be there: make them with `group`.
//!
//! A user that is made gets a home directory, unless it is one of the system's (`system = true`) or `create_home = false`.
//! A `home` that differs is entered in the user database; nothing is moved.
//!
//! `password_hash` is what `mkpasswd` prints; it is never shown. `lock` forbids logging in by password and keeps the hash.
//!
//! Results: `uid` and `home`, null as long as the user is yet to be made.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::change::UserSpec;
#[cfg(test)]
use crate::api::conformance::Example;
use crate::api::inspect::{GroupEntry, UserEntry};
use crate::api::{Change, Controller, Footprint, Inspect, Module, ModuleError, OneOrMany, Owner, Proposal, place};
use crate::group::{State, check_name};

/// Arguments of `user`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name.
    name: String,
    /// `present` or `absent`.
    #[serde(default)]
    state: State,
    /// Number of the user.
    #[serde(default)]
    uid: Option<u32>,
    /// Name of the primary group.
    #[serde(default)]
    group: Option<String>,
    /// Names of the supplementary groups.
    #[serde(default)]
    groups: Option<OneOrMany>,
    /// Whether the user stays in groups that `groups` does not name.
    #[serde(default)]
    append: bool,
    /// Home directory.
    #[serde(default)]
    home: Option<PathBuf>,
    /// Whether the home directory is made. Default: when the user is made, unless it is one of the system's.
    #[serde(default)]
    create_home: Option<bool>,
    /// Login shell.
    #[serde(default)]
    shell: Option<String>,
    /// Comment, most often the full name.
    #[serde(default)]
    comment: Option<String>,
    /// Whether a user that is made gets a number from the range for the system's own.
    #[serde(default)]
    system: bool,
    /// Password hash as crypt(3) makes it.
    #[serde(default)]
    password_hash: Option<String>,
    /// Whether logging in by password is forbidden. Left as it is when not given.
    #[serde(default)]
    lock: Option<bool>,
    /// For `absent`: whether the home directory is removed, too.
    #[serde(default)]
    remove_home: bool,
}

impl Module for User {
    const NAME: &'static str = "user";

    fn prepare(&mut self, _controller: &dyn Controller) -> Result<(), ModuleError> {
        check_name(&self.name, "user")?;
        if let Some(home) = &mut self.home {
            *home = place::absolute(home, "home")?;
        }
        let text = [("comment", &self.comment), ("shell", &self.shell), ("password_hash", &self.password_hash)];
        for (argument, value) in text {
            if value.as_ref().is_some_and(|value| value.contains([':', '\n', '\0'])) {
                return Err(ModuleError::argument(format!("`{argument}` holds a colon or a line break")).at(argument));
            }
        }
        if self.shell.as_ref().is_some_and(|shell| !shell.starts_with('/')) {
            return Err(ModuleError::argument("`shell` is not an absolute path").at("shell"));
        }
        if let Some(hash) = &self.password_hash
            && !hash.starts_with(['$', '!', '*'])
        {
            return Err(ModuleError::argument("`password_hash` is not a hash, but looks like a password")
                .at("password_hash")
                .hint("make one with `mkpasswd -m yescrypt` or `openssl passwd -6`"));
        }
        if self.append && self.groups.is_none() {
            return Err(ModuleError::argument("`append` is given, but no `groups`").at("append"));
        }
        if self.state == State::Absent {
            let given = [
                ("uid", self.uid.is_some()),
                ("groups", self.groups.is_some()),
                ("password_hash", self.password_hash.is_some()),
                ("create_home", self.create_home.is_some()),
            ];
            if let Some((argument, _)) = given.into_iter().find(|(_, given)| *given) {
                return Err(ModuleError::argument(format!("`{argument}` means nothing for a user that is to be absent")).at(argument));
            }
        } else if self.remove_home {
            return Err(ModuleError::argument("`remove_home` means something for `state = \"absent\"` alone").at("remove_home"));
        }
        Ok(())
    }

    fn check(&self, host: &dyn Inspect) -> Result<Proposal, ModuleError> {
        let now = host.user(&self.name)?.filter(|user| user.name == self.name);
        let uid = now.as_ref().and_then(|user| if let Owner::Id(id) = user.id { Some(id) } else { None });
        let (uid, home) =
            (uid.map_or(Value::Null, Value::from), now.as_ref().map_or(Value::Null, |user| user.home.display().to_string().into()));
        let after = match (self.state, &now) {
            (State::Absent, None) => return Ok(Proposal::default().with("uid", uid).with("home", home)),
            (State::Absent, Some(_)) => None,
            (State::Present, None) => Some(self.created(host)?),
            (State::Present, Some(user)) => match self.changed(host, user)? {
                spec if spec == UserSpec::default() => return Ok(Proposal::default().with("uid", uid).with("home", home)),
                spec => Some(spec),
            },
        };
        let before = now.as_ref().map(|user| described(host, user)).transpose()?;
        let change = Change::User { name: self.name.clone(), before, after, remove_home: self.remove_home };
        Ok(Proposal::new(vec![change]).with("uid", uid).with("home", home))
    }

    fn reach(&self) -> Footprint {
        let groups = self.groups.iter().flat_map(|groups| groups.0.clone());
        Footprint::Accounts(std::iter::once(self.name.clone()).chain(groups).collect())
    }

    #[cfg(test)]
    fn examples() -> Vec<Example> {
        tests::examples()
    }
}

impl User {
    /// Returns what a user that is not there has to be made with.
    fn created(&self, host: &dyn Inspect) -> Result<UserSpec, ModuleError> {
        self.check_number(host)?;
        if let Some(group) = &self.group {
            check_group(host, group, "group")?;
        }
        Ok(UserSpec {
            uid: self.uid,
            group: self.group.clone(),
            groups: self.wanted_groups(host, &[])?,
            home: self.home.clone(),
            shell: self.shell.clone(),
            comment: self.comment.clone(),
            system: self.system,
            create_home: self.create_home.unwrap_or(!self.system),
            // Without a password it is locked from the beginning.
            password_hash: match (self.lock, &self.password_hash) {
                (Some(true), Some(hash)) => Some(locked(hash)),
                (Some(false), hash) => Some(self.unlocked(hash.as_deref().unwrap_or_default())?),
                (_, hash) => hash.clone(),
            },
            aging: None,
        })
    }

    /// Returns what differs for a user that is there; the default when nothing does.
    fn changed(&self, host: &dyn Inspect, user: &UserEntry) -> Result<UserSpec, ModuleError> {
        let uid = self.uid.filter(|uid| user.id != Owner::Id(*uid));
        if uid.is_some() {
            self.check_number(host)?;
        }
        let group = match &self.group {
            Some(name) if check_group(host, name, "group")?.is_none_or(|group| group.id != user.group) => Some(name.clone()),
            _ => None,
        };
        let home = self.home.clone().filter(|home| *home != user.home);
        let create_home = self.create_home == Some(true) && host.target(home.as_deref().unwrap_or(&user.home))?.is_none();
        Ok(UserSpec {
            uid,
            group,
            groups: self.wanted_groups(host, &user.groups)?.filter(|groups| *groups != user.groups),
            home,
            shell: self.shell.clone().filter(|shell| *shell != user.shell),
            comment: self.comment.clone().filter(|comment| *comment != user.comment),
            system: false,
            create_home,
            password_hash: self.changed_password(user)?,
            aging: None,
        })
    }

    /// Returns all supplementary groups that the user shall be in, sorted.
    fn wanted_groups(&self, host: &dyn Inspect, now: &[String]) -> Result<Option<Vec<String>>, ModuleError> {
        let Some(named) = &self.groups else { return Ok(None) };
        let mut groups = Vec::with_capacity(named.0.len());
        for name in &named.0 {
            // A number stands for the group that has it.
            groups.push(check_group(host, name, "groups")?.map_or_else(|| name.clone(), |group| group.name));
        }
        if self.append {
            groups.extend_from_slice(now);
        }
        groups.sort();
        groups.dedup();
        Ok(Some(groups))
    }

    /// Returns the hash to set, when the present one differs or is not locked as it shall be.
    fn changed_password(&self, user: &UserEntry) -> Result<Option<String>, ModuleError> {
        if self.password_hash.is_none() && self.lock.is_none_or(|lock| lock == user.locked()) {
            return Ok(None);
        }
        let now = user.password.clone().unwrap_or_default();
        let wanted = self.password_hash.clone().unwrap_or_else(|| now.clone());
        let wanted = match self.lock {
            Some(true) => locked(&wanted),
            Some(false) => self.unlocked(&wanted)?,
            // A lock that nobody spoke of stays.
            None if now.starts_with('!') && bare(&now) == wanted => now.clone(),
            None => wanted,
        };
        Ok(Some(wanted).filter(|wanted| *wanted != now))
    }

    /// Returns a hash without its lock; there has to be one.
    fn unlocked(&self, hash: &str) -> Result<String, ModuleError> {
        match bare(hash) {
            "" | "*" => Err(ModuleError::host(format!("the user `{}` has no password that could be unlocked", self.name))
                .at("lock")
                .hint("give a `password_hash`")),
            hash => Ok(hash.to_owned()),
        }
    }

    fn check_number(&self, host: &dyn Inspect) -> Result<(), ModuleError> {
        let Some(uid) = self.uid else { return Ok(()) };
        match host.user(&uid.to_string())? {
            Some(other) if other.name != self.name && other.id == Owner::Id(uid) => {
                Err(ModuleError::host(format!("the number {uid} belongs to the user `{}`", other.name)).at("uid"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns a user as it is, so that a change can be undone.
fn described(host: &dyn Inspect, user: &UserEntry) -> Result<UserSpec, ModuleError> {
    let number = |owner: &Owner| if let Owner::Id(id) = owner { Some(*id) } else { None };
    let group = match number(&user.group) {
        Some(id) => Some(host.group(&id.to_string())?.map_or_else(|| id.to_string(), |group| group.name)),
        None => None,
    };
    Ok(UserSpec {
        uid: number(&user.id),
        group,
        groups: Some(user.groups.clone()),
        home: Some(user.home.clone()),
        shell: Some(user.shell.clone()),
        comment: Some(user.comment.clone()),
        system: false,
        create_home: false,
        password_hash: user.password.clone(),
        aging: None,
    })
}

/// Returns a hash without a lock.
fn bare(hash: &str) -> &str {
    hash.trim_start_matches('!')
}

fn locked(hash: &str) -> String {
    if hash.starts_with('!') { hash.to_owned() } else { format!("!{hash}") }
}

/// Makes sure that a group exists; returns it when it does already.
fn check_group(host: &dyn Inspect, name: &str, argument: &str) -> Result<Option<GroupEntry>, ModuleError> {
    match host.group(name)? {
        Some(group) => Ok(Some(group)),
        None if host.may_come(&format!("group `{name}`")) => Ok(None),
        None => Err(ModuleError::host(format!("there is no group `{name}` on this host"))
            .at(argument)
            .hint("create it first with the `group` module")),
    }
}

#[cfg(test)]
mod tests;

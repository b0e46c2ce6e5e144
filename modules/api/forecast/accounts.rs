//! Users and groups of a forecast.

use std::path::PathBuf;

use super::Forecast;
use super::clouds::Over;
use super::fold::Folded;
use crate::api::change::{GroupSpec, UserSpec};
use crate::api::error::ModuleError;
use crate::api::inspect::{GroupEntry, UserEntry, goes_along};
use crate::api::types::{Attributes, Owner};

impl Forecast<'_> {
    /// Returns a user as it would be, in the groups that would list it then.
    pub(super) fn find_user(&self, name: &str) -> Result<Option<UserEntry>, ModuleError> {
        let mut found = self.find_user_line(name)?;
        if let Some(user) = &mut found {
            let lists = |group: &GroupEntry| group.members.contains(&user.name);
            let now = self.groups.iter().filter(|(_, (group, _))| group.as_ref().is_some_and(lists)).map(|(name, _)| name.clone());
            let mut groups: Vec<String> = now.collect();
            groups.extend(user.groups.iter().filter(|name| !self.groups.contains_key(*name)).cloned());
            groups.sort();
            user.groups = groups;
        }
        Ok(found)
    }

    fn find_user_line(&self, name: &str) -> Result<Option<UserEntry>, ModuleError> {
        let by_number = || {
            let id: u32 = name.parse().ok()?;
            self.users.values().find(|(user, _)| user.as_ref().is_some_and(|user| user.id == Owner::Id(id)))
        };
        if let Some((user, at)) = self.users.get(name).or_else(by_number) {
            self.judge_account(name, *at, user.is_some());
            return Ok(user.clone());
        }
        let found = self.base.user(name)?;
        self.judge_account(found.as_ref().map_or(name, |user| &user.name), 0, found.is_some());
        // By number the base may find a user that an earlier task would have removed or renumbered.
        Ok(found.filter(|user| !self.users.contains_key(&user.name)))
    }

    pub(super) fn find_group(&self, name: &str) -> Result<Option<GroupEntry>, ModuleError> {
        let by_number = || {
            let id: u32 = name.parse().ok()?;
            self.groups.values().find(|(group, _)| group.as_ref().is_some_and(|group| group.id == Owner::Id(id)))
        };
        if let Some((group, at)) = self.groups.get(name).or_else(by_number) {
            self.judge_account(name, *at, group.is_some());
            return Ok(group.clone());
        }
        let found = self.base.group(name)?;
        self.judge_account(found.as_ref().map_or(name, |group| &group.name), 0, found.is_some());
        Ok(found.filter(|group| !self.groups.contains_key(&group.name)))
    }

    pub(super) fn fold_user(
        &mut self,
        name: &str,
        after: Option<&UserSpec>,
        remove_home: bool,
        folded: &Folded,
    ) -> Result<(), ModuleError> {
        let now = self.find_user(name)?.filter(|user| user.name == name);
        let Some(spec) = after else {
            let with_group = now.as_ref().map_or(Ok(false), |user| goes_along(self, user))?;
            self.leave_groups(name, &[])?;
            if with_group {
                self.groups.insert(name.to_owned(), (None, self.folds));
            }
            self.users.insert(name.to_owned(), (None, self.folds));
            if let Some(user) = now.filter(|user| remove_home && user.home.components().count() > 1) {
                self.remove(&user.home, folded);
            }
            return Ok(());
        };
        let id =
            spec.uid.map(Owner::Id).or_else(|| now.as_ref().map(|user| user.id.clone())).unwrap_or_else(|| Owner::Named(name.to_owned()));
        let group = match (&spec.group, &now) {
            (Some(group), _) => self.find_group(group)?.map_or_else(|| Owner::Named(group.clone()), |group| group.id),
            (None, Some(user)) => user.group.clone(),
            (None, None) if let Some(group) = self.find_group(name)? => group.id,
            (None, None) => {
                let own = GroupEntry { name: name.to_owned(), id: Owner::Named(name.to_owned()), members: Vec::new() };
                self.groups.insert(name.to_owned(), (Some(own), self.folds));
                Owner::Named(name.to_owned())
            }
        };
        let created = now.is_none();
        // usermod gives what is in the home directory to the new number and group.
        if let Some(user) = now.as_ref().filter(|user| user.id != id || user.group != group) {
            let because = format!("what is in the home directory of `{name}` would have changed hands");
            self.lay(Over::Paths(vec![user.home.clone()]), &because);
        }
        let base = now.unwrap_or_else(|| UserEntry {
            name: name.to_owned(),
            id: id.clone(),
            group: group.clone(),
            comment: String::new(),
            home: PathBuf::from("/home").join(name),
            shell: "/bin/sh".to_owned(),
            groups: Vec::new(),
            password: Some("!".to_owned()),
        });
        let user = UserEntry {
            name: name.to_owned(),
            id,
            group,
            comment: spec.comment.clone().unwrap_or(base.comment),
            home: spec.home.clone().unwrap_or(base.home),
            shell: spec.shell.clone().unwrap_or(base.shell),
            groups: spec.groups.clone().unwrap_or(base.groups),
            password: spec.password_hash.clone().or(base.password),
        };
        if spec.groups.is_some() {
            self.leave_groups(name, &user.groups)?;
        }
        if spec.create_home && self.find(&user.home, true)?.what.is_none() {
            self.fold_home(&user, created, folded)?;
        }
        self.users.insert(name.to_owned(), (Some(user), self.folds));
        Ok(())
    }

    /// Makes `name` a member of exactly the groups in `of`.
    fn leave_groups(&mut self, name: &str, of: &[String]) -> Result<(), ModuleError> {
        let mut concerned: Vec<String> = self.groups.keys().cloned().collect();
        concerned.extend(of.iter().cloned());
        concerned.extend(self.base.user(name)?.map(|user| user.groups).unwrap_or_default());
        concerned.sort();
        concerned.dedup();
        for group in concerned {
            let Some(mut entry) = self.find_group(&group)? else { continue };
            let belongs = of.contains(&group);
            if entry.members.iter().any(|member| member == name) != belongs {
                entry.members.retain(|member| member != name);
                if belongs {
                    entry.members.push(name.to_owned());
                    entry.members.sort();
                }
                self.groups.insert(group, (Some(entry), self.folds));
            }
        }
        Ok(())
    }

    /// Makes a home directory: its mode is the system's choice, what is put into it is known by the names in `/etc/skel`.
    fn fold_home(&mut self, user: &UserEntry, created: bool, folded: &Folded) -> Result<(), ModuleError> {
        let because = format!("user `{}` would be {} with a home directory", user.name, if created { "created" } else { "given one" });
        let attributes = Attributes { mode: 0o700, owner: user.id.clone(), group: user.group.clone() };
        self.make_directory(&user.home, &attributes, &folded.assuming(&because));
        let skeleton = self.base.list(std::path::Path::new("/etc/skel")).unwrap_or_default();
        if !skeleton.is_empty() {
            self.lay(Over::Paths(skeleton.iter().map(|name| user.home.join(name)).collect()), &because);
        }
        Ok(())
    }

    /// Returns the users whose primary group this would be: those of the base that are still in it, and those that have come.
    pub(super) fn primary_group_of(&self, group: &Owner) -> Result<Vec<String>, ModuleError> {
        let mut names = self.base.primary_members(group)?;
        names.retain(|name| !self.users.contains_key(name));
        let belongs = |(_, (user, _)): &(&String, &(Option<UserEntry>, u64))| user.as_ref().is_some_and(|user| user.group == *group);
        names.extend(self.users.iter().filter(belongs).map(|(name, _)| name.clone()));
        Ok(names)
    }

    /// Lets those whose primary group gets another number stay in it, as groupmod does.
    fn move_primary_group(&mut self, old: &Owner, new: &Owner) -> Result<(), ModuleError> {
        for name in self.primary_group_of(old)? {
            if let Some(user) = self.find_user(&name)? {
                self.users.insert(name, (Some(UserEntry { group: new.clone(), ..user }), self.folds));
            }
        }
        Ok(())
    }

    pub(super) fn fold_group(&mut self, name: &str, after: Option<&GroupSpec>) -> Result<(), ModuleError> {
        let now = self.find_group(name)?.filter(|group| group.name == name);
        if let (Some(now), Some(id)) = (&now, after.and_then(|spec| spec.gid).map(Owner::Id))
            && now.id != id
        {
            self.move_primary_group(&now.id, &id)?;
        }
        let entry = after.map(|spec| GroupEntry {
            name: name.to_owned(),
            id: spec
                .gid
                .map(Owner::Id)
                .or_else(|| now.as_ref().map(|group| group.id.clone()))
                .unwrap_or_else(|| Owner::Named(name.to_owned())),
            members: now.map(|group| group.members).unwrap_or_default(),
        });
        self.groups.insert(name.to_owned(), (entry, self.folds));
        Ok(())
    }
}

//! How a host in memory performs changes, with the refusals that a real one would have.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Fake, Node};
use crate::api::change::{
    Change, Download, GroupSpec, IssueCertificate, MemberKind, Packages, Record, Recorded, Run, UnitAction, Unpack, UserSpec,
};
use crate::api::error::ModuleError;
use crate::api::inspect::{Fingerprint, GroupEntry, Inspect, UserEntry, goes_along};
use crate::api::inverse::inverse;
use crate::api::issue::make_request;
use crate::api::perform::{Irreversible, Perform, Performed, Upstream};
use crate::api::types::{Attributes, Content, EntryKind, Owner};
use crate::api::units::{self, UnitPath};

/// The one program that does not keep running: a unit of it fails as soon as its start is done.
pub const DIES: &str = "/bin/false";

impl Perform for Fake {
    fn perform(&mut self, change: &Change, upstream: &mut dyn Upstream) -> Result<Performed, ModuleError> {
        self.clock += 1_000_000_000;
        self.log.push(summary(change));
        match change {
            Change::WriteFile(write) => {
                let content = self.fetched(&write.content, upstream)?;
                self.put_file(&write.path, content, &write.attributes)?;
            }
            Change::SetAttributes { path, after, .. } => {
                let place = self.existing(path)?;
                let (attributes, now) = (self.numbered(after)?, self.clock);
                if let Some(node) = self.nodes.get_mut(&place) {
                    node.attributes = attributes;
                    node.ctime = now;
                }
            }
            Change::MakeDirectory { path, attributes } => {
                let place = self.place(path)?;
                if self.nodes.contains_key(&place) {
                    return Err(ModuleError::host(format!("cannot make the directory `{}`: file exists", path.display())));
                }
                let mut node = Node::directory(0, self.clock);
                node.attributes = self.numbered(attributes)?;
                self.nodes.insert(place, node);
            }
            Change::Symlink { path, target, .. } => self.put(path, Node::link(target, self.clock))?,
            Change::Remove { path, .. } => self.remove(path)?,
            Change::Touch { path } => {
                let (place, now) = (self.existing(path)?, self.clock);
                if let Some(node) = self.nodes.get_mut(&place) {
                    (node.mtime, node.ctime) = (now, now);
                }
            }
            Change::Unpack(unpack) => self.unpack(unpack)?,
            Change::Download(download) => self.download(download)?,
            Change::Fetch { path, .. } => upstream.deliver(&mut self.read(path, u64::MAX)?.as_slice())?,
            Change::Unit { unit, action, record, .. } => self.act(unit, *action, record.as_ref())?,
            Change::ReloadDaemon { .. } => self.reload_daemon(),
            Change::SetKernelParameter { key, after, .. } => match self.parameters.get_mut(key) {
                Some(value) => value.clone_from(after),
                None => return Err(ModuleError::host(format!("there is no kernel parameter `{key}`"))),
            },
            Change::Packages(packages) => self.install(packages)?,
            Change::User { name, after, remove_home, .. } => self.set_user(name, after.as_ref(), *remove_home)?,
            Change::Group { name, after, .. } => self.set_group(name, after.as_ref()),
            Change::IssueCertificate(issue) => self.issue(issue, upstream)?,
            Change::Run(run) => return self.run_for_good(run),
        }
        Ok(Performed::default())
    }

    fn invert(&mut self, change: &Change) -> Result<Vec<Change>, Irreversible> {
        let host: &Self = self;
        inverse(host, change, &mut |path| Ok(Content::Inline(host.read(path, u64::MAX)?)))
    }
}

impl Fake {
    fn fetched(&self, content: &Content, upstream: &mut dyn Upstream) -> Result<Vec<u8>, ModuleError> {
        match (self.content_of(content), content) {
            (Some(bytes), _) => Ok(bytes),
            (None, Content::Inline(bytes)) => Ok(bytes.clone()),
            (None, Content::Blob(blob)) => {
                let mut bytes = Vec::new();
                upstream.blob(blob)?.read_to_end(&mut bytes).map_err(|error| ModuleError::host(error.to_string()))?;
                Ok(bytes)
            }
        }
    }

    /// Returns where `path` is to be put; its parent has to be a directory.
    fn place(&self, path: &Path) -> Result<PathBuf, ModuleError> {
        self.locate(path, false)?.ok_or_else(|| ModuleError::host(format!("cannot write `{}`: no such file or directory", path.display())))
    }

    fn existing(&self, path: &Path) -> Result<PathBuf, ModuleError> {
        let place = self.place(path)?;
        if self.nodes.contains_key(&place) {
            return Ok(place);
        }
        Err(ModuleError::host(format!("cannot change `{}`: no such file or directory", path.display())))
    }

    /// Puts a file or link in place as rename(2) does.
    fn put(&mut self, path: &Path, node: Node) -> Result<(), ModuleError> {
        let place = self.place(path)?;
        if self.nodes.get(&place).is_some_and(|node| node.kind == EntryKind::Directory) {
            return Err(ModuleError::host(format!("cannot replace `{}`: it is a directory", path.display())));
        }
        self.nodes.insert(place.clone(), node);
        self.unit_file_changed(&place);
        Ok(())
    }

    fn put_file(&mut self, path: &Path, content: Vec<u8>, attributes: &Attributes) -> Result<(), ModuleError> {
        let attributes = self.numbered(attributes)?;
        self.put(path, Node::file(content, attributes, self.clock))
    }

    fn remove(&mut self, path: &Path) -> Result<(), ModuleError> {
        let Some(place) = self.locate(path, false)? else { return Ok(()) };
        self.nodes.retain(|known, _| !known.starts_with(&place));
        self.unit_file_changed(&place);
        Ok(())
    }

    /// Returns attributes with the numbers of owners that an earlier change has created.
    fn numbered(&self, attributes: &Attributes) -> Result<Attributes, ModuleError> {
        let missing = |name: &str| ModuleError::host(format!("there is no user or group `{name}`"));
        let owner = match &attributes.owner {
            Owner::Named(name) => Inspect::user(self, name)?.ok_or_else(|| missing(name))?.id,
            Owner::Id(_) => attributes.owner.clone(),
        };
        let group = match &attributes.group {
            Owner::Named(name) => Inspect::group(self, name)?.ok_or_else(|| missing(name))?.id,
            Owner::Id(_) => attributes.group.clone(),
        };
        Ok(Attributes { mode: attributes.mode, owner, group })
    }

    /// Lets systemd notice that a unit's file or drop-in has changed: it keeps in memory what runs or is enabled, and reads the
    /// rest when asked.
    fn unit_file_changed(&mut self, place: &Path) {
        let Some(UnitPath::Fragment(name) | UnitPath::DropIn(name)) = units::unit_of(place) else { return };
        match self.units.get_mut(&name) {
            Some(unit) if unit.active_state != "inactive" || unit.unit_file_state.starts_with("enabled") => unit.need_daemon_reload = true,
            _ => self.read_unit(&name),
        }
    }

    /// Reads a unit's file as systemd does, the administrator's first.
    fn read_unit(&mut self, name: &str) {
        let fragment = units::UNIT_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| self.text(path).is_some());
        let Some(fragment) = fragment else {
            if self.units.get(name).is_some_and(|unit| unit.active_state == "inactive") {
                self.units.remove(name);
            }
            return;
        };
        let mut fresh = units::from_text(&fragment, &self.text(&fragment).unwrap_or_default());
        for folder in units::UNIT_FOLDERS.iter().map(|folder| Path::new(folder).join(format!("{name}.d"))) {
            for file in self.list(&folder).unwrap_or_default().into_iter().filter(|file| file.ends_with(".conf")) {
                units::read_settings(&mut fresh, &self.text(folder.join(&file)).unwrap_or_default());
                fresh.drop_ins.push(folder.join(file));
            }
        }
        if let Some(old) = self.units.get(name) {
            (fresh.active_state, fresh.sub_state) = (old.active_state.clone(), old.sub_state.clone());
            (fresh.invocation, fresh.started) = (old.invocation.clone(), old.started);
            if old.unit_file_state.starts_with("enabled") {
                fresh.unit_file_state.clone_from(&old.unit_file_state);
            }
        }
        self.units.insert(name.to_owned(), fresh);
    }

    fn reload_daemon(&mut self) {
        let outdated: Vec<String> = self.units.iter().filter(|(_, unit)| unit.need_daemon_reload).map(|(name, _)| name.clone()).collect();
        for name in outdated {
            self.read_unit(&name);
            if let Some(unit) = self.units.get_mut(&name) {
                unit.need_daemon_reload = false;
            }
        }
    }

    /// Unpacks members whose contents are known by digest; the bytes of the archive itself are not looked at.
    fn unpack(&mut self, unpack: &Unpack) -> Result<(), ModuleError> {
        for member in &unpack.members {
            let path = unpack.dest.join(&member.path);
            match &member.kind {
                MemberKind::Directory => {
                    let place = self.place(&path)?;
                    let (attributes, now) = (self.numbered(&member.attributes)?, self.clock);
                    let node = self.nodes.entry(place).or_insert_with(|| Node::directory(0, now));
                    if node.kind != EntryKind::Directory {
                        return Err(ModuleError::host(format!("cannot make the directory `{}`: file exists", path.display())));
                    }
                    node.attributes = attributes;
                }
                MemberKind::Symlink(target) => {
                    let mut node = Node::link(target, self.clock);
                    node.attributes = self.numbered(&member.attributes)?;
                    self.put(&path, node)?;
                }
                MemberKind::File(digest, _) => {
                    let content =
                        self.blobs.get(digest).cloned().ok_or_else(|| {
                            ModuleError::host(format!("`{}` has no member with the digest {}", unpack.name, digest.hex()))
                        })?;
                    self.put_file(&path, content, &member.attributes)?;
                }
            }
        }
        Ok(())
    }

    fn download(&mut self, download: &Download) -> Result<(), ModuleError> {
        let content = self.blobs.get(&download.digest).cloned();
        let content = content.ok_or_else(|| ModuleError::host(format!("cannot download `{}`: no such server", download.url)))?;
        self.put_file(&download.path, content, &download.attributes)
    }

    fn act(&mut self, name: &str, action: UnitAction, record: Option<&Record>) -> Result<(), ModuleError> {
        let name = units::full_name(name);
        let now = self.clock;
        let recorded = record.map(|record| self.digests(record)).transpose()?;
        if matches!(action, UnitAction::Enable | UnitAction::Disable | UnitAction::Mask | UnitAction::Unmask) {
            self.reload_daemon();
        }
        let Some(unit) = self.units.get_mut(&name) else {
            return Err(ModuleError::host(format!("cannot {} `{name}`: unit not found", action.verb())));
        };
        if unit.load_state == "masked" && matches!(action, UnitAction::Start | UnitAction::Restart) {
            return Err(ModuleError::host(format!("cannot {} `{name}`: unit is masked", action.verb())));
        }
        let set = |slot: &mut String, value: &str| value.clone_into(slot);
        match action {
            UnitAction::Start | UnitAction::Restart => {
                set(&mut unit.active_state, if unit.kind == "oneshot" { "inactive" } else { "active" });
                set(&mut unit.sub_state, if unit.kind == "oneshot" { "dead" } else { "running" });
                set(&mut unit.result, "success");
                unit.invocation = format!("{now:032x}");
                unit.started = if unit.kind == "oneshot" { 0 } else { now };
                if unit.exec_start == DIES {
                    (unit.active_state, unit.sub_state, unit.result) = ("failed".into(), "failed".into(), "exit-code".into());
                }
            }
            UnitAction::Stop => {
                set(&mut unit.active_state, "inactive");
                set(&mut unit.sub_state, "dead");
                unit.started = 0;
            }
            UnitAction::Reload if unit.active_state != "active" => {
                return Err(ModuleError::host(format!("cannot reload `{name}`: unit is not active")));
            }
            UnitAction::Reload => {}
            UnitAction::Enable => set(&mut unit.unit_file_state, "enabled"),
            UnitAction::Disable => set(&mut unit.unit_file_state, "disabled"),
            UnitAction::Mask => (unit.load_state, unit.unit_file_state) = ("masked".into(), "masked".into()),
            UnitAction::Unmask => (unit.load_state, unit.unit_file_state) = ("loaded".into(), "disabled".into()),
        }
        if let (Some(record), Some(mut recorded)) = (record, recorded) {
            recorded.invocation.clone_from(&unit.invocation);
            recorded.state_changed = unit.state_changed;
            self.records.insert(record.key.clone(), serde_json::to_vec(&recorded).unwrap_or_default());
        }
        // A unit that neither runs nor is enabled leaves systemd's memory, and is read afresh when asked for.
        if unit.need_daemon_reload && action == UnitAction::Stop && !unit.unit_file_state.starts_with("enabled") {
            unit.need_daemon_reload = false;
            self.read_unit(&name);
        }
        Ok(())
    }

    fn digests(&self, record: &Record) -> Result<Recorded, ModuleError> {
        let mut recorded = Recorded::default();
        for path in &record.paths {
            let digest = match self.fingerprint(path)? {
                Some(Fingerprint::Known(digest)) => Some(digest),
                Some(Fingerprint::New) | None => None,
            };
            recorded.digests.insert(path.clone(), digest);
        }
        Ok(recorded)
    }

    fn install(&mut self, packages: &Packages) -> Result<(), ModuleError> {
        for wanted in &packages.install {
            let (name, version) = wanted.split_once('=').map_or((wanted.as_str(), None), |(name, version)| (name, Some(version)));
            let brings = match (self.offered.get(name), version) {
                (Some((offered, brings)), None) => Some((offered.clone(), *brings)),
                (Some((offered, brings)), Some(version)) if offered == version => Some((offered.clone(), *brings)),
                _ => None,
            };
            let Some((version, brings)) = brings else {
                return Err(ModuleError::host(format!("cannot install `{wanted}`: no such package")));
            };
            *self = brings(self.clone());
            self.installed.insert(name.to_owned(), version);
        }
        for name in &packages.remove {
            self.installed.remove(name);
        }
        Ok(())
    }

    fn set_user(&mut self, name: &str, after: Option<&UserSpec>, remove_home: bool) -> Result<(), ModuleError> {
        let now = self.users.get(name).cloned();
        let with_group = now.as_ref().map_or(Ok(false), |user| goes_along(self, user))?;
        self.users.remove(name);
        let Some(spec) = after else {
            let Some(user) = now else { return Err(ModuleError::host(format!("there is no user `{name}`"))) };
            self.groups.retain(|group, _| group != name || !with_group);
            self.groups.values_mut().for_each(|group| group.members.retain(|member| member != name));
            return if remove_home { self.remove(&user.home) } else { Ok(()) };
        };
        let free = self.free_number(spec.system);
        let id = spec.uid.map(Owner::Id).or(now.as_ref().map(|user| user.id.clone())).unwrap_or(Owner::Id(free));
        let group = match (&spec.group, &now) {
            (Some(group), _) => Inspect::group(self, group)?.ok_or_else(|| ModuleError::host(format!("there is no group `{group}`")))?.id,
            (None, Some(user)) => user.group.clone(),
            (None, None) if self.groups.contains_key(name) => self.groups[name].id.clone(),
            (None, None) => {
                self.groups.insert(name.to_owned(), GroupEntry { name: name.to_owned(), id: id.clone(), members: Vec::new() });
                id.clone()
            }
        };
        let base = now.unwrap_or(UserEntry {
            name: name.to_owned(),
            id: id.clone(),
            group: group.clone(),
            comment: String::new(),
            home: format!("/home/{name}").into(),
            shell: "/bin/sh".into(),
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
        for (group, entry) in &mut self.groups {
            entry.members.retain(|member| member != name);
            if user.groups.contains(group) {
                entry.members.push(name.to_owned());
                entry.members.sort();
            }
        }
        if spec.create_home && !self.nodes.contains_key(&user.home) {
            let Owner::Id(owner) = user.id else { return Err(ModuleError::host("a user has a number")) };
            *self = self.clone().directory_with(&user.home, 0o700, owner, owner);
        }
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    fn set_group(&mut self, name: &str, after: Option<&GroupSpec>) {
        let now = self.groups.remove(name);
        let Some(spec) = after else {
            self.users.values_mut().for_each(|user| user.groups.retain(|group| group != name));
            return;
        };
        let free = self.free_number(spec.system);
        let id = spec.gid.map(Owner::Id).or(now.as_ref().map(|group| group.id.clone())).unwrap_or(Owner::Id(free));
        if let Some(old) = &now {
            self.users.values_mut().filter(|user| user.group == old.id).for_each(|user| user.group = id.clone());
        }
        let members = now.map(|group| group.members).unwrap_or_default();
        self.groups.insert(name.to_owned(), GroupEntry { name: name.to_owned(), id, members });
    }

    fn free_number(&self, system: bool) -> u32 {
        let taken = |id: u32| {
            self.users.values().any(|user| user.id == Owner::Id(id)) || self.groups.values().any(|group| group.id == Owner::Id(id))
        };
        let first = if system { 100 } else { 1000 };
        (first..u32::MAX).find(|id| !taken(*id)).unwrap_or(u32::MAX)
    }

    /// Makes a real key and request and puts both files in place as the controller signs.
    fn issue(&mut self, issue: &IssueCertificate, upstream: &mut dyn Upstream) -> Result<(), ModuleError> {
        let key = if issue.new_key { None } else { Some(String::from_utf8_lossy(&self.read(&issue.key, 1 << 20)?).into_owned()) };
        let (key, request) = make_request(key.as_deref(), &issue.key_type)?;
        let certificate = upstream.sign(&request)?;
        if issue.new_key {
            self.put_file(&issue.key, key.into_bytes(), &issue.key_attributes)?;
        }
        self.put_file(&issue.certificate, certificate.into_bytes(), &issue.certificate_attributes)
    }

    /// Runs a command of the user's; how it ended is for the caller to judge.
    fn run_for_good(&mut self, run: &Run) -> Result<Performed, ModuleError> {
        let recorded = run.record.as_ref().map(|record| self.digests(record)).transpose()?;
        let (output, effect) = self.scripted(&run.command);
        *self = effect(self.clone());
        if let (Some(record), Some(recorded)) = (&run.record, recorded)
            && output.code.is_some_and(|code| run.ok_codes.contains(&code) || run.ok_codes.is_empty() && code == 0)
        {
            self.records.insert(record.key.clone(), serde_json::to_vec(&recorded).unwrap_or_default());
        }
        Ok(Performed { command: Some(output) })
    }
}

/// Returns a change as a short line for the log.
fn summary(change: &Change) -> String {
    match change {
        Change::WriteFile(write) => format!("write {}", write.path.display()),
        Change::SetAttributes { path, .. } => format!("attributes {}", path.display()),
        Change::MakeDirectory { path, .. } => format!("directory {}", path.display()),
        Change::Symlink { path, target, .. } => format!("link {} -> {}", path.display(), target.display()),
        Change::Remove { path, .. } => format!("remove {}", path.display()),
        Change::Touch { path } => format!("touch {}", path.display()),
        Change::Unpack(unpack) => format!("unpack {} into {}", unpack.name, unpack.dest.display()),
        Change::Download(download) => format!("download {}", download.path.display()),
        Change::Fetch { path, .. } => format!("fetch {}", path.display()),
        Change::Unit { unit, action, .. } => format!("{} {unit}", action.verb()),
        Change::ReloadDaemon { .. } => "daemon-reload".to_owned(),
        Change::SetKernelParameter { key, after, .. } => format!("sysctl {key}={after}"),
        Change::Packages(packages) => format!("packages +{:?} -{:?}", packages.install, packages.remove),
        Change::User { name, after, .. } => format!("{} {name}", if after.is_some() { "user" } else { "remove user" }),
        Change::Group { name, after, .. } => format!("{} {name}", if after.is_some() { "group" } else { "remove group" }),
        Change::IssueCertificate(issue) => format!("certificate {}", issue.certificate.display()),
        Change::Run(run) => format!("run {}", run.command.shown()),
    }
}

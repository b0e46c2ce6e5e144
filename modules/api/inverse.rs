//! What brings back the state before a change: computed once, for every kind of host, before the change is performed.

use std::path::Path;

use super::change::{Change, GroupSpec, MemberKind, Packages, Record, UnitAction, UserSpec, WriteFile};
use super::error::ModuleError;
use super::inspect::{Inspect, UserEntry, goes_along};
use super::perform::Irreversible;
use super::place::is_closed;
use super::types::{Attributes, Content, Entry, EntryKind, Owner};

/// Keeps the content of a file that is about to be replaced, and returns how to get it back.
pub type Keep<'a> = &'a mut dyn FnMut(&Path) -> Result<Content, ModuleError>;

/// Returns the changes that undo `change`, in the order they have to be performed, or why that cannot be.
///
/// Must be asked before `change` is performed. `keep` is called for each file whose content would be lost.
pub fn inverse(host: &dyn Inspect, change: &Change, keep: Keep<'_>) -> Result<Vec<Change>, Irreversible> {
    match change {
        Change::WriteFile(write) => put_back(&write.path, Some(&EntryKind::File), host, keep),
        Change::Download(download) => put_back(&download.path, Some(&EntryKind::File), host, keep),
        Change::Symlink { path, target, .. } => put_back(path, Some(&EntryKind::Symlink(target.clone())), host, keep),
        Change::Remove { path, .. } => put_back(path, None, host, keep),
        Change::SetAttributes { path, before, after } => {
            Ok(vec![Change::SetAttributes { path: path.clone(), before: after.clone(), after: before.clone() }])
        }
        Change::MakeDirectory { path, attributes } => Ok(vec![remove(path, EntryKind::Directory, attributes)]),
        Change::Touch { path } if look(host, path)?.is_none() => {
            Ok(vec![Change::Remove { path: path.clone(), before: nothing_known(EntryKind::File) }])
        }
        Change::Touch { .. } | Change::Fetch { .. } => Ok(Vec::new()),
        Change::Unpack(unpack) => {
            let (mut undone, mut opening) = (Vec::new(), Vec::new());
            for member in &unpack.members {
                let path = unpack.dest.join(&member.path);
                let stays = matches!((&member.kind, look(host, &path)?), (MemberKind::Directory, Some(entry)) if entry.kind == EntryKind::Directory);
                if stays {
                    undone.extend(attributes_back(&path, host, &member.attributes)?);
                } else {
                    let coming = match &member.kind {
                        MemberKind::File(..) => EntryKind::File,
                        MemberKind::Directory => EntryKind::Directory,
                        MemberKind::Symlink(target) => EntryKind::Symlink(target.clone()),
                    };
                    undone.extend(put_back(&path, Some(&coming), host, keep)?.into_iter().rev());
                    // What is in a folder has to be removed before it.
                    if coming == EntryKind::Directory && is_closed(&member.attributes) {
                        let open = Attributes { mode: member.attributes.mode | 0o700, ..member.attributes.clone() };
                        opening.push(Change::SetAttributes { path, before: member.attributes.clone(), after: open });
                    }
                }
            }
            undone.reverse();
            Ok(opening.into_iter().chain(undone).collect())
        }
        Change::IssueCertificate(issue) => {
            let mut undone = put_back(&issue.certificate, Some(&EntryKind::File), host, keep)?;
            if issue.new_key {
                undone.extend(put_back(&issue.key, Some(&EntryKind::File), host, keep)?);
            }
            Ok(undone)
        }
        Change::Unit { unit, action, record, timeout, .. } => invert_unit(host, unit, *action, record.as_ref(), *timeout),
        Change::ReloadDaemon { .. } => Ok(vec![change.clone()]),
        Change::SetKernelParameter { key, before, after } => {
            Ok(vec![Change::SetKernelParameter { key: key.clone(), before: after.clone(), after: before.clone() }])
        }
        Change::Packages(packages) => Ok(invert_packages(packages)),
        Change::User { name, after, remove_home, .. } => invert_user(host, name, after.as_ref(), *remove_home, keep),
        Change::Group { name, after, .. } => invert_group(host, name, after.as_ref()),
        Change::Run(_) => Err(Irreversible("commands cannot be undone".to_owned())),
    }
}

/// Returns the changes that bring back what lies at `path` now, from where `coming` will have been put: first what clears the
/// place, then what fills it. A directory and something else never replace each other by themselves; where both are met, an
/// earlier change of the same group removes the one.
fn put_back(path: &Path, coming: Option<&EntryKind>, host: &dyn Inspect, keep: Keep<'_>) -> Result<Vec<Change>, Irreversible> {
    let clear = |kind: &EntryKind| Change::Remove { path: path.to_owned(), before: nothing_known(kind.clone()) };
    let Some(entry) = look(host, path)? else {
        return Ok(vec![clear(coming.unwrap_or(&EntryKind::File))]);
    };
    let in_the_way = coming.filter(|coming| (entry.kind == EntryKind::Directory) != (**coming == EntryKind::Directory));
    let mut changes: Vec<Change> = in_the_way.map(clear).into_iter().collect();
    let attributes = entry.attributes.clone();
    changes.extend(match entry.kind {
        EntryKind::File => {
            let content = keep(path).map_err(|error| Irreversible(error.message))?;
            vec![Change::WriteFile(WriteFile {
                path: path.to_owned(),
                content,
                attributes,
                before: None,
                before_digest: None,
                secret: attributes_are_private(&entry),
            })]
        }
        EntryKind::Symlink(target) => vec![Change::Symlink { path: path.to_owned(), target, before: None }],
        EntryKind::Directory => {
            let mut made = vec![Change::MakeDirectory { path: path.to_owned(), attributes }];
            for name in host.list(path).map_err(|error| Irreversible(error.message))? {
                made.extend(put_back(&path.join(name), None, host, keep)?);
            }
            made
        }
        EntryKind::Other => return Err(Irreversible(format!("the special file `{}` cannot be brought back", path.display()))),
    });
    Ok(changes)
}

/// Returns the change that gives a directory back the attributes that a member of an archive changes.
fn attributes_back(path: &Path, host: &dyn Inspect, then: &Attributes) -> Result<Option<Change>, Irreversible> {
    let now = look(host, path)?.map(|entry| entry.attributes).filter(|now| now != then);
    Ok(now.map(|now| Change::SetAttributes { path: path.to_owned(), before: then.clone(), after: now }))
}

/// A file that nobody but its owner may read is never shown when it is brought back.
fn attributes_are_private(entry: &Entry) -> bool {
    entry.attributes.mode & 0o077 == 0
}

fn look(host: &dyn Inspect, path: &Path) -> Result<Option<Entry>, Irreversible> {
    host.entry(path).map_err(|error| Irreversible(error.message))
}

fn remove(path: &Path, kind: EntryKind, attributes: &Attributes) -> Change {
    Change::Remove { path: path.to_owned(), before: Entry { attributes: attributes.clone(), ..nothing_known(kind) } }
}

/// Stands for an entry that does not exist yet when its removal is written down.
fn nothing_known(kind: EntryKind) -> Entry {
    let attributes = Attributes { mode: 0o644, owner: Owner::Id(0), group: Owner::Id(0) };
    Entry { kind, attributes, size: 0, mtime: 0, ctime: 0 }
}

fn invert_unit(
    host: &dyn Inspect,
    unit: &str,
    action: UnitAction,
    record: Option<&Record>,
    timeout: u64,
) -> Result<Vec<Change>, Irreversible> {
    let now = host.unit(unit).map_err(|error| Irreversible(error.message))?;
    let act = |inverse| {
        // What the unit reads again are the files as they were; a record of the newer ones would hide the next change to them.
        let record = record.filter(|_| inverse == action).cloned();
        Change::Unit { unit: unit.to_owned(), action: inverse, reason: "undo".to_owned(), record, timeout }
    };
    let active = matches!(now.active_state.as_str(), "active" | "reloading" | "activating");
    let enabled = now.unit_file_state.starts_with("enabled");
    Ok(match action {
        UnitAction::Start if !active => vec![act(UnitAction::Stop)],
        UnitAction::Stop if active => vec![act(UnitAction::Start)],
        UnitAction::Restart if !active => vec![act(UnitAction::Stop)],
        UnitAction::Restart | UnitAction::Reload => vec![act(action)],
        UnitAction::Enable if !enabled => vec![act(UnitAction::Disable)],
        UnitAction::Disable if enabled => vec![act(UnitAction::Enable)],
        UnitAction::Mask if now.load_state != "masked" => vec![act(UnitAction::Unmask)],
        UnitAction::Unmask if now.load_state == "masked" => vec![act(UnitAction::Mask)],
        _ => Vec::new(),
    })
}

fn invert_packages(packages: &Packages) -> Vec<Change> {
    let name = |wanted: &String| wanted.split('=').next().unwrap_or(wanted).to_owned();
    let versioned = |name: &String| packages.before.get(name).map(|version| format!("{name}={version}"));
    let (mut install, mut remove) = (Vec::new(), Vec::new());
    for wanted in packages.install.iter().map(name) {
        match versioned(&wanted) {
            Some(before) => install.push(before),
            None => remove.push(wanted),
        }
    }
    install.extend(packages.remove.iter().filter_map(versioned));
    if install.is_empty() && remove.is_empty() {
        return Vec::new();
    }
    vec![Change::Packages(Packages {
        install,
        remove,
        purge: false,
        update: false,
        before: std::collections::BTreeMap::new(),
        ..packages.clone()
    })]
}

fn invert_user(
    host: &dyn Inspect,
    name: &str,
    after: Option<&UserSpec>,
    remove_home: bool,
    keep: Keep<'_>,
) -> Result<Vec<Change>, Irreversible> {
    let now = host.user(name).map_err(|error| Irreversible(error.message))?;
    // The home directory that goes with the user comes back after it.
    let mut home_back = Vec::new();
    if let Some(user) = now.as_ref().filter(|user| remove_home && user.home.components().count() > 1)
        && look(host, &user.home)?.is_some()
    {
        home_back = put_back(&user.home, None, host, keep)?;
    }
    let mut before = match &now {
        Some(user) => Some(spec_of(host, user)?),
        None => None,
    };
    // A group of the user's own goes with the user; it comes back first, with its number.
    let own_group = match (&now, after) {
        (Some(user), None) if goes_along(host, user).map_err(|error| Irreversible(error.message))? => {
            let group = GroupSpec { gid: number(&user.group), system: false };
            Some(Change::Group { name: name.to_owned(), before: None, after: Some(group) })
        }
        _ => None,
    };
    // What the change leaves alone may change by others until it is taken back.
    if let (Some(after), Some(spec)) = (after, &mut before) {
        spec.uid = spec.uid.filter(|_| after.uid.is_some());
        spec.group = spec.group.take().filter(|_| after.group.is_some());
        spec.groups = spec.groups.take().filter(|_| after.groups.is_some());
        spec.home = spec.home.take().filter(|_| after.home.is_some());
        spec.shell = spec.shell.take().filter(|_| after.shell.is_some());
        spec.comment = spec.comment.take().filter(|_| after.comment.is_some());
    }
    // A home directory that is made with the user goes with the user.
    let home = after
        .filter(|spec| now.is_none() && spec.create_home)
        .map(|spec| spec.home.clone().unwrap_or_else(|| Path::new("/home").join(name)));
    let remove_home = match home {
        Some(home) => look(host, &home)?.is_none(),
        None => false,
    };
    let back = Change::User { name: name.to_owned(), before: after.cloned(), after: before, remove_home };
    Ok(own_group.into_iter().chain([back]).chain(home_back).collect())
}

/// Returns a user as it is, as a specification; the password hash is not known to a check and is left as it is.
fn spec_of(host: &dyn Inspect, user: &UserEntry) -> Result<UserSpec, Irreversible> {
    let group = match number(&user.group) {
        Some(gid) => host.group(&gid.to_string()).map_err(|error| Irreversible(error.message))?.map(|group| group.name),
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
        password_hash: None,
        aging: None,
    })
}

fn number(owner: &Owner) -> Option<u32> {
    match owner {
        Owner::Id(id) => Some(*id),
        Owner::Named(_) => None,
    }
}

fn invert_group(host: &dyn Inspect, name: &str, after: Option<&GroupSpec>) -> Result<Vec<Change>, Irreversible> {
    let now = host.group(name).map_err(|error| Irreversible(error.message))?;
    let members = now.iter().filter(|_| after.is_none()).flat_map(|group| group.members.clone());
    let mut joining = Vec::new();
    for member in members {
        // Listed are at times those who are gone.
        let Some(user) = host.user(&member).map_err(|error| Irreversible(error.message))? else { continue };
        let groups = UserSpec { groups: Some(user.groups), ..UserSpec::default() };
        joining.push(Change::User { name: member, before: Some(UserSpec::default()), after: Some(groups), remove_home: false });
    }
    let before = now.map(|group| GroupSpec { gid: number(&group.id), system: false });
    let mut inverse = vec![Change::Group { name: name.to_owned(), before: after.and_then(|spec| spec.gid), after: before }];
    inverse.extend(joining);
    Ok(inverse)
}

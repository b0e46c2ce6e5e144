//! The host in memory behaves like a kernel, a systemd and a user database where modules can tell.

use super::*;
use crate::api::change::{Change, UnitAction, WriteFile};
use crate::api::types::{Content, EntryKind};

fn write(path: &str, text: &str) -> Change {
    Change::WriteFile(WriteFile {
        path: path.into(),
        content: Content::Inline(text.into()),
        attributes: attributes(0o600, 0, 0),
        before: None,
        before_digest: None,
        secret: false,
    })
}

#[test]
fn inverses_bring_back_the_first_state() {
    let mut host = Fake::new()
        .file("/etc/old", "old")
        .directory("/srv/tree")
        .file("/srv/tree/a", "a")
        .link("/srv/tree/l", "a")
        .user("bob", 1000)
        .unit("x", |_| {});
    let first = host.state();
    let entry = |host: &Fake, path: &str| host.entry(Path::new(path)).unwrap().unwrap();
    let changes = vec![
        write("/etc/old", "new"),
        write("/etc/new", "new"),
        Change::SetAttributes { path: "/etc/old".into(), before: attributes(0o600, 0, 0), after: attributes(0o640, 1000, 0) },
        Change::Remove { path: "/srv/tree".into(), before: entry(&host, "/srv/tree") },
        Change::MakeDirectory { path: "/srv/new".into(), attributes: attributes(0o700, 0, 0) },
        Change::Symlink { path: "/srv/new/l".into(), target: "/etc".into(), before: None },
        Change::Unit { unit: "x".into(), action: UnitAction::Enable, reason: String::new(), record: None, timeout: 0 },
        Change::Unit { unit: "x".into(), action: UnitAction::Start, reason: String::new(), record: None, timeout: 0 },
        Change::User { name: "bob".into(), before: None, after: None, remove_home: false },
        Change::Group { name: "new".into(), before: None, after: Some(crate::api::change::GroupSpec { gid: Some(7), system: false }) },
    ];
    let mut undo = Vec::new();
    for change in &changes {
        undo.push(host.invert(change).unwrap());
        host.perform(change, &mut Alone).unwrap();
    }
    assert_ne!(host.state(), first);
    for change in undo.into_iter().rev().flatten() {
        host.perform(&change, &mut Alone).unwrap();
    }
    assert_eq!(host.state(), first);
}

#[test]
fn a_unit_file_makes_a_unit_and_a_change_of_it_needs_a_reload() {
    let mut host = Fake::new().directory("/etc/systemd/system");
    assert_eq!(Inspect::unit(&host, "x").unwrap().load_state, "not-found");
    host.perform(&write("/etc/systemd/system/x.service", "[Service]\nExecStart=/x\n[Install]\nWantedBy=a.target\n"), &mut Alone).unwrap();
    let unit = Inspect::unit(&host, "x").unwrap();
    assert_eq!((unit.load_state.as_str(), unit.unit_file_state.as_str(), unit.need_daemon_reload), ("loaded", "disabled", false));
    host.perform(&write("/etc/systemd/system/x.service", "[Service]\nExecStart=/y\n"), &mut Alone).unwrap();
    assert_eq!(Inspect::unit(&host, "x").unwrap().exec_start, "/y");
    host.perform(
        &Change::Unit { unit: "x".into(), action: UnitAction::Start, reason: String::new(), record: None, timeout: 0 },
        &mut Alone,
    )
    .unwrap();
    host.perform(&write("/etc/systemd/system/x.service", "[Service]\nExecStart=/z\n"), &mut Alone).unwrap();
    assert!(Inspect::unit(&host, "x").unwrap().need_daemon_reload);
}

#[test]
fn writing_needs_a_parent_and_follows_links_among_parents() {
    let mut host = Fake::new().directory("/data/real").link("/srv", "/data/real");
    assert!(host.perform(&write("/nowhere/x", ""), &mut Alone).is_err());
    host.perform(&write("/srv/x", "text"), &mut Alone).unwrap();
    assert_eq!(host.text("/data/real/x").as_deref(), Some("text"));
    assert_eq!(host.entry(Path::new("/srv")).unwrap().unwrap().kind, EntryKind::Symlink("/data/real".into()));
}

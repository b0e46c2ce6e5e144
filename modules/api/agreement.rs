//! Hosts in memory and folders that stand for hosts agree: what the tables of cases show holds on a real file system.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::change::{Change, WriteFile};
use super::fake::{Alone, Fake, apply};
use super::inspect::Inspect;
use super::machine::Machine;
use super::perform::Perform;
use super::trial::Served;
use super::types::{Attributes, Content, Digest, Entry, EntryKind};
use crate::REGISTRY;

/// Modules whose cases are made of files alone, as far as those can be made in a folder.
const FILES: [&str; 10] = ["archive", "copy", "download", "fetch", "file", "file_diff", "hosts_file", "line", "stat", "template"];

/// What is at a path: kind, attributes, and digest of a file's content.
type Shown = (EntryKind, Attributes, Option<Digest>);

/// Everything on a host but the user database, which a host in memory keeps elsewhere.
fn everything(host: &dyn Inspect) -> BTreeMap<PathBuf, (Shown, Entry)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from("/")];
    while let Some(folder) = folders.pop() {
        for name in host.list(&folder).unwrap() {
            let path = folder.join(name);
            if ["/etc/passwd", "/etc/group", "/var/lib"].iter().any(|kept| path == Path::new(kept)) {
                continue;
            }
            let entry = host.entry(&path).unwrap().unwrap();
            let digest = (entry.kind == EntryKind::File).then(|| Digest::of(&host.read(&path, u64::MAX).unwrap()));
            if entry.kind == EntryKind::Directory {
                folders.push(path.clone());
            }
            found.insert(path, ((entry.kind.clone(), entry.attributes.clone(), digest), entry));
        }
    }
    found
}

fn shown(host: &dyn Inspect) -> BTreeMap<PathBuf, Shown> {
    everything(host).into_iter().map(|(path, (shown, _))| (path, shown)).collect()
}

/// Makes on `machine` all that is on `host`.
fn build(host: &Fake, machine: &mut Machine) {
    let mut make =
        |change: Change| machine.perform(&change, &mut Alone).map(|_| ()).unwrap_or_else(|error| panic!("{change:?}: {error:?}"));
    for (path, (_, entry)) in everything(host) {
        let attributes = entry.attributes;
        match entry.kind {
            EntryKind::Directory => make(Change::MakeDirectory { path, attributes }),
            EntryKind::Symlink(target) => {
                let default = host.entry(Path::new("/")).unwrap().unwrap().attributes;
                make(Change::Symlink { path: path.clone(), target, before: None });
                make(Change::SetAttributes { path, before: default, after: attributes });
            }
            EntryKind::File => {
                let content = Content::Inline(host.read(&path, u64::MAX).unwrap());
                make(Change::WriteFile(WriteFile { path, content, attributes, before: None, before_digest: None, secret: false }));
            }
            EntryKind::Other => panic!("`{}` cannot be made in a folder", path.display()),
        }
    }
}

/// The user database of a host in memory, as files.
fn user_database(root: &Path, host: &Fake) {
    let ids = ["root", "app", "www", "me"].iter().filter_map(|name| Some((name, host.user(name).unwrap()?)));
    let (mut passwd, mut group) = (String::new(), String::new());
    for (name, user) in ids {
        let super::Owner::Id(id) = user.id else { continue };
        passwd.push_str(&format!("{name}:x:{id}:{id}::{}:{}\n", user.home.display(), user.shell));
        group.push_str(&format!("{name}:x:{id}:\n"));
    }
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    std::fs::write(root.join("etc/group"), group).unwrap();
}

/// Leaves out of a change what differs from host to host: times.
fn timeless(change: &Change) -> String {
    let text = format!("{change:?}");
    let mut parts = text.split("mtime: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.find('}').map_or(part, |end| &part[end..]))
}

#[test]
fn a_folder_is_changed_as_a_host_in_memory_is() {
    for entry in REGISTRY.iter().filter(|entry| FILES.contains(&entry.name)) {
        for (number, example) in (entry.examples)().into_iter().enumerate() {
            let place = format!("{} {number}", entry.name);
            let (name, arguments, mut fake, desk) = example.parts();
            let mut module = (entry.parse)(arguments).unwrap();
            module.prepare(&desk).unwrap();
            fake.take_blobs(&desk);
            let root = tempfile::tempdir().unwrap();
            let state = root.path().join("var/lib/kplay");
            let mut machine = Machine::new(Some(root.path().to_owned()), state.clone(), "run");
            build(&fake, &mut machine);
            user_database(root.path(), &fake);
            let mut machine = Machine::new(Some(root.path().to_owned()), state, "run");
            assert_eq!(shown(&machine), shown(&fake), "{place}: {name}: before");
            let real = module.check(&machine).unwrap_or_else(|error| panic!("{place}: {name}: {error:?}"));
            let imagined = module.check(&fake).unwrap();
            let lines = |changes: &[Change]| changes.iter().map(timeless).collect::<Vec<_>>();
            assert_eq!(lines(&real.changes), lines(&imagined.changes), "{place}: {name}");
            // There is no server here.
            if real.changes.iter().any(|change| matches!(change, Change::Download(_))) {
                continue;
            }
            apply(&*module, &mut fake).unwrap();
            for change in &real.changes {
                machine.perform(change, &mut Served(desk.blobs())).unwrap_or_else(|error| panic!("{place}: {name}: {change:?}: {error:?}"));
            }
            assert_eq!(shown(&machine), shown(&fake), "{place}: {name}: after");
            if !real.repeating {
                assert_eq!(module.check(&machine).unwrap().changes, [], "{place}: {name}: asked again");
            }
        }
    }
}

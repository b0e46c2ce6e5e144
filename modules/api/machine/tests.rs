//! The real host, in folders that stand for one: files, attributes, links, what is brought back, what a root keeps in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::Machine;
use crate::api::change::{Change, Download, WriteFile};
use crate::api::error::ModuleError;
use crate::api::inspect::{Fingerprint, Inspect};
use crate::api::journal::Kept;
use crate::api::perform::{Perform, Performed, Supplied, Upstream};
use crate::api::types::{Attributes, Blob, Content, Digest, EntryKind, Owner};

/// A folder that stands for a host, with its own state folder.
pub(super) struct Bench {
    pub folder: tempfile::TempDir,
    pub machine: Machine,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        let machine = Self::open(&folder);
        Self { folder, machine }
    }

    /// Forgets all that is only in memory.
    pub fn again(&mut self) {
        self.machine = Self::open(&self.folder);
    }

    fn open(folder: &tempfile::TempDir) -> Machine {
        Machine::new(Some(folder.path().join("root")), folder.path().join("state"), "run-1")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns where a path of the host lies, as a test sees it.
    pub fn real(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.real(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.real(path)).unwrap()
    }

    pub fn perform(&mut self, change: &Change) -> Result<Performed, ModuleError> {
        self.machine.perform(change, &mut Nothing)
    }

    /// Returns all below the root: kind, mode, owner and content of each path.
    pub fn picture(&self) -> BTreeMap<String, String> {
        let mut picture = BTreeMap::new();
        let mut folders = vec![PathBuf::from("/")];
        while let Some(folder) = folders.pop() {
            for name in self.machine.list(&folder).unwrap() {
                let path = folder.join(name);
                let entry = self.machine.entry(&path).unwrap().unwrap();
                let mut line =
                    format!("{:?} {:04o} {:?}:{:?}", entry.kind, entry.attributes.mode, entry.attributes.owner, entry.attributes.group);
                match entry.kind {
                    EntryKind::Directory => folders.push(path.clone()),
                    EntryKind::File => line += &String::from_utf8_lossy(&self.machine.read(&path, 1 << 30).unwrap()),
                    EntryKind::Symlink(_) | EntryKind::Other => {}
                }
                picture.insert(path.display().to_string(), line);
            }
        }
        picture
    }
}

/// A controller that has nothing to give.
pub(super) struct Nothing;

impl Upstream for Nothing {
    fn blob(&mut self, _blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        Err(ModuleError::host("there are no blobs"))
    }

    fn sign(&mut self, _request: &[u8]) -> Result<String, ModuleError> {
        Err(ModuleError::host("nothing is signed"))
    }

    fn deliver(&mut self, _content: &mut dyn Read) -> Result<(), ModuleError> {
        Err(ModuleError::host("nothing is fetched"))
    }
}

/// A controller with one blob, which notes what is delivered to it.
#[derive(Default)]
pub(super) struct Desk {
    pub blob: Vec<u8>,
    /// Where the blob lies on the host already, all of it.
    pub arrived: Option<PathBuf>,
    pub delivered: RefCell<Vec<u8>>,
}

impl Upstream for Desk {
    fn blob(&mut self, _blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        Ok(Box::new(self.blob.as_slice()))
    }

    fn supply(&mut self, blob: &Blob) -> Result<Supplied<'_>, ModuleError> {
        match &self.arrived {
            Some(file) => Ok(Supplied::File(file.clone())),
            None => self.blob(blob).map(Supplied::Stream),
        }
    }

    fn sign(&mut self, _request: &[u8]) -> Result<String, ModuleError> {
        Err(ModuleError::host("nothing is signed"))
    }

    fn deliver(&mut self, content: &mut dyn Read) -> Result<(), ModuleError> {
        content.read_to_end(&mut self.delivered.borrow_mut()).map(drop).map_err(|error| ModuleError::host(error.to_string()))
    }
}

pub(super) fn superuser() -> bool {
    rustix::process::geteuid().is_root()
}

/// Owners that this test may give away: another user's where it is root.
pub(super) fn attributes(mode: u32) -> Attributes {
    let id = if superuser() { 7 } else { 0 };
    Attributes { mode, owner: Owner::Id(id), group: Owner::Id(id) }
}

pub(super) fn write(path: &str, text: &str, mode: u32) -> Change {
    Change::WriteFile(WriteFile {
        path: path.into(),
        content: Content::Inline(text.into()),
        attributes: attributes(mode),
        before: None,
        before_digest: None,
        secret: false,
    })
}

fn remove(bench: &Bench, path: &str) -> Change {
    Change::Remove { path: path.into(), before: bench.machine.entry(Path::new(path)).unwrap().unwrap() }
}

fn set(path: &str, before: Attributes, after: Attributes) -> Change {
    Change::SetAttributes { path: path.into(), before, after }
}

fn leftovers(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(super::staged::PREFIX)).collect()
}

#[test]
fn a_file_gets_content_mode_and_owner_and_readers_keep_the_old_one() {
    let mut bench = Bench::new();
    bench.write("/etc/a", "old");
    let mut reader = std::fs::File::open(bench.real("/etc/a")).unwrap();
    bench.perform(&write("/etc/a", "new", 0o4751)).unwrap();
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!((old.as_str(), bench.text("/etc/a").as_str()), ("old", "new"));
    let entry = bench.machine.entry(Path::new("/etc/a")).unwrap().unwrap();
    assert_eq!(entry.attributes, attributes(0o4751));
    assert_eq!(leftovers(&bench.real("/etc")), [""; 0]);
}

#[test]
fn user_attributes_and_access_lists_stay_with_the_name() {
    let mut bench = Bench::new();
    bench.write("/a", "old");
    let set = rustix::fs::setxattr(bench.real("/a"), "user.note", b"mine", rustix::fs::XattrFlags::empty());
    // Some file systems have none.
    if set.is_err() {
        return;
    }
    bench.perform(&write("/a", "new", 0o644)).unwrap();
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(bench.real("/a"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"mine");
}

#[test]
fn content_that_is_not_what_was_promised_leaves_nothing() {
    let mut bench = Bench::new();
    bench.write("/etc/a", "old");
    let blob = Blob { digest: Digest::of(b"promised"), size: 8, secret: false };
    let Change::WriteFile(mut change) = write("/etc/a", "", 0o644) else { unreachable!() };
    change.content = Content::Blob(blob);
    let mut desk = Desk { blob: b"another".to_vec(), ..Desk::default() };
    let error = bench.machine.perform(&Change::WriteFile(change), &mut desk).unwrap_err();
    assert!(error.message.contains("not the one announced"), "{error}");
    assert_eq!(bench.text("/etc/a"), "old");
    assert_eq!(leftovers(&bench.real("/etc")), [""; 0]);
}

#[test]
fn a_file_is_never_put_over_a_directory_nor_into_a_missing_one() {
    let mut bench = Bench::new();
    bench.write("/etc/a/b", "");
    assert!(bench.perform(&write("/etc/a", "x", 0o644)).unwrap_err().message.contains("it is a directory"));
    assert!(bench.perform(&Change::Symlink { path: "/etc/a".into(), target: "b".into(), before: None }).is_err());
    let error = bench.perform(&write("/etc/no/a", "x", 0o644)).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("the folder `/etc/no` does not exist: make it first with the `file` module"));
}

#[test]
fn the_setuid_bit_survives_a_change_of_owner() {
    let mut bench = Bench::new();
    bench.write("/tool", "x");
    std::fs::set_permissions(bench.real("/tool"), PermissionsExt::from_mode(0o6755)).unwrap();
    let before = bench.machine.entry(Path::new("/tool")).unwrap().unwrap().attributes;
    bench.perform(&set("/tool", before, attributes(0o6755))).unwrap();
    assert_eq!(bench.machine.entry(Path::new("/tool")).unwrap().unwrap().attributes, attributes(0o6755));
    assert_eq!(std::fs::metadata(bench.real("/tool")).unwrap().mode() & 0o7777, 0o6755);
}

#[test]
fn attributes_of_a_link_do_not_reach_its_target() {
    let mut bench = Bench::new();
    bench.write("/target", "x");
    std::fs::set_permissions(bench.real("/target"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("target", bench.real("/link")).unwrap();
    let before = std::fs::metadata(bench.real("/target")).unwrap();
    bench.perform(&set("/link", attributes(0o777), attributes(0o666))).unwrap();
    let after = std::fs::metadata(bench.real("/target")).unwrap();
    assert_eq!((before.mode(), before.uid(), before.ctime_nsec()), (after.mode(), after.uid(), after.ctime_nsec()));
}

#[test]
fn a_link_takes_the_place_of_a_file_or_link() {
    let mut bench = Bench::new();
    bench.write("/v1/x", "1").write("/v2/x", "2");
    for (target, text) in [("v1", "1"), ("/v2", "2")] {
        bench.perform(&Change::Symlink { path: "/current".into(), target: target.into(), before: None }).unwrap();
        assert_eq!(bench.machine.read(Path::new("/current/x"), 9).unwrap(), text.as_bytes());
    }
    bench.perform(&Change::Symlink { path: "/v1/x".into(), target: "/v2/x".into(), before: None }).unwrap();
    assert_eq!(bench.machine.read(Path::new("/v1/x"), 9).unwrap(), b"2");
    assert_eq!(leftovers(&bench.real("/")), [""; 0]);
}

#[test]
fn removing_a_tree_does_not_follow_links() {
    let mut bench = Bench::new();
    std::fs::write(bench.folder.path().join("outside/kept"), "").unwrap();
    bench.write("/tree/a/b", "");
    symlink(bench.folder.path().join("outside"), bench.real("/tree/out")).unwrap();
    symlink("/tree", bench.real("/other")).unwrap();
    bench.perform(&remove(&bench, "/other")).unwrap();
    assert!(bench.real("/tree/a/b").exists());
    bench.perform(&remove(&bench, "/tree")).unwrap();
    assert!(!bench.real("/tree").exists());
    assert!(bench.folder.path().join("outside/kept").exists());
}

#[test]
fn a_root_keeps_everything_in() {
    let mut bench = Bench::new();
    bench.write("/inside/x", "in");
    std::fs::write(bench.folder.path().join("outside/x"), "out").unwrap();
    let outside = bench.folder.path().join("outside");
    symlink(&outside, bench.real("/absolute")).unwrap();
    symlink("../../../outside", bench.real("/relative")).unwrap();
    symlink("/inside", bench.real("/good")).unwrap();
    symlink("/loop", bench.real("/loop")).unwrap();
    for path in ["/absolute/x", "/relative/x", "/../outside/x", "/inside/../../outside/x"] {
        assert_eq!(bench.machine.target(Path::new(path)).unwrap(), None, "{path}");
        assert!(bench.perform(&write(path, "escaped", 0o644)).is_err(), "{path}");
    }
    assert_eq!(std::fs::read_to_string(outside.join("x")).unwrap(), "out");
    assert_eq!(bench.machine.read(Path::new("/good/x"), 9).unwrap(), b"in");
    assert!(bench.machine.target(Path::new("/loop/x")).is_err());
    assert!(bench.machine.entry(Path::new("relative/path")).is_err());
}

#[test]
fn a_file_is_hashed_again_once_it_has_changed() {
    let bench = Bench::new();
    bench.write("/a", "one");
    let digest = || bench.machine.fingerprint(Path::new("/a")).unwrap();
    let first = digest();
    // Same size, and perhaps the same tick of the file system's clock.
    bench.write("/a", "two");
    assert_ne!(digest(), first);
    assert_eq!(bench.machine.fingerprint(Path::new("/no")).unwrap(), None);
    assert_eq!(bench.machine.fingerprint(Path::new("/")).unwrap(), None);
}

#[test]
fn what_was_hashed_as_it_arrived_is_hashed_again_once_it_has_changed() {
    let mut bench = Bench::new();
    let aside = bench.folder.path().join("aside");
    std::fs::write(&aside, "large").unwrap();
    let digest = Digest::of(b"what was hashed");
    let change = Change::WriteFile(WriteFile {
        path: "/large".into(),
        content: Content::Blob(Blob { digest, size: 5, secret: false }),
        attributes: attributes(0o644),
        before: None,
        before_digest: None,
        secret: false,
    });
    bench.machine.perform(&change, &mut Desk { arrived: Some(aside.clone()), ..Desk::default() }).unwrap();
    assert!(!aside.exists());
    let found = |bench: &Bench| bench.machine.fingerprint(Path::new("/large")).unwrap();
    assert_eq!(found(&bench), Some(Fingerprint::Known(digest)));
    // The next tick of the file system's clock.
    std::thread::sleep(std::time::Duration::from_millis(50));
    std::fs::write(bench.real("/large"), "LARGE").unwrap();
    assert_eq!(found(&bench), Some(Fingerprint::Known(Digest::of(b"LARGE"))));
}

#[test]
fn reading_has_a_limit_and_refuses_what_is_no_file() {
    let bench = Bench::new();
    bench.write("/a", "12345");
    assert_eq!(bench.machine.read(Path::new("/a"), 5).unwrap(), b"12345");
    assert!(bench.machine.read(Path::new("/a"), 4).unwrap_err().message.contains("larger than the limit"));
    assert!(bench.machine.read(Path::new("/"), 4).unwrap_err().message.contains("it is a directory"));
}

#[test]
fn a_file_travels_to_the_controller() {
    let mut bench = Bench::new();
    bench.write("/a", "content");
    let mut desk = Desk::default();
    let content = Blob { digest: Digest::of(b"content"), size: 7, secret: false };
    bench.machine.perform(&Change::Fetch { path: "/a".into(), dest: "/x".into(), content }, &mut desk).unwrap();
    assert_eq!(*desk.delivered.borrow(), b"content");
}

/// Performs changes, then what was said to undo them, and compares all below the root.
fn there_and_back(prepare: impl Fn(&Bench), changes: impl Fn(&Bench) -> Vec<Change>) {
    let mut bench = Bench::new();
    prepare(&bench);
    let before = bench.picture();
    let changes = changes(&bench);
    // As the agent does: the inverses of a group first, then the group.
    let inverses: Vec<Vec<Change>> = changes.iter().map(|change| bench.machine.invert(change).unwrap()).collect();
    for change in &changes {
        bench.perform(change).unwrap();
    }
    assert_ne!(bench.picture(), before, "{changes:?} did nothing");
    let mut kept = Kept::of(&bench.state(), "run-1").unwrap();
    for inverse in inverses.iter().rev().flatten() {
        bench.machine.perform(inverse, &mut kept).unwrap();
    }
    assert_eq!(bench.picture(), before, "{changes:?}");
}

#[test]
fn what_was_changed_comes_back() {
    let directory = |path: &str| Change::MakeDirectory { path: path.into(), attributes: attributes(0o750) };
    let link = |path: &str, target: &str| Change::Symlink { path: path.into(), target: target.into(), before: None };
    there_and_back(|_| {}, |_| vec![write("/a", "new", 0o600)]);
    there_and_back(|bench| _ = bench.write("/a", "old"), |_| vec![write("/a", "new", 0o600), write("/a", "newer", 0o640)]);
    there_and_back(|bench| symlink("x", bench.real("/a")).unwrap(), |_| vec![write("/a", "new", 0o600)]);
    there_and_back(|bench| _ = bench.write("/a", "old"), |_| vec![link("/a", "/etc")]);
    there_and_back(|_| {}, |_| vec![link("/a", "b")]);
    there_and_back(|_| {}, |_| vec![directory("/d"), directory("/d/e"), write("/d/e/f", "x", 0o644)]);
    there_and_back(
        |bench| _ = bench.write("/a", "x"),
        |_| vec![set("/a", attributes(0o644), attributes(0o400))].into_iter().map(fix_before).collect(),
    );
}

/// A check says what is there; here it is a file that this test made.
fn fix_before(change: Change) -> Change {
    match change {
        Change::SetAttributes { path, after, .. } => {
            let before = Attributes { mode: 0o644, owner: Owner::Id(0), group: Owner::Id(0) };
            Change::SetAttributes { path, before, after }
        }
        other => other,
    }
}

#[test]
fn removed_trees_come_back_whole() {
    let prepare = |bench: &Bench| {
        bench.write("/tree/a/b", "text").write("/tree/c", &"large".repeat(500_000)).write("/tree/d", "text");
        symlink("../nowhere", bench.real("/tree/a/link")).unwrap();
        // What its owner may not write to, only the superuser can take away.
        let closed = if superuser() { 0o500 } else { 0o700 };
        std::fs::set_permissions(bench.real("/tree/a"), PermissionsExt::from_mode(closed)).unwrap();
        std::fs::set_permissions(bench.real("/tree/d"), PermissionsExt::from_mode(0o600)).unwrap();
    };
    there_and_back(prepare, |bench| vec![remove(bench, "/tree")]);
    there_and_back(prepare, |bench| vec![remove(bench, "/tree"), write("/tree", "a file now", 0o644)]);
}

#[test]
fn a_download_is_verified_before_it_gets_its_name() {
    let mut bench = Bench::new();
    bench.write("/source", "content").write("/dest", "old");
    let mut download = Download {
        url: "file:///source".into(),
        digest: Digest::of(b"content"),
        path: "/dest".into(),
        attributes: attributes(0o755),
        before: None,
        ca: None,
        timeout: 10,
    };
    bench.perform(&Change::Download(download.clone())).unwrap();
    assert_eq!(bench.text("/dest"), "content");
    download.digest = Digest::of(b"other");
    let error = bench.perform(&Change::Download(download)).unwrap_err();
    assert_eq!(error.details.len(), 2);
    assert_eq!(bench.text("/dest"), "content");
}

/// Runs on a thread that is another user.
pub(super) fn as_nobody(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        if superuser() {
            let (uid, gid) = (rustix::fs::Uid::from_raw(65_534), rustix::fs::Gid::from_raw(65_534));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn without_privileges_owners_below_a_root_are_assumed() {
    as_nobody(|| {
        let mut bench = Bench::new();
        let owned = Attributes { mode: 0o640, owner: Owner::Id(0), group: Owner::Id(42) };
        let Change::WriteFile(mut change) = write("/etc-passwd", "x", 0o640) else { unreachable!() };
        change.attributes = owned.clone();
        bench.perform(&Change::WriteFile(change)).unwrap();
        let seen = |bench: &Bench| bench.machine.entry(Path::new("/etc-passwd")).unwrap().map(|entry| entry.attributes);
        assert_eq!(seen(&bench), Some(owned.clone()));
        bench.again();
        assert_eq!(seen(&bench), Some(owned));
        bench.perform(&remove(&bench, "/etc-passwd")).unwrap();
        bench.write("/etc-passwd", "by hand");
        assert_eq!(seen(&bench).map(|attributes| attributes.group), Some(Owner::Id(0)));
    });
}

#[test]
fn without_privileges_the_host_itself_refuses() {
    as_nobody(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Machine::new(None, folder.path().join("state"), "run-1");
        let Change::WriteFile(mut change) = write("/", "x", 0o640) else { unreachable!() };
        change.path = folder.path().join("a");
        change.attributes = Attributes { mode: 0o640, owner: Owner::Id(0), group: Owner::Id(0) };
        let error = machine.perform(&Change::WriteFile(change), &mut Nothing).unwrap_err();
        assert!(error.message.starts_with("cannot change the owner of"), "{error}");
        assert!(error.hint.is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn facts_of_this_machine_are_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(None, folder.path().to_owned(), "run-1");
    let facts = machine.facts();
    assert_eq!(facts.architecture, std::env::consts::ARCH);
    assert!(facts.processors > 0 && facts.memory_mib > 0 && facts.time > 1_600_000_000, "{facts:?}");
    assert!(!facts.user.is_empty() && facts.home.is_absolute(), "{facts:?}");
    let default = facts.addresses.get(&facts.default_interface).and_then(|list| list.first());
    assert_eq!(default.map_or("", |address| address), facts.default_address);
}

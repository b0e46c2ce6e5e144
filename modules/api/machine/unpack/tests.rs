//! Archives unpacked for real.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::tests::{Bench, Desk, as_nobody, attributes, superuser};
use crate::api::change::{Change, Member, MemberKind, Unpack};
use crate::api::error::ModuleError;
use crate::api::inspect::Inspect;
use crate::api::journal::Kept;
use crate::api::perform::Perform;
use crate::api::types::{Blob, Digest};

/// A tar file of files, directories (`name/`), links (`name -> target`) and hard links (`name => target`).
fn tarball(members: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(0);
        if let Some((name, target)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, name, target).unwrap();
        } else if let Some((name, target)) = name.split_once(" => ") {
            header.set_entry_type(tar::EntryType::Link);
            builder.append_link(&mut header, name, target).unwrap();
        } else {
            header.set_size(content.len() as u64);
            header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn member(path: &str, kind: MemberKind, mode: u32) -> Member {
    Member { path: path.into(), kind, attributes: attributes(mode), before: None }
}

fn file(path: &str, content: &str) -> Member {
    member(path, MemberKind::File(Digest::of(content.as_bytes()), content.len() as u64), 0o640)
}

fn unpack(bench: &mut Bench, archive: &[u8], members: Vec<Member>) -> Result<(), ModuleError> {
    let change = change(archive, members);
    let mut desk = Desk { blob: archive.to_vec(), ..Desk::default() };
    bench.machine.perform(&change, &mut desk).map(drop)
}

fn change(archive: &[u8], members: Vec<Member>) -> Change {
    let archive = Blob { digest: Digest::of(archive), size: archive.len() as u64, secret: false };
    Change::Unpack(Unpack { archive, name: "x.tar".into(), dest: "/opt/x".into(), strip: 1, members })
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("/opt/x/own", "kept");
    bench
}

#[test]
fn members_get_their_attributes_and_the_rest_is_left_out() {
    let mut bench = bench();
    let archive =
        tarball(&[("top/", ""), ("top/bin/", ""), ("top/bin/tool", "tool"), ("top/doc/readme", "readme"), ("top/bin/alias -> tool", "")]);
    let members = vec![
        member("bin", MemberKind::Directory, 0o550),
        file("bin/tool", "tool"),
        member("bin/alias", MemberKind::Symlink("tool".into()), 0o777),
    ];
    unpack(&mut bench, &archive, members).unwrap();
    let entry = |path: &str| bench.machine.entry(Path::new(path)).unwrap();
    assert_eq!(entry("/opt/x/bin").unwrap().attributes, attributes(0o550));
    assert_eq!(entry("/opt/x/bin/tool").unwrap().attributes, attributes(0o640));
    assert_eq!(bench.machine.read(Path::new("/opt/x/bin/alias"), 10).unwrap(), b"tool");
    assert_eq!(entry("/opt/x/doc"), None);
    assert_eq!(bench.machine.list(Path::new("/opt/x")).unwrap(), ["bin", "own"]);
}

#[test]
fn hard_links_become_copies_even_of_what_is_left_out() {
    let mut bench = bench();
    let archive = tarball(&[("top/a", "same"), ("top/b => top/a", ""), ("top/deep/c => top/a", "")]);
    unpack(&mut bench, &archive, vec![file("b", "same"), file("deep/c", "same")]).unwrap();
    assert_eq!((bench.text("/opt/x/b").as_str(), bench.text("/opt/x/deep/c").as_str()), ("same", "same"));
    assert!(!bench.real("/opt/x/a").exists());
}

#[test]
fn the_last_of_two_members_with_one_name_counts() {
    let mut bench = bench();
    let archive = tarball(&[("top/a", "1st"), ("top/a", "2nd"), ("top/empty", ""), ("top/void", "")]);
    unpack(&mut bench, &archive, vec![file("a", "2nd"), file("empty", ""), file("void", "")]).unwrap();
    assert_eq!((bench.text("/opt/x/a").as_str(), bench.text("/opt/x/void").as_str()), ("2nd", ""));
}

#[test]
fn an_archive_that_is_not_as_announced_leaves_nothing() {
    let mut bench = bench();
    let before = bench.picture();
    let archive = tarball(&[("top/a", "good"), ("top/b", "evil")]);
    let error = unpack(&mut bench, &archive, vec![file("a", "good"), file("b", "fine")]).unwrap_err();
    assert!(error.message.contains("does not hold `b`"), "{error}");
    assert_eq!(bench.picture(), before);
    let error = unpack(&mut bench, &archive[..700], vec![file("a", "good"), file("b", "evil")]).unwrap_err();
    assert!(error.message.contains("cannot read the archive"), "{error}");
    assert_eq!(bench.picture(), before);
}

#[test]
fn nothing_is_written_through_a_link_or_out_of_the_folder() {
    let mut bench = bench();
    symlink(bench.folder.path().join("outside"), bench.real("/opt/x/out")).unwrap();
    symlink("/etc", bench.real("/opt/x/etc")).unwrap();
    bench.write("/etc/passwd", "root");
    let archive = tarball(&[("top/etc/passwd", "evil"), ("top/out/x", "evil"), ("top/new -> /etc", ""), ("top/new/passwd", "evil")]);
    for path in ["etc/passwd", "out/x"] {
        assert!(unpack(&mut bench, &archive, vec![file(path, "evil")]).unwrap_err().message.contains("is a link"), "{path}");
    }
    let planted = vec![member("new", MemberKind::Symlink("/etc".into()), 0o777), file("new/passwd", "evil")];
    assert!(unpack(&mut bench, &archive, planted).unwrap_err().message.contains("is a link"));
    for path in ["../y", "/y", "a/../../y"] {
        assert!(unpack(&mut bench, &archive, vec![file(path, "evil")]).is_err(), "{path}");
    }
    assert_eq!(bench.text("/etc/passwd"), "root");
}

#[test]
fn what_only_links_and_directories_differ_in_needs_no_archive() {
    let mut bench = bench();
    let members = vec![member("d", MemberKind::Directory, 0o755), member("l", MemberKind::Symlink("d".into()), 0o777)];
    bench.perform(&change(b"", members)).unwrap();
    assert_eq!(bench.machine.list(Path::new("/opt/x")).unwrap(), ["d", "l", "own"]);
}

#[test]
fn what_was_unpacked_is_undone() {
    let mut bench = bench();
    bench.write("/opt/x/a", "old").write("/opt/x/d/own", "kept");
    symlink("own", bench.real("/opt/x/l")).unwrap();
    let before = bench.picture();
    let archive = tarball(&[("top/a", "new"), ("top/d/b", "b"), ("top/e/c", "c")]);
    let members = vec![
        // What its owner may not write to, only the superuser can take away.
        member("d", MemberKind::Directory, if superuser() { 0o500 } else { 0o700 }),
        member("e", MemberKind::Directory, 0o755),
        file("a", "new"),
        file("d/b", "b"),
        file("e/c", "c"),
        member("l", MemberKind::Symlink("a".into()), 0o777),
    ];
    let inverse = bench.machine.invert(&change(&archive, members.clone())).unwrap();
    unpack(&mut bench, &archive, members).unwrap();
    assert_ne!(bench.picture(), before);
    let mut kept = Kept::of(&bench.state(), "run-1").unwrap();
    for change in &inverse {
        bench.machine.perform(change, &mut kept).unwrap();
    }
    assert_eq!(bench.picture(), before);
}

#[test]
fn a_folder_that_its_owner_may_not_write_is_filled_and_undone_without_privileges() {
    as_nobody(|| {
        let mut bench = bench();
        let before = bench.picture();
        let archive = tarball(&[("x/ro/", ""), ("x/ro/a", "text")]);
        let change = change(&archive, vec![member("ro", MemberKind::Directory, 0o555), file("ro/a", "text")]);
        let back = bench.machine.invert(&change).unwrap();
        bench.machine.perform(&change, &mut Desk { blob: archive, ..Desk::default() }).unwrap();
        assert_eq!(bench.machine.entry(Path::new("/opt/x/ro")).unwrap().unwrap().attributes.mode, 0o555);
        for change in &back {
            bench.perform(change).unwrap();
        }
        assert_eq!(bench.picture(), before);
    });
}

//! What `archive` proposes, case by case, and that what comes out is what tar makes.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Archive;
use super::manifest::Manifest;
use crate::api::change::MemberKind;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::machine::Machine;
use crate::api::module::entry;
use crate::api::trial::{Served, error_of, trial};
use crate::api::{Digest, Inspect, Owner, Perform};

enum Part<'a> {
    File(&'a str, &'a str, u32),
    Folder(&'a str, u32),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str),
}
use Part::{Device, File, Folder, Hard, Link};

/// Makes an archive whose members belong to user 7 and group 8.
fn tarball(parts: &[Part<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for part in parts {
        let (name, kind, mode, content, target) = match part {
            File(name, content, mode) => (name, tar::EntryType::Regular, *mode, *content, ""),
            Folder(name, mode) => (name, tar::EntryType::Directory, *mode, "", ""),
            Link(name, target) => (name, tar::EntryType::Symlink, 0o777, "", *target),
            Hard(name, target) => (name, tar::EntryType::Link, 0o644, "", *target),
            Device(name) => (name, tar::EntryType::Char, 0o600, "", ""),
        };
        let mut header = tar::Header::new_gnu();
        // Not by `set_path`, which refuses the names that a hostile archive has.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(content.len() as u64);
        if !target.is_empty() {
            header.set_link_name(target).unwrap();
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn the_folder_unpacked_into_keeps_its_own_mode() {
    let desk = Desk::new().file("/cache/a.tar", tarball(&[Folder("./", 0o700), File("./x", "read me\n", 0o644)]));
    let arguments = json!({ "src": "/cache/a.tar", "dest": "/opt/app" });
    let there = host().directory_with("/opt/app", 0o775, 33, 33);
    let before = there.entry("/opt/app".as_ref()).unwrap().unwrap().attributes;
    let done = trial::<Archive>(arguments.clone(), &desk, there).unwrap();
    assert_eq!(done.log, ["unpack a.tar into /opt/app"]);
    assert_eq!(done.host.entry("/opt/app".as_ref()).unwrap().unwrap().attributes, before);
    assert_eq!(trial::<Archive>(arguments, &desk, done.host).unwrap().log, [""; 0]);
}

fn release() -> Vec<u8> {
    tarball(&[
        Folder("app/", 0o750),
        File("app/bin/run", "#!/bin/sh\n", 0o755),
        Folder("app/bin/", 0o755),
        File("app/bin/run.sig", "signature", 0o644),
        Link("app/bin/start", "run"),
        Hard("app/bin/also", "app/bin/run"),
        File("app/doc/deep/readme", "read me\n", 0o664),
        File("app/src.tar", "sources", 0o644),
    ])
}

fn desk() -> Desk {
    Desk::new().file("/cache/app.tgz", release())
}

/// A host that has the members' contents by digest, as the archive would bring them.
fn host() -> Fake {
    let mut host = Fake::new();
    for content in ["#!/bin/sh\n", "signature", "read me\n", "sources"] {
        host.blob(content);
    }
    host
}

fn arguments(more: &Value) -> Value {
    let mut arguments = json!({ "src": "/cache/app.tgz", "dest": "/opt/app", "strip": 1, "parents": true });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

pub(super) fn examples() -> Vec<Example> {
    let unpacked = trial::<Archive>(arguments(&json!({})), &desk(), host()).unwrap().host;
    let exclude = json!({ "exclude": ["*.sig", "doc", "src.tar"] });
    vec![
        Example::new("unpacks", arguments(&json!({}))).desk(desk()).on(host()),
        Example::new("unpacks through a link", arguments(&exclude))
            .desk(desk())
            .on(host().directory("/opt/app-1").link("/opt/app", "app-1")),
        Example::new("mends", arguments(&json!({ "mode": "u=rwX,go=", "owner": "root" }))).desk(desk()).on(unpacked
            .clone()
            .file("/opt/app/bin/run", "changed")
            .link("/opt/app/src.tar", "/etc")
            .file("/opt/app/bin/start", "")),
        Example::new("removes what is excluded", arguments(&exclude)).desk(desk()).on(unpacked),
    ]
}

#[test]
fn proposes_what_is_missing_and_nothing_else() {
    let all = trial::<Archive>(arguments(&json!({})), &desk(), host()).unwrap();
    assert_eq!(all.log, ["directory /opt", "directory /opt/app", "unpack app.tgz into /opt/app"]);
    let there = || all.host.clone();
    let cases: Vec<(Value, Fake, &[&str])> = vec![
        (json!({}), there(), &[]),
        (json!({}), there().file_with("/opt/app/src.tar", "sources", 0o600, 7, 8), &["attributes /opt/app/src.tar"]),
        (json!({}), there().file_with("/opt/app/src.tar", "SOURCES", 0o644, 7, 8), &["unpack app.tgz into /opt/app"]),
        (json!({}), there().link("/opt/app/bin/start", "elsewhere"), &["unpack app.tgz into /opt/app"]),
        (json!({}), there().directory_with("/opt/app/bin", 0o700, 7, 8), &["attributes /opt/app/bin"]),
        (json!({}), there().directory_with("/opt/app/doc", 0o700, 1, 1), &[]),
        (json!({}), there().file("/opt/app/foreign", ""), &[]),
        (json!({ "include": ["*.tar"] }), host().directory("/opt/app"), &["unpack app.tgz into /opt/app"]),
        (json!({ "exclude": ["*.tar", "*.sig"] }), there(), &["remove /opt/app/bin/run.sig", "remove /opt/app/src.tar"]),
        (json!({ "exclude": ["app/bin"] }), there(), &["remove /opt/app/bin"]),
        (
            json!({ "exclude": ["app/bin"] }),
            there().file("/opt/app/bin/foreign", ""),
            &["remove /opt/app/bin/also", "remove /opt/app/bin/run", "remove /opt/app/bin/run.sig", "remove /opt/app/bin/start"],
        ),
        // What lies behind a link is not the archive's to remove.
        (
            json!({ "exclude": ["app/bin"] }),
            host().file("/etc/run", "").link("/opt/app/bin", "/etc"),
            &["remove /opt/app/bin", "unpack app.tgz into /opt/app"],
        ),
    ];
    for (more, host, log) in cases {
        let done = trial::<Archive>(arguments(&more), &desk(), host).unwrap_or_else(|error| panic!("{more}: {error:?}"));
        assert_eq!(done.log, log, "{more}");
    }
}

#[test]
fn members_have_the_archives_modes_and_owners_or_those_asked_for() {
    let attributes = |more: Value, host: Fake, path: &str| {
        let found = trial::<Archive>(arguments(&more), &desk(), host).unwrap().host.entry(path.as_ref()).unwrap().unwrap().attributes;
        (found.mode, found.owner, found.group)
    };
    let ids = |owner, group| (Owner::Id(owner), Owner::Id(group));
    let with = |mode, (owner, group)| (mode, owner, group);
    assert_eq!(attributes(json!({}), host(), "/opt/app/doc/deep/readme"), with(0o664, ids(7, 8)));
    assert_eq!(attributes(json!({}), host(), "/opt/app/doc"), with(0o755, ids(0, 0)));
    assert_eq!(attributes(json!({ "mode": "go=", "group": "9" }), host(), "/opt/app/bin/run"), with(0o700, ids(7, 9)));
    assert_eq!(attributes(json!({ "directory_mode": "0700", "owner": "root" }), host(), "/opt/app/bin"), with(0o700, ids(0, 8)));
    let user = || host().user("me", 5).facts_with(|facts| facts.user = "me".into());
    assert_eq!(attributes(json!({}), user(), "/opt/app/doc/deep/readme"), with(0o644, ids(5, 5)));
}

#[test]
fn closed_folders_are_opened_for_what_comes_into_them() {
    let desk = Desk::new().file("/cache/a.tar", tarball(&[Folder("ro/", 0o555), File("ro/x", "read me\n", 0o644)]));
    let arguments = json!({ "src": "/cache/a.tar", "dest": "/opt/app" });
    let user = || host().user("me", 5).directory("/opt/app").facts_with(|facts| facts.user = "me".into());
    let done = trial::<Archive>(arguments.clone(), &desk, user()).unwrap();
    assert_eq!(done.log, ["unpack a.tar into /opt/app"]);
    let lacking = |mode| user().directory_with("/opt/app/ro", mode, 5, 5);
    let opened = ["attributes /opt/app/ro", "unpack a.tar into /opt/app", "attributes /opt/app/ro"];
    assert_eq!(trial::<Archive>(arguments.clone(), &desk, lacking(0o555)).unwrap().log, opened);
    assert_eq!(trial::<Archive>(arguments, &desk, lacking(0o700)).unwrap().log, opened);
}

#[test]
fn a_download_is_an_archive_too_and_a_wrong_one_is_refused() {
    let url = "https://example.org/v1/app.tgz?x=1";
    let desk = || desk().downloaded(url, "/cache/app.tgz");
    let sha256 = Digest::of(&release()).hex();
    let from = |more: Value| {
        let mut arguments = json!({ "dest": "/opt/app", "parents": true, "url": url });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arguments
    };
    let done = trial::<Archive>(from(json!({ "checksum": format!("sha256:{sha256}") })), &desk(), host()).unwrap();
    assert_eq!(done.log.last().unwrap(), "unpack app.tgz into /opt/app");
    assert_eq!(
        error_of::<Archive>(from(json!({})), &desk(), host()),
        "url: `url` needs a `checksum`, which tells whether the download is what was meant (publishers give it beside the file; `sha256sum FILE` and `sha512sum FILE` print it)"
    );
    let sha512 = Manifest::read("app.tgz", Box::new(Cursor::new(release()))).unwrap().sha512;
    assert!(trial::<Archive>(from(json!({ "checksum": sha512 })), &desk(), host()).is_ok());
    assert!(trial::<Archive>(arguments(&json!({ "checksum": sha512.to_uppercase() })), &desk(), host()).is_ok());
    let zeros = "0".repeat(128);
    assert_eq!(
        error_of::<Archive>(arguments(&json!({ "checksum": format!("sha512:{zeros}") })), &desk(), host()),
        format!(
            "checksum: `app.tgz` is not the archive that was meant: it has the SHA-512 {sha512}, not {zeros} (get the file again, or correct `checksum`)"
        )
    );
}

#[test]
fn errors_name_what_was_seen_and_what_to_do() {
    let hint = "(`tar -tf FILE` lists the members)";
    let cases = [
        (json!({ "src": "nowhere.tgz" }), host(), "src: cannot find `nowhere.tgz`".to_owned()),
        (json!({ "src": "https://x/y.tgz" }), host(), "src: `src` is a file of the controller (name an address with `url`)".to_owned()),
        (json!({ "url": "https://x/y" }), host(), "url: `src` and `url` exclude each other".to_owned()),
        (json!({ "strip": 9 }), host(), format!("strip: nothing of `app.tgz` is left to unpack {hint}")),
        (json!({ "include": ["bin", "gone"] }), host(), format!("include: `gone` in `include` matches no member of `app.tgz` {hint}")),
        (json!({ "exclude": ["[a"] }), host(), "exclude: `[a` in `exclude` has a `[` without its `]`".to_owned()),
        (
            json!({ "checksum": "md5:abc" }),
            host(),
            "checksum: `md5:abc` is neither a SHA-256 nor a SHA-512 (write the 64 or 128 hexadecimal digits that `sha256sum` or `sha512sum` print, or \"sha512:…\")".to_owned(),
        ),
        (json!({}), host().file("/opt/app", ""), "dest: `/opt/app` is a file, not a directory".to_owned()),
        (
            json!({}),
            host().directory("/opt/app/src.tar"),
            "dest: `/opt/app/src.tar` is a directory (the archive has a file here; remove it first)".to_owned(),
        ),
        (
            json!({}),
            host().link("/opt/app/bin", "/etc"),
            "dest: `/opt/app/bin` is a link to `/etc` (the archive has a directory here; remove it first)".to_owned(),
        ),
        (
            json!({ "parents": false }),
            host(),
            "dest: there is no directory `/opt` (make it with the `file` module, or add `parents = true`)".to_owned(),
        ),
    ];
    for (more, host, error) in cases {
        assert_eq!(error_of::<Archive>(arguments(&more), &desk(), host), error, "{more}");
    }
}

#[test]
fn hostile_and_odd_archives_are_refused() {
    let refused = |parts: &[Part<'_>]| {
        let desk = Desk::new().file("/cache/x.tar", tarball(parts));
        error_of::<Archive>(json!({ "src": "/cache/x.tar", "dest": "/opt/x", "parents": true }), &desk, host())
    };
    assert!(refused(&[File("../../etc/passwd", "", 0o644)]).contains("leads out of its folder"));
    let below = refused(&[Link("a", "/etc"), File("a/passwd", "", 0o644)]);
    assert_eq!(below, "`x.tar` has a member `a/passwd` below `a`, which is no directory (do not unpack this archive)");
    assert!(refused(&[Device("dev/null")]).contains("has a member `dev/null` that is a device"));
    assert!(refused(&[Hard("a", "b")]).contains("has a hard link `a` to `b`, which is no earlier file of it"));
    let desk = Desk::new().file("/cache/x.tar", "<html>");
    assert!(error_of::<Archive>(json!({ "src": "/cache/x.tar", "dest": "/opt/x" }), &desk, host()).contains("a web page"));
}

#[test]
fn the_last_of_several_members_with_one_name_stays() {
    let twice = tarball(&[File("a", "first", 0o644), Link("a", "b"), File("./a", "last", 0o600), File("/b", "", 0o644)]);
    let selected = Manifest::read("x", Box::new(Cursor::new(twice))).unwrap().select("x", 0, &[], &[]).unwrap();
    let found: Vec<_> = selected.wishes.iter().map(|wish| (wish.path.to_str().unwrap(), wish.mode, &wish.kind)).collect();
    assert_eq!(found, [("a", 0o600, &MemberKind::File(Digest::of(b"last"), 4)), ("b", 0o644, &MemberKind::File(Digest::of(b""), 0))]);
}

/// Runs a shell script in `folder`.
fn sh(folder: &Path, script: &str) {
    let output = Command::new("sh").args(["-euc", &format!("umask 022; {script}")]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Everything below `folder` as lines: kind, mode, owners, and content or target.
fn listing(folder: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for found in std::fs::read_dir(&next).unwrap() {
            let path = found.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            let what = if data.is_dir() {
                folders.push(path.clone());
                "directory".to_owned()
            } else if data.is_symlink() {
                format!("-> {}", path.read_link().unwrap().display())
            } else {
                Digest::of(&std::fs::read(&path).unwrap()).hex()
            };
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            lines.insert(name, format!("{:o} {} {} {what}", data.permissions().mode() & 0o7777, data.uid(), data.gid()));
        }
    }
    lines
}

#[test]
fn what_comes_out_is_what_tar_makes() {
    let home = tempfile::tempdir().unwrap();
    let source = "mkdir -p in/top/bin in/top/etc/deep in/top/empty; cd in
        printf hello > top/bin/run; chmod 4755 top/bin/run; ln top/bin/run top/bin/hard; ln -s run top/bin/soft; ln -s /nowhere top/dangling
        head -c 700000 /dev/zero | tr '\\0' x > top/etc/deep/large; : > top/etc/none; chmod 0600 top/etc/none; chmod 0750 top/etc
        truncate -s 1M top/etc/sparse; printf tail >> top/etc/sparse; chmod 1777 top/empty
        name=$(printf 'n%.0s' $(seq 1 150)); printf long > top/etc/$name; printf 'ü' > 'top/etc/ü ö'
        mkdir top/shared; chmod 2775 top/shared; printf x > top/shared/secret; chmod 0000 top/shared/secret
        ln -P top/bin/soft top/bin/soft-hard; printf y > \"$(printf 'top/shared/new\\nline')\"; printf z > 'top/shared/back\\slash'
        deep=top; for i in 1 2 3 4 5 6; do deep=$deep/$(printf 'd%.0s' $(seq 1 60)); done; mkdir -p $deep; printf deep > $deep/file";
    sh(home.path(), source);
    for (format, options) in
        [("gzip", "-z"), ("xz", "-J --format=posix"), ("zstd", "--zstd -S"), ("plain", "--format=gnu"), ("implied", "--no-recursion -z")]
    {
        let members = if format == "implied" { "top/etc/deep/large top/bin/run" } else { "top" };
        sh(home.path(), &format!("cd in && tar -c {options} -f ../{format}.tar {members}"));
        for strip in [0, 1] {
            let (ours, theirs) = (home.path().join(format!("{format}-{strip}-ours")), home.path().join(format!("{format}-{strip}-theirs")));
            std::fs::create_dir(&theirs).unwrap();
            sh(&theirs, &format!("tar -x --numeric-owner --strip-components={strip} -f ../{format}.tar"));
            let desk = Desk::new().file("/a.tar", std::fs::read(home.path().join(format!("{format}.tar"))).unwrap());
            let mut module = (entry::<Archive>().parse)(json!({ "src": "/a.tar", "dest": ours, "strip": strip })).unwrap();
            module.prepare(&desk).unwrap();
            let mut host = Machine::new(None, home.path().join("state"), "run");
            for change in module.check(&host).unwrap().changes {
                host.perform(&change, &mut Served(desk.blobs())).unwrap();
            }
            assert_eq!(listing(&ours), listing(&theirs), "{format} {strip}");
            assert_eq!(module.check(&host).unwrap().changes, [], "{format} {strip}");
        }
    }
}

#[test]
fn a_remembered_manifest_is_the_same() {
    let manifest = Manifest::read("x", Box::new(Cursor::new(release()))).unwrap();
    let again: Manifest = serde_json::from_slice(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    assert_eq!(again.sha512, manifest.sha512);
    let selected = |manifest: &Manifest| manifest.select("x", 1, &[], &["*.sig".to_owned()]).unwrap();
    assert_eq!(selected(&again).wishes, selected(&manifest).wishes);
    assert_eq!(selected(&again).absent, [std::path::PathBuf::from("bin/run.sig")]);
}

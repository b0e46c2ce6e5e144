//! What `copy` proposes, case by case.

use serde_json::{Value, json};

use super::Copy;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};
use crate::api::{Change, Inspect, Owner};

const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\n";

/// A folder with a file, a program, a folder with a file, and a link.
fn tree() -> Desk {
    Desk::new()
        .file("files/site/index.html", "hello\n")
        .file_with("files/site/run.sh", "#!/bin/sh\n", 0o755)
        .file("files/site/css/a.css", "a {}\n")
        .link("files/site/main.html", "index.html")
}

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("writes a text", json!({ "content": "x\n", "dest": "/etc/a/b", "parents": true })),
        Example::new("writes an empty text over a link", json!({ "content": "", "dest": "/etc/a" })).on(Fake::new().link("/etc/a", "b")),
        Example::new("writes a program", json!({ "src": "files/site/run.sh", "dest": "/usr/bin/run", "parents": true })).desk(tree()),
        Example::new("copies a folder", json!({ "src": "site", "dest": "/srv/site/", "parents": true })).desk(tree()),
        Example::new("mends a folder", json!({ "src": "site/", "dest": "/srv", "delete": true, "mode": "0640", "directory_mode": "0750" }))
            .desk(tree())
            .on(Fake::new().file("/srv/index.html/deep", "").file("/srv/css", "").link("/srv/run.sh", "/etc").file("/srv/old/x/y", "1")),
        Example::new("keeps a key to itself", json!({ "content": KEY, "dest": "/etc/key" })),
    ]
}

#[test]
fn proposes_what_is_missing_and_nothing_else() {
    let file = |content: &str| Fake::new().file("/etc/x", content);
    let cases: Vec<(Value, Fake, &[&str])> = vec![
        (json!({ "content": "a", "dest": "/etc/x" }), file("a"), &[]),
        (json!({ "content": "", "dest": "/etc/x" }), file(""), &[]),
        (json!({ "content": "a", "dest": "/etc/x", "mode": "0600" }), file("a"), &["attributes /etc/x"]),
        (json!({ "content": "b", "dest": "/etc/x", "mode": "0600" }), file("a"), &["write /etc/x"]),
        (json!({ "content": "a\r\n\r\n", "dest": "/etc/x" }), file("a\n\n"), &["write /etc/x"]),
        (json!({ "src": "site/index.html", "dest": "/etc/x" }), file("hello\n"), &[]),
        (json!({ "content": "a", "dest": "/l" }), Fake::new().file("/etc/x", "a").link("/l", "/etc/x"), &["write /l"]),
        (json!({ "content": "a", "dest": "/l/x" }), Fake::new().link("/l", "etc"), &["write /l/x"]),
        (
            json!({ "src": "site", "dest": "/srv/www", "parents": true }),
            Fake::new(),
            &[
                "directory /srv",
                "directory /srv/www",
                "directory /srv/www/css",
                "write /srv/www/css/a.css",
                "write /srv/www/index.html",
                "link /srv/www/main.html -> index.html",
                "write /srv/www/run.sh",
            ],
        ),
        (
            json!({ "src": "site", "dest": "/srv", "delete": true }),
            Fake::new()
                .file("/srv/index.html", "hello\n")
                .file_with("/srv/run.sh", "#!/bin/sh\n", 0o755, 0, 0)
                .file("/srv/css/a.css", "a {}\n")
                .file("/srv/css/old.css", "")
                .file("/srv/gone/deep/x", "")
                .link("/srv/main.html", "index.html"),
            &["remove /srv/gone", "remove /srv/css/old.css"],
        ),
    ];
    for (arguments, host, log) in cases {
        let done = trial::<Copy>(arguments.clone(), &tree(), host).unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
        assert_eq!(done.log, log, "{arguments}");
    }
}

#[test]
fn a_replaced_link_leaves_its_target_alone() {
    let host = Fake::new().file("/etc/real", "precious").link("/etc/x", "real");
    let done = trial::<Copy>(json!({ "content": "new", "dest": "/etc/x" }), &Desk::new(), host).unwrap();
    assert_eq!((done.host.text("/etc/x").unwrap().as_str(), done.host.text("/etc/real").unwrap().as_str()), ("new", "precious"));
}

#[test]
fn modes_of_new_files_follow_what_they_are() {
    let desk = tree().file_with("files/odd", "", 0o640).file("files/tls.key", KEY);
    let cases = [
        (json!({ "src": "site/run.sh", "dest": "/etc/x" }), 0o755),
        (json!({ "src": "odd", "dest": "/etc/x" }), 0o644),
        (json!({ "src": "tls.key", "dest": "/etc/x" }), 0o600),
        (json!({ "content": "token", "dest": "/etc/x", "secret": true }), 0o600),
        (json!({ "content": "token", "dest": "/etc/x", "mode": "u+x,o=" }), 0o740),
    ];
    for (arguments, mode) in cases {
        let done = trial::<Copy>(arguments.clone(), &desk, Fake::new()).unwrap();
        assert_eq!(done.host.entry("/etc/x".as_ref()).unwrap().unwrap().attributes.mode, mode, "{arguments}");
    }
}

#[test]
fn a_folder_has_the_modes_of_its_source_or_those_asked_for() {
    let desk = tree().file_with("files/site/private", "", 0o600);
    let mode = |host: &Fake, path: &str| host.entry(path.as_ref()).unwrap().unwrap().attributes.mode;
    let host = Fake::new().user("www", 33).file_with("/srv/private", "", 0o644, 0, 0);
    let done = trial::<Copy>(json!({ "src": "site", "dest": "/srv", "owner": "www" }), &desk, host).unwrap().host;
    assert_eq!([mode(&done, "/srv/private"), mode(&done, "/srv/run.sh"), mode(&done, "/srv/css")], [0o600, 0o755, 0o755]);
    assert_eq!(done.entry("/srv/main.html".as_ref()).unwrap().unwrap().attributes.owner, Owner::Id(33));
    let arguments = json!({ "src": "site", "dest": "/srv", "mode": "g-r,o=", "directory_mode": "0700" });
    let done = trial::<Copy>(arguments, &desk, Fake::new()).unwrap().host;
    assert_eq!(
        [mode(&done, "/srv/private"), mode(&done, "/srv/run.sh"), mode(&done, "/srv/css"), mode(&done, "/srv")],
        [0o600, 0o710, 0o700, 0o700]
    );
}

#[test]
fn a_folder_that_its_owner_may_not_write_is_closed_when_it_is_full() {
    let arguments = json!({ "src": "site", "dest": "/srv/site", "directory_mode": "0555" });
    let done = trial::<Copy>(arguments.clone(), &tree(), Fake::new().directory("/srv")).unwrap();
    let modes: Vec<u32> = done
        .proposal
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::MakeDirectory { attributes: after, .. } | Change::SetAttributes { after, .. } => Some(after.mode),
            _ => None,
        })
        .collect();
    assert_eq!(modes, [0o755, 0o755, 0o555, 0o555]);
    assert_eq!(done.log[done.log.len() - 2..], ["attributes /srv/site/css", "attributes /srv/site"]);
    // One file of it comes anew, and its folder is opened for that.
    let desk = tree().file("files/site/css/a.css", "b {}\n");
    let again = trial::<Copy>(arguments, &desk, done.host).unwrap();
    assert_eq!(again.log, ["attributes /srv/site/css", "write /srv/site/css/a.css", "attributes /srv/site/css"]);
}

#[test]
fn secrets_are_marked_in_single_files_and_in_folders() {
    let desk =
        Desk::new().file("files/conf/plain", "x").file("files/conf/token", "hunter2").file("files/conf/tls.key", KEY).secret("hunter2");
    let done = trial::<Copy>(json!({ "src": "conf", "dest": "/srv" }), &desk, Fake::new()).unwrap();
    let marked = done.proposal.changes.iter().filter_map(|change| match change {
        Change::WriteFile(write) => Some((write.path.display().to_string(), write.secret)),
        _ => None,
    });
    let expected = [("/srv/plain", false), ("/srv/tls.key", true), ("/srv/token", true)];
    assert_eq!(marked.collect::<Vec<_>>(), expected.map(|(path, secret)| (path.to_owned(), secret)));
}

#[test]
fn errors_name_what_was_seen_and_what_to_do() {
    let cases = [
        (
            json!({ "dest": "/x" }),
            Fake::new(),
            "nothing to copy: neither `src` nor `content` is given (name a file or folder with `src`, or give the text with `content`)",
        ),
        (
            json!({ "src": "site", "content": "", "dest": "/x" }),
            Fake::new(),
            "content: `src` and `content` exclude each other (leave one of them out)",
        ),
        (json!({ "src": "nowhere", "dest": "/x" }), Fake::new(), "src: cannot find `nowhere`"),
        (
            json!({ "src": "site/index.html", "dest": "/etc/" }),
            Fake::new(),
            "dest: `dest` ends with a slash, but names a file: `/etc/` (write the whole path with the file's name)",
        ),
        (
            json!({ "src": "site/index.html", "dest": "/etc" }),
            Fake::new(),
            "dest: `/etc` is a directory (name a path inside it, or remove it first)",
        ),
        (
            json!({ "src": "site/index.html", "dest": "/x", "delete": true }),
            Fake::new(),
            "delete: `delete` means nothing for a single file",
        ),
        (
            json!({ "src": "site", "dest": "/x", "validate": "test %s" }),
            Fake::new(),
            "validate: `validate` judges a single file, and `src` is a folder",
        ),
        (json!({ "src": "site", "dest": "/x" }), Fake::new().file("/x", ""), "dest: `/x` is a file (remove it first)"),
        (
            json!({ "src": "site", "dest": "/x" }),
            Fake::new().link("/x", "etc"),
            "dest: `/x` is a link to `etc` (name the path that it points to, or remove the link first)",
        ),
        (
            json!({ "src": "site", "dest": "/x" }),
            Fake::new().file("/x/css", ""),
            "dest: `/x/css` is a file (the source holds a directory here; add `delete = true` to have it replaced)",
        ),
        (
            json!({ "content": "a", "dest": "/dev/null" }),
            Fake::new().special("/dev/null"),
            "dest: `/dev/null` is a special file (remove it first)",
        ),
        (
            json!({ "content": "a", "dest": "/x", "source": { "Folder": [] }, "delete": true }),
            Fake::new(),
            "delete: `delete` means nothing for a single file",
        ),
    ];
    for (arguments, host, error) in cases {
        assert_eq!(error_of::<Copy>(arguments.clone(), &tree(), host), error, "{arguments}");
    }
}

//! What `file` proposes, case by case.

use serde_json::{Value, json};

use super::File;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("makes a folder", json!({ "path": "/srv/a/b", "state": "directory", "mode": "0750", "parents": true })),
        Example::new("mends a mode", json!({ "path": "/etc/x", "mode": "0600" })).on(Fake::new().file("/etc/x", "1")),
        Example::new("turns a link", json!({ "path": "/opt/app", "state": "link", "target": "app-2" }))
            .on(Fake::new().link("/opt/app", "app-1")),
        Example::new("replaces a file by a link", json!({ "path": "/opt/app", "state": "link", "target": "app-2", "force": true }))
            .on(Fake::new().file("/opt/app", "old")),
        Example::new("removes a folder", json!({ "path": "/srv/old", "state": "absent" }))
            .on(Fake::new().file("/srv/old/a/b", "1").link("/srv/old/c", "/etc")),
        Example::new(
            "goes through a folder",
            json!({ "path": "/srv", "state": "directory", "mode": "u=rwX,go=", "owner": "app", "recursive": true }),
        )
        .on(Fake::new().user("app", 1000).file("/srv/a/b", "1").link("/srv/c", "/etc")),
        Example::new("touches what is missing", json!({ "path": "/etc/touched", "state": "touch" })),
    ]
}

#[test]
fn proposes_what_is_missing_and_nothing_else() {
    let cases: Vec<(Value, Fake, &[&str])> = vec![
        (json!({ "path": "/etc/x" }), Fake::new().file("/etc/x", ""), &[]),
        (json!({ "path": "/etc/x", "mode": "0644", "owner": "root", "group": "0" }), Fake::new().file("/etc/x", ""), &[]),
        (json!({ "path": "/etc/x", "mode": "u+x" }), Fake::new().file("/etc/x", ""), &["attributes /etc/x"]),
        (json!({ "path": "/etc/x", "mode": "0" .repeat(4) }), Fake::new().file("/etc/x", ""), &["attributes /etc/x"]),
        (json!({ "path": "/etc/x", "owner": "4294967294" }), Fake::new().file("/etc/x", ""), &["attributes /etc/x"]),
        (json!({ "path": "//etc/./x", "mode": "0600" }), Fake::new().file("/etc/x", ""), &["attributes /etc/x"]),
        (json!({ "path": "/srv/", "state": "directory" }), Fake::new(), &["directory /srv"]),
        (
            json!({ "path": "/a/b/c", "state": "directory", "parents": true }),
            Fake::new(),
            &["directory /a", "directory /a/b", "directory /a/b/c"],
        ),
        (json!({ "path": "/l/b", "state": "directory" }), Fake::new().directory("/real").link("/l", "real"), &["directory /l/b"]),
        (json!({ "path": "/x", "state": "directory", "force": true }), Fake::new().file("/x", ""), &["remove /x", "directory /x"]),
        (json!({ "path": "/x", "state": "directory", "force": true }), Fake::new().link("/x", "/etc"), &["remove /x", "directory /x"]),
        (json!({ "path": "/l", "state": "link", "target": "a" }), Fake::new().link("/l", "a"), &[]),
        (json!({ "path": "/l", "state": "link", "target": "a" }), Fake::new().link("/l", "b"), &["link /l -> a"]),
        (
            json!({ "path": "/l", "state": "link", "target": "a", "force": true }),
            Fake::new().directory("/l"),
            &["remove /l", "link /l -> a"],
        ),
        (json!({ "path": "/d/l", "state": "link", "target": "a", "parents": true }), Fake::new(), &["directory /d", "link /d/l -> a"]),
        (
            json!({ "path": "/l", "state": "link", "target": "a", "owner": "app" }),
            Fake::new().user("app", 7),
            &["link /l -> a", "attributes /l"],
        ),
        (json!({ "path": "/x", "state": "absent" }), Fake::new(), &[]),
        (json!({ "path": "/no/such/x", "state": "absent" }), Fake::new(), &[]),
        (json!({ "path": "/l", "state": "absent" }), Fake::new().link("/l", "/etc"), &["remove /l"]),
        (json!({ "path": "/x", "state": "touch" }), Fake::new(), &["write /x"]),
        (json!({ "path": "/x", "state": "touch", "mode": "0600" }), Fake::new().file("/x", "kept"), &["attributes /x", "touch /x"]),
    ];
    for (arguments, host, log) in cases {
        let done = trial::<File>(arguments.clone(), &Desk::new(), host).unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
        assert_eq!(done.log, log, "{arguments}");
    }
}

#[test]
fn recursive_modes_and_owners_never_follow_links() {
    let host = Fake::new().user("app", 7).file_with("/srv/run", "", 0o700, 0, 0).file("/srv/a/plain", "").link("/srv/out", "/etc/shadow");
    let host = host.file_with("/etc/shadow", "", 0o600, 0, 0);
    let arguments =
        json!({ "path": "/srv", "state": "directory", "mode": "u=rwX,go=rX", "owner": "app", "group": "app", "recursive": true });
    let done = trial::<File>(arguments, &Desk::new(), host.clone()).unwrap();
    let (before, after) = (host.state(), done.host.state());
    assert_eq!(before["/etc/shadow"], after["/etc/shadow"]);
    let modes: Vec<(&str, u32)> =
        [("/srv", 0o755), ("/srv/a", 0o755), ("/srv/a/plain", 0o644), ("/srv/run", 0o755), ("/srv/out", 0o777)].into();
    for (path, mode) in modes {
        let entry = crate::api::Inspect::entry(&done.host, path.as_ref()).unwrap().unwrap();
        assert_eq!((entry.attributes.mode, entry.attributes.owner), (mode, crate::api::Owner::Id(7)), "{path}");
    }
}

#[test]
fn errors_name_what_was_seen_and_what_to_do() {
    let cases = [
        (json!({ "path": "etc/x" }), Fake::new(), "path: `path` is not an absolute path: `etc/x`"),
        (json!({ "path": "" }), Fake::new(), "path: `path` is empty"),
        (json!({ "path": "/a/../b" }), Fake::new(), "path: `path` holds `..`: `/a/../b` (write the path without it)"),
        (json!({ "path": "/", "state": "absent" }), Fake::new(), "path: `/` cannot be removed"),
        (
            json!({ "path": "/x" }),
            Fake::new(),
            "path: `/x` does not exist (give it content with `copy` or `template`, or add `state = \"directory\"` or \"touch\")",
        ),
        (json!({ "path": "/etc" }), Fake::new(), "path: `/etc` is a directory (add `state = \"directory\"`)"),
        (
            json!({ "path": "/l", "mode": "0600" }),
            Fake::new().link("/l", "/etc/x"),
            "path: `/l` is a link to `/etc/x` (name the path that it points to, or remove the link first)",
        ),
        (
            json!({ "path": "/l", "state": "directory" }),
            Fake::new().link("/l", "/etc"),
            "path: `/l` is a link to `/etc` (remove it first, or add `force = true` to have it replaced)",
        ),
        (
            json!({ "path": "/x", "state": "link", "target": "a" }),
            Fake::new().file("/x", ""),
            "path: `/x` is a file (remove it first, or add `force = true` to have it replaced)",
        ),
        (
            json!({ "path": "/etc", "state": "link", "target": "a", "force": true }),
            Fake::new().file("/etc/x", ""),
            "path: `/etc` is a directory that is not empty (a link never replaces what such a directory holds; move or remove it first)",
        ),
        (
            json!({ "path": "/a/b/c", "state": "directory" }),
            Fake::new(),
            "path: there is no directory `/a/b` (make it with the `file` module, or add `parents = true`)",
        ),
        (json!({ "path": "/x/y", "state": "directory", "parents": true }), Fake::new().file("/x", ""), "path: `/x` is not a directory"),
        (
            json!({ "path": "/l/y", "state": "directory", "parents": true }),
            Fake::new().link("/l", "/gone"),
            "path: `/l` is a link to `/gone`, which does not exist",
        ),
        (
            json!({ "path": "/etc", "state": "directory", "owner": "nobody-here" }),
            Fake::new(),
            "owner: there is no user `nobody-here` on this host (create it first with the `user` module)",
        ),
        (json!({ "path": "/l", "state": "link" }), Fake::new(), "a link needs a `target` (add `target = \"…\"`: what the link holds)"),
        (
            json!({ "path": "/l", "target": "a" }),
            Fake::new(),
            "target: `target` means nothing with state \"file\" (add `state = \"link\"`)",
        ),
        (
            json!({ "path": "/l", "state": "link", "target": "a", "mode": "0600" }),
            Fake::new(),
            "mode: `mode` means nothing with state \"link\" (a link has no mode of its own; manage its target)",
        ),
        (
            json!({ "path": "/srv", "state": "directory", "mode": "0644", "recursive": true }),
            Fake::new(),
            "mode: a `recursive` mode without `x` would close every directory below the path (write for instance \"u=rwX,go=rX\": X means x for directories, and for files that have one already)",
        ),
        (
            json!({ "path": "/x", "mode": 420 }),
            Fake::new(),
            "mode: invalid type: integer `420`, expected a mode as a string, such as \"0644\" or \"u+x\"",
        ),
    ];
    for (arguments, host, error) in cases {
        assert_eq!(error_of::<File>(arguments.clone(), &Desk::new(), host), error, "{arguments}");
    }
}

#[test]
fn a_task_that_fails_proposes_nothing_of_itself() {
    let arguments = json!({ "path": "/a/b", "state": "directory", "parents": true, "group": "missing" });
    let host = Fake::new();
    let before = host.state();
    assert!(trial::<File>(arguments, &Desk::new(), host.clone()).is_err());
    assert_eq!(host.state(), before);
}

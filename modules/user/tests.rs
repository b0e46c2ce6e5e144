//! The cases of `user`, on a host in memory.

use serde_json::json;

use super::*;
use crate::api::AnyModule;
use crate::api::fake::{Desk, Fake, apply};

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("makes a user", json!({ "name": "app" })).on(host()),
        Example::new(
            "makes a user of the system",
            json!({ "name": "app", "system": true, "group": "ops", "home": "/var/lib/app", "shell": "/usr/sbin/nologin" }),
        )
        .on(host()),
        Example::new(
            "makes a user with everything",
            json!({ "name": "app", "uid": 4000, "groups": ["ops", "adm"], "comment": "", "create_home": false }),
        )
        .on(host()),
        Example::new("changes what differs", json!({ "name": "bob", "shell": "/bin/zsh", "groups": [], "comment": "x".repeat(10_000) }))
            .on(host()),
        Example::new("adds to groups", json!({ "name": "bob", "groups": "ops", "append": true })).on(host()),
        Example::new("removes a user and all that it has", json!({ "name": "bob", "state": "absent", "remove_home": true }))
            .on(host().directory("/home/bob").file("/home/bob/notes", "mine\n").link("/home/bob/link", "notes")),
        Example::new("removes a user", json!({ "name": "bob", "state": "absent" })).on(host()),
    ]
}

fn host() -> Fake {
    Fake::new().directory("/home").group("ops", 500).group("adm", 4).user("bob", 1000).user("eve", 1001)
}

fn with_shadow(hash: &str) -> Fake {
    host().password("bob", hash)
}

fn module(arguments: Value) -> Result<Box<dyn AnyModule>, ModuleError> {
    let mut module = (crate::find("user").unwrap().parse)(arguments)?;
    module.prepare(&Desk::new())?;
    Ok(module)
}

fn wanted(arguments: Value, host: &Fake) -> Option<UserSpec> {
    match module(arguments).unwrap().check(host).unwrap().changes.as_slice() {
        [] => None,
        [Change::User { after, .. }] => after.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_differs_is_changed() {
    let none = |arguments: Value| assert_eq!(wanted(arguments.clone(), &host()), None, "{arguments}");
    none(json!({ "name": "bob" }));
    none(
        json!({ "name": "bob", "uid": 1000, "group": "bob", "home": "/home/bob/", "shell": "/bin/sh", "comment": "", "groups": [], "system": true }),
    );
    none(json!({ "name": "nobody", "state": "absent" }));
    none(json!({ "name": "bob", "create_home": false }));
    let spec = |arguments: Value| wanted(arguments, &host()).unwrap();
    assert_eq!(spec(json!({ "name": "bob", "uid": 7 })), UserSpec { uid: Some(7), ..UserSpec::default() });
    assert_eq!(spec(json!({ "name": "bob", "group": "ops" })), UserSpec { group: Some("ops".into()), ..UserSpec::default() });
    assert_eq!(spec(json!({ "name": "bob", "shell": "/bin/zsh" })), UserSpec { shell: Some("/bin/zsh".into()), ..UserSpec::default() });
    assert_eq!(spec(json!({ "name": "bob", "create_home": true })), UserSpec { create_home: true, ..UserSpec::default() });
    assert_eq!(spec(json!({ "name": "new" })), UserSpec { create_home: true, ..UserSpec::default() });
    assert_eq!(spec(json!({ "name": "new", "system": true })), UserSpec { system: true, ..UserSpec::default() });
}

#[test]
fn groups_are_exact_unless_appended() {
    let mut host = host();
    apply(&*module(json!({ "name": "bob", "groups": ["ops"] })).unwrap(), &mut host).unwrap();
    let groups = |arguments: Value| wanted(arguments, &host).map(|spec| spec.groups.unwrap());
    assert_eq!(groups(json!({ "name": "bob", "groups": ["ops", "ops"] })), None);
    assert_eq!(groups(json!({ "name": "bob", "groups": ["adm"] })).unwrap(), ["adm"]);
    assert_eq!(groups(json!({ "name": "bob", "groups": ["adm"], "append": true })).unwrap(), ["adm", "ops"]);
    assert_eq!(groups(json!({ "name": "bob", "groups": ["ops"], "append": true })), None);
    assert_eq!(groups(json!({ "name": "bob", "groups": {} })).unwrap(), [""; 0]);
    assert_eq!(groups(json!({ "name": "bob", "groups": ["500"] })), None, "a number stands for its group");
    assert_eq!(groups(json!({ "name": "bob", "groups": ["4"] })).unwrap(), ["adm"]);
}

#[test]
fn password_hashes_are_compared_and_locks_kept() {
    let set = |arguments: Value, now: &str| {
        let mut all = json!({ "name": "bob" });
        all.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
        let host = with_shadow(now);
        wanted(all, &host).and_then(|spec| spec.password_hash)
    };
    assert_eq!(set(json!({ "password_hash": "$6$a" }), "$6$a"), None);
    assert_eq!(set(json!({ "password_hash": "$6$b" }), "$6$a").as_deref(), Some("$6$b"));
    assert_eq!(set(json!({ "password_hash": "$6$a" }), "!$6$a"), None, "a lock that nobody spoke of stays");
    assert_eq!(set(json!({ "password_hash": "$6$a", "lock": true }), "$6$a").as_deref(), Some("!$6$a"));
    assert_eq!(set(json!({ "password_hash": "$6$a", "lock": true }), "!$6$a"), None);
    assert_eq!(set(json!({ "password_hash": "$6$a", "lock": false }), "!$6$a").as_deref(), Some("$6$a"));
    assert_eq!(set(json!({ "lock": true }), "$6$a").as_deref(), Some("!$6$a"));
    assert_eq!(set(json!({ "lock": false }), "$6$a"), None);
    assert_eq!(
        wanted(json!({ "name": "new", "password_hash": "$6$a", "lock": true }), &host()).unwrap().password_hash.as_deref(),
        Some("!$6$a")
    );
    let unlocked = wanted(json!({ "name": "new", "password_hash": "!$6$a", "lock": false }), &host()).unwrap();
    assert_eq!(unlocked.password_hash.as_deref(), Some("$6$a"));
}

#[test]
fn what_the_host_lacks_or_has_taken_is_said() {
    let said = |arguments: Value| module(arguments).unwrap().check(&host()).unwrap_err().message;
    assert_eq!(said(json!({ "name": "bob", "uid": 1001 })), "the number 1001 belongs to the user `eve`");
    assert_eq!(said(json!({ "name": "new", "lock": false })), "the user `new` has no password that could be unlocked");
    assert_eq!(said(json!({ "name": "new", "uid": 0 })), "the number 0 belongs to the user `root`");
    assert_eq!(said(json!({ "name": "bob", "groups": ["none"] })), "there is no group `none` on this host");
    assert_eq!(said(json!({ "name": "new", "group": "none" })), "there is no group `none` on this host");
    let error = module(json!({ "name": "bob", "lock": false, "password_hash": "!" })).unwrap().check(&with_shadow("!")).unwrap_err();
    assert_eq!(error.message, "the user `bob` has no password that could be unlocked");
}

#[test]
fn a_change_carries_what_undoing_needs() {
    let changes = module(json!({ "name": "bob", "shell": "/bin/zsh" })).unwrap().check(&with_shadow("$6$a")).unwrap().changes;
    let [Change::User { before: Some(before), .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((before.uid, before.group.as_deref(), before.shell.as_deref()), (Some(1000), Some("bob"), Some("/bin/sh")));
    assert_eq!(before.password_hash.as_deref(), Some("$6$a"));
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    let cases = [
        (json!({ "name": "" }), "`` cannot be the name of a user", "name"),
        (json!({ "name": "1000" }), "`1000` looks like a number, and cannot be the name of a user", "name"),
        (json!({ "name": "a", "home": "x" }), "`home` is not an absolute path: `x`", "home"),
        (json!({ "name": "a", "shell": "zsh" }), "`shell` is not an absolute path", "shell"),
        (json!({ "name": "a", "comment": "a:b" }), "`comment` holds a colon or a line break", "comment"),
        (json!({ "name": "a", "password_hash": "secret" }), "`password_hash` is not a hash, but looks like a password", "password_hash"),
        (json!({ "name": "a", "append": true }), "`append` is given, but no `groups`", "append"),
        (json!({ "name": "a", "remove_home": true }), "`remove_home` means something for `state = \"absent\"` alone", "remove_home"),
        (json!({ "name": "a", "state": "absent", "uid": 1 }), "`uid` means nothing for a user that is to be absent", "uid"),
    ];
    for (arguments, message, argument) in cases {
        let error = module(arguments).err().unwrap();
        assert_eq!((error.message.as_str(), error.argument.as_deref()), (message, Some(argument)));
    }
}

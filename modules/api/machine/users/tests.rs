//! Accounts below a root, whose files are edited in place of the system's tools.

use super::super::tests::Bench;
use super::*;
use crate::api::change::Change;
use crate::api::perform::Perform;
use crate::api::types::Owner;

fn bench() -> Bench {
    let bench = Bench::new();
    bench
        .write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000:,,,:/home/alice:/bin/bash\n")
        .write("/etc/group", "root:x:0:\nadm:x:4:alice,bob\ndocker:x:998:bob\nalice:x:1000:\n")
        .write("/etc/shadow", "root:*:19000:0:99999:7:::\nalice:$6$old:19000:0:99999:7:::\n");
    bench
}

fn user(name: &str, after: Option<UserSpec>, remove_home: bool) -> Change {
    Change::User { name: name.into(), before: None, after, remove_home }
}

fn group(name: &str, after: Option<GroupSpec>) -> Change {
    Change::Group { name: name.into(), before: None, after }
}

#[test]
fn accounts_are_found_by_name_and_number() {
    let bench = bench();
    let alice = bench.machine.find_user("alice").unwrap().unwrap();
    assert_eq!(bench.machine.find_user("1000").unwrap().as_ref(), Some(&alice));
    assert_eq!((alice.locked(), alice.id, alice.groups), (false, Owner::Id(1000), vec!["adm".to_owned()]));
    assert!(bench.machine.find_user("root").unwrap().unwrap().locked());
    assert_eq!(bench.machine.find_group("4").unwrap().unwrap().members, ["alice", "bob"]);
    assert_eq!(bench.machine.find_user("nobody").unwrap(), None);
}

#[test]
fn a_user_comes_changes_and_goes() {
    let mut bench = bench();
    let before = bench.picture();
    let spec =
        UserSpec { groups: Some(vec!["docker".into()]), create_home: true, password_hash: Some("$6$x".into()), ..UserSpec::default() };
    let change = user("carol", Some(spec), false);
    let back = bench.machine.invert(&change).unwrap();
    bench.perform(&change).unwrap();
    let carol = bench.machine.find_user("carol").unwrap().unwrap();
    assert_eq!((carol.locked(), carol.id, carol.group), (false, Owner::Id(1001), Owner::Id(1001)));
    assert_eq!(carol.groups, ["docker"]);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(bench.real("/home/carol")).unwrap()) & 0o777, 0o700);

    let change =
        user("carol", Some(UserSpec { shell: Some("/bin/zsh".into()), groups: Some(vec!["adm".into()]), ..UserSpec::default() }), false);
    bench.perform(&change).unwrap();
    let carol = bench.machine.find_user("carol").unwrap().unwrap();
    assert_eq!((carol.shell.as_str(), carol.id, carol.groups), ("/bin/zsh", Owner::Id(1001), vec!["adm".to_owned()]));
    assert_eq!(bench.machine.find_user("carol").unwrap().unwrap().password.as_deref(), Some("$6$x"));

    for change in &back {
        bench.perform(change).unwrap();
    }
    assert_eq!(bench.machine.find_user("carol").unwrap(), None);
    bench.perform(&user("carol", None, false)).unwrap();
    let mut after = bench.picture();
    after.retain(|path, _| !path.starts_with("/home") && path != "/etc/.pwd.lock");
    assert_eq!(after, before);
}

#[test]
fn a_changed_user_is_brought_back_with_its_password() {
    let mut bench = bench();
    let before = bench.picture();
    let spec = UserSpec {
        uid: Some(2000),
        comment: Some("new".into()),
        groups: Some(Vec::new()),
        password_hash: Some("!".into()),
        ..UserSpec::default()
    };
    let change = user("alice", Some(spec), false);
    let back = bench.machine.invert(&change).unwrap();
    bench.perform(&change).unwrap();
    assert!(bench.machine.find_user("alice").unwrap().unwrap().locked());
    bench.perform(&back[0]).unwrap();
    let mut after = bench.picture();
    after.remove("/etc/.pwd.lock");
    // Members are written anew.
    assert_eq!(after["/etc/passwd"], before["/etc/passwd"]);
    assert_eq!(after["/etc/shadow"], before["/etc/shadow"]);
    assert_eq!(bench.machine.find_user("alice").unwrap().unwrap().groups, ["adm"]);
}

#[test]
fn a_removed_user_comes_back_with_its_group_and_as_old_as_it_was() {
    let mut bench = Bench::new();
    bench
        .write("/etc/passwd", "alice:x:1000:1500:,,,:/home/alice:/bin/bash\n")
        .write("/etc/group", "adm:x:4:alice\nalice:x:1500:\n")
        .write("/etc/shadow", "alice:$6$old:19000:1:90:14:30:21000:\n");
    let before = bench.picture();
    let change = user("alice", None, false);
    let back = bench.machine.invert(&change).unwrap();
    bench.perform(&change).unwrap();
    assert_eq!(bench.text("/etc/group"), "adm:x:4:\n");
    for change in &back {
        bench.perform(change).unwrap();
    }
    let mut after = bench.picture();
    after.remove("/etc/.pwd.lock");
    assert_eq!(after, before);
}

#[test]
fn a_new_password_ages_as_the_old_one_did() {
    let mut bench = Bench::new();
    bench.write("/etc/passwd", "alice:x:1000:1000::/:/bin/sh\n").write("/etc/shadow", "alice:$6$old:19000:1:90:14:30:21000:\n");
    let set = |hash: &str| user("alice", Some(UserSpec { password_hash: Some(hash.into()), ..UserSpec::default() }), false);
    bench.perform(&set("$6$new")).unwrap();
    let shadow = bench.text("/etc/shadow");
    assert!(shadow.starts_with("alice:$6$new:") && shadow.ends_with(":1:90:14:30:21000:\n"), "{shadow}");
    assert!(!shadow.contains(":19000:"), "{shadow}");
}

#[test]
fn a_group_that_others_are_in_stays_when_its_user_goes() {
    let mut bench = Bench::new();
    bench.write("/etc/passwd", "alice:x:1000:1000::/:/bin/sh\nbob:x:1001:1000::/:/bin/sh\n").write("/etc/group", "alice:x:1000:\n");
    let back = bench.machine.invert(&user("alice", None, false)).unwrap();
    bench.perform(&user("alice", None, false)).unwrap();
    assert_eq!((bench.text("/etc/group").as_str(), back.len()), ("alice:x:1000:\n", 1));
}

#[test]
fn system_accounts_get_low_numbers_and_no_home() {
    let mut bench = bench();
    bench.perform(&group("etcd", Some(GroupSpec { gid: None, system: true }))).unwrap();
    let spec = UserSpec { group: Some("etcd".into()), system: true, ..UserSpec::default() };
    bench.perform(&user("etcd", Some(spec), false)).unwrap();
    let etcd = bench.machine.find_user("etcd").unwrap().unwrap();
    assert_eq!((&etcd.id, &etcd.group, etcd.shell.as_str()), (&Owner::Id(999), &Owner::Id(999), "/usr/sbin/nologin"));
    assert!(!bench.real("/home/etcd").exists() && etcd.locked());
}

#[test]
fn an_empty_root_gets_its_first_accounts() {
    let mut bench = Bench::new();
    bench.perform(&group("g", Some(GroupSpec { gid: Some(500), system: false }))).unwrap();
    bench.perform(&group("g", Some(GroupSpec { gid: Some(501), system: false }))).unwrap();
    assert_eq!(bench.text("/etc/group"), "g:x:501:\n");
    bench.perform(&group("g", None)).unwrap();
    bench.perform(&group("g", None)).unwrap();
    assert_eq!(bench.machine.find_group("g").unwrap(), None);
}

#[test]
fn users_stay_in_a_primary_group_that_gets_another_number() {
    let mut bench = bench();
    bench.perform(&group("alice", Some(GroupSpec { gid: Some(1500), system: false }))).unwrap();
    assert_eq!(bench.machine.find_user("alice").unwrap().unwrap().group, Owner::Id(1500));
    assert!(bench.text("/etc/passwd").starts_with("root:x:0:0:root:/root:/bin/bash\n"));
}

#[test]
fn names_that_would_break_the_files_are_refused() {
    let mut bench = bench();
    for name in ["", "-r", "a:b", "a b", "a\nb", "a/b", "a,b"] {
        assert!(bench.perform(&user(name, Some(UserSpec::default()), false)).is_err(), "{name:?}");
        assert!(bench.perform(&group(name, Some(GroupSpec::default()))).is_err(), "{name:?}");
    }
    let missing = UserSpec { groups: Some(vec!["no".into()]), ..UserSpec::default() };
    assert!(bench.perform(&user("dave", Some(missing), false)).unwrap_err().message.contains("no group `no`"));
    assert_eq!(bench.machine.find_user("dave").unwrap(), None);
    assert_eq!(bench.machine.find_group("dave").unwrap(), None);
}

#[test]
fn a_user_gets_its_options_and_the_password_stays_off_the_command_line() {
    let spec =
        UserSpec { uid: Some(5), groups: Some(vec!["a".into(), "b".into()]), password_hash: Some("$6$x".into()), ..UserSpec::default() };
    assert_eq!(options(&spec), ["-u", "5", "-G", "a,b"]);
    let aging = aging_options("19000:0:99999:7:::");
    assert_eq!(aging, ["-d", "19000", "-m", "0", "-M", "99999", "-W", "7", "-I", "-1", "-E", "-1"]);
}

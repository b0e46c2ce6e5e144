//! Inventories of all kinds, read by kplay and by Ansible: both must print the same.
//!
//! `ansible-inventory` of ansible-core is looked for in `$KPLAY_CACHE/ansible/bin`, then on the path.
#![allow(clippy::disallowed_methods, reason = "tests make the files and start the programs that they need")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod nasty;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const CLUSTER: &str = r#"
all:
  vars: {ntp: 10.4.7.1, level: all, nested: {a: 1, b: [1, 2, {c: d}]}}
  children:
    proxy:
      hosts:
        hdss7-11.host.com: {ansible_host: 10.4.7.11}
        hdss7-12.host.com:
    etcd:
      vars: {level: etcd}
      hosts:
        hdss7-12.host.com:
        hdss7-[21:22].host.com:
          etcd_name: '{{ inventory_hostname }}'
    kube:
      children:
        master:
          hosts: {'hdss7-[21:22].host.com': {level: host}}
          vars: {level: master, m: 1}
        node: {}
      vars: {level: kube}
    deep1: {children: {deep2: {children: {deep3: {hosts: {h3: }, vars: {v: 3}}}, vars: {v: 2, w: 2}}}, vars: {v: 1, w: 1, x: 1}}
    aaa: {hosts: {h3: }, vars: {v: aaa, x: aaa}}
    prio: {hosts: {h3: }, vars: {ansible_group_priority: 10, v: prio}}
  hosts:
    lonely: {k: null, t: true, f: 1.5, s: 'yes', i: 12, e: {}, l: [], big: 123456789012, text: "two\nlines\n"}
    'range[01:03]-[a:b]': {}
    'step[1:9:4]': {}
    'port:2222': {}
    'fe80::1': {}
web:
  hosts: w1
  children: sub
sub:
  hosts: {w2: , w1: }
other:
"#;

const ANCHORS: &str = "
x: &x {hosts: {a1: &v {p: 1, q: 2}, a2: {<<: *v, q: 3}}}
y: *x
ungrouped: {hosts: {u1: {}, a1: {}}}
empty_group: {}
";

const PROGRAM: &str = r#"#!/bin/sh
echo '{"dyn": {"hosts": ["d1","d2"], "vars": {"a": 1}, "children": ["kid"]}, "kid": {"hosts": ["d3"]},
       "_meta": {"hostvars": {"d1": {"x": [1, {"y": null}]}, "d9": {"n": 1}}}}'
"#;

#[test]
fn every_inventory_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        if text.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    };
    write("cluster.yaml", CLUSTER);
    write("anchors.yml", ANCHORS);
    write("program", PROGRAM);
    write("group_vars/all.yml", "level: file of all\ngva: 1\n");
    write("group_vars/web/b.yml", "gvw: 1\nz: b\n");
    write("group_vars/web/a", "z: a\n");
    write("group_vars/etcd", "level: file of etcd\n");
    write("host_vars/w1.json", "{\"hv\": true, \"level\": \"hv\"}");
    write("host_vars/hdss7-21.host.com.yaml", "hv: 21\n");
    write("folder/01.yaml", CLUSTER);
    write("folder/02", PROGRAM);
    write("folder/03.yml", "x: {hosts: {w1: {late: 1}}}\n");
    write("folder/group_vars/all.yaml", "q: 1\n");
    write("folder/notes.md", "not an inventory\n");
    let ansible = ansible();
    for arguments in [
        "-i cluster.yaml",
        "-i anchors.yml",
        "-i ./program",
        "-i folder",
        "-i folder -i anchors.yml",
        "-i anchors.yml -i cluster.yaml -i ./program",
        "-i a,b,c:22,",
        "-i cluster.yaml -i x1,",
        "-i cluster.yaml --limit etcd",
        "-i cluster.yaml --limit web:&sub",
        "-i cluster.yaml --limit all:!kube",
        "-i cluster.yaml --limit ~h.*1",
    ] {
        let words: Vec<_> = arguments.split(' ').chain(["--list"]).collect();
        same(folder.path(), &ansible, &words);
    }
    for group in ["all", "kube", "web"] {
        same(folder.path(), &ansible, &["-i", "cluster.yaml", "--graph", group]);
    }
}

#[track_caller]
fn same(folder: &Path, ansible: &Path, arguments: &[&str]) {
    let theirs = Command::new(ansible).args(arguments).current_dir(folder).env("ANSIBLE_NOCOLOR", "1").output().unwrap();
    let ours = Command::new(env!("CARGO_BIN_EXE_kplay")).arg("inventory").args(arguments).current_dir(folder).output().unwrap();
    let (theirs_text, ours_text) = (String::from_utf8_lossy(&theirs.stdout), String::from_utf8_lossy(&ours.stdout));
    assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
    assert!(ours.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ours.stderr));
    let theirs_json = serde_json::from_str::<serde_json::Value>(&theirs_text).ok();
    let ours_json = serde_json::from_str::<serde_json::Value>(&ours_text).ok();
    // Older releases do not write their profile. Ansible says in its JSON what was tagged `!unsafe`; the text is the same.
    let plain = |value: Option<serde_json::Value>| {
        value.map(|mut value| {
            if let Some(meta) = value.get_mut("_meta").and_then(serde_json::Value::as_object_mut) {
                meta.remove("profile");
            }
            untagged(value)
        })
    };
    if ours_json.is_some() {
        assert_eq!(plain(ours_json), plain(theirs_json), "{arguments:?}\n{ours_text}\n{theirs_text}");
    } else {
        assert_eq!(ours_text, theirs_text, "{arguments:?}");
    }
}

fn untagged(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) if map.len() == 1 && map.contains_key("__ansible_unsafe") => map["__ansible_unsafe"].clone(),
        serde_json::Value::Object(map) => map.into_iter().map(|(key, value)| (key, untagged(value))).collect(),
        serde_json::Value::Array(list) => list.into_iter().map(untagged).collect(),
        other => other,
    }
}

fn ansible() -> PathBuf {
    let cache = std::env::var_os("KPLAY_CACHE").map_or_else(|| PathBuf::from("/var/cache/kplay"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(cache.join("ansible/bin"))
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("ansible-inventory"))
        .find(|program| program.is_file())
        .expect("`ansible-inventory` is missing: python3 -m venv $KPLAY_CACHE/ansible && $KPLAY_CACHE/ansible/bin/pip install ansible-core")
}

//! Inventories with everything that is easily read in another way: several folders, ranks of groups, odd names and values.

use std::fs;

use crate::{ansible, same};

const VALUES: &str = r#"
all:
  vars:
    unsafe: !unsafe 'x {{ not a template }} y'
    'null': ~
    nothing:
    unicode: "grün ☃ 日本語 😀"
    emptytext: ''
    multiline: |
      first
        second
    folded: >-
      one
      two
    whole_float: 1.0
    negative: -5
    hex: "0x1f"
    date: "2026-11-22"
    quoted: ["yes", 'no', True, false]
    listofmaps: [{a: 1}, {b: [x, {c: null}]}]
    dict: {1: one, true_: two}
  children:
    levels:
      children:
        one: {children: {two: {children: {three: {hosts: {'deep[1:3]': }, vars: {depth: 3}}}, vars: {depth: 2, only2: x}}}, vars: {depth: 1}}
    alpha: {hosts: {many: {own: h}}, vars: {p: alpha, q: alpha, ansible_group_priority: 5}}
    beta: {hosts: {many: }, vars: {p: beta, q: beta}}
    gamma: {hosts: {many: }, vars: {p: gamma, r: gamma, ansible_group_priority: 5}}
    delta: {hosts: {many: }, vars: {p: delta, ansible_group_priority: -1}}
    merged: {hosts: {many: }, vars: {map: {a: 1}}}
    merger: {hosts: {many: }, vars: {map: {b: 2}}}
    ranges:
      hosts:
        'n[001:010:3].example.com': {}
        'x[a:e:2]-[08:10]': {}
        'r[1:2]:2200': {z: 1}
        'up[A:C]': {}
    'with-dash': {hosts: {many: , dashed: }}
    unreferenced: {vars: {u: 1}}
    empty: {children: , hosts: , vars: }
  hosts:
    nüm: {u: ü}
    '10.0.0.1': {ansible_port: 22}
    'deep2': {late: true}
"#;

const ONE: &str = "
parent:
  vars: {v: parent, ansible_group_priority: 50, w: parent}
  children:
    child: {vars: {v: child, w: child}, hosts: {h1: , h2: }}
    same: {hosts: {same: , h3: }}
lower: {hosts: {h1: }, vars: {v: lower}}
Upper: {hosts: {h1: }, vars: {v: Upper, x: Upper}}
zeta: {hosts: {h1: }, vars: {x: zeta}}
filed: {hosts: {h1: , h2: }}
filed2: {hosts: {h1: , h2: }}
all: {vars: {list: [1], map: {a: 1, b: {c: 1}}, v: all}}
";

const TWO: &str = "
all:
  hosts: {h9: {k: 1}}
  vars: {list: [2], map: {b: {d: 2}}, v: all2}
  children:
    child: {vars: {w: again}, hosts: {h4: }}
    ungrouped: {hosts: {h8: {}}}
    parent: {hosts: {h1: {v: host}}}
";

#[test]
fn nasty_inventories_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("values/hosts.yaml", VALUES),
        ("values/group_vars/beta/20.yml", "p: file of beta, 2\nf2: 1\n"),
        ("values/group_vars/beta/10.yaml", "p: file of beta, 1\nf1: 1\n"),
        ("values/group_vars/beta/sub/x.yml", "subfile: 1\n"),
        ("values/group_vars/beta/.hidden.yml", "hidden: 1\n"),
        ("values/group_vars/beta/x.yml~", "backup: 1\n"),
        ("values/group_vars/beta/30.json", r#"{"json": [1, 2, {"a": null}]}"#),
        ("values/group_vars/all/main.yml", "allfile: 1\nemptytext: file\n"),
        ("values/group_vars/three.yaml", "---\ndepth: file of three\nx: !unsafe \"{{ y }}\"\n"),
        ("values/group_vars/three.txt", "not of ours"),
        ("values/host_vars/many/a.yml", "q: host file\n"),
        ("values/host_vars/deep1.yml", "\n"),
        ("one/hosts.yaml", ONE),
        // A rank counts where groups are described, not in a file of variables.
        ("one/group_vars/filed.yml", "ansible_group_priority: 9\nf: filed\n"),
        ("one/group_vars/filed2.yml", "f: filed2\n"),
        ("one/group_vars/parent.yml", "v: file of parent, one\nu: 1\n"),
        ("one/group_vars/all.yml", "a: one\nall_one: 1\n"),
        ("one/host_vars/h1.yml", "hv: one\n"),
        ("two/hosts.yaml", TWO),
        ("two/group_vars/parent.yml", "v: file of parent, two\n"),
        ("two/group_vars/all.yml", "a: two\n"),
        ("two/group_vars/ungrouped.yml", "u: ungrouped\n"),
        ("two/host_vars/h1/x.yaml", "hv: two\n"),
        ("two/host_vars/h9.json", "{}"),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let ansible = ansible();
    for arguments in [
        "-i values",
        "-i values/hosts.yaml -i one",
        "-i one",
        "-i one -i two",
        "-i two -i one",
        "-i one/hosts.yaml -i two/hosts.yaml",
        "-i one -i two --limit child:!h1",
        "-i one -i two -e v=extra",
        "-i one -i one",
    ] {
        let words: Vec<_> = arguments.split(' ').chain(["--list"]).collect();
        same(folder.path(), &ansible, &words);
    }
}

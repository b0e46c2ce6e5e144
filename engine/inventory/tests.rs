//! Cases of reading, merging, selecting and rendering, on files in a folder of their own.

use std::path::Path;
use std::time::Duration;

use super::{Decrypt, Defaults, Inventory, Sources, Variables};
use crate::diagnostic::{Diagnostic, Result};
use crate::transport::{ConnectionKind, HostKeyPolicy};

struct NoSecrets;

impl Decrypt for NoSecrets {
    fn decrypt(&self, _: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(bytes.iter().rev().copied().collect())
    }
}

/// Writes the files into a folder and reads its `hosts.yaml`, or the folder's sources named in `sources`.
fn load_from(files: &[(&str, &str)], sources: &[&str]) -> Result<Inventory> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let inventories: Vec<_> = sources.iter().map(|source| folder.path().join(source).to_string_lossy().into_owned()).collect();
    Inventory::load(&Sources {
        inventories: &inventories,
        playbook_folder: None,
        extra: &Variables::new(),
        timeout: Duration::from_secs(5),
        decrypt: &NoSecrets,
    })
    .map_err(|mut error| {
        if let Some(place) = &mut error.place {
            place.file = place.file.strip_prefix(folder.path()).unwrap_or(&place.file).to_path_buf();
        }
        error
    })
}

fn load(text: &str) -> Inventory {
    load_from(&[("hosts.yaml", text)], &["hosts.yaml"]).unwrap()
}

fn refused(text: &str) -> Box<Diagnostic> {
    load_from(&[("hosts.yaml", text)], &["hosts.yaml"]).unwrap_err()
}

fn names(inventory: &Inventory, pattern: &str) -> String {
    match inventory.select(pattern) {
        Ok(hosts) => hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(error) => format!("{} | {}", error.message, error.hints.join(" | ")),
    }
}

const CLUSTER: &str = "
all:
  vars: {level: all, a: 1}
  children:
    proxy: {hosts: {hdss7-11: , hdss7-12: }}
    etcd:
      vars: {level: etcd, b: 2}
      hosts: {hdss7-12: , hdss7-21: , hdss7-22: }
    master:
      vars: {level: master}
      hosts: {'hdss7-[21:22]': {level: host}}
    kubernetes:
      vars: {level: kubernetes, c: 3}
      children: {etcd: , master: }
";

#[test]
fn patterns_select() {
    let inventory = load(CLUSTER);
    for (pattern, expected) in [
        ("all", "hdss7-11 hdss7-12 hdss7-21 hdss7-22"),
        ("*", "hdss7-11 hdss7-12 hdss7-21 hdss7-22"),
        ("master", "hdss7-21 hdss7-22"),
        ("kubernetes", "hdss7-12 hdss7-21 hdss7-22"),
        ("proxy:master", "hdss7-11 hdss7-12 hdss7-21 hdss7-22"),
        ("proxy,master", "hdss7-11 hdss7-12 hdss7-21 hdss7-22"),
        ("proxy:&etcd", "hdss7-12"),
        ("etcd:!master", "hdss7-12"),
        ("!master", "hdss7-11 hdss7-12"),
        ("&master", "hdss7-21 hdss7-22"),
        ("hdss7-2?", "hdss7-21 hdss7-22"),
        ("hdss7-[12]2", "hdss7-12 hdss7-22"),
        ("hdss7-[!1]*", "hdss7-21 hdss7-22"),
        ("~hdss7-(11|22)$", "hdss7-11 hdss7-22"),
        ("etcd[0]", "hdss7-12"),
        ("etcd[-1]", "hdss7-22"),
        ("etcd[1:2]", "hdss7-21 hdss7-22"),
        ("etcd[1:]", "hdss7-21 hdss7-22"),
        ("hdss7-21, hdss7-11", "hdss7-21 hdss7-11"),
        ("ungrouped", ""),
        ("localhost", "localhost"),
        ("etcd[7]", "`etcd[7]` asks for a host that is not there: the group has 3 | "),
        ("mastr", "no host or group matches `mastr` | did you mean `master`?"),
        ("etcd:!mastre", "no host or group matches `mastre` | did you mean `master`?"),
        ("web*", "no host or group matches `web*` | `kplay inventory --graph` shows hosts and groups"),
        ("", "the host pattern is empty | `all` means every host"),
    ] {
        assert_eq!(names(&inventory, pattern), expected, "{pattern}");
    }
}

#[test]
fn nearer_groups_and_the_host_win_and_each_variable_knows_its_line() {
    let inventory = load(CLUSTER);
    let host = inventory.host("hdss7-12").unwrap();
    assert_eq!(host.raw_values()["level"], "etcd");
    assert_eq!(inventory.host("hdss7-21").unwrap().raw_values()["level"], "host");
    assert_eq!(host.origin("c").unwrap().line, 13);
    let explained: Vec<_> = host
        .layers()
        .filter_map(|layer| layer.variables.get("level").map(|variable| format!("{} {}", layer.owner, variable.value)))
        .collect();
    assert_eq!(explained, [r#"group all "all""#, r#"group kubernetes "kubernetes""#, r#"group etcd "etcd""#]);
    assert_eq!(inventory.group_names(host), ["etcd", "kubernetes", "proxy"]);
}

#[test]
fn folders_of_variables_are_read_once_and_in_order() {
    let inventory = load_from(
        &[
            ("hosts.yaml", "web: {hosts: {w1: {x: inline}, w2: }, vars: {x: web, y: web}}"),
            ("group_vars/all.yml", "y: all file\nz: all file\n"),
            ("group_vars/web/a.yaml", "z: web a\n"),
            ("group_vars/web/b.json", "{\"z\": \"web b\"}"),
            ("group_vars/web/notes.txt", "not: read"),
            ("group_vars/web/secret.yaml.age", "2terces :drowssap"),
            ("host_vars/w1.yaml", "x: host file\n"),
            ("host_vars/w1.yml", "x: host file first\n"),
        ],
        &["hosts.yaml"],
    )
    .unwrap();
    let values = |name: &str| serde_json::to_string(&inventory.host(name).unwrap().raw_values()).unwrap();
    assert_eq!(values("w1"), r#"{"x":"host file first","y":"all file","z":"web b","password":"secret2"}"#);
    assert_eq!(values("w2"), r#"{"x":"web","y":"all file","z":"web b","password":"secret2"}"#);
    assert_eq!(inventory.secrets().mask("it is secret2"), "it is ********");
    assert_eq!(inventory.warnings().len(), 1);
}

/// An encrypted file as [`NoSecrets`] opens it.
fn encrypted(text: &str) -> String {
    text.chars().rev().collect()
}

#[test]
fn what_is_rendered_from_secrets_is_one() {
    let secrets = encrypted("part: 'correct horse'\nwhole: '{{ part }} battery'\nmap: {user: admin, pass: 'staple {{ pin }}'}\n");
    let plain = "pin: 4711\nurl: 'http://x/{{ part }}'\nhidden: '{{ part | upper }}'\nlength: '{{ part | length }}'\n\
                 app: {name: web-frontend, pass: \"{{ hostvars['w1'].map.pass | replace(' ', '-') }}\"}\n";
    let inventory = load_from(
        &[("hosts.yaml", "web: {hosts: {w1: }}"), ("group_vars/all/a.yaml", plain), ("group_vars/all/s.yaml.age", &secrets)],
        &["hosts.yaml"],
    )
    .unwrap();
    let host = inventory.host("w1").unwrap();
    let shown = |key: &str| {
        let text = inventory.value(host, key).unwrap().unwrap().to_string();
        inventory.secrets().mask(&text)
    };
    assert_eq!(shown("url"), "\"http://x/********\"");
    assert_eq!(shown("whole"), "\"********\"");
    assert_eq!(shown("hidden"), "\"********\"");
    assert_eq!(shown("map"), r#"{"user":"********","pass":"********"}"#);
    assert_eq!(shown("app"), r#"{"name":"web-frontend","pass":"********"}"#);
    assert_eq!(shown("pin"), "4711");
}

#[test]
fn mistakes_in_encrypted_files_quote_nothing() {
    for (secrets, expected) in [
        (
            "pin: 0471\n",
            "the number `…` begins with a zero, which some readers of YAML take as octal and some as decimal (line 1 of what is encrypted)",
        ),
        ("port: abc\n", "`port` has to be a port, not `********`"),
        ("become: staple\n", "`become` has to be `true` or `false`, not `********`"),
        ("connection: horse\n", "`connection` cannot be `********`"),
        ("a: 1\nuser: '{{ horse }}'\n", "cannot render the variable `user`: `horse` is undefined"),
    ] {
        let loaded =
            load_from(&[("hosts.yaml", "web: {hosts: {w1: }}"), ("group_vars/all.yaml.age", &encrypted(secrets))], &["hosts.yaml"]);
        let defaults = Defaults::default();
        let error = loaded.and_then(|inventory| inventory.settings(inventory.host("w1").unwrap(), &defaults)).unwrap_err();
        assert_eq!(error.message, expected);
        assert_eq!(error.place.unwrap().line, 0, "a line of the file as it lies there would be shown");
    }
}

#[test]
fn mistakes_name_their_place_and_what_to_do() {
    for (text, expected) in [
        ("all:\n  host: {a: }\n", "2:3 unknown key `host` in the group `all` | did you mean `hosts`?"),
        (
            "all:\n  hosts:\n    - a\n",
            "3:5 `hosts` has to be a mapping, not a list | write one `name:`, with a colon and without a dash a line",
        ),
        ("hosts:\n  a:\n", "1:1 `hosts` stands at the top of the file, where group names are expected | put it below a group: `all:`"),
        ("all:\n  hosts:\n    10: {}\n", "3:5 a host name has to be a string, not `10` | quote it"),
        (
            "all:\n  hosts:\n    a: {mode: 0644}\n",
            "3:15 the number `0644` begins with a zero, which some readers of YAML take as octal and some as decimal | quote it: \"0644\"",
        ),
        ("all:\n  hosts:\n    a: b\n", "3:8 the variables of `a` have to be a mapping, not a string | write one `name: value` a line"),
        (
            "a: {children: {b: }}\nb: {children: {c: }}\nc: {children: {a: }}\n",
            "1:16 groups contain each other: `a` contains `b` contains `c` contains `a` | ",
        ),
        ("all: {hosts: {'a[3:1]': }}", "1:15 `a[3:1]` is no host name: the host range `[3:1]` ends before it begins | "),
        (
            "plugin: aws_ec2\n",
            "1:1 this file configures an inventory plugin of Ansible's, which kplay does not run | write what the plugin finds into a file: `ansible-inventory -i FILE --list --yaml --export`",
        ),
    ] {
        let error = refused(text);
        let place = error.place.unwrap();
        assert_eq!(format!("{}:{} {} | {}", place.line, place.column, error.message, error.hints.join(" | ")), expected);
    }
    let error = load_from(&[("hosts", "# servers\n[web]\nw1 ansible_host=10.0.0.1\n")], &["hosts"]).unwrap_err();
    assert_eq!((error.message.as_str(), error.place.unwrap().line), ("this is an INI inventory, which kplay does not read", 2));
    assert!(error.hints[0].contains("ansible-inventory -i"), "{:?}", error.hints);
}

#[test]
fn templates_are_rendered_when_they_are_read() {
    let inventory = load(
        "
all:
  vars:
    port: 2379
    url: 'https://{{ ip }}:{{ port }}'
    same: '{{ port }}'
    list: ['{{ url }}', {k: '{{ inventory_hostname }}'}]
    members: \"{% for h in groups['all'] %}{{ hostvars[h].ip }}{{ ',' if not loop.last else '' }}{% endfor %}\"
    braces: !unsafe '{{ kept }}'
    broken: '{{ prot }}'
    circle: '{{ circle2 }}'
    circle2: '{{ circle }}'
    maybe: \"{{ nothing | default('x') }}\"
  hosts:
    a: {ip: 10.0.0.1}
    b: {ip: '10.0.0.{{ 1 + 1 }}'}
",
    );
    let host = inventory.host("b").unwrap();
    let value = |key: &str| match inventory.value(host, key) {
        Ok(value) => value.unwrap().to_string(),
        Err(error) => format!("{} {:?}", error.message, error.hints),
    };
    assert_eq!(value("url"), r#""https://10.0.0.2:2379""#);
    assert_eq!(value("same"), "2379");
    assert_eq!(value("list"), r#"["https://10.0.0.2:2379",{"k":"b"}]"#);
    assert_eq!(value("members"), r#""10.0.0.1,10.0.0.2""#);
    assert_eq!(value("braces"), r#""{{ kept }}""#);
    assert_eq!(value("maybe"), r#""x""#);
    assert!(value("broken").starts_with("cannot render the variable `broken`:"), "{}", value("broken"));
    assert!(value("broken").contains("did you mean `port`"), "{}", value("broken"));
    assert_eq!(value("circle"), "variables refer to each other: `circle` to `circle2` to `circle` []");
}

#[test]
fn connection_settings_come_in_two_languages() {
    let inventory = load(
        "
all:
  hosts:
    own: {address: 10.4.7.21, port: 2222, user: admin, root: /srv/x, namespace: lab, become: true, host_keys: off, private_key: /k}
    theirs: {ansible_host: 10.4.7.22, ansible_port: '22', ansible_become: yes, ansible_become_user: app, port: 8080,
             ansible_ssh_common_args: '-o StrictHostKeyChecking=no -o ProxyJump=bastion'}
    plain: {}
    wrong: {port: http}
    other: {ansible_connection: winrm}
    args: {ansible_ssh_extra_args: '-o ProxyCommand=nc'}
",
    );
    let settings = |name: &str| inventory.settings(inventory.host(name).unwrap(), &Defaults::default());
    let own = settings("own").unwrap();
    assert_eq!((own.target.address.as_str(), own.target.port, own.target.user.as_deref()), ("10.4.7.21", Some(2222), Some("admin")));
    assert_eq!(own.target.namespace.as_deref(), Some(Path::new("/run/netns/lab")));
    assert_eq!((own.target.root.as_deref(), own.become_user.as_deref()), (Some(Path::new("/srv/x")), Some("root")));
    assert_eq!(own.target.host_keys, HostKeyPolicy::Off);
    let theirs = settings("theirs").unwrap();
    assert_eq!(
        (theirs.target.port, theirs.become_user.as_deref(), theirs.target.jump.as_deref()),
        (Some(22), Some("app"), Some("bastion"))
    );
    assert_eq!(theirs.target.host_keys, HostKeyPolicy::Off);
    assert_eq!(settings("plain").unwrap().target.address, "plain");
    assert_eq!(settings("localhost").unwrap().target.connection, ConnectionKind::Local);
    assert_eq!(settings("wrong").unwrap_err().message, "`port` has to be a port, not `http`");
    assert_eq!(settings("other").unwrap_err().message, "`ansible_connection` cannot be `winrm`");
    assert_eq!(settings("args").unwrap_err().message, "`ansible_ssh_extra_args` has `-o ProxyCommand`, which kplay does not understand");
}

#[test]
fn several_sources_are_merged() {
    let folder = &[
        ("a.yaml", "web: {hosts: {w1: {x: 1, y: 1}}, vars: {z: 1}}"),
        ("b/one.yaml", "web: {hosts: {w1: {x: 2}, w2: }, vars: {z: 2}}"),
        ("b/two.yaml", "db: {hosts: {d1: }}"),
        ("b/README.md", "# no inventory"),
    ];
    let inventory = load_from(folder, &["a.yaml", "b"]).unwrap();
    assert_eq!(names(&inventory, "all"), "w1 w2 d1");
    let values = inventory.host("w1").unwrap().raw_values();
    assert_eq!((&values["x"], &values["y"], &values["z"]), (&2.into(), &1.into(), &2.into()));
}

#[test]
fn ten_thousand_hosts_are_read_and_selected_quickly() {
    let inventory = load("web: {vars: {a: 1}, hosts: {'w[00001:10000]': {b: 2}}}");
    assert_eq!(inventory.select("web:!w0000*").unwrap().len(), 9991);
    assert_eq!(inventory.hosts().map(|host| host.raw_values().len()).sum::<usize>(), 20_000);
}

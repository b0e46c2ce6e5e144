//! Hosts, groups, variables, and how they are shown.

use crate::support::kplay::Kplay;

const CLUSTER: &str = "
    all:
      vars: {domain: host.com, level: all}
      children:
        etcd:
          hosts: {hdss7-12: , 'hdss7-[21:22]': }
        master:
          vars: {level: master, url: 'https://{{ inventory_hostname }}.{{ domain }}:{{ port_of_api }}', port_of_api: 6443}
          hosts:
            hdss7-[21:22]:
    ";

#[test]
fn the_tree_of_groups_is_drawn() {
    Kplay::new()
        .inventory(CLUSTER)
        .args(["inventory", "--graph"])
        .stdout(
            "
            @all:
              |--@ungrouped:
              |--@etcd:
              |  |--hdss7-12
              |  |--hdss7-21
              |  |--hdss7-22
              |--@master:
              |  |--hdss7-21
              |  |--hdss7-22
            ",
        )
        .run();
}

#[test]
fn templates_are_rendered_for_one_host_and_left_in_the_list() {
    let session = Kplay::new()
        .inventory(CLUSTER)
        .args(["inventory", "--host", "hdss7-21"])
        .stdout(
            r#"
            {
                "domain": "host.com",
                "level": "master",
                "port_of_api": 6443,
                "url": "https://hdss7-21.host.com:6443"
            }
            "#,
        )
        .run();
    session
        .then()
        .args(["inventory", "--limit", "hdss7-12"])
        .stdout(
            r#"
            {
                "_meta": {
                    "hostvars": {
                        "hdss7-12": {
                            "domain": "host.com",
                            "level": "all"
                        }
                    },
                    "profile": "inventory_legacy"
                },
                "all": {
                    "children": [
                        "ungrouped",
                        "etcd",
                        "master"
                    ]
                },
                "etcd": {
                    "hosts": [
                        "hdss7-12"
                    ]
                }
            }
            "#,
        )
        .run();
}

#[test]
fn a_variable_is_explained_by_all_who_give_it() {
    let session = Kplay::new()
        .inventory(CLUSTER)
        .file("group_vars/master.yaml", "level: master file\n")
        .args(["vars", "hdss7-21", "level"])
        .stdout(
            r#"
            level = "master file"
                group_vars/master.yaml:1  group master
                inventory.yaml:7          group master, overridden: "master"
                inventory.yaml:2          group all, overridden: "all"
            "#,
        )
        .run();
    session
        .then()
        .args(["vars", "hdss7-21", "levle"])
        .stderr("error: `levle` is not defined for `hdss7-21`\n  = hint: did you mean `level`?\n")
        .status(1)
        .run();
}

#[test]
fn names_that_are_not_there_are_guessed() {
    let refuse = |arguments: [&str; 3], message: &str| {
        Kplay::new().inventory(CLUSTER).args(arguments).stderr(message).status(1).run();
    };
    refuse(
        ["inventory", "--host", "hdss7-23"],
        "error: there is no host `hdss7-23` in the inventory\n  = hint: did you mean `hdss7-21`?\n",
    );
    refuse(["inventory", "--graph", "mastre"], "error: there is no group `mastre` in the inventory\n  = hint: did you mean `master`?\n");
    refuse(["inventory", "--limit", "etcd:!mastre"], "error: no host or group matches `mastre`\n  = hint: did you mean `master`?\n");
}

#[test]
fn hosts_that_failed_last_time_are_a_limit() {
    let session = Kplay::new()
        .inventory(CLUSTER)
        .args(["inventory", "--limit", "@failed"])
        .stderr("error: there is no earlier run whose failed hosts `--limit @failed` could mean\n")
        .status(1)
        .run();
    let session = session
        .then()
        .file(".local/state/kplay/failed", "hdss7-22\n")
        .args(["inventory", "--limit", "@failed"])
        .stdout_has("\"hdss7-22\": {")
        .run();
    assert!(!session.stdout.contains("hdss7-21"));
    session.then().file("some", "# maintenance\nhdss7-12\n").args(["inventory", "--limit", "@some"]).stdout_has("hdss7-12").run();
}

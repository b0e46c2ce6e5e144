//! What `-i` takes: files, folders, programs, lists, and what it refuses.

use crate::support::kplay::Kplay;

#[test]
fn an_ini_inventory_is_converted_first() {
    Kplay::new()
        .file("hosts", "web1 ansible_host=10.0.0.1\n\n[web]\nweb1\n")
        .args(["inventory", "-i", "hosts"])
        .stderr(
            "
            error: this is an INI inventory, which kplay does not read
             --> hosts:3
              |
            3 | [web]
              = hint: convert it once: `ansible-inventory -i hosts --list --yaml --export --output inventory.yaml`
            ",
        )
        .status(1)
        .run();
}

#[test]
fn hosts_are_named_with_a_comma() {
    Kplay::new()
        .args(["inventory", "-i", "web1"])
        .stderr("error: cannot read the inventory `web1`: no such file or directory\n  = hint: a host is named with a comma: `-i web1,`\n")
        .status(1)
        .run();
    Kplay::new().args(["inventory", "--graph", "-i", "web1,web2"]).stdout("@all:\n  |--@ungrouped:\n  |  |--web1\n  |  |--web2\n").run();
}

#[test]
fn a_program_is_asked_and_must_answer_in_time() {
    let session = Kplay::new()
        .program("cloud", "#!/bin/sh\necho '{\"web\": {\"hosts\": [\"w1\"]}, \"_meta\": {\"hostvars\": {\"w1\": {\"a\": 1}}}}'\n")
        .args(["vars", "-i", "cloud", "w1", "a"])
        .stdout("a = 1\n    cloud  host\n")
        .run();
    let session = session
        .then()
        .program("broken", "#!/bin/sh\necho no credentials >&2\nexit 3\n")
        .args(["inventory", "-i", "broken"])
        .stderr("error: the inventory program failed with exit status: 3\n --> broken\n  | no credentials\n")
        .status(1)
        .run();
    let session = session
        .then()
        .program("slow", "#!/bin/sh\nsleep 60\n")
        .args(["inventory", "-i", "slow"])
        .env("KPLAY_INVENTORY_TIMEOUT", "1")
        .stderr(
            "
            error: the inventory program took longer than TIME
             --> slow
              = hint: `KPLAY_INVENTORY_TIMEOUT` sets another limit, in seconds
            ",
        )
        .status(1)
        .run();
    let session = session
        .then()
        .program("parent", "#!/bin/sh\nsleep 60 &\necho '{\"web\": {\"hosts\": [\"w1\"]}}'\n")
        .args(["inventory", "-i", "parent", "--graph", "web"])
        .env("KPLAY_INVENTORY_TIMEOUT", "20")
        .stdout("@web:\n  |--w1\n")
        .run();
    session
        .then()
        .program("talkative", "#!/bin/sh\necho hello\n")
        .args(["inventory", "-i", "talkative"])
        .stderr_has("error: the inventory program printed something that is no JSON object")
        .status(1)
        .run();
}

#[test]
fn a_folder_holds_inventories_and_variables() {
    let session = Kplay::new()
        .file("inv/10-base.yaml", "web: {hosts: {w1: , w2: }}")
        .file("inv/20-more.yaml", "web: {hosts: {w3: }}")
        .file("inv/notes.md", "not an inventory")
        .file("inv/group_vars/web/main.yaml", "a: 1\n")
        .file("inv/host_vars/w2.yaml", "a: 2\n")
        .args(["vars", "-i", "inv", "w2", "a"])
        .stdout("a = 2\n    inv/host_vars/w2.yaml:1         host\n    inv/group_vars/web/main.yaml:1  group web, overridden: 1\n")
        .run();
    session.then().args(["inventory", "-i", "inv", "--graph", "web"]).stdout("@web:\n  |--w1\n  |--w2\n  |--w3\n").run();
}

#[test]
fn what_is_not_read_is_said() {
    Kplay::new()
        .inventory("web: {hosts: {w1: }}")
        .file("group_vars/web.yml", "a: 1\n")
        .file("group_vars/web.yaml", "a: 2\n")
        .args(["inventory"])
        .stdout_has("\"a\": 1")
        .stderr("warning: `group_vars/web.yaml` is not read, since there is `group_vars/web.yml`\n")
        .run();
}

//! What `keepalived` writes and what it refuses, case by case.

use serde_json::{Value, json};

use super::Keepalived;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};
use crate::api::{Change, CommandOutput};

const CONF: &str = "/etc/keepalived/keepalived.conf";
const CHECK: &str = "/etc/keepalived/check_port.sh";

/// A proxy of document 001, with its interface, its script, and keepalived not yet installed.
fn proxy() -> Fake {
    let addresses = |host: Fake| {
        host.facts_with(|facts| drop(facts.addresses.insert("ens32".to_owned(), vec!["10.4.7.11".to_owned(), "10.4.7.10".to_owned()])))
    };
    addresses(Fake::new().directory("/sys/class/net/ens32").directory("/sys/class/net/lo").file_with(CHECK, "", 0o755, 0, 0))
}

fn ended(code: i32, stderr: &str) -> CommandOutput {
    CommandOutput { code: Some(code), stderr: stderr.to_owned(), ..CommandOutput::default() }
}

/// What document 001 wants of its first proxy.
fn first() -> Value {
    json!({
        "global_defs": { "router_id": "10.4.7.11" },
        "scripts": { "chk_nginx": { "script": format!("{CHECK} 7443"), "interval": 2 } },
        "instances": { "VI_1": {
            "interface": "ens32",
            "virtual_router_id": 251,
            "priority": 100,
            "address": "10.4.7.11",
            "peers": [{ "address": "10.4.7.12", "priority": 90 }],
            "auth_pass": "11111111",
            "track_script": "chk_nginx",
            "virtual_ipaddress": "10.4.7.10",
        } },
    })
}

/// The same with fields changed or, where null, left out; `/instances/VI_1/state` is the path of a field.
fn first_with(fields: &[(&str, Value)]) -> Value {
    let mut arguments = first();
    for (path, value) in fields {
        let (parent, field) = path.rsplit_once('/').unwrap();
        let parent = arguments.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(parent.remove(field)),
            value => drop(parent.insert((*field).to_owned(), value.clone())),
        }
    }
    arguments
}

pub(super) fn examples() -> Vec<Example> {
    let automatic = first_with(&[("/failback", json!("automatic")), ("/scripts/chk_nginx/weight", json!(-20))]);
    vec![
        Example::new("stays where it is", first()).on(proxy()),
        Example::new("goes back", automatic).on(proxy().file(CONF, "old\n")),
        Example::new("is judged by keepalived", first())
            .on(proxy().file("/usr/sbin/keepalived", "").command("keepalived -t", ended(0, ""))),
    ]
}

fn written(arguments: Value) -> String {
    let done = trial::<Keepalived>(arguments, &Desk::new(), proxy()).unwrap_or_else(|error| panic!("{error:?}"));
    done.host.text(CONF).unwrap()
}

#[test]
fn manual_failback_is_backup_nopreempt_and_no_weight() {
    assert_eq!(
        written(first()),
        "! Configuration File for keepalived
! Written by kplay (module keepalived).

global_defs {
    router_id 10.4.7.11
    enable_script_security
    script_user root
}

vrrp_script chk_nginx {
    script \"/etc/keepalived/check_port.sh 7443\"
    interval 2
}

vrrp_instance VI_1 {
    state BACKUP
    interface ens32
    virtual_router_id 251
    priority 100
    advert_int 1
    nopreempt
    mcast_src_ip 10.4.7.11
    authentication {
        auth_type PASS
        auth_pass 11111111
    }
    track_script {
        chk_nginx
    }
    virtual_ipaddress {
        10.4.7.10
    }
}
"
    );
}

#[test]
fn automatic_failback_is_master_and_weight() {
    let automatic = [("/failback", json!("automatic")), ("/scripts/chk_nginx/weight", json!(-20))];
    let text = written(first_with(&automatic));
    assert!(text.contains("    state MASTER\n") && text.contains("    weight -20\n") && !text.contains("nopreempt"), "{text}");
    let lower = [("/instances/VI_1/priority", json!(80))];
    let text = written(first_with(&[automatic.as_slice(), &lower].concat()));
    assert!(text.contains("    state BACKUP\n") && !text.contains("nopreempt"), "{text}");
    let alone = [("/instances/VI_1/peers", json!([])), ("/instances/VI_1/state", json!("MASTER"))];
    assert!(written(first_with(&[automatic.as_slice(), &alone].concat())).contains("    state MASTER\n"));
}

#[test]
fn unicast_names_source_and_peers() {
    let text = written(first_with(&[("/instances/VI_1/unicast", json!(true)), ("/global_defs/vrrp_garp_master_refresh", json!(60))]));
    assert!(text.contains("    unicast_src_ip 10.4.7.11\n    unicast_peer {\n        10.4.7.12\n    }\n"), "{text}");
    assert!(text.contains("    vrrp_garp_master_refresh 60\n") && !text.contains("mcast"), "{text}");
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    let second = |router: i64| {
        let mut second = first()["instances"]["VI_1"].clone();
        second["virtual_router_id"] = json!(router);
        second
    };
    let cases = [
        (vec![("/instances", json!({}))], "instances: there is no instance"),
        (
            vec![("/instances/VI_2", second(251))],
            "instances.VI_2.virtual_router_id: `VI_1` and `VI_2` both are virtual router 251 on `ens32`",
        ),
        (vec![("/instances/VI_2", second(252))], "instances.VI_2.virtual_ipaddress: `10.4.7.10` is held by `VI_1` and `VI_2`"),
        (vec![("/instances/VI_1/virtual_router_id", json!(0))], "`virtual_router_id` is 0, and has to be between 1 and 255"),
        (vec![("/instances/VI_1/virtual_router_id", json!(256))], "`virtual_router_id` is 256"),
        (vec![("/instances/VI_1/priority", json!(0))], "instances.VI_1.priority: `priority` is 0, and has to be between 1 and 254"),
        (vec![("/instances/VI_1/priority", json!(255))], "`priority` is 255"),
        (vec![("/instances/VI_1/priority", json!(90))], "instances.VI_1.peers[1].priority: `10.4.7.12` has the priority 90, too"),
        (vec![("/instances/VI_1/state", json!("MASTER"))], "instances.VI_1.state: `failback = \"manual\"` needs `nopreempt`"),
        (vec![("/scripts/chk_nginx/weight", json!(-20))], "scripts.chk_nginx.weight: with `failback = \"manual\"`"),
        (
            vec![("/failback", json!("automatic")), ("/scripts/chk_nginx/weight", json!(-10))],
            "scripts.chk_nginx.weight: when `chk_nginx` fails, the weight -10 is not enough: priority 100 minus 10 is not below 90 of the next host (use -20,",
        ),
        (
            vec![("/failback", json!("automatic")), ("/scripts/chk_nginx/weight", json!(5))],
            "the weight 5 is not enough: priority 100 minus 5 is not below 90 of the next host (use 20,",
        ),
        (vec![("/failback", json!("automatic")), ("/scripts/chk_nginx/weight", json!(0))], "with a weight of 0"),
        (
            vec![("/failback", json!("automatic")), ("/instances/VI_1/priority", json!(80)), ("/instances/VI_1/state", json!("MASTER"))],
            "instances.VI_1.state: state MASTER, with the priority 80 below 90",
        ),
        (vec![("/instances/VI_1/auth_pass", json!("123456789"))], "instances.VI_1.auth_pass: `auth_pass` has 9 characters"),
        (vec![("/instances/VI_1/auth_pass", json!("a b"))], "instances.VI_1.auth_pass: `auth_pass` is empty, or holds a character"),
        (vec![("/instances/VI_1/virtual_ipaddress", json!("10.4.7.11"))], "virtual_ipaddress: `10.4.7.11` is this host's own address"),
        (
            vec![("/instances/VI_1/virtual_ipaddress", json!("10.4.7.12/24"))],
            "virtual_ipaddress: `10.4.7.12` is the address of another host",
        ),
        (vec![("/instances/VI_1/virtual_ipaddress", json!("10.4.7"))], "virtual_ipaddress: `10.4.7` is no IP address"),
        (vec![("/instances/VI_1/virtual_ipaddress", json!("10.4.7.10/33"))], "`10.4.7.10/33` has no prefix length between 1 and 32"),
        (vec![("/instances/VI_1/virtual_ipaddress", json!([]))], "the instance `VI_1` has no address to hold"),
        (vec![("/instances/VI_1/virtual_ipaddress", json!("fd00::1"))], "instances.VI_1.address: `10.4.7.11` is not of the same family"),
        (
            vec![("/instances/VI_1/peers", json!([{ "address": "10.4.7.11" }]))],
            "instances.VI_1.peers[1].address: `10.4.7.11` is named twice",
        ),
        (vec![("/instances/VI_1/peers", json!([])), ("/instances/VI_1/unicast", json!(true))], "instances.VI_1.unicast: announcements"),
        (
            vec![("/scripts/chk_nginx/script", json!(CHECK))],
            "is given no port: it would never succeed (write \"/etc/keepalived/check_port.sh 7443\")",
        ),
        (vec![("/scripts/chk_nginx/script", json!(format!("{CHECK} 70000")))], "is given `70000`, which is no port"),
        (vec![("/scripts/chk_nginx/script", json!("check_port.sh 7443"))], "does not begin with an absolute path"),
        (vec![("/scripts/chk_nginx/script", json!("/bin/sh -c \"true\""))], "scripts.chk_nginx.script: a script holds `\\\"`"),
        (vec![("/scripts/chk_nginx/interval", json!(0))], "scripts.chk_nginx.interval: `interval` is 0"),
        (
            vec![("/instances/VI_1/track_script", json!("chk_ngin"))],
            "instances.VI_1.track_script: there is no script `chk_ngin` (`scripts` holds `chk_nginx`)",
        ),
        (vec![("/instances/VI_1/track_script", json!([]))], "scripts.chk_nginx: no instance tracks the script `chk_nginx`"),
        (vec![("/instances/VI_1/interface", json!("ens/32"))], "instances.VI_1.interface: `ens/32` is not the name of an interface"),
        (vec![("/global_defs/router_id", json!("a\n}"))], "global_defs.router_id: the value holds `\\n`"),
        (vec![("/dest", json!("etc/keepalived.conf"))], "dest: `dest` is not an absolute path"),
    ];
    for (fields, expected) in cases {
        let error = error_of::<Keepalived>(first_with(&fields), &Desk::new(), proxy());
        assert!(error.contains(expected), "{fields:?}\n  {error}\n  {expected}");
    }
}

#[test]
fn the_host_has_to_have_what_is_named() {
    let refused = |host: Fake, fields: &[(&str, Value)]| error_of::<Keepalived>(first_with(fields), &Desk::new(), host);
    assert_eq!(
        refused(proxy(), &[("/instances/VI_1/interface", json!("eth0"))]),
        "instances.VI_1.interface: this host has no interface `eth0` (it has `ens32`, `lo`)"
    );
    assert_eq!(
        refused(proxy(), &[("/instances/VI_1/address", json!("10.4.7.21"))]),
        "instances.VI_1.address: `10.4.7.21` is not an address of `ens32` (it has `10.4.7.11`, `10.4.7.10`)"
    );
    assert_eq!(
        refused(proxy(), &[("/instances/VI_1/interface", json!("lo"))]),
        "instances.VI_1.interface: `10.4.7.11` is an address of `ens32`, not of `lo`"
    );
    let missing = refused(Fake::new(), &[]);
    assert!(missing.starts_with("scripts.chk_nginx.script: there is no `/etc/keepalived/check_port.sh` on this host ("), "{missing}");
    assert_eq!(
        refused(proxy().file(CHECK, ""), &[]),
        "scripts.chk_nginx.script: `/etc/keepalived/check_port.sh` may not be executed (give it mode 0755)"
    );
}

#[test]
fn keepalived_judges_the_file_where_it_is_installed() {
    let says = |output| proxy().file("/usr/sbin/keepalived", "").command("keepalived -t", output);
    let error = trial::<Keepalived>(first(), &Desk::new(), says(ended(5, "Non-existent interface specified\n"))).err().unwrap();
    assert!(error.message.contains("`keepalived -t -f %s` refuses the new content of `/etc/keepalived/keepalived.conf`"), "{error}");
    assert_eq!(error.details, ["Non-existent interface specified"]);
    let done = trial::<Keepalived>(first(), &Desk::new(), says(ended(0, ""))).unwrap();
    assert!(done.host.text(CONF).unwrap().contains("nopreempt"));
}

#[test]
fn a_file_with_a_password_is_for_its_owner_alone() {
    let mode = |arguments| match &trial::<Keepalived>(arguments, &Desk::new(), proxy()).unwrap().proposal.changes[..] {
        [Change::WriteFile(write)] => write.attributes.mode,
        other => panic!("{other:?}"),
    };
    assert_eq!(mode(first()), 0o600);
    assert_eq!(mode(first_with(&[("/instances/VI_1/auth_pass", Value::Null)])), 0o644);
    assert_eq!(mode(first_with(&[("/mode", json!("0640"))])), 0o640);
}

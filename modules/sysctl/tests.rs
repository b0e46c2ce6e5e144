//! The cases of `sysctl`, on a host in memory.

use serde_json::{Value, json};

use super::*;
use crate::api::AnyModule;
use crate::api::fake::{Desk, Fake, apply};

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("sets now and at boot", json!({ "name": "net.ipv4.ip_forward", "value": 1 })).on(host()),
        Example::new("zero is a value", json!({ "values": { "vm.swappiness": 0, "net.ipv4.ip_forward": 0 } })).on(host()),
        Example::new("several numbers", json!({ "key": "net/ipv4/ip_local_port_range", "value": "1024  60999" })).on(host()),
        Example::new("an empty value", json!({ "name": "kernel.core_pattern", "value": "" })).on(host()),
        Example::new("a huge value", json!({ "name": "kernel.core_pattern", "value": "x".repeat(100_000), "file": "/etc/sysctl.conf" }))
            .on(host()),
        Example::new("the file alone", json!({ "name": "not.there", "value": i64::MAX, "live": false })).on(host()),
    ]
}

fn host() -> Fake {
    Fake::new()
        .directory("/etc/sysctl.d")
        .sysctl("net.ipv4.ip_forward", "0")
        .sysctl("vm.swappiness", "60")
        .sysctl("kernel.core_pattern", "core")
        .sysctl("net.ipv4.ip_local_port_range", "32768\t60999")
        .file("/etc/sysctl.conf", "# comment\nvm.swappiness=10\n-net.ipv4.ip_forward = 1\r\n")
}

fn module(arguments: Value) -> Result<Box<dyn AnyModule>, ModuleError> {
    let mut module = (crate::find("sysctl").unwrap().parse)(arguments)?;
    module.prepare(&Desk::new())?;
    Ok(module)
}

/// Returns the changes as lines, and applies them.
fn changed(arguments: Value, host: &mut Fake) -> Vec<String> {
    apply(&*module(arguments).unwrap(), host).unwrap();
    host.log().to_vec()
}

#[test]
fn live_and_persisted_values_are_compared_each_by_itself() {
    let both = ["sysctl net.ipv4.ip_forward=1", "write /etc/sysctl.d/99-kplay.conf"];
    let on = || json!({ "name": "net.ipv4.ip_forward", "value": 1 });
    assert_eq!(changed(on(), &mut host()), both);
    let persisted = host().file("/etc/sysctl.d/99-kplay.conf", "net.ipv4.ip_forward = 1\n");
    assert_eq!(changed(on(), &mut persisted.clone()), both[..1]);
    assert_eq!(changed(on(), &mut host().sysctl("net.ipv4.ip_forward", "1")), both[1..]);
    assert_eq!(changed(on(), &mut persisted.sysctl("net.ipv4.ip_forward", "1")), [""; 0]);
    // 0 is a value like any other.
    let off = host().file("/etc/sysctl.d/99-kplay.conf", "net.ipv4.ip_forward=0\n");
    assert_eq!(changed(json!({ "name": "net.ipv4.ip_forward", "value": 0 }), &mut off.clone()), [""; 0]);
    assert_eq!(changed(json!({ "name": "net.ipv4.ip_forward", "value": "0" }), &mut off.clone()), [""; 0]);
}

#[test]
fn white_space_does_not_count() {
    let mut host = host().file("/etc/sysctl.d/99-kplay.conf", "net.ipv4.ip_local_port_range =  32768\t60999\n");
    assert_eq!(changed(json!({ "name": "net.ipv4.ip_local_port_range", "value": "32768 60999" }), &mut host), [""; 0]);
}

#[test]
fn the_rest_of_the_file_is_kept() {
    let mut edited = host();
    let arguments =
        json!({ "values": { "vm.swappiness": 1, "net.ipv4.ip_forward": 1, "kernel.core_pattern": "|x" }, "file": "/etc/sysctl.conf" });
    changed(arguments, &mut edited);
    let expected = "# comment\nvm.swappiness = 1\n-net.ipv4.ip_forward = 1\r\nkernel.core_pattern = |x\r\n";
    assert_eq!(edited.text("/etc/sysctl.conf").as_deref(), Some(expected));
    // Where a name stands twice, the last one counts.
    let mut twice = host().file("/etc/sysctl.conf", "vm.swappiness=5\nvm.swappiness=9\n");
    changed(json!({ "name": "vm.swappiness", "value": 5, "file": "/etc/sysctl.conf" }), &mut twice);
    assert_eq!(twice.text("/etc/sysctl.conf").as_deref(), Some("vm.swappiness=5\nvm.swappiness = 5\n"));
    let mut slashes = host().file("/etc/sysctl.conf", "net/ipv4/conf/eth0.1/forwarding=1\n");
    assert_eq!(
        changed(json!({ "name": "net.ipv4.conf.eth0/1.forwarding", "value": 1, "live": false, "file": "/etc/sysctl.conf" }), &mut slashes),
        [""; 0]
    );
}

#[test]
fn a_later_file_that_sets_another_value_is_warned_of() {
    let warnings =
        |host: Fake| module(json!({ "values": { "vm.swappiness": 1, "net.ipv4.ip_forward": 1 } })).unwrap().check(&host).unwrap().warnings;
    // As Debian has it: /etc/sysctl.conf is read as 99-sysctl.conf.
    let debian = || host().link("/etc/sysctl.d/99-sysctl.conf", "../sysctl.conf");
    let said = ["at boot, `/etc/sysctl.d/99-sysctl.conf` sets `vm.swappiness` to 10 again, after `/etc/sysctl.d/99-kplay.conf`"];
    assert_eq!(warnings(debian()), said);
    assert_eq!(warnings(host()), [""; 0], "nothing reads /etc/sysctl.conf there");
    // What comes still later, or takes the file's place, counts.
    assert_eq!(warnings(debian().file("/usr/lib/sysctl.d/zz.conf", "vm/swappiness = 1\n")), [""; 0]);
    assert_eq!(warnings(debian().file("/usr/lib/sysctl.d/99-sysctl.conf", "net.ipv4.ip_forward = 0\n")), said);
    // What comes earlier, or is no file of settings, does not.
    let harmless =
        host().file("/usr/lib/sysctl.d/50-default.conf", "vm.swappiness = 9\n").file("/etc/sysctl.d/zz.old", "vm.swappiness = 9\n");
    assert_eq!(warnings(harmless), [""; 0]);
}

#[test]
fn a_parameter_that_is_not_there() {
    let arguments = json!({ "name": "net.bridge.bridge-nf-call-iptables", "value": 1 });
    let error = module(arguments.clone()).unwrap().check(&host()).unwrap_err();
    assert_eq!(error.message, "the kernel has no parameter `net.bridge.bridge-nf-call-iptables`");
    let mut lenient = arguments;
    lenient["ignore_missing"] = json!(true);
    assert_eq!(changed(lenient, &mut host()), ["write /etc/sysctl.d/99-kplay.conf"]);
}

#[test]
fn the_values_before_are_a_result() {
    let proposal = module(json!({ "values": { "vm.swappiness": 1, "net.ipv4.ip_forward": 0 } })).unwrap().check(&host()).unwrap();
    assert_eq!(proposal.output["before"], json!({ "net.ipv4.ip_forward": "0", "vm.swappiness": "60" }));
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    let cases = [
        (json!({}), "no parameter is named"),
        (json!({ "values": {} }), "no parameter is named"),
        (json!({ "name": "a.b" }), "`a.b` is given no `value`"),
        (json!({ "value": 1 }), "`value` is given, but no `name`"),
        (json!({ "name": "a", "value": 1, "values": { "b": 1 } }), "`values` excludes `name` and `value`"),
        (json!({ "name": "a b", "value": 1 }), "`a b` is not the name of a kernel parameter"),
        (json!({ "name": "", "value": 1 }), "`` is not the name of a kernel parameter"),
        (json!({ "name": "a", "value": "1\n2" }), "the value of `a` has more than one line"),
        (json!({ "values": { "a.b": 1, "a/b": 2 } }), "`a/b` is named twice, once with dots and once with slashes"),
        (json!({ "name": "a", "value": 1, "file": "x" }), "`file` is not an absolute path: `x`"),
    ];
    for (arguments, message) in cases {
        assert_eq!(module(arguments.clone()).err().unwrap().message, message, "{arguments}");
    }
    for value in [json!(true), json!(1.5), json!([1])] {
        let error = module(json!({ "name": "a", "value": value })).err().unwrap();
        assert!(error.message.contains("a string or a whole number"), "{error}");
    }
}

//! The cases of `package`, on a host in memory.

use serde_json::{Value, json};

use super::*;
use crate::api::AnyModule;
use crate::api::fake::{Desk, Fake};
use crate::api::inspect::CommandOutput;

pub(super) fn examples() -> Vec<Example> {
    let policy = CommandOutput { code: Some(0), stdout: "vim:\n  Installed: 9\n  Candidate: 9\n".into(), ..CommandOutput::default() };
    vec![
        Example::new("installs", json!({ "name": ["nginx", "nginx", "vim"] })).on(host()),
        Example::new("installs a version", json!({ "name": "nginx=1.2-3", "update": true, "start_services": true })).on(host()),
        Example::new("removes", json!({ "names": "vim", "state": "absent", "purge": true })).on(host()),
        Example::new("keeps the latest", json!({ "name": "vim", "state": "latest" })).on(host().command("apt-cache policy", policy)),
        Example::new("fetches the lists", json!({ "update": true })).on(host()),
    ]
}

fn host() -> Fake {
    Fake::new().package("vim", "9").offer("nginx", "1.2-3", |host| host.file("/etc/nginx/nginx.conf", ""))
}

fn module(arguments: Value) -> Result<Box<dyn AnyModule>, ModuleError> {
    let mut module = (crate::find("package").unwrap().parse)(arguments)?;
    module.prepare(&Desk::new())?;
    Ok(module)
}

/// Returns what would be installed and removed.
fn wanted(arguments: Value, host: &Fake) -> (Vec<String>, Vec<String>) {
    match module(arguments).unwrap().check(host).unwrap().changes.as_slice() {
        [] => (Vec::new(), Vec::new()),
        [Change::Packages(packages)] => (packages.install.clone(), packages.remove.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_missing_is_installed_and_only_what_is_there_removed() {
    let none = (vec![], vec![]);
    let install = |names: &[&str]| (names.iter().map(ToString::to_string).collect::<Vec<_>>(), vec![]);
    assert_eq!(wanted(json!({ "name": "vim" }), &host()), none);
    assert_eq!(wanted(json!({ "name": "nginx" }), &host()), install(&["nginx"]));
    assert_eq!(wanted(json!({ "name": ["vim", "nginx", "nginx"] }), &host()), install(&["nginx"]));
    assert_eq!(wanted(json!({ "name": ["vim", "nginx"], "state": "absent" }), &host()), (vec![], vec!["vim".to_owned()]));
    assert_eq!(wanted(json!({ "name": "nginx", "state": "absent" }), &host()), none);
}

#[test]
fn versions_are_compared() {
    let host = Fake::new().package("a", "1.22.1-9+deb12u1");
    let installs = |wish: &str| !wanted(json!({ "name": wish }), &host).0.is_empty();
    assert!(!installs("a=1.22.1-9+deb12u1"));
    assert!(!installs("a=1.22.*") && !installs("a=*") && !installs("a=1.22.1"));
    assert!(installs("a=1.22.1-9") && installs("a=1.22") && installs("a=1.23*") && installs("a=1.22.1-9+deb12u2"));
    let proposal = module(json!({ "name": ["a", "b"] })).unwrap().check(&host).unwrap();
    assert_eq!(proposal.output["versions"], json!({ "a": "1.22.1-9+deb12u1" }));
}

#[test]
fn the_latest_is_what_the_lists_offer() {
    let policy = "a:\n  Installed: 1\n  Candidate: 2\n  Version table:\n     2 500\nb:\n  Installed: 1\n  Candidate: 1\nc:\n  Installed: 1\n  Candidate: (none)\n";
    let output =
        |text: &str, code| CommandOutput { code: Some(code), stdout: text.into(), stderr: "no\n".into(), ..CommandOutput::default() };
    let host = || Fake::new().package("a", "1").package("b", "1").package("c", "1");
    let all = json!({ "name": ["a", "b", "c", "d"], "state": "latest" });
    assert_eq!(wanted(all.clone(), &host().command("apt-cache policy", output(policy, 0))).0, ["a", "d"]);
    let dnf =
        |text, code| host().facts_with(|facts| facts.package_manager = "dnf".into()).command("dnf -q check-update", output(text, code));
    assert_eq!(wanted(all.clone(), &dnf("\na.x86_64    2-1.el9    updates\nObsoleting Packages\nb.x86_64 2 updates\n", 100)).0, ["a", "d"]);
    assert_eq!(wanted(all.clone(), &dnf("", 0)).0, ["d"]);
    assert_eq!(wanted(json!({ "name": "d", "state": "latest" }), &host()).0, ["d"], "nothing to ask about");
    let error = module(all.clone()).unwrap().check(&dnf("", 1)).unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.details.as_slice()),
        ("`dnf check-update` failed: exit code 1", ["no".to_owned()].as_slice())
    );
    assert_eq!(module(all).unwrap().check(&host()).unwrap_err().message, "`apt-cache policy` failed: exit code 127");
}

#[test]
fn services_stay_down_unless_asked_for() {
    let change = |arguments| match module(arguments).unwrap().check(&host()).unwrap().changes.remove(0) {
        Change::Packages(packages) => packages,
        other => panic!("{other:?}"),
    };
    assert!(!change(json!({ "name": "nginx" })).start_services);
    let all = change(json!({ "name": ["nginx", "vim"], "start_services": true, "update": true, "timeout": 5 }));
    assert!(all.start_services && all.update && all.timeout == 5);
    let refresh = module(json!({ "update": true })).unwrap().check(&host()).unwrap();
    assert!(refresh.repeating && refresh.changes.len() == 1);
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    let cases = [
        (json!({}), "no package is named"),
        (json!({ "name": [] }), "no package is named"),
        (json!({ "update": true, "state": "latest" }), "no package is named"),
        (json!({ "name": "" }), "`` is not the name of a package"),
        (json!({ "name": "a b" }), "`a b` is not the name of a package"),
        (json!({ "name": "--purge" }), "`--purge` is not the name of a package"),
        (json!({ "name": "nginx-" }), "`nginx-` is not the name of a package"),
        (json!({ "name": "a=" }), "`a=` is not the name of a package"),
        (json!({ "name": ["a=1", "a=2"] }), "`a` is named twice with different versions"),
        (json!({ "name": "a=1", "state": "absent" }), "`a=1` pins a version, which means something for `state = \"present\"` alone"),
        (json!({ "name": "a", "purge": true }), "`purge` means nothing for this `state`"),
        (json!({ "name": "a", "state": "absent", "start_services": true }), "`start_services` means nothing for this `state`"),
    ];
    for (arguments, message) in cases {
        assert_eq!(module(arguments.clone()).err().unwrap().message, message, "{arguments}");
    }
    assert!(module(json!({ "name": "g++" })).is_ok());
}

//! What `stat` says, case by case.

use serde_json::{Value, json};

use super::Stat;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};

fn host() -> Fake {
    Fake::new().at(1_700_000_000).user("app", 7).file_with("/etc/x", "abc", 0o4750, 7, 99).link("/etc/l", "x").link("/etc/nowhere", "gone")
}

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("looks at a file", json!({ "path": "/etc/x" })).on(host()),
        Example::new("looks at nothing", json!({ "path": "/no/such/thing" })).on(host()),
    ]
}

fn look(arguments: Value) -> Value {
    let done = trial::<Stat>(arguments, &Desk::new(), host()).unwrap();
    assert!(done.log.is_empty());
    Value::Object(done.proposal.output)
}

#[test]
fn says_what_is_there() {
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let file = json!({
        "exists": true, "kind": "file", "size": 3, "mode": "4750", "owner": "app", "group": "99", "digest": digest, "content": null, "target": null,
        "mtime": 1_700_000_000,
    });
    assert_eq!(look(json!({ "path": "/etc/x" })), file);
    assert_eq!(look(json!({ "path": "/etc/l", "follow": true })), file);
    let link = look(json!({ "path": "/etc/l" }));
    assert_eq!((&link["kind"], &link["target"], &link["digest"], &link["size"]), (&json!("link"), &json!("x"), &json!(null), &json!(null)));
    assert_eq!(look(json!({ "path": "/etc/" }))["kind"], "directory");
    assert_eq!(look(json!({ "path": "/etc/x", "digest": false }))["digest"], json!(null));
    assert_eq!(look(json!({ "path": "/etc/x", "content": true }))["content"], "abc");
    assert_eq!(look(json!({ "path": "/etc/", "content": true }))["content"], json!(null));
}

#[test]
fn the_fields_are_the_same_when_nothing_is_there() {
    let there: Vec<String> = look(json!({ "path": "/etc/x" })).as_object().unwrap().keys().cloned().collect();
    for arguments in [json!({ "path": "/gone" }), json!({ "path": "/etc/nowhere", "follow": true }), json!({ "path": "/etc/x/y" })] {
        let nothing = look(arguments);
        assert_eq!(nothing.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), there);
        assert_eq!(nothing["exists"], false);
    }
}

#[test]
fn a_relative_path_is_refused() {
    assert_eq!(
        error_of::<Stat>(json!({ "path": "~/x" }), &Desk::new(), host()),
        "path: `path` is not an absolute path: `~/x` (`~` is not expanded; write `host.facts.home .. \"/…\"`)"
    );
}

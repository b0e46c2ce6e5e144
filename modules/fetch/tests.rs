//! What `fetch` proposes, case by case.

use serde_json::json;

use super::Fetch;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};

fn host() -> Fake {
    Fake::new().file("/etc/x", "abc").link("/etc/l", "x")
}

pub(super) fn examples() -> Vec<Example> {
    vec![Example::new("fetches a file", json!({ "path": "/etc/x", "dest": "out" })).on(host())]
}

#[test]
fn each_host_has_a_folder_unless_it_is_flat() {
    let cases = [
        (json!({ "path": "/etc/x", "dest": "out" }), "/controller/out/fake/etc/x"),
        (json!({ "path": "/etc/x", "dest": "out", "flat": true }), "/controller/out"),
        (json!({ "path": "/etc/l", "dest": "out/", "flat": true }), "/controller/out/l"),
        (json!({ "path": "/etc/x", "dest": "/abs" }), "/abs/fake/etc/x"),
    ];
    for (arguments, dest) in cases {
        let desk = Desk::new();
        let done = trial::<Fetch>(arguments.clone(), &desk, host()).unwrap();
        assert_eq!(done.log.len(), 1, "{arguments}");
        assert_eq!((done.proposal.output["dest"].as_str(), desk.expected_files()), (Some(dest), vec![dest.into()]), "{arguments}");
    }
}

#[test]
fn what_the_controller_has_is_not_fetched_again() {
    let arguments = json!({ "path": "/etc/x", "dest": "out", "flat": true });
    assert!(trial::<Fetch>(arguments.clone(), &Desk::new().file("/controller/out", "abc"), host()).unwrap().log.is_empty());
    assert_eq!(trial::<Fetch>(arguments, &Desk::new().file("/controller/out", "abd"), host()).unwrap().log, ["fetch /etc/x"]);
}

#[test]
fn what_is_missing_is_an_error_unless_optional() {
    let optional = trial::<Fetch>(json!({ "path": "/gone", "dest": "out", "optional": true }), &Desk::new(), host()).unwrap();
    assert!(optional.log.is_empty() && optional.proposal.output["dest"].is_null());
    let cases = [
        (json!({ "path": "/gone", "dest": "out" }), "path: `/gone` does not exist (add `optional = true` if it may be missing)"),
        (
            json!({ "path": "/etc", "dest": "out", "optional": true }),
            "path: `/etc` is a directory, and only files can be fetched (fetch its files one by one, or pack it first, with `command` and tar, and fetch the archive)",
        ),
        (json!({ "path": "/etc/x", "dest": "" }), "dest: `dest` is empty"),
        (
            json!({ "path": "/", "dest": "out" }),
            "path: `path` ends with a slash, but names a file: `/` (write the whole path with the file's name)",
        ),
    ];
    for (arguments, error) in cases {
        assert_eq!(error_of::<Fetch>(arguments.clone(), &Desk::new(), host()), error, "{arguments}");
    }
    let folder = Desk::new().file("/controller/out/x", "");
    assert_eq!(
        error_of::<Fetch>(json!({ "path": "/etc/x", "dest": "out", "flat": true }), &folder, host()),
        "dest: `/controller/out` on the controller is a directory (end `dest` with a slash to put the file into it)"
    );
}

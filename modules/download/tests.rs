//! What `download` proposes, case by case.

use serde_json::{Value, json};

use super::Download;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};
use crate::api::{Change, Digest, Inspect};

const URL: &str = "https://example.org/tool";

fn desk() -> Desk {
    Desk::new().downloaded(URL, "/cache/tool").file("/cache/tool", "binary")
}

fn arguments(more: &Value) -> Value {
    let mut arguments = json!({ "url": URL, "sha256": Digest::of(b"binary").hex(), "dest": "/usr/bin/tool" });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

pub(super) fn examples() -> Vec<Example> {
    let mut server = Fake::new().directory("/usr/bin");
    server.blob("binary");
    vec![
        Example::new("sends what was downloaded", arguments(&json!({ "parents": true, "mode": "0755" }))).desk(desk()),
        Example::new("replaces a link", arguments(&json!({}))).desk(desk()).on(Fake::new().link("/usr/bin/tool", "/bin/other")),
        Example::new("lets the host download", arguments(&json!({ "on": "host", "mode": "0755" }))).on(server),
    ]
}

#[test]
fn what_has_the_digest_is_not_downloaded_again() {
    let there = || Fake::new().file("/usr/bin/tool", "binary");
    for on in ["controller", "host"] {
        assert!(trial::<Download>(arguments(&json!({ "on": on })), &desk(), there()).unwrap().log.is_empty());
        let done = trial::<Download>(arguments(&json!({ "on": on, "mode": "0755" })), &desk(), there()).unwrap();
        assert_eq!(done.log, ["attributes /usr/bin/tool"]);
    }
}

#[test]
fn what_differs_is_replaced_and_keeps_its_mode() {
    for (on, log) in [("controller", "write /usr/bin/tool"), ("host", "download /usr/bin/tool")] {
        let mut host = Fake::new().file_with("/usr/bin/tool", "old", 0o750, 0, 0);
        host.blob("binary");
        let done = trial::<Download>(arguments(&json!({ "on": on })), &desk(), host).unwrap();
        assert_eq!((done.log, done.host.text("/usr/bin/tool")), (vec![log.to_owned()], Some("binary".to_owned())));
        assert_eq!(done.host.entry("/usr/bin/tool".as_ref()).unwrap().unwrap().attributes.mode, 0o750);
    }
}

#[test]
fn a_host_gets_all_that_it_needs_to_download() {
    let mut host = Fake::new().directory("/usr/bin");
    host.blob("binary");
    let done = trial::<Download>(arguments(&json!({ "on": "host", "ca": "/etc/ca.pem", "timeout": 5 })), &Desk::new(), host).unwrap();
    let Change::Download(change) = &done.proposal.changes[0] else { panic!("{:?}", done.proposal) };
    assert_eq!((change.url.as_str(), change.timeout, change.ca.as_deref()), (URL, 5, Some("/etc/ca.pem".as_ref())));
}

#[test]
fn errors_name_what_was_seen_and_what_to_do() {
    let hint = "(write https://…, http://… or file:///…)";
    let cases = [
        (json!({ "sha256": "abc" }), "sha256: `abc` is not a SHA-256: 64 hexadecimal digits are (`sha256sum FILE` prints it)".to_owned()),
        (json!({ "url": "ftp://x/y" }), format!("url: `ftp://x/y` is no address that can be downloaded from {hint}")),
        (json!({ "url": "tool.tar.gz" }), format!("url: `tool.tar.gz` is no address that can be downloaded from {hint}")),
        (json!({ "url": "file://tool" }), format!("url: `file://tool` does not name an absolute path {hint}")),
        (json!({ "url": "https:///x" }), format!("url: `https:///x` names no server {hint}")),
        (json!({ "timeout": 0 }), "timeout: `timeout` is 0: the download could never end".to_owned()),
        (json!({ "on": "host", "ca": "ca.pem" }), "ca: `ca` is not an absolute path: `ca.pem`".to_owned()),
        (
            json!({ "dest": "/usr/bin/" }),
            "dest: `dest` ends with a slash, but names a file: `/usr/bin/` (write the whole path with the file's name)".to_owned(),
        ),
        (json!({ "on": "host", "dest": "/etc" }), "dest: `/etc` is a directory (name a path inside it, or remove it first)".to_owned()),
        (
            json!({ "on": "host" }),
            "dest: there is no directory `/usr/bin` (make it with the `file` module, or add `parents = true`)".to_owned(),
        ),
    ];
    for (more, error) in cases {
        assert_eq!(error_of::<Download>(arguments(&more), &desk(), Fake::new()), error, "{more}");
    }
}

//! What `file_diff` sees, case by case.

use serde_json::{Value, json};

use super::FileDiff;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};

const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\n";

fn desk() -> Desk {
    Desk::new().file("files/site/a", "one\ntwo\n").file("files/site/css/b", "").link("files/site/c", "a").file("files/site/css/d/e", "e\n")
}

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("compares a text", json!({ "path": "/etc/motd", "content": "a\n" })).on(Fake::new().file("/etc/motd", "b\n")),
        Example::new("compares a folder", json!({ "path": "/srv", "src": "site" })).desk(desk()).on(Fake::new().directory("/srv")),
    ]
}

fn compare(arguments: Value, host: Fake) -> (bool, Vec<String>, String) {
    let done = trial::<FileDiff>(arguments, &desk(), host).unwrap();
    assert!(done.log.is_empty());
    let output = done.proposal.output;
    let differences = output["differences"].as_array().unwrap().iter();
    let differences = differences.map(|one| format!("{}: {}", one["path"].as_str().unwrap(), one["difference"].as_str().unwrap()));
    (output["same"].as_bool().unwrap(), differences.collect(), output["diff"].as_str().unwrap().to_owned())
}

#[test]
fn a_text_is_compared_line_by_line() {
    let host = || Fake::new().file("/etc/x", "one\n2\n").link("/etc/l", "x");
    let same = (true, Vec::new(), String::new());
    assert_eq!(compare(json!({ "path": "/etc/x", "content": "one\n2\n" }), host()), same);
    assert_eq!(compare(json!({ "path": "/etc/l", "content": "one\n2\n" }), host()), same);
    let (is_same, differences, diff) = compare(json!({ "path": "/etc/x", "src": "site/a" }), host());
    assert_eq!((is_same, differences), (false, vec!["/etc/x: another content".to_owned()]));
    assert_eq!(diff, "--- /etc/x (host)\n+++ site/a (controller)\n@@ -1,2 +1,2 @@\n one\n-2\n+two\n");
    let (_, _, diff) = compare(json!({ "path": "/etc/x", "content": "" }), host());
    assert_eq!(diff, "--- /etc/x (host)\n+++ content (controller)\n@@ -1,2 +0,0 @@\n-one\n-2\n");
}

#[test]
fn a_folder_is_compared_entry_by_entry() {
    let host =
        Fake::new().file("/srv/a", "one\ntwo\n").directory("/srv/css/b").link("/srv/c", "b").file("/srv/old/x", "").file("/srv/tmp", "");
    let (same, differences, diff) = compare(json!({ "path": "/srv", "src": "site", "ignore": "t*" }), host);
    let expected = [
        "c: a link to `b` on the host, to `a` on the controller",
        "css/b: a directory on the host, a file on the controller",
        "css/d: only on the controller",
        "old: only on the host",
    ];
    assert!(!same);
    assert_eq!(differences, expected);
    assert_eq!(diff, expected.map(|line| format!("/srv/{line}\n")).concat());
    let whole = Fake::new().file("/srv/a", "one\ntwo\n").file("/srv/css/b", "").file("/srv/css/d/e", "e\n").link("/srv/c", "a");
    assert!(compare(json!({ "path": "/srv", "src": "site/" }), whole.link("/www", "srv")).0);
    assert_eq!(compare(json!({ "path": "/srv", "src": "site" }), Fake::new()).1, ["/srv: only on the controller"]);
}

#[test]
fn what_is_no_text_or_secret_is_told_by_size_and_checksum() {
    let lines = |arguments: Value, content: &[u8]| compare(arguments, Fake::new().file("/etc/x", content)).2.lines().count();
    assert_eq!(lines(json!({ "path": "/etc/x", "content": "a" }), b"\0binary"), 4);
    assert_eq!(lines(json!({ "path": "/etc/x", "content": "a\n".repeat(200_000) }), b"a\n"), 4);
    for (ours, theirs) in [(KEY, "x\n"), ("x\n", KEY)] {
        let (_, _, diff) = compare(json!({ "path": "/etc/x", "content": ours }), Fake::new().file("/etc/x", theirs));
        assert!(!diff.contains("PRIVATE") && diff.contains("sha256"), "{diff}");
    }
    let (_, _, diff) = compare(json!({ "path": "/etc/x", "content": "token", "secret": true }), Fake::new().file("/etc/x", "t"));
    assert!(!diff.contains("token"), "{diff}");
}

#[test]
fn an_expected_sameness_fails_with_the_difference() {
    let arguments = json!({ "path": "/etc/x", "src": "site/a", "expect": "same" });
    assert!(compare(arguments.clone(), Fake::new().file("/etc/x", "one\ntwo\n")).0);
    let error = trial::<FileDiff>(arguments, &desk(), Fake::new().file("/etc/x", "one\n")).err().unwrap();
    assert_eq!(error.message, "`/etc/x` differs from `site/a`");
    assert_eq!(error.details, ["--- /etc/x (host)", "+++ site/a (controller)", "@@ -1 +1,2 @@", " one", "+two"]);
    let long = json!({ "path": "/etc/x", "content": "x\n".repeat(500), "expect": "same" });
    let error = trial::<FileDiff>(long, &desk(), Fake::new().file("/etc/x", "")).err().unwrap();
    assert_eq!((error.message.as_str(), error.details.len()), ("`/etc/x` differs from the given text", 201));
    assert_eq!(error.details.last().unwrap(), "… and 303 more lines");
}

#[test]
fn errors_name_what_was_seen() {
    let cases = [
        (json!({ "path": "/x" }), "nothing to compare with: neither `src` nor `content` is given"),
        (json!({ "path": "/x", "src": "gone" }), "src: cannot find `gone`"),
        (json!({ "path": "/x", "content": "", "ignore": "a" }), "ignore: `ignore` means nothing for a single file"),
        (json!({ "path": "/x", "src": "site", "ignore": ["[a"] }), "ignore: `[a` in `ignore` has a `[` without its `]`"),
    ];
    for (arguments, error) in cases {
        assert_eq!(error_of::<FileDiff>(arguments.clone(), &desk(), Fake::new()), error, "{arguments}");
    }
}

//! What `hosts_file` makes of files, case by case.

use serde_json::{Value, json};

use super::HostsFile;
use crate::api::Inspect;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};

const DEBIAN: &str = "127.0.0.1\tlocalhost\n127.0.1.1\thdss7-11.host.com\thdss7-11\n\n# IPv6\n::1     localhost ip6-localhost\n";

pub(super) fn examples() -> Vec<Example> {
    let entries = json!({ "entries": { "10.4.7.11": ["hdss7-11.host.com", "hdss7-11"], "10.4.7.12": "hdss7-12" } });
    vec![
        Example::new("adds entries", entries.clone()).on(Fake::new().file("/etc/hosts", DEBIAN)),
        Example::new("makes the file", entries),
        Example::new("removes an address", json!({ "address": "127.0.1.1", "state": "absent" })).on(Fake::new().file("/etc/hosts", DEBIAN)),
    ]
}

/// What `arguments` make of a hosts file with this content; asked again, they must leave it.
fn edit(arguments: &Value, content: &str) -> String {
    let host = Fake::new().file("/etc/hosts", content);
    let done = trial::<HostsFile>(arguments.clone(), &Desk::new(), host).unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
    done.host.text("/etc/hosts").unwrap()
}

#[test]
fn addresses_have_exactly_their_names() {
    let one = json!({ "address": "10.4.7.11", "names": ["a.host.com", "a"] });
    let cases = [
        (one.clone(), "", "10.4.7.11\ta.host.com a\n"),
        (one.clone(), "# top\n\n127.0.0.1 localhost", "# top\n\n127.0.0.1 localhost\n10.4.7.11\ta.host.com a"),
        (one.clone(), "10.4.7.11   a.host.com\ta   # mine\r\n", "10.4.7.11   a.host.com\ta   # mine\r\n"),
        (one.clone(), "10.4.7.11   a old # mine\r\nx", "10.4.7.11   a.host.com a # mine\r\nx"),
        (one.clone(), "10.4.7.11 old\n10.4.7.12 b\n10.4.7.11 older # why\n", "10.4.7.11 a.host.com a\n10.4.7.12 b\n# why\n"),
        (one.clone(), "10.4.7.99 b A a.host.com # moved\n10.4.7.98 a\n", "10.4.7.99 b # moved\n10.4.7.11\ta.host.com a\n"),
        (one.clone(), "fd00::1 a\n#10.4.7.11 a\n10.4.7.111 b\n", "fd00::1 a\n#10.4.7.11 a\n10.4.7.111 b\n10.4.7.11\ta.host.com a\n"),
        (one, "10.4.7.11\n  10.4.7.11 b", "10.4.7.11\n  10.4.7.11 a.host.com a"),
        (
            json!({ "entries": { "10.4.7.200": "h", "10.4.7.11": ["hdss7-11.host.com", "hdss7-11"], "0:0::1": ["localhost"] } }),
            DEBIAN,
            "127.0.0.1\tlocalhost\n\n# IPv6\n::1     localhost\n10.4.7.11\thdss7-11.host.com hdss7-11\n10.4.7.200\th\n",
        ),
        (json!({ "entries": {} }), DEBIAN, DEBIAN),
        (json!({ "entries": { "10.0.0.1": ["vip"], "10.0.0.2": ["vip"] } }), "", "10.0.0.1\tvip\n10.0.0.2\tvip\n"),
    ];
    for (arguments, before, after) in cases {
        assert_eq!(edit(&arguments, before), after, "{arguments} {before:?}");
    }
}

#[test]
fn comments_in_other_encodings_stay() {
    let before: &[u8] = b"# caf\xe9\n10.4.7.11 old\t# caf\xe9 \xff\n10.4.7.12 a # \xe9\n";
    let after: &[u8] = b"# caf\xe9\n10.4.7.11 a\t# caf\xe9 \xff\n# \xe9\n";
    let host = Fake::new().file("/etc/hosts", before);
    let done = trial::<HostsFile>(json!({ "address": "10.4.7.11", "names": "a" }), &Desk::new(), host).unwrap();
    assert_eq!(done.host.read("/etc/hosts".as_ref(), 1000).unwrap(), after);
}

#[test]
fn absent_names_go_and_take_an_empty_line_along() {
    let cases = [
        (json!({ "address": "10.0.0.1", "state": "absent" }), "10.0.0.1 a b\n10.0.0.2 a\n10.0.0.1 c # x\n", "10.0.0.2 a\n# x\n"),
        (json!({ "address": "10.0.0.1", "names": "a", "state": "absent" }), "10.0.0.1 a b\n10.0.0.2 a\n", "10.0.0.1 b\n10.0.0.2 a\n"),
        (json!({ "entries": { "10.0.0.1": {} }, "state": "absent" }), "10.0.0.1 a b\nx\n", "x\n"),
        (json!({ "address": "10.0.0.9", "names": ["a"], "state": "absent" }), "10.0.0.1 a\n", "10.0.0.1 a\n"),
    ];
    for (arguments, before, after) in cases {
        assert_eq!(edit(&arguments, before), after, "{arguments} {before:?}");
    }
    let gone = trial::<HostsFile>(json!({ "address": "::1", "state": "absent" }), &Desk::new(), Fake::new()).unwrap();
    assert!(gone.log.is_empty());
}

#[test]
fn errors_name_what_was_seen_and_what_to_do() {
    let cases = [
        (json!({}), "neither `entries` nor `address` is given"),
        (json!({ "address": "10.4.7", "names": "a" }), "names: `10.4.7` is no IP address"),
        (json!({ "address": "10.4.7.11" }), "address: `10.4.7.11` has no names (list them, or add `state = \"absent\"`)"),
        (json!({ "entries": { "10.4.7.11": [""] } }), "entries: `` is no host name (letters, digits, `-`, `_` and dots make one)"),
        (json!({ "entries": { "10.4.7.11": "a b" } }), "entries: `a b` is no host name (letters, digits, `-`, `_` and dots make one)"),
        (json!({ "entries": { "::1": "a", "0::1": "b" } }), "entries: `::1` is listed twice, written in two ways"),
        (json!({ "entries": {}, "names": "a" }), "names: `names` belongs to `address`, and there is none"),
        (
            json!({ "address": "127.0.0.1", "names": "a" }),
            "names: `127.0.0.1` would lose `localhost` in `/etc/hosts` (list `localhost` among its names: much breaks without it)",
        ),
    ];
    for (arguments, error) in cases {
        assert_eq!(error_of::<HostsFile>(arguments.clone(), &Desk::new(), Fake::new().file("/etc/hosts", DEBIAN)), error, "{arguments}");
    }
}

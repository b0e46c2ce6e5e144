//! What `line` makes of files, case by case.

use serde_json::{Value, json};

use super::Line;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};

const BLOCK: &str = "# BEGIN KPLAY MANAGED BLOCK\na\nb\n# END KPLAY MANAGED BLOCK\n";

pub(super) fn examples() -> Vec<Example> {
    vec![
        Example::new("adds a line", json!({ "path": "/etc/x", "line": "b" })).on(Fake::new().file("/etc/x", "a\r\n")),
        Example::new("replaces a line", json!({ "path": "/etc/x", "line": "b=1", "match": "^b" })).on(Fake::new().file("/etc/x", "b=0\na")),
        Example::new("replaces what it will not match again", json!({ "path": "/etc/x", "line": "Port 22", "match": "^#Port" }))
            .on(Fake::new().file("/etc/x", "#Port 1\n#Port 2\n")),
        Example::new("removes lines", json!({ "path": "/etc/x", "match": "^a", "state": "absent" })).on(Fake::new().file_with(
            "/etc/x",
            "a\nb\naa\n",
            0o600,
            0,
            0,
        )),
        Example::new("makes a file", json!({ "path": "/etc/a/x", "line": "b", "create": true, "parents": true, "mode": "0600" })),
        Example::new("adds a block", json!({ "path": "/etc/x", "block": "a\nb\n" })).on(Fake::new().file("/etc/x", "top\n")),
        Example::new("removes a block", json!({ "path": "/etc/x", "block": "", "state": "absent" })).on(Fake::new().file("/etc/x", BLOCK)),
    ]
}

/// What `arguments` make of a file with this content; asked again, they must leave it.
fn edit(mut arguments: Value, content: &str) -> String {
    arguments["path"] = json!("/etc/x");
    let host = Fake::new().file("/etc/x", content);
    let done = trial::<Line>(arguments.clone(), &Desk::new(), host).unwrap_or_else(|error| panic!("{arguments} {content:?}: {error:?}"));
    done.host.text("/etc/x").unwrap()
}

#[test]
fn lines() {
    let cases = [
        // Adding.
        (json!({ "line": "b" }), "a\n", "a\nb\n"),
        (json!({ "line": "b" }), "b\na\n", "b\na\n"),
        (json!({ "line": "b" }), "", "b\n"),
        (json!({ "line": "b" }), "a", "a\nb"),
        (json!({ "line": "b" }), "a\r\nb\r\n", "a\r\nb\r\n"),
        (json!({ "line": "c" }), "a\r\nb\r\n", "a\r\nb\r\nc\r\n"),
        (json!({ "line": "b" }), " b\n", " b\nb\n"),
        (json!({ "line": "b", "insert_before": "BOF" }), "a\n", "b\na\n"),
        (json!({ "line": "b", "insert_before": "BOF" }), "", "b\n"),
        (json!({ "line": "b", "insert_after": "EOF" }), "a\n", "a\nb\n"),
        (json!({ "line": "b", "insert_after": "^a" }), "a\na\nc\n", "a\na\nb\nc\n"),
        (json!({ "line": "b", "insert_before": "^a" }), "a\na\nc\n", "a\nb\na\nc\n"),
        (json!({ "line": "b", "insert_after": "^a" }), "x\na", "x\na\nb"),
        (json!({ "line": "b", "insert_after": "^a" }), "b\na\n", "b\na\n"),
        (json!({ "line": "b", "insert_after": "^a" }), "", "b\n"),
        // Replacing.
        (json!({ "line": "b=1", "match": "^b=" }), "b=0\na\n", "b=1\na\n"),
        (json!({ "line": "b=1", "match": "^b=" }), "b=0\r\nb=2\r\na", "b=0\r\nb=1\r\na"),
        (json!({ "line": "b=1", "match": "^b=" }), "b=2\nb=1\n", "b=2\nb=1\n"),
        (json!({ "line": "b=1", "match": "^b=" }), "b=1\nb=2\n", "b=1\nb=1\n"),
        (json!({ "line": "b=1", "match": "^b=" }), "a\n", "a\nb=1\n"),
        (json!({ "line": "b=1", "match": "^b=", "insert_after": "^a" }), "a\nc\n", "a\nb=1\nc\n"),
        (json!({ "line": "b=1", "match": "^b=", "insert_after": "^nowhere" }), "b=0\nc\n", "b=1\nc\n"),
        (json!({ "line": "Port 22", "match": "^#Port" }), "#Port 1\n#Port 2\n", "#Port 1\nPort 22\n"),
        (json!({ "line": "Port 22", "match": "^#Port" }), "Port 22\n#Port 2\n", "Port 22\n#Port 2\n"),
        (json!({ "line": "$1 \\1 ${x}", "match": "(a)" }), "a", "$1 \\1 ${x}"),
        // Removing.
        (json!({ "line": "b", "state": "absent" }), "b\na\nb\n", "a\n"),
        (json!({ "line": "b", "state": "absent" }), "a\nb", "a"),
        (json!({ "line": "b", "state": "absent" }), "bb\n", "bb\n"),
        (json!({ "match": "^b", "state": "absent" }), "bb\r\na\r\nb\r\n", "a\r\n"),
        (json!({ "match": "^b", "line": "c", "state": "absent" }), "b\na\nc\n", "a\n"),
        (json!({ "match": "^$", "state": "absent" }), "\n\na\n\n", "a\n"),
    ];
    for (arguments, before, after) in cases {
        assert_eq!(edit(arguments.clone(), before), after, "{arguments} {before:?}");
    }
}

#[test]
fn blocks() {
    let marked = |begin: &str, lines: &str, end: &str| format!("# {begin} x\n{lines}# {end} x\n");
    let block = |lines: &str| marked("BEGIN", lines, "END");
    let with = |text: &str| json!({ "block": text, "marker": "# {mark} x" });
    let cases = [
        (with("a\nb"), String::new(), block("a\nb\n")),
        (with("a\nb\n"), "top\n".into(), format!("top\n{}", block("a\nb\n"))),
        (with("a"), "top".into(), "top\n# BEGIN x\na\n# END x".into()),
        (with("a"), format!("top\n{}end\n", block("old\nolder\n")), format!("top\n{}end\n", block("a\n"))),
        (with("a"), block("a\n"), block("a\n")),
        (with(""), block("a\n"), block("")),
        (with(""), "top\n".into(), format!("top\n{}", block(""))),
        (with("\n"), String::new(), block("\n")),
        (with("\n\n"), String::new(), block("\n\n")),
        (with("a\r\nb\r\n"), String::new(), block("a\nb\n")),
        (with("a\nb"), "top\r\n".into(), "top\r\n# BEGIN x\r\na\r\nb\r\n# END x\r\n".into()),
        (with("a\nb"), "# BEGIN x\r\nold\r\n# END x\r\n".into(), "# BEGIN x\r\na\r\nb\r\n# END x\r\n".into()),
        (with("a"), "# BEGIN x\nold\n# END x".into(), "# BEGIN x\na\n# END x".into()),
        (with("a"), "# BEGIN y\nold\n# END y\n".into(), format!("# BEGIN y\nold\n# END y\n{}", block("a\n"))),
        (json!({ "block": "a", "marker": "# {mark} x", "insert_before": "BOF" }), "top\n".into(), format!("{}top\n", block("a\n"))),
        (json!({ "block": "a", "marker": "# {mark} x", "insert_after": "^t" }), "t\nb\n".into(), format!("t\n{}b\n", block("a\n"))),
        (json!({ "block": "ignored", "marker": "# {mark} x", "state": "absent" }), format!("t\n{}b\n", block("a\n")), "t\nb\n".into()),
        (json!({ "marker": "# {mark} x", "state": "absent" }), "t\n# BEGIN x\n# END x".into(), "t".into()),
        (json!({ "marker": "# {mark} x", "state": "absent" }), "t\n".into(), "t\n".into()),
    ];
    for (arguments, before, after) in cases {
        assert_eq!(edit(arguments.clone(), &before), after, "{arguments} {before:?}");
    }
    assert_eq!(edit(json!({ "block": "a\nb" }), ""), BLOCK);
}

#[test]
fn a_damaged_block_is_an_error_and_never_a_second_block() {
    let hint = "(mend the file by hand: one BEGIN and one END line, in that order, or none)";
    let cases = [
        ("# BEGIN x\na\n", "`# BEGIN x` in line 1 has no `# END x`"),
        ("a\n# END x\n", "`# END x` in line 2 has no `# BEGIN x`"),
        ("# END x\n# BEGIN x\n", "`# END x` in line 1 comes before `# BEGIN x` in line 2"),
        ("# BEGIN x\n# END x\n# BEGIN x\n# END x\n", "`# BEGIN x` stands in lines 1 and 3"),
        ("# BEGIN x\n# END x\n# END x\n", "`# END x` stands in lines 2 and 3"),
    ];
    for (content, what) in cases {
        for state in ["present", "absent"] {
            let arguments = json!({ "path": "/etc/x", "block": "b", "marker": "# {mark} x", "state": state });
            let error = error_of::<Line>(arguments, &Desk::new(), Fake::new().file("/etc/x", content));
            assert_eq!(error, format!("marker: the markers of the block in `/etc/x` are damaged: {what} {hint}"));
        }
    }
}

#[test]
fn bytes_that_are_no_text_stay_as_they_are() {
    let host = Fake::new().file("/etc/x", b"\xff\0 old\nkey=1\n");
    let done = trial::<Line>(json!({ "path": "/etc/x", "match": "^key=", "line": "key=2" }), &Desk::new(), host).unwrap();
    assert_eq!(crate::api::Inspect::read(&done.host, "/etc/x".as_ref(), 100).unwrap(), b"\xff\0 old\nkey=2\n");
}

#[test]
fn a_large_file_is_edited_in_place() {
    let before = "0123456789\n".repeat(200_000);
    assert_eq!(edit(json!({ "line": "last" }), &before), format!("{before}last\n"));
}

#[test]
fn a_new_file_gets_its_attributes_and_a_missing_one_lacks_nothing() {
    let mode = |arguments: Value, desk: &Desk| {
        let done = trial::<Line>(arguments, desk, Fake::new()).unwrap();
        crate::api::Inspect::entry(&done.host, "/etc/x".as_ref()).unwrap().unwrap().attributes.mode
    };
    assert_eq!(mode(json!({ "path": "/etc/x", "line": "a", "create": true }), &Desk::new()), 0o644);
    assert_eq!(mode(json!({ "path": "/etc/x", "line": "a", "create": true, "mode": "0640" }), &Desk::new()), 0o640);
    assert_eq!(mode(json!({ "path": "/etc/x", "line": "pw=hunter2", "create": true }), &Desk::new().secret("hunter2")), 0o600);
    let gone = trial::<Line>(json!({ "path": "/etc/x", "line": "a", "state": "absent" }), &Desk::new(), Fake::new()).unwrap();
    assert!(gone.log.is_empty());
}

#[test]
fn errors_name_what_was_seen_and_what_to_do() {
    let plain = || Fake::new().file("/etc/x", "a\n");
    let cases = [
        (json!({ "path": "/etc/x" }), plain(), "neither `line` nor `block` is given"),
        (json!({ "path": "/etc/x", "line": "a", "block": "b" }), plain(), "block: `line` and `block` exclude each other (use two tasks)"),
        (
            json!({ "path": "/etc/x", "match": "a" }),
            plain(),
            "match: `match` without `line` says nothing about what shall be there (add `line`)",
        ),
        (
            json!({ "path": "/etc/x", "marker": "{mark}" }),
            plain(),
            "marker: `marker` without `block` says nothing about what shall be there (add `block`)",
        ),
        (
            json!({ "path": "/etc/x", "line": "" }),
            plain(),
            "line: `line` is empty (to remove empty lines, use `match = \"^$\"` with state \"absent\")",
        ),
        (json!({ "path": "/etc/x", "line": "a\nb" }), plain(), "line: `line` holds a line break (use `block` for several lines)"),
        (
            json!({ "path": "/etc/x", "match": "", "state": "absent" }),
            plain(),
            "match: `match` is empty and would match every line (write `^$` for empty lines)",
        ),
        (
            json!({ "path": "/etc/x", "block": "a", "marker": "# mine" }),
            plain(),
            "marker: `marker` has to be one line with `{mark}` in it (write for instance \"# {mark} my block\")",
        ),
        (
            json!({ "path": "/etc/x", "block": "# END x", "marker": "# {mark} x" }),
            plain(),
            "block: `block` holds one of its own markers (leave the markers out, they are added)",
        ),
        (
            json!({ "path": "/etc/x", "line": "b", "insert_after": "a", "insert_before": "a" }),
            plain(),
            "insert_before: `insert_after` and `insert_before` exclude each other (leave one of them out)",
        ),
        (
            json!({ "path": "/etc/x", "line": "b", "insert_after": "^z" }),
            plain(),
            "insert_after: no line of `/etc/x` matches `^z` (nothing is added at a place that was not asked for; change the expression, or leave it out to add at the end)",
        ),
        (json!({ "path": "/etc/no", "line": "b" }), plain(), "path: `/etc/no` does not exist (add `create = true` to have it made)"),
        (
            json!({ "path": "/etc/l", "line": "b" }),
            plain().link("/etc/l", "x"),
            "path: `/etc/l` is a link to `x` (name the path that it points to, or remove the link first)",
        ),
        (json!({ "path": "/etc", "line": "b" }), plain(), "path: `/etc` is a directory (name a path inside it, or remove it first)"),
    ];
    for (arguments, host, error) in cases {
        assert_eq!(error_of::<Line>(arguments.clone(), &Desk::new(), host), error, "{arguments}");
    }
    let error = error_of::<Line>(json!({ "path": "/etc/x", "line": "b", "match": "(" }), &Desk::new(), plain());
    assert!(error.starts_with("match: `match` is not a regular expression: "), "{error}");
}

//! The cases of `command` and `shell`, on a host in memory.

use serde_json::{Value, json};

use crate::api::change::{Change, Recorded};
use crate::api::conformance::Example;
use crate::api::fake::{Alone, Desk, Fake, apply};
use crate::api::inspect::CommandOutput;
use crate::api::{AnyModule, Digest, Inspect, ModuleError, Perform};
use crate::find;

pub(crate) fn examples() -> Vec<Example> {
    vec![
        Example::new("runs each time", json!({ "command": "true" })).on(host()),
        Example::new("makes a file once", json!({ "command": ["make", "it"], "creates": "/srv/it" })).on(host()),
        Example::new("removes a file once", json!({ "command": "drop it", "removes": "/srv/old" })).on(host().file("/srv/old", "")),
        Example::new("runs with each content once", json!({ "command": "true", "inputs": ["/etc", "/none"] }))
            .on(host().file("/etc/a", "1")),
        Example::new("looks", json!({ "command": "echo hello", "reads_only": true })).on(host()),
        Example::new(
            "zero, nothing and much",
            json!({ "command": ["true", 0, "", "x".repeat(100_000)], "env": { "A": 0, "B": "" }, "inputs": [] }),
        )
        .on(host()),
    ]
}

pub(crate) fn shell_examples() -> Vec<Example> {
    vec![
        Example::new("runs each time", json!({ "command": "true | true" })).on(host()),
        Example::new("makes a file once", json!({ "command": "make it > /srv/it", "creates": "/srv/it" })).on(host()),
        Example::new("looks", json!({ "command": "echo $HOME", "reads_only": true })).on(host()),
    ]
}

fn host() -> Fake {
    let ends = |code: i32, stdout: &str| CommandOutput { code: Some(code), stdout: stdout.into(), ..CommandOutput::default() };
    Fake::new()
        .directory("/srv")
        .command("true", ends(0, ""))
        .command("false", ends(1, ""))
        .command("echo hello", ends(0, "hello\n"))
        .command("/bin/sh -c", ends(0, "from a shell\n"))
        .command_that("make it", ends(0, ""), |host| host.file("/srv/it", ""))
        .command_that("/bin/sh -c", ends(0, "from a shell\n"), |host| host.file("/srv/it", ""))
        .command_that("drop it", ends(0, ""), |host| without(host, "/srv/old"))
        .command("complain", CommandOutput { code: Some(3), stderr: "no\nway\n".into(), ..CommandOutput::default() })
        .command("hang", CommandOutput { signal: Some("timeout".into()), ..CommandOutput::default() })
}

fn module(name: &str, arguments: Value) -> Result<Box<dyn AnyModule>, ModuleError> {
    let mut module = (find(name).unwrap().parse)(arguments)?;
    module.prepare(&Desk::new())?;
    Ok(module)
}

/// Returns whether the command would run.
fn runs(arguments: Value, host: &Fake) -> bool {
    let proposal = module("command", arguments).unwrap().check(host).unwrap();
    assert_eq!(proposal.output["ran"], json!(!proposal.changes.is_empty()));
    !proposal.changes.is_empty()
}

fn refused(name: &str, arguments: Value) -> (String, String) {
    let error = module(name, arguments).err().unwrap();
    (error.message, error.argument.unwrap_or_default())
}

#[test]
fn guards_decide() {
    let host = host().file("/srv/there", "");
    let cases = [
        (json!({ "command": "true" }), true),
        (json!({ "command": "true", "creates": "/srv/there" }), false),
        (json!({ "command": "true", "creates": "/srv/none" }), true),
        (json!({ "command": "true", "creates": "there", "chdir": "/srv" }), false),
        (json!({ "command": "true", "removes": "/srv/there" }), true),
        (json!({ "command": "true", "removes": "/srv/none" }), false),
        (json!({ "command": "true", "unless": "true" }), false),
        (json!({ "command": "true", "unless": ["false"] }), true),
        (json!({ "command": "true", "onlyif": "true" }), true),
        (json!({ "command": "true", "onlyif": "false" }), false),
        // Several signs: all of them have to say that it has run.
        (json!({ "command": "true", "creates": "/srv/there", "unless": "false" }), true),
        (json!({ "command": "true", "creates": "/srv/there", "unless": "true" }), false),
        (json!({ "command": "true", "creates": "/srv/there", "removes": "/srv/there" }), true),
        (json!({ "command": "true", "creates": "/srv/none", "onlyif": "false" }), false),
    ];
    for (arguments, expected) in cases {
        assert_eq!(runs(arguments.clone(), &host), expected, "{arguments}");
    }
}

#[test]
fn inputs_decide_by_content() {
    let arguments = json!({ "command": "true", "inputs": ["/etc/app"] });
    let mut host = host().file("/etc/app/a", "1").file("/etc/app/sub/b", "2");
    assert!(runs(arguments.clone(), &host));
    apply(&*module("command", arguments.clone()).unwrap(), &mut host).unwrap();
    assert!(!runs(arguments.clone(), &host));

    assert!(runs(arguments.clone(), &host.clone().file("/etc/app/a", "changed")));
    assert!(runs(arguments.clone(), &host.clone().file("/etc/app/new", "")));
    assert!(runs(json!({ "command": "true", "inputs": "/etc/app/a" }), &host), "fewer inputs than on record");
    assert!(runs(json!({ "command": "true", "inputs": ["/etc/app", "/etc/other"] }), &host), "more inputs than on record");
    assert!(runs(json!({ "command": "true x", "inputs": "/etc/app" }), &host), "another command");
    assert!(runs(json!({ "command": "true", "inputs": "/etc/app", "env": { "A": "1" } }), &host), "another environment");
    assert!(!runs(arguments, &host.file("/etc/app/a", "1")), "the same content written again");
}

#[test]
fn a_failure_is_not_put_on_record() {
    let arguments = json!({ "command": "complain", "inputs": "/etc/app" });
    let mut host = host().file("/etc/app", "1");
    let error = apply(&*module("command", arguments.clone()).unwrap(), &mut host).unwrap_err();
    assert_eq!(error.message, "`complain` ended with exit code 3");
    assert!(runs(arguments, &host));
}

#[test]
fn an_unreadable_record_counts_as_none() {
    let recorded = Recorded { digests: [("/etc/app".into(), Some(Digest::of(b"old")))].into(), ..Recorded::default() };
    let host = host().file("/etc/app", "1").recorded("command/x", &recorded);
    assert!(runs(json!({ "command": "true", "inputs": "/etc/app" }), &host));
}

#[test]
fn what_only_looks_is_no_change_and_gives_its_output() {
    let looks = |command: &str, more: Value| {
        let mut arguments = json!({ "command": command, "reads_only": true });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        module("command", arguments).unwrap().check(&host())
    };
    let proposal = looks("echo hello", json!({})).unwrap();
    assert_eq!(proposal.changes, []);
    assert_eq!(Value::Object(proposal.output), json!({ "ran": true, "code": 0, "truncated": false, "stdout": "hello\n", "stderr": "" }));
    assert_eq!(looks("complain", json!({ "ok_codes": [0, 3] })).unwrap().output["code"], 3);
    assert_eq!(looks("echo hello", json!({ "onlyif": "false" })).unwrap().output["ran"], false);

    // Whether it is a failure is for the task's conditions to say.
    let looked = looks("complain", json!({})).unwrap().looked.unwrap();
    assert_eq!((looked.run.ok_codes, looked.output.code), (vec![0], Some(3)));
    assert!(looks("complain", json!({ "sensitive": true })).unwrap().looked.unwrap().run.secret);
}

#[test]
fn a_guard_that_is_killed_decides_nothing() {
    let error = module("command", json!({ "command": "true", "unless": "hang" })).unwrap().check(&host()).unwrap_err();
    assert_eq!(error.message, "the guard `hang` timed out");
}

#[test]
fn the_change_carries_all_that_running_needs() {
    let arguments = json!({ "command": ["make", "a b", 7], "chdir": "/srv", "env": { "A": 0 }, "stdin": "text", "creates": "x", "timeout": 5, "ok_codes": [0, 2] });
    let changes = module("command", arguments).unwrap().check(&host()).unwrap().changes;
    let [Change::Run(run)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(run.command.shown(), "make 'a b' 7");
    assert_eq!(run.command.directory.as_deref(), Some(std::path::Path::new("/srv")));
    assert_eq!(run.command.environment["A"], "0");
    assert_eq!((run.command.input.as_deref(), run.command.timeout), (Some("text"), 5));
    assert_eq!((run.creates.as_deref(), run.ok_codes.as_slice()), (Some(std::path::Path::new("/srv/x")), [0, 2].as_slice()));

    let shell = module("shell", json!({ "command": "a | b", "executable": "/bin/bash" })).unwrap().check(&host()).unwrap();
    let [Change::Run(run)] = shell.changes.as_slice() else { panic!("{shell:?}") };
    assert_eq!(run.command.argv, ["/bin/bash", "-c", "a | b"]);
    assert!(shell.repeating);
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    let said = |name, arguments, message: &str, argument: &str| {
        assert_eq!(refused(name, arguments), (message.to_owned(), argument.to_owned()));
    };
    said("command", json!({ "command": "" }), "the command is empty", "command");
    said("command", json!({ "command": [] }), "the command is empty", "command");
    said(
        "command",
        json!({ "command": "a", "unless": "a | b" }),
        "`|` in `a | b` means something to a shell, and `command` uses none",
        "unless",
    );
    said("command", json!({ "command": "a", "creates": "b" }), "`b` is not an absolute path", "creates");
    said("command", json!({ "command": "a", "creates": "" }), "the path is empty", "creates");
    said("command", json!({ "command": "a", "chdir": "b" }), "`b` is not an absolute path", "chdir");
    said(
        "command",
        json!({ "command": "a", "reads_only": true, "inputs": "/a" }),
        "a command that only looks has no `inputs`: it runs each time",
        "inputs",
    );
    said("command", json!({ "command": "a", "env": { "A=B": "" } }), "`A=B` is not the name of a variable", "env");
    said("command", json!({ "command": ["a", "b\0"] }), "a command cannot contain a zero byte", "command");
    said("command", json!({ "command": "a", "ok_codes": [] }), "`ok_codes` is empty: the command could only fail", "ok_codes");
    said("command", json!({ "command": "a", "timeout": 0 }), "a time limit of 0 seconds leaves no time", "timeout");
    said("shell", json!({ "command": " " }), "the script is empty", "command");
    said("shell", json!({ "command": "a", "executable": "bash" }), "`bash` is not an absolute path", "executable");
}

fn without(mut host: Fake, path: &str) -> Fake {
    let before = host.entry(path.as_ref()).unwrap().unwrap();
    host.perform(&Change::Remove { path: path.into(), before }, &mut Alone).unwrap();
    host
}

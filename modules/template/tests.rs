//! What `template` proposes, case by case.

use serde_json::json;

use super::Template;
use crate::api::conformance::Example;
use crate::api::fake::{Desk, Fake};
use crate::api::trial::{error_of, trial};
use crate::api::{Change, CommandOutput, Inspect};

fn desk() -> Desk {
    Desk::new().file("templates/app.conf.j2", "port = {{ port }}\n")
}

pub(super) fn examples() -> Vec<Example> {
    let arguments = json!({ "src": "app.conf.j2", "dest": "/etc/app.conf", "vars": { "port": 80 } });
    vec![
        Example::new("writes a new file", arguments.clone()).desk(desk()),
        Example::new("replaces a link", arguments.clone()).desk(desk()).on(Fake::new().link("/etc/app.conf", "/etc/other")),
        Example::new("changes a file", arguments).desk(desk()).on(Fake::new().file("/etc/app.conf", "port = 0\n")),
    ]
}

#[test]
fn a_rendered_file_is_written_once_and_keeps_its_mode() {
    let arguments = json!({ "src": "app.conf.j2", "dest": "/etc/app.conf", "vars": { "port": 0 } });
    let host = Fake::new().file_with("/etc/app.conf", "port = 1\n", 0o640, 7, 7);
    let done = trial::<Template>(arguments, &desk(), host).unwrap();
    assert_eq!(
        (done.log.as_slice(), done.host.text("/etc/app.conf").as_deref()),
        (&["write /etc/app.conf".to_owned()][..], Some("port = 0\n"))
    );
    let attributes = done.host.entry("/etc/app.conf".as_ref()).unwrap().unwrap().attributes;
    assert_eq!((attributes.mode, attributes.owner), (0o640, crate::api::Owner::Id(7)));
}

#[test]
fn a_secret_in_the_text_makes_the_file_private_and_unseen() {
    let arguments = json!({ "src": "app.conf.j2", "dest": "/etc/app.conf", "vars": { "port": "hunter2" } });
    let done = trial::<Template>(arguments, &desk().secret("hunter2"), Fake::new()).unwrap();
    let Change::WriteFile(write) = &done.proposal.changes[0] else { panic!("{:?}", done.proposal) };
    assert!(write.secret && write.attributes.mode == 0o600);
    assert!(matches!(&write.content, crate::api::Content::Blob(blob) if blob.secret));
}

#[test]
fn what_travels_holds_neither_variables_nor_text() {
    let mut module: Template =
        serde_json::from_value(json!({ "src": "app.conf.j2", "dest": "/etc/app.conf", "vars": { "port": "hunter2" } })).unwrap();
    crate::api::Module::prepare(&mut module, &desk()).unwrap();
    assert!(!serde_json::to_string(&module).unwrap().contains("hunter2"));
}

#[test]
fn a_refused_content_is_not_written() {
    let refusal = CommandOutput { code: Some(1), stderr: "line 1: no such option\n".into(), ..CommandOutput::default() };
    let arguments = json!({ "src": "app.conf.j2", "dest": "/etc/app.conf", "vars": { "port": 1 }, "validate": "app --check %s" });
    let host = Fake::new().command("app --check", refusal);
    let error = trial::<Template>(arguments.clone(), &desk(), host).err().unwrap();
    assert_eq!(error.message, "`app --check %s` refuses the new content of `/etc/app.conf`: exit code 1");
    assert_eq!((error.argument.as_deref(), error.details), (Some("validate"), vec!["line 1: no such option".to_owned()]));
    let host = Fake::new().command("app --check", CommandOutput { code: Some(0), ..CommandOutput::default() });
    assert_eq!(trial::<Template>(arguments, &desk(), host).unwrap().log, ["write /etc/app.conf"]);
}

#[test]
fn errors_name_what_was_seen() {
    let cases = [
        (json!({ "src": "b.j2", "dest": "/x" }), "src: cannot find `b.j2`"),
        (json!({ "src": "app.conf.j2", "dest": "/x" }), "undefined name at `{{ port }}`"),
        (
            json!({ "src": "app.conf.j2", "dest": "/etc/", "vars": { "port": 1 } }),
            "dest: `dest` ends with a slash, but names a file: `/etc/` (write the whole path with the file's name)",
        ),
        (
            json!({ "src": "app.conf.j2", "dest": "/etc", "vars": { "port": 1 } }),
            "dest: `/etc` is a directory (name a path inside it, or remove it first)",
        ),
        (
            json!({ "src": "app.conf.j2", "dest": "/x", "vars": { "port": 1 }, "validate": "true" }),
            "validate: `validate` has no `%s` in `true`: it stands for the file to be judged (write for instance \"nginx -t -c %s\")",
        ),
        (
            json!({ "src": "app.conf.j2", "dest": "/a/x", "vars": { "port": 1 } }),
            "dest: there is no directory `/a` (make it with the `file` module, or add `parents = true`)",
        ),
    ];
    for (arguments, error) in cases {
        assert_eq!(error_of::<Template>(arguments.clone(), &desk(), Fake::new()), error, "{arguments}");
    }
}

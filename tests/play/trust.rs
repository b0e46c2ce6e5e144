//! A host that lies: it asks for contents and certificates that are not its own, and gets none.
//!
//! The lying agent is this very test program, started by a script that is sent as the agent: whatever the test harness prints
//! comes before the marker, where banners do no harm.

use std::fs;
use std::io::Write;

use kplay_modules::agent::wire::{self, Certainty, Outcome, Status, ToAgent, ToController, VERSION};
use kplay_modules::api::{Digest, Facts};

use crate::support::agents::real_agent_folder;
use crate::support::kplay::Kplay;
use crate::support::sshd::executable;

/// Plays the agent when the variable is there; as a test of its own it has nothing to do.
#[test]
#[expect(clippy::exit, reason = "the harness must not print among frames")]
fn liar() {
    let Ok(notes) = std::env::var("KPLAY_LIAR_NOTES") else { return };
    let marker = std::env::var("KPLAY_LIAR_MARKER").unwrap();
    let (mut input, mut output) = (std::io::stdin(), std::io::stdout());
    writeln!(output, "\u{1}KPLAY:{marker}").unwrap();
    let mut say = |message: &ToController| {
        wire::write(&mut output, message).unwrap();
        output.flush().unwrap();
    };
    let mut notes = fs::File::create(notes).unwrap();
    while let Some(message) = wire::read::<ToAgent>(&mut input).unwrap() {
        match message {
            ToAgent::Hello(_) => say(&ToController::Ready { version: VERSION, facts: Facts::default() }),
            ToAgent::Request(request) => {
                let task = request.tasks.first().unwrap().id;
                say(&ToController::NeedBlob { digest: Digest::of(b"the other host's secret\n"), offset: 0 });
                say(&ToController::Sign { task, request: b"give me any certificate".to_vec() });
                say(&ToController::Sign { task: task + 1000, request: Vec::new() });
                let outcome = Outcome {
                    task,
                    status: Status::Ok,
                    certainty: Certainty::Exact,
                    because: None,
                    changes: Vec::new(),
                    output: "{}".to_owned(),
                    failure: None,
                    attempts: 1,
                    micros: 1,
                };
                // The answers come first: three refusals, then the task is said to be done.
                for _ in 0..3 {
                    match wire::read::<ToAgent>(&mut std::io::stdin()).unwrap() {
                        Some(ToAgent::NoBlob { message, .. }) => writeln!(notes, "no content: {message}").unwrap(),
                        Some(ToAgent::Blob { .. }) => writeln!(notes, "GOT THE CONTENT").unwrap(),
                        Some(ToAgent::Signed { certificate: Err(message), .. }) => writeln!(notes, "no certificate: {message}").unwrap(),
                        Some(ToAgent::Signed { certificate: Ok(_), .. }) => writeln!(notes, "GOT A CERTIFICATE").unwrap(),
                        other => writeln!(notes, "unexpected {other:?}").unwrap(),
                    }
                }
                say(&ToController::Outcome(outcome));
                say(&ToController::Done { id: request.id });
            }
            ToAgent::Bye => break,
            _ => {}
        }
    }
    std::process::exit(0);
}

#[test]
fn a_lying_host_gets_nothing_that_is_not_its_own() {
    let kplay = Kplay::new();
    let folder = kplay.folder().to_owned();
    let (lies, honest) = (folder.join("lies"), real_agent_folder());
    fs::create_dir(&lies).unwrap();
    fs::create_dir(folder.join("b")).unwrap();
    // One agent folder for both hosts: the script lies for the host whose folder is called `a`.
    let script = format!(
        "#!/bin/sh\nif [ -e {0}/turn ]; then exec {1}/kplay-agent \"$@\"; fi\ntouch {0}/turn\n\
         KPLAY_LIAR_NOTES={0}/notes KPLAY_LIAR_MARKER=$2 exec {2} --exact trust::liar --nocapture\n",
        folder.display(),
        honest.display(),
        std::env::current_exe().unwrap().display()
    );
    for name in ["kplay-agent", "kplay-agent-x86_64-unknown-linux-musl"] {
        fs::write(lies.join(name), &script).unwrap();
        executable(&lies.join(name));
    }
    let inventory =
        format!("all:\n  hosts:\n    a: {{ connection: local }}\n    b: {{ connection: local, root: \"{}/b\" }}\n", folder.display());
    let play = r#"
        play { name = "first", hosts = "a", run = function(host)
          host:stat({ path = "/etc/hostname" })
        end }
        play { name = "second", hosts = "b", run = function(host)
          host:copy({ dest = "/secret", content = "the other host's secret\n" })
        end }
    "#;
    let kplay = kplay.inventory(&inventory).playbook(play).env("KPLAY_AGENT_DIR", &lies.to_string_lossy());
    let ran = kplay.any_stdout().run();
    let notes = ran.text("notes");
    assert_eq!(notes.matches("no content: no task of this host names that content").count(), 1, "{notes}\n{}", ran.stdout);
    assert_eq!(notes.matches("no certificate: ").count(), 2, "{notes}");
    assert!(!notes.contains("GOT"), "{notes}");
}

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
    let mut output = std::io::stdout();
    writeln!(output, "\u{1}KPLAY:{marker}").unwrap();
    let mut say = |message: &ToController| {
        wire::write(&mut output, message).unwrap();
        output.flush().unwrap();
    };
    let hear = || wire::read::<ToAgent>(&mut std::io::stdin()).unwrap();
    let mut notes = fs::File::create(notes).unwrap();
    while let Some(message) = hear() {
        match message {
            ToAgent::Hello(_) => say(&ToController::Ready { version: VERSION.to_owned(), facts: Facts::default() }),
            ToAgent::Request(request) => {
                let (task, module) = request.tasks.first().map(|task| (task.id, task.module.as_str())).unwrap();
                let sign = |task| ToController::Sign { task, request: administrators_request() };
                let asked = match module {
                    // Once as it may, though for another name; once more; and for a task of somebody else.
                    "cert" => vec![sign(task), sign(task), sign(task + 1)],
                    _ => vec![
                        ToController::NeedBlob { digest: Digest::of(b"the other host's secret\n"), kept: None },
                        ToController::Sign { task, request: b"give me any certificate".to_vec() },
                        sign(task),
                        sign(task + 1000),
                    ],
                };
                // The answers come first, then the task is said to be done.
                for message in &asked {
                    say(message);
                    match hear() {
                        Some(ToAgent::NoBlob { message, .. }) => writeln!(notes, "no content: {message}").unwrap(),
                        Some(ToAgent::Blob { .. }) => writeln!(notes, "GOT THE CONTENT").unwrap(),
                        Some(ToAgent::Signed { certificate: Err(message), .. }) => writeln!(notes, "no certificate: {message}").unwrap(),
                        Some(ToAgent::Signed { certificate: Ok(pem), .. }) => writeln!(notes, "GOT A CERTIFICATE\n{pem}").unwrap(),
                        other => writeln!(notes, "unexpected {other:?}").unwrap(),
                    }
                }
                say(&ToController::Outcome(Outcome {
                    task,
                    status: Status::Ok,
                    certainty: Certainty::Exact,
                    because: None,
                    changes: Vec::new(),
                    output: "{}".to_owned(),
                    failure: None,
                    attempts: 1,
                    micros: 1,
                    warnings: Vec::new(),
                }));
                say(&ToController::Done { id: request.id });
            }
            ToAgent::Bye => break,
            _ => {}
        }
    }
    std::process::exit(0);
}

/// A well-formed request, signed with its own key, of somebody who would like to be the administrator.
fn administrators_request() -> Vec<u8> {
    let mut params = rcgen::CertificateParams::new(vec!["kubernetes.default".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

/// A command line for host `a`, which lies, and `b`, which does not and has its files in the folder `b`.
fn a_lies() -> Kplay {
    let kplay = Kplay::new();
    let folder = kplay.folder().to_owned();
    let (lies, honest) = (folder.join("lies"), real_agent_folder());
    fs::create_dir(&lies).unwrap();
    fs::create_dir(folder.join("b")).unwrap();
    // One agent folder for both hosts: the first that is greeted is `a`.
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
    kplay.inventory(&inventory).env("KPLAY_AGENT_DIR", &lies.to_string_lossy())
}

#[test]
fn a_lying_host_gets_nothing_that_is_not_its_own() {
    let play = r#"
        play { name = "first", hosts = "a", run = function(host)
          host:stat({ path = "/etc/hostname" })
        end }
        play { name = "second", hosts = "b", run = function(host)
          host:copy({ dest = "/secret", content = "the other host's secret\n" })
          host:cert({ authority = "pki", path = "/b.pem", key = "/b-key.pem", common_name = "b", usages = "server", key_type = "ecdsa:p256" })
        end }
    "#;
    let ran = a_lies().playbook(play).any_stdout().run();
    let notes = ran.text("notes");
    assert_eq!(notes.matches("no content: no task of this host names that content").count(), 1, "{notes}\n{}", ran.stdout);
    assert_eq!(notes.matches("no certificate: ").count(), 3, "{notes}");
    assert!(!notes.contains("GOT") && !notes.contains("unexpected"), "{notes}");
    assert!(ran.path("b/secret").exists() && ran.path("b/b.pem").exists(), "the other host goes on: {}", ran.stdout);
}

#[test]
fn a_host_that_asks_for_another_certificate_gets_its_own_once() {
    let play = r#"
        play { name = "first", hosts = "a", run = function(host)
          host:cert({ authority = "pki", path = "/a.pem", key = "/a-key.pem", common_name = "a", usages = "server", key_type = "ecdsa:p256", sans = { "a" } })
        end }
        play { name = "second", hosts = "b", run = function(host)
          host:cert({ authority = "pki", path = "/b.pem", key = "/b-key.pem", common_name = "b", usages = "server", key_type = "ecdsa:p256" })
        end }
    "#;
    let ran = a_lies().playbook(play).any_stdout().run();
    let notes = ran.text("notes");
    assert_eq!(notes.matches("GOT A CERTIFICATE").count(), 1, "{notes}\n{}", ran.stdout);
    assert_eq!(notes.matches("no certificate: ").count(), 2, "{notes}");
    let signed = std::process::Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(ran.path("notes")).output().unwrap();
    let signed = String::from_utf8_lossy(&signed.stdout).into_owned();
    assert!(signed.contains("Subject: CN = a\n") && signed.contains("DNS:a\n"), "{signed}");
    assert!(!signed.contains("system:masters") && !signed.contains("kubernetes.default"), "{signed}");
}

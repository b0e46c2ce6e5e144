//! Events and what is shown of them, compared exactly.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kplay_modules::agent::wire::{Certainty, ChangeReport, Status};
use kplay_modules::api::change::{UnitAction, WriteFile};
use kplay_modules::api::{Attributes, Blob, Change, Content, Digest, Entry, EntryKind, Owner};

use super::event::{Counts, Event, Level, Recap, Reporter, TaskFinished};
use super::jsonl::JsonLines;
use super::plain::Plain;
use super::text::{Narrator, Style};
use super::{Lookup, pem};
use crate::diagnostic::{Diagnostic, Place};
use crate::secrets::Secrets;

/// A writer whose text can be looked at afterwards.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

const AFTER: &str = "[Unit]\nDescription=api\n[Service]\nExecStart=/opt/a --port=6443\n";

fn lookup() -> Lookup {
    Arc::new(|digest| (*digest == Digest::of(AFTER.as_bytes())).then(|| AFTER.as_bytes().to_vec()))
}

fn plain(style: Style, events: &[Event]) -> String {
    let paper = Paper::default();
    let secrets = Secrets::default();
    secrets.add(["hunter2!"]);
    let mut report = Plain::new(Narrator::new(style, lookup(), secrets), paper.clone());
    events.iter().for_each(|event| report.report(event));
    paper.text()
}

fn attributes(mode: u32) -> Attributes {
    Attributes { mode, owner: Owner::Id(0), group: Owner::Id(0) }
}

fn write_file(before: &[u8]) -> ChangeReport {
    let path = PathBuf::from("/etc/a.service");
    let entry = Entry { kind: EntryKind::File, attributes: attributes(0o600), size: before.len() as u64, mtime: 0, ctime: 0 };
    let blob = Blob { digest: Digest::of(AFTER.as_bytes()), size: AFTER.len() as u64, secret: false };
    ChangeReport {
        change: Change::WriteFile(WriteFile {
            path,
            content: Content::Blob(blob),
            attributes: attributes(0o644),
            before: Some(entry),
            before_digest: Some(Digest::of(before)),
            secret: false,
        }),
        before: Some(before.to_vec()),
        after: None,
    }
}

fn restart() -> ChangeReport {
    let reason = "/etc/a.service changed".to_owned();
    let change = Change::Unit { unit: "a.service".to_owned(), action: UnitAction::Restart, reason, record: None, timeout: 0 };
    ChangeReport { change, before: None, after: None }
}

fn finished(host: &str, task: &str, status: Status, changes: Vec<ChangeReport>) -> TaskFinished {
    TaskFinished {
        play: "api".to_owned(),
        host: host.to_owned(),
        number: 1,
        task: task.to_owned(),
        module: task.split(' ').next().unwrap_or_default().to_owned(),
        role: None,
        place: Place::line("play.lua", 4),
        status,
        certainty: Certainty::Exact,
        because: None,
        changes,
        error: None,
        ignored: false,
        output: serde_json::Map::new(),
        sensitive: false,
        micros: 1500,
    }
}

fn events() -> Vec<Event> {
    let changed = TaskFinished {
        role: Some("kube-apiserver".to_owned()),
        ..finished(
            "m1",
            "template /etc/a.service",
            Status::Changed,
            vec![write_file(b"[Unit]\nDescription=api\n[Service]\nExecStart=/opt/a\n")],
        )
    };
    let failed = TaskFinished {
        error: Some(Diagnostic::host("`a.service` did not start with hunter2!").at(Place::line("nowhere.lua", 9)).on("master2")),
        ..finished("master2", "systemd a", Status::Failed, vec![restart()])
    };
    let mut recap = Recap { run: "20261122-054501-3f9c".to_owned(), millis: 3210, ..Recap::default() };
    recap.hosts.insert("m1".to_owned(), Counts { ok: 10, changed: 1, ..Counts::default() });
    recap.hosts.insert("master2".to_owned(), Counts { ok: 2, failed: 1, unreachable: true, ..Counts::default() });
    vec![
        Event::RunStarted { run: "20261122-054501-3f9c".to_owned(), playbook: "play.lua".to_owned(), check: false, hosts: 2 },
        Event::PlayStarted { play: "api".to_owned(), hosts: vec!["m1".to_owned(), "master2".to_owned()] },
        Event::HostConnected { host: "m1".to_owned(), millis: 215, agent_sent: true },
        Event::TaskFinished(Box::new(finished("m1", "file /etc/x", Status::Ok, Vec::new()))),
        Event::TaskFinished(Box::new(changed)),
        Event::TaskFinished(Box::new(failed)),
        Event::Message { host: Some("m1".to_owned()), level: Level::Warning, text: "the clock is 40 s behind".to_owned() },
        Event::HostUnreachable { host: "master2".to_owned(), error: Diagnostic::unreachable("the connection broke").hint("try again") },
        Event::Recap(recap),
    ]
}

#[test]
fn only_what_changed_or_failed_is_told() {
    assert_eq!(
        plain(Style::default(), &events()),
        "\
PLAY api (2 hosts)
~ m1       template /etc/a.service  [kube-apiserver]
    update /etc/a.service (50 B -> 62 B, mode 0600 -> 0644)
! master2  systemd a
    restart a.service (/etc/a.service changed)
    error: `a.service` did not start with ********
     --> nowhere.lua:9
# m1       warning: the clock is 40 s behind
! master2  unreachable
    error: the connection broke
      = hint: try again
RECAP
  m1       ok=10  changed=1  failed=0  skipped=0
  master2  ok=2   changed=0  failed=1  skipped=0  unreachable
1 task changed 1 host, 1 host failed, in 3.2 s; undo with: kplay undo 20261122-054501-3f9c
"
    );
}

#[test]
fn contents_are_shown_before_and_after_on_request() {
    let told = plain(Style { diff: true, ..Style::default() }, &events()[4..5]);
    assert_eq!(
        told,
        "\
~ m1  template /etc/a.service  [kube-apiserver]
    update /etc/a.service (50 B -> 62 B, mode 0600 -> 0644)
      --- before /etc/a.service
      +++ after /etc/a.service
      @@ -1,4 +1,4 @@
       [Unit]
       Description=api
       [Service]
      -ExecStart=/opt/a
      +ExecStart=/opt/a --port=6443
"
    );
}

#[test]
fn lines_that_differ_in_their_ends_alone_look_different() {
    let change = write_file(AFTER.replace('\n', "\r\n").as_bytes());
    let event = Event::TaskFinished(Box::new(finished("m1", "template /etc/a.service", Status::Changed, vec![change])));
    let told = plain(Style { diff: true, ..Style::default() }, &[event]);
    assert!(told.contains("      -[Unit]\\r\n") && told.contains("      +[Unit]\n"), "{told}");
}

#[test]
fn a_task_that_failed_after_it_had_changed_something_is_no_sign_that_nothing_changed() {
    let recap = |changes: Vec<ChangeReport>| {
        let counts = [("m1".to_owned(), Counts { failed: 1, ..Counts::default() })].into();
        let recap = Recap { hosts: counts, run: "r".to_owned(), check: false, interrupted: false, millis: 10 };
        let failed = Event::TaskFinished(Box::new(finished("m1", "template /etc/a.service", Status::Failed, changes)));
        plain(Style::default(), &[failed, Event::Recap(recap)]).lines().last().unwrap().to_owned()
    };
    assert_eq!(recap(Vec::new()), "nothing changed, 1 host failed, in 0.01 s");
    assert_eq!(recap(vec![restart()]), "failed tasks may have left changes, 1 host failed, in 0.01 s");
}

#[test]
fn the_same_changes_are_told_once() {
    let change = |host: &str, before: &[u8]| {
        Event::TaskFinished(Box::new(finished(host, "template /etc/a.service", Status::Changed, vec![write_file(before), restart()])))
    };
    let told = plain(Style::default(), &[change("m1", b"old"), change("m2", b"old"), change("m3", b"other"), change("m1", b"old")]);
    assert_eq!(
        told,
        "\
~ m1  template /etc/a.service
    update /etc/a.service (3 B -> 62 B, mode 0600 -> 0644)
    restart a.service (/etc/a.service changed)
~ m2  template /etc/a.service  (as on m1)
~ m3  template /etc/a.service
    update /etc/a.service (5 B -> 62 B, mode 0600 -> 0644)
    restart a.service (/etc/a.service changed)
~ m1  template /etc/a.service
    update /etc/a.service (3 B -> 62 B, mode 0600 -> 0644)
    restart a.service (/etc/a.service changed)
"
    );
}

#[test]
fn json_lines_end_with_the_recap() {
    let paper = Paper::default();
    let secrets = Secrets::default();
    secrets.add(["hunter2!", "changed"]);
    let mut report = JsonLines::new(paper.clone(), secrets, None);
    events().iter().for_each(|event| report.report(event));
    let text = paper.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[4],
        r#"{"event":"task","host":"m1","play":"api","number":1,"task":"template /etc/a.service","module":"template","role":"kube-apiserver","place":{"file":"play.lua","line":4},"status":"changed","certainty":"exact","because":null,"changes":[{"kind":"file","path":"/etc/a.service","action":"update","summary":"update /etc/a.service (50 B -> 62 B, mode 0600 -> 0644)"}],"error":null,"ignored":false,"output":{},"ms":1}"#
    );
    assert!(lines[5].contains("did not start with ********"), "{}", lines[5]);
    assert_eq!(
        lines[lines.len() - 1],
        r#"{"event":"recap","hosts":{"m1":{"ok":10,"changed":1,"failed":0,"skipped":0,"unknown":0,"unreachable":false},"master2":{"ok":2,"changed":0,"failed":1,"skipped":0,"unknown":0,"unreachable":true}}}"#
    );
}

#[test]
fn keys_are_known_by_their_fingerprints_alone() {
    let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA==\n-----END EC PRIVATE KEY-----\n";
    let shown = pem::described(&format!("a: 1\n{key}b: {}\n", kplay_modules::api::base64::encode(key.as_bytes())));
    assert!(!shown.contains("MHcCAQEEIA") && !shown.contains("LS0tLS1CRUdJTi"), "{shown}");
    assert!(shown.starts_with("a: 1\n<ec private key sha256 ") && shown.contains("\nb: base64 of <ec private key sha256 "), "{shown}");
    assert_eq!(pem::described("-----BEGIN PRIVATE KEY-----\nMHcC"), "<an unfinished private key>\n");
    let certified = rcgen::generate_simple_self_signed(["kube.local".to_owned(), "10.4.7.21".to_owned()]).unwrap();
    let shown = pem::described(&certified.cert.pem());
    assert!(shown.starts_with("<certificate CN=rcgen self signed cert, SAN kube.local 10.4.7.21, issued by "), "{shown}");
}

#[test]
fn what_would_speak_to_the_terminal_is_spelled_out() {
    let told = plain(Style::default(), &[Event::Message { host: None, level: Level::Info, text: "a\x1b[2Jb".to_owned() }]);
    assert_eq!(told, "  a\\u{1b}[2Jb\n");
}

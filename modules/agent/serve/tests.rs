//! The engine's own promise: what a check calls exact is what the apply then does, in order and count, for whatever tasks.

use std::io::{Cursor, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::link::Link;
use super::session::Session;
use crate::agent::wire::{self, BecomeMethod, Certainty, Hello, Outcome, Request, Status, Task, ToAgent, ToController, VERSION};
use crate::api::fake::{DIES, Desk, Fake};
use crate::api::forecast::{Forecast, Purpose};
use crate::api::{Change, CommandOutput, Inspect};

/// What an agent says, kept.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a controller says, which then stays on the line.
struct Saying(Cursor<Vec<u8>>, Receiver<()>);

impl Read for Saying {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => {
                let _ = self.1.recv();
                Ok(0)
            }
            count => Ok(count),
        }
    }
}

/// A module, its arguments, and which earlier tasks it waits for.
type Spec = (&'static str, Value, Vec<u32>);

/// Does tasks on a host in memory in one session, and returns how they ended.
fn session(host: &mut Fake, specs: &[Spec], check: bool) -> Vec<Outcome> {
    let desk = Desk::new();
    let tasks = specs.iter().enumerate().map(|(number, (module, arguments, when_changed))| {
        let mut made = (crate::find(module).unwrap().parse)(arguments.clone()).unwrap_or_else(|error| panic!("{module}: {error:?}"));
        made.prepare(&desk).unwrap_or_else(|error| panic!("{module}: {error:?}"));
        let id = u32::try_from(number).unwrap();
        Task {
            id,
            module: (*module).into(),
            arguments: made.to_json().unwrap(),
            name: format!("{module} {id}"),
            when_changed: when_changed.clone(),
            ..Task::default()
        }
    });
    let tasks = tasks.collect();
    host.take_blobs(&desk);
    let mut input = wire::encode(&ToAgent::Request(Request { id: 1, tasks })).unwrap();
    input.extend(wire::encode(&ToAgent::Bye).unwrap());
    let said = Said::default();
    let (on_the_line, line) = channel();
    let link = Link::new(Saying(Cursor::new(input), line), said.clone());
    for (digest, bytes) in desk.blobs() {
        link.contents.borrow_mut().put(digest, bytes);
    }
    let state = tempfile::tempdir().unwrap();
    let hello = Hello {
        version: VERSION.into(),
        run: "r".into(),
        by: "t".into(),
        check,
        diff: true,
        root: None,
        become_method: BecomeMethod::Sudo,
        become_password: None,
    };
    let facts = host.facts().clone();
    let ended = if check {
        let forecast = Forecast::new(&*host, &link, Purpose::Check);
        Session::<Fake>::check(&link, &hello, state.path().into(), forecast).run(|| facts.clone())
    } else {
        Session::apply(&link, &hello, state.path().into(), host).run(|| facts.clone())
    };
    ended.unwrap();
    drop(on_the_line);
    let said = said.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut said = Cursor::new(said);
    let mut outcomes = Vec::new();
    while let Some(message) = wire::read::<ToController>(&mut said).unwrap() {
        if let ToController::Outcome(outcome) = message {
            outcomes.push(outcome);
        }
    }
    outcomes
}

/// A change without what cannot be the same in a forecast: times, and the numbers of users that are yet to be created.
fn comparable(change: &Change) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for key in ["mtime", "ctime", "owner", "group", "uid", "reason"] {
                    map.remove(key);
                }
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut change = change.clone();
    if let Change::Group { before, .. } = &mut change {
        *before = None;
    }
    let mut value = serde_json::to_value(change).unwrap();
    strip(&mut value);
    value
}

/// Fails unless all that is called exact comes true.
fn compare(foreseen: &[Outcome], done: &[Outcome]) -> Result<(), String> {
    for (number, foreseen) in foreseen.iter().enumerate() {
        let Some(done_one) = done.get(number) else {
            // The apply stopped at a failure that the check could not see, and said so.
            return match done.last() {
                Some(last) if last.status == Status::Failed => Ok(()),
                _ => Err(format!("task {number} was foreseen and never reached: {foreseen:?}")),
            };
        };
        if foreseen.task != done_one.task {
            return Err(format!("another order: {} {}", foreseen.task, done_one.task));
        }
        if foreseen.certainty != Certainty::Exact {
            if foreseen.status == Status::Ok && foreseen.certainty == Certainty::Unknown {
                return Err(format!("something unknown is shown as ok: {foreseen:?}"));
            }
            continue;
        }
        let list = |outcome: &Outcome| outcome.changes.iter().map(|report| comparable(&report.change)).collect::<Vec<_>>();
        if foreseen.status != done_one.status || list(foreseen) != list(done_one) {
            return Err(format!(
                "task {number}\nforeseen {:?} {:#?} {:?}\ndone     {:?} {:#?} {:?}",
                foreseen.status,
                list(foreseen),
                foreseen.failure,
                done_one.status,
                list(done_one),
                done_one.failure
            ));
        }
    }
    if done.len() > foreseen.len() {
        return Err("the check ended before the apply".into());
    }
    Ok(())
}

fn done() -> CommandOutput {
    CommandOutput { code: Some(0), ..CommandOutput::default() }
}

/// A host with a bit of everything, on which commands and packages do what they are declared to do, and more.
fn host() -> Fake {
    Fake::new()
        .directory("/etc/systemd/system")
        .directory("/srv")
        .directory("/usr/bin")
        .directory("/opt")
        .file("/srv/old", "old\n")
        .link("/srv/link", "old")
        .file("/usr/bin/app", "program")
        .file("/usr/bin/systemd-analyze", "program")
        .command("systemd-analyze", done())
        .user("bob", 1000)
        .directory("/home/bob")
        .group("ops", 2000)
        .unit("cron", |unit| (unit.active_state, unit.unit_file_state) = ("active".into(), "enabled".into()))
        .command("true", done())
        .command_that("make", done(), |host| host.directory("/srv/made").file("/srv/made/result", "made").file("/srv/made/more", "by make"))
        .command_that("mess", done(), |host| host.file("/srv/old", "messed").file("/srv/a", "messed"))
        .offer("nginx", "1.22", |host| {
            host.file("/etc/nginx/nginx.conf", "default\n").file("/etc/nginx/mime.types", "").user("www-data", 33).unit("nginx", |unit| {
                (unit.unit_file_state, unit.fragment) = ("enabled".into(), Some("/lib/systemd/system/nginx.service".into()));
            })
        })
}

const UNIT: &str = "[Service]\nExecStart=/usr/bin/app\n[Install]\nWantedBy=multi-user.target\n";

/// Users and groups that meet each other in every way.
fn accounts() -> impl Strategy<Value = (&'static str, Value)> {
    let name = prop::sample::select(vec!["bob", "app"]);
    let group = prop::sample::select(vec!["ops", "2000", "bob", "app"]);
    let hash = prop::sample::select(vec![json!(null), json!("$6$a"), json!("$6$b"), json!("!$6$a"), json!("!")]);
    let lock = prop::sample::select(vec![json!(null), json!(true), json!(false)]);
    let groups = prop_oneof![3 => group.clone().prop_map(|name| json!([name])), 1 => Just(json!([])), 1 => Just(json!(null))];
    prop_oneof![
        3 => (name.clone(), groups, hash, lock, any::<bool>()).prop_map(|(name, groups, hash, lock, append)| {
            let append = append && !groups.is_null();
            ("user", json!({ "name": name, "groups": groups, "append": append, "password_hash": hash, "lock": lock, "create_home": false }))
        }),
        1 => (name.clone(), group.clone()).prop_map(|(name, group)| ("user", json!({ "name": name, "group": group }))),
        1 => (name, any::<bool>()).prop_map(|(name, home)| ("user", json!({ "name": name, "state": "absent", "remove_home": home }))),
        1 => Just(("group", json!({ "name": "ops" }))),
        1 => Just(("group", json!({ "name": "ops", "gid": 2001 }))),
        1 => group.prop_filter_map("a number is no name", |name| (name != "2000").then(|| ("group", json!({ "name": name, "state": "absent" })))),
    ]
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let path = prop::sample::select(vec![
        "/srv/a",
        "/srv/b",
        "/srv/a/x",
        "/srv/old",
        "/srv/link",
        "/etc/nginx/nginx.conf",
        "/etc/nginx/own.conf",
        "/opt/x",
        "/srv/made/result",
        "/srv/made/more",
    ]);
    let mode = prop::sample::select(vec!["0600", "0755", "u+x"]);
    let text = prop::sample::select(vec!["one\n", "two\n", ""]);
    let owner = prop::sample::select(vec!["bob", "root", "www-data", "app"]);
    let flag = any::<bool>();
    let task = prop_oneof![
        3 => (path.clone(), mode.clone()).prop_map(|(path, mode)| ("file", json!({ "path": path, "state": "directory", "mode": mode, "parents": true }))),
        2 => path.clone().prop_map(|path| ("file", json!({ "path": path, "state": "absent" }))),
        2 => (path.clone(), path.clone()).prop_map(|(path, target)| ("file", json!({ "path": path, "state": "link", "target": target }))),
        2 => (path.clone(), mode, owner).prop_map(|(path, mode, owner)| ("file", json!({ "path": path, "mode": mode, "owner": owner }))),
        4 => (path.clone(), text.clone()).prop_map(|(path, text)| ("copy", json!({ "dest": path, "content": text }))),
        3 => (path.clone(), text).prop_map(|(path, text)| ("line", json!({ "path": path, "line": format!("line {}", text.trim()), "create": true }))),
        1 => path.clone().prop_map(|path| ("stat", json!({ "path": path }))),
        1 => Just(("command", json!({ "command": ["make"], "creates": "/srv/made/result" }))),
        1 => Just(("command", json!({ "command": ["mess"] }))),
        1 => path.prop_map(|path| ("command", json!({ "command": ["true"], "inputs": [path], "unless": ["true"] }))),
        2 => flag.prop_map(|enabled| ("copy", json!({ "dest": "/etc/systemd/system/app.service", "content": UNIT.replace("app\n", if enabled { "app\n" } else { "app -v\n" }) }))),
        2 => flag.prop_map(|enabled| ("systemd", json!({ "name": "app", "enabled": enabled, "state": "started", "restart_on": ["/srv/a", "/srv/old"] }))),
        1 => flag.prop_map(|started| ("systemd", json!({ "name": "cron", "state": if started { "started" } else { "stopped" } }))),
        1 => Just(("systemd", json!({ "name": "nginx", "state": "started", "reload_on": ["/etc/nginx/nginx.conf"] }))),
        2 => Just(if crate::find("package").is_some() { ("package", json!({ "name": "nginx" })) } else { ("stat", json!({ "path": "/" })) }),
        3 => accounts(),
    ];
    prop::collection::vec((task, prop::collection::vec(0u32..6, 0..2)), 1..10).prop_map(|tasks| {
        let waits = |number: usize, on: Vec<u32>| on.into_iter().filter(|id| (*id as usize) < number && number.is_multiple_of(3)).collect();
        tasks.into_iter().enumerate().map(|(number, ((module, arguments), on))| (module, arguments, waits(number, on))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_check_calls_exact_comes_true(specs in specs()) {
        let mut looked_at = host();
        let foreseen = session(&mut looked_at, &specs, true);
        prop_assert_eq!(looked_at.state(), host().state(), "a check changes nothing");
        let mut host = host();
        let done = session(&mut host, &specs, false);
        if let Err(why) = compare(&foreseen, &done) {
            prop_assert!(false, "{}\nforeseen {:#?}\ndone {:#?}", why, foreseen.iter().map(|o| (o.task, o.status, o.certainty, o.because.clone())).collect::<Vec<_>>(), done.iter().map(|o| (o.task, o.status, o.failure.clone())).collect::<Vec<_>>());
        }
    }
}

/// A role as it is written in practice: configure, install without starting, configure what the package brings, start.
#[test]
fn a_role_with_a_package_is_foreseen_to_its_end() {
    let specs: Vec<Spec> = vec![
        ("file", json!({ "path": "/etc/nginx", "state": "directory" }), vec![]),
        ("copy", json!({ "dest": "/etc/nginx/nginx.conf", "content": "ours\n" }), vec![]),
        ("package", json!({ "name": "nginx" }), vec![]),
        ("copy", json!({ "dest": "/etc/nginx/conf.d/own.conf", "content": "ours\n" }), vec![]),
        ("file", json!({ "path": "/etc/nginx/nginx.conf", "owner": "www-data" }), vec![]),
        ("copy", json!({ "dest": "/etc/systemd/system/app.service", "content": UNIT }), vec![]),
        ("systemd", json!({ "name": "nginx", "enabled": true, "state": "started", "restart_on": ["/etc/nginx/nginx.conf"] }), vec![]),
        ("systemd", json!({ "name": "app", "enabled": true, "state": "started", "restart_on": [] }), vec![]),
        ("copy", json!({ "dest": "/srv/page", "content": "hello\n" }), vec![]),
        ("command", json!({ "command": ["make"], "creates": "/srv/made/result" }), vec![]),
        ("command", json!({ "command": ["make"], "creates": "/srv/made/result" }), vec![]),
        ("file", json!({ "path": "/srv/made/result", "mode": "0600" }), vec![]),
        ("copy", json!({ "dest": "/srv/page", "content": "hello\n" }), vec![]),
        ("command", json!({ "command": ["true"] }), vec![]),
        ("file", json!({ "path": "/srv/page", "state": "absent" }), vec![]),
    ];
    let fresh = || {
        host().offer("nginx", "1.22", |host| {
            host.directory("/etc/nginx/conf.d").user("www-data", 33).unit("nginx", |unit| {
                (unit.unit_file_state, unit.fragment) = ("enabled".into(), Some("/lib/systemd/system/nginx.service".into()));
            })
        })
    };
    let foreseen = session(&mut fresh(), &specs, true);
    let seen: Vec<_> = foreseen.iter().map(|outcome| (outcome.status, outcome.certainty, outcome.changes.len())).collect();
    use {Certainty::*, Status::*};
    assert_eq!(
        seen,
        [
            (Changed, Exact, 1),
            (Changed, Exact, 1),
            (Changed, Exact, 1),
            (Status::Unknown, Certainty::Unknown, 1),
            (Changed, Assumed, 1),
            (Changed, Assumed, 1),
            (Changed, Assumed, 1),
            (Changed, Assumed, 2),
            (Changed, Exact, 1),
            (Changed, Exact, 1),
            (Ok, Assumed, 0),
            (Status::Unknown, Certainty::Unknown, 0),
            (Ok, Exact, 0),
            (Changed, Exact, 1),
            (Status::Unknown, Certainty::Unknown, 1),
        ],
        "{foreseen:#?}"
    );
    assert_eq!(foreseen[3].because.as_deref(), Some("package `nginx` would have been installed"));
    let done = session(&mut fresh(), &specs, false);
    assert!(done.iter().all(|outcome| outcome.failure.is_none()), "{done:#?}");
    compare(&foreseen, &done).unwrap();
    // What was assumed came true as well.
    let changed = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.changes.len()).collect::<Vec<_>>();
    assert_eq!(changed(&done)[..11], changed(&foreseen)[..11]);
}

/// Whenever a unit fails after its start counts as done, its own last words are in the task's error.
#[test]
fn a_unit_that_does_not_keep_running_says_why() {
    let unit = UNIT.replace("/usr/bin/app", DIES);
    let mut host = host().file("/bin/false", "program").unit_says("app", "cannot open /etc/app.conf");
    let specs: Vec<Spec> = vec![
        ("copy", json!({ "dest": "/etc/systemd/system/app.service", "content": unit }), vec![]),
        ("systemd", json!({ "name": "app", "state": "started", "restart_on": [] }), vec![]),
    ];
    let done = session(&mut host, &specs, false);
    let failure = done[1].failure.as_ref().unwrap();
    assert_eq!(failure.message, "`app.service` did not keep running");
    assert_eq!(failure.details, ["state: failed (failed), result: exit-code", "cannot open /etc/app.conf"]);
    assert_eq!(failure.hint.as_deref(), Some("what it has done stands: `kplay undo r` takes the run back"));
}

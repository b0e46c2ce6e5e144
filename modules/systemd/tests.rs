//! The cases of `systemd`, on a host in memory.

use serde_json::{Value, json};

use crate::api::change::{Change, Recorded};
use crate::api::conformance::Example;
use crate::api::fake::{Alone, Desk, Fake, apply};
use crate::api::inspect::{CommandOutput, Unit};
use crate::api::{AnyModule, Digest, Inspect, ModuleError, Perform as _};
use crate::find;

pub(super) fn examples() -> Vec<Example> {
    let unit = "[Service]\nExecStart=/bin/x\n[Install]\nWantedBy=multi-user.target\n";
    vec![
        Example::new("starts and enables", json!({ "name": "app", "state": "started", "enabled": true }))
            .on(Fake::new().unit("app", |_| {})),
        Example::new("stops and disables", json!({ "name": "app.service", "state": "stopped", "enabled": false })).on(running()),
        Example::new("restarts each time", json!({ "name": "app", "state": "restarted" })).on(running()),
        Example::new("reloads each time", json!({ "name": "app", "state": "reloaded", "reload_on": ["/etc/app"] })).on(running()),
        Example::new("masks", json!({ "name": "app", "state": "stopped", "enabled": false, "masked": true })).on(packaged()),
        Example::new("unmasks and starts", json!({ "name": "app", "state": "started", "masked": false }))
            .on(Fake::new().unit("app", |unit| (unit.load_state, unit.unit_file_state) = ("masked".into(), "masked".into()))),
        Example::new("reads unit files again", json!({ "name": "app", "timeout": 0 }))
            .on(running_as(|unit| unit.need_daemon_reload = true)),
        Example::new("restarts for a newer file", json!({ "name": "app", "restart_on": ["/etc/app", "/none"] }))
            .on(running().at(300).file("/etc/app/conf", "new")),
        Example::new("reloads for a newer file", json!({ "name": "app", "state": "started", "reload_on": "/etc/app/conf" }))
            .on(running().at(300).file("/etc/app/conf", "new")),
        Example::new("runs a oneshot", json!({ "name": "once", "state": "started", "restart_on": [] }))
            .on(Fake::new().unit("once", |unit| unit.kind = "oneshot".into())),
        Example::new("starts from a unit file", json!({ "name": "new", "state": "started", "enabled": true, "restart_on": {} })).on(
            Fake::new()
                .file("/etc/systemd/system/new.service", unit)
                .unit("new", |unit| unit.fragment = Some("/etc/systemd/system/new.service".into())),
        ),
    ]
}

/// Returns a host on which `app` runs, of which a package has brought the unit file.
fn packaged() -> Fake {
    Fake::new().unit("app", |unit| (unit.active_state, unit.unit_file_state) = ("active".into(), "enabled".into()))
}

/// Returns a host whose files are from second 100 and on which `app` has run since second 200, started by hand.
fn running() -> Fake {
    running_as(|_| {})
}

fn running_as(change: impl FnOnce(&mut Unit)) -> Fake {
    Fake::new()
        .at(100)
        .file("/etc/systemd/system/app.service", "[Service]\nExecStart=/usr/bin/app --now\n")
        .file("/etc/default/app", "A=1\n")
        .file("/usr/lib/app-1/app", "\x7fELF one")
        .link("/usr/bin/app", "/usr/lib/app-1/app")
        .file("/etc/app/conf", "1")
        .file("/etc/app/sub/more", "2")
        .file("/etc/other", "3")
        .unit("app", |unit| {
            unit.active_state = "active".into();
            unit.sub_state = "running".into();
            unit.unit_file_state = "enabled".into();
            unit.invocation = "hand".into();
            unit.started = 200_000_000_000;
            unit.main_pid = 7;
            unit.executable = Some("/usr/lib/app-1/app".into());
            unit.exec_start = "/usr/bin/app --now".into();
            unit.fragment = Some("/etc/systemd/system/app.service".into());
            unit.environment_files = vec!["/etc/default/app".into()];
            change(unit);
        })
}

/// Returns the same host after kplay has restarted `app` with `/etc/app` in the list.
fn started_by_kplay() -> Fake {
    let mut host = running();
    apply(&*module(json!({ "name": "app", "state": "restarted", "restart_on": "/etc/app" })).unwrap(), &mut host).unwrap();
    host
}

fn module(arguments: Value) -> Result<Box<dyn AnyModule>, ModuleError> {
    let mut module = (find("systemd").unwrap().parse)(arguments)?;
    module.prepare(&Desk::new())?;
    Ok(module)
}

/// Returns what would be done, one line a change: the action, and the reason in brackets.
fn proposed(arguments: Value, host: &Fake) -> Vec<String> {
    let proposal = module(arguments).unwrap().check(host).unwrap();
    let line = |change: &Change| match change {
        Change::Unit { action, reason, .. } if reason.is_empty() => action.verb().to_owned(),
        Change::Unit { action, reason, .. } => format!("{} ({reason})", action.verb()),
        Change::ReloadDaemon { reason } => format!("daemon-reload ({reason})"),
        other => panic!("{other:?}"),
    };
    proposal.changes.iter().map(line).collect()
}

fn failure(arguments: Value, host: &Fake) -> ModuleError {
    module(arguments).and_then(|module| module.check(host).map(|_| ())).unwrap_err()
}

#[test]
fn states() {
    let unit = |active: &'static str, sub: &'static str| {
        Fake::new().unit("app", move |unit| (unit.active_state, unit.sub_state) = (active.into(), sub.into()))
    };
    let cases: &[(&str, Fake, &[&str])] = &[
        ("started", unit("inactive", "dead"), &["start"]),
        ("started", unit("active", "running"), &[]),
        ("started", unit("reloading", "reload"), &[]),
        ("started", unit("failed", "failed"), &["start (it had failed)"]),
        ("started", unit("activating", "auto-restart"), &["start (it keeps failing)"]),
        ("started", unit("deactivating", "stop"), &["start"]),
        ("stopped", unit("inactive", "dead"), &[]),
        ("stopped", unit("failed", "failed"), &[]),
        ("stopped", unit("active", "running"), &["stop"]),
        ("stopped", unit("activating", "auto-restart"), &["stop"]),
        ("restarted", unit("active", "running"), &["restart"]),
        ("restarted", unit("inactive", "dead"), &["start"]),
        ("reloaded", unit("active", "running"), &["reload"]),
        ("reloaded", unit("failed", "failed"), &["start (it had failed)"]),
    ];
    for (state, host, expected) in cases {
        assert_eq!(proposed(json!({ "name": "app", "state": state }), host), *expected, "{state}: {:?}", host.state());
    }
    assert_eq!(proposed(json!({ "name": "app" }), &unit("inactive", "dead")), [""; 0], "what is not asked for is left alone");
}

#[test]
fn enabling() {
    let unit = |state: &'static str| Fake::new().unit("app", move |unit| unit.unit_file_state = state.into());
    let cases: &[(bool, &str, &[&str])] = &[
        (true, "disabled", &["enable"]),
        (true, "enabled", &[]),
        (true, "enabled-runtime", &["enable"]),
        (true, "alias", &[]),
        (true, "linked", &["enable"]),
        (false, "enabled", &["disable"]),
        (false, "enabled-runtime", &["disable"]),
        (false, "disabled", &[]),
        (false, "static", &[]),
        (false, "masked", &[]),
    ];
    for (enabled, state, expected) in cases {
        assert_eq!(proposed(json!({ "name": "app", "enabled": enabled }), &unit(state)), *expected, "{enabled} {state}");
    }
    let error = failure(json!({ "name": "app", "enabled": true }), &unit("static"));
    assert_eq!(error.message, "`app.service` cannot be enabled: its unit file has no [Install] section");
    assert_eq!(error.argument.as_deref(), Some("enabled"));
}

#[test]
fn masking() {
    let masked = Fake::new().unit("app", |unit| (unit.load_state, unit.unit_file_state) = ("masked".into(), "masked".into()));
    assert_eq!(proposed(json!({ "name": "app", "masked": true }), &masked), [""; 0]);
    assert_eq!(
        proposed(json!({ "name": "app", "masked": false, "enabled": true, "state": "started" }), &masked),
        ["unmask", "enable", "start"]
    );
    assert_eq!(failure(json!({ "name": "app", "state": "started" }), &masked).message, "`app.service` is masked");
    assert_eq!(
        proposed(json!({ "name": "app", "masked": true, "enabled": false, "state": "stopped" }), &packaged()),
        ["disable", "stop", "mask"]
    );
    assert_eq!(proposed(json!({ "name": "none", "masked": true }), &Fake::new()), ["mask"]);
    // systemctl would say: File '/etc/systemd/system/app.service' already exists.
    let error = failure(json!({ "name": "app", "masked": true }), &running());
    assert_eq!(error.message, "`app.service` cannot be masked: its unit file is `/etc/systemd/system/app.service`");
    let linked = packaged().link("/etc/systemd/system/app.service", "/dev/null");
    assert_eq!(proposed(json!({ "name": "app", "masked": true }), &linked), ["mask"]);
    let error = module(json!({ "name": "app", "masked": true, "state": "started" })).err().unwrap();
    assert_eq!(error.message, "a masked unit can be neither started nor enabled");
}

#[test]
fn nothing_restarts_without_a_list() {
    let host =
        running_as(|unit| unit.executable = Some("/usr/lib/app-0/app".into())).at(300).file("/etc/systemd/system/app.service", "new");
    assert_eq!(proposed(json!({ "name": "app", "state": "started" }), &host), [""; 0]);
    assert_eq!(
        proposed(json!({ "name": "app", "state": "started", "restart_on": {} }), &host),
        ["restart (/etc/systemd/system/app.service is newer than the process, /usr/bin/app now leads to /usr/lib/app-1/app)"]
    );
}

#[test]
fn a_process_that_something_else_started_is_judged_by_times() {
    let watch = json!({ "name": "app", "state": "started", "restart_on": ["/etc/app", "/etc/none"] });
    let after = |change: fn(Fake) -> Fake| proposed(watch.clone(), &change(running().at(300)));
    assert_eq!(after(|host| host), [""; 0]);
    assert_eq!(after(|host| host.file("/etc/other", "x")), [""; 0], "not in the list");
    assert_eq!(
        after(|host| host.file("/etc/app/conf", "1")),
        ["restart (/etc/app/conf is newer than the process)"],
        "even if it is the same"
    );
    assert_eq!(after(|host| host.file("/etc/app/sub/deep/new", "")), ["restart (/etc/app/sub/deep/new is newer than the process)"]);
    assert_eq!(after(|host| host.file("/etc/none", "")), ["restart (/etc/none is newer than the process)"]);
    assert_eq!(after(|host| host.file("/etc/default/app", "A=1\n")), ["restart (/etc/default/app is newer than the process)"]);
    assert_eq!(
        after(|host| host.file("/usr/lib/app-1/app", "two")),
        ["restart (/usr/bin/app is newer than the process, /usr/lib/app-1/app is newer than the process)"]
    );
    // The same second is not later.
    assert_eq!(proposed(watch.clone(), &running().at(200).file("/etc/app/conf", "x")), [""; 0]);
    assert_eq!(
        after(|host| host.file("/etc/app/a", "").file("/etc/app/b", "").file("/etc/app/c", "").file("/etc/app/d", "")),
        ["restart (/etc/app/a is newer than the process, /etc/app/b is newer than the process and 2 more)"]
    );
}

#[test]
fn a_process_that_kplay_started_is_judged_by_digests() {
    let watch = json!({ "name": "app", "state": "started", "restart_on": "/etc/app" });
    let base = started_by_kplay();
    let after = |change: fn(Fake) -> Fake| proposed(watch.clone(), &change(base.clone().at(2_000_000_000)));
    assert_eq!(after(|host| host), [""; 0]);
    assert_eq!(after(|host| host.file("/etc/app/conf", "1")), [""; 0], "written again with the same content");
    assert_eq!(after(|host| host.file("/etc/app/conf", "changed")), ["restart (/etc/app/conf changed)"]);
    assert_eq!(after(|host| host.at(1).file("/etc/app/conf", "changed")), ["restart (/etc/app/conf changed)"], "whatever its time says");
    assert_eq!(after(|host| host.file("/etc/default/app", "A=2\n")), ["restart (/etc/default/app changed)"]);
    assert_eq!(after(|host| host.file("/etc/app/new", "")), ["restart (/etc/app/new is newer than the process)"]);
    assert_eq!(after(|host| without(host, "/etc/app/sub")), ["restart (/etc/app/sub/more is gone)"]);
    assert_eq!(after(|host| without(host, "/etc/default/app")), ["restart (/etc/default/app is gone)"]);
}

#[test]
fn extending_or_shortening_a_list_restarts_nothing() {
    let host = started_by_kplay();
    let list = |paths: Value| proposed(json!({ "name": "app", "state": "started", "restart_on": paths }), &host);
    assert_eq!(list(json!(["/etc/app", "/etc/other", "/etc/none"])), [""; 0]);
    assert_eq!(list(json!(["/etc/app/conf"])), [""; 0]);
    assert_eq!(list(json!({})), [""; 0]);
    let newer = host.clone().at(2_000_000_000).file("/etc/other", "x");
    let extended = json!({ "name": "app", "state": "started", "restart_on": ["/etc/app", "/etc/other"] });
    assert_eq!(proposed(extended, &newer), ["restart (/etc/other is newer than the process)"]);
}

#[test]
fn a_record_of_another_process_is_void() {
    let mut host = started_by_kplay().at(1_900_000_000);
    let watch = json!({ "name": "app", "state": "started", "restart_on": "/etc/app" });
    // Somebody changes a file, restarts by hand, and then the old content comes back: the digest is that on record again.
    host = host.file("/etc/app/conf", "by hand").at(1_900_000_010).unit("app", |unit| {
        unit.active_state = "active".into();
        unit.invocation = "by hand".into();
        unit.started = 1_900_000_010_000_000_000;
        unit.fragment = Some("/etc/systemd/system/app.service".into());
    });
    assert_eq!(proposed(watch.clone(), &host), [""; 0]);
    let host = host.at(1_900_000_020).file("/etc/app/conf", "1");
    assert_eq!(proposed(watch, &host), ["restart (/etc/app/conf is newer than the process)"]);
}

#[test]
fn a_reload_by_hand_is_seen() {
    let watch = json!({ "name": "app", "state": "started", "reload_on": "/etc/app" });
    let mut host = running_as(|unit| unit.state_changed = 300_000_000_000).at(300).file("/etc/app/conf", "new");
    apply(&*module(watch.clone()).unwrap(), &mut host).unwrap();
    assert_eq!(proposed(watch.clone(), &host), [""; 0]);
    // Changed by hand, and back again before anybody has reloaded: the process has what is on record.
    let same = host.clone().at(400).file("/etc/app/conf", "by hand").at(410).file("/etc/app/conf", "new");
    assert_eq!(proposed(watch.clone(), &same), [""; 0]);
    // With a reload in between it has something else, whatever is on record.
    let reloaded = |host: Fake, at: i64| {
        let before = Inspect::unit(&host, "app").unwrap();
        host.unit("app", |unit| *unit = Unit { state_changed: at * 1_000_000_000, ..before })
    };
    let other = reloaded(host.clone().at(400).file("/etc/app/conf", "by hand"), 405);
    assert_eq!(proposed(watch.clone(), &other), [""; 0], "nothing is newer than what was reloaded");
    let back = other.at(410).file("/etc/app/conf", "new");
    assert_eq!(proposed(watch.clone(), &back), ["reload (/etc/app/conf is newer than the last reload)"]);
    // A program that says only after its reload that it has finished.
    assert_eq!(proposed(watch, &reloaded(host, 300)), [""; 0]);
}

#[test]
fn a_run_that_dies_before_the_restart_loses_nothing() {
    let watch = json!({ "name": "app", "state": "started", "restart_on": "/etc/app" });
    let mut host = started_by_kplay().at(2_000_000_000).file("/etc/app/conf", "changed");
    assert_eq!(proposed(watch.clone(), &host), ["restart (/etc/app/conf changed)"]);
    apply(&*module(watch.clone()).unwrap(), &mut host).unwrap();
    assert_eq!(proposed(watch, &host), [""; 0]);
}

#[test]
fn a_program_that_leads_elsewhere_restarts() {
    let watch = json!({ "name": "app", "state": "started", "restart_on": [] });
    let turned = |host: Fake| host.file("/usr/lib/app-2/app", "\x7fELF two").link("/usr/bin/app", "/usr/lib/app-2/app");
    // Back to an older program, unpacked long before the process started: only the link is new.
    assert_eq!(proposed(watch.clone(), &turned(running())), ["restart (/usr/bin/app now leads to /usr/lib/app-2/app)"]);
    let kept = started_by_kplay();
    assert_eq!(
        proposed(watch.clone(), &turned(kept.clone())),
        ["restart (/usr/bin/app changed, /usr/bin/app now leads to /usr/lib/app-2/app)"]
    );
    let same = kept.clone().file("/usr/lib/app-2/app", "\x7fELF one").link("/usr/bin/app", "/usr/lib/app-2/app");
    assert_eq!(proposed(watch.clone(), &same), ["restart (/usr/bin/app now leads to /usr/lib/app-2/app)"]);
    // By a link in the middle of the path.
    let folder = running_as(|unit| {
        unit.exec_start = "/opt/app/bin/run".into();
        unit.executable = Some("/opt/app-1/bin/run".into());
    })
    .file("/opt/app-1/bin/run", "1")
    .file("/opt/app-2/bin/run", "1");
    assert_eq!(proposed(watch.clone(), &folder.clone().link("/opt/app", "app-1")), [""; 0]);
    assert_eq!(proposed(watch.clone(), &folder.link("/opt/app", "app-2")), ["restart (/opt/app/bin/run now leads to /opt/app-2/bin/run)"]);
    // A script's process is its interpreter, a replaced program's link says so.
    let script = running_as(|unit| unit.executable = Some("/usr/bin/python3".into())).file("/usr/bin/python3", "");
    assert_eq!(proposed(watch.clone(), &script), [""; 0]);
    let replaced = running_as(|unit| unit.executable = Some("/usr/lib/app-1/app (deleted)".into()));
    assert_eq!(proposed(watch, &replaced), [""; 0], "replaced by a file that is not newer: restored from a backup, say");
}

#[test]
fn a_reload_puts_named_paths_into_effect_and_nothing_else() {
    let both = json!({ "name": "app", "state": "started", "reload_on": "/etc/app", "restart_on": "/etc/other" });
    let only = json!({ "name": "app", "state": "started", "reload_on": "/etc/app" });
    let newer = running().at(300).file("/etc/app/conf", "new");
    assert_eq!(proposed(only.clone(), &newer), ["reload (/etc/app/conf is newer than the process)"]);
    assert_eq!(proposed(both.clone(), &newer), ["reload (/etc/app/conf is newer than the process)"]);
    let other = newer.clone().file("/etc/other", "new");
    assert_eq!(proposed(both.clone(), &other), ["restart (/etc/other is newer than the process)"]);
    let unit_file = newer.clone().file("/etc/default/app", "A=2\n");
    assert_eq!(proposed(only.clone(), &unit_file), ["restart (/etc/default/app is newer than the process)"]);
    let reloaded = json!({ "name": "app", "state": "reloaded", "restart_on": "/etc/app" });
    assert_eq!(proposed(reloaded, &newer), ["restart (/etc/app/conf is newer than the process)"]);
    let mut host = newer;
    apply(&*module(both.clone()).unwrap(), &mut host).unwrap();
    assert_eq!(host.log(), ["reload app.service"]);
    assert_eq!(proposed(both, &host), [""; 0]);
}

/// Undone, a reload has the old files read again: they are what the next check compares with.
#[test]
fn a_reload_that_was_undone_hides_no_later_change() {
    let watch = json!({ "name": "app", "state": "started", "reload_on": "/etc/app" });
    let mut host = running().at(300).file("/etc/app/conf", "new");
    let changes = module(watch.clone()).unwrap().check(&host).unwrap().changes;
    let undo: Vec<Change> = changes.iter().flat_map(|change| host.invert(change).unwrap()).collect();
    apply(&*module(watch.clone()).unwrap(), &mut host).unwrap();
    let mut host = host.at(400).file("/etc/app/conf", "old");
    for change in &undo {
        host.perform(change, &mut Alone).unwrap();
    }
    assert_eq!(host.log(), ["reload app.service", "reload app.service"]);
    assert_eq!(proposed(watch.clone(), &host), [""; 0]);
    let host = host.at(500).file("/etc/app/conf", "new");
    assert_eq!(proposed(watch, &host), ["reload (/etc/app/conf changed)"]);
}

#[test]
fn two_tasks_that_watch_one_unit_do_not_disturb_each_other() {
    let first = json!({ "name": "app", "state": "started", "reload_on": "/etc/app" });
    let second = json!({ "name": "app", "state": "started", "reload_on": "/etc/other" });
    let mut host = running().at(300).file("/etc/app/conf", "new").file("/etc/other", "new");
    for arguments in [&first, &second, &first, &second] {
        apply(&*module(arguments.clone()).unwrap(), &mut host).unwrap();
    }
    assert_eq!(host.log(), ["reload app.service", "reload app.service"]);
}

#[test]
fn a_unit_that_does_not_run_is_started_and_not_restarted() {
    let stopped = Fake::new().at(100).file("/etc/app/conf", "1").unit("app", |_| {}).at(300).file("/etc/app/conf", "2");
    let watch = json!({ "name": "app", "state": "started", "restart_on": "/etc/app", "reload_on": "/etc/other" });
    assert_eq!(proposed(watch.clone(), &stopped), ["start"]);
    assert_eq!(proposed(json!({ "name": "app", "restart_on": "/etc/app" }), &stopped), [""; 0]);
    assert_eq!(proposed(json!({ "name": "app", "state": "stopped", "restart_on": "/etc/app" }), &stopped), [""; 0]);
    let changes = module(watch).unwrap().check(&stopped).unwrap().changes;
    let [Change::Unit { record: Some(record), .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(record.key, "unit/app.service");
    assert_eq!(record.paths, [std::path::PathBuf::from("/etc/app/conf"), "/etc/other".into()]);
}

#[test]
fn a_oneshot_that_ended_well_counts_as_started() {
    let ended = |result: &'static str, invocation: &'static str| {
        Fake::new().at(100).file("/etc/rules", "1").unit("once", move |unit| {
            (unit.kind, unit.result, unit.invocation) = ("oneshot".into(), result.into(), invocation.into());
        })
    };
    let watch = json!({ "name": "once", "state": "started", "restart_on": "/etc/rules" });
    assert_eq!(proposed(watch.clone(), &ended("success", "")), ["start"], "it has never run");
    assert_eq!(proposed(watch.clone(), &ended("success", "1")), [""; 0]);
    assert_eq!(proposed(watch.clone(), &ended("exit-code", "1")), ["start"]);
    let mut host = ended("success", "");
    apply(&*module(watch.clone()).unwrap(), &mut host).unwrap();
    let host = host.file("/etc/rules", "2");
    assert_eq!(proposed(watch.clone(), &host), ["start (/etc/rules changed)"]);
    // After a boot nothing tells when it ran; what kplay last started it with is the best there is.
    let recorded =
        Recorded { invocation: "before".into(), digests: [("/etc/rules".into(), Some(Digest::of(b"0")))].into(), ..Recorded::default() };
    assert_eq!(proposed(watch, &ended("success", "1").recorded("unit/once.service", &recorded)), ["start (/etc/rules changed)"]);
}

#[test]
fn unit_files_are_read_again_first() {
    let host = running_as(|unit| unit.need_daemon_reload = true);
    assert_eq!(proposed(json!({ "name": "app" }), &host), ["daemon-reload (unit files of app.service changed)"]);
    assert_eq!(
        proposed(json!({ "name": "app", "state": "restarted" }), &host),
        ["daemon-reload (unit files of app.service changed)", "restart"]
    );
    // systemd knows of a static unit what its old file said.
    let old = running_as(|unit| (unit.need_daemon_reload, unit.unit_file_state) = (true, "static".into()));
    assert_eq!(proposed(json!({ "name": "app", "enabled": true }), &old)[1..], ["enable"]);
    let unread = Fake::new().file("/etc/systemd/system/new@.service", "[Service]\nExecStart=/bin/x\n");
    assert_eq!(proposed(json!({ "name": "new@1", "state": "started" }), &unread), ["daemon-reload (new@1.service is new)", "start"]);
}

#[test]
fn a_missing_unit_is_explained() {
    let host = Fake::new().file("/etc/systemd/system/kube-apiserver.service", "");
    let error = failure(json!({ "name": "kube-apisever", "state": "started" }), &host);
    assert_eq!(error.message, "there is no unit `kube-apisever.service` on this host");
    assert_eq!(error.hint.as_deref(), Some("did you mean `kube-apiserver.service`?"));
    let error = failure(json!({ "name": "nginx", "state": "stopped" }), &host);
    assert_eq!(error.hint.as_deref(), Some("write the unit file first, or install the package that brings it"));
}

#[test]
fn a_unit_file_that_systemd_refuses_is_not_started() {
    let complaint = CommandOutput {
        code: Some(1),
        stderr: "other.service: Failed to x\napp.service: Command /usr/bin/nothing is not executable\n".into(),
        ..CommandOutput::default()
    };
    let host = |output| {
        Fake::new()
            .file("/usr/bin/systemd-analyze", "")
            .unit("app", |unit| unit.fragment = Some("/etc/systemd/system/app.service".into()))
            .command("systemd-analyze", output)
    };
    let start = json!({ "name": "app", "state": "started" });
    let error = failure(start.clone(), &host(complaint.clone()));
    assert_eq!(error.message, "systemd does not accept `/etc/systemd/system/app.service`");
    assert_eq!(error.details, ["app.service: Command /usr/bin/nothing is not executable"]);
    assert_eq!(proposed(json!({ "name": "app", "state": "started", "verify": false }), &host(complaint.clone())), ["start"]);
    assert_eq!(proposed(json!({ "name": "app", "enabled": false }), &host(complaint)), [""; 0], "nothing is to be started");
    let others = CommandOutput { code: Some(1), stderr: "other.service: Failed to x\n".into(), ..CommandOutput::default() };
    assert_eq!(proposed(start.clone(), &host(others)), ["start"], "other units are not this task's concern");
    let broken = Fake::new().unit("app", |unit| unit.load_state = "bad-setting".into());
    assert_eq!(failure(start, &broken).message, "systemd cannot load `app.service`: bad-setting");
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    let cases = [
        (json!({ "name": "" }), "`` is not the name of a unit", "name"),
        (json!({ "name": "a b" }), "`a b` is not the name of a unit", "name"),
        (json!({ "name": "/etc/x.service" }), "`/etc/x.service` is not the name of a unit", "name"),
        (json!({ "name": "a", "restart_on": "etc/x" }), "`restart_on` is not an absolute path: `etc/x`", "restart_on"),
        (json!({ "name": "a", "reload_on": ["/a", ""] }), "`reload_on` is empty", "reload_on"),
    ];
    for (arguments, message, argument) in cases {
        let error = module(arguments).err().unwrap();
        assert_eq!((error.message.as_str(), error.argument.as_deref()), (message, Some(argument)));
    }
    assert!(module(json!({ "name": "a", "state": "running" })).err().unwrap().message.contains("running"));
}

fn without(mut host: Fake, path: &str) -> Fake {
    use crate::api::{Inspect, Perform};
    let before = host.entry(path.as_ref()).unwrap().unwrap();
    host.perform(&Change::Remove { path: path.into(), before }, &mut crate::api::fake::Alone).unwrap();
    host
}

#[test]
fn a_look_says_what_is_missing_and_does_nothing() {
    let look = |host: &Fake, more: &Value| {
        let mut arguments = json!({ "name": "app", "state": "started", "only_look": true, "restart_on": "/etc/app" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let proposal = module(arguments).unwrap().check(host).unwrap();
        assert!(proposal.changes.is_empty());
        proposal.output["pending"].clone()
    };
    let none = json!({});
    assert_eq!(look(&running(), &none), Value::Null);
    assert_eq!(look(&running().at(300).file("/etc/app/conf", "new"), &none), "restart");
    assert_eq!(look(&running().at(300).file("/etc/other", "new"), &json!({ "reload_on": "/etc/other" })), "reload");
    assert_eq!(look(&running_as(|unit| unit.active_state = "failed".into()), &none), "start");
    assert_eq!(look(&running(), &json!({ "state": "stopped" })), "stop");
    assert_eq!(look(&Fake::new(), &none), "start", "a unit that is yet to come");
}

#[test]
fn a_unit_that_is_starting_by_itself_is_started_anew() {
    let starting = running_as(|unit| (unit.active_state, unit.sub_state) = ("activating".into(), "start".into()));
    let look = |restart_on: Value| {
        let arguments = json!({ "name": "app", "state": "started", "only_look": true, "restart_on": restart_on });
        module(arguments).unwrap().check(&starting).unwrap().output["pending"].clone()
    };
    assert_eq!(look(json!("/etc/app")), "restart");
    assert_eq!(look(Value::Null), "start", "nobody asks with which files");
}

//! What a forecast answers is what the host would answer after the changes; where it cannot be, it says so.

use proptest::prelude::*;

use super::*;
use crate::api::change::{Change, GroupSpec, IssueCertificate, Packages, Record, Run, UnitAction, UserSpec, WriteFile};
use crate::api::fake::{Alone, Fake};
use crate::api::inspect::{Command, CommandOutput, Fingerprint, owner_id};
use crate::api::perform::Perform;
use crate::api::types::{Attributes, Content, Owner};
use std::path::Path;

/// A controller that has only what is empty.
struct Nothing;

impl Support for Nothing {
    fn content(&self, blob: &Blob) -> Result<Vec<u8>, ModuleError> {
        Err(ModuleError::host(format!("no blob {}", blob.digest.hex())))
    }
}

fn attributes(mode: u32) -> Attributes {
    Attributes { mode, owner: Owner::Id(0), group: Owner::Id(0) }
}

fn write(path: &str, text: &str) -> Change {
    Change::WriteFile(WriteFile {
        path: path.into(),
        content: Content::Inline(text.into()),
        attributes: attributes(0o644),
        before: None,
        before_digest: None,
        secret: false,
    })
}

fn directory(path: &str) -> Change {
    Change::MakeDirectory { path: path.into(), attributes: attributes(0o755) }
}

fn unit(name: &str, action: UnitAction, record: Option<Record>) -> Change {
    Change::Unit { unit: name.into(), action, reason: String::new(), record, timeout: 0 }
}

fn packages(name: &str) -> Change {
    Change::Packages(Packages {
        install: vec![name.into()],
        remove: Vec::new(),
        purge: false,
        update: false,
        start_services: false,
        before: BTreeMap::new(),
        timeout: 60,
    })
}

fn run(line: &str, creates: Option<&str>, removes: Option<&str>) -> Change {
    Change::Run(Run {
        command: Command::new(line.split_whitespace()),
        ok_codes: vec![0],
        creates: creates.map(PathBuf::from),
        removes: removes.map(PathBuf::from),
        record: None,
        secret: false,
    })
}

fn fold(forecast: &mut Forecast<'_>, change: &Change) {
    forecast.fold(change, &Sureness::default(), "earlier").unwrap();
}

/// Asks and returns the answer with its certainty.
fn ask<T>(forecast: &Forecast<'_>, question: impl Fn(&Forecast<'_>) -> T) -> (T, Certainty) {
    forecast.begin(Vec::new());
    let answer = question(forecast);
    (answer, forecast.sureness().certainty)
}

fn exists(forecast: &Forecast<'_>, path: &str) -> (bool, Certainty) {
    ask(forecast, |forecast| forecast.entry(Path::new(path)).unwrap().is_some())
}

#[test]
fn after_a_bare_command_nothing_is_sure() {
    let host = Fake::new().file("/etc/x", "x").unit("a", |_| {});
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    fold(&mut forecast, &run("make install", None, None));
    assert_eq!(exists(&forecast, "/etc/x"), (true, Certainty::Unknown));
    assert_eq!(forecast.sureness().because, "command `make install` would have run");
    assert_eq!(ask(&forecast, |forecast| forecast.find_unit("a").unwrap().load_state).1, Certainty::Unknown);
    assert_eq!(ask(&forecast, |forecast| forecast.packages(&["x".into()]).unwrap()).1, Certainty::Unknown);
    let refused = forecast.run(&Command::new(["true"])).unwrap_err();
    assert_eq!(refused.message, "task `earlier` would have changed the host");
    assert!(forecast.live("port 80").is_err());
}

#[test]
fn a_guarded_command_is_assumed_to_make_its_path_and_to_touch_nothing_else() {
    let host = Fake::new().file("/etc/x", "x").directory("/opt");
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    fold(&mut forecast, &run("make", Some("/opt/tool/bin/tool"), None));
    assert_eq!(exists(&forecast, "/etc/x"), (true, Certainty::Exact));
    assert_eq!(ask(&forecast, |forecast| forecast.exists(Path::new("/opt/tool/bin/tool")).unwrap()), (true, Certainty::Assumed));
    // What it is, and what lies beside it, nobody knows.
    assert_eq!(exists(&forecast, "/opt/tool/bin/tool").1, Certainty::Unknown);
    assert_eq!(exists(&forecast, "/opt/tool/conf"), (false, Certainty::Unknown));
    assert_eq!(exists(&forecast, "/opt/tool/bin"), (true, Certainty::Assumed));
    assert_eq!(exists(&forecast, "/opt/other"), (false, Certainty::Exact));

    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    fold(&mut forecast, &run("rm", None, Some("/etc/x")));
    assert_eq!(exists(&forecast, "/etc/x"), (false, Certainty::Assumed));
}

#[test]
fn packages_leave_what_is_there_and_may_bring_what_is_not() {
    let host = Fake::new().file("/etc/hosts", "").directory("/home/bob").directory("/opt");
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    fold(&mut forecast, &write("/etc/nginx.conf", "ours"));
    fold(&mut forecast, &packages("nginx"));
    assert_eq!(exists(&forecast, "/etc/hosts"), (true, Certainty::Assumed));
    assert_eq!(exists(&forecast, "/etc/nginx.conf"), (true, Certainty::Assumed));
    assert_eq!(exists(&forecast, "/etc/nginx/mime.types"), (false, Certainty::Unknown));
    assert_eq!(forecast.sureness().because, "package `nginx` would have been installed");
    assert_eq!(exists(&forecast, "/home/bob/x"), (false, Certainty::Exact));
    assert_eq!(exists(&forecast, "/opt/x"), (false, Certainty::Assumed));
    let (unit, certainty) = ask(&forecast, |forecast| forecast.find_unit("nginx").unwrap());
    assert_eq!((unit.load_state.as_str(), unit.active_state.as_str(), unit.unit_file_state.as_str()), ("loaded", "inactive", "enabled"));
    assert_eq!(certainty, Certainty::Assumed);
    let assumed = Sureness { certainty: Certainty::Assumed, because: "why".into() };
    forecast.fold(&self::unit("nginx", UnitAction::Start, None), &assumed, "t").unwrap();
    assert_eq!(ask(&forecast, |forecast| forecast.find_unit("nginx").unwrap().is_up()), (true, Certainty::Assumed));
    assert_eq!(ask(&forecast, |forecast| owner_id(forecast, "www-data").unwrap()), (Owner::Named("www-data".into()), Certainty::Assumed));
    assert_eq!(ask(&forecast, |forecast| forecast.packages(&["nginx".into()]).unwrap().len()), (1, Certainty::Assumed));
    // What is written after the package is there, whatever the package brings.
    fold(&mut forecast, &write("/etc/nginx/own.conf", "ours"));
    assert_eq!(exists(&forecast, "/etc/nginx/own.conf"), (true, Certainty::Exact));
}

#[test]
fn a_module_that_manages_a_file_in_a_folder_to_come_can_say_what_it_wants() {
    let host = Fake::new();
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    fold(&mut forecast, &packages("nginx"));
    forecast.begin(vec!["/etc/nginx/conf.d/own.conf".into()]);
    assert!(forecast.target(Path::new("/etc/nginx/conf.d")).unwrap().is_some());
    assert!(forecast.entry(Path::new("/etc/nginx/conf.d/own.conf")).unwrap().is_none());
    assert_eq!(forecast.sureness().certainty, Certainty::Unknown);
}

#[test]
fn what_an_unsure_task_leaves_is_unsure() {
    let host = Fake::new();
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    let unsure = |certainty| Sureness { certainty, because: "why".into() };
    forecast.fold(&write("/etc/a", "a"), &unsure(Certainty::Assumed), "t").unwrap();
    forecast.fold(&write("/etc/b", "b"), &unsure(Certainty::Unknown), "t").unwrap();
    assert_eq!(exists(&forecast, "/etc/a"), (true, Certainty::Assumed));
    assert_eq!(exists(&forecast, "/etc/b"), (true, Certainty::Unknown));
    assert_eq!(exists(&forecast, "/etc/c"), (false, Certainty::Exact));
}

#[test]
fn a_unit_written_enabled_and_started() {
    let host = Fake::new().file("/etc/app.conf", "1").directory("/etc/systemd/system");
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    assert_eq!(forecast.find_unit("app").unwrap().load_state, "not-found");
    fold(
        &mut forecast,
        &write("/etc/systemd/system/app.service", "[Service]\nExecStart=/usr/bin/app -x\n[Install]\nWantedBy=multi-user.target\n"),
    );
    let seen = forecast.find_unit("app").unwrap();
    assert_eq!((seen.load_state.as_str(), seen.unit_file_state.as_str(), seen.need_daemon_reload), ("loaded", "disabled", false));
    fold(&mut forecast, &unit("app", UnitAction::Enable, None));
    let record = Record { key: "unit/app.service".into(), paths: vec!["/etc/app.conf".into(), "/etc/none".into()] };
    fold(&mut forecast, &unit("app", UnitAction::Start, Some(record)));
    let started = forecast.find_unit("app").unwrap();
    assert!(started.is_up() && started.unit_file_state == "enabled");
    let recorded: Recorded = serde_json::from_slice(&forecast.record("unit/app.service").unwrap().unwrap()).unwrap();
    assert_eq!(recorded.invocation, started.invocation);
    assert_eq!(recorded.digests[Path::new("/etc/none")], None);
    // A file written afterwards is newer than the process, and a changed unit file has to be read again.
    fold(&mut forecast, &write("/etc/app.conf", "2"));
    assert!(forecast.entry(Path::new("/etc/app.conf")).unwrap().unwrap().ctime > started.started);
    fold(&mut forecast, &write("/etc/systemd/system/app.service", "[Service]\nExecStart=/usr/bin/app -y\n"));
    assert!(forecast.find_unit("app").unwrap().need_daemon_reload);
    fold(&mut forecast, &Change::ReloadDaemon { reason: String::new() });
    let read = forecast.find_unit("app").unwrap();
    assert_eq!((read.need_daemon_reload, read.exec_start.as_str(), read.is_up()), (false, "/usr/bin/app -y", true));
}

#[test]
fn an_instance_has_its_templates_file() {
    let host = Fake::new().directory("/etc/systemd/system");
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    fold(&mut forecast, &write("/etc/systemd/system/app@.service", "[Service]\nExecStart=/app %i\n[Install]\nWantedBy=a.target\n"));
    assert_eq!(forecast.find_unit("app@one").unwrap().load_state, "loaded");
    fold(&mut forecast, &unit("app@one", UnitAction::Start, None));
    assert!(!forecast.find_unit("app@one").unwrap().need_daemon_reload);
    fold(&mut forecast, &write("/etc/systemd/system/app@.service", "[Service]\nExecStart=/app -v %i\n"));
    assert!(forecast.find_unit("app@one").unwrap().need_daemon_reload);
    fold(&mut forecast, &Change::ReloadDaemon { reason: String::new() });
    assert!(!forecast.find_unit("app@one").unwrap().need_daemon_reload);
}

#[test]
fn a_certificate_to_be_issued_is_new_until_it_is_on_record() {
    let host = Fake::new().unit("app", |_| {});
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    let issue = IssueCertificate {
        certificate: "/etc/a.pem".into(),
        key: "/etc/a.key".into(),
        key_type: "ecdsa:p256".into(),
        new_key: true,
        common_name: "a".into(),
        reason: "new".into(),
        certificate_attributes: attributes(0o644),
        key_attributes: attributes(0o600),
        certificate_before: None,
        key_before: None,
    };
    fold(&mut forecast, &Change::IssueCertificate(issue));
    let print = |forecast: &Forecast<'_>| forecast.fingerprint(Path::new("/etc/a.pem")).unwrap();
    assert_eq!(print(&forecast), Some(Fingerprint::New));
    assert_eq!(exists(&forecast, "/etc/a.key"), (true, Certainty::Exact));
    assert!(forecast.read(Path::new("/etc/a.pem"), 1000).is_err());
    let record = Record { key: "unit/app.service".into(), paths: vec!["/etc/a.pem".into()] };
    fold(&mut forecast, &unit("app", UnitAction::Start, Some(record)));
    let recorded: Recorded = serde_json::from_slice(&forecast.record("unit/app.service").unwrap().unwrap()).unwrap();
    assert_eq!(print(&forecast), recorded.digests[Path::new("/etc/a.pem")].map(Fingerprint::Known));
}

#[test]
fn a_validation_on_a_host_that_is_behind_is_an_assumption() {
    let yes = CommandOutput { code: Some(0), ..CommandOutput::default() };
    let host = Fake::new().command("good", yes);
    let content = Content::Inline(b"x".to_vec());
    let validate = |forecast: &Forecast<'_>, command: &str| ask(forecast, |forecast| forecast.validate(command, Path::new("/x"), &content));
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    assert_eq!(validate(&forecast, "good %s").1, Certainty::Exact);
    assert!(!validate(&forecast, "bad %s").0.unwrap().success());
    fold(&mut forecast, &write("/etc/included", ""));
    assert_eq!(validate(&forecast, "good %s").1, Certainty::Assumed);
    assert_eq!(validate(&forecast, "bad %s").1, Certainty::Unknown);
    // An apply looks again once the host has caught up.
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Apply);
    fold(&mut forecast, &write("/etc/included", ""));
    assert!(validate(&forecast, "good %s").0.is_err());
}

#[test]
fn owners_that_a_task_creates_have_names_before_they_have_numbers() {
    let host = Fake::new();
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    let spec = UserSpec { groups: Some(vec!["root".into()]), create_home: true, home: Some("/home/app".into()), ..UserSpec::default() };
    fold(&mut forecast, &Change::User { name: "app".into(), before: None, after: Some(spec), remove_home: false });
    assert_eq!(owner_id(&forecast, "app"), Ok(Owner::Named("app".into())));
    assert_eq!(forecast.group("root").unwrap().unwrap().members, ["app"]);
    assert!(exists(&forecast, "/home/app").0);
    assert_eq!(exists(&forecast, "/home/app/.ssh"), (false, Certainty::Exact));
}

#[test]
fn users_stay_in_a_primary_group_that_gets_another_number() {
    let host = Fake::new().user("eve", 1000);
    let mut forecast = Forecast::new(&host, &Nothing, Purpose::Check);
    let spec = GroupSpec { gid: Some(1500), system: false };
    fold(&mut forecast, &Change::Group { name: "eve".into(), before: Some(1000), after: Some(spec) });
    assert_eq!(forecast.user("eve").unwrap().unwrap().group, Owner::Id(1500));
    let spec = UserSpec { group: Some("eve".into()), ..UserSpec::default() };
    fold(&mut forecast, &Change::User { name: "new".into(), before: None, after: Some(spec), remove_home: false });
    assert_eq!(forecast.primary_members(&Owner::Id(1500)).unwrap(), ["eve", "new"]);
}

/// Changes over a few paths, users and units that meet each other in every way.
fn changes() -> impl Strategy<Value = Change> {
    let path = prop::sample::select(vec!["/d", "/d/a", "/d/b", "/d/b/c", "/e", "/e/l", "/e/l/a", "/etc/f"]);
    let file = prop_oneof![3 => path.clone(), 1 => Just("/etc/systemd/system/u.service")];
    let target = prop::sample::select(vec!["/d", "d", "../d/b", "/nowhere", "/e"]);
    let text = prop::sample::select(vec!["", "one", "[Service]\nExecStart=/u\n"]);
    let mode = prop::sample::select(vec![0o600, 0o644, 0o755]);
    let entry = |kind| crate::api::Entry { kind, attributes: attributes(0), size: 0, mtime: 0, ctime: 0 };
    let action =
        prop::sample::select(vec![UnitAction::Start, UnitAction::Stop, UnitAction::Enable, UnitAction::Disable, UnitAction::Restart]);
    prop_oneof![
        4 => (file.clone(), text).prop_map(|(path, text)| write(path, text)),
        4 => path.clone().prop_map(directory),
        3 => (path.clone(), target).prop_map(|(path, target)| Change::Symlink { path: path.into(), target: target.into(), before: None }),
        3 => file.prop_map(move |path| Change::Remove { path: path.into(), before: entry(EntryKind::File) }),
        2 => (path.clone(), mode).prop_map(|(path, mode)| Change::SetAttributes { path: path.into(), before: attributes(0), after: attributes(mode) }),
        1 => path.prop_map(|path| Change::Touch { path: path.into() }),
        2 => action.prop_map(|action| unit("u", action, None)),
        1 => (1u32..4).prop_map(|id| Change::Group { name: "g".into(), before: None, after: Some(GroupSpec { gid: Some(id), system: false }) }),
        1 => (1u32..4).prop_map(|id| {
            let spec = UserSpec { uid: Some(id), group: Some("g".into()), groups: Some(vec!["root".into()]), ..UserSpec::default() };
            Change::User { name: "w".into(), before: None, after: Some(spec), remove_home: false }
        }),
        1 => Just(Change::User { name: "w".into(), before: None, after: None, remove_home: false }),
        1 => Just(Change::Group { name: "g".into(), before: None, after: None }),
        1 => Just(Change::ReloadDaemon { reason: String::new() }),
    ]
}

/// Everything a module could ask about the paths, users and units of [`changes`], times left out.
fn answers(host: &dyn Inspect) -> Vec<String> {
    let mut answers = Vec::new();
    let paths =
        ["/", "/d", "/d/a", "/d/b", "/d/b/c", "/d/b/c/x", "/e", "/e/l", "/e/l/a", "/etc/f", "/e/l/../a", "/etc/systemd/system/u.service"];
    for path in paths.map(Path::new) {
        let bare = |entry: Option<crate::api::Entry>| entry.map(|entry| (entry.kind, entry.attributes, entry.size));
        answers.push(format!(
            "{path:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            host.entry(path).map(bare),
            host.target(path).map(bare),
            host.read(path, 100),
            host.fingerprint(path),
            host.list(path),
            host.exists(path),
        ));
    }
    let unit =
        host.unit("u").map(|unit| (unit.load_state, unit.active_state, unit.unit_file_state, unit.need_daemon_reload, unit.exec_start));
    answers.push(format!("{unit:?} {:?} {:?} {:?}", host.user("w"), host.group("g"), host.group("root")));
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_forecast_answers_as_the_host_does_afterwards(tried in prop::collection::vec(changes(), 1..14)) {
        let base = Fake::new().directory("/d/b").file("/d/a", "base").file("/d/b/c", "deep").link("/e", "/d").directory("/etc/systemd/system");
        let mut host = base.clone();
        let mut forecast = Forecast::new(&base, &Nothing, Purpose::Check);
        for change in &tried {
            let mut ahead = host.clone();
            if ahead.perform(change, &mut Alone).is_err() {
                continue;
            }
            host = ahead;
            forecast.fold(change, &Sureness::default(), "t").unwrap();
            forecast.begin(Vec::new());
            for (foreseen, actual) in answers(&forecast).iter().zip(answers(&host)) {
                prop_assert_eq!(foreseen, &actual, "after {:?}", change);
            }
            prop_assert_eq!(forecast.sureness().certainty, Certainty::Exact);
        }
    }
}

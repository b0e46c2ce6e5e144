//! What systemd says, and units below a root.

use super::super::tests::{Bench, write};
use super::*;
use crate::api::change::Change;
use crate::api::perform::Perform;

#[test]
fn what_systemd_says_is_read_as_it_is_meant() {
    let unit = parse(
        "Id=nginx.service\nType=forking\nActiveState=inactive\nNeedDaemonReload=yes\nMainPID=0\n\
         EnvironmentFiles=/etc/default/a b (ignore_errors=yes)\nEnvironmentFiles=/etc/c (ignore_errors=no)\n\
         DropInPaths=/etc/systemd/system/nginx.service.d/a.conf /run/b.conf\n\
         ExecStart={ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -g daemon on; ; ignore_errors=no ; start_time=[n/a] }",
    );
    assert_eq!(unit.environment_files, [PathBuf::from("/etc/default/a b"), "/etc/c".into()]);
    assert_eq!(unit.drop_ins.len(), 2);
    assert_eq!(unit.exec_start, "/usr/sbin/nginx -g daemon on;");
    assert!(unit.need_daemon_reload);
    assert_eq!(unit.started, 0);
}

#[test]
fn a_running_unit_has_a_start_and_a_program() {
    let unit = parse(&format!("Type=simple\nActiveState=active\nMainPID={}", std::process::id()));
    assert_eq!(unit.executable, std::env::current_exe().ok());
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    assert!((0..3_600_000_000_000).contains(&(now - unit.started)), "{}", now - unit.started);
    let oneshot = parse("Type=oneshot\nActiveState=active\nMainPID=0\nActiveEnterTimestampMonotonic=1000000");
    assert!(oneshot.started > 0 && oneshot.started < now);
}

#[test]
fn unit_names_get_their_suffix() {
    assert_eq!(full_name("kube-apiserver").unwrap(), "kube-apiserver.service");
    assert_eq!(full_name("foo.bar").unwrap(), "foo.bar.service");
    assert_eq!(full_name("logrotate.timer").unwrap(), "logrotate.timer");
    assert_eq!(full_name("dev-a\\x2db.device").unwrap(), "dev-a\\x2db.device");
    for name in ["--force", "a b", "", "a/b"] {
        assert!(full_name(name).is_err(), "{name}");
    }
}

#[test]
fn what_systemctl_was_told_is_not_said_twice() {
    assert_eq!(reason("Failed to mask unit: File /etc/a already exists.\n", ""), "File /etc/a already exists");
    let job = "Job for a.service failed because the control process exited with error code.\nSee \"systemctl status a.service\"";
    assert_eq!(reason(job, ""), "Job for a.service failed because the control process exited with error code");
    assert_eq!(reason("\n", "timed out"), "timed out");
}

#[test]
fn a_host_without_systemd_says_so() {
    if Path::new("/run/systemd/system").is_dir() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(None, folder.path().to_owned(), "run-1");
    assert!(machine.find_unit("nginx").unwrap_err().message.contains("not booted with systemd"));
}

fn act(bench: &mut Bench, action: UnitAction) -> Result<(), ModuleError> {
    let record = Record { key: "unit/a.service".into(), paths: vec!["/etc/a.conf".into(), "/etc/missing".into()] };
    let change = Change::Unit { unit: "a".into(), action, reason: String::new(), record: Some(record), timeout: 0 };
    bench.perform(&change).map(drop)
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write(
        "/etc/systemd/system/a.service",
        "[Service]\nExecStart=/bin/true\nEnvironmentFile=-/etc/default/a\n[Install]\nWantedBy=multi-user.target\n",
    );
    bench.write("/etc/systemd/system/a.service.d/x.conf", "[Service]\nType=notify\n").write("/etc/a.conf", "1");
    bench
}

#[test]
fn running_below_a_root_is_assumed_and_recorded() {
    let mut bench = bench();
    let unit = bench.machine.find_unit("a").unwrap();
    assert_eq!((unit.load_state.as_str(), unit.active_state.as_str(), unit.kind.as_str()), ("loaded", "inactive", "notify"));
    assert_eq!((unit.drop_ins.len(), unit.environment_files), (1, vec![PathBuf::from("/etc/default/a")]));
    assert_eq!(bench.machine.find_unit("b").unwrap().load_state, "not-found");

    act(&mut bench, UnitAction::Start).unwrap();
    bench.again();
    let first = bench.machine.find_unit("a").unwrap();
    assert!(first.is_up() && first.started > 0 && !first.invocation.is_empty());
    let recorded: Recorded = serde_json::from_slice(&bench.machine.recorded("unit/a.service").unwrap().unwrap()).unwrap();
    assert_eq!(recorded.invocation, first.invocation);
    assert!(recorded.digests[Path::new("/etc/a.conf")].is_some() && recorded.digests[Path::new("/etc/missing")].is_none());

    act(&mut bench, UnitAction::Restart).unwrap();
    assert_ne!(bench.machine.find_unit("a").unwrap().invocation, first.invocation);
    act(&mut bench, UnitAction::Stop).unwrap();
    assert!(!bench.machine.find_unit("a").unwrap().is_up());

    let missing = Change::Unit { unit: "b".into(), action: UnitAction::Start, reason: String::new(), record: None, timeout: 0 };
    assert_eq!(bench.perform(&missing).unwrap_err().message, "cannot start `b.service`: there is no such unit");
}

#[test]
fn enabling_and_masking_below_a_root_are_real_links() {
    if super::super::commands::find_program("systemctl").is_none() {
        return;
    }
    let mut bench = bench();
    let state = |bench: &Bench| bench.machine.find_unit("a").unwrap().unit_file_state;
    assert_eq!(state(&bench), "disabled");
    let inverse = |bench: &mut Bench, action| {
        let change = Change::Unit { unit: "a".into(), action, reason: String::new(), record: None, timeout: 0 };
        bench.machine.invert(&change).unwrap()
    };
    let back = inverse(&mut bench, UnitAction::Enable);
    act(&mut bench, UnitAction::Enable).unwrap();
    assert_eq!(state(&bench), "enabled");
    assert!(std::fs::symlink_metadata(bench.real("/etc/systemd/system/multi-user.target.wants/a.service")).is_ok());
    bench.perform(&back[0]).unwrap();
    assert_eq!(state(&bench), "disabled");

    std::fs::rename(bench.real("/etc/systemd/system/a.service"), bench.real("/a.service")).unwrap();
    let text = bench.text("/a.service");
    bench.write("/usr/lib/systemd/system/a.service", &text);
    act(&mut bench, UnitAction::Mask).unwrap();
    assert_eq!(bench.machine.find_unit("a").unwrap().load_state, "masked");
    assert!(act(&mut bench, UnitAction::Start).unwrap_err().message.contains("masked"));
    act(&mut bench, UnitAction::Unmask).unwrap();
    assert_eq!(bench.machine.find_unit("a").unwrap().load_state, "loaded");
}

#[test]
fn a_unit_file_written_a_moment_ago_is_seen() {
    let mut bench = bench();
    bench.perform(&write("/etc/systemd/system/c.service", "[Service]\nExecStart=/bin/c\n", 0o644)).unwrap();
    assert_eq!(bench.machine.find_unit("c").unwrap().exec_start, "/bin/c");
}

#[test]
fn why_a_go_program_died_is_not_buried_below_its_stacks() {
    let log = "I1122 starts\npanic: leaseDuration must be greater than renewDeadline\ngoroutine 1 [running]:\n\
               k8s.io/client-go/tools/leaderelection.RunOrDie({0x51c, 0xc00})\n\t/src/leaderelection.go:217 +0xb1\n\
               created by main.main\n\t_output/main.go:46 +0xc5\ngoroutine 7 [select, 2 minutes]:\nmain.wait()\n\t/src/main.go:9\n\
               java.lang.Error: of another kind\n\tat A.main(A.java:3)\na.service: Main process exited";
    let said = super::without_traces(log.lines().map(str::to_owned).collect());
    let expected = [
        "I1122 starts",
        "panic: leaseDuration must be greater than renewDeadline",
        "java.lang.Error: of another kind",
        "\tat A.main(A.java:3)",
        "a.service: Main process exited",
    ];
    assert_eq!(said, expected);
    assert_eq!(super::without_traces(Vec::new()), [""; 0]);
}

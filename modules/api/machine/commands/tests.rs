//! Programs on this machine, run and ended.

use super::*;

fn facts() -> crate::api::inspect::Facts {
    crate::api::inspect::Facts { user: "someone".into(), home: "/home/someone".into(), ..Default::default() }
}

fn shell(script: &str) -> Command {
    Command::new(["sh", "-c", script])
}

fn done(command: &Command) -> CommandOutput {
    run(command, &facts(), true).unwrap()
}

#[test]
fn both_streams_the_code_and_the_input_arrive() {
    let mut command = shell("cat; echo err >&2; exit 3");
    command.input = Some("in\n".into());
    let output = done(&command);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(3), "in\n", "err\n"));
    assert!(!output.truncated);
}

#[test]
fn the_environment_is_small_and_the_same_everywhere() {
    let mut command = Command::new(["env"]);
    command.environment.insert("EXTRA".into(), "1".into());
    let output = done(&command);
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    lines.sort_unstable();
    let path = format!("PATH={SEARCH}");
    assert_eq!(lines, ["EXTRA=1", "HOME=/home/someone", "LANG=C.UTF-8", "LOGNAME=someone", &path, "USER=someone"]);
    assert_eq!(done(&Command::new(["pwd"])).stdout, "/\n");
}

#[test]
fn much_output_on_both_streams_keeps_its_two_ends() {
    let script =
        "echo first; i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero; head -c 50000 /dev/zero >&2; i=$((i+1)); done; echo last";
    let output = done(&shell(script));
    assert!(output.truncated && output.code == Some(0));
    assert!(output.stdout.starts_with("first\n") && output.stdout.ends_with("last\n"));
    assert!((2 * KEPT..2 * KEPT + 100).contains(&output.stdout.len()), "{}", output.stdout.len());
}

#[test]
fn large_input_that_nobody_reads_is_no_obstacle() {
    let mut command = shell("exec <&-; echo done");
    command.input = Some("x".repeat(4 << 20));
    assert_eq!(done(&command).stdout, "done\n");
    let mut command = Command::new(["cat"]);
    command.input = Some("x".repeat(900 << 10));
    assert_eq!(done(&command).stdout.len(), 900 << 10);
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let mut command = shell(&format!("sleep 300 & echo $! > {}; wait", pid.display()));
    command.timeout = 1;
    let output = done(&command);
    assert_eq!((output.code, output.signal.as_deref()), (None, Some("timeout")));
    assert_eq!(output.ending(), "timed out");
    let grandchild: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    // It has been killed; how soon the kernel gets to it, and who buries it, is another matter.
    let state = || Some(std::fs::read_to_string(format!("/proc/{grandchild}/stat")).ok()?.rsplit_once(')')?.1.trim().to_owned());
    let patience = Instant::now() + Duration::from_secs(20);
    while state().is_some_and(|state| !state.starts_with(['Z', 'X'])) {
        assert!(Instant::now() < patience, "still alive: {:?}", state());
        std::thread::sleep(TICK);
    }
}

#[test]
fn who_ignores_the_first_signal_gets_the_second() {
    let mut command = shell("trap '' TERM; while :; do sleep 0.1; done");
    command.timeout = 1;
    assert_eq!(done(&command).signal.as_deref(), Some("timeout"));
}

#[test]
fn what_is_left_in_the_background_does_not_hold_the_task() {
    let output = done(&shell("sleep 300 & echo $!"));
    assert_eq!(output.code, Some(0));
    let left = Pid::from_raw(output.stdout.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(left, Signal::KILL).unwrap();
}

#[test]
fn a_signal_has_a_name() {
    let output = done(&shell("kill -SEGV $$"));
    assert_eq!((output.code, output.ending().as_str()), (None, "killed by signal SEGV"));
    assert_eq!(signal_name(9), "KILL");
    assert_eq!(signal_name(40), "40");
}

#[test]
fn what_cannot_be_started_says_why() {
    let error = |command: &Command| run(command, &facts(), true).unwrap_err();
    let missing = error(&Command::new(["no-such-program"]));
    assert_eq!(missing.message, "cannot run `no-such-program`: no such file or directory");
    assert!(missing.hint.unwrap().contains("package"));
    assert!(error(&Command::new(["ls -l"])).hint.unwrap().contains("`shell`"));
    assert!(error(&Command::new(["/etc/passwd"])).hint.unwrap().contains("executable"));
    let mut elsewhere = Command::new(["true"]);
    elsewhere.directory = Some("/no/such/folder".into());
    assert!(error(&elsewhere).message.contains("working directory `/no/such/folder`"));
    assert!(error(&Command::new::<String>([])).message.contains("empty"));
}

#[test]
fn commands_below_a_root_start_there() {
    let bench = super::super::tests::Bench::new();
    bench.write("/srv/x", "");
    let mut command = Command::new(["sh", "-c", "ls; echo $KPLAY_ROOT"]);
    command.directory = Some("/srv".into());
    let output = bench.machine.run_command(&command).unwrap();
    assert_eq!(output.stdout, format!("x\n{}\n", bench.real("").display().to_string().trim_end_matches('/')));
}

#[test]
fn commands_below_a_root_that_is_not_there_yet_start_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(Some(folder.path().join("host")), folder.path().join("state"), "run");
    assert_eq!(machine.run_command(&Command::new(["pwd"])).unwrap().stdout, "/\n");
    let mut asked = Command::new(["pwd"]);
    asked.directory = Some("/srv".into());
    assert!(machine.run_command(&asked).unwrap_err().message.contains("/host/srv` does not exist"));
}

#[test]
fn commands_run_inside_a_root_that_has_them() {
    let bench = super::super::tests::Bench::new();
    let busybox = Path::new("/usr/bin/busybox");
    // A static busybox is a whole system; entering it takes the superuser.
    if !super::super::tests::superuser() || !busybox.exists() {
        return;
    }
    bench.write("/srv/x", "").write("/bin/none", "");
    std::fs::copy(busybox, bench.real("/bin/busybox")).unwrap();
    for name in ["sh", "ls"] {
        std::os::unix::fs::symlink("busybox", bench.real("/bin").join(name)).unwrap();
    }
    let mut command = Command::new(["ls", "/srv"]);
    assert_eq!(bench.machine.run_command(&command).unwrap().stdout, "x\n");
    command.argv = vec!["ls".into()];
    command.directory = Some("/srv".into());
    assert_eq!(bench.machine.run_command(&command).unwrap().stdout, "x\n");
}

#[test]
fn a_private_copy_is_judged_under_the_files_own_name() {
    let bench = super::super::tests::Bench::new();
    let content = crate::api::types::Content::Inline(b"good".to_vec());
    let path = Path::new("/etc/systemd/system/a.service");
    let judge = |command: &str| bench.machine.try_content(command, path, &content);
    let output = judge("sh -c 'cat \"$0\"; basename \"$0\"; stat -c %a \"$0\"; dirname \"$0\"' %s").unwrap();
    let mut lines = output.stdout.lines();
    assert_eq!((lines.next(), lines.next()), (Some("gooda.service"), Some("600")));
    let folder = lines.next().unwrap();
    assert!(!Path::new(folder).exists());
    assert!(judge("nginx -t").unwrap_err().hint.unwrap().contains("%s"));
}

/// The list of running groups is one for the program, so that this runs in a program of its own.
#[test]
fn all_running_groups_can_be_killed() {
    const CHILD: &str = "KPLAY_TEST_KILL";
    if std::env::var_os(CHILD).is_none() {
        let name = "api::machine::commands::tests::all_running_groups_can_be_killed";
        let status = std::process::Command::new(std::env::current_exe().unwrap()).args([name, "--exact"]).env(CHILD, "1").output().unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
        return;
    }
    let runner = std::thread::spawn(|| done(&shell("sleep 300; echo survived")));
    while RUNNING.lock().unwrap().is_empty() {
        std::thread::sleep(TICK);
    }
    kill_running();
    assert_eq!(runner.join().unwrap().signal.as_deref(), Some("KILL"));
    assert!(RUNNING.lock().unwrap().is_empty());
}

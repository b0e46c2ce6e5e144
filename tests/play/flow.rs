//! How a play goes through its hosts: forecast, apply, nothing; batches, barriers, once, delegation, errors that are caught.

use crate::hosts;
use crate::support::agents::real_agent_folder;
use crate::support::kplay::Kplay;

const MOTD: &str = r#"
    play { name = "motd", hosts = "all", run = function(host)
      host:copy({ dest = "/motd", content = host.name .. "\n" })
    end }
"#;

#[test]
fn a_forecast_is_what_an_apply_does_and_then_nothing_is_left() {
    let forecast = hosts(&["a"]).playbook(MOTD).args(["--check", "--diff"]).stdout(
        "
        PLAY motd (1 host, forecast)
        ~ a  copy /motd
            create /motd (2 B, mode 0644)
              --- /dev/null
              +++ after /motd
              @@ -0,0 +1 @@
              +a
        RECAP
          a  ok=0  changed=1  failed=0  skipped=0  unknown=0
        1 task would change 1 host, in TIME
        ",
    );
    let forecast = forecast.run();
    assert!(!forecast.path("a/motd").exists(), "a forecast writes nothing");
    let applied = forecast.then().args(["play.lua"]).any_stdout().run();
    assert_eq!(applied.text("a/motd"), "a\n");
    let again = applied.then().args(["play.lua"]).stdout_has("ok=1  changed=0").run();
    let forecast = again.then().args(["play.lua", "--check", "--exit-code"]).stdout_has("changed=0").run();
    std::fs::write(forecast.path("a/motd"), "drifted").unwrap();
    forecast.then().args(["play.lua", "--check", "--exit-code"]).stdout_has("changed=1").status(4).run();
}

#[test]
fn commands_have_the_umask_of_whoever_logs_in() {
    let own = std::process::Command::new("sh").args(["-c", "umask"]).output().unwrap();
    let own = format!("umask {}", String::from_utf8_lossy(&own.stdout).trim());
    let kplay = Kplay::new().env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy());
    let sent = kplay.folder().join("sent");
    let inventory = format!("all:\n  hosts:\n    a: {{ connection: local, agent_folder: \"{}\" }}\n", sent.display());
    let play = r#"
        play { name = "umask", hosts = "all", run = function(host)
          print("umask " .. host:shell({ command = "umask", reads_only = true }).stdout)
        end }
    "#;
    kplay.inventory(&inventory).playbook(play).stdout_has(&own).run();
}

#[test]
fn a_run_is_taken_back() {
    let applied = hosts(&["a"]).playbook(MOTD).args(["--events", "events.jsonl"]).any_stdout().run();
    let events = applied.text("events.jsonl");
    let run = events.split("\"run\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let undone = applied.then().args(["undo", &run]).stdout_has("changed=1").run();
    assert!(!undone.path("a/motd").exists());
    // What has been removed is restored; of an empty file there is nothing to show.
    let absent = r#"play { hosts = "all", run = function(host) host:file({ path = "/empty", state = "absent" }) end }"#;
    std::fs::write(undone.path("a/empty"), "").unwrap();
    let agents = real_agent_folder();
    let kplay = undone.then().file("play.lua", absent).args(["play.lua", "--events", "events.jsonl"]);
    let removed = kplay.env("KPLAY_AGENT_DIR", &agents.to_string_lossy()).any_stdout().run();
    let events = removed.text("events.jsonl");
    let run = events.split("\"run\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let undo = removed.then().args(["undo", &run, "--diff"]).env("KPLAY_AGENT_DIR", &agents.to_string_lossy());
    let undone = undo.stdout_has("    restore /empty (0 B, mode 0644)\n      the file is empty\n").run();
    undone.then().args(["runs"]).stdout_has("undone").run();
}

#[test]
fn batches_follow_one_another() {
    let play = r#"
        play { name = "rolling", hosts = "all", serial = { 1, "50%" }, run = function(host)
          host:file({ path = "/done", state = "touch" })
        end }
    "#;
    let ran = hosts(&["a", "b", "c", "d"]).playbook(play).any_stdout().run();
    let order: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("~ ")).map(|line| &line[2..3]).collect();
    assert_eq!(order.first(), Some(&"a"), "{}", ran.stdout);
    assert_eq!(order.last(), Some(&"d"), "{}", ran.stdout);
    assert_eq!(order.len(), 4);
}

#[test]
fn a_barrier_opens_when_all_have_come() {
    let play = r#"
        play { name = "meet", hosts = "all", run = function(host)
          host:copy({ dest = "/one", content = "1" })
          barrier("half way")
          host:copy({ dest = "/two", content = "2" })
        end }
    "#;
    let ran = hosts(&["a", "b"]).playbook(play).any_stdout().run();
    let tasks: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("~ ")).filter_map(|line| line.split('/').nth(1)).collect();
    assert_eq!(tasks, ["one", "one", "two", "two"], "{}", ran.stdout);
}

#[test]
fn different_barriers_are_an_error_that_names_the_hosts() {
    let play = r#"
        play { name = "meet", hosts = "all", run = function(host)
          barrier("at " .. host.name)
        end }
    "#;
    let ran = hosts(&["a", "b"]).playbook(play).any_stdout().stderr("").status(2).run();
    assert!(ran.stdout.contains("a waits at `at a`") && ran.stdout.contains("b waits at `at b`"), "{}", ran.stdout);
}

#[test]
fn once_runs_once_in_a_play_whatever_the_batches() {
    let play = r#"
        play { name = "once", hosts = "all", serial = 1, run = function(host)
          local by = once("first", function()
            host:copy({ dest = "/first", content = "x" })
            return host.name
          end)
          host:copy({ dest = "/by", content = by })
        end }
    "#;
    let ran = hosts(&["a", "b"]).playbook(play).any_stdout().run();
    assert!(ran.path("a/first").exists() && !ran.path("b/first").exists());
    assert_eq!(ran.text("b/by"), "a");
}

#[test]
fn a_task_on_another_host_fails_its_caller_and_counts_where_it_ran() {
    let play = r#"
        play { name = "delegate", hosts = "a", run = function(host)
          hosts("b")[1]:command({ command = "false" })
          host:copy({ dest = "/after", content = "x" })
        end }
    "#;
    let ran = hosts(&["a", "b"]).playbook(play).any_stdout().status(2).run();
    assert!(!ran.path("a/after").exists(), "{}", ran.stdout);
    assert!(ran.stdout.contains("b  ok=0  changed=0  failed=1"), "{}", ran.stdout);
}

#[test]
fn a_caught_failure_is_no_failure_of_the_host() {
    let play = r#"
        play { name = "catch", hosts = "all", run = function(host)
          local fine = pcall(function() host:command({ command = "false" }) end)
          host:copy({ dest = "/fine", content = tostring(fine) })
        end }
    "#;
    let ran = hosts(&["a"]).playbook(play).any_stdout().status(2).run();
    assert_eq!(ran.text("a/fine"), "false");
}

#[test]
fn reading_what_cannot_be_known_ends_the_forecast_of_that_host_alone() {
    let play = r#"
        play { name = "unknown", hosts = "all", run = function(host)
          if host.name == "a" then
            local made = host:command({ command = "true" })
            host:copy({ dest = "/made", content = made.stdout })
          end
          host:copy({ dest = "/all", content = "x" })
        end }
    "#;
    let ran = hosts(&["a", "b"]).playbook(play).args(["--check"]).any_stdout().status(5).run();
    assert!(ran.stdout.contains("~ b  copy /all"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("~ a  copy /all"), "{}", ran.stdout);
}

#[test]
fn a_playbook_knows_whether_it_is_a_forecast() {
    let play = r#"
        play { name = "mode", hosts = "all", run = function(host)
          host:copy({ dest = "/mode", content = check_mode and "forecast" or "apply" })
          host:command({ command = "false" }, { when = not check_mode, ignore_errors = true })
        end }
    "#;
    let forecast = hosts(&["a"]).playbook(play).args(["--check", "--diff"]).stdout_has("+forecast").run();
    assert!(forecast.stdout.contains("skipped=1"), "{}", forecast.stdout);
    assert_eq!(forecast.then().args(["play.lua"]).any_stdout().run().text("a/mode"), "apply");
}

#[test]
fn a_failure_from_before_a_pcall_passes_by_it() {
    let play = r#"
        play { name = "one", hosts = "all", run = function(host)
          host:command({ command = "false" })
          pcall(function() host:debug("inside") end)
          host:copy({ dest = "/after", content = "x" })
        end }
    "#;
    let ran = hosts(&["a"]).playbook(play).any_stdout().status(2).run();
    assert!(!ran.path("a/after").exists(), "{}", ran.stdout);
}

#[test]
fn what_a_task_warns_of_is_told_with_its_host() {
    let play = r#"
        play { name = "kernel", hosts = "all", run = function(host)
          host:sysctl({ name = "vm.swappiness", value = 1, live = false })
        end }
    "#;
    let kplay = hosts(&["a", "b"]).file("b/etc/sysctl.d/99-zone.conf", "vm.swappiness = 60\n").playbook(play);
    let ran = kplay.args(["--events", "events.jsonl"]).any_stdout().run();
    let warning =
        "sysctl vm.swappiness: at boot, `/etc/sysctl.d/99-zone.conf` sets `vm.swappiness` to 60 again, after `/etc/sysctl.d/99-kplay.conf`";
    assert_eq!(ran.stdout.matches("at boot, ").count(), 1, "{}", ran.stdout);
    assert!(ran.stdout.contains(warning), "{}", ran.stdout);
    let event = ran.text("events.jsonl").lines().find(|line| line.contains("at boot, ")).map(str::to_owned).unwrap();
    assert!(event.contains(r#""host":"b""#) && event.contains(r#""level":"warning""#), "{event}");
}

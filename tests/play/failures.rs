//! Hosts that fail or cannot be reached: the others go on, the play ends when its policy says so, the exit code tells.

use std::process::Command;

use crate::hosts;
use crate::support::agents::real_agent_folder;
use crate::support::kplay::{KPLAY, Kplay, Ran};

const FAILS_ON_A: &str = r#"
    play { name = "fails", hosts = "all", POLICY run = function(host)
      if host.name == "a" then host:command({ command = "false" }) end
      host:copy({ dest = "/after", content = "x" })
    end }
"#;

#[test]
fn the_others_go_on_and_failed_hosts_can_be_run_again() {
    let ran = hosts(&["a", "b"]).playbook(&FAILS_ON_A.replace("POLICY", "")).env("KPLAY_STATE", "state").any_stdout().status(2).run();
    assert!(ran.path("b/after").exists() && !ran.path("a/after").exists(), "{}", ran.stdout);
    assert!(ran.stdout.contains("exit code 1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("play.lua:"), "the error says where: {}", ran.stdout);
    let again = ran.then().args(["play.lua", "--limit", "@failed", "--check"]).env("KPLAY_STATE", "state");
    let again = again.env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy()).any_stdout().run();
    assert!(!again.stdout.contains("\n  b  "), "{}", again.stdout);
}

#[test]
fn a_play_ends_when_its_policy_says_so() {
    for policy in ["serial = 1, max_failures = 0,", "serial = 1, any_error_stops = true,", "serial = 1,"] {
        let ran = hosts(&["a", "b"]).playbook(&FAILS_ON_A.replace("POLICY", policy)).any_stdout().status(2).run();
        assert!(!ran.path("b/after").exists(), "{policy}: {}", ran.stdout);
    }
    let ran =
        hosts(&["a", "b"]).playbook(&FAILS_ON_A.replace("POLICY", "serial = 2, max_failures = \"50%\",")).any_stdout().status(2).run();
    assert!(ran.path("b/after").exists(), "{}", ran.stdout);
}

#[test]
fn a_play_does_not_end_for_failures_of_those_before_it() {
    for policy in ["max_failures = 0,", "any_error_stops = true,"] {
        let play = FAILS_ON_A.replace("POLICY", "")
            + r#"play { name = "then", hosts = "all", POLICY run = function(host)
              if host:command({ command = "true" }).changed then host:copy({ dest = "/then", content = "x" }) end
            end }"#;
        let ran = hosts(&["a", "b"]).playbook(&play.replace("POLICY", policy)).any_stdout().status(2).run();
        assert!(ran.path("b/then").exists(), "{policy}: {}", ran.stdout);
    }
}

#[test]
fn an_unreachable_host_counts_as_failed() {
    let kplay = Kplay::new().env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy());
    let root = kplay.folder().join("b");
    std::fs::create_dir(&root).unwrap();
    // Port 1 of loopback: nobody listens there.
    let inventory =
        format!("all:\n  hosts:\n    a: {{ address: 127.0.0.1, port: 1 }}\n    b: {{ connection: local, root: \"{}\" }}\n", root.display());
    let play = r#"
        play { name = "reach", hosts = "all", run = function(host)
          host:copy({ dest = "/reached", content = "x" })
        end }
    "#;
    let ran = kplay.inventory(&inventory).playbook(play).any_stdout().status(3).run();
    assert!(ran.path("b/reached").exists(), "{}", ran.stdout);
    let stopped = ran.then().file("play.lua", &play.replace("hosts = \"all\",", "hosts = \"all\", serial = 1, max_failures = 0,"));
    std::fs::remove_file(stopped.folder().join("b/reached")).unwrap();
    let stopped = stopped.args(["play.lua"]).env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy()).any_stdout().status(3).run();
    assert!(!stopped.path("b/reached").exists(), "{}", stopped.stdout);
}

#[test]
fn a_mistake_on_one_host_stops_the_run_before_any_is_touched() {
    let play = r#"
        play { name = "typo", hosts = "all", run = function(host)
          host:copy({ dest = "/first", content = "x" })
          if host.name == "b" then host:copy({ dest = "/second", contents = "x" }) end
        end }
    "#;
    let ran = hosts(&["a", "b"])
        .playbook(play)
        .any_stdout()
        .stderr_has("unknown argument `contents`")
        .stderr_has("did you mean `content`?")
        .status(1)
        .run();
    assert!(!ran.path("a/first").exists() && !ran.path("a/var").exists());
}

#[test]
fn a_task_that_fails_half_way_leaves_nothing_of_itself() {
    let play = r#"
        play { name = "half", hosts = "all", run = function(host)
          host:copy({ dest = "/new/file", content = "x", parents = true, owner = "nobody-has-this-name" })
        end }
    "#;
    let ran = hosts(&["a"]).playbook(play).any_stdout().status(2).run();
    assert!(ran.stdout.contains("there is no user `nobody-has-this-name`"), "{}", ran.stdout);
    assert!(!ran.path("a/new").exists());
}

#[test]
fn ignored_errors_and_retries_do_as_they_say() {
    let play = r#"
        play { name = "retry", hosts = "all", run = function(host)
          host:command({ command = "false" }, { ignore_errors = true })
          host:shell({ command = "echo x >> COUNT; test $(wc -l < COUNT) -ge 3", chdir = "CHDIR" }, { retries = 5, delay = 0 })
        end }
    "#;
    let kplay = hosts(&["a"]);
    let play = play.replace("CHDIR", &kplay.folder().to_string_lossy()).replace("COUNT", "count");
    let ran = kplay.inventory("all: { hosts: { a: { connection: local } } }").playbook(&play).any_stdout().run();
    assert_eq!(ran.text("count"), "x\nx\nx\n", "{}", ran.stdout);
}

#[test]
fn an_agent_of_another_build_is_said_to_be_one() {
    let kplay = Kplay::new();
    let folder = kplay.folder().to_string_lossy().into_owned();
    kplay
        .inventory("all:\n  hosts:\n    a: { connection: local, root: /nonexistent }\n")
        .program(
            "kplay-agent",
            r#"
            #!/bin/sh
            printf '\001KPLAY:%s\n' "$2"
            printf '\022\000\000\000\000\0200123456789abcdef'
            cat >/dev/null
            "#,
        )
        .playbook(r#"play { hosts = "all", run = function(host) host:file({ path = "/x", state = "directory" }) end }"#)
        .env("KPLAY_AGENT_DIR", &folder)
        .status(2)
        .stdout_has("the agent is of another build than this kplay: it speaks protocol 0123456789abcdef, kplay ")
        .stdout_has("hint: build both from the same sources and put the new `kplay-agent-*` beside `kplay`")
        .run();
}

/// Starts a command line under a limit of open files.
#[track_caller]
fn limited(ran: &Ran, ulimit: &str) -> (Option<i32>, String) {
    let line = format!("{ulimit} && exec {KPLAY} play.lua -i inventory.yaml");
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(ran.path(""))
        .env("KPLAY_AGENT_DIR", real_agent_folder())
        .env("KPLAY_STATE", ran.path("state"))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_hosts_need_or_the_run_refused() {
    let names: Vec<String> = (1..=12).map(|number| format!("h{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let play = r#"play { hosts = "all", run = function(host) host:file({ path = "/x", state = "directory" }) end }"#;
    let ran = hosts(&names).playbook(play).args(["--list-hosts"]).any_stdout().run();
    let (code, output) = limited(&ran, "ulimit -Sn 24 && ulimit -Hn 96");
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("connections to 12 hosts are 104 open files, and this process may have only 96"), "{output}");
    assert!(output.contains("--limit"), "{output}");
    let (code, output) = limited(&ran, "ulimit -Sn 24 && ulimit -Hn 120");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.matches("changed=1").count() == 12, "{output}");
}

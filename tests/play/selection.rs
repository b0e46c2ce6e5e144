//! What options of the command line leave of a playbook: hosts, tasks, and what is listed of it.

use crate::hosts;

const TWO: &str = r#"
    play { name = "two", hosts = "all", run = function(host)
      host:file({ path = "/first", state = "touch" })
      hosts("b")[1]:file({ path = "/from-" .. host.name, state = "touch" }, { name = "on b" })
      host:file({ path = "/last", state = "touch" })
    end }
    play { name = "later", hosts = "b", run = function(host)
      host:file({ path = "/later", state = "touch" })
    end }
"#;

#[test]
fn a_limit_that_leaves_no_host_is_an_error() {
    let play = r#"play { hosts = "b", run = function(host) host:file({ path = "/x", state = "touch" }) end }"#;
    hosts(&["a", "b"])
        .playbook(play)
        .args(["--limit", "a"])
        .stderr(
            "
            error: `--limit a` leaves no host of the playbook
              = hint: `--list-hosts` without it shows the hosts of each play
            ",
        )
        .status(1)
        .run();
}

#[test]
fn a_run_may_start_at_a_task_wherever_that_and_later_ones_run() {
    let ran = hosts(&["a", "b"]).playbook(TWO).args(["--limit", "a,b", "--start-at-task", "on b"]).any_stdout().run();
    for (path, done) in
        [("a/first", false), ("b/first", false), ("b/from-a", true), ("b/from-b", true), ("a/last", true), ("b/later", true)]
    {
        assert_eq!(ran.path(path).exists(), done, "{path}: {}", ran.stdout);
    }
    for arguments in [["play.lua", "--start-at-task", "on  b", "--check"], ["play.lua", "--start-at-task", "on  b", "--list-tasks"]] {
        let kplay = hosts(&["a", "b"]).file("play.lua", TWO).args(arguments).any_stdout();
        let kplay = kplay.stderr_has("error: no task is called `on  b`, so that none was done").stderr_has("did you mean `on b`?");
        kplay.status(1).run();
    }
}

#[test]
fn a_list_of_tasks_says_where_it_ends() {
    let play = r#"
        play { name = "caught", hosts = "all", run = function(host)
          pcall(function() host:command({ command = "one" }) end)
          host:command({ command = "two" })
        end }
        play { name = "shared", hosts = "all", run = function(host)
          once("make", function() host:command({ command = "made" }) end)
          host:command({ command = "three" })
        end }
        play { name = "asked", hosts = "a", run = function(host)
          local it = hosts("b")[1]:command({ command = "look" })
          if it.stdout == "" then host:command({ command = "four" }) end
        end }
    "#;
    let ran = hosts(&["a", "b"]).playbook(play).args(["--list-tasks"]).any_stdout().run();
    for part in [
        "command one  play.lua:2\n    … what follows waits until these tasks are done, and may depend on how they end\n  b\n",
        "  b\n    … what follows waits for `once(\"make\")` of a\n",
        "command look  on b  play.lua:10\n    … what follows depends on what b answers\n",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    let whole = r#"play { name = "whole", hosts = "all", run = function(host) host:command({ command = "one" }) end }"#;
    let listed = ran.then().file("play.lua", whole).args(["play.lua", "--limit", "a", "--list-tasks"]);
    listed.stdout("whole  (1 host)\n  a\n    command one  play.lua:1\n").run();
}

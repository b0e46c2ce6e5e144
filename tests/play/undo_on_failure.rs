//! `undo_on_failure`: what a failed host's part in a play has changed is taken back, there and where it has delegated tasks;
//! nothing else is. And `order`: who comes first is decided when the play begins.

use crate::hosts;
use crate::support::agents::real_agent_folder;
use crate::support::kplay::{Kplay, Ran};

/// `a` fails after it has changed things on itself and on `b`.
const PLAYS: &str = r#"
    play { name = "before", hosts = "all", run = function(host)
      host:copy({ dest = "/kept", content = "from the play before\n" })
    end }
    play { name = "rolling", hosts = "all", serial = 1, undo_on_failure = true, EXTRA run = function(host)
      host:copy({ dest = "/file", content = "new\n" })
      host:file({ path = "/folder/below", state = "directory", parents = true })
      host:file({ path = "/link", state = "link", target = "/file" })
      if host.name == "a" then
        hosts("b")[1]:copy({ dest = "/for-a", content = "delegated\n" })
        host:command({ command = "false" })
      end
    end }
"#;

/// A command line whose hosts have a file of their own already.
fn with_a_file(play: &str) -> Kplay {
    let kplay = hosts(&["a", "b"]).playbook(play).args(["--events", "events"]).any_stdout();
    for host in ["a", "b"] {
        std::fs::write(kplay.folder().join(host).join("file"), "old\n").unwrap();
    }
    kplay
}

fn run_name(ran: &Ran) -> String {
    let first: serde_json::Value = serde_json::from_str(ran.text("events").lines().next().unwrap()).unwrap();
    first["run"].as_str().unwrap().to_owned()
}

fn undo(ran: Ran) -> Ran {
    let run = run_name(&ran);
    let then = ran.then().args(["undo", &run]).env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy());
    then.any_stdout().run()
}

#[test]
fn a_failed_host_is_as_before_the_play_and_others_go_on() {
    let ran = with_a_file(&PLAYS.replace("EXTRA", "max_failures = 1,").replace("serial = 1,", "")).status(2).run();
    assert_eq!(ran.text("a/file"), "old\n", "{}", ran.stdout);
    assert!(!ran.path("a/folder").exists() && ran.path("a/link").symlink_metadata().is_err(), "{}", ran.stdout);
    assert!(!ran.path("b/for-a").exists(), "what it had others do is taken back too: {}", ran.stdout);
    assert_eq!((ran.text("a/kept"), ran.text("b/file")), ("from the play before\n".to_owned(), "new\n".to_owned()));
    assert!(ran.stdout.contains("takes back what this play did, since it failed"), "{}", ran.stdout);
    assert!(ran.stdout.contains("is as it was before this play"), "{}", ran.stdout);
    let events = ran.text("events");
    assert!(events.contains(r#"{"event":"undone","host":"a","failed":"a","complete":true}"#), "{events}");
    assert!(events.contains(r#"{"event":"undone","host":"b","failed":"a","complete":true}"#), "{events}");

    // Of what has been taken back nothing is left for an undo of the whole run, which takes back the rest.
    let ran = undo(ran);
    assert_eq!((ran.text("a/file"), ran.text("b/file")), ("old\n".to_owned(), "old\n".to_owned()), "{}", ran.stdout);
    assert!(!ran.path("a/kept").exists() && !ran.path("b/folder").exists() && !ran.path("b/for-a").exists());
}

#[test]
fn the_play_stops_after_the_undo_when_its_policy_says_so() {
    let ran = with_a_file(&PLAYS.replace("EXTRA", "any_error_stops = true,")).status(2).run();
    assert_eq!((ran.text("a/file"), ran.text("b/file")), ("old\n".to_owned(), "old\n".to_owned()), "{}", ran.stdout);
    assert!(ran.stdout.contains("the play rolling ends"), "{}", ran.stdout);
}

#[test]
fn a_mistake_in_lua_counts_as_a_failure() {
    let play = r#"
        play { name = "one", hosts = "a", undo_on_failure = true, run = function(host)
          local file = host:copy({ dest = "/file", content = "new\n" })
          if file.changed then host:fail("not today") end
        end }
    "#;
    let ran = with_a_file(play).status(2).run();
    assert!(ran.stdout.contains("not today"), "{}", ran.stdout);
    assert_eq!(ran.text("a/file"), "old\n", "{}", ran.stdout);
}

#[test]
fn without_the_word_and_in_a_forecast_nothing_is_taken_back() {
    let ran = with_a_file(&PLAYS.replace("EXTRA", "").replace("undo_on_failure = true,", "")).status(2).run();
    assert_eq!((ran.text("a/file"), ran.text("b/for-a")), ("new\n".to_owned(), "delegated\n".to_owned()));

    let fails = PLAYS.replace("EXTRA", "").replace("host:command({ command = \"false\" })", "host:assert({ that = false })");
    let ran = with_a_file(&fails).args(["--check"]).status(2).run();
    assert!(!ran.stdout.contains("takes back"), "{}", ran.stdout);
    assert_eq!(ran.text("a/file"), "old\n");
}

#[test]
fn what_cannot_be_taken_back_is_told_and_left_to_a_later_undo() {
    // The command puts a file where the folder was; what lay in the folder cannot be brought back there.
    let play = r#"
        play { name = "one", hosts = "a", undo_on_failure = true, run = function(host)
          host:copy({ dest = "/d/file", content = "new\n" })
          host:copy({ dest = "/file", content = "new\n" })
          host:shell({ command = "mv ROOT/d ROOT/e && touch ROOT/d && false" })
        end }
    "#;
    let kplay = hosts(&["a"]);
    let root = kplay.folder().join("a");
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/file"), "old\n").unwrap();
    std::fs::write(root.join("file"), "old\n").unwrap();
    let play = play.replace("ROOT", &root.to_string_lossy());
    let ran = kplay.playbook(&play).args(["--events", "events"]).any_stdout().status(2).run();
    assert!(ran.stdout.contains("could not take everything back"), "{}", ran.stdout);
    assert_eq!(ran.text("a/file"), "old\n", "the rest is taken back: {}", ran.stdout);

    std::fs::remove_file(root.join("d")).unwrap();
    std::fs::rename(root.join("e"), root.join("d")).unwrap();
    assert_eq!(ran.text("a/d/file"), "new\n");
    let ran = undo(ran);
    assert_eq!(ran.text("a/d/file"), "old\n", "{}", ran.stdout);
}

#[test]
fn a_host_that_is_lost_keeps_what_was_done_and_others_take_back_their_part() {
    let play = r#"
        play { name = "one", hosts = "a", undo_on_failure = true, run = function(host)
          hosts("b")[1]:copy({ dest = "/for-a", content = "delegated\n" })
          host:copy({ dest = "/file", content = "new\n" })
          host:shell({ command = "kill -9 $PPID; sleep 5" })
        end }
    "#;
    let ran = with_a_file(play).status(3).run();
    assert_eq!(ran.text("a/file"), "new\n", "{}", ran.stdout);
    assert!(!ran.path("b/for-a").exists(), "{}", ran.stdout);
    assert!(ran.stdout.contains("what this play did here stands, since it cannot be reached: `kplay undo "), "{}", ran.stdout);
    let ran = undo(ran);
    assert_eq!(ran.text("a/file"), "old\n", "{}", ran.stdout);
}

#[test]
fn order_is_decided_when_the_play_begins() {
    let play = r#"
        local last
        play { name = "ask", hosts = "a", run = function(host)
          last = host:copy({ dest = "/asked", content = "x" }).changed and host.name
        end }
        play { name = "go", hosts = "all", serial = 1, run = function(host)
          host:copy({ dest = "/gone", content = "x" })
        end,
        order = function(list)
          table.sort(list, function(one, other) return one.name ~= last and other.name == last end)
          RETURN
        end }
    "#;
    let ran = hosts(&["a", "b"]).playbook(&play.replace("RETURN", "return list")).any_stdout().run();
    assert!(ran.stdout.contains("batch 1 of 2: b") && ran.stdout.contains("batch 2 of 2: a"), "{}", ran.stdout);

    for (returned, message) in [
        ("return { list[1] }", "`order` returned the hosts b, the play's are a b"),
        ("return 3", "`order` returned a number and no list of hosts"),
        ("return list[1].vars.nothing", "variable `nothing` is not defined for host `b`"),
    ] {
        let ran = hosts(&["a", "b"]).playbook(&play.replace("RETURN", returned)).any_stdout().status(2).run();
        assert!(ran.stdout.contains(message), "{}", ran.stdout);
        assert!(!ran.path("a/gone").exists() && !ran.path("b/gone").exists());
    }
}

//! The file of events, whose last line is the recap however a run ends, and which is whole or said not to be.

use crate::hosts;
use crate::support::kplay::Ran;

const TOUCH: &str = r#"play { hosts = "all", run = function(host) host:file({ path = "/x", state = "directory" }) end }"#;

#[track_caller]
fn events(ran: &Ran) -> Vec<String> {
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned();
    ran.text("events").lines().map(event).collect()
}

#[test]
fn a_refused_run_ends_with_a_recap() {
    let planned = TOUCH.replace("directory", "directoy");
    let ran = hosts(&["a"]).playbook(&planned).args(["--events", "events"]).stderr_has("cannot be \"directoy\"").status(1).run();
    assert_eq!(events(&ran), ["run", "refused", "end", "recap"]);
    assert!(ran.text("events").contains("cannot be \\\"directoy\\\""), "{}", ran.text("events"));
    let ran = ran.then().file("play.lua", "play {").args(["play.lua", "--events", "events"]).stderr_has("play.lua:1").status(1).run();
    assert_eq!(events(&ran), ["refused", "end", "recap"]);
}

#[test]
fn events_that_cannot_be_written_are_an_error() {
    let kplay = hosts(&["a"]).playbook(TOUCH).args(["--events", "/dev/full"]);
    let ran = kplay.stderr_has("error: cannot write events: no space left on device").status(1).run();
    assert!(!ran.path("a/x").exists());
}

#[test]
fn exec_writes_events_and_says_why_a_program_cannot_be_run() {
    let ran = hosts(&["a"]).args(["exec", "all", "--events", "events", "--", "echo", "hello"]).any_stdout().run();
    assert_eq!(ran.stdout, "a | exit code 0\nhello\n");
    assert_eq!(events(&ran), ["run", "play", "connected", "request", "started", "started", "task", "end", "recap"]);
    assert!(ran.text("events").contains("\"stdout\":\"hello\\n\""), "{}", ran.text("events"));
    let agents = crate::support::agents::real_agent_folder();
    let kplay = ran.then().args(["exec", "all", "--", "no-such-program"]).env("KPLAY_AGENT_DIR", &agents.to_string_lossy());
    kplay.stdout("a | no exit code\n").stderr_has("no-such-program").status(2).run();
}

//! The agent over pipes: the real program, a real host below a temporary folder.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where anything is not as it should be"
)]

mod controller;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use controller::Agent;
use kplay_modules::agent::wire::{self, Certainty, Condition, Outcome, Status, Task, ToAgent, ToController};
use kplay_modules::api::machine::Machine;
use kplay_modules::api::{Change, Digest, Journal};
use serde_json::json;

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn statuses(outcomes: &[Outcome]) -> Vec<Status> {
    outcomes.iter().map(|outcome| outcome.status).collect()
}

/// Fifty tasks that build on each other: folders, files in them, links to those, modes, guarded commands.
fn fifty(agent: &mut Agent) -> Vec<Task> {
    let mut tasks = Vec::new();
    for number in 0..10 {
        let folder = format!("/srv/{number}");
        tasks.push(agent.task("file", json!({ "path": folder, "state": "directory" })));
        tasks
            .push(agent.task("copy", json!({ "content": format!("text {number}\n"), "dest": format!("{folder}/a.conf"), "mode": "0600" })));
        tasks.push(agent.task("file", json!({ "path": format!("{folder}/link"), "state": "link", "target": "a.conf" })));
        tasks.push(agent.task("line", json!({ "path": format!("{folder}/b.conf"), "line": "more = yes", "create": true })));
        tasks.push(agent.task("stat", json!({ "path": format!("{folder}/link") })));
    }
    tasks
}

#[test]
fn fifty_tasks_in_one_request_then_nothing_to_do() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("srv")).unwrap();
    let count = |outcomes: &[Outcome], status| outcomes.iter().filter(|outcome| outcome.status == status).count();
    for (check, changed) in [(true, 40), (false, 40), (true, 0), (false, 0)] {
        let mut agent = Agent::start(root.path(), check);
        let tasks = fifty(&mut agent);
        let outcomes = agent.request(tasks);
        assert_eq!(
            (outcomes.len(), count(&outcomes, Status::Changed), count(&outcomes, Status::Ok)),
            (50, changed, 50 - changed),
            "{outcomes:#?}"
        );
        assert!(outcomes.iter().all(|outcome| outcome.certainty == Certainty::Exact));
        agent.bye();
    }
    assert_eq!(text(&root.path().join("srv/3/link")), "text 3\n");
}

#[test]
fn a_forecast_is_what_the_apply_then_does() {
    let root = tempfile::tempdir().unwrap();
    let plan = |agent: &mut Agent| {
        let folder = agent.task("file", json!({ "path": "/srv/app", "state": "directory", "parents": true }));
        let copy = agent.task("copy", json!({ "content": "listen = 80\n", "dest": "/srv/app/conf" }));
        let line = agent.task("line", json!({ "path": "/srv/app/conf", "line": "debug = no" }));
        let mut waiting = agent.task("file", json!({ "path": "/srv/app/changed", "state": "directory" }));
        waiting.when_changed = vec![folder.id];
        let mut idle = agent.task("file", json!({ "path": "/srv/app/never", "state": "directory" }));
        idle.when_changed = vec![1000];
        vec![folder, copy, line, waiting, idle]
    };
    let mut check = Agent::start(root.path(), true);
    let tasks = plan(&mut check);
    let foreseen = check.request(tasks);
    check.bye();
    assert!(!root.path().join("srv").exists() && !root.path().join("var").exists(), "a check writes nothing");

    let mut apply = Agent::start(root.path(), false);
    let tasks = plan(&mut apply);
    let done = apply.request(tasks);
    apply.bye();
    let changes = |outcomes: &[Outcome]| -> Vec<_> {
        outcomes
            .iter()
            .map(|outcome| (outcome.status, outcome.changes.iter().map(|report| kind(&report.change)).collect::<Vec<_>>()))
            .collect()
    };
    assert_eq!(changes(&foreseen), changes(&done));
    assert_eq!(done.last().unwrap().status, Status::Skipped);
    assert_eq!(text(&root.path().join("srv/app/conf")), "listen = 80\ndebug = no\n");
}

/// A change by its kind and place; times differ between a forecast and an apply.
fn kind(change: &Change) -> String {
    match change {
        Change::WriteFile(write) => format!("write {} {}", write.path.display(), write.content.digest().hex()),
        Change::MakeDirectory { path, .. } => format!("directory {}", path.display()),
        other => format!("{other:?}"),
    }
}

#[test]
fn nothing_to_do_takes_no_lock_and_writes_no_file() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("srv/x")).unwrap();
    let mut agent = Agent::start(root.path(), false);
    let tasks = (0..50).map(|_| agent.task("file", json!({ "path": "/srv/x", "state": "directory" }))).collect();
    let outcomes = agent.request(tasks);
    assert_eq!(statuses(&outcomes), [Status::Ok; 50]);
    agent.bye();
    assert!(!root.path().join("var").exists());
}

#[test]
fn a_failed_task_stops_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let tasks = vec![
        agent.task("file", json!({ "path": "/a", "state": "directory" })),
        agent.task("copy", json!({ "content": "x", "dest": "/missing/x" })),
        agent.task("file", json!({ "path": "/b", "state": "directory" })),
    ];
    let outcomes = agent.request(tasks);
    assert_eq!(statuses(&outcomes), [Status::Changed, Status::Failed]);
    assert!(root.path().join("a").is_dir() && !root.path().join("b").exists());
    agent.bye();
}

#[test]
fn an_ignored_failure_lets_the_rest_go_on() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let mut failing = agent.task("command", json!({ "command": ["false"] }));
    failing.ignore_errors = true;
    let first = agent.task("file", json!({ "path": "/a", "state": "directory" }));
    let last = agent.task("file", json!({ "path": "/b", "state": "directory" }));
    let outcomes = agent.request(vec![first, failing, last]);
    assert_eq!(statuses(&outcomes), [Status::Changed, Status::Failed, Status::Changed]);
    agent.bye();
}

#[test]
fn a_lying_controller_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let task = agent.task("copy", json!({ "content": "what was promised", "dest": "/x" }));
    agent.lie(Digest::of(b"what was promised"), b"something else...");
    let outcomes = agent.request(vec![task]);
    let failure = outcomes[0].failure.clone().unwrap();
    assert!(failure.message.contains("other content"), "{failure:?}");
    assert!(!root.path().join("x").exists());
    agent.bye();
}

#[test]
fn a_large_content_is_streamed_and_a_small_one_asked_for_once() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let source = root.path().join("source");
    std::fs::write(&source, &bytes).unwrap();
    let tasks = vec![
        agent.task("copy", json!({ "src": source, "dest": "/large" })),
        agent.task("copy", json!({ "content": "small", "dest": "/one" })),
        agent.task("copy", json!({ "content": "small", "dest": "/two" })),
    ];
    let outcomes = agent.request(tasks);
    assert_eq!(statuses(&outcomes), [Status::Changed; 3]);
    assert_eq!(std::fs::read(root.path().join("large")).unwrap(), bytes);
    assert_eq!(agent.asked(), 2, "one question for the large content, one for the small one");
    agent.bye();
}

#[test]
fn small_contents_are_asked_for_all_at_once() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let tasks =
        (0..5).map(|number| agent.task("copy", json!({ "content": format!("text {number}"), "dest": format!("/{number}") }))).collect();
    agent.send_request(tasks);
    // None is answered before all have been asked for.
    let questions: Vec<Digest> = (0..5).map(|_| agent.question()).collect();
    questions.into_iter().for_each(|digest| agent.hand_out(digest));
    assert_eq!(statuses(&agent.outcomes()), [Status::Changed; 5]);
    assert_eq!(text(&root.path().join("4")), "text 4");
    assert_eq!(agent.asked(), 0, "nothing is asked for twice");
    agent.bye();
}

#[test]
fn conditions_and_retries_are_judged_on_the_host() {
    let root = tempfile::tempdir().unwrap();
    let counter = root.path().join("count");
    let mut agent = Agent::start(root.path(), false);
    let script = format!("echo x >> {0}; wc -l < {0}", counter.display());
    let matching = |pattern: &str| Some(Condition { matches: [("stdout".to_owned(), pattern.to_owned())].into(), ..Condition::default() });
    let mut until = agent.task("shell", json!({ "command": script }));
    (until.until, until.retries, until.delay) = (matching("^3"), 5, 1);
    let mut unchanged = agent.task("command", json!({ "command": ["echo", "same"] }));
    unchanged.changed_if = matching("different");
    let mut failing = agent.task("command", json!({ "command": ["echo", "ERROR"] }));
    failing.failed_if = matching("ERROR");
    let outcomes = agent.request(vec![until, unchanged, failing]);
    let seen: Vec<_> = outcomes.iter().map(|outcome| (outcome.status, outcome.attempts)).collect();
    assert_eq!(seen, [(Status::Changed, 3), (Status::Ok, 1), (Status::Failed, 1)], "{outcomes:#?}");
    agent.bye();
}

#[test]
fn commands_that_only_look_are_judged_like_others() {
    for check in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(root.path(), check);
        let mut task = |failed_if: Option<Condition>| {
            let arguments = json!({ "command": ["sh", "-c", "echo no; exit 3"], "reads_only": true });
            Task { failed_if, ignore_errors: true, ..agent.task("command", arguments) }
        };
        let accepts = |codes: &[i32]| Some(Condition { codes: codes.to_vec(), not: true, ..Condition::default() });
        let tasks = vec![task(None), task(accepts(&[3])), task(accepts(&[0])), task(Some(Condition { not: true, ..Condition::default() }))];
        let outcomes = agent.request(tasks);
        assert_eq!(statuses(&outcomes), [Status::Failed, Status::Ok, Status::Failed, Status::Ok], "{outcomes:#?}");
        let failure = outcomes[0].failure.as_ref().unwrap();
        assert_eq!(
            (failure.message.as_str(), failure.details.as_slice()),
            ("`sh -c 'echo no; exit 3'` failed: exit code 3", ["no".to_owned()].as_slice())
        );
        agent.bye();
    }
}

#[test]
fn a_task_that_takes_too_long_is_ended() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let mut slow = agent.task("command", json!({ "command": ["sleep", "60"] }));
    slow.timeout = 1;
    let endless = Task { timeout: u64::MAX, delay: u64::MAX, ..agent.task("command", json!({ "command": "true" })) };
    let outcomes = agent.request(vec![endless, slow]);
    assert_eq!(outcomes[0].status, Status::Changed, "{outcomes:#?}");
    assert_eq!(outcomes[1].failure.as_ref().unwrap().message, "the task took longer than 1 s");
    agent.bye();
}

#[test]
fn undo_restores_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    let conf = root.path().join("conf");
    std::fs::write(&conf, "old").unwrap();
    let mut agent = Agent::start(root.path(), false);
    let tasks = vec![
        agent.task("copy", json!({ "content": "new", "dest": "/conf", "mode": "0600" })),
        agent.task("file", json!({ "path": "/folder", "state": "directory" })),
        agent.task("copy", json!({ "content": "x", "dest": "/folder/x" })),
        agent.task("file", json!({ "path": "/used", "state": "directory" })),
    ];
    agent.request(tasks);
    let run = agent.run().to_owned();
    agent.bye();
    std::fs::write(root.path().join("used/by-others"), "data").unwrap();

    let mut undo = Agent::start(root.path(), false);
    let runs = undo.runs();
    assert_eq!((runs[0].run.as_str(), runs[0].changes, runs[0].finished, runs[0].undone), (run.as_str(), 4, true, false));
    let outcomes = undo.undo(&run);
    assert!(outcomes.iter().all(|outcome| outcome.failure.is_none()), "{outcomes:#?}");
    assert_eq!(text(&conf), "old");
    assert!(!root.path().join("folder").exists());
    assert_eq!(text(&root.path().join("used/by-others")), "data", "what others put into a folder is kept");
    assert!(undo.runs().iter().any(|entry| entry.run == run && entry.undone));
    undo.bye();
}

#[test]
fn killed_in_the_middle_nothing_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let tasks = vec![
        agent.task("copy", json!({ "content": "first", "dest": "/first" })),
        agent.task("command", json!({ "command": ["sleep", "3"] })),
        agent.task("copy", json!({ "content": "second", "dest": "/second" })),
    ];
    agent.send_request(tasks.clone());
    agent.until(|message| matches!(message, ToController::Outcome(outcome) if outcome.task == tasks[0].id));
    std::thread::sleep(Duration::from_millis(300));
    let run = agent.run().to_owned();
    agent.kill();
    assert_eq!(text(&root.path().join("first")), "first");

    let mut next = Agent::start(root.path(), false);
    assert!(next.runs().iter().any(|entry| entry.run == run && !entry.finished));
    let first = next.task("copy", json!({ "content": "first", "dest": "/first" }));
    let second = next.task("copy", json!({ "content": "second", "dest": "/second" }));
    assert_eq!(statuses(&next.request(vec![first, second])), [Status::Ok, Status::Changed]);
    let undone = next.undo(&run);
    let skipped = undone.iter().find(|outcome| outcome.status == Status::Skipped).unwrap();
    assert!(skipped.because.as_deref().is_some_and(|why| why.contains("commands cannot be undone")), "{undone:#?}");
    assert!(!root.path().join("first").exists());
    next.bye();
}

#[test]
fn when_the_controller_goes_commands_end_and_the_lock_is_free() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let survived = root.path().join("survived");
    let begun = root.path().join("begun");
    let tasks = vec![
        agent.task("file", json!({ "path": "/a", "state": "directory" })),
        agent.task("shell", json!({ "command": format!("touch {}; sleep 2; touch {}", begun.display(), survived.display()) })),
    ];
    agent.send_request(tasks);
    while !begun.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let run = agent.run().to_owned();
    assert!(agent.hang_up(Duration::from_secs(2)), "it ends soon");
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!survived.exists());
    let mut next = Agent::start(root.path(), false);
    assert!(next.runs().iter().any(|entry| entry.run == run && entry.changes == 1 && !entry.finished));
    let tasks = vec![next.task("file", json!({ "path": "/b", "state": "directory" }))];
    assert_eq!(statuses(&next.request(tasks)), [Status::Changed]);
    next.bye();
}

#[test]
fn a_cancelled_request_ends_after_the_change_under_way() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    let begun = root.path().join("begun");
    let tasks = vec![
        agent.task("shell", json!({ "command": format!("touch {}; sleep 1", begun.display()) })),
        agent.task("file", json!({ "path": "/b", "state": "directory" })),
    ];
    agent.send_request(tasks);
    while !begun.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    agent.send(&ToAgent::Cancel);
    assert_eq!(statuses(&agent.outcomes()), [Status::Changed]);
    assert!(!root.path().join("b").exists());
    agent.bye();
}

#[test]
fn one_run_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let mut first = Agent::start(root.path(), false);
    let tasks = vec![first.task("file", json!({ "path": "/a", "state": "directory" }))];
    first.request(tasks);
    let mut second = Agent::start(root.path(), false);
    let nothing = vec![second.task("file", json!({ "path": "/a", "state": "directory" }))];
    assert_eq!(statuses(&second.request(nothing)), [Status::Ok], "looking needs no lock");
    let tasks = vec![second.task("file", json!({ "path": "/b", "state": "directory" }))];
    second.send_request(tasks);
    let ToController::Fatal(error) = second.until(|message| matches!(message, ToController::Fatal(_))) else { panic!("no fatal") };
    assert!(error.message.contains("another run is changing this host"), "{error:?}");
    assert!(!root.path().join("b").exists());
    first.bye();
}

#[test]
fn a_large_content_travels_once_and_lies_where_it_arrived() {
    let root = tempfile::tempdir().unwrap();
    let state = Machine::state_folder(Some(root.path()));
    let mut agent = Agent::start(root.path(), false);
    let source = root.path().join("source");
    std::fs::write(&source, "sixteen letters.".repeat(500_000)).unwrap();
    let mut copy = |dest: &str, mode: &str| agent.task("copy", json!({ "src": source, "dest": dest, "mode": mode }));
    let tasks = vec![copy("/one", "0640"), copy("/two", "0755")];
    let change = agent.task("line", json!({ "path": "/one", "line": "changed" }));
    let last = agent.task("copy", json!({ "src": source, "dest": "/three" }));
    assert_eq!(statuses(&agent.request(tasks)), [Status::Changed; 2]);
    assert_eq!(agent.asked(), 1);
    let look = |name: &str| std::fs::metadata(root.path().join(name)).unwrap();
    assert_eq!((look("one").mode() & 0o7777, look("two").mode() & 0o7777), (0o640, 0o755));
    assert_ne!(look("one").ino(), look("two").ino());
    // What was moved into its place is not taken for the content any more once it is another.
    assert_eq!(statuses(&agent.request(vec![change, last])), [Status::Changed; 2]);
    for name in ["two", "three"] {
        assert!(std::fs::read(root.path().join(name)).unwrap() == std::fs::read(&source).unwrap(), "{name}");
    }
    agent.bye();
    assert_eq!(std::fs::read_dir(state.join("partial")).unwrap().count(), 0);
}

#[test]
fn a_run_waits_for_an_agent_that_has_lost_its_controller() {
    let root = tempfile::tempdir().unwrap();
    let state = Machine::state_folder(Some(root.path()));
    let mut first = Agent::start(root.path(), false);
    let tasks = vec![first.task("file", json!({ "path": "/a", "state": "directory" }))];
    first.request(tasks);
    assert!(first.hang_up(Duration::from_secs(10)));
    let said = || std::fs::read_to_string(state.join("lock")).unwrap();
    assert!(said().ends_with("\norphaned\n"), "{}", said());

    let last = Journal::begin(&state, "20260101-000000-dead", "somebody").unwrap();
    // Its reading and its writing end both notice.
    last.farewell().say();
    last.farewell().say();
    let mut next = Agent::greet(root.path(), |_| ());
    let ToController::Waits(why) = next.until(|_| true) else { panic!("it did not wait") };
    assert!(why.starts_with("waits for the last change of a run whose controller is gone: `20260101-000000-dead` by somebody"), "{why}");
    last.finish().unwrap();
    assert!(matches!(next.until(|_| true), ToController::Ready { .. }));
    let tasks = vec![next.task("file", json!({ "path": "/b", "state": "directory" }))];
    assert_eq!(statuses(&next.request(tasks)), [Status::Changed]);
    next.bye();
    assert!(!said().contains("orphaned"), "{}", said());
}

#[test]
fn secrets_stay_out_of_reports() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("key"), "-----BEGIN PRIVATE KEY-----\nold\n").unwrap();
    let mut agent = Agent::start_with(root.path(), |hello| hello.diff = true);
    let mut command = agent.task("command", json!({ "command": ["sh", "-c", "echo hunter2 >&2; exit 1"] }));
    (command.sensitive, command.ignore_errors) = (true, true);
    let mut sensitive = agent.task("line", json!({ "path": "/plain", "line": "hunter2", "create": true }));
    sensitive.sensitive = true;
    let key = agent.task("line", json!({ "path": "/key", "line": "extra" }));
    let shown = agent.task("line", json!({ "path": "/shown", "line": "visible", "create": true }));
    let outcomes = agent.request(vec![command, sensitive, key, shown]);
    let told = format!("{:?}", outcomes.iter().map(|outcome| (&outcome.changes, &outcome.failure)).collect::<Vec<_>>());
    assert!(!told.contains("hunter2") && !told.contains("104, 117, 110, 116, 101, 114, 50"), "{told}");
    assert_eq!((&outcomes[2].changes[0].before, &outcomes[2].changes[0].after), (&None, &None), "keys are not shown");
    assert_eq!(outcomes[3].changes[0].after.as_deref(), Some(b"visible\n".as_slice()));
    agent.bye();
}

#[test]
fn a_foreign_controller_gets_a_clear_answer() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::greet(root.path(), |hello| hello.version = "0123456789abcdef".into());
    let introduction = wire::introduction();
    assert_eq!(agent.hear(introduction.len()), introduction, "which is all that a controller of another build can read");
}

#[test]
fn facts_come_with_the_greeting_and_on_request() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(root.path(), false);
    assert!(!agent.facts().kernel.is_empty());
    agent.send(&ToAgent::Gather);
    let ToController::Facts(facts) = agent.until(|_| true) else { panic!("no facts") };
    assert_eq!(facts.kernel, agent.facts().kernel);
    agent.bye();
}

#[test]
fn tasks_of_another_user_are_done_by_that_users_agent() {
    // Check mode: nothing is written on the machine that runs the tests.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut agent = Agent::start_with(folder.path(), |hello| (hello.check, hello.root) = (true, None));
    let made = folder.path().join("made");
    let mut who = agent.task("command", json!({ "command": ["id", "-un"], "reads_only": true }));
    who.become_user = Some("nobody".into());
    let first = agent.task("file", json!({ "path": made, "state": "directory" }));
    let mut seen = agent.task("stat", json!({ "path": made }));
    seen.become_user = Some("nobody".into());
    let mut written = agent.task("copy", json!({ "content": "small", "dest": made.join("x"), "validate": "test -s %s" }));
    written.become_user = Some("nobody".into());
    let last = agent.task("stat", json!({ "path": made.join("x") }));
    let root = agent.facts().user == "root";
    let outcomes = agent.request(vec![who, first, seen, written, last]);
    if !root {
        // Whoever runs the tests may or may not become another user here; it is said which.
        let failure = outcomes[0].failure.clone();
        assert!(outcomes.len() == 5 || failure.is_some_and(|error| error.message.contains("sudo")), "{outcomes:#?}");
        return agent.bye();
    }
    assert!(outcomes[0].output.contains("nobody"), "{outcomes:#?}");
    assert!(outcomes[2].output.contains("\"exists\":true"), "what root would have made: {outcomes:#?}");
    assert_eq!(outcomes[3].status, Status::Changed, "{outcomes:#?}");
    assert_eq!(outcomes[3].changes[0].before, None, "no diff was asked for");
    assert!(outcomes[4].output.contains("\"exists\":true"), "what nobody would have made: {outcomes:#?}");
    agent.bye();
    assert!(!made.exists());
}

#[test]
fn a_user_who_does_not_exist_cannot_be_become() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = Agent::start_with(root.path(), |hello| (hello.check, hello.root) = (true, None));
    let mut task = agent.task("stat", json!({ "path": "/" }));
    task.become_user = Some("no-such-user".into());
    let outcomes = agent.request(vec![task]);
    assert_eq!(outcomes[0].failure.as_ref().unwrap().message, "there is no user `no-such-user` to become on this host");
    agent.bye();
}

//! Journals that are written, torn, locked and read back.

use super::*;
use crate::api::types::{Attributes, Entry, EntryKind, Owner};

fn attributes() -> Attributes {
    Attributes { mode: 0o644, owner: Owner::Id(0), group: Owner::Id(0) }
}

fn write(path: &str) -> Change {
    Change::WriteFile(WriteFile {
        path: path.into(),
        content: Content::Inline(b"a secret".to_vec()),
        attributes: attributes(),
        before: None,
        before_digest: None,
        secret: true,
    })
}

fn removal(path: &str) -> Vec<Change> {
    let before = Entry { kind: EntryKind::File, attributes: attributes(), size: 0, mtime: 0, ctime: 0 };
    vec![Change::Remove { path: path.into(), before }]
}

fn unit(action: UnitAction) -> Change {
    Change::Unit { unit: "a.service".into(), action, reason: String::new(), record: None, timeout: 0 }
}

fn names(state: &Path, run: &str) -> Vec<String> {
    Journal::undo_plan(state, run).unwrap().into_iter().map(|step| step.name).collect()
}

#[test]
fn a_run_is_undone_newest_first_and_once() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("deep/state");
    let mut journal = Journal::begin(&state, "run-1", "root@admin").unwrap();
    for (task, name) in [(1, "first"), (2, "second")] {
        let entry = journal.intend(task, name, &write("/a"), Ok(removal("/a"))).unwrap();
        journal.done(entry).unwrap();
    }
    let entry = journal.intend(3, "a command", &write("/b"), Err(Irreversible("commands cannot be undone".into()))).unwrap();
    journal.done(entry).unwrap();
    let entry = journal.intend(4, "did not come to it", &write("/c"), Ok(removal("/c"))).unwrap();
    journal.failed(entry).unwrap();
    journal.finish().unwrap();

    let plan = Journal::undo_plan(&state, "run-1").unwrap();
    assert_eq!(plan.iter().map(|step| step.task).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(plan[0].inverse, Err(Irreversible("commands cannot be undone".into())));
    assert_eq!(plan[1].inverse, Ok(removal("/a")));
    let runs = Journal::list(&state);
    assert_eq!((runs.len(), runs[0].changes, runs[0].finished, runs[0].undone), (1, 3, true, false));
    assert_eq!(runs[0].by, "root@admin");

    Journal::mark_undone(&state, "run-1").unwrap();
    assert!(Journal::list(&state)[0].undone);
    assert!(Journal::undo_plan(&state, "run-1").unwrap_err().message.contains("undone on this host already"));
    assert!(Journal::undo_plan(&state, "run-2").unwrap_err().hint.unwrap().contains("run-1"));
}

#[test]
fn contents_are_not_written_into_the_journal_and_nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state");
    let mut journal = Journal::begin(&state, "run-1", "me").unwrap();
    let _ = journal.intend(1, "secret", &write("/a"), Ok(removal("/a"))).unwrap();
    drop(journal);
    let text = std::fs::read(state.join("runs/run-1/journal")).unwrap();
    assert!(!String::from_utf8_lossy(&text).contains("secret\":[97"), "the content is in the journal");
    let mode = |path: &str| std::fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("runs"), mode("runs/run-1"), mode("runs/run-1/content")), (0o700, 0o700, 0o700, 0o700));
    assert_eq!((mode("runs/run-1/journal"), mode("runs/run-1/meta.json"), mode("lock")), (0o600, 0o600, 0o600));
}

#[test]
fn a_torn_line_is_ignored_and_the_journal_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let mut journal = Journal::begin(state, "run-1", "me").unwrap();
    for name in ["first", "second"] {
        let entry = journal.intend(1, name, &write("/a"), Ok(removal("/a"))).unwrap();
        journal.done(entry).unwrap();
    }
    drop(journal);
    let path = state.join("runs/run-1/journal");
    let whole = std::fs::read(&path).unwrap();
    // Wherever it is torn, what comes before can be read.
    let lines: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let expected = if cut >= lines[2] { 2 } else { usize::from(cut >= lines[0]) };
        assert_eq!(names(state, "run-1").len(), expected, "torn at {cut}");
    }
    let mut journal = Journal::begin(state, "run-1", "me").unwrap();
    let entry = journal.intend(2, "third", &write("/b"), Ok(removal("/b"))).unwrap();
    journal.done(entry).unwrap();
    journal.finish().unwrap();
    assert_eq!(names(state, "run-1"), ["third", "second", "first"]);
}

#[test]
fn what_a_crash_interrupted_is_undone_as_well() {
    let state = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(state.path(), "run-1", "me").unwrap();
    let _ = journal.intend(1, "half", &write("/a"), Ok(removal("/a"))).unwrap();
    drop(journal);
    assert_eq!(names(state.path(), "run-1"), ["half"]);
    let runs = Journal::list(state.path());
    assert_eq!((runs[0].changes, runs[0].finished), (0, false));
}

#[test]
fn one_run_at_a_time_changes_a_host() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::begin(state.path(), "run-1", "root@admin1").unwrap();
    let error = Journal::begin(state.path(), "run-2", "root@admin2").unwrap_err();
    assert!(error.message.contains("`run-1` by root@admin1, for "), "{error}");
    assert!(!state.path().join("runs/run-2").exists());
    drop(journal);
    Journal::begin(state.path(), "run-2", "root@admin2").unwrap().finish().unwrap();
}

#[test]
fn units_are_started_again_when_their_files_are_back() {
    let state = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(state.path(), "run-1", "me").unwrap();
    let reload = Change::ReloadDaemon { reason: String::new() };
    let steps = [
        ("unit file", write("/etc/a"), removal("/etc/a")),
        ("reload", reload.clone(), vec![reload.clone()]),
        ("restart", unit(UnitAction::Restart), vec![unit(UnitAction::Restart)]),
        ("configuration", write("/etc/b"), removal("/etc/b")),
        ("restart again", unit(UnitAction::Restart), vec![unit(UnitAction::Restart)]),
        ("start another", unit(UnitAction::Start), vec![unit(UnitAction::Stop)]),
    ];
    for (name, change, inverse) in steps {
        let entry = journal.intend(1, name, &change, Ok(inverse)).unwrap();
        journal.done(entry).unwrap();
    }
    journal.finish().unwrap();
    assert_eq!(names(state.path(), "run-1"), ["start another", "configuration", "unit file", "reload", "restart again"]);
}

#[test]
fn the_newest_runs_are_kept() {
    let state = tempfile::tempdir().unwrap();
    for number in 0..KEPT + 3 {
        let mut journal = Journal::begin(state.path(), &format!("run-{number:03}"), "me").unwrap();
        journal.meta.started = number as i64;
        write_meta(&journal.folder, &journal.meta).unwrap();
        let entry = journal.intend(1, "x", &write("/a"), Ok(Vec::new())).unwrap();
        journal.done(entry).unwrap();
        journal.finish().unwrap();
    }
    let runs = Journal::list(state.path());
    assert_eq!((runs.len(), runs[0].run.as_str(), runs[KEPT - 1].run.as_str()), (KEPT, "run-022", "run-003"));
}

#[test]
fn the_name_of_a_run_leads_nowhere_else() {
    let state = tempfile::tempdir().unwrap();
    for run in ["", "..", "a/b", "../../etc"] {
        assert!(Journal::begin(state.path(), run, "me").is_err(), "{run}");
        assert!(Journal::undo_plan(state.path(), run).is_err(), "{run}");
    }
}

#[test]
fn what_was_taken_back_is_not_undone_again_and_a_unit_that_did_not_come_up_is() {
    let state = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(state.path(), "run-1", "root@admin").unwrap();
    let mut entries = Vec::new();
    for (task, name) in [(1, "first"), (2, "second"), (3, "third")] {
        let entry = journal.intend(task, name, &write("/a"), Ok(removal("/a"))).unwrap();
        journal.done(entry).unwrap();
        entries.push(entry);
    }
    let restart = unit(UnitAction::Restart);
    for task in [4, 5] {
        let entry = journal.intend(task, "restart", &restart, Ok(vec![restart.clone()])).unwrap();
        journal.failed(entry).unwrap();
    }
    journal.taken_back(entries[0]).unwrap();
    assert_eq!(names(state.path(), "run-1"), ["third", "second", "restart"]);

    let plan = journal.plan_of(&[2, 4, 5]);
    assert_eq!(plan.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["second", "restart"]);
    plan.iter().for_each(|step| journal.step_taken_back(step).unwrap());
    assert!(journal.plan_of(&[1, 2, 4, 5]).is_empty(), "both restarts were one step");
    assert_eq!(names(state.path(), "run-1"), ["third"]);
    journal.finish().unwrap();
    assert_eq!(Journal::list(state.path())[0].changes, 1);
}

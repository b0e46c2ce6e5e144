//! What tasks meet on hosts now and then: names that are no text, files that cannot be removed, units that get their first drop-in.

use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use crate::hosts;
use crate::support::agents::real_agent_folder;
use crate::support::kplay::{Kplay, Ran};

fn play(body: &str) -> String {
    format!("play {{ name = \"edges\", hosts = \"all\", run = function(host)\n{body}\nend }}\n")
}

fn undo(ran: Ran) -> Kplay {
    let first: serde_json::Value = serde_json::from_str(ran.text("events").lines().next().unwrap()).unwrap();
    let run = first["run"].as_str().unwrap().to_owned();
    ran.then().args(["undo", &run, "--diff"]).env("KPLAY_AGENT_DIR", &real_agent_folder().to_string_lossy()).any_stdout()
}

#[test]
fn a_link_to_what_is_no_text_is_an_error_and_no_end_of_waiting() {
    let kplay = hosts(&["a"]).playbook(&play(r#"host:file({ path = "/l", state = "absent" })"#));
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(b"a\xff"), kplay.folder().join("a/l")).unwrap();
    kplay.stdout_has("the link `/l` leads to `a\u{fffd}`, a name that is not UTF-8").status(2).run();
}

#[test]
fn a_root_that_is_not_there_is_said_to_be_missing() {
    let kplay = hosts(&["a"]).playbook(&play(r#"host:file({ path = "/x", state = "directory" })"#));
    std::fs::remove_dir(kplay.folder().join("a")).unwrap();
    kplay.stdout_has("the folder that stands for this host, `root` in the inventory, is not there").status(2).run();
}

#[test]
fn a_constant_changed_if_is_known_in_a_forecast() {
    let body = r#"host:command({ command = "true" }, { changed_if = false })"#;
    hosts(&["a"]).playbook(&play(body)).args(["--check"]).stdout_has("ok=1  changed=0  failed=0  skipped=0  unknown=0").run();
}

#[test]
fn times_that_no_clock_can_hold_are_refused() {
    for (call, what) in [
        ("{ command = \"true\" }, { timeout = math.maxinteger }", "`timeout` must be at most 31536000 seconds"),
        ("{ command = \"true\" }, { retries = 1, delay = 1e30 }", "`delay` must be a number of seconds from 0 to 31536000"),
        ("{ command = \"true\" }, { retries = 1, delay = math.huge }", "`delay`"),
        ("{ command = \"true\", timeout = math.maxinteger }", "`timeout` of module `command` must be at most 31536000 seconds"),
    ] {
        hosts(&["a"]).playbook(&play(&format!("host:command({call})"))).stderr_has(what).status(1).run();
    }
    let endless = u64::MAX.to_string();
    let kplay = hosts(&["a"]).playbook(&play(r#"host:command({ command = "true" })"#)).args(["--timeout", &endless]);
    kplay.stderr_has("`--timeout` can be 31536000 seconds at most").status(1).run();
}

#[test]
fn a_folder_that_could_not_be_removed_is_whole_again() {
    let kplay = hosts(&["a"]).playbook(&play(r#"host:file({ path = "/folder", state = "absent" })"#));
    let folder = kplay.folder().join("a/folder");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..20 {
        std::fs::write(folder.join(number.to_string()), number.to_string()).unwrap();
    }
    let chattr = |how: &str| Command::new("chattr").arg(how).arg(folder.join("7")).status().is_ok_and(|status| status.success());
    if !chattr("+i") {
        // Not root, or a file system that knows no such files.
        return;
    }
    let ran = kplay.any_stdout().status(2).run();
    assert!(chattr("-i"));
    for number in 0..20 {
        assert_eq!(ran.text(&format!("a/folder/{number}")), number.to_string(), "{}", ran.stdout);
    }
}

#[test]
fn a_running_unit_starts_anew_with_its_first_drop_in() {
    let unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    let started = r#"host:systemd({ name = "app", state = "started", restart_on = {} })"#;
    let with_drop_in = format!(
        "host:copy({{ dest = \"/etc/systemd/system/app.service.d/x.conf\", content = \"[Service]\\nNice=5\\n\", parents = true }})\n{started}"
    );
    let kplay = hosts(&["a"]).file("a/etc/systemd/system/app.service", unit).playbook(&play(started));
    let ran = kplay.stdout_has("changed=1").run();
    let forecast = ran.then().file("play.lua", &play(&with_drop_in)).args(["play.lua", "--check"]).stdout_has("restart").run();
    let made = forecast.then().args(["play.lua"]).stdout_has("restart").stdout_has("changed=2").run();
    made.then().args(["play.lua"]).stdout_has("changed=0").run();
}

#[test]
fn what_a_sensitive_task_hides_is_shown_nowhere() {
    let body = r#"
        host:shell({ command = "echo hunter2 > /dev/null", sensitive = true })
        host:copy({ dest = "/token", content = "hunter2\n" }, { sensitive = true })
        host:copy({ dest = "/secret", content = "hunter2\n", secret = true })
    "#;
    let ran = hosts(&["a"]).playbook(&play(body)).args(["-v", "--diff", "--events", "events"]).any_stdout().run();
    for shown in [&ran.stdout, &ran.stderr, &ran.text("events")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let undone = undo(ran).run();
    assert!(!undone.path("a/token").exists() && !undone.stdout.contains("hunter2"), "{}", undone.stdout);
}

#[test]
fn a_secret_is_not_left_open_to_everybody() {
    let kplay =
        hosts(&["a"]).file("a/token", "old\n").playbook(&play(r#"host:copy({ dest = "/token", content = "new\n", secret = true })"#));
    let ran = kplay.stdout_has("changed=1").run();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(ran.path("a/token")).unwrap().permissions());
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    ran.then().args(["play.lua"]).stdout_has("changed=0").run();
}

#[test]
fn an_archive_without_its_holes_is_refused() {
    let kplay = hosts(&["a"]).playbook(&play(r#"host:archive({ src = "sparse.tar", dest = "/tree" })"#));
    let script = "truncate -s 1M top && printf x >> top && tar -S --format=pax -cf sparse.tar top";
    assert!(Command::new("sh").args(["-ec", script]).current_dir(kplay.folder()).status().unwrap().success());
    kplay.any_stdout().stderr_has("leaves out its holes").status(1).run();
}

#[test]
fn waiting_lasts_as_long_as_it_says() {
    let begun = std::time::Instant::now();
    hosts(&["a"])
        .playbook(&play(r#"host:wait_for({ path = "/never", timeout = 1 })"#))
        .stdout_has("`/never` is not present")
        .status(2)
        .run();
    assert!(begun.elapsed().as_secs_f64() >= 1.0, "{:?}", begun.elapsed());
}

#[test]
fn an_undo_says_what_it_leaves_and_why() {
    let body = r#"
        host:command({ command = { "touch", "made" }, creates = "/made" })
        host:file({ path = "/folder", state = "directory" })
    "#;
    let ran = hosts(&["a"]).playbook(&play(body)).args(["--events", "events"]).stdout_has("changed=2").run();
    std::fs::write(ran.path("a/folder/theirs"), "").unwrap();
    let undone = undo(ran).run();
    let said = |text: &str| assert!(undone.stdout.contains(text), "{}", undone.stdout);
    said("warning: not taken back: command touch made: commands cannot be undone");
    said("taken back but for this: file /folder: `/folder` is kept, since it is not empty");
}

#[test]
fn an_undo_makes_no_user_out_of_what_has_changed_of_one_that_is_gone() {
    let kplay = hosts(&["a"]).file("a/etc/passwd", "bob:x:1001:1001:Bob:/home/bob:/bin/sh\n").file("a/etc/group", "bob:x:1001:\n");
    let body = r#"host:user({ name = "bob", shell = "/bin/zsh" })"#;
    let ran = kplay.playbook(&play(body)).args(["--events", "events"]).stdout_has("changed=1").run();
    std::fs::write(ran.path("a/etc/passwd"), "").unwrap();
    let undone = undo(ran).run();
    assert!(undone.stdout.contains("user bob: the user `bob` is gone"), "{}", undone.stdout);
    assert_eq!(undone.text("a/etc/passwd"), "");
}

#[test]
fn an_undo_leaves_what_others_have_changed_since() {
    let body = r#"
        host:user({ name = "bob", shell = "/bin/zsh" })
        host:group({ name = "ops", state = "absent" })
    "#;
    let accounts = |kplay: Kplay| {
        let kplay = kplay.file("a/etc/passwd", "bob:x:1001:1001:Bob:/home/bob:/bin/sh\nal:x:1002:1002::/home/al:/bin/sh\n");
        let kplay = kplay.file("a/etc/group", "bob:x:1001:\nal:x:1002:\nops:x:2000:bob,al\nadm:x:4:al\n");
        kplay.file("a/etc/shadow", "bob:$6$old:19000:1:90:7:30:20000:\nal:*:19000:0:99999:7:::\n")
    };
    let ran = accounts(hosts(&["a"])).playbook(&play(body)).args(["--events", "events"]).stdout_has("changed=2").run();
    assert!(ran.text("a/etc/passwd").contains("bob:x:1001:1001:Bob:/home/bob:/bin/zsh"), "{}", ran.text("a/etc/passwd"));
    let shadow = "bob:$6$new:19500:1:90:7:30:20000:\nal:*:19000:0:99999:7:::\n";
    std::fs::write(ran.path("a/etc/shadow"), shadow).unwrap();
    let undone = undo(ran).run();
    assert!(undone.text("a/etc/passwd").contains("bob:x:1001:1001:Bob:/home/bob:/bin/sh"), "{}", undone.stdout);
    assert_eq!(undone.text("a/etc/shadow"), shadow);
    let group = undone.text("a/etc/group");
    assert!(group.contains("ops:x:2000:bob,al") || group.contains("ops:x:2000:al,bob"), "{group}");
    assert!(group.contains("adm:x:4:al"), "{group}");
}

//! When tasks are sent, what hosts wait for, and what reaches whom.

use super::*;

#[test]
fn a_play_that_reads_nothing_is_one_request_for_each_host() {
    let book = Book::run("host:file({ path = \"/a\", state = \"directory\" })\nhost:file({ path = \"/b\", state = \"directory\" })");
    assert_eq!(book.log(), ["a: file /a, file /b", "b: file /a, file /b"]);
}

#[test]
fn reading_a_field_sends_the_queue_first() {
    let book = Book::run(
        "local unit = host:file({ path = \"/a\", state = \"directory\" })
         host:file({ path = \"/b\", state = \"directory\" })
         if unit.changed and host.name == \"a\" then host:command({ command = { \"reload\" } }) end
         host:file({ path = \"/c\", state = \"directory\" })",
    );
    assert_eq!(book.log(), ["a: file /a, file /b", "b: file /a, file /b", "a: command reload, file /c", "b: file /c"]);
}

#[test]
fn results_have_the_fields_of_their_module_and_no_others() {
    let book = Book::run(
        "local r = host:command({ command = { \"date\" } })
         print(r.stdout, r.changed, r.failed, r.skipped, r.error)
         print(tostring(r), (\"%s!\"):format(r), \"it \" .. r, table.concat({ r, 1 }, \"-\"))
         print(r.stduot)",
    );
    let log = book.play(|_| output(&json!({ "stdout": "noon", "code": 0 })));
    assert_eq!(log[2], "say: noon true false false nil");
    assert_eq!(log[3], "say: changed changed! it changed changed-1");
    assert_eq!(log[4], "a failed: the result of `command date` has no field `stduot`");
}

#[test]
fn when_takes_booleans_and_unread_results() {
    let book = Book::run(
        "local r = host:file({ path = \"/a\", state = \"directory\" })
         host:command({ command = { \"one\" } }, { when = { r } })
         local off = host:command({ command = { \"two\" } }, { when = false })
         host:command({ command = { \"three\" } }, { when = off })
         print(off.skipped, off.changed)",
    );
    let mut conditions = Vec::new();
    let log = book.play(|task| {
        conditions.push(task.wire.when_changed.clone());
        changed()
    });
    let never = "command two (skipped: `when` is false), command three (skipped: none of the results in `when` changed)";
    assert_eq!(log[..2], ["say: true false".to_owned(), "say: true false".to_owned()], "a skipped task has its result at once");
    assert_eq!(log[2], format!("a: file /a, command one, {never}"));
    assert_eq!(conditions[..2], [vec![], vec![1]]);
}

#[test]
fn a_skipped_task_has_no_output() {
    let book = Book::run("local r = host:command({ command = { \"x\" } }, { when = false })\nprint(r.stdout)");
    assert_eq!(book.log()[0], "a failed: `command x` was skipped: its result has no `stdout`");
}

#[test]
fn results_stand_for_the_paths_that_they_manage() {
    let book = Book::run(
        "local conf = host:file({ path = \"/etc/x\", state = \"directory\" })
         host:systemd({ name = \"x\", state = \"started\", restart_on = { conf, \"/etc/y\" }, reload_on = conf })",
    );
    let mut seen = Vec::new();
    book.play(|task| {
        seen.push(arguments(task));
        changed()
    });
    assert_eq!(seen[1]["restart_on"], json!(["/etc/x", "/etc/y"]));
    assert_eq!(seen[1]["reload_on"], json!(["/etc/x"]));
}

#[test]
fn turning_to_another_host_waits_for_what_came_before() {
    let book = Book::run(
        "host:file({ path = \"/a\", state = \"directory\" })
         if host.name == \"a\" then localhost:command({ command = { \"register\", host.name } }) end
         host:file({ path = \"/b\", state = \"directory\" })",
    );
    assert_eq!(book.log(), ["a: file /a", "b: file /a, file /b", "localhost: command register a", "a: file /b"]);
}

#[test]
fn a_failure_of_a_delegated_task_fails_the_caller() {
    let book = Book::run(
        "localhost:command({ command = { host.name } })
         host:file({ path = \"/never-on-a\", state = \"directory\" })",
    );
    let log = book.play(|task| if task.wire.name == "command a" { failed("no") } else { changed() });
    assert_eq!(log, ["localhost: command a, command b", "a failed: no", "b: file /never-on-a"]);
}

#[test]
fn pcall_catches_what_its_tasks_do_and_drops_the_rest_of_them() {
    let book = Book::run(
        "local ok, err = pcall(function()
           host:command({ command = { \"breaks\" } })
           host:command({ command = { \"not run\" } })
         end)
         print(ok, err.message, tostring(err))
         local fine, value = pcall(function() host:command({ command = { \"works\" } }) return 7 end)
         print(fine, value)
         print(select(2, pcall(error, { code = 5 })).code, pcall(error, \"text\"))",
    );
    let log = book.play(|task| if task.wire.name == "command breaks" { failed("it broke") } else { changed() });
    let of_a: Vec<_> = log.iter().filter(|line| !line.starts_with("b:")).collect();
    assert_eq!(of_a[0], "a: command breaks, command not run");
    assert_eq!(of_a[1], "say: false it broke it broke");
    assert_eq!(of_a[3], "a: command works");
    assert_eq!(of_a[4], "say: true 7");
    assert!(of_a[5].starts_with("say: 5 false"), "{of_a:?}");
}

#[test]
fn an_ignored_failure_can_be_read() {
    let book = Book::run("local r = host:command({ command = { \"x\" } }, { ignore_errors = true })\nprint(r.failed, r.error, r.code)");
    let log = book.play(|task| TaskResult::Failed {
        error: Diagnostic::host("exit code 3"),
        ignored: task.wire.ignore_errors,
        output: json!({ "code": 3 }).as_object().cloned().unwrap().into(),
    });
    assert_eq!(log[2], "say: true exit code 3 3");
}

#[test]
fn facts_wait_for_the_connection_and_send_nothing() {
    let book = Book::run("host:file({ path = \"/a\", state = \"directory\" })\nprint(host.facts.hostname)");
    let log = book.log();
    assert_eq!(log.last().map(String::as_str), Some("say: host1"));
    let mut program = book.load().unwrap();
    program.begin(0, 0).unwrap();
    let step = program.resume(0);
    assert!(matches!(step, Step::NeedsFacts { .. }), "{step:?}");
    assert!(!program.ready(0));
}

#[test]
fn gather_refreshes_facts_after_the_tasks_before_it() {
    let book = Book::run("print(host.facts.hostname)\nhost:command({ command = { \"hostname\" } })\nprint(host:gather().hostname)");
    let log = book.log();
    assert_eq!(log.iter().filter(|line| line.starts_with("say")).count(), 4, "{log:?}");
    let mut program = book.load().unwrap();
    program.begin(0, 0).unwrap();
    program.resume(0);
    program.set_facts(0, Facts::default());
    assert_eq!(program.resume(0), Step::NeedsTasks);
    let id = program.take_queue(0).unwrap()[0].wire.id;
    program.finish_task(id, changed());
    assert_eq!(program.resume(0), Step::Gather { host: 0 });
    assert!(!program.ready(0), "old facts do not answer");
}

#[test]
fn templates_that_mention_facts_are_rendered_when_they_are_known() {
    let book = Book::run("local t = host:template({ src = \"t.j2\", dest = \"/t\" })\nhost:systemd({ name = \"x\", restart_on = { t } })")
        .file("templates/t.j2", "{{ facts.hostname }} {{ nope }}");
    assert!(book.error().contains("`nope` is undefined"), "{}", book.error());
    let book = book.file("templates/t.j2", "{{ facts.hostname }}");
    let mut program = book.load().unwrap();
    program.begin(0, 0).unwrap();
    assert_eq!(program.resume(0), Step::NeedsFacts { host: 0 });
    assert!(program.take_queue(0).unwrap().is_empty(), "nothing can be sent that is not prepared");
    program.set_facts(0, Facts { hostname: "h".to_owned(), ..Facts::default() });
    assert_eq!(program.resume(0), Step::Finishing);
    let tasks = program.take_queue(0).unwrap();
    assert_eq!(tasks[0].blobs, [Digest::of(b"h")]);
    assert_eq!(arguments(&tasks[1])["restart_on"], json!(["/t"]));
}

#[test]
fn once_runs_for_the_first_host_and_answers_all() {
    let book = Book::run(
        "local token = once(\"token\", function()
           local r = host:command({ command = { \"token\", host.name } })
           return { text = r.stdout }
         end)
         print(host.name, token.text)",
    );
    let log = book.play(|_| output(&json!({ "stdout": "secret" })));
    assert_eq!(log, ["a: command token a", "say: a secret", "say: b secret"]);
}

#[test]
fn an_error_in_once_reaches_all_who_wait() {
    let book = Book::run("once(\"k\", function() host:command({ command = { \"x\" } }) end)");
    let log = book.play(|_| failed("broken"));
    assert_eq!(log, ["a: command x", "a failed: broken", "b failed: broken"]);
    let book = Book::run("once(\"k\", function() return host end)");
    assert_eq!(book.log()[1], "b failed: the value of `once`: a host is no data");
}

#[test]
fn once_holds_across_batches_and_begins_anew_with_each_play() {
    let play = "play { hosts = \"all\", serial = 1, run = function(host)
        once(\"k\", function() host:command({ command = { host.name } }) end) end }\n";
    assert_eq!(Book::new(&play.repeat(2)).log(), ["a: command a", "a: command a"]);
}

#[test]
fn a_host_that_is_lost_in_once_takes_nobody_with_it_forever() {
    let book = Book::run("once(\"k\", function() host:command({ command = { \"x\" } }) end)");
    let mut program = book.load().unwrap();
    for host in [0, 1] {
        program.begin(0, host).unwrap();
        program.resume(host);
    }
    assert!(!program.ready(1));
    program.abandon(0, Diagnostic::unreachable("connection lost"));
    assert!(program.ready(1));
    assert!(matches!(program.resume(1), Step::Failed(error) if error.message == "connection lost"));
    assert!(program.queued().is_empty());
}

#[test]
fn a_barrier_is_reached_when_the_tasks_before_it_are_done() {
    let book = Book::run("host:command({ command = { \"before\" } })\nbarrier(\"b\")\nhost:command({ command = { \"after\" } })");
    let log = book.log();
    assert_eq!(log, ["a: command before", "b: command before", "a at b", "b at b", "a: command after", "b: command after"]);
}

#[test]
fn reading_what_a_forecast_cannot_know_ends_it_past_every_pcall() {
    let book = Book::run(
        "local r = host:command({ command = { \"x\" } })\npcall(function() print(r.changed) end)\nhost:command({ command = { \"y\" } })",
    );
    let log = book.play(|_| TaskResult::Unknown { because: "it would have run".to_owned() });
    assert_eq!(log[2], "a forecast ended: the forecast cannot know `changed` of `command x`");
    assert_eq!(log.len(), 4, "{log:?}");
}

#[test]
fn tags_choose_tasks_and_the_others_leave_no_trace() {
    let body = "host:command({ command = { \"one\" } }, { tags = \"x\" })
        host:command({ command = { \"two\" } }, { tags = { \"y\", \"never\" } })
        host:command({ command = { \"three\" } }, { tags = \"always\" })
        host:command({ command = { \"four\" } })";
    let chosen = |tags: &[&str], skip: &[&str]| {
        let mut book = Book::run(body);
        book.options.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        book.options.skip_tags = skip.iter().map(|tag| (*tag).to_owned()).collect();
        book.log().into_iter().next().unwrap_or_default().replace("command ", "")
    };
    assert_eq!(chosen(&[], &[]), "a: one, three, four");
    assert_eq!(chosen(&["x"], &[]), "a: one, three");
    assert_eq!(chosen(&["y"], &["always"]), "a: two");
    assert_eq!(chosen(&[], &["x"]), "a: three, four");
    assert_eq!(chosen(&["tagged"], &[]), "a: one, three");
    assert_eq!(chosen(&["untagged"], &[]), "a: three, four");
    assert_eq!(chosen(&["all"], &["untagged"]), "a: one, three");
    assert_eq!(chosen(&["all"], &["tagged"]), "a: four");
    assert_eq!(chosen(&["y"], &["all"]), "a: three");
    assert_eq!(chosen(&[], &["all", "always"]), "");
    let mut book = Book::run(body);
    book.options.start_at_task = Some("command three".to_owned());
    assert_eq!(book.log()[0], "a: command three, command four");
}

#[test]
fn options_reach_the_task() {
    let task = only_task(&Book::run(
        "host:command({ command = { \"x\" } }, { name = \"n\", become_user = \"etcd\", timeout = 5, retries = 3, delay = 0.5,
           [\"until\"] = \"ready\", changed_if = false, ok_codes = { 0, 3 }, ignore_errors = true, sensitive = true })",
    ));
    let wire = &task.wire;
    assert_eq!((wire.name.as_str(), wire.become_user.as_deref(), wire.timeout, wire.retries, wire.delay), ("n", Some("etcd"), 5, 3, 500));
    assert_eq!(wire.until.as_ref().unwrap().matches["stdout"], "ready");
    assert!(wire.changed_if.as_ref().unwrap().not && wire.changed_if.as_ref().unwrap().matches.is_empty());
    assert_eq!((wire.failed_if.as_ref().unwrap().codes.as_slice(), wire.failed_if.as_ref().unwrap().not), ([0, 3].as_slice(), true));
    assert!(wire.ignore_errors && wire.sensitive);
}

#[test]
fn become_is_inherited_and_can_be_taken_back() {
    let book = Book::new(
        "play { hosts = \"a\", become = true, run = function(host)
           host:command({ command = { \"x\" } })
           host:command({ command = { \"x\" } }, { become = false })
           host:role(\"r\", {}, { become_user = \"etcd\", tags = \"t\" })
         end }",
    )
    .file("roles/r/role.lua", "return { run = function(host) host:command({ command = { \"x\" } }, { tags = \"u\" }) end }");
    let mut seen = Vec::new();
    book.play(|task| {
        seen.push((task.wire.become_user.clone(), task.tags.clone(), task.role.clone()));
        changed()
    });
    assert_eq!(seen[0].0.as_deref(), Some("root"));
    assert_eq!(seen[1].0, None);
    assert_eq!(seen[2], (Some("etcd".to_owned()), vec!["t".to_owned(), "u".to_owned()], Some("r".to_owned())));
}

#[test]
fn what_never_ends_is_stopped() {
    let mut book = Book::run("while true do pcall(function() local x = 1 end) end");
    book.options.time_limit = Duration::from_millis(100);
    assert!(book.log()[0].starts_with("a failed: the playbook ran for 0 s without coming to an end"), "{:?}", book.log());
    let mut book = Book::run("local t = {}\nfor i = 1, 1e9 do t[i] = (\"x\"):rep(1000) .. i end");
    book.options.memory_limit = 64 << 20;
    assert_eq!(book.log()[0], "a failed: not enough memory");
}

#[test]
fn playbooks_have_no_way_to_the_system_and_no_order_by_chance() {
    let book = Book::run(
        "local keys = {}
         for key in pairs({ z = 1, a = 2, [2] = 3, [1] = 4, m = 5 }) do keys[#keys + 1] = tostring(key) end
         print(table.concat(keys, \" \"))
         print(os.execute, os.exit, os.remove, os.getenv, string.dump)
         print(pcall(load, \"\\27Lua\"))
         print(load(\"return 1 + 1\")(), next({}) == nil)
         print(pcall(function() return io end))",
    );
    let log = book.log();
    assert_eq!(log[0], "say: 1 2 a m z");
    assert_eq!(log[1], "say: nil nil nil nil nil");
    assert!(log[2].starts_with("say: true nil"), "bytecode is not loaded: {}", log[2]);
    assert_eq!(log[3], "say: 2 true");
    assert!(log[4].contains("there is no variable or function `io`"), "{}", log[4]);
}

#[test]
fn lua_files_are_found_beside_the_playbook_and_run_once() {
    let book = Book::new(
        "local names = require(\"names\")
         play { hosts = \"a\", run = function(host) print(names.first, require(\"names\") == names, require(\"deep.er\")) end }",
    )
    .file("lib/names.lua", "return { first = \"f\" }")
    .file("deep/er.lua", "return \"below\"");
    assert_eq!(book.log(), ["say: f true below"]);
}

#[test]
fn the_same_playbook_is_planned_the_same_way_each_time() {
    let body = "for name, value in pairs(host.vars.users) do host:copy({ content = name .. value.uid, dest = \"/u/\" .. name }) end
        host:shell({ command = \"x\", env = { B = \"1\", A = \"2\", C = host.name } })";
    let plan = || {
        let book = Book::run(body)
            .inventory("all:\n  vars: { users: { zoe: { uid: 3 }, al: { uid: 1 }, bo: { uid: 2 } } }\n  hosts: { a: , b: }\n");
        let mut tasks = Vec::new();
        book.play(|task| {
            tasks.push(task.wire.clone());
            changed()
        });
        tasks
    };
    let first = plan();
    assert_eq!(first.len(), 8);
    assert_eq!(first[0].name, "copy /u/al");
    assert!((0..5).all(|_| plan() == first));
}

#[test]
fn playbooks_are_made_of_playbooks_and_share_what_they_require() {
    let part =
        |name: &str| format!("local shared = require(\"shared\")\nplay {{ name = \"{name}\", hosts = \"a\", run = shared.greet }}\n");
    let book = Book::new("require(\"one\")\nrequire(\"two\")\nrequire(\"one\")\n")
        .file("one.lua", &part("one"))
        .file("two.lua", &part("two"))
        .file("lib/shared.lua", "local count = 0\nreturn { greet = function(host) count = count + 1 print(count) end }\n");
    assert_eq!(book.log(), ["say: 1", "say: 2"]);

    // What roles share lies beside them, for playbooks, too.
    let book = Book::new(
        "local words = require(\"lib.words\")\nplay { hosts = \"a\", run = function(host) print(words.one) host:role(\"greeter\") end }\n",
    )
    .file("roles/lib/words.lua", "return { one = \"one word\" }\n")
    .file(
        "roles/greeter/role.lua",
        "local words = require(\"lib.words\")\nreturn { summary = \"greets\", run = function() print(words.one) end }\n",
    );
    assert_eq!(book.log(), ["say: one word", "say: one word"]);

    let circle = Book::new("require(\"one\")\n").file("one.lua", "require(\"two\")\n").file("two.lua", "require(\"one\")\n");
    assert!(circle.error().contains("`require` goes round in a circle"), "{}", circle.error());
}

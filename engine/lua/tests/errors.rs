//! What is said about mistakes: the whole text, with place, caret, chain and hint.

use super::*;

fn error(body: &str) -> String {
    Book::run(body).error()
}

#[test]
fn an_unknown_module() {
    insta::assert_snapshot!(error("  host:fiel({ path = \"/x\" })"), @r#"
    error: there is no module `fiel`
     --> play.lua:2:8
      |
    2 |   host:fiel({ path = "/x" })
      |        ^^^^
      = host: a
      = hint: did you mean `file`?
    "#);
}

#[test]
fn an_unknown_argument_in_a_role() {
    let book = Book::run("  host:role(\"pki\", { folder = \"/x\" })").file(
        "roles/pki/role.lua",
        "return {\n  params = { folder = { type = \"string\" } },\n  run = function(host, p)\n    host:file({\n      path = p.folder, moode = \"0700\",\n    })\n  end,\n}\n",
    );
    insta::assert_snapshot!(book.error(), @r#"
    error: unknown argument `moode` for module `file`
     --> roles/pki/role.lua:5:24
      |
    5 |       path = p.folder, moode = "0700",
      |                        ^^^^^
      = called from play.lua:2:8
      = host: a
      = hint: did you mean `mode`?
    "#);
}

#[test]
fn a_role_called_as_the_last_thing_still_has_its_caller() {
    let book = Book::run("  return host:role(\"pki\", { folder = 3 })")
        .file("roles/pki/role.lua", "return {\n  params = { folder = { type = \"string\" } },\n  run = function(host, p) end,\n}\n");
    insta::assert_snapshot!(book.error(), @r#"
    error: parameter `folder` of role `pki` must be a string, not the number 3
     --> play.lua:2:38
      |
    2 |   return host:role("pki", { folder = 3 })
      |                                      ^
      = host: a
    "#);
    let book = Book::run("  return host:role(\"pki\")")
        .file("roles/pki/role.lua", "return {\n  run = function(host, p)\n    local x = host.vars.nope\n  end,\n}\n");
    insta::assert_snapshot!(book.error(), @r#"
    error: variable `nope` is not defined for host `a`
     --> roles/pki/role.lua:3:25
      |
    3 |     local x = host.vars.nope
      |                         ^^^^
      = called from play.lua:2:15
      = host: a
      = hint: `kplay vars a` shows all variables and where they come from
    "#);
}

#[test]
fn wrong_types_and_missing_arguments() {
    insta::assert_snapshot!(error("  host:file({ path = 5 })"), @r#"
    error: `path` of module `file` must be a string, not the number 5
     --> play.lua:2:22
      |
    2 |   host:file({ path = 5 })
      |                      ^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:file({ state = \"directory\" })"), @r#"
    error: missing argument `path` for module `file`
     --> play.lua:2:8
      |
    2 |   host:file({ state = "directory" })
      |        ^^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:file({ path = \"/x\", mode = 644 })"), @r#"
    error: `mode` of module `file` must be a mode as a string, such as "0644" or "u+x", not the number 644
     --> play.lua:2:35
      |
    2 |   host:file({ path = "/x", mode = 644 })
      |                                   ^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:file({ path = \"/x\", mode = \"99\" })"), @r#"
    error: `mode` of module `file`: `99` is not a file mode; write "0644" or "u+x,go-w"
     --> play.lua:2:35
      |
    2 |   host:file({ path = "/x", mode = "99" })
      |                                   ^^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:file({ path = \"/x\", state = \"diretory\" })"), @r#"
    error: `state` of module `file` cannot be "diretory"
     --> play.lua:2:36
      |
    2 |   host:file({ path = "/x", state = "diretory" })
      |                                    ^^^^^^^^^^
      = host: a
      = hint: did you mean "directory"?
    "#);
    insta::assert_snapshot!(error("  host:systemd({ name = \"x\", restart_on = { \"/a\", 5 } })"), @r#"
    error: `restart_on[2]` of module `systemd` must be a string, not the number 5
     --> play.lua:2:51
      |
    2 |   host:systemd({ name = "x", restart_on = { "/a", 5 } })
      |                                                   ^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:file({ \"/x\" })"), @r#"
    error: `file` takes a table of named arguments, not a list
     --> play.lua:2:8
      |
    2 |   host:file({ "/x" })
      |        ^^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:file(\"/x\")"), @r#"
    error: `file` takes a table of arguments, not a string
     --> play.lua:2:8
      |
    2 |   host:file("/x")
      |        ^^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host.file({ path = \"/x\" })"), @r#"
    error: `file` is called without its host
     --> play.lua:2:8
      |
    2 |   host.file({ path = "/x" })
      |        ^^^^
      = host: a
      = hint: write `host:file(…)` with a colon
    "#);
}

#[test]
fn options_in_the_wrong_place_or_unknown() {
    insta::assert_snapshot!(error("  host:file({ path = \"/x\", when = true })"), @r#"
    error: unknown argument `when` for module `file`
     --> play.lua:2:28
      |
    2 |   host:file({ path = "/x", when = true })
      |                            ^^^^
      = host: a
      = hint: `when` is an option: write `host:file({ … }, { when = … })`
    "#);
    insta::assert_snapshot!(error("  host:file({ path = \"/x\" }, { wehn = true })"), @r#"
    error: unknown option `wehn`
     --> play.lua:2:32
      |
    2 |   host:file({ path = "/x" }, { wehn = true })
      |                                ^^^^
      = host: a
      = hint: did you mean `when`?
    "#);
    insta::assert_snapshot!(error("  host:file({ path = \"/x\", register = \"r\" })"), @r#"
    error: unknown argument `register` for module `file`
     --> play.lua:2:28
      |
    2 |   host:file({ path = "/x", register = "r" })
      |                            ^^^^^^^^
      = host: a
      = hint: write `local result = host:…`
    "#);
    insta::assert_snapshot!(error("  host:command({ command = \"x\" }, { changed_if = \"(\" })"), @r#"
    error: `(` is no regular expression: found open group without closing ')'
     --> play.lua:2:50
      |
    2 |   host:command({ command = "x" }, { changed_if = "(" })
      |                                                  ^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:command({ command = \"x\" }, { [\"until\"] = \"up\" })"), @r#"
    error: `until` without `retries` would try only once
     --> play.lua:2:38
      |
    2 |   host:command({ command = "x" }, { ["until"] = "up" })
      |                                      ^^^^^^^
      = host: a
      = hint: add `retries = 10, delay = 3`
    "#);
    insta::assert_snapshot!(error("  host:command({ command = \"x\" }, { when = \"yes\" })"), @r#"
    error: `when` must be a boolean, a result, or a list of results, not a string
     --> play.lua:2:44
      |
    2 |   host:command({ command = "x" }, { when = "yes" })
      |                                            ^^^^^
      = host: a
    "#);
}

#[test]
fn values_that_are_no_data() {
    insta::assert_snapshot!(error("  local r = host:command({ command = \"x\" })\n  host:copy({ content = r, dest = \"/x\" })"), @r#"
    error: `content` of module `copy`: the result of a task is no data
     --> play.lua:3:25
      |
    3 |   host:copy({ content = r, dest = "/x" })
      |                         ^
      = host: a
      = hint: read one of its fields, such as `.changed`
    "#);
    insta::assert_snapshot!(error("  host:template({ src = \"t\", dest = \"/x\", vars = { list = { 1, nil, 3 } } })"), @r#"
    error: `vars.list` of module `template`: the list has a hole: item 2 is nil
     --> play.lua:2:59
      |
    2 |   host:template({ src = "t", dest = "/x", vars = { list = { 1, nil, 3 } } })
      |                                                           ^^^^^^^^^^^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:template({ src = \"t\", dest = \"/x\", vars = { f = print } })"), @r#"
    error: `vars.f` of module `template`: a function is no data
     --> play.lua:2:56
      |
    2 |   host:template({ src = "t", dest = "/x", vars = { f = print } })
      |                                                        ^^^^^
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:template({ src = \"t\", dest = \"/x\", vars = { n = 0/0 } })"), @r#"
    error: `vars.n` of module `template`: NaN is no number that can be passed on
     --> play.lua:2:56
      |
    2 |   host:template({ src = "t", dest = "/x", vars = { n = 0/0 } })
      |                                                        ^^^
      = host: a
    "#);
}

#[test]
fn an_undefined_variable_in_a_template() {
    let book = Book::run("  host:template({ src = \"t.j2\", dest = \"/t\" })").file("templates/t.j2", "port = 1\nname = {{ svc.nam }}\n");
    let book = book.inventory("all: { vars: { svc: { name: x } }, hosts: { a: } }\n");
    insta::assert_snapshot!(book.error(), @r#"
    error: `svc.nam` is undefined
     --> templates/t.j2:2:11
      |
    2 | name = {{ svc.nam }}
      |           ^^^^^^^
      = called from play.lua:2:8
      = host: a
      = hint: did you mean `svc.name`?
    "#);
}

#[test]
fn a_missing_source() {
    let book = Book::run("  host:template({ src = \"nginx.cnf.j2\", dest = \"/t\" })").file("templates/nginx.conf.j2", "");
    insta::assert_snapshot!(book.error(), @r#"
    error: there is no `nginx.cnf.j2` on the controller
     --> play.lua:2:25
      |
    2 |   host:template({ src = "nginx.cnf.j2", dest = "/t" })
      |                         ^^^^^^^^^^^^^^
      = host: a
      | looked for templates/nginx.cnf.j2
      | looked for nginx.cnf.j2
      = hint: did you mean `nginx.conf.j2`?
    "#);
}

#[test]
fn variables_and_names() {
    let book = Book::run("  print(host.vars.adress)").inventory("all: { vars: { address: x }, hosts: { a: } }\n");
    insta::assert_snapshot!(book.error(), @r#"
    error: variable `adress` is not defined for host `a`
     --> play.lua:2:19
      |
    2 |   print(host.vars.adress)
      |                   ^^^^^^
      = host: a
      = hint: did you mean `address`?
      = hint: `kplay vars a` shows all variables and where they come from
    "#);
    let book = Book::run("  print(host.vars.tls.cert)").inventory("all:\n  vars:\n    tls: { crt: x, key: y }\n  hosts: { a: }\n");
    insta::assert_snapshot!(book.error(), @r#"
    error: `vars.tls.cert` is not defined
     --> play.lua:2:23
      |
    2 |   print(host.vars.tls.cert)
      |                       ^^^^
      = host: a
      | `tls` is defined in hosts.yaml:3
      = hint: did you mean `vars.tls.crt`?
    "#);
    insta::assert_snapshot!(error("  print(hots)"), @r#"
    error: there is no variable or function `hots`
     --> play.lua:2:9
      |
    2 |   print(hots)
      |         ^^^^
      = host: a
      = hint: did you mean `hosts`?
    "#);
    insta::assert_snapshot!(error("  count = 1"), @r#"
    error: `count` would become a global variable, which all hosts share
     --> play.lua:2:3
      |
    2 |   count = 1
      |   ^^^^^
      = host: a
      = hint: write `local count = …`
    "#);
    insta::assert_snapshot!(error("  local t = {}\n  print(t.a.b)"), @r#"
    error: attempt to index a nil value (field 'a')
     --> play.lua:3:11
      |
    3 |   print(t.a.b)
      |           ^
      = host: a
    "#);
    insta::assert_snapshot!(error("  error(\"the moon is wrong\")"), @r#"
    error: the moon is wrong
     --> play.lua:2
      |
    2 |   error("the moon is wrong")
      = host: a
    "#);
    insta::assert_snapshot!(error("  host:fail(\"no address\")"), @r#"
    error: no address
     --> play.lua:2
      |
    2 |   host:fail("no address")
      = host: a
    "#);
}

#[test]
fn mistakes_in_play() {
    let load = |text: &str| Book::new(text).error();
    insta::assert_snapshot!(load("play {\n  hosts = \"masers\",\n  run = function() end,\n}\n"), @r#"
    error: no host or group matches `masers`
     --> play.lua:2:11
      |
    2 |   hosts = "masers",
      |           ^^^^^^^^
      = hint: `kplay inventory --graph` shows hosts and groups
    "#);
    insta::assert_snapshot!(load("play {\n  hosts = \"all\", serail = 1,\n  run = function() end,\n}\n"), @r#"
    error: unknown field `serail` in a play
     --> play.lua:2:18
      |
    2 |   hosts = "all", serail = 1,
      |                  ^^^^^^
      = hint: did you mean `serial`?
    "#);
    insta::assert_snapshot!(load("play { hosts = \"all\", serial = \"half\", run = function() end }\n"), @r#"
    error: `serial` must be a number of hosts or a percentage such as "30%"
     --> play.lua:1:32
      |
    1 | play { hosts = "all", serial = "half", run = function() end }
      |                                ^^^^^^
    "#);
    insta::assert_snapshot!(load("play { hosts = \"all\" }\n"), @r#"
    error: a play needs a function `run`
     --> play.lua:1:1
      |
    1 | play { hosts = "all" }
      | ^^^^
      = hint: add `run = function(host) … end`
    "#);
    insta::assert_snapshot!(load("play {\n  hosts = \"all\"\n  run = function() end,\n}\n"), @r#"
    error: '}' expected (to close '{' at line 1) near 'run'
     --> play.lua:3:3
      |
    3 |   run = function() end,
      |   ^^^
    "#);
    insta::assert_snapshot!(load("local x = 1\n"), @r#"
    error: `play.lua` declares no play
     --> play.lua
      = hint: add `play { hosts = "all", run = function(host) … end }`
    "#);
    insta::assert_snapshot!(load("localhost:command({ command = \"x\" })\n"), @r#"
    error: `command` is called outside of a play
     --> play.lua:1:11
      |
    1 | localhost:command({ command = "x" })
      |           ^^^^^^^
      = hint: tasks belong into the `run` function of a `play`
    "#);
    insta::assert_snapshot!(load("print(localhost.facts)\n"), @r#"
    error: what only a host can answer is read outside of a play
     --> play.lua:1
      |
    1 | print(localhost.facts)
      = hint: read it in the `run` function of a `play`
    "#);
}

#[test]
fn what_cannot_wait_says_so() {
    insta::assert_snapshot!(
        error("  local a, b = host:command({ command = \"x\" }), host:command({ command = \"y\" })\n  local t = { a, b }\n  table.sort(t, function(l, r) return l.changed end)"),
        @r#"
    error: cannot wait for the result of `command y` in a function that Lua's library calls
     --> play.lua:4
      |
    4 |   table.sort(t, function(l, r) return l.changed end)
      = host: a
      = hint: read the field into a local variable before, and use that
    "#
    );
}

#[test]
fn errors_of_the_library_name_nothing_of_its_own() {
    for (body, message) in [
        ("string.format(\"%d\", \"x\")", "bad argument #2 to 'format' (number expected, got string)"),
        ("table.concat({ {} })", "invalid value (table) at index 1 in table for 'concat'"),
        ("table.concat(nil)", "attempt to get length of a nil value"),
        ("xpcall(error, 3)", "attempt to call a number value"),
    ] {
        let shown = error(body);
        assert_eq!(shown.lines().next(), Some(format!("error: {message}").as_str()));
        assert!(shown.contains(" --> play.lua:2"), "{shown}");
    }
}

#[test]
fn a_barrier_inside_once_is_refused() {
    insta::assert_snapshot!(error("  once(\"k\", function() barrier(\"b\") end)"), @r#"
    error: `barrier` is called inside `once`: the other hosts wait for that, and would never come to it
     --> play.lua:2
      |
    2 |   once("k", function() barrier("b") end)
      = host: a
      = hint: call it before or after `once`
    "#);
}

#[test]
fn recursion_without_end_is_told_at_once() {
    let since = std::time::Instant::now();
    let shown = error("local function f(n)\n  return 1 + f(n + 1)\nend\nf(1)");
    assert!(shown.contains("stack overflow") && shown.contains("called from play.lua:5"), "{shown}");
    assert!(since.elapsed() < std::time::Duration::from_secs(20), "{:?}", since.elapsed());
}

//! Roles, parameters and variables: where values come from.

use super::*;

const ROLE: &str = "return {
  summary = \"a server\",
  params = {
    port = { type = \"integer\", default = 1, doc = \"where it listens\" },
    name = { type = \"string\", required = true, doc = \"its name\" },
    modes = { type = \"list\", items = { type = \"string\", choices = { \"r\", \"w\" } }, default = {} },
    labels = { type = \"map\", items = { type = \"string\" }, default = {} },
    token = { type = \"string\", secret = true },
  },
  run = function(host, p)
    print(p.port, p.name, #p.modes, p.token)
    return p.port
  end,
}
";

fn book(call: &str) -> Book {
    Book::new(&format!("play {{ hosts = \"a\", vars = {{ own = \"play\" }}, run = function(host)\n{call}\nend }}\n"))
        .file("roles/server/role.lua", ROLE)
}

#[test]
fn parameters_come_from_the_default_the_inventory_the_play_the_call_and_the_command_line_in_this_order() {
    let call = "host:role(\"server\", { name = \"n\" })";
    assert_eq!(book(call).log(), ["say: 1 n 0 nil"]);
    let with_inventory = |call: &str| book(call).inventory("all: { vars: { port: 2 }, hosts: { a: } }\n");
    assert_eq!(with_inventory(call).log(), ["say: 2 n 0 nil"]);
    let in_play = || {
        let text = format!("play {{ hosts = \"a\", vars = {{ port = 3 }}, run = function(host) {call} end }}");
        with_inventory(call).file("play.lua", &text)
    };
    assert_eq!(in_play().log(), ["say: 3 n 0 nil"]);
    let given = "host:role(\"server\", { name = \"n\", port = 4 })";
    assert_eq!(with_inventory(given).log(), ["say: 4 n 0 nil"]);
    assert_eq!(with_inventory(given).extra("port", json!(5)).log(), ["say: 5 n 0 nil"]);
}

#[test]
fn a_role_returns_values_and_its_secrets_are_known() {
    let book = book("print(host:role(\"server\", { name = \"n\", modes = { \"r\", \"w\" }, token = \"hunter2-long\" }) + 1)");
    let secrets = Secrets::default();
    // Reports share the secrets from the start, and roles declare theirs later.
    let of_reports = secrets.clone();
    let mut program = book.load_with(Arc::default(), Box::new(NoServices), &secrets).unwrap();
    assert_eq!(of_reports.mask("it is hunter2-long"), "it is hunter2-long");
    program.begin(0, 0).unwrap();
    program.resume(0);
    assert_eq!(program.take_messages()[1].text, "2");
    assert_eq!(of_reports.mask("it is hunter2-long"), "it is ********");
}

#[test]
fn variables_are_strict_to_every_depth() {
    let yaml = "all:\n  vars: { tls: { ca: /ca, none: null, hosts: [{ ip: 1.2.3.4 }] } }\n  hosts: { a: }\n";
    let value = |expression: &str| book(&format!("print({expression})")).inventory(yaml).log().remove(0);
    assert_eq!(value("host.vars.tls.ca, host.vars.tls.none, host.vars.tls.hosts[1].ip, host.vars.own"), "say: /ca nil 1.2.3.4 play");
    assert_eq!(value("host.vars:get(\"nope\", 7), host.vars.tls:get(\"nope\"), host.vars:get(\"own\")"), "say: 7 nil play");
    assert_eq!(value("#host.vars.tls.hosts, host.vars.tls.hosts[2]"), "say: 1 nil");
    assert_eq!(value("host.vars.tls.cb"), "a failed: `vars.tls.cb` is not defined");
    assert_eq!(value("host.vars.tls.hosts[1].pi"), "a failed: `vars.tls.hosts[1].pi` is not defined");
    assert_eq!(value("host.vars.tsl"), "a failed: variable `tsl` is not defined for host `a`");
    assert_eq!(value("hosts(\"all\")[1].vars.tls.ca, #hosts(\"all\")"), "say: /ca 1");
}

#[test]
fn templates_see_parameters_and_variables_and_their_own_vars_win() {
    let book = book("host:role(\"web\", { port = 8 })")
        .inventory("all: { vars: { zone: z, port: 9 }, hosts: { a: } }\n")
        .file(
            "roles/web/role.lua",
            "return { params = { port = { type = \"integer\" }, extra = {} }, run = function(host, p)
               host:template({ src = \"t.j2\", dest = \"/t\", vars = { zone2 = \"own\" } }) end }",
        )
        .file(
            "roles/web/templates/t.j2",
            "{{ port }} {{ zone }} {{ zone2 }} {{ own }} {{ inventory_hostname }} {{ extra | default('none') }}\n",
        );
    let task = only_task(&book);
    assert_eq!(task.blobs, [Digest::of(b"8 z own play a none\n")]);
}

#[test]
fn the_same_content_is_kept_once_and_files_are_looked_for_in_the_role_first() {
    let book = book("host:role(\"web\")\nhost:copy({ src = \"f\", dest = \"/g\" })")
        .file("roles/web/role.lua", "return { run = function(host) host:copy({ src = \"f\", dest = \"/f\" }) print(read_file(\"f\"), find_file(\"f\"):match(\"^/.*(/roles/.*)\")) end }")
        .file("roles/web/files/f", "in role")
        .file("files/f", "in playbook");
    let mut blobs = Vec::new();
    let log = book.play(|task| {
        blobs.push(task.blobs.clone());
        changed()
    });
    assert_eq!(log[0], "say: in role /roles/web/files/f");
    assert_eq!(blobs, [[Digest::of(b"in role")], [Digest::of(b"in playbook")]]);
}

#[test]
fn data_goes_through_yaml_and_json_and_back() {
    let book = book(
        "local data = yaml.decode(\"a: [1, 2.5, x]\\nb: { c: true, d: [] }\\n\")
         print(json.encode(data), data.b.c)
         print(json.encode(json.decode('{\"x\":[],\"y\":{},\"z\":null}')))
         print(yaml.encode({ k = { 1, 2 } }))
         print(env(\"KPLAY_SURELY_NOT_SET\", \"default\"))",
    );
    let log = book.log();
    assert_eq!(log[0], "say: {\"a\":[1,2.5,\"x\"],\"b\":{\"c\":true,\"d\":[]}} true");
    assert_eq!(log[1], "say: {\"x\":[],\"y\":{}}");
    assert_eq!(log[2], "say: k:\n- 1\n- 2\n");
    assert_eq!(log[3], "say: default");
}

#[test]
fn mistakes_around_roles() {
    let role = |call: &str, text: &str| Book::run(&format!("  {call}")).file("roles/pki/role.lua", text).error();
    let good = "return {\n  params = { port = { type = \"integer\", required = true, doc = \"where it listens\" } },\n  run = function() end,\n}\n";
    insta::assert_snapshot!(role("host:role(\"pkii\")", good), @r#"
    error: there is no role `pkii`
     --> play.lua:2:8
      |
    2 |   host:role("pkii")
      |        ^^^^
      = host: a
      | looked for roles/pkii/role.lua
      | looked for ../roles/pkii/role.lua
      = hint: did you mean `pki`?
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\", { prot = 1 })", good), @r#"
    error: unknown parameter `prot` of role `pki`
     --> play.lua:2:22
      |
    2 |   host:role("pki", { prot = 1 })
      |                      ^^^^
      = host: a
      = hint: did you mean `port`?
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\", {})", good), @r#"
    error: missing parameter `port` of role `pki`
     --> play.lua:2:8
      |
    2 |   host:role("pki", {})
      |        ^^^^
      = host: a
      = hint: `port`: where it listens
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\", { port = \"x\" })", good), @r#"
    error: parameter `port` of role `pki` must be a whole number, not the string "x"
     --> play.lua:2:29
      |
    2 |   host:role("pki", { port = "x" })
      |                             ^^^
      = host: a
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\", { port = 1 }, { when = true })", good), @r#"
    error: unknown field `when` in the options of a role
     --> play.lua:2:36
      |
    2 |   host:role("pki", { port = 1 }, { when = true })
      |                                    ^^^^
      = host: a
      = hint: its fields are tags, become, become_user
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\")", "return {\n  params = { port = { typ = \"integer\" } },\n  run = function() end,\n}\n"), @r#"
    error: unknown field `typ` in parameter `port` of role `pki`
     --> roles/pki/role.lua:2:23
      |
    2 |   params = { port = { typ = "integer" } },
      |                       ^^^
      = called from play.lua:2:8
      = host: a
      = hint: did you mean `type`?
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\")", "return {\n  params = { port = { type = \"integer\", default = \"x\" } },\n  run = function() end,\n}\n"), @r#"
    error: the default of parameter `port` of role `pki` must be a whole number, not the string "x"
     --> roles/pki/role.lua:2:51
      |
    2 |   params = { port = { type = "integer", default = "x" } },
      |                                                   ^^^
      = called from play.lua:2:8
      = host: a
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\")", "return {\n  runn = function() end,\n}\n"), @r#"
    error: unknown field `runn` of role `pki`
     --> roles/pki/role.lua:2:3
      |
    2 |   runn = function() end,
      |   ^^^^
      = called from play.lua:2:8
      = host: a
      = hint: did you mean `run`?
    "#);
    insta::assert_snapshot!(role("host:role(\"pki\")", "local x = 1\n"), @r#"
    error: role `pki` must return a table, not nil
     --> roles/pki/role.lua
      = called from play.lua:2:8
      = host: a
      = hint: end the file with `return { summary = …, params = { … }, run = function(host, p) … end }`
    "#);
    let book =
        Book::run("  host:role(\"pki\")").file("roles/pki/role.lua", good).inventory("all:\n  vars:\n    port: https\n  hosts: { a: }\n");
    insta::assert_snapshot!(book.error(), @r#"
    error: parameter `port` of role `pki` must be a whole number, not the string "https"
     --> hosts.yaml:3
      |
    3 |     port: https
      = called from play.lua:2:8
      = host: a
    "#);
}

#[test]
fn the_controller_keeps_what_hosts_share() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/file").display().to_string();
    let value = |code: &str| book(&format!("local file = \"{path}\" {code}")).log().join("\n");
    assert_eq!(value("print(kept(file))"), "say: nil");
    assert_eq!(value("keep(file, \"text\") print(kept(file)) keep(file, \"other\") print(kept(file))"), "say: text\nsay: other");
    assert_eq!(value("print(#random_secret(32), random_secret(8) ~= random_secret(8), secret(\"a b\"))"), "say: 44 true a b");
    for (code, message) in [
        ("random_secret(7)", "`random_secret` takes a number of bytes from 8 to 4096"),
        ("keep(file .. \"/\", \"x\")", "cannot be the name of a file"),
        ("keep(\"\", \"x\")", "`` cannot be the name of a file"),
        ("keep(file, 7)", "`keep` takes a text, not a number"),
        ("kept({})", "`kept` takes a text, not"),
    ] {
        assert!(value(code).contains(message), "{code}: {}", value(code));
    }
}

//! Each kind of mistake, in a playbook whose first tasks are right: the whole text of what is said, and no host touched.

use std::fs;

use crate::hosts;
use crate::support::kplay::Kplay;

const ROLE: &str = r#"
    return {
      summary = "a web server",
      params = { port = { type = "integer", default = 80, doc = "Where it listens." } },
      run = function(host, p)
        host:template({ src = "site.j2", dest = "/site" })
      end,
    }
"#;

/// A play of two hosts whose first tasks would change something, with a mistake for the second host alone, and the files it needs.
fn book(mistake: &str) -> Kplay {
    let play = format!(
        r#"play {{
  name = "site",
  hosts = "all",
  run = function(host)
    host:copy({{ content = authority("pki"), dest = "/ca.pem" }})
    host:copy({{ src = key_pair("shared").public, dest = "/shared.pub" }})
    if host.name == "b" then
      {mistake}
    end
  end,
}}
"#
    );
    hosts(&["a", "b"])
        .file("roles/web/role.lua", ROLE)
        .file("roles/web/templates/site.j2", "listen 80;\nserver_name {{ server_nam }};\n")
        .file("group_vars/all.yaml", "server_name: example.com\nport: 80\n")
        .playbook(&play)
}

/// Runs it: nothing but this is said, and nothing is made, neither on a host nor here.
#[track_caller]
fn refused(kplay: Kplay, said: &str) {
    let ran = kplay.stdout("").stderr(said).status(1).run();
    for host in ["a", "b"] {
        assert_eq!(fs::read_dir(ran.path(host)).unwrap().count(), 0, "{host} was touched");
    }
    assert!(!ran.path("pki").exists() && !ran.path("shared.key").exists(), "the controller was changed");
}

#[test]
fn the_name_of_a_module() {
    refused(
        book(r#"host:coppy({ dest = "/x", content = "x" })"#),
        r#"
        error: there is no module `coppy`
         --> play.lua:8:12
          |
        8 |       host:coppy({ dest = "/x", content = "x" })
          |            ^^^^^
          = host: b
          = hint: did you mean `copy`?
        "#,
    );
}

#[test]
fn the_name_of_an_argument() {
    refused(
        book(r#"host:copy({ dest = "/x", contnt = "x" })"#),
        r#"
        error: unknown argument `contnt` for module `copy`
         --> play.lua:8:32
          |
        8 |       host:copy({ dest = "/x", contnt = "x" })
          |                                ^^^^^^
          = host: b
          = hint: did you mean `content`?
        "#,
    );
}

#[test]
fn the_name_of_a_variable() {
    refused(
        book(r#"host:copy({ dest = "/x", content = host.vars.server_nme })"#),
        r#"
        error: variable `server_nme` is not defined for host `b`
         --> play.lua:8:52
          |
        8 |       host:copy({ dest = "/x", content = host.vars.server_nme })
          |                                                    ^^^^^^^^^^
          = host: b
          = hint: did you mean `server_name`?
          = hint: `kplay vars b` shows all variables and where they come from
        "#,
    );
}

#[test]
fn the_name_of_a_variable_in_a_template() {
    refused(
        book(r#"host:role("web")"#),
        "
        error: `server_nam` is undefined
         --> roles/web/templates/site.j2:2:16
          |
        2 | server_name {{ server_nam }};
          |                ^^^^^^^^^^
          = called from roles/web/role.lua:5:10
          = called from play.lua:8:12
          = host: b
          = hint: did you mean `server_name`?
        ",
    );
}

#[test]
fn the_name_of_a_role_or_of_its_parameter() {
    refused(
        book(r#"host:role("wbe")"#),
        r#"
        error: there is no role `wbe`
         --> play.lua:8:12
          |
        8 |       host:role("wbe")
          |            ^^^^
          = host: b
          | looked for roles/wbe/role.lua
          | looked for ../roles/wbe/role.lua
          = hint: did you mean `web`?
        "#,
    );
    refused(
        book(r#"host:role("web", { prot = 81 })"#),
        r#"
        error: unknown parameter `prot` of role `web`
         --> play.lua:8:26
          |
        8 |       host:role("web", { prot = 81 })
          |                          ^^^^
          = host: b
          = hint: did you mean `port`?
        "#,
    );
}

#[test]
fn a_pattern_of_hosts() {
    let groups = "databases: { hosts: { a: } }\n";
    let book = |mistake| book(mistake).file("groups.yaml", groups).args(["-i", "groups.yaml"]);
    refused(
        book(r#"host:copy({ dest = "/x", content = hosts("databses")[1].name })"#),
        r#"
        error: no host or group matches `databses`
         --> play.lua:8:42
          |
        8 |       host:copy({ dest = "/x", content = hosts("databses")[1].name })
          |                                          ^^^^^
          = host: b
          = hint: did you mean `databases`?
        "#,
    );
    let play = "play { name = 'first', hosts = 'all', run = function(host) host:file({ path = '/x', state = 'touch' }) end }\n\
                play { name = 'second', hosts = 'all:!databses', run = function(host) end }\n";
    refused(
        hosts(&["a", "b"]).file("groups.yaml", groups).playbook(play).args(["-i", "groups.yaml"]),
        "
        error: no host or group matches `databses`
         --> play.lua:2:33
          |
        2 | play { name = 'second', hosts = 'all:!databses', run = function(host) end }
          |                                 ^^^^^^^^^^^^^^^
          = hint: did you mean `databases`?
        ",
    );
    refused(
        book("").args(["--limit", "databses"]),
        "
        error: no host or group matches `databses`
          = hint: did you mean `databases`?
        ",
    );
}

#[test]
fn a_key_in_yaml() {
    refused(
        book("").file("more.yaml", "databases:\n  hsots:\n    a:\n").args(["-i", "more.yaml"]),
        "
        error: unknown key `hsots` in the group `databases`
         --> more.yaml:2:3
          |
        2 |   hsots:
          |   ^^^^^
          = hint: did you mean `hosts`?
        ",
    );
    refused(
        book("").file("host_vars/b.yaml", "port: 80\nname: x\nport: 81\n"),
        "
        error: the key `port` is given twice, first in line 1
         --> host_vars/b.yaml:3:1
          |
        3 | port: 81
          | ^^^^
        ",
    );
}

#[test]
fn an_option() {
    refused(
        book(r#"host:copy({ dest = "/x", content = "x" }, { tag = "web" })"#),
        r#"
        error: unknown option `tag`
         --> play.lua:8:51
          |
        8 |       host:copy({ dest = "/x", content = "x" }, { tag = "web" })
          |                                                   ^^^
          = host: b
          = hint: did you mean `tags`?
        "#,
    );
}

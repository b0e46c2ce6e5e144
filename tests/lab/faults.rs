//! Units that are missing, fail, or cannot be loaded: each host says what is wrong with its own, and the others go on.

use crate::support::{Lab, build_agent};

const HOSTS: &str = "
all:
  vars:
    lab: { packages: [etcd-server, etcd-client, nginx-light, libnginx-mod-stream, keepalived] }
  hosts:
    good: { address: 10.92.7.11 }
    bad: { address: 10.92.7.12 }
";

/// Starts a unit that fails on `bad`; `good` has one that does not.
const FAILING: &str = r#"
play { name = "failing", hosts = "all", run = function(host)
  local says = host.name == "bad" and "echo cannot open /etc/demo.conf >&2; exit 3" or "exec sleep 1000"
  host:copy({
    dest = "/etc/systemd/system/demo.service",
    content = "[Service]\nType=TYPE\nExecStart=/bin/sh -c '" .. says .. "'\n[Install]\nWantedBy=multi-user.target\n",
  })
  host:systemd({ name = "demo", state = "started", enabled = true })
  host:copy({ dest = "/root/after-" .. "TYPE", content = "x" })
end }
"#;

const MISSING: &str = r#"
play { name = "missing", hosts = "all", run = function(host)
  host:systemd({ name = host.name == "bad" and "systemd-jurnald" or "systemd-journald", state = "started" })
  host:copy({ dest = "/root/after-missing", content = "x" })
end }
"#;

#[test]
fn units_that_cannot_start_say_why() {
    build_agent();
    let lab = Lab::up(HOSTS);
    let play = |text: &str| {
        std::fs::write(lab.folder().join("play.lua"), text).unwrap();
        let ended = lab.kplay(&["play.lua"]);
        assert_eq!(ended.code, 2, "{}\n{}", ended.stdout, ended.stderr);
        ended.stdout
    };
    println!("{}", play(MISSING));
    for kind in ["simple", "exec", "oneshot", "notify"] {
        println!("{}", play(&FAILING.replace("TYPE", kind)));
        lab.sh("good", &format!("systemctl is-active demo && test -e /root/after-{kind}")).success();
    }
}

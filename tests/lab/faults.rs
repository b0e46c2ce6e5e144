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
    let play = |text: &str, needles: &[&str]| {
        std::fs::write(lab.folder().join("play.lua"), text).unwrap();
        let ended = lab.kplay(&["play.lua"]);
        assert_eq!(ended.code, 2, "{}\n{}", ended.stdout, ended.stderr);
        // What is said stands below the task of `bad` that failed, and nowhere else.
        let told = ended.stdout.split("\n! bad ").nth(1).and_then(|rest| rest.split("\n~ ").next()).unwrap_or_default();
        for needle in needles {
            assert!(told.contains(needle), "{needle} is not in\n{}", ended.stdout);
        }
        assert_eq!(ended.stdout.matches("error: ").count(), 1, "{}", ended.stdout);
    };
    let said = ["error: there is no unit `systemd-jurnald.service` on this host", "= hint: did you mean `systemd-journald.service`?"];
    play(MISSING, &said);
    lab.sh("good", "test -e /root/after-missing").success();
    lab.sh("bad", "test ! -e /root/after-missing").success();

    let said = [
        " --> play.lua:8:8\n",
        "state: failed (failed), result: exit-code",
        "ExecStart: /bin/sh -c echo cannot open /etc/demo.conf >&2; exit 3",
        "| cannot open /etc/demo.conf",
        "| demo.service: Main process exited, code=exited, status=3",
    ];
    // With `exec`, systemd itself may see the program end before it calls the unit started.
    for (kind, error) in [("simple", "error: `demo.service` failed right after its start: exit-code"), ("exec", "`demo.service`")] {
        play(&FAILING.replace("TYPE", kind), &[&said[..], &[error]].concat());
        lab.sh("good", &format!("systemctl is-active -q demo && test -e /root/after-{kind}")).success();
        lab.sh("bad", &format!("test ! -e /root/after-{kind}")).success();
    }
    let said = ["error: cannot start `demo.service`: Job for demo.service failed", "| cannot open /etc/demo.conf"];
    play(&FAILING.replace("TYPE", "forking").replace("exec sleep 1000", "sleep 1000 &"), &said);
    lab.sh("good", "test -e /root/after-forking").success();
}
